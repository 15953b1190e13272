"""Attacked, exact and certified error of six networks over a grid of radii.

One command, about 20 minutes of CPU time: python tools/experiments/both_sides.py
Each (network, radius) is one task, kept in CACHE when done, so that a run that was
stopped goes on where it was. With --jobs 2 tasks run in two processes of one thread
through joblib: a ``joblib.parallel_config`` around ``main`` takes a cluster.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from joblib import Parallel, delayed
from torch import Tensor, nn

from advlib import attacks, bounds, data, evaluation, relaxations, results, zoo
from advlib.exact import Verdict
from advlib.exact.branch_and_bound import branch_and_bound

COMMAND = "python tools/experiments/both_sides.py"
NETWORKS = ["small", "small_pgd", "small_ibp", "mlp_256", "mlp_256_pgd", "mlp_256_ibp"]
RADII = [0.01, 0.02, 0.05, 0.1, 0.15]
WIDE_RADII = [0.02, 0.05, 0.1]
IMAGES, ALONE = 500, 50
NODES = {"small": 60_000, "mlp_256": 1_000}  # subproblems, for all images of a task
CHUNK = 25  # images that share one search


def lower_methods(eps: float, wide: bool) -> dict[str, attacks.Attack]:
    """Return the attacks, from weak to strong; no search by score if ``wide``."""
    pgd = partial(attacks.pgd_linf, eps=eps, alpha=eps / 10, num_steps=40)
    strong = partial(
        attacks.strong_attack,
        eps=eps,
        seed=0,
        search=not wide,
        num_restarts=8,
        num_queries=300,
    )
    return {"fgsm": partial(attacks.fgsm, eps=eps), "pgd": pgd, "strong": strong}


def lp(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """Return the LP's margins; where CROWN's are positive, CROWN's."""
    with torch.no_grad():
        crown = bounds.crown_margins(model, x, y, eps)
    found = relaxations.lp_margins(model, x, y, eps, targets=crown <= 0)
    return torch.where(crown <= 0, found, crown)


def upper_methods(eps: float, wide: bool) -> dict[str, evaluation.Bound]:
    """Return the bounds, from loose to tight; no LP for a ``wide`` network."""
    methods = {
        "interval": partial(bounds.interval_margins, eps=eps),
        "crown": partial(bounds.crown_margins, eps=eps),
        "alpha": partial(bounds.alpha_crown_margins, eps=eps, num_steps=20),
    }
    return methods if wide else methods | {"lp": partial(lp, eps=eps)}


def search(
    model: nn.Module, x: Tensor, y: Tensor, eps: float, nodes: int
) -> list[Verdict]:
    """Run branch and bound on chunks; each gets its part of ``nodes``."""
    found = []
    for part in torch.arange(len(y)).split(CHUNK):
        share = max(1, nodes * len(part) // len(y))
        found += branch_and_bound(model, x[part], y[part], eps, total_nodes=share)
    return found


def packed(mask: Tensor) -> str:
    """Return a mask as hexadecimal digits."""
    return np.packbits(mask.numpy()).tobytes().hex()


def record(found: evaluation.BothSides) -> dict:
    """Return masks, CPU seconds and numbers of images for JSON."""
    return {
        "errors": {name: packed(mask) for name, mask in found.errors.items()},
        "counts": found.counts(),
        "seconds": {name: round(s, 3) for name, s in found.seconds.items()},
        "images": found.images,
    }


def measure(
    name: str, eps: float, cache: Path, images: int, alone: int, dataset: str
) -> dict:
    """Return one task's record, from the cache if it is there."""
    path = cache / f"{dataset}-{name}-{eps}-{images}.json"
    if path.is_file():
        return json.loads(path.read_text())
    torch.set_num_threads(1)
    torch.set_grad_enabled(True)
    loaded = data.load(dataset)
    model = zoo.load(name, loaded).double().requires_grad_(False)
    x, y = loaded.test[0][:images].double(), loaded.test[1][:images]
    wide = name.startswith("mlp")
    nodes = NODES["mlp_256" if wide else "small"]
    methods = lower_methods(eps, wide), upper_methods(eps, wide)
    run = partial(evaluation.both_sides, model)
    whole = run(x, y, *methods, partial(search, eps=eps, nodes=nodes))
    share = max(1, nodes * alone // images)
    exact = partial(search, eps=eps, nodes=share)
    each = run(x[:alone], y[:alone], *methods, exact, shortcut=False)
    row = {"network": name, "eps": eps, **record(whole), "alone": record(each)}
    path.write_text(json.dumps(row))
    sys.stdout.write(f"{name} {eps} {row['counts']} {row['seconds']}\n")
    sys.stdout.flush()
    return row


def sweep(
    cache: Path,
    *,
    jobs: int = 1,
    networks: Sequence[str] = NETWORKS,
    radii: Sequence[float] | None = None,
    images: int = IMAGES,
    alone: int = ALONE,
    dataset: str = "mnist",
) -> list[dict]:
    """Return the records of all tasks, in order, whatever the number of ``jobs``.

    Without ``radii`` every network gets its own grid.
    """
    cache.mkdir(parents=True, exist_ok=True)
    grids = {n: WIDE_RADII if n.startswith("mlp") else RADII for n in networks}
    tasks = [
        delayed(measure)(name, eps, cache, images, alone, dataset)
        for name in networks
        for eps in radii or grids[name]
    ]
    return Parallel(n_jobs=jobs)(tasks)


def main(arguments: list[str] | None = None) -> None:
    """Measure everything and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path("_build/both_sides"))
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args(arguments)
    options.cache.mkdir(parents=True, exist_ok=True)
    clock = options.cache / "wall.json"  # of all runs, stopped ones too
    before = json.loads(clock.read_text()) if clock.is_file() else 0.0
    began = time.perf_counter()
    try:
        rows = sweep(options.cache, jobs=options.jobs)
    finally:
        wall = before + time.perf_counter() - began
        clock.write_text(json.dumps(wall))
    content = {
        "eps": RADII,
        "wide_eps": WIDE_RADII,
        "networks": NETWORKS,
        "images": IMAGES,
        "alone": ALONE,
        "nodes": NODES,
        "runs": rows,
    }
    results.save(
        "both_sides",
        content,
        command=COMMAND,
        seeds=[0],
        dataset=f"mnist: the first {IMAGES} test images",
        seconds=wall,
    )


if __name__ == "__main__":
    main()
