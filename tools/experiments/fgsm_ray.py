"""One-step training, epoch by epoch: three errors, and the loss on two ways.

One command, about 5 minutes of CPU time: python tools/experiments/fgsm_ray.py
Two of the trainings of adversarial_training.py, FGSM's and "fast" at radius 0.3, again
with one of its seeds. After each epoch 1000 validation images are counted, as they are,
under FGSM and under the same PGD as there; and for 200 of them the loss is taken at
``SHARES`` of the way from the image to the point that FGSM makes of it, and to the one
where PGD ends. Each training is kept in CACHE when done.
"""

import argparse
import json
from functools import partial
from pathlib import Path

import adversarial_training as full
import numpy as np
import shelf
import torch
from torch import Tensor, nn

from advlib import attacks, data, evaluation, models, results, training

COMMAND = "python tools/experiments/fgsm_ray.py"
ROWS, SEED, COUNTED, ALONG = ("fgsm_3", "fast_3"), 2, 1000, 200
CACHE = Path("_build/fgsm_ray")
SHARES = [k / 20 for k in range(21)]


def ray(
    model: nn.Module, x: Tensor, y: Tensor, delta: Tensor
) -> dict[str, list | float]:
    """Return means over ``x`` (N, C, H, W), ``y`` on the way to ``x + delta``.

    The ``loss`` at each of ``SHARES``, and the ``slope``: by how much the loss rises on
    the whole way, as the gradient at the images has it.
    """
    gradient, losses = attacks.input_gradient(model, x, y), []
    for share in SHARES:
        with torch.no_grad():
            logits = model(x + share * delta)
        losses.append(round(float(attacks.cross_entropy(logits, y).mean()), 4))
    slope = float((gradient * delta).flatten(1).sum(1).mean())
    return {"loss": losses, "slope": round(slope, 4)}


def rays(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> dict[str, dict]:
    """Return the ``ray`` to the points of FGSM, and of ten steps of PGD."""
    walk = partial(attacks.pgd_linf, eps=eps, alpha=eps / 4, num_steps=10)
    return {
        "fgsm": ray(model, x, y, attacks.fgsm(model, x, y, eps)),
        "pgd": ray(model, x, y, walk(model, x, y)),
    }


def watched(
    name: str, seed: int, dataset: data.Dataset, *, count: int | None = None
) -> dict[str, list]:
    """Return what is seen after each epoch of the row ``name`` of the long experiment.

    Trained on the first ``count`` images (None: all).
    """
    row = full.ROWS[name]
    x, y = (part[:count] for part in dataset.train)
    model = models.seeded(models.cnn_small, dataset.shape, seed=seed)
    ramp = training.Ramp(round(row.ramp * row.epochs * -(-len(y) // full.BATCH)))
    few = tuple(part[:COUNTED] for part in dataset.validation)
    middle, seen = (np.arange(row.epochs) + 0.5) / row.epochs, []
    ways = {
        "clean": [],
        "fgsm": [partial(attacks.fgsm, eps=row.eps)],
        "pgd": full.pgd(row.eps, 10, starts=1),
    }

    def watch(epoch: int, mean: float) -> None:
        errors = {
            way: int(evaluation.attacked(model, *few, listed).sum())
            for way, listed in ways.items()
        }
        some = (part[:ALONG] for part in few)
        seen.append({"errors": errors, "rays": rays(model, *some, row.eps)})

    training.fit(
        model,
        x,
        y,
        epochs=row.epochs,
        lr=np.interp(middle, [0, 0.2, 1], [0, row.peak, 0]).tolist(),
        batch_size=full.BATCH,
        objective=full.objective(row, ramp, seed),
        attack=full.growing_attack(row, ramp, seed),
        momentum=0.9,
        after_epoch=watch,
        seed=seed,
    )
    return {"epochs": seen}


def main() -> None:
    """Train both, and write the record when both are there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--only", nargs="*", choices=ROWS, default=list(ROWS))
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    dataset, paths = data.load("mnist"), [options.cache / f"{n}.json" for n in ROWS]
    for name, path in zip(ROWS, paths, strict=True):
        if name in options.only:
            shelf.kept(path, partial(watched, name, SEED, dataset), quiet=["epochs"])
    if not all(path.is_file() for path in paths):
        return
    runs = {path.stem: json.loads(path.read_text()) for path in paths}
    content = {
        "eps": full.ROWS[ROWS[0]].eps,
        "images": COUNTED,
        "ray_images": ALONG,
        "shares": SHARES,
        "runs": {name: run["epochs"] for name, run in runs.items()},
    }
    results.save(
        "fgsm_ray",
        content,
        command=COMMAND,
        seeds=[SEED],
        dataset="mnist: training images; the first 1000 validation images",
        seconds=sum(run["cpu"] for run in runs.values()),
        packages=("torch", "numpy"),
    )


if __name__ == "__main__":
    main()
