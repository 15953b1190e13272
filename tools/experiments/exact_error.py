"""The exact robust error of small networks, and how the time to get it grows.

    python tools/experiments/exact_error.py error     exact_error.json
    python tools/experiments/exact_error.py scaling   exact_scaling.json

Branch and bound decides every image; the integer program (sign question) decides the
same images where they are few, as a check. Times are CPU seconds of one thread; limits
are wall clock, as a reader would set them. Each part is kept in CACHE when done, so
that a run that was stopped goes on where it was.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from advlib import branch_and_bound, data, exact, models, results, training, zoo

GRID = {
    "small": [0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08],
    "small_pgd": [0.02, 0.05, 0.08, 0.1, 0.12, 0.15],
    "small_ibp": [0.02, 0.05, 0.08, 0.1, 0.12, 0.15],
}
IMAGES, LIMIT = 100, 120.0
MILP_IMAGES, MILP_LIMIT = 100, 120.0
MILP_GRID = {"small": [0.05], "small_pgd": [0.1], "small_ibp": [0.15]}
WIDTHS, DEPTHS = [10, 20, 40, 80, 160], [1, 2, 3, 4, 5]
RADII = [0.01, 0.02, 0.03, 0.04, 0.05, 0.06]
SCALING_IMAGES, SCALING_LIMIT = 10, 60.0
BASE = (40, 2, 0.03)  # width, depth and eps while the other two vary


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
    """Return one row for each width, depth and radius, by both methods."""
    width, depth, eps = BASE
    plan = [("width", w, depth, eps) for w in WIDTHS]
    plan += [("depth", width, d, eps) for d in DEPTHS]
    plan += [("eps", width, depth, e) for e in RADII]
    rows, networks = [], {}
    for axis, w, d, e in plan:
        if (w, d) not in networks:
            networks[w, d] = trained(w, d, dataset)
        model = networks[w, d]
        with torch.no_grad():
            right = model(dataset.test[0][:200]).argmax(1) == dataset.test[1][:200]
        index = right.nonzero()[:SCALING_IMAGES, 0]
        x, y = (part[index] for part in (dataset.test[0][:200], dataset.test[1][:200]))
        for method, verify in VERIFIERS.items():
            made = kept(
                cache,
                f"scaling-{w}-{d}-{e}-{method[0]}",
                lambda m=model, v=verify, e=e, x=x, y=y: timed(
                    v, m, x, y, e, SCALING_LIMIT
                ),
            )
            row = {"axis": axis, "width": w, "depth": d, "eps": e, "method": method}
            rows.append(row | made)
    return rows


def main() -> None:
    """Run one of the two experiments and write its record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("which", choices=["error", "scaling"])
    parser.add_argument("--cache", type=Path, default=Path("_build/exact"))
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    dataset = data.load("mnist")
    rows = {"error": error, "scaling": scaling}[options.which](dataset, options.cache)
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
