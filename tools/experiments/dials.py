"""Chapter 8c: the price of robust training, by the number of updates, several seeds.

One command, about a quarter of an hour of CPU time: python tools/experiments/dials.py
784-100-10 on the first images of MNIST; every arm has its own whole schedule. Each
(arm, seed) is one task, kept in the cache when done, so that a run that was stopped
goes on where it was.
"""

import argparse
import json
import math
import sys
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import shelf
import torch
from torch import Tensor, nn

from advlib import attacks, data, evaluation, models, results, training

COMMAND = "python tools/experiments/dials.py"
SEEDS, BATCH, STEPS = 5, 100, 3
EPS, ATTACKED = 0.1, 1000  # of the measure: radius and first test images


@dataclass(frozen=True)
class Arm:
    """One way to train: on the first ``images``, for ``updates`` of 100 of them.

    ``method`` "pgd" (standard training at ``eps`` 0), "noise" (random signs of size
    ``eps``) or "trades" with ``beta``. For the first two the radius grows over the
    first half of the updates. The learning rate is 0.05, and 0.005 in the last quarter.
    """

    images: int
    updates: int
    eps: float = 0.0
    method: str = "pgd"
    beta: float = 0.0


def arms() -> list[Arm]:
    """Return all arms, the most important first."""
    sizes = (5000, 500)
    main = [Arm(n, u, eps) for u in (200, 2000) for eps in (0.0, EPS) for n in sizes]
    noise = [Arm(n, 2000, EPS, "noise") for n in sizes]
    trades = [
        Arm(5000, updates, EPS, "trades", beta)
        for updates in (200, 2000)
        for beta in (0.3, 1.0, 4.0)
    ]
    equal_passes = [Arm(5000, 8000)]  # as many gradients as PGD for 2000 updates
    longer = [Arm(5000, 4000, eps) for eps in (0.0, EPS)]
    wider = [Arm(n, u, 2 * EPS) for u in (200, 2000) for n in sizes]
    between = [Arm(n, u, eps) for u in (500, 1000) for eps in (0.0, EPS) for n in sizes]
    return main + noise + trades + equal_passes + longer + wider + between


def crafted(arm: Arm, ramp: training.Ramp, seed: int) -> attacks.Attack | None:
    """Return what perturbs the batches of an ``arm``, or None."""
    if arm.eps == 0 or arm.method == "trades":
        return None
    generator = torch.Generator().manual_seed(seed)

    def attack(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        eps = arm.eps * ramp()
        if arm.method == "noise":
            signs = 2.0 * torch.randint(2, x.shape, generator=generator) - 1
            return (x + eps * signs).clamp(0, 1) - x
        return attacks.pgd_linf(
            model, x, y, eps, alpha=eps / 1.5, num_steps=STEPS, generator=generator
        )

    return attack


def trained(arm: Arm, seed: int, dataset: data.Dataset) -> nn.Sequential:
    """Return the network of an ``arm``."""
    x, y = (part[: arm.images] for part in dataset.train)
    model = models.seeded(models.mlp, dataset.shape, [100], seed=seed)
    epochs = math.ceil(arm.updates / math.ceil(len(y) / BATCH))
    objective = training.mean_cross_entropy
    if arm.method == "trades":
        alpha = arm.eps / 1.5
        objective = training.TradesLoss(
            arm.eps, alpha=alpha, num_steps=STEPS, beta=arm.beta, seed=seed
        )
    training.fit(
        model,
        x,
        y,
        epochs=epochs,
        lr=[0.05 if k < 0.75 * epochs else 0.005 for k in range(epochs)],
        batch_size=BATCH,
        momentum=0.9,
        attack=crafted(arm, training.Ramp(arm.updates // 2), seed),
        objective=objective,
        seed=seed,
    )
    return model


def measure(arm: Arm, seed: int, cache: Path, dataset: data.Dataset) -> dict:
    """Return one task's record, from the cache if it is there."""
    label = "-".join(str(value) for value in asdict(arm).values())
    path = cache / f"{dataset.name}-{label}-{seed}.json"
    if path.is_file():
        return json.loads(path.read_text())
    began = time.process_time()
    model = trained(arm, seed, dataset)
    pgd = partial(attacks.pgd_linf, eps=EPS, alpha=EPS / 5, num_steps=20)
    few = tuple(part[:ATTACKED] for part in dataset.test)
    seen = tuple(part[: min(arm.images, 5000)] for part in dataset.train)
    row = {
        **asdict(arm),
        "seed": seed,
        "train_wrong": int(evaluation.wrong(model, *seen).sum()),
        "clean_wrong": int(evaluation.wrong(model, *dataset.test).sum()),
        "attacked_wrong": evaluation.attacked_error(model, *few, pgd).wrong,
        "seconds": round(time.process_time() - began, 1),
    }
    shelf.keep(path, row)
    sys.stdout.write(f"{row}\n")
    sys.stdout.flush()
    return row


def sweep(
    cache: Path, dataset: data.Dataset, *, seeds: int, listed: list[Arm]
) -> list[dict]:
    """Return the records of the arms ``listed``, one arm after the other."""
    cache.mkdir(parents=True, exist_ok=True)
    tasks = [(arm, seed) for arm in listed for seed in range(seeds)]
    return [measure(arm, seed, cache, dataset) for arm, seed in tasks]


def main(arguments: list[str] | None = None) -> None:
    """Train and measure everything that is not in the cache, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path("_build/dials"))
    parser.add_argument("--seeds", type=int, default=SEEDS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    loaded = data.load("mnist")
    rows = sweep(options.cache, loaded, seeds=options.seeds, listed=arms())
    content = {
        "eps": EPS,
        "test_images": len(loaded.test[1]),
        "attacked_images": ATTACKED,
        "batch": BATCH,
        "attack_steps": STEPS,
        "runs": rows,
    }
    results.save(
        "dials",
        content,
        command=COMMAND,
        seeds=list(range(options.seeds)),
        dataset="mnist: the first training images; all test images",
        seconds=sum(row["seconds"] for row in rows),
        packages=("torch", "numpy"),
    )


if __name__ == "__main__":
    main()
