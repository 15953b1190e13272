"""The tutorial's attack table again: three seeds, with and without the box.

One command, about an hour on one core: python tools/experiments/tutorial_attacks.py
Seed 0 is the committed network; the others are trained by the same recipe. Each part
is kept in CACHE when done, so that a run that was stopped goes on where it was.
"""

import argparse
import json
import sys
import time
from functools import partial
from pathlib import Path

import shelf
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from advlib import attacks, data, evaluation, results, zoo

COMMAND = "python tools/experiments/tutorial_attacks.py"
NETWORKS = {"dnn_2": 10000, "dnn_4": 10000, "cnn": 1000}  # test images used
SEEDS = [0, 1, 2]
RESTARTS = 10
THREAT = "l-inf, eps 0.1, or l2, eps 2; box: x + delta in [0, 1]"
SETTINGS = (
    "PGD: alpha 0.01, 40 steps from 0; PGD x 10: 10 random starts; PGD l2: alpha 0.1, "
    "40 steps from 0; an image also counts if x itself is wrong"
)


def network(name: str, seed: int, dataset: data.Dataset, cache: Path) -> nn.Sequential:
    """Return the committed network for seed 0, else train it or find it in cache."""
    model = zoo.load(name, dataset)
    path = cache / f"{name}-{seed}.safetensors"
    if seed and path.is_file():
        model.load_state_dict(load_file(path))
    elif seed:
        model = zoo.train(name, dataset, seed=seed)
        save_file(model.state_dict(), path)
    return model


def attack_list(kind: str, box: bool, seed: int) -> list[attacks.Attack]:
    """Return the runs whose union is one row of the table."""
    linf = partial(attacks.pgd_linf, eps=0.1, alpha=0.01, num_steps=40, box=box)
    if kind == "FGSM":
        return [partial(attacks.fgsm, eps=0.1, box=box)]
    if kind == "PGD":
        return [linf]
    if kind == "PGD l2":
        return [partial(attacks.pgd_l2, eps=2.0, alpha=0.1, num_steps=40, box=box)]
    generator = torch.Generator().manual_seed(seed)  # each restart goes on with it
    return [partial(linf, generator=generator)] * RESTARTS


def measure(name: str, seed: int, dataset: data.Dataset, cache: Path) -> list[dict]:
    """Return one row for each attack, with and without box, of one network."""
    model = network(name, seed, dataset, cache)
    n, rows = NETWORKS[name], []
    x, y = (part[:n] for part in dataset.test)
    for kind in ("FGSM", "PGD", "PGD x 10", "PGD l2"):
        for box in (False, True):
            began = time.process_time()
            runs = attack_list(kind, box, seed)
            found = evaluation.attacked_error(
                model, x, y, runs, batch_size=100, box=box
            )
            row = {"network": name, "seed": seed, "attack": kind, "box": box}
            row |= {"wrong": found.wrong, "n": found.n}
            rows.append(row | {"cpu_seconds": round(time.process_time() - began, 1)})
            sys.stdout.write(f"{rows[-1]}\n")
            sys.stdout.flush()
    clean = evaluation.clean_error(model, *dataset.test)
    row = {"network": name, "seed": seed, "attack": "none", "box": True}
    return [*rows, row | {"wrong": clean.wrong, "n": clean.n, "cpu_seconds": 0.0}]


def main(arguments: list[str] | None = None) -> None:
    """Measure every network and seed; write the result after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path("_build/tutorial_attacks"))
    parser.add_argument("--stored", action="store_true", help="only what is in CACHE")
    options = parser.parse_args(arguments)
    options.cache.mkdir(parents=True, exist_ok=True)
    dataset, rows, seconds = data.load("mnist"), [], 0.0
    for name in NETWORKS:
        for seed in SEEDS:
            part = options.cache / f"{name}-{seed}.json"
            if options.stored and not part.is_file():
                continue
            if not part.is_file():
                began = time.perf_counter()
                found = measure(name, seed, dataset, options.cache)
                took = time.perf_counter() - began
                shelf.keep(part, {"rows": found, "seconds": took})
            stored = json.loads(part.read_text())
            rows += stored["rows"]
            seconds += stored["seconds"]
            about = {"threat_model": THREAT, "settings": SETTINGS, "rows": rows}
            results.save(
                "tutorial_attacks",
                about,
                command=COMMAND,
                seeds=SEEDS,
                dataset=str(dataset),
                seconds=seconds,
                packages=("torch",),
            )


if __name__ == "__main__":
    main()
