"""Chapter 1's photographs: PGD on a network for CIFAR-10, kept at 8 bits a pixel.

One command, about 3 minutes of CPU time: python tools/experiments/photographs.py
The record holds what the figure needs, so that nobody needs the data set: a few test
images, their perturbations as whole grey levels, and the answers of the network. A test
asks the committed network for these answers again.
"""

import sys
import time
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advlib import attacks, data, results, zoo

COMMAND = "python tools/experiments/photographs.py"
NETWORK, IMAGES, STEPS, SHOWN = "cnn_deep_0", 200, 40, 4
LEVELS, TARGET = (2, 8), "frog"
CLASSES = [
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
]


def toward(logits: Tensor, _: Tensor, target: int) -> Tensor:
    """Return the log-probability of ``target``: what a targeted attack raises."""
    return F.log_softmax(logits, 1)[:, target]


def whole(x: Tensor) -> np.ndarray:
    """Return pixels or perturbations in units of 1/255, rounded."""
    return (x * 255).round().numpy().astype(np.int64)


def answers(model: nn.Module, levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return class and its probability for images of whole grey levels."""
    with torch.no_grad():
        z = model(torch.tensor(levels, dtype=torch.float32) / 255)
    best = z.softmax(1).max(1)
    return best.indices.numpy(), best.values.numpy()


def attacked(
    model: nn.Module, x: Tensor, y: Tensor, levels: int, target: int | None
) -> np.ndarray:
    """Return perturbations (N, C, H, W) in whole grey levels, image plus it in 0..255.

    PGD moves away from the label, or toward ``target``; then x + delta is rounded to
    whole levels, which never leaves a ball whose radius is whole.
    """
    eps = levels / 255
    loss = attacks.cross_entropy if target is None else partial(toward, target=target)
    delta = attacks.pgd_linf(
        model, x, y, eps, alpha=2.5 * eps / STEPS, num_steps=STEPS, loss=loss
    )
    return whole(x + delta) - whole(x)


def picked(ready: np.ndarray, sure: np.ndarray, y: Tensor) -> list[int]:
    """Return the ``SHOWN`` surest images that are ``ready``, each of another class."""
    found: list[int] = []
    for i in np.argsort(-np.where(ready, sure, -1.0), kind="stable")[: ready.sum()]:
        if y[i] not in y[found]:
            found.append(int(i))
    return found[:SHOWN]


def measure(dataset: data.Dataset) -> dict:
    """Return the record of the first test images of ``dataset``."""
    model, aim = zoo.load(NETWORK, dataset), CLASSES.index(TARGET)
    x, y = (part[:IMAGES] for part in dataset.test)
    plain, labels = whole(x), y.numpy()
    said, before = answers(model, plain)
    masks = {"wrong": said != labels, "eligible": (labels != aim) & (said != aim)}
    deltas = {}
    for levels in LEVELS:
        for name, target in (("away", None), ("toward", aim)):
            key = f"{name} {levels}"
            deltas[key] = attacked(model, x, y, levels, target)
            now, _ = answers(model, plain + deltas[key])
            masks[key] = (now != labels) if target is None else (now == aim)
            sys.stdout.write(f"{key}: {masks[key].sum()} of {IMAGES}\n")
            sys.stdout.flush()
    both = masks["away 2"] & masks["toward 8"]
    rows = picked(~masks["wrong"] & masks["eligible"] & both, before, y)
    shown = []
    for i in rows:
        versions = {"image": plain[i]} | {k: plain[i] + d[i] for k, d in deltas.items()}
        said, sure = answers(model, np.stack(list(versions.values())))
        shown.append(
            {
                "index": i,
                "label": CLASSES[labels[i]],
                "image": results.pack(plain[i].astype(np.uint8)),
                "deltas": {
                    k: results.pack(d[i].astype(np.int8)) for k, d in deltas.items()
                },
                "answers": {
                    k: [CLASSES[c], round(float(p), 4)]
                    for k, c, p in zip(versions, said, sure, strict=True)
                },
            }
        )
    return {
        "network": NETWORK,
        "images": IMAGES,
        "steps": STEPS,
        "target": TARGET,
        "classes": CLASSES,
        "masks": {name: results.pack(mask) for name, mask in masks.items()},
        "shown": shown,
    }


def main() -> None:
    """Attack the first test images and write the result."""
    torch.set_num_threads(1)
    dataset = data.load("cifar10_jpeg")
    began = time.process_time()
    record = measure(dataset)
    results.save(
        "photographs",
        record,
        command=COMMAND,
        seeds=[],
        dataset=f"cifar10_jpeg: the first {IMAGES} test images",
        seconds=time.process_time() - began,
        packages=("torch", "numpy"),
    )


if __name__ == "__main__":
    main()
