"""Tables 1 to 4 of Szegedy et al. 2013, run again, and transfer at equal distortion.

One command, about 10 minutes of CPU time: python tools/experiments/blind_spots.py
Each attack on CHUNK images is one task, kept in the cache when done, so that a run that
was stopped goes on where it was. With --jobs 2 tasks run in two processes of one thread
through joblib: a ``joblib.parallel_config`` around ``main`` takes a cluster. Seconds in
the record are CPU time of the main process.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

import shelf
import torch
from joblib import Parallel, delayed
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from advlib import attacks, data, evaluation, results, zoo
from advlib.exact import shortest_linear

COMMAND = "python tools/experiments/blind_spots.py"
WHOLE = ["fc10_1e-4", "fc10_1e-2", "fc10_1", "fc_100_100", "fc_200_200", "ae_400"]
HALVES = ["fc_100_100_p1", "fc_123_456_p1", "fc_100_100_p2"]
IMAGES, CHUNK, SEED, DRAWS = 200, 50, 0, 4
RADII = [0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2]
KEPT = [0.06, 0.1]  # the sizes at which the verdict on each image is kept
METHODS: dict[str, Callable[..., attacks.Minimal]] = {
    "cross_entropy": attacks.lbfgs,
    "margin": partial(attacks.lbfgs, loss="margin"),
    "pgd": attacks.minimal_pgd_l2,
    "clip": partial(attacks.lbfgs, box="clip"),
    "carlini_wagner": attacks.carlini_wagner_l2,
}
FEW = {"clip": 50, "carlini_wagner": 50}  # images, where it is not all of them
Nets = dict[str, nn.Sequential]


def loaded(names: list[str], dataset: data.Dataset) -> Nets:
    """Return the networks by name, in float32 as they are used."""
    return {name: zoo.load(name, dataset).requires_grad_(False) for name in names}


def images(
    nets: Nets, x: Tensor, y: Tensor, n: int, seed: int = SEED
) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``n`` random images that all ``nets`` get right, labels and targets.

    A target is a uniformly random class other than the label.
    """
    g = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(y), generator=g)[: 4 * n]
    x, y = x[order], y[order]
    right = ~torch.stack([evaluation.wrong(net, x, y) for net in nets.values()]).any(0)
    x, y = x[right][:n], y[right][:n]
    classes = int(y.max()) + 1
    return x, y, (y + torch.randint(1, classes, y.shape, generator=g)) % classes


def group(names: list[str], dataset: data.Dataset, n: int) -> tuple:
    """Return nets, images, labels, targets: training images for the whole networks."""
    nets = loaded(names, dataset)
    whole = names[0] in WHOLE
    pool = zoo.training_images(names[0], dataset) if whole else dataset.test
    return nets, *images(nets, *pool, n)


@lru_cache
def prepared(names: tuple[str, ...], dataset: str, n: int) -> tuple:
    """Return ``group`` once for each process: reading the data takes a second."""
    return group(list(names), data.load(dataset), n)


def attack(
    cache: Path, names: list[str], name: str, method: str, n: int, first: int, ds: str
) -> dict[str, Tensor]:
    """Return delta, success and c of one chunk, from the cache if it is there."""
    path = cache / f"{ds}-{n}-{name}-{method}-{first}.safetensors"
    if path.is_file():
        return load_file(path)
    torch.set_num_threads(1)
    nets, x, _, target = prepared(tuple(names), ds, n)
    part = slice(first, min(first + CHUNK, FEW.get(method, n)))
    found = METHODS[method](nets[name], x[part], target[part])
    tensors = {"delta": found.delta, "success": found.success, "c": found.c}
    save_file({k: v.contiguous() for k, v in tensors.items()}, path)
    return tensors


def attack_all(
    cache: Path, names: list[str], n: int, ds: str, jobs: int
) -> dict[tuple[str, str], attacks.Minimal]:
    """Return what each method found on each network: {(network, method): Minimal}."""
    keys = [
        (name, method, first)
        for method in METHODS
        for name in names
        for first in range(0, min(n, FEW.get(method, n)), CHUNK)
    ]
    rows = Parallel(n_jobs=jobs)(
        delayed(attack)(cache, names, name, method, n, first, ds)
        for name, method, first in keys
    )
    found: dict[tuple[str, str], list[dict]] = {}
    for (name, method, _), row in zip(keys, rows, strict=True):
        found.setdefault((name, method), []).append(row)
    return {
        key: attacks.Minimal(
            *(torch.cat([p[k] for p in parts]) for k in ("delta", "success", "c"))
        )
        for key, parts in found.items()
    }


def wrong(nets: Nets, x: Tensor, y: Tensor, delta: Tensor) -> dict[str, int]:
    """Return how many of ``x + delta`` each network gets wrong."""
    return {
        k: int(evaluation.wrong(net, x + delta, y).sum()) for k, net in nets.items()
    }


def rms(delta: Tensor) -> float:
    """Return the mean over images of the root mean square of the pixels."""
    return float(delta.flatten(1).double().square().mean(1).sqrt().mean())


def amplified(x: Tensor, delta: Tensor, size: float) -> Tensor:
    """Scale to this RMS by the formula that was meant, then clip (which shortens)."""
    sizes = delta.flatten(1).square().mean(1).sqrt().clamp(min=1e-12)
    grown = delta * (size / sizes).view(-1, *[1] * (x.dim() - 1))
    return grown.clamp(-x, 1 - x)


def transfer(
    nets: Nets, x: Tensor, y: Tensor, deltas: dict[str, Tensor]
) -> dict[str, dict]:
    """Return the errors of each source on each network, at several sizes."""
    table: dict[str, dict] = {"native": {}, "amplified": {}, "equal": {}}
    for source, delta in deltas.items():
        table["native"][source] = {"rms": rms(delta), **wrong(nets, x, y, delta)}
        grown = amplified(x, delta, 0.1)
        table["amplified"][source] = {"rms": rms(grown), **wrong(nets, x, y, grown)}
        table["equal"][source] = {
            str(size): wrong(nets, x, y, attacks.rescale(x, delta, size))
            for size in RADII
        }
    return table


def noise(
    nets: Nets, x: Tensor, y: Tensor, sizes: dict[str, float]
) -> dict[str, dict[str, int]]:
    """Return the errors under Gaussian noise of these RMS, summed over DRAWS draws."""
    totals: dict[str, dict[str, int]] = {}
    for key, size in sizes.items():
        g, total = torch.Generator().manual_seed(SEED), dict.fromkeys(nets, 0)
        for _ in range(DRAWS):
            delta = attacks.rescale(x, torch.randn(x.shape, generator=g), size)
            found = wrong(nets, x, y, delta)
            total = {name: total[name] + found[name] for name in nets}
        totals[key] = total
    return totals


def hits(
    nets: Nets, x: Tensor, y: Tensor, target: Tensor, deltas: dict[str, Tensor]
) -> dict[str, dict[str, str]]:
    """Return which images of each source fool each network, and which reach the target.

    As found ("native") and rescaled to each size of KEPT. Each a mask by
    ``results.pack``: (sources, networks, images), in the order of ``deltas``.
    """
    table: dict[str, dict[str, str]] = {}
    for size in ("native", *KEPT):
        rows = []
        for found in deltas.values():
            delta = found if size == "native" else attacks.rescale(x, found, size)
            rows.append(
                torch.stack([net(x + delta).argmax(1) for net in nets.values()])
            )
        said = torch.stack(rows)
        masks = {"fooled": said != y, "target": said == target}
        table[str(size)] = {k: results.pack(v.numpy()) for k, v in masks.items()}
    return table


def noise_hits(
    nets: Nets, x: Tensor, y: Tensor, sizes: dict[str, float]
) -> dict[str, str]:
    """Return which images each draw of ``noise`` fools, for each size.

    A mask by ``results.pack``: (DRAWS, networks, images).
    """
    table = {}
    for key, size in sizes.items():
        g, rows = torch.Generator().manual_seed(SEED), []
        for _ in range(DRAWS):
            delta = attacks.rescale(x, torch.randn(x.shape, generator=g), size)
            rows.append([evaluation.wrong(net, x + delta, y) for net in nets.values()])
        masks = torch.stack([torch.stack(row) for row in rows])
        table[key] = results.pack(masks.numpy())
    return table


def cosines(deltas: dict[str, Tensor]) -> dict[str, dict[str, list[float]]]:
    """Return the cosine of the changes made for two networks, image by image.

    Each pair once: the network that comes first in ``deltas`` is the outer key.
    """
    flat = {name: delta.double().flatten(1) for name, delta in deltas.items()}
    names = list(flat)
    return {
        a: {
            b: torch.cosine_similarity(flat[a], flat[b]).round(decimals=3).tolist()
            for b in names[k + 1 :]
        }
        for k, a in enumerate(names[:-1])
    }


def box_or_not(nets: Nets, x: Tensor, y: Tensor, deviation: float) -> dict[str, dict]:
    """Return errors under Gaussian noise, clipped to the box and as it is: DRAWS each.

    The same draws for both.
    """
    g, rows = torch.Generator().manual_seed(SEED), {"clipped": {}, "plain": {}}
    rows = {kind: dict.fromkeys(nets, 0) for kind in rows}
    for _ in range(DRAWS):
        noise = deviation * torch.randn(x.shape, generator=g)
        for kind, delta in (("clipped", noise.clamp(-x, 1 - x)), ("plain", noise)):
            found = wrong(nets, x, y, delta)
            rows[kind] = {name: rows[kind][name] + found[name] for name in nets}
    return rows


def clipped_noise(nets: Nets, x: Tensor, y: Tensor, deviation: float) -> dict:
    """Return the errors under noise of this deviation, clipped: RMS is then smaller."""
    g = torch.Generator().manual_seed(SEED)
    delta = deviation * torch.randn(x.shape, generator=g)
    delta = delta.clamp(-x, 1 - x)
    return {"rms": rms(delta), **wrong(nets, x, y, delta)}


def errors(nets: Nets, splits: dict[str, data.Split]) -> dict[str, dict]:
    """Return (wrong, n) of each network on each split."""
    table: dict[str, dict] = {}
    for name, net in nets.items():
        for split, (x, y) in splits.items():
            found = evaluation.clean_error(net, x, y)
            table.setdefault(name, {})[split] = [found.wrong, found.n]
    return table


def summary(found: attacks.Minimal) -> dict:
    """Return lengths (None: failed) and weights of one attack on one network."""
    lengths = [None if math.isnan(v) else round(v, 5) for v in found.l2.tolist()]
    weights = [None if math.isnan(v) else float(f"{v:.3g}") for v in found.c.tolist()]
    kept = {} if all(w is None for w in weights) else {"c": weights}
    return {"l2": lengths, **kept}


def measure(
    names: list[str], dataset: data.Dataset, n: int, cache: Path, jobs: int
) -> dict:
    """Return everything about one group of networks."""
    nets, x, y, target = group(names, dataset, n)
    found = attack_all(cache, names, n, dataset.name, jobs)
    splits = {"test": dataset.test}
    if names == HALVES:
        halves = [zoo.training_images(name, dataset) for name in (names[0], names[2])]
        splits |= dict(zip(["p1", "p2"], halves, strict=True))
    else:
        splits["train"] = zoo.training_images(names[0], dataset)
    linear = {name: net for name, net in nets.items() if len(net) == 2}
    exact = {
        name: [round(v, 5) for v in shortest_linear(net, x, target).tolist()]
        for name, net in linear.items()
    }
    sizes = {str(size): size for size in [*RADII, 0.3]}
    content = {"errors": errors(nets, splits), "exact": exact, "images": len(y)}
    content["attacks"] = {
        method: {name: summary(found[name, method]) for name in names}
        for method in METHODS
    }
    for loss in ("cross_entropy", "margin"):
        deltas = {name: found[name, loss].delta for name in names}
        content[f"transfer_{loss}"] = transfer(nets, x, y, deltas)
        content[f"hits_{loss}"] = hits(nets, x, y, target, deltas)
    content["cosines"] = cosines(deltas)  # of the margin version, the last
    native = content["transfer_cross_entropy"]["native"]
    sizes |= {name: native[name]["rms"] for name in names}
    content["noise"] = noise(nets, x, y, sizes)
    own = {k: v for k, v in sizes.items() if k in (*names, *map(str, KEPT))}
    content["noise_hits"] = noise_hits(nets, x, y, own)
    content["clipped_noise"] = {
        str(d): clipped_noise(nets, x, y, d) for d in (0.06, 0.1, 0.3)
    }
    content["box_or_not"] = {str(d): box_or_not(nets, x, y, d) for d in (0.1, 0.3)}
    return content


def main(arguments: list[str] | None = None) -> None:
    """Measure everything and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path("_build/blind_spots"))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--only", choices=["whole", "halves"])
    options = parser.parse_args(arguments)
    options.cache.mkdir(parents=True, exist_ok=True)
    clock = options.cache / "seconds.json"  # of all runs, stopped ones too
    before = json.loads(clock.read_text()) if clock.is_file() else 0.0
    began = time.process_time()
    dataset, content = data.load("mnist"), {}
    try:
        for key, names in (("whole", WHOLE), ("halves", HALVES)):
            if options.only in (None, key):
                content[key] = measure(
                    names, dataset, options.images, options.cache, options.jobs
                )
    finally:
        spent = before + time.process_time() - began
        shelf.keep(clock, spent)
    if options.only is None:
        results.save(
            "blind_spots",
            {"radii": RADII, "draws": DRAWS, **content},
            command=COMMAND,
            seeds=[SEED],
            dataset="mnist: random training images (Tables 1, 2), test images (3, 4)",
            seconds=spent,
            packages=[*results.PACKAGES, "scipy"],
        )


if __name__ == "__main__":
    main()
