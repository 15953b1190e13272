"""What each attack finds for the same number of gradients.

One command, about 14 CPU minutes on one core: python tools/experiments/attack_effort.py
An attack is a sequence of runs, each only on images that no run before it fooled; an
image is fooled if it is misclassified at any iterate. The effort is what an image pays
that is never fooled: a gradient is one, and a query of the search, a forward pass
alone, one half. It is counted by a wrapper of the network, not timed. The record has,
for each arm, the effort and the number of images fooled after each run, and at round
efforts the mask of the images, as hexadecimal digits. Each arm is kept in CACHE when
done, so that a run that was stopped goes on where it was.
"""

import argparse
import itertools
import json
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from advlib import attacks, data, evaluation, results, zoo
from advlib.files import atomic_write

COMMAND = "python tools/experiments/attack_effort.py"
SEEDS, IMAGES = (0, 1, 2), 1000
PAIRED = ("pgd", "strong")
AFTER = {"pgd_again": "pgd", "strong_again": "strong", "strong_search": "strong"}
OTHERS = ("fgsm", "pgd_margin", "multi_targeted", "apgd_margin", "apgd_dlr")
Task = tuple[str, float, Sequence[int], Sequence[str]]  # network, eps, seeds, arms
TASKS: tuple[Task, ...] = (
    ("cnn_small_pgd_0", 0.3, SEEDS[:1], (*PAIRED, *AFTER)),
    ("dnn_2_pgd", 0.1, SEEDS, (*PAIRED, *AFTER, *OTHERS)),
    ("cnn_small_pgd_0", 0.3, SEEDS[1:], PAIRED),
    ("cnn_small_pgd_0", 0.3, SEEDS[:1], OTHERS),
    ("cnn_small_pgd_2", 0.3, SEEDS[:1], (*PAIRED, *AFTER)),
)
STEPS, LONG = 20, 96  # gradients of a short run, and of one with halving steps
RUNS, QUERIES = 24, 320  # 24 short runs are 480 gradients; so are 3 x 320 queries
KEPT = (1, 20, 40, 80, 240, 480, 960)  # efforts at which the mask is kept
BATCH = 250
Run = tuple[attacks.Attack, int, int]  # gradients and queries of an image it leaves
SETTINGS = (
    f"short runs of {STEPS} steps of eps / 10, the first from the image, the others "
    f"from random points; APGD: runs of {LONG - 1} steps; the ensemble of {RUNS} runs "
    "by strong_attack without search, then again from other starts, or its search"
)


class Counted(nn.Module):
    """A network that counts, image by image, what it is asked for."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.gradients, self.queries = model, 0, 0
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of ``x`` (N, ...)."""
        if x.requires_grad:
            self.gradients += len(x)
        else:
            self.queries += len(x)
        return self.model(x)


def shifted_loss(logits: Tensor, y: Tensor, shift: int) -> Tensor:
    """Return the targeted loss (N,) towards the class ``shift`` places after ``y``."""
    return attacks.targeted_loss(logits, y, (y + shift) % logits.shape[1])


def short_runs(
    eps: float, losses: list[attacks.Loss], seed: int, first: bool
) -> Iterator[Run]:
    """Yield PGD runs, one for each of ``losses``; with ``first`` one from the image."""
    generator = torch.Generator().manual_seed(seed if first else seed + 100)
    for k, loss in enumerate(losses):
        run = partial(
            attacks.pgd_linf,
            eps=eps,
            alpha=eps / 10,
            num_steps=STEPS,
            generator=None if first and k == 0 else generator,
            loss=loss,
            drop_fooled=True,
        )
        yield run, STEPS, 0


def long_runs(eps: float, loss: attacks.Loss, seed: int) -> Iterator[Run]:
    """Yield APGD runs, the first from the image itself."""
    generator = torch.Generator().manual_seed(seed)
    for k in range(RUNS * STEPS // LONG):
        start = {"generator": generator if k else None}
        run = partial(attacks.apgd, eps=eps, num_steps=LONG - 1, loss=loss, **start)
        yield run, LONG, 0


def runs(arm: str, eps: float, seed: int) -> Iterator[Run]:
    """Return the runs of an arm of ``ALL``, started anew."""
    pgd = partial(short_runs, eps, seed=seed, first=arm != "pgd_again")
    ensemble = partial(attacks.strong_attack, eps=eps)
    if arm == "fgsm":
        return iter([(partial(attacks.fgsm, eps=eps), 1, 0)])
    if arm in ("pgd", "pgd_again"):
        return pgd([attacks.cross_entropy] * RUNS)
    if arm == "pgd_margin":
        return pgd([attacks.margin_loss] * RUNS)
    if arm == "multi_targeted":
        return pgd([partial(shifted_loss, shift=1 + k % 9) for k in range(RUNS)])
    if arm.startswith("apgd"):
        loss = {"apgd_margin": attacks.margin_loss, "apgd_dlr": attacks.dlr_loss}[arm]
        return long_runs(eps, loss, seed)
    if arm == "strong_search":
        options = {"num_restarts": 0, "num_queries": QUERIES, "seed": seed + 200}
        return iter([(partial(ensemble, **options), 0, 3 * QUERIES)])
    start = {"strong": seed, "strong_again": seed + 100}[arm]
    run = partial(ensemble, num_restarts=RUNS, search=False, seed=start)
    return iter([(run, RUNS * STEPS, 0)])


def packed(mask: Tensor) -> str:
    """Return a mask as hexadecimal digits."""
    return np.packbits(mask.numpy()).tobytes().hex()


def unpacked(digits: str, n: int) -> Tensor:
    """Return the mask (n,) that ``packed`` wrote."""
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(digits), np.uint8))
    return torch.from_numpy(bits[:n].astype(bool))


def climb(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    plan: Iterator[Run],
    fooled: Tensor,
    spent: int,
) -> dict:
    """Return effort and images fooled after each run of the ``plan``, and masks.

    It starts with the images that are ``fooled`` already, after an effort ``spent``.
    """
    counted, began = Counted(model), time.process_time()
    found = {"start": int(fooled.sum()), "effort": [], "fooled": [], "masks": {}}
    for run, gradients, queries in plan:
        left = (~fooled).nonzero().squeeze(1)
        whole = run.func is attacks.strong_attack  # it chooses among all that are left
        for part in left.split(len(y) if whole else BATCH):
            delta = run(counted, x[part], y[part])
            fooled[part] = evaluation.wrong(model, x[part] + delta, y[part])
        spent += gradients + queries // 2
        found["effort"].append(spent)
        found["fooled"].append(int(fooled.sum()))
        if spent in KEPT:
            found["masks"][str(spent)] = packed(fooled)
    found["gradients_an_image"] = round(counted.gradients / len(y), 1)
    found["queries_an_image"] = round(counted.queries / len(y), 1)
    found["cpu_seconds"] = round(time.process_time() - began, 1)
    return found


def measure(
    task: Task,
    seed: int,
    arm: str,
    dataset: data.Dataset,
    images: int,
    before: dict | None,
) -> dict:
    """Return one row: a network, a seed, an attack; ``before`` is what it goes on."""
    name, eps, *_ = task
    model = zoo.load(name, dataset).requires_grad_(False)
    x, y = (part[:images] for part in dataset.test)
    fooled, spent = evaluation.wrong(model, x, y), 0
    if before is not None:
        spent = RUNS * STEPS
        fooled = unpacked(before["masks"][str(spent)], len(y))
    row = {"network": name, "eps": eps, "seed": seed, "arm": arm, "n": len(y)}
    return row | climb(model, x, y, runs(arm, eps, seed), fooled, spent)


def sweep(
    cache: Path, dataset: data.Dataset, images: int = IMAGES, tasks=TASKS
) -> list[dict]:
    """Return all rows; what ``cache`` holds is not measured again."""
    cache.mkdir(parents=True, exist_ok=True)
    rows = {}
    for task in tasks:
        name, eps, seeds, arms = task
        for seed, arm in itertools.product(seeds, arms):
            path = cache / f"{dataset.name}-{name}-{eps}-{images}-{seed}-{arm}.json"
            if not path.is_file():
                before = rows[name, seed, AFTER[arm]] if arm in AFTER else None
                row = measure(task, seed, arm, dataset, images, before)
                atomic_write(path, json.dumps(row).encode())
                last = {k: v for k, v in row.items() if k != "masks"}
                sys.stdout.write(f"{last}\n")
                sys.stdout.flush()
            rows[name, seed, arm] = json.loads(path.read_text("utf-8"))
    return [rows[key] for key in sorted(rows)]


def main(arguments: list[str] | None = None) -> None:
    """Measure all arms, one after the other, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path("_build/attack_effort"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows = sweep(options.cache, data.load("mnist"))
    results.save(
        "attack_effort",
        {
            "threat_model": "l-inf, box kept; an image counts at any iterate",
            "settings": SETTINGS,
            "images": IMAGES,
            "rows": rows,
        },
        command=COMMAND,
        seeds=list(SEEDS),
        dataset=f"mnist: the first {IMAGES} test images",
        seconds=sum(row["cpu_seconds"] for row in rows),
        packages=("torch", "numpy"),
    )


if __name__ == "__main__":
    main()
