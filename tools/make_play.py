"""Make what the pages play with, ``advlib/play/data``: committed weights and MNIST.

``python tools/make_play.py`` writes one plain script for each network (``NETWORKS``)
and one with ten digits, the first test image of each class that all networks read
rightly. A test remakes the files and compares.
"""

import base64
import json
from pathlib import Path

import torch
from torch import Tensor, nn

from advlib import attacks, data, models, play, training, zoo
from advlib.files import atomic_write

FOLDER = Path(play.__file__).parent / "data"
# a network of the pages, the recipe it comes from, bits of a weight
NETWORKS = {
    "standard": ("small", 6),
    "pgd": ("small_pgd", 6),
    "ibp": ("small_ibp", 6),
    "cnn": ("cnn_small_pgd_0", 6),
}
# of Chapter 3; the first 300 test images' one that fools all four and whose rise of the
# loss over its prediction is nearest to the four medians, in ratio
SCALED = ("linear", "dnn_2", "dnn_4", "cnn")
SCALED_IMAGE = 284


def script(shelf: str, name: str, value: dict) -> bytes:
    """Return a plain script that puts ``value`` on a ``shelf`` of ``Sides``."""
    text = json.dumps(value, separators=(",", ":"))
    start = "(globalThis.Sides ??= { parts: {} })"
    return f'({start}.{shelf} ??= {{}})["{name}"] = {text};\n'.encode()


def notes(dataset: data.Dataset) -> dict[str, dict]:
    """Return the note of each network, with its name and test error."""
    made = {}
    for name, (recipe, bits) in NETWORKS.items():
        note = play.note(zoo.load(recipe, dataset), dataset.shape, bits=bits)
        wrong = ~read_rightly(play.from_note(note), dataset)
        about = {"recipe": recipe, "wrong": int(wrong.sum()), "of": len(wrong)}
        made[name] = note | about
    return made


def read_rightly(model: nn.Module, dataset: data.Dataset) -> Tensor:
    """Return which test images (N,) the ``model`` reads rightly."""
    x, y = dataset.test
    with torch.no_grad():
        return torch.cat(
            [
                model(part.double()).argmax(1) == label
                for part, label in zip(x.split(1000), y.split(1000), strict=True)
            ]
        )


def digits(dataset: data.Dataset, made: dict[str, dict]) -> dict:
    """Return ten images, one a class, as bytes in base64, and their places."""
    right = torch.stack(
        [read_rightly(play.from_note(note), dataset) for note in made.values()]
    ).all(0)
    x, y = dataset.test
    places = [int((right & (y == digit)).nonzero()[0]) for digit in range(10)]
    pixels = (x[places] * 255).round().to(torch.uint8)
    return {
        "pixels": base64.b64encode(pixels.numpy().tobytes()).decode(),
        "places": places,
    }


def plane() -> dict:
    """Return the network 2-8-2 of Chapter 3 and its points, to four decimals."""
    points, labels = data.toy("moons", 200)
    points = points.double()
    tiny = models.seeded(models.mlp, (1, 1, 2), [8], 2, seed=3).double()
    training.fit(tiny, points, labels, epochs=300, lr=1.0, batch_size=20)
    weights = [p.detach() for p in tiny.parameters()]
    return {
        "weights": [_short(w) for w in weights[::2]],
        "biases": [_short(b) for b in weights[1::2]],
        "points": _short(points),
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
        slope = torch.func.jvp(net, (x,), (delta,))[1][0].detach()
        networks[name] = {
            "logits": _short(z),
            "slope": _short(slope),
            "changed": _pixels(x + delta),
        }
    return {"label": int(y), "image": _pixels(x), "networks": networks}


def _pixels(x: Tensor) -> str:
    pixels = (x * 255).round().to(torch.uint8)
    return base64.b64encode(pixels.numpy().tobytes()).decode()


def _short(values: Tensor) -> list:
    return values.double().mul(1e4).round().div(1e4).tolist()


def make() -> dict[str, bytes]:
    """Return all files of ``advlib/play/data``, name and content."""
    dataset = data.load("mnist")
    made = notes(dataset)
    files = {f"{name}.js": script("notes", name, made[name]) for name in made}
    shown = digits(dataset, made)
    for name, record in (("plane", plane()), ("scale", scale(dataset))):
        files[f"{name}.js"] = script("records", name, record)
    return files | {"digits.js": script("images", "digits", shown)}


def main() -> None:
    """Write the files and say how large they are."""
    FOLDER.mkdir(exist_ok=True)
    for name, content in make().items():
        atomic_write(FOLDER / name, content)
        print(f"{name:14} {len(content) / 1000:6.1f} kB")


if __name__ == "__main__":
    main()
