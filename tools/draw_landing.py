"""Make the three small pictures of the landing page, and what the network says of them.

The first sevens of MNIST's test images, forty steps of PGD (l-inf, eps 0.1, box kept)
against the standard network ``cnn``: of those it then calls a three, the one it is
surest of. Written are ``landing/{image,change,changed}.png``, 28 x 28 pixels, and
``landing.json`` with index, answers and confidences in per cent, rounded down, which a
test measures again.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from advlib import attacks, data, zoo

THEME = Path(__file__).resolve().parent.parent / "_ext" / "book_theme"
NOTE, FOLDER = THEME / "landing.json", THEME / "static" / "landing"
EPS, FIRST = 0.1, 1000


def found(dataset: data.Dataset) -> tuple[torch.Tensor, torch.Tensor, dict]:
    """Return an image, its perturbation, and the network's answers to both."""
    network = zoo.load("cnn", dataset)
    x, y = (part[:FIRST] for part in dataset.test)
    rows = (y == 7).nonzero()[:, 0]
    delta = attacks.pgd_linf(network, x[rows], y[rows], EPS, alpha=0.01, num_steps=40)
    with torch.no_grad():
        before, after = network(x[rows]).softmax(1), network(x[rows] + delta).softmax(1)
    misread = (before.argmax(1) == 7) & (after.argmax(1) == 3)
    best = int((after[:, 3] * misread).argmax())
    answers = {
        "index": int(rows[best]),
        "before": [7, int(100 * before[best, 7])],
        "after": [int(after[best].argmax()), int(100 * after[best].max())],
        "largest_change": round(float(delta[best].abs().max()), 4),
    }
    return x[rows[best]], delta[best], answers


def main() -> None:
    """Write pictures and note."""
    dataset = data.default()
    if dataset.name != "mnist":
        sys.exit(f"the picture is one of MNIST's, and here is {dataset}")
    image, delta, answers = found(dataset)
    FOLDER.mkdir(parents=True, exist_ok=True)
    gray = {"image": image, "changed": image + delta}
    for name, pixels in gray.items():
        values = (pixels[0].numpy() * 255).round().astype(np.uint8)
        Image.fromarray(values).save(FOLDER / f"{name}.png", optimize=True)
    signed = delta[0].numpy() / EPS  # red: brighter, blue: darker, white: unchanged
    paint = np.ones((*signed.shape, 3))
    paint[..., 1] -= np.abs(signed)
    paint[..., 2] -= signed.clip(0)
    paint[..., 0] -= (-signed).clip(0)
    paint = 1 - 0.6 * (1 - paint)
    Image.fromarray((paint * 255).round().astype(np.uint8)).save(
        FOLDER / "change.png", optimize=True
    )
    NOTE.write_text(json.dumps(answers, indent=1) + "\n")
    print(answers)


if __name__ == "__main__":
    main()
