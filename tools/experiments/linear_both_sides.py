"""Softmax regression trained from below (FGSM, PGD) and from above (the bound).

One command, about 5 minutes of CPU time: python tools/experiments/linear_both_sides.py
Each (way of training, radius, epochs, seed) is one task, kept in CACHE when done, so
that a run that was stopped goes on where it was. Robust errors are exact: on a linear
model each pair of classes has a closed form.

At RADIUS all ways are trained with several seeds, and some of them longer (``LONG``);
``pgd`` at the other RADII as well, so that it can be compared with ``bound`` at equal
clean error.
"""

import argparse
import json
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import shelf
import torch
from torch import Tensor, nn

from advlib import attacks, data, evaluation, linear, models, results, training

COMMAND = "python tools/experiments/linear_both_sides.py"
RADIUS = 0.1
RADII = (0.08, 0.12)
WAYS = ("standard", "fgsm", "pgd", "bound")
SEEDS, SHORT = 3, 3
LONG = {"standard": 15, "pgd": 6, "bound": 6}  # epochs
PAIRS = (  # way and radius of both; the second pair has almost equal clean errors
    (("bound", RADIUS), ("pgd", RADIUS)),
    (("bound", RADIUS), ("pgd", 0.12)),
    (("bound", RADIUS), ("fgsm", RADIUS)),
    (("pgd", RADIUS), ("standard", RADIUS)),
)
RATE, BATCH = 0.1, 100


def bound_loss(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """Return the mean upper bound on the worst-case cross-entropy."""
    return linear.cross_entropy_bound(model, x, y, eps).mean()


def ways(eps: float) -> dict[str, dict]:
    """Return what ``training.fit`` is given for each way of training."""
    pgd = partial(attacks.pgd_linf, eps=eps, alpha=eps / 4, num_steps=7)
    return {
        "standard": {},
        "fgsm": {"attack": partial(attacks.fgsm, eps=eps)},
        "pgd": {"attack": pgd},
        "bound": {"objective": partial(bound_loss, eps=eps)},
    }


def measure(
    way: str, eps: float, epochs: int, seed: int, cache: Path, dataset: data.Dataset
) -> dict:
    """Return a task's masks over the test images, from the cache if they are there."""
    path = cache / f"{dataset.name}-{way}-{eps}-{epochs}-{seed}.json"
    if path.is_file():
        return json.loads(path.read_text())
    (x, y), (x_test, y_test) = dataset.train, dataset.test
    x_test = x_test.double()
    model = models.seeded(models.linear, dataset.shape, 10, seed=seed).double()
    began = time.process_time()
    training.fit(
        model,
        x.double(),
        y,
        epochs=epochs,
        lr=RATE,
        batch_size=BATCH,
        seed=seed,
        **ways(eps)[way],
    )
    masks = {
        "clean": evaluation.wrong(model, x_test, y_test),
        "robust": linear.robustly_wrong(model, x_test, y_test, RADIUS),
    }
    row = {name: mask.int().tolist() for name, mask in masks.items()}
    row["seconds"] = round(time.process_time() - began, 1)
    shelf.keep(path, row)
    counts = {name: int(mask.sum()) for name, mask in masks.items()}
    sys.stdout.write(f"{way} {eps} {epochs} {seed} {counts} {row['seconds']} s\n")
    sys.stdout.flush()
    return row


def summary(runs: list[np.ndarray]) -> tuple[list[int], float]:
    """Return each seed's count, and the deviation over images of their mean."""
    masks = np.array(runs)
    spread = float(masks.mean(0).std(ddof=1))
    return masks.sum(1).tolist(), round(spread, 4)


def sweep(
    cache: Path,
    dataset: data.Dataset,
    *,
    seeds: int = SEEDS,
    radii: tuple[float, ...] = RADII,
    short: int = SHORT,
    long: dict[str, int] = LONG,
) -> dict:
    """Return the summaries of all ways, and of the differences of some pairs."""
    cache.mkdir(parents=True, exist_ok=True)
    plan = [(way, RADIUS, short, seeds) for way in WAYS]
    plan += [("pgd", eps, short, seeds) for eps in radii]
    plan += [(way, RADIUS, epochs, seeds) for way, epochs in long.items()]
    found, arms, pairs = {}, [], []
    for way, eps, epochs, count in plan:
        runs = [measure(way, eps, epochs, s, cache, dataset) for s in range(count)]
        found[way, eps, epochs] = runs
        arm = {"way": way, "eps": eps, "epochs": epochs}
        for kind in ("clean", "robust"):
            arm[kind], arm[f"{kind}_spread"] = summary([run[kind] for run in runs])
        arm["seconds"] = sum(run["seconds"] for run in runs)
        arms.append(arm)
    for first, second in PAIRS:
        for epochs in sorted({short, *long.values()}):
            both = [found.get((*arm, epochs)) for arm in (first, second)]
            if None in both:
                continue
            pair = {"first": first, "second": second, "epochs": epochs}
            for kind in ("clean", "robust"):
                gaps = [
                    np.array(a[kind]) - np.array(b[kind])
                    for a, b in zip(*both, strict=True)
                ]
                pair[kind], pair[f"{kind}_spread"] = summary(gaps)
            pairs.append(pair)
    n = len(dataset.test[1])
    return {"radius": RADIUS, "images": n, "arms": arms, "pairs": pairs}


def main(arguments: list[str] | None = None) -> None:
    """Train and measure everything and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path("_build/linear_both_sides"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    dataset = data.load("mnist")
    content = sweep(options.cache, dataset)
    results.save(
        "linear_both_sides",
        content,
        command=COMMAND,
        seeds=list(range(SEEDS)),
        dataset="mnist: 55000 training images, all 10000 test images",
        seconds=sum(arm["seconds"] for arm in content["arms"]),
    )


if __name__ == "__main__":
    main()
