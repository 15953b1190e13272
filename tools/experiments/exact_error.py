"""The exact robust error of small networks, and how the time to get it grows.

    python tools/experiments/exact_error.py error     exact_error.json
    python tools/experiments/exact_error.py scaling   exact_scaling.json
    python tools/experiments/exact_error.py targets   exact_targets.json
    python tools/experiments/exact_error.py tightness exact_tightness.json

Branch and bound decides every image; the integer program (sign question) decides the
same images where they are few, as a check. Times are CPU seconds of one thread; so
are the limits of branch and bound, while HiGHS has a limit of the clock. Each part is
kept in CACHE when done, so that a run that was stopped goes on where it was.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

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
IMAGES, LIMIT = 100, 120.0
MILP_IMAGES, MILP_LIMIT = 50, 60.0
MILP_GRID = {"small": [0.05], "small_pgd": [0.1], "small_ibp": [0.15]}
WIDTHS, DEPTHS = [10, 20, 40, 80, 160, 320], [1, 2, 3, 4, 5, 6]
RADII = [0.01, 0.02, 0.03, 0.04, 0.05, 0.06]
MILP_DEPTH = 3  # deeper networks are left to branch and bound
SCALING_IMAGES, SCALING_LIMIT = 10, 30.0
TARGET_EPS, TARGET_LIMIT = [0.05, 0.1], 120.0  # one image, each wrong class
TIGHT_IMAGES, TIGHT_EPS = [0, 4, 5, 12], 0.05  # of these CROWN leaves some class open
BASE = (40, 2, 0.05)  # width, depth and eps while the other two vary


def timed(verify: Callable, model: nn.Module, x: Tensor, y: Tensor, eps: float,
          limit: float) -> dict:  # fmt: skip
    """Return statuses (first letters), CPU seconds and nodes of each image."""
    status, seconds, nodes = "", [], []
    for i in range(len(x)):
        began = time.process_time()
        (found,) = verify(model, x[i : i + 1], y[i : i + 1], eps, time_limit=limit)
        seconds.append(round(time.process_time() - began, 4))
        status += found.status[0]
        nodes.append(found.nodes)
    return {"status": status, "seconds": seconds, "nodes": nodes}


def kept(cache: Path, name: str, make: Callable[[], dict]) -> dict:
    """Return what ``make`` returns, from the cache if it was made before."""
    path = cache / f"{name}.json"
    if not path.is_file():
        began = time.process_time()
        row = make()
        row["cpu"] = round(time.process_time() - began, 1)
        path.write_text(json.dumps(row))
        print(name, {s: row["status"].count(s) for s in "cau"}, row["cpu"], flush=True)
    return json.loads(path.read_text())


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
        made = kept(
            cache,
            f"error-{name}-{eps}-{method[0]}-{n}",
            lambda m=model, v=verify, e=eps, n=n, s=limit: timed(
                v, m, x[:n], y[:n], e, s
            ),
        )
        rows.append(
            {"network": name, "eps": eps, "method": method, "limit": limit} | made
        )
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
    return kept(
        cache,
        name.replace(" ", "_"),
        lambda: timed(verify, model, x[index], y[index], row["eps"], SCALING_LIMIT),
    )


def margin_row(one: tuple, target: int, pre: list, model: nn.Module) -> dict:
    """Return what the integer program finds for one image and class, and its time."""
    x, y, eps = one
    began = time.process_time()
    found = exact.milp_margin(
        model, x, y, target, eps, pre=pre, time_limit=TARGET_LIMIT
    )
    row = {"target": target, "bound": found.bound, "margin": found.margin}
    row |= {"status": found.status, "seconds": time.process_time() - began}
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}


def targets(dataset: data.Dataset, cache: Path) -> list[dict]:
    """Return the nine smallest margins of the first test image, at two radii."""
    model, (x, y), rows = zoo.load("small", dataset), dataset.test, []
    for eps in TARGET_EPS:
        corners = bounds.input_box(x[:1].double(), eps)
        pre = relaxations.lp_bounds(model, *corners)
        for target in range(dataset.num_classes):
            if target == int(y[0]):
                continue
            path = cache / f"target-{eps}-{target}.json"
            if not path.is_file():
                row = margin_row((x[:1], y[:1], eps), target, pre, model)
                path.write_text(json.dumps({"eps": eps} | row))
                print(path.stem, row, flush=True)
            rows.append(json.loads(path.read_text()))
    return rows


def tightness(dataset: data.Dataset, cache: Path) -> list[dict]:
    """Return solve time and width for four choices of the big-M, class by class."""
    model, (x, y), rows = zoo.load("small", dataset), dataset.test, []
    for i in TIGHT_IMAGES:
        one = x[i : i + 1], y[i : i + 1], TIGHT_EPS
        crown = bounds.crown_margins(model, *one)[0]
        crown[y[i]] = torch.inf
        for method in ("lp", "crown", "interval", "naive"):
            path = cache / f"tight-{i}-{method}.json"
            if not path.is_file():
                began = time.process_time()
                if method == "lp":
                    corners = bounds.input_box(one[0].double(), TIGHT_EPS)
                    pre = relaxations.lp_bounds(model, *corners)
                else:
                    pre = exact.big_m_bounds(model, one[0], TIGHT_EPS, method=method)
                row = {
                    "image": i,
                    "method": method,
                    "crown": round(float(crown.min()), 4),
                }
                row["pre_seconds"] = round(time.process_time() - began, 4)
                row["width"] = [round(float((u - low).mean()), 4) for low, u in pre]
                row["unstable"] = [int(((low < 0) & (u > 0)).sum()) for low, u in pre]
                row |= margin_row(one, int(crown.argmin()), pre, model)
                path.write_text(json.dumps(row))
                print(path.stem, row, flush=True)
            rows.append(json.loads(path.read_text()))
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
    spent = [row["cpu"] if "cpu" in row else row["seconds"] for row in rows]
    results.save(
        f"exact_{options.which}",
        rows,
        command=f"python tools/experiments/exact_error.py {options.which}",
        seeds=[0],
        dataset=str(dataset),
        seconds=sum(spent),
    )


if __name__ == "__main__":
    main()
