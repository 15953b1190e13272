"""Chapter 2a's frontier: linear models for 0 and 1, trained at many radii, both ways.

One command, about 4 minutes: python tools/experiments/price_of_robustness.py
All are trained by one recipe on the closed form of the worst case (l-inf), some with
the box, some without; "long" is the same for 100 epochs and "published" the standard
recipe of Kolter and Madry. Kept are the masks of wrong test images, all exact, so that
any two models can be compared image by image. Each model is one task, kept in the cache
when done, so that a run that was stopped goes on where it was.
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

from advlib import data, linear, models, results, training

COMMAND = "python tools/experiments/price_of_robustness.py"
EPS, SEEDS = 0.2, range(3)
RADII = (0.05, 0.1, 0.16, 0.18, 0.2, 0.25, 0.3)
RECIPES = {"same": (20, 0.1), "long": (100, 0.1), "published": (10, 1.0)}
Task = tuple[str, float, bool, int]  # recipe, training radius, box, seed
MODELS = [
    ("published", 0.0, True),
    ("same", 0.0, True),
    *(("same", radius, box) for box in (False, True) for radius in RADII),
]
TASKS: list[Task] = [(*model, seed) for seed in SEEDS for model in MODELS]
TASKS.append(("long", EPS, False, 0))
MEASURES = {
    "clean": (0.0, True),
    "no box": (EPS, False),
    "box": (EPS, True),
    "box 0.3": (0.3, True),
}


def worst_loss(model: nn.Module, x: Tensor, y: Tensor, eps: float, box: bool) -> Tensor:
    """Return the mean logistic loss in the worst case: exact."""
    return F.softplus(-linear.binary_margins(model, x, y, eps, box=box)).mean()


def pair(split: data.Split) -> data.Split:
    """Return the zeros and ones of ``split`` in double precision."""
    x, y = data.pair(split, 0, 1)
    return x.double(), y.double()


def train(
    task: Task, x: Tensor, y: Tensor, recipes: dict[str, tuple[int, float]] = RECIPES
) -> nn.Module:
    """Return the model of ``task``, trained on images ``x``, ``y`` of -1 and 1."""
    recipe, radius, box, seed = task
    epochs, lr = recipes[recipe]
    model = models.seeded(models.linear, tuple(x.shape[1:]), 1, seed=seed).double()
    training.fit(
        model,
        x,
        y,
        epochs=epochs,
        lr=lr,
        seed=seed,
        batch_size=min(100, len(y) // 10),
        objective=partial(worst_loss, eps=radius, box=box),
    )
    return model


def wrong(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, str]:
    """Return the packed mask of wrong images for each of ``MEASURES``."""
    with torch.no_grad():
        return {
            name: results.pack(
                (linear.binary_margins(model, x, y, eps, box=box) <= 0).numpy()
            )
            for name, (eps, box) in MEASURES.items()
        }


def measure(task: Task, cache: Path, dataset: data.Dataset) -> dict:
    """Return the record of one model, from the cache if it is there."""
    recipe, radius, box, seed = task
    path = cache / f"{dataset.name}-{recipe}-{radius}-{box}-{seed}.json"
    if path.is_file():
        return json.loads(path.read_text())
    began = time.process_time()
    model = train(task, *pair(dataset.train))
    row = {
        "recipe": recipe,
        "radius": radius,
        "trained_with_box": box,
        "seed": seed,
        "wrong": wrong(model, *pair(dataset.test)),
        "seconds": round(time.process_time() - began, 2),
    }
    shelf.keep(path, row)
    counts = {k: int(results.unpack(v).sum()) for k, v in row["wrong"].items()}
    sys.stdout.write(f"{task} {counts} {row['seconds']} s\n")
    sys.stdout.flush()
    return row


def main(arguments: list[str] | None = None) -> None:
    """Train all models and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path("_build/price"))
    options = parser.parse_args(arguments)
    options.cache.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    dataset = data.load("mnist")
    rows = [measure(task, options.cache, dataset) for task in TASKS]
    results.save(
        "price_of_robustness",
        {
            "eps": EPS,
            "recipes": RECIPES,
            "test_images": len(pair(dataset.test)[1]),
            "runs": rows,
        },
        command=COMMAND,
        seeds=list(SEEDS),
        dataset="mnist: all zeros and ones of the training and of the test images",
        seconds=sum(row["seconds"] for row in rows),
        packages=("torch", "numpy"),
    )


if __name__ == "__main__":
    main()
