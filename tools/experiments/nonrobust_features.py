"""Training on adversarial images with the wrong labels, tested on clean images.

One command, about 4 minutes of CPU time: python tools/experiments/nonrobust_features.py
A teacher (the committed dnn_2) is attacked on its training images toward a target;
students with other seeds see only the attacked images, labelled with the targets.
The control: noise of the same length and the same labels. Each group of students is one
task, kept in CACHE when done, so that a run that was stopped goes on where it was.
"""

import argparse
import json
import sys
import time
from functools import partial
from pathlib import Path

import shelf
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advlib import attacks, data, evaluation, models, results, training, zoo

COMMAND = "python tools/experiments/nonrobust_features.py"
TEACHER, IMAGES, SEEDS, EPOCHS = "dnn_2", 20_000, [11, 12, 13, 14, 15], 10
RATES = [0.1] * 8 + [0.01] * 2
TASKS = [
    ("dnn_2", labels, eps) for labels in ("random", "next") for eps in (1.0, 2.0, 4.0)
]


def targets(y: Tensor, labels: str, seed: int = 0) -> Tensor:
    """Return wrong labels: a "random" other class, or the "next" one."""
    generator = torch.Generator().manual_seed(seed)
    shift = torch.randint(1, 10, y.shape, generator=generator)
    return (y + (1 if labels == "next" else shift)) % 10


def perturbed(
    teacher: nn.Module, x: Tensor, y: Tensor, aim: Tensor, eps: float
) -> Tensor:
    """Return PGD's perturbations toward ``aim`` in the l2 ball, 20 steps."""
    found = []
    for part in torch.arange(len(y)).split(1000):

        def loss(logits: Tensor, _: Tensor, part: Tensor = part) -> Tensor:
            return -F.cross_entropy(logits, aim[part], reduction="none")

        attack = partial(attacks.pgd_l2, eps=eps, alpha=eps / 5, num_steps=20)
        found.append(attack(teacher, x[part], y[part], loss=loss))
    return torch.cat(found)


def accuracy(
    name: str, seed: int, x: Tensor, y: Tensor, dataset: data.Dataset
) -> float:
    """Return the clean test accuracy of a network trained on ``x``, ``y``."""
    build = getattr(models, name)
    model = models.seeded(build, dataset.shape, seed=seed)
    training.fit(model, x, y, epochs=EPOCHS, lr=RATES, seed=seed)
    return 1 - evaluation.clean_error(model, *dataset.test).rate


def measure(
    task: tuple[str, str, float], cache: Path, dataset: data.Dataset, seeds: list[int]
) -> dict:
    """Return one task's record, from the cache if it is there."""
    student, labels, eps = task
    path = cache / f"{dataset.name}-{student}-{labels}-{eps}.json"
    if path.is_file():
        return json.loads(path.read_text())
    began = time.process_time()
    x, y = (part[:IMAGES] for part in dataset.train)
    teacher, aim = zoo.load(TEACHER, dataset), targets(y, labels)
    delta = perturbed(teacher, x, y, aim, eps)
    with torch.no_grad():
        hit = teacher(x + delta).argmax(1) == aim
    noise = training.noise_as_long_as(lambda *_: delta, seed=1)(teacher, x, y)
    row = {
        "student": student,
        "labels": labels,
        "eps": eps,
        "hit": float(hit.float().mean()),
        "attack": [accuracy(student, s, x + delta, aim, dataset) for s in seeds],
        "noise": [accuracy(student, s, x + noise, aim, dataset) for s in seeds],
        "seconds": round(time.process_time() - began, 1),
    }
    shelf.keep(path, row)
    sys.stdout.write(f"{row}\n")
    sys.stdout.flush()
    return row


def main(arguments: list[str] | None = None) -> None:
    """Train all students and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path("_build/nonrobust"))
    options = parser.parse_args(arguments)
    options.cache.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    loaded = data.load("mnist")
    rows = [measure(task, options.cache, loaded, SEEDS) for task in TASKS]
    results.save(
        "nonrobust_features",
        {"teacher": TEACHER, "images": IMAGES, "epochs": EPOCHS, "runs": rows},
        command=COMMAND,
        seeds=SEEDS,
        dataset=f"mnist: the first {IMAGES} training images; all test images",
        seconds=sum(row["seconds"] for row in rows),
        packages=("torch", "numpy"),
    )


if __name__ == "__main__":
    main()
