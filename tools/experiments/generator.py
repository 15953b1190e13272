"""Chapter 11b: a generator as the attacker, trained for longer and longer.

A network that maps an image to its perturbation learns on 20 000 images against the
zoo's standard network; its control is *one* perturbation for all images, trained
alike; one step along the gradient and PGD work on each image anew. MNIST, l-inf, eps
0.1, the box kept, 1000 test images. About five minutes of one core; each seed is kept
in CACHE when done, so that a run that was stopped goes on where it was.
"""

import argparse
import json
import math
import sys
import time
from functools import partial
from pathlib import Path

import shelf
import torch
from torch import Tensor, nn

from advlib import attacks, data, evaluation, models, results, zoo

COMMAND = "python tools/experiments/generator.py"
EPS, VICTIM = 0.1, "cnn_small"
SEEDS = [0, 1, 2]
MARKS = [100, 300, 1000, 3000]  # updates after which the attacker is measured
TRAINED, ATTACKED, BATCH = 20_000, 1000, 100


class Universal(nn.Module):
    """The control: one pattern for all images, which it does not look at."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.pattern = nn.Parameter(0.01 * torch.randn(shape))

    def forward(self, x: Tensor) -> Tensor:
        """Return the pattern, once for each image."""
        return self.pattern.tanh().expand(x.shape)


def amortised(shape: tuple[int, ...]) -> nn.Sequential:
    """Return the generator: two affine layers, every entry between -1 and 1."""
    size = math.prod(shape)
    layers = [nn.Flatten(), nn.Linear(size, 300), nn.ReLU(), nn.Linear(300, size)]
    return nn.Sequential(*layers, nn.Tanh(), nn.Unflatten(1, shape))


KINDS = {"generator": amortised, "one pattern for all": Universal}
RATES = {"generator": 3e-4, "one pattern for all": 1e-2}  # of Adam


def perturb(fooler: nn.Module, x: Tensor) -> Tensor:
    """Return the ``delta`` of ``fooler`` for images ``x``, in ball and box."""
    return (x + EPS * fooler(x)).clamp(0, 1) - x


def learned(fooler: nn.Module) -> attacks.Attack:
    """Return ``fooler`` as an attack, which asks the victim for no gradient."""

    def attack(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            return perturb(fooler, x)

    return attack


def train(kind: str, seed: int, victim: nn.Module, dataset: data.Dataset) -> list[int]:
    """Return how many test images the attacker has fooled after each of ``MARKS``."""
    fooler = models.seeded(KINDS[kind], dataset.shape, seed=seed)
    draw = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(fooler.parameters(), RATES[kind])
    x, y = (part[:TRAINED] for part in dataset.train)
    far, truth = (part[:ATTACKED] for part in dataset.test)
    counts = []
    for update in range(1, MARKS[-1] + 1):
        pick = torch.randint(len(y), (BATCH,), generator=draw)
        logits = victim(x[pick] + perturb(fooler, x[pick]))
        gain = attacks.margin_loss(logits, y[pick]).clamp(max=1)  # enough is enough
        optimiser.zero_grad()
        (-gain.mean()).backward()
        optimiser.step()
        if update in MARKS:
            fooled = evaluation.attacked(victim, far, truth, [learned(fooler)])
            counts.append(int(fooled.sum()))
    return counts


def solved(victim: nn.Module, dataset: data.Dataset) -> dict[str, int]:
    """Return the counts of the attacks that look at each image anew, and clean."""
    x, y = (part[:ATTACKED] for part in dataset.test)
    pgd = partial(attacks.pgd_linf, eps=EPS, alpha=0.01, num_steps=20)
    ways = {"one gradient step": partial(attacks.fgsm, eps=EPS), "PGD, 20 steps": pgd}
    counts = {"clean": int(evaluation.wrong(victim, x, y).sum())}
    for name, attack in ways.items():
        counts[name] = int(evaluation.attacked(victim, x, y, [attack]).sum())
    return counts


def main(arguments: list[str] | None = None) -> None:
    """Train what is missing, one attacker and seed after the other; write it all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path("_build/generator"))
    options = parser.parse_args(arguments)
    options.cache.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    dataset = data.load("mnist")
    victim = zoo.load(VICTIM, dataset).requires_grad_(False)
    runs = []
    for kind in KINDS:
        for seed in SEEDS if kind == "generator" else SEEDS[:1]:
            path = options.cache / f"{kind.replace(' ', '-')}-{seed}.json"
            if not path.is_file():
                began = time.process_time()
                row = {"kind": kind, "seed": seed}
                row["wrong"] = train(kind, seed, victim, dataset)
                row["seconds"] = round(time.process_time() - began, 1)
                shelf.keep(path, row)
            runs.append(json.loads(path.read_text()))
            sys.stdout.write(f"{runs[-1]}\n")
            sys.stdout.flush()
    content = {
        "victim": VICTIM,
        "eps": EPS,
        "updates": MARKS,
        "batch": BATCH,
        "training_images": min(TRAINED, len(dataset.train[1])),
        "attacked_images": min(ATTACKED, len(dataset.test[1])),
        "solved": solved(victim, dataset),
        "runs": runs,
    }
    results.save(
        "generator",
        content,
        command=COMMAND,
        seeds=SEEDS,
        dataset=str(dataset),
        seconds=sum(row["seconds"] for row in runs),
        packages=("torch", "numpy"),
    )


if __name__ == "__main__":
    main()
