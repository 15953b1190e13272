"""Purity of the top images: units against random directions, with every control.

One command, about 5 minutes of CPU time: python tools/experiments/units.py
Each network is one task, kept in CACHE when done, so that a run that was stopped goes
on where it was. Two architectures x {MNIST, CIFAR-10} x three seeds, trained and
untrained; FC100-100-10 at both hidden layers; raw pixels. Transforms are fitted on
validation images, the images on top are test images. Units that are on for less than
5 % of the validation images are left out, and directions are drawn among the others.
"""

import argparse
import base64
import io
import json
import sys
import time
from collections.abc import Iterator, Sequence
from functools import cache, partial
from pathlib import Path

import numpy as np
import shelf
import torch
from PIL import Image
from scipy import stats
from torch import Tensor, nn

from advlib import data, models, results, units, zoo

COMMAND = "python tools/experiments/units.py"
SETS, BUILDS, SEEDS = ("mnist", "cifar10_jpeg"), ("cnn_shallow", "cnn_deep"), (0, 1, 2)
TOPS = (4, 8, 16, 50)
DIRECTIONS = 1000
SHARES = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0]
ORDERS, ABLATED = 10, 2000  # orders of ablation; test images
ROWS, SHOWN = 5, 8  # pictures

load = cache(data.load)


def groups(phi: Tensor, seed: int) -> dict[str, Tensor]:
    """Return the directions to compare in the space of ``phi``, by name."""
    n = phi.shape[1]
    draw = partial(units.random_directions, DIRECTIONS, n)
    axes = units.pca_directions(phi, min(10, n))
    return {
        "units": torch.eye(n, dtype=torch.float64),
        "gaussian": draw(generator=torch.Generator().manual_seed(seed)),
        "uniform": draw(generator=torch.Generator().manual_seed(seed), kind="uniform"),
        "pca": torch.cat([axes, -axes]),
    }


def measure(phi: Tensor, y: Tensor, directions: dict[str, Tensor], seed: int) -> dict:
    """Return purity and entropy of the top images of each group, for each K."""
    top = {k: units.top_images(phi, v, max(TOPS)) for k, v in directions.items()}
    rows = {}
    for k in TOPS:
        pure = {name: units.purity(y[t[:, :k]]) for name, t in top.items()}
        bits = {name: units.entropy(y[t[:, :k]]) for name, t in top.items()}
        rows[str(k)] = {
            "purity": {name: float(p.mean()) for name, p in pure.items()},
            "entropy": {name: float(e.mean()) for name, e in bits.items()},
            "majority": {
                name: torch.bincount((p * k).round().long(), minlength=k + 1).tolist()
                for name, p in pure.items()
            },
            "difference": units.mean_difference(
                pure["units"].tolist(), pure["gaussian"].tolist(), seed=seed
            ),
            "entropy_difference": units.mean_difference(
                bits["units"].tolist(), bits["gaussian"].tolist(), seed=seed
            ),
            "overlap": {n: units.overlap(t[:, :k]) for n, t in top.items()},
        }
    return rows


def shape_of(phi: Tensor, seed: int) -> dict:
    """Return what needs no labels: spectrum, zeros and tails of units and directions.

    ``tails`` is the median excess kurtosis.
    """
    values = units.spectrum(phi).clamp(min=0)
    generator = torch.Generator().manual_seed(seed)
    v = units.random_directions(DIRECTIONS, phi.shape[1], generator=generator)
    along = {"units": phi.numpy(), "gaussian": (phi @ v.T).numpy()}
    return {
        "live": phi.shape[1],
        "spectrum": (values / values.sum())[:30].tolist(),
        "effective_dimension": units.effective_dimension(values),
        "zeros": {name: float((a == 0).mean()) for name, a in along.items()},
        "tails": {n: float(np.median(stats.kurtosis(a))) for n, a in along.items()},
    }


def ablate(rest: nn.Module, phi: Tensor, y: Tensor, mean: Tensor, live: Tensor) -> dict:
    """Return accuracies left, (orders, shares), for units and for random directions.

    Both inside the span of the live units, set to their ``mean`` or to 0.
    """
    n = int(live.sum())
    eye = torch.eye(len(live), dtype=torch.float64)[live]
    counts = [round(share * n) for share in SHARES]
    found: dict = {"shares": SHARES, "orders": ORDERS, "images": len(y)}
    for name, center in (("mean", mean), ("zero", None)):
        found[name] = {"units": [], "gaussian": []}
        for order in range(ORDERS):
            generator = torch.Generator().manual_seed(order)
            rotation = units.random_rotation(n, generator=generator)
            mixed = {
                "units": eye[torch.randperm(n, generator=generator)],
                "gaussian": rotation @ eye,
            }
            for group, v in mixed.items():
                left = units.ablated_accuracy(rest, phi, y, v, counts, center=center)
                found[name][group].append(left)
    return found


def source(dataset: str, network: str, seed: int, layer: int, trained: bool) -> dict:
    """Return all that is measured at one layer of one network."""
    loaded = load(dataset)
    if network == "pixels":
        model = nn.Sequential(nn.Flatten(), nn.Identity()).eval()
    elif trained:
        model = zoo.load(network, loaded)
    else:
        build = getattr(models, zoo.RECIPES[network].build)
        model = models.seeded(build, loaded.shape, seed=seed)
    fitted = units.features(model, loaded.validation[0], layer)
    phi, y = units.features(model, loaded.test[0], layer), loaded.test[1]
    live = units.live_units(fitted)
    row = {"data": dataset, "network": network, "seed": seed, "layer": layer}
    row |= {"trained": trained, "width": len(live), "kinds": {}}
    whole, mean = phi, fitted.mean(0)
    phi, fitted = phi[:, live], fitted[:, live]  # the space of the live units
    row["shape"] = shape_of(phi, seed)
    big = phi.shape[1] > 1000  # transforms of thousands of pixels take minutes
    for kind in ["raw"] if big else units.KINDS:
        transform = units.fit_transform(fitted, kind)
        directions = groups(transform(fitted), seed)
        row["kinds"][kind] = measure(transform(phi), y, directions, seed)
    if trained and network != "pixels":
        rest, few = model[layer % len(model) + 1 :].eval(), slice(ABLATED)
        row["ablation"] = ablate(rest, whole[few], y[few], mean, live)
    return row


def tasks(seeds: Sequence[int]) -> Iterator[tuple[str, str, int, int, bool]]:
    """Yield data set, network, seed, layer, and whether it is trained."""
    for seed in seeds:
        for dataset in SETS:
            for build in BUILDS:
                for trained in (True, False):
                    yield dataset, f"{build}_{seed}", seed, -2, trained
    yield "mnist", "fc_100_100", 0, 2, True
    yield "mnist", "fc_100_100", 0, 4, True
    for dataset in SETS:
        yield dataset, "pixels", 0, 0, True


def cached(cache_folder: Path, task: tuple) -> dict:
    """Return the row of one ``task``, from the cache if it is there."""
    path = cache_folder / ("-".join(map(str, task)) + ".json")
    if path.is_file():
        return json.loads(path.read_text())
    began = time.process_time()
    row = source(*task)
    shelf.keep(path, row)
    seconds = time.process_time() - began
    found = row["kinds"]["raw"]["8"]["difference"]
    sys.stdout.write(f"{task} {found} {seconds:.0f} s\n")
    sys.stdout.flush()
    return row


def strip(images: Tensor) -> str:
    """Return images (N, C, H, W) side by side as a JPEG in base64."""
    pixels = torch.cat(list(images), dim=2).permute(1, 2, 0)
    array = (pixels * 255).round().to(torch.uint8).numpy()
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "JPEG", quality=85, subsampling=0)
    return base64.b64encode(buffer.getvalue()).decode()


def pictures(network: str = "cnn_deep_0") -> list[dict]:
    """Return the first live units' and first random directions' top CIFAR images."""
    loaded = load("cifar10_jpeg")
    model, (x, y) = zoo.load(network, loaded), loaded.test
    live = units.live_units(units.features(model, loaded.validation[0], -2))
    phi = units.features(model, x, -2)[:, live]
    eye = torch.eye(phi.shape[1], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    drawn = units.random_directions(ROWS, phi.shape[1], generator=generator)
    first = live.nonzero()[:ROWS, 0]
    rows = []
    for kind, v in (("unit", eye[:ROWS]), ("random", drawn)):
        for i, top in enumerate(units.top_images(phi, v, SHOWN)):
            name = f"unit {int(first[i])}" if kind == "unit" else f"random {i}"
            pure = float(units.purity(y[top][None])[0])
            row = {"direction": name, "kind": kind, "purity": pure}
            rows.append(row | {"labels": y[top].tolist(), "jpeg": strip(x[top])})
    return rows


def slim(value: object, digits: int = 4) -> object:
    """Return nested ``value`` with floats rounded and long lists of counts left out."""
    if isinstance(value, float):
        return round(value, digits)
    if isinstance(value, (list, tuple)):
        return [slim(v, digits) for v in value]
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if k != "majority"}
        return {k: slim(v, digits) for k, v in kept.items()}
    return value


def write(rows: list[dict], seeds: Sequence[int], seconds: float) -> None:
    """Save the table and the pictures."""
    chances = {}
    for name in SETS:
        sizes = torch.bincount(load(name).test[1]).tolist()
        chances[name] = {str(k): units.chance(sizes, k) for k in TOPS}
    common = {"command": COMMAND, "packages": ("torch", "numpy", "scipy")}
    content = {"tops": TOPS, "directions": DIRECTIONS, "chance": chances}
    content["rows"] = slim(rows)
    results.save(
        "units",
        content,
        seeds=list(seeds),
        dataset="mnist, cifar10_jpeg: 10000 test images each; 5000 validation images",
        seconds=seconds,
        **common,
    )
    results.save(
        "units_pictures",
        {"network": "cnn_deep_0", "rows": pictures()},
        seeds=[0],
        dataset="cifar10_jpeg: test images, compressed once more",
        seconds=seconds,
        **common,
    )


def main(arguments: list[str] | None = None) -> None:
    """Measure everything and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path("_build/units"))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    options = parser.parse_args(arguments)
    options.cache.mkdir(parents=True, exist_ok=True)
    clock = options.cache / "wall.json"  # of all runs, stopped ones too
    before = json.loads(clock.read_text()) if clock.is_file() else 0.0
    began = time.perf_counter()
    try:
        rows = [cached(options.cache, task) for task in tasks(options.seeds)]
    finally:
        wall = before + time.perf_counter() - began
        shelf.keep(clock, wall)
    write(rows, options.seeds, wall)


if __name__ == "__main__":
    main()
