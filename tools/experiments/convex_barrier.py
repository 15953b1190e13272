"""Which verdicts the convex barrier costs, and which of them products of units restore.

    python tools/experiments/convex_barrier.py

``barrier``: the book's small MNIST networks. Each image is decided by branch and bound;
of the robust ones, which are certified by CROWN, by the triangle's linear program with
the same bounds, and by that program with LP-optimal bounds before each ReLU, the best
relaxation with one input and one output a unit. ``sdp``: small networks on images of 4
x 4 pixels, where the semidefinite program can be solved: the same, and, with
the LP-optimal bounds as well, the semidefinite program. Each image has one letter,
``LETTERS``. Times are CPU seconds of one thread. Each case is kept in CACHE when done,
so that a run that was stopped goes on where it was; the record is saved after each.
"""

import argparse
import json
import time
from pathlib import Path

from torch import Tensor, nn

from advlib import (
    attacks,
    bounds,
    branch_and_bound,
    data,
    evaluation,
    models,
    relaxations,
    results,
    training,
    zoo,
)
from advlib.files import atomic_write

LETTERS = {
    "w": "misclassified as it is",
    "x": "robust is false: a counterexample was found",
    "u": "undecided: branch and bound reached its limit",
    "c": "certified by CROWN",
    "l": "certified by the linear program with CROWN's bounds, not by CROWN",
    "b": "certified by the linear program with LP-optimal bounds only",
    "s": "certified by the semidefinite program, by no linear program",
    "o": "robust by branch and bound alone",
}
BARRIER = {
    "small": [0.02, 0.04, 0.06, 0.08],
    "small_pgd": [0.04, 0.08, 0.12, 0.15],
    "small_ibp": [0.04, 0.08, 0.12, 0.15],
}
# hidden layers, seeds, radii
SDP = [
    ([16, 16], [0, 1, 2], [0.02, 0.04, 0.06, 0.08]),
    ([12, 12, 12], [0, 1, 2], [0.02, 0.04, 0.06, 0.08]),
]
TRAIN_EPS, EPOCHS = 0.02, 6
IMAGES, LIMIT = 100, 60.0  # CPU seconds an image for branch and bound
CACHE = Path(".cache_convex_barrier.json")
COMMAND = "python tools/experiments/convex_barrier.py"


def pooled(dataset: data.Dataset) -> list[tuple[Tensor, Tensor]]:
    """Return training and test images of 4 x 4 means of blocks, float64."""
    shrink = nn.AdaptiveAvgPool2d(4)
    return [(shrink(x).double(), y) for x, y in (dataset.train, dataset.test)]


def trained(train: tuple[Tensor, Tensor], hidden: list[int], seed: int) -> nn.Module:
    """Return a network trained on four steps of PGD, in float64."""

    def attack(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        alpha = TRAIN_EPS / 2
        return attacks.pgd_linf(model, x, y, TRAIN_EPS, alpha=alpha, num_steps=4)

    shape = tuple(train[0].shape[1:])
    net = models.seeded(models.mlp, shape, hidden, seed=seed).double()
    training.fit(net, *train, epochs=EPOCHS, lr=0.1, attack=attack, seed=seed)
    return net.requires_grad_(False)


def beyond(
    net: nn.Module, x: Tensor, y: Tensor, eps: float, sdp: bool, spent: dict
) -> str:
    """Return the letter of one robust image (1, ...) that CROWN leaves open."""
    began = time.process_time()
    margins = relaxations.lp_margins(net, x, y, eps)
    spent["lp"] += time.process_time() - began
    if bounds.certified(margins, y):
        return "l"
    began = time.process_time()
    tight = relaxations.lp_bounds(net, *bounds.input_box(x, eps))
    margins = relaxations.lp_margins(net, x, y, eps, pre=tight)
    spent["best"] += time.process_time() - began
    if bounds.certified(margins, y):
        return "b"
    if not sdp:
        return "o"
    began, label = time.process_time(), int(y)
    left = [j for j in (margins[0] <= 0).nonzero()[:, 0].tolist() if j != label]
    proved = all(
        relaxations.sdp_margin(net, x[0], label, j, eps, pre=tight) > 0 for j in left
    )
    spent["sdp"] += time.process_time() - began
    return "s" if proved else "o"


def measure(net: nn.Module, x: Tensor, y: Tensor, eps: float, sdp: bool) -> dict:
    """Return the letters of all images, and the CPU seconds of each method.

    Seconds are those spent on the images that are robust and that CROWN leaves open;
    ``open`` says how many there are.
    """
    wrong = evaluation.wrong(net, x, y)
    crown = bounds.certified(bounds.crown_margins(net, x, y, eps), y)
    found = branch_and_bound.branch_and_bound(net, x, y, eps, time_limit=LIMIT)
    letters, spent = "", {"lp": 0.0, "best": 0.0, "sdp": 0.0, "exact": 0.0}
    many = 0
    for i, verdict in enumerate(found):
        if bool(wrong[i]):
            letters += "w"
        elif verdict.status == "attacked":
            letters += "x"
        elif bool(crown[i]):
            letters += "c"
        elif verdict.status == "unknown":
            letters += "u"
        else:
            spent["exact"] += verdict.seconds
            one = x[i : i + 1], y[i : i + 1]
            letters += beyond(net, *one, eps, sdp, spent)
            many += 1
    seconds = {name: round(value, 2) for name, value in spent.items()}
    return {"eps": eps, "letters": letters, "open": many, "seconds": seconds}


def barrier_case(dataset: data.Dataset, name: str) -> dict:
    """Return the letters of a stored network at each of its radii."""
    net = zoo.load(name, dataset).double().requires_grad_(False)
    x, y = dataset.test[0][:IMAGES].double(), dataset.test[1][:IMAGES]
    rows = [measure(net, x, y, eps, sdp=False) for eps in BARRIER[name]]
    return {"network": name, "rows": rows}


def sdp_case(
    dataset: data.Dataset, hidden: list[int], seed: int, radii: list[float]
) -> dict:
    """Return a trained network, with its weights, and the letters at each radius."""
    train, test = pooled(dataset)
    net = trained(train, hidden, seed)
    x, y = test[0][:IMAGES], test[1][:IMAGES]
    return {
        "hidden": hidden,
        "seed": seed,
        "clean": evaluation.clean_error(net, *test).rate,
        "weights": [p.tolist() for p in net.parameters()],
        "rows": [measure(net, x, y, eps, sdp=True) for eps in radii],
    }


def main() -> None:
    """Measure what is not in the cache; save the record when all is there."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    dataset = data.load("mnist")
    cache = json.loads(CACHE.read_text()) if CACHE.is_file() else {}
    jobs = {f"barrier {name}": (barrier_case, (name,)) for name in BARRIER}
    for hidden, seeds, radii in SDP:
        for seed in seeds:
            jobs[f"sdp {hidden} {seed}"] = sdp_case, (hidden, seed, radii)
    for key, (job, arguments) in jobs.items():
        if key not in cache:
            began = time.process_time()
            found = job(dataset, *arguments)
            seconds = round(time.process_time() - began, 1)
            cache[key] = {"found": found, "seconds": seconds}
            atomic_write(CACHE, json.dumps(cache).encode())
    parts = {part: [] for part in ("barrier", "sdp")}
    for key in jobs:
        parts[key.split()[0]].append(cache[key]["found"])
    results.save(
        "convex_barrier",
        {"letters": LETTERS, **parts},
        command=COMMAND,
        seeds=sorted({seed for _, seeds, _ in SDP for seed in seeds}),
        dataset=f"mnist, the first {IMAGES} test images",
        seconds=sum(cache[key]["seconds"] for key in jobs),
        packages=(*results.PACKAGES, "clarabel"),
    )
    CACHE.unlink()


if __name__ == "__main__":
    main()
