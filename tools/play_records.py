"""What figures show beside networks and digits, each as a page has it.

A record comes from what is committed, results, weights, word vectors, and from MNIST;
numbers are rounded, so that they are the same on every machine.
"""

import base64
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from advlib import (
    activations,
    attacks,
    data,
    models,
    plot,
    results,
    training,
    units,
    words,
    zoo,
)
from advlib.evaluation.masking import SIGNS
from advlib.play.figures import arms

# of Chapter 3; the first 300 test images' one that fools all four and whose rise of the
# loss over its prediction is nearest to the four medians, in ratio
SCALED = ("linear", "dnn_2", "dnn_4", "cnn")
SCALED_IMAGE = 284
# the masks of the record of Chapter 7a, inside out, and the letter of an image that is
# an error for this method and for none before
LETTERS = {
    "clean": "m",
    "fgsm": "f",
    "pgd": "p",
    "strong": "s",
    "exact": "a",
    "open": "u",
    "alpha": "c",
    "crown": "z",
    "interval": "w",
}
LAST = "i"  # an error for none: intervals certify it


def letters(run: dict) -> str:
    """Return one letter for each image of a ``run``: which method decided it."""
    made = np.full(run["n"], LAST)
    for method, letter in reversed(LETTERS.items()):
        digits = np.frombuffer(bytes.fromhex(run["errors"][method]), np.uint8)
        made[np.unpackbits(digits)[: run["n"]].astype(bool)] = letter
    return "".join(made)


def mosaic(dataset: data.Dataset) -> dict:
    """Return who decided which image, from the record; labels and small pictures."""
    stored = results.load("both_sides")["data"]
    networks = []
    for name in stored["networks"]:
        runs = [run for run in stored["runs"] if run["network"] == name]
        if any(run["errors"].get("lp", run["errors"]["alpha"]) !=
               run["errors"]["alpha"] for run in runs):  # fmt: skip
            raise ValueError("the linear program decides an image: it needs a letter")
        networks.append(
            {
                "name": name,
                "words": plot.text(name),
                "eps": [run["eps"] for run in runs],
                "verdicts": [letters(run) for run in runs],
                "nodes": [run["search"]["nodes"] for run in runs],
            }
        )
    most = max(run["n"] for run in stored["runs"])
    x, y = (part[:most] for part in dataset.test)
    small = (torch.nn.functional.avg_pool2d(x, 2) * 15).round().to(torch.uint8)
    pairs = small.flatten().view(-1, 2).numpy()
    packed = (16 * pairs[:, 0] + pairs[:, 1]).tobytes()
    return {
        "networks": networks,
        "labels": "".join(map(str, y.tolist())),
        "pixels": base64.b64encode(packed).decode(),
    }


def cheats(_: data.Dataset) -> dict:
    """Return the networks of the record ``masking`` that a reader is asked about.

    Those on MNIST that its thresholds were not fixed on, but for the random ones, whose
    noise hides little. Shares are of ``images``; ``shown`` and ``fired`` of each check.
    """
    record = results.load("masking")["data"]
    rows = [
        found
        for found in record["networks"]
        if (found["dataset"], found["role"]) == ("mnist", "test")
        and found["mask"] != "random"
    ]
    networks = [
        {
            "name": plot.LABELS.get(row["base"], row["base"]),
            **{key: row[key] for key in ("base", "mask", "eps")},
            "wrong": [row[f"{way}_wrong"] for way in ("clean", "pgd", "adaptive")],
            "shown": [row["checks"][name]["value"] for name in SIGNS],
            "fired": [int(row["checks"][name]["fired"]) for name in SIGNS],
        }
        for row in rows
    ]
    checks = [[name, *SIGNS[name]] for name in SIGNS]
    return {"images": record["images"], "checks": checks, "networks": networks}


def gates(dataset: data.Dataset) -> dict:
    """Return the first test image's way to a long attack's end, as the network sees it.

    The small network trained against PGD; the attack is the best of four runs of
    PGD-40 on the margin loss at 0.3, through ReLU's gradient and a smooth one. What the
    first layer says is linear along the way: ``start`` + t ``step``. Then ``weight``
    and ``bias`` of the second, and ``out``, ``last``: best rival minus label.
    """
    model = zoo.load("small_pgd", dataset).double().requires_grad_(False)
    x, y = (part[:1] for part in dataset.test)
    x, loss = x.double(), attacks.margin_loss
    twins = [activations.with_gradient(model, smooth=s) for s in (False, True)]
    turns = iter(2 * twins)

    def run(g: torch.Generator) -> Tensor:
        return attacks.pgd_linf(next(turns), x, y, 0.3, alpha=0.3 / 8, num_steps=40,
                                generator=g, loss=loss)  # fmt: skip

    delta = attacks.best_of(run, model, x, y, num_restarts=4, loss=loss)
    label, rival = int(y), int(model(x + delta).argmax())
    first, second, third = (part for part in model if isinstance(part, nn.Linear))
    begin, end = first(x.flatten(1))[0], first((x + delta).flatten(1))[0]
    numbers = {
        "start": begin, "step": end - begin, "weight": second.weight,
        "bias": second.bias, "out": third.weight[rival] - third.weight[label],
        "last": third.bias[rival] - third.bias[label],
    }  # fmt: skip
    rounded = {key: short(value, 4) for key, value in numbers.items()}
    return rounded | {"label": label, "rival": rival}


def guess(_: data.Dataset) -> dict:
    """Return the eight words on top of directions that Chapter 9b does not print.

    Of 36 dimensions and 36 random directions, raw vectors and those of length one.
    """
    vectors, made = words.load("imdb8"), {"first": 9}
    g = torch.Generator().manual_seed(0)
    random = units.random_directions(1000, 100, generator=g)[8:44]
    directions = {"dimensions": torch.eye(100).double()[8:44], "random": random}
    for form, matrix in zip(("raw", "unit"), words.both(vectors.matrix), strict=True):
        made[form] = {
            kind: [
                " ".join(row) for row in vectors.rows(units.top_images(matrix, v, 8))
            ]
            for kind, v in directions.items()
        }
    return made


def turn(dataset: data.Dataset) -> dict:
    """Return what turning an arrow between two units needs, as Chapter 9a has it.

    The two live units of largest variance in ``cnn_shallow_0``; 150 test images as
    points; every image that is among the top eight at some whole degree, 4 bits a
    pixel; and how many of 1000 random directions have 0, 1, ..., 8 of 8 in one class.
    """
    net, (x, y) = zoo.load("cnn_shallow_0", dataset).double(), dataset.test
    live = units.live_units(units.features(net, dataset.validation[0].double(), -2))
    phi = units.features(net, x.double(), -2)[:, live]
    pair = phi.std(0).argsort(descending=True)[:2]
    plane = phi[:, pair].round(decimals=4)
    tops = units.top_images(plane, degrees(), 8)
    seen = tops.unique()
    v = units.random_directions(
        1000, phi.shape[1], generator=torch.Generator().manual_seed(0)
    )
    pure = (8 * units.purity(y[units.top_images(phi, v, 8)])).round().long()
    pixels = (15 * x[seen]).round().to(torch.uint8).flatten()
    return {
        "units": live.nonzero().flatten()[pair].tolist(),
        "points": [
            [*short(p, 2), int(c)] for p, c in zip(plane[:150], y, strict=False)
        ],
        "places": seen.tolist(),
        "labels": y[seen].tolist(),
        "plane": short(plane[seen], 4),
        "random": pure.bincount(minlength=9).tolist(),
        "pixels": base64.b64encode((16 * pixels[::2] + pixels[1::2]).numpy()).decode(),
    }


def degrees() -> Tensor:
    """Return the directions (360, 2) at each degree; an axis is exactly one."""
    angles = torch.arange(360).double().deg2rad()
    return torch.stack([angles.cos(), angles.sin()], 1).round(decimals=12)


WALKERS = ("fc10_1e-4", "fc_100_100", "cnn_small", "cnn_small_pgd_0")
REACHES = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)  # how far a walk goes
FAR = 80  # its steps
GRID = torch.logspace(-3, 0.5, 200, dtype=torch.float64)


def walk(dataset: data.Dataset) -> dict:
    """Return walks along the gradient's sign, as Chapter 10b goes them: without box.

    Of each class the first test image that four networks read rightly; for each of
    them and each image the margin at ``FAR`` + 1 points, what the network says there,
    the tangent (z_y - z_j and its slope, over the nine other classes), and where the
    class changes: by the tangent, and in truth, the first time.
    """
    nets = {name: zoo.load(name, dataset).double() for name in WALKERS}
    x, y = dataset.test[0][:300].double(), dataset.test[1][:300]
    with torch.no_grad():
        right = torch.stack([m(x).argmax(1) == y for m in nets.values()]).all(0)
    places = [int((right & (y == digit)).nonzero()[0]) for digit in range(10)]
    x, y, walks = x[places], y[places], {}
    for name, model in nets.items():
        v = attacks.input_gradient(model.requires_grad_(False), x, y).sign()
        walks[name] = [
            _walked(model, x[k : k + 1], v[k : k + 1], int(y[k])) for k in range(10)
        ]
    pixels = (255 * x).round().to(torch.uint8)
    return {
        "places": places,
        "pixels": base64.b64encode(pixels.numpy().tobytes()).decode(),
        "walks": walks,
    }


def _first(wrong: Callable[[float], bool], on_grid: Tensor) -> float | None:
    """Return where it is first ``wrong`` on the ``GRID``, bisected; None if nowhere."""
    if not on_grid.any():
        return None
    first = int(on_grid.nonzero()[0])
    low, high = float(GRID[first - 1]) if first else 0.0, float(GRID[first])
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (low, middle) if wrong(middle) else (middle, high)
    return high


def _walked(model: nn.Module, x: Tensor, v: Tensor, label: int) -> dict:
    """Return one walk from ``x`` (1, C, H, W) along ``v``."""
    others = torch.arange(10) != label

    def lead(eps: Tensor) -> tuple[Tensor, Tensor]:
        z = model(x + eps.double().view(-1, 1, 1, 1) * v)
        return z[:, label] - z[:, others].amax(1), z.argmax(1)

    here = x.clone().requires_grad_()
    z = model(here)
    slope = [torch.autograd.grad(part, here, retain_graph=True)[0] for part in z[0]]
    slope, z = (torch.stack(slope) * v).flatten(1).sum(1)[None], z.detach()
    gap, turn = z[0, label] - z[0, others], slope[0, label] - slope[0, others]
    down = turn < 0
    predicted = float((-gap / turn)[down].min()) if down.any() else None
    actual = _first(lambda eps: bool(lead(torch.tensor([eps]))[0] <= 0),
                    lead(GRID)[0] <= 0)  # fmt: skip
    ends = [end for end in (actual, predicted) if end is not None]
    reach = next((r for r in REACHES if r >= 1.25 * max(ends)), REACHES[-1])
    margins, said = lead(torch.linspace(0, reach, FAR + 1, dtype=torch.float64))
    signs = (v.flatten().long() + 1).view(-1, 4) @ torch.tensor([64, 16, 4, 1])
    return {
        "reach": reach,
        "margins": short(margins, 4),
        "said": "".join(map(str, said.tolist())),
        "gap": short(gap, 4),
        "turn": short(turn, 4),
        "predicted": predicted and round(predicted, 5),
        "actual": actual and round(actual, 5),
        "signs": base64.b64encode(signs.to(torch.uint8).numpy().tobytes()).decode(),
    }


def short(numbers: Tensor, digits: int) -> list | float:
    """Return ``numbers`` as nested lists, rounded to ``digits`` after the point."""
    if numbers.dim():
        return [short(part, digits) for part in numbers]
    return round(float(numbers), digits) + 0.0  # no -0.0


def plane(_: data.Dataset) -> dict:
    """Return the network 2-8-2 of Chapter 3 and its points, to four decimals."""
    points, labels = data.toy("moons", 200)
    points = points.double()
    tiny = models.seeded(models.mlp, (1, 1, 2), [8], 2, seed=3).double()
    training.fit(tiny, points, labels, epochs=300, lr=1.0, batch_size=20)
    weights = [p.detach() for p in tiny.parameters()]
    return {
        "weights": [rounded(w) for w in weights[::2]],
        "biases": [rounded(b) for b in weights[1::2]],
        "points": rounded(points),
        "labels": "".join(map(str, labels.tolist())),
        "shown": {"A": 2, "B": 9},
    }


def scale(dataset: data.Dataset) -> dict:
    """Return logits on the way from one test image to the worst point PGD finds.

    As in Chapter 3: radius 0.1, 15 signed steps on the margin. For each network the
    logits at 21 shares of the way and their derivatives at the image, to four decimals,
    and the pixels of the changed image.
    """
    x, y = (part[SCALED_IMAGE : SCALED_IMAGE + 1] for part in dataset.test)
    networks = {}
    for name in SCALED:
        net, x = zoo.load(name, dataset).double(), x.double()
        delta = attacks.pgd_linf(
            net, x, y, 0.1, alpha=0.1 / 4, num_steps=15, loss=attacks.margin_loss
        )
        with torch.no_grad():
            z = net(x + torch.linspace(0, 1, 21).double()[:, None, None, None] * delta)
        slope = torch.autograd.functional.jacobian(
            lambda t, net=net, x=x, delta=delta: net(x + t * delta)[0],
            torch.zeros((), dtype=torch.float64),
        )
        networks[name] = {
            "logits": rounded(z),
            "slope": rounded(slope),
            "changed": pixels(x + delta),
        }
    return {"label": int(y), "image": pixels(x), "networks": networks}


def pixels(x: Tensor) -> str:
    """Return the grey levels of images ``x`` in [0, 1] as bytes in base64."""
    levels = (x * 255).round().to(torch.uint8)
    return base64.b64encode(levels.numpy().tobytes()).decode()


def rounded(values: Tensor) -> list:
    """Return ``values`` to four decimals, as nested lists."""
    return values.double().mul(1e4).round().div(1e4).tolist()


def overfit(dataset: data.Dataset) -> dict:
    """Return the record ``fgsm_ray``, errors as shares, by the name of the training."""
    record = results.load("fgsm_ray")["data"]
    runs = {
        name: [
            {way: wrong / record["images"] for way, wrong in row["errors"].items()}
            | {"rays": row["rays"]}
            for row in record["runs"][key]
        ]
        for name, key in (("FGSM", "fgsm_3"), ("fast", "fast_3"))
    }
    return {"shares": record["shares"], "runs": runs}


RECORDS: dict[str, Callable[[data.Dataset], dict]] = {
    "arms": lambda _: arms.data(),
    "cheats": cheats,
    "gates": gates,
    "guess": guess,
    "mosaic": mosaic,
    "overfit": overfit,
    "plane": plane,
    "scale": scale,
    "turn": turn,
    "walk": walk,
}
