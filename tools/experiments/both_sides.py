"""Attacked, exact and certified error of six networks over a grid of radii.

One command, to be run alone on the machine: python tools/experiments/both_sides.py
The search for an image stops after a number of subproblems on the small networks, so
that its verdict depends on no machine, and after a minute of CPU time on the wide ones,
whose subproblems differ in cost by a factor of seven; the record says what each image
got of both, and the load of the machine. Each (network, radius) is one task, the
longest first, kept in CACHE when done, so that a run that was stopped goes on where it
was. With --jobs 2 tasks run in two processes of one thread through joblib: a
``joblib.parallel_config`` around ``main`` takes a cluster.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import shelf
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
IMAGES = {"small": 500, "mlp_256": 100}
LONGEST = ("mlp_256_pgd", "mlp_256")  # whose searches are begun first
ALONE = {"small": 50, "mlp_256": 25}  # the first so many: each method by itself
LIMIT = {"small": {"max_nodes": 200_000}, "mlp_256": {"time_limit": 60.0}}  # an image


def lower_methods(eps: float) -> dict[str, attacks.Attack]:
    """Return the attacks, from weak to strong, the last as Chapter 4b has it."""
    pgd = partial(attacks.pgd_linf, eps=eps, alpha=eps / 10, num_steps=40)
    strong = partial(attacks.strong_attack, eps=eps, seed=0)
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


class Search:
    """Branch and bound, one image after the other, with a ``limit`` for each.

    ``limit``: {"max_nodes": subproblems} or {"time_limit": CPU seconds}. ``verdicts``:
    those of all images that were asked for, in their order. What is ``known`` of an
    image, from another search with this limit, is not searched again.
    """

    def __init__(
        self,
        eps: float,
        limit: dict[str, float],
        known: dict[bytes, Verdict] | None = None,
    ) -> None:
        self.eps, self.limit = eps, limit
        self.known = {} if known is None else known
        self.verdicts: list[Verdict] = []

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> list[Verdict]:
        """Return one verdict for each image."""
        found = []
        for one, label in zip(x.split(1), y.split(1), strict=True):
            key = one.numpy().tobytes()
            if key not in self.known:
                (self.known[key],) = branch_and_bound(
                    model, one, label, self.eps, **self.limit
                )
            found.append(self.known[key])
        self.verdicts += found
        return found

    def spent(self) -> dict:
        """Return the limit, and what each image got: status, CPU seconds, nodes."""
        return {
            "limit": self.limit,
            "status": "".join(v.status[0] for v in self.verdicts),
            "seconds": [round(v.seconds, 3) for v in self.verdicts],
            "nodes": [v.nodes for v in self.verdicts],
        }


def packed(mask: Tensor) -> str:
    """Return a mask as hexadecimal digits."""
    return np.packbits(mask.numpy()).tobytes().hex()


def record(found: evaluation.BothSides, search: Search) -> dict:
    """Return masks, CPU seconds and numbers of images for JSON."""
    return {
        "errors": {name: packed(mask) for name, mask in found.errors.items()},
        "counts": found.counts(),
        "seconds": {name: round(s, 3) for name, s in found.seconds.items()},
        "images": found.images,
        "search": search.spent(),
    }


def measure(name: str, eps: float, cache: Path, dataset: str, sizes: dict) -> dict:
    """Return one task's record, from the cache if it is there.

    ``sizes``: the numbers of ``images``, those done ``alone``, and the ``limit``.
    """
    images, alone, limit = sizes["images"], sizes["alone"], sizes["limit"]

    def make() -> dict:
        torch.set_num_threads(1)
        torch.set_grad_enabled(True)
        loaded = data.load(dataset)
        model = zoo.load(name, loaded).double().requires_grad_(False)
        x, y = loaded.test[0][:images].double(), loaded.test[1][:images]
        methods = lower_methods(eps), upper_methods(eps, name.startswith("mlp"))
        run = partial(evaluation.both_sides, model)
        whole = Search(eps, limit)
        found = run(x, y, *methods, whole)
        few = Search(eps, limit, whole.known)
        each = run(x[:alone], y[:alone], *methods, few, shortcut=False)
        row = {"network": name, "eps": eps, "n": images, **record(found, whole)}
        return row | {"alone": record(each, few) | {"n": alone}}

    most = "-".join(f"{kind}-{most}" for kind, most in limit.items())
    path = cache / f"{dataset}-{name}-{eps}-{images}-{alone}-{most}.json"
    return shelf.kept(path, make, quiet=("errors", "alone", "search"))


def sweep(
    cache: Path,
    *,
    jobs: int = 1,
    networks: Sequence[str] = NETWORKS,
    radii: Sequence[float] | None = None,
    dataset: str = "mnist",
    **sizes: int | dict[str, float],
) -> list[dict]:
    """Return the records of all tasks, in order, whatever the number of ``jobs``.

    Without ``radii``, ``images``, ``alone`` and ``limit`` every network gets its own.
    """
    cache.mkdir(parents=True, exist_ok=True)
    grids = {n: WIDE_RADII if n.startswith("mlp") else RADII for n in networks}
    tasks = [(name, eps) for name in networks for eps in radii or grids[name]]
    heavy = sorted(tasks, key=lambda task: (task[0] not in LONGEST, -task[1]))
    rows = Parallel(n_jobs=jobs, batch_size=1)(
        delayed(measure)(name, eps, cache, dataset, own_sizes(name) | sizes)
        for name, eps in heavy
    )
    done = dict(zip(heavy, rows, strict=True))
    return [done[task] for task in tasks]


def own_sizes(name: str) -> dict:
    """Return the numbers of images and the limit for a network."""
    kind = "mlp_256" if name.startswith("mlp") else "small"
    return {"images": IMAGES[kind], "alone": ALONE[kind], "limit": LIMIT[kind]}


def main(arguments: list[str] | None = None) -> None:
    """Measure everything and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path("_build/both_sides"))
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args(arguments)
    rows = sweep(options.cache, jobs=options.jobs)
    content = {
        "eps": RADII,
        "wide_eps": WIDE_RADII,
        "networks": NETWORKS,
        "images": IMAGES,
        "alone": ALONE,
        "limit": LIMIT,
        "jobs": options.jobs,
        "runs": rows,
    }
    results.save(
        "both_sides",
        content,
        command=COMMAND,
        seeds=[0],
        dataset=f"mnist: the first test images, {IMAGES}",
        seconds=sum(row["cpu"] for row in rows),
    )


if __name__ == "__main__":
    main()
