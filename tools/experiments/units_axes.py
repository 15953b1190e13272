"""Are the axes of a feature space special? The own basis against 99 random ones.

One command, about 10 minutes of CPU time: python tools/experiments/units_axes.py
Each network is one task, kept in CACHE when done, so that a run that was stopped goes
on where it was. The networks, the live units and the transforms are those of
``units.py``; so are the images: transforms are fitted on validation images, the images
on top are test images, eight for each direction.

For the last hidden layer, by transform: mean purity and entropy of the own axes and of
99 random orthonormal bases; the same for logits and for softmax outputs, where units
are classes by construction; a score without labels, in the features of the network of
the next seed; the share of the variance that lies between the classes; and how close
whitened coordinate i is to unit i.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import shelf
import torch
import units as grid
from torch import Tensor, nn

from advlib import models, results, units, words, zoo

COMMAND = "python tools/experiments/units_axes.py"
KINDS = ("raw", "z-scored", "whitened")
K, BASES = 8, 99


def scores(phi: Tensor, y: Tensor, directions: Tensor) -> tuple[float, float]:
    """Return mean purity and mean entropy of the images on top of ``directions``."""
    top = y[units.top_images(phi, directions, K)]
    return float(units.purity(top).mean()), float(units.entropy(top).mean())


def own_and_others(phi: Tensor, y: Tensor, seed: int) -> dict:
    """Return the scores of the axes of ``phi`` and of ``BASES`` random bases."""
    n, generator = phi.shape[1], torch.Generator().manual_seed(1000 + seed)
    bases = [torch.eye(n, dtype=torch.float64)]
    found = [scores(phi, y, bases[0])]
    for _ in range(BASES):
        basis = units.random_rotation(n, generator=generator)
        found.append(scores(phi, y, basis))
    return {
        name: {"own": values[0], "others": list(values[1:])}
        for name, values in zip(("purity", "entropy"), zip(*found, strict=True),
                                strict=True)
    }  # fmt: skip


def against_directions(phi: Tensor, y: Tensor, seed: int) -> dict:
    """Return units against random directions, as ``units.py`` does for features."""
    n, generator = phi.shape[1], torch.Generator().manual_seed(seed)
    v = units.random_directions(grid.DIRECTIONS, n, generator=generator)
    pure = [
        units.purity(y[units.top_images(phi, d, K)])
        for d in (torch.eye(n, dtype=torch.float64), v)
    ]
    return {
        "units": float(pure[0].mean()),
        "gaussian": float(pure[1].mean()),
        "difference": units.mean_difference(*[p.tolist() for p in pure], seed=seed),
    }


def between_share(phi: Tensor, y: Tensor) -> float:
    """Return the share of the variance of ``phi`` that its class means explain."""
    center = phi.mean(0)
    classes = [phi[y == c] for c in y.unique().tolist()]
    between = sum(len(p) * (p.mean(0) - center).square().sum() for p in classes)
    return float(between / (phi - center).square().sum())


def closeness(phi: Tensor, white: Tensor) -> dict:
    """Return the correlations of whitened coordinate i with unit i, and with others."""
    both = torch.corrcoef(torch.cat([phi, white], 1).T)[phi.shape[1] :, : phi.shape[1]]
    own = both.diagonal().abs()
    return {
        "median": float(own.median()),
        "least": float(own.min()),
        "nearest": float((both.abs().argmax(1) == torch.arange(len(own))).double()
                         .mean()),
    }  # fmt: skip


def seen_by_another(
    phi: Tensor, y: Tensor, other: Tensor, directions: Tensor, seed: int
) -> float:
    """Return how alike the top images are in the features of another network.

    The mean cosine of their pairs, minus that of random images with the same labels.
    """
    top = units.top_images(phi, directions, K)
    generator = torch.Generator().manual_seed(seed)
    same = torch.empty_like(top)
    for c in y.unique().tolist():
        (members,) = (y == c).nonzero(as_tuple=True)
        chosen = y[top] == c
        drawn = torch.randint(len(members), (int(chosen.sum()),), generator=generator)
        same[chosen] = members[drawn]
    near, far = (words.mean_cosine(other, rows) for rows in (top, same))
    return float((near - far).mean())


def network(dataset: str, name: str, seed: int, trained: bool) -> nn.Sequential:
    """Return the network ``name``, or the same before its training."""
    if trained:
        return zoo.load(name, grid.load(dataset))
    build = getattr(models, zoo.RECIPES[name].build)
    return models.seeded(build, grid.load(dataset).shape, seed=seed)


def measured(dataset: str, build: str, seed: int, trained: bool) -> dict:
    """Return all that is measured on one network."""
    loaded, name = grid.load(dataset), f"{build}_{seed}"
    model = network(dataset, name, seed, trained)
    x, y = loaded.test
    fitted = units.features(model, loaded.validation[0], -2)
    live = units.live_units(fitted)
    phi, fitted = units.features(model, x, -2)[:, live], fitted[:, live]
    following = (seed + 1) % len(grid.SEEDS)
    reference = network(dataset, f"{build}_{following}", following, trained)
    other = units.features(reference, x, -2)
    other = words.unit_length(other - other.mean(0))
    row: dict = {"data": dataset, "network": name, "trained": trained, "kinds": {}}
    row["seen_by_another"], n = {}, phi.shape[1]
    v = units.random_directions(
        grid.DIRECTIONS, n, generator=torch.Generator().manual_seed(seed)
    )
    for kind in KINDS:
        made = units.fit_transform(fitted, kind)(phi)
        row["kinds"][kind] = own_and_others(made, y, seed)
        row["seen_by_another"][kind] = {
            group: seen_by_another(made, y, other, d, seed)
            for group, d in (("units", torch.eye(n).double()), ("gaussian", v))
        }
    row["whitened"] = closeness(phi, made)
    row["between"] = between_share(phi, y)
    if trained:
        logits = units.features(model, x, -1)
        for what, out in (("logits", logits), ("softmax", logits.softmax(1))):
            row[what] = against_directions(out, y, seed)
            row[what] |= own_and_others(out, y, seed)
    return row


def cached(folder: Path, task: tuple) -> dict:
    """Return the row of one ``task``, with its CPU seconds, from the cache if there."""
    path = folder / ("-".join(map(str, task)) + ".json")
    if path.is_file():
        return json.loads(path.read_text())
    began = time.process_time()
    row = grid.slim(measured(*task))
    row["seconds"] = round(time.process_time() - began, 1)
    shelf.keep(path, row)
    sys.stdout.write(f"{task} {row['seconds']} s\n")
    sys.stdout.flush()
    return row


def main(arguments: list[str] | None = None) -> None:
    """Measure all networks and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path("_build/units_axes"))
    folder = parser.parse_args(arguments).cache
    folder.mkdir(parents=True, exist_ok=True)
    tasks = [
        (dataset, build, seed, trained)
        for trained in (True, False)
        for seed in grid.SEEDS
        for dataset in grid.SETS
        for build in grid.BUILDS
    ]
    rows = [cached(folder, task) for task in tasks]
    pixels = {}
    for dataset in grid.SETS:
        x, y = grid.load(dataset).test
        pixels[dataset] = round(between_share(x.flatten(1).double(), y), 4)
    results.save(
        "units_axes",
        {"k": K, "bases": BASES, "between_pixels": pixels, "rows": rows},
        command=COMMAND,
        seeds=list(grid.SEEDS),
        dataset="mnist, cifar10_jpeg: 10000 test images each; 5000 validation images",
        seconds=sum(row["seconds"] for row in rows),
        packages=("torch", "numpy", "scipy"),
    )


if __name__ == "__main__":
    main()
