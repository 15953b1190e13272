"""The exact robust error of small networks, and how the time to get it grows.

    python tools/experiments/exact_error.py error     exact_error.json
    python tools/experiments/exact_error.py scaling   exact_scaling.json
    python tools/experiments/exact_error.py targets   exact_targets.json
    python tools/experiments/exact_error.py tightness exact_tightness.json

Branch and bound decides every image, up to a number of subproblems; the integer program
(sign question) decides the same images where they are few, as a check. Times are CPU
seconds of one thread. Where the two are compared both have a limit of seconds: that of
branch and bound is CPU time, that of HiGHS the clock's, so run these parts alone on the
machine; each row has the load before and after it, and a test refuses rows in which a
program that was stopped got less CPU time than its limit. Each part is kept in CACHE
when done, so that a run that was stopped goes on where it was.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import shelf
import torch
from torch import Tensor, nn

from advlib import (
    bounds,
    branch_and_bound,
    data,
    exact,
    models,
    relaxations,
    results,
    training,
    zoo,
)

GRID = {
    "small": [0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08],
    "small_pgd": [0.02, 0.05, 0.08, 0.1, 0.12, 0.15],
    "small_ibp": [0.02, 0.05, 0.08, 0.1, 0.12, 0.15],
}
IMAGES, LIMIT = 100, {"max_nodes": 200_000}
MILP_IMAGES, MILP_LIMIT = 50, {"time_limit": 60.0}
MILP_GRID = {"small": [0.05], "small_pgd": [0.1], "small_ibp": [0.15]}
WIDTHS, DEPTHS = [10, 20, 40, 80, 160, 320], [1, 2, 3, 4, 5, 6]
RADII = [0.01, 0.02, 0.03, 0.04, 0.05, 0.06]
MILP_DEPTH = 3  # deeper networks are left to branch and bound
SCALING_IMAGES, SCALING_LIMIT = 10, {"time_limit": 30.0}
TARGET_EPS, TARGET_LIMIT = [0.05, 0.1], 300.0  # one image, each wrong class
TIGHT_IMAGES, TIGHT_EPS = 12, 0.05  # the first of which CROWN leaves some class open
BASE = (40, 2, 0.05)  # width, depth and eps while the other two vary


def timed(verify: Callable, model: nn.Module, x: Tensor, y: Tensor, eps: float,
          limit: dict) -> dict:  # fmt: skip
    """Return statuses (first letters), CPU seconds and nodes of each image."""
    status, seconds, nodes = "", [], []
    for i in range(len(x)):
        began = time.process_time()
        (found,) = verify(model, x[i : i + 1], y[i : i + 1], eps, **limit)
        seconds.append(round(time.process_time() - began, 4))
        status += found.status[0]
        nodes.append(found.nodes)
    return {"limit": limit, "status": status, "seconds": seconds, "nodes": nodes}


VERIFIERS = {
    "branch and bound": branch_and_bound.branch_and_bound,
    "integer program": exact.milp_robust,
}


def error(dataset: data.Dataset, cache: Path) -> list[dict]:
    """Return one row for each network, radius and method."""
    x, y = dataset.test
    plan = [(n, e, "branch and bound", IMAGES, LIMIT) for n in GRID for e in GRID[n]]
    plan += [
        (n, e, "integer program", MILP_IMAGES, MILP_LIMIT)
        for n in MILP_GRID
        for e in MILP_GRID[n]
    ]
    rows = []
    for name, eps, method, n, limit in plan:
        model, verify = zoo.load(name, dataset), VERIFIERS[method]
        made = shelf.kept(
            cache / f"error-{name}-{eps}-{method[0]}-{n}.json",
            partial(timed, verify, model, x[:n], y[:n], eps, limit),
        )
        rows.append({"network": name, "eps": eps, "method": method} | made)
    return rows


def trained(width: int, depth: int, dataset: data.Dataset) -> nn.Sequential:
    """Return a network with ``depth`` hidden layers, trained for three epochs."""
    hidden = [width] * depth
    model = models.seeded(models.mlp, dataset.shape, hidden, seed=0)
    training.fit(model, *dataset.train, epochs=3, lr=[0.1, 0.1, 0.01], batch_size=100)
    return model


def scaling(dataset: data.Dataset, cache: Path) -> list[dict]:
    """Return one row for each width, depth and radius, by both methods.

    Along each axis a method stops after the first value at which it leaves more than
    half of the images undecided: beyond that there is only more waiting.
    """
    width, depth, eps = BASE
    axes = {
        "width": [(w, depth, eps) for w in WIDTHS],
        "depth": [(width, d, eps) for d in DEPTHS],
        "eps": [(width, depth, e) for e in RADII],
    }
    rows, networks = [], {}
    for axis, plan in axes.items():
        for method in VERIFIERS:
            for w, d, e in plan:
                if method == "integer program" and d > MILP_DEPTH:
                    break
                if (w, d) not in networks:
                    networks[w, d] = trained(w, d, dataset)
                row = {"axis": axis, "width": w, "depth": d, "eps": e}
                row |= {"method": method}
                row |= scaling_row(networks[w, d], row, dataset, cache)
                rows.append(row)
                if 2 * row["status"].count("u") > SCALING_IMAGES:
                    break
    return rows


def scaling_row(
    model: nn.Module, row: dict, dataset: data.Dataset, cache: Path
) -> dict:
    """Return what one method says of the first images that ``model`` gets right."""
    x, y = (part[:200] for part in dataset.test)
    with torch.no_grad():
        index = (model(x).argmax(1) == y).nonzero()[:SCALING_IMAGES, 0]
    name = "scaling-{width}-{depth}-{eps}-{method}".format(**row)
    verify = VERIFIERS[row["method"]]
    return shelf.kept(
        cache / f"{name.replace(' ', '_')}.json",
        partial(timed, verify, model, x[index], y[index], row["eps"], SCALING_LIMIT),
    )


def margin_row(one: tuple, target: int, pre: list, model: nn.Module) -> dict:
    """Return what the integer program finds for one image and class, and its time."""
    x, y, eps = one
    began = time.process_time()
    found = exact.milp_margin(
        model, x, y, target, eps, pre=pre, time_limit=TARGET_LIMIT
    )
    spent = time.process_time() - began
    row = {"target": target, "bound": found.bound, "margin": found.margin}
    row = {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}
    row |= {"status": found.status, "seconds": round(spent, 4)}
    return row | {"limit": {"time_limit": TARGET_LIMIT}}


def targets(dataset: data.Dataset, cache: Path) -> list[dict]:
    """Return the nine smallest margins of the first test image, at two radii."""
    model, (x, y), rows = zoo.load("small", dataset), dataset.test, []
    for eps in TARGET_EPS:
        corners = bounds.input_box(x[:1].double(), eps)
        pre = relaxations.lp_bounds(model, *corners)
        for target in set(range(dataset.num_classes)) - {int(y[0])}:
            made = shelf.kept(
                cache / f"target-{eps}-{target}.json",
                partial(margin_row, (x[:1], y[:1], eps), target, pre, model),
            )
            rows.append({"eps": eps} | made)
    return rows


def left_open(dataset: data.Dataset, model: nn.Module, count: int) -> list[tuple]:
    """Return index and most open class of the first images that CROWN leaves open.

    Of those that ``model`` classifies right, at TIGHT_EPS.
    """
    x, y = (part[:500] for part in dataset.test)
    with torch.no_grad():
        margins = bounds.crown_margins(model, x, y, TIGHT_EPS)
        margins[torch.arange(len(y)), y] = torch.inf
        kept = (margins.amin(1) <= 0) & (model(x).argmax(1) == y)
    found = kept.nonzero()[:count, 0].tolist()
    return [(i, int(margins[i].argmin()), float(margins[i].min())) for i in found]


def tight_row(one: tuple, target: int, method: str, model: nn.Module) -> dict:
    """Return width, open units and solve time with the bounds of one ``method``."""
    began = time.process_time()
    if method == "lp":
        corners = bounds.input_box(one[0].double(), TIGHT_EPS)
        pre = relaxations.lp_bounds(model, *corners)
    else:
        pre = exact.big_m_bounds(model, one[0], TIGHT_EPS, method=method)
    row = {"pre_seconds": round(time.process_time() - began, 4)}
    row["width"] = [round(float((u - low).mean()), 4) for low, u in pre]
    row["unstable"] = [int(((low < 0) & (u > 0)).sum()) for low, u in pre]
    return row | margin_row(one, target, pre, model)


def tightness(dataset: data.Dataset, cache: Path) -> list[dict]:
    """Return solve time and width for four choices of the big-M, image by image."""
    model, (x, y), rows = zoo.load("small", dataset), dataset.test, []
    for i, target, crown in left_open(dataset, model, TIGHT_IMAGES):
        one = x[i : i + 1], y[i : i + 1], TIGHT_EPS
        for method in ("lp", "crown", "interval", "naive"):
            made = shelf.kept(
                cache / f"tight-{i}-{method}.json",
                partial(tight_row, one, target, method, model),
            )
            rows.append({"image": i, "method": method, "crown": round(crown, 4)} | made)
    return rows


PARTS = {"error": error, "scaling": scaling, "targets": targets, "tightness": tightness}


def main() -> None:
    """Run one of the experiments and write its record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("which", choices=PARTS)
    parser.add_argument("--cache", type=Path, default=Path("_build/exact"))
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    dataset = data.load("mnist")
    rows = PARTS[options.which](dataset, options.cache)
    results.save(
        f"exact_{options.which}",
        rows,
        command=f"python tools/experiments/exact_error.py {options.which}",
        seeds=[0],
        dataset=str(dataset),
        seconds=sum(row["cpu"] for row in rows),
    )


if __name__ == "__main__":
    main()
