"""Directions of word vectors that ARE special: independent components.

One command, about 12 minutes of CPU time, 6 of them gensim's:
PYTHONHASHSEED=0 python tools/experiments/words_axes.py
FastICA on CBOW vectors of length one, three seeds of the vectors and three random
states each, against dimensions, random directions, random directions of the whitened
space (in which FastICA turns its axes) and principal directions. Every direction is
turned to the side of its longer tail (positive skewness). The words on top are scored
by cosine and by held-out text, minus equally frequent words. As a control of the fit,
FastICA on Gaussian vectors of the same covariance. Beside it, what the rounding to 8
bits of the committed vectors changes on top of 1000 directions that it was not tuned
for. Each part is kept in CACHE when done, so that a run that was stopped goes on.
"""

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import shelf
import torch
import words as long
from scipy import sparse, stats
from sklearn.decomposition import FastICA
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from advlib import evaluation, results, units, words

COMMAND = "PYTHONHASHSEED=0 python tools/experiments/words_axes.py"
SOURCE, SEEDS, STATES, RANDOM, SHOWN = "imdb8", [1, 2, 3], [0, 1, 2], 1000, 10


def oriented(matrix: Tensor, directions: Tensor) -> Tensor:
    """Return ``directions`` of length one, each towards the longer tail."""
    points = matrix.double().numpy()
    tails = [stats.skew(points @ v) for v in directions.double().numpy()]
    side = torch.from_numpy(np.sign(tails))
    return words.unit_length(directions.double()) * side[:, None]


def fitted(matrix: Tensor, state: int) -> tuple[FastICA, bool]:
    """Return FastICA of ``matrix`` from random ``state``, and whether it converged."""
    ica = FastICA(
        whiten="unit-variance", whiten_solver="eigh", random_state=state, max_iter=400
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        ica.fit(matrix.double().numpy())
    return ica, not any(w.category is ConvergenceWarning for w in caught)


def groups(matrix: Tensor, seed: int) -> dict[str, Tensor]:
    """Return the directions to compare with, each towards its longer tail."""
    d, g = matrix.shape[1], torch.Generator().manual_seed(seed)
    white = units.fit_transform(matrix, "whitened").matrix
    turns = [units.random_rotation(d, generator=g) for _ in range(RANDOM // d)]
    made = {
        "dimensions": torch.eye(d).double(),
        "random": units.random_directions(RANDOM, d, generator=g),
        "whitened": torch.cat([turn @ white for turn in turns]),
        "principal": units.pca_directions(matrix, d),
    }
    return {name: oriented(matrix, v) for name, v in made.items()}


def gains(
    made: words.Vectors,
    unit: Tensor,
    directions: Tensor,
    present: sparse.csr_array,
    seed: int,
) -> dict[str, Tensor]:
    """Return what the words on top have over equally frequent ones, each direction."""
    g = torch.Generator().manual_seed(seed)
    top = units.top_images(unit, directions, long.K)
    same = words.same_frequency(made.counts, top, generator=g)
    lift = [words.mean_lift(present, rows) for rows in (top, same)]
    cosine = [words.mean_cosine(unit, rows) for rows in (top, same)]
    return {"cosine": cosine[0] - cosine[1], "lift": lift[0] - lift[1]}


def of_noise(unit: Tensor, seed: int) -> dict:
    """Return the cosines on top of what FastICA finds in Gaussian vectors."""
    values, axes = torch.linalg.eigh(torch.cov(unit.double().T))
    g = torch.Generator().manual_seed(seed)
    normal = torch.randn(unit.shape, generator=g, dtype=torch.float64)
    noise = normal * values.clamp(min=0).sqrt() @ axes.T + unit.double().mean(0)
    noise = words.unit_length(noise)
    ica, done = fitted(noise, 0)
    found = {"ica": oriented(noise, torch.from_numpy(ica.components_))}
    found["whitened"] = groups(noise, seed)["whitened"]
    cosine = {
        name: words.mean_cosine(noise, units.top_images(noise, v, long.K))
        for name, v in found.items()
    }
    gap = units.mean_difference(*[cosine[k].tolist() for k in found])
    means = {name: float(c.mean()) for name, c in cosine.items()}
    return {"means": means, "difference": gap, "converged": done}


def measured(seed: int, vectors: Path) -> dict:
    """Return gains, rows of words and agreement for the vectors of one ``seed``."""
    made, _ = long.trained(f"cbow-{seed}", vectors, SOURCE)
    unit = words.unit_length(made.matrix)
    present = words.presence(long.corpus(SOURCE)[1], made.words)
    known = groups(unit, seed)
    found = {n: gains(made, unit, v, present, seed) for n, v in known.items()}
    fits, done = [], []
    for state in STATES:
        ica, converged = fitted(unit, state)
        fits.append(oriented(unit, torch.from_numpy(ica.components_)))
        done.append(converged)
        found[f"ica {state}"] = gains(made, unit, fits[-1], present, seed)
    row: dict = {"seed": seed, "converged": done, "means": {}, "differences": {}}
    for name, scores in found.items():
        row["means"][name] = {k: float(s.mean()) for k, s in scores.items()}
    for name in ("dimensions", "random", "whitened", "principal"):
        row["differences"][name] = {
            k: units.mean_difference(s.tolist(), found[name][k].tolist())
            for k, s in found["ica 0"].items()
        }
    row["same axes"] = [agreement(unit, fits[0], unit, v) for v in fits[1:]]
    row["rows"] = {
        name: ranked(made, unit, v[:100])
        for name, v in (("ica", fits[0]), ("random", known["random"]))
    }
    path = vectors / f"ica-{seed}.npz"
    np.savez(path, words=np.array(made.words), ica=fits[0].numpy())
    return row


def ranked(made: words.Vectors, unit: Tensor, directions: Tensor) -> list[list[str]]:
    """Return the words on top of ``directions``, the most coherent row first."""
    top = units.top_images(unit, directions, SHOWN)
    order = words.mean_cosine(unit, top).argsort(descending=True)
    return made.rows(top[order])


def agreement(first: Tensor, v: Tensor, second: Tensor, w: Tensor) -> dict:
    """Return how well each axis ``v`` of ``first`` is found among ``w`` of ``second``.

    By the largest correlation, over words, of the scores along the two.
    """
    scores = torch.cat([v @ first.double().T, w @ second.double().T])
    best = torch.corrcoef(scores)[: len(v), len(v) :].abs().amax(1)
    near = float((best > 0.9).double().mean())
    return {"median": float(best.median()), "above 0.9": near}


def across(vectors: Path) -> dict:
    """Return whether another training has the same axes: components, dimensions."""
    loaded = {}
    for seed in SEEDS[:2]:
        made, _ = long.trained(f"cbow-{seed}", vectors, SOURCE)
        with np.load(vectors / f"ica-{seed}.npz") as stored:
            ica = torch.from_numpy(stored["ica"])
        place = {word: i for i, word in enumerate(made.words)}
        order = torch.tensor([place[word] for word in sorted(made.words)])
        loaded[seed] = words.unit_length(made.matrix)[order], ica
    (first, v), (second, w) = loaded.values()
    eye = torch.eye(first.shape[1]).double()
    return {
        "ica": agreement(first, v, second, w),
        "dimensions": agreement(first, eye, second, eye),
    }


def rounding(vectors: Path) -> dict:
    """Return what 8 bits change on top of directions that they were not tuned for."""
    made, _ = long.trained("cbow-1", vectors, SOURCE)
    rounded = words.load(SOURCE)
    assert made.words == rounded.words
    g = torch.Generator().manual_seed(5)
    v = units.random_directions(RANDOM, made.matrix.shape[1], generator=g)
    found = {}
    pairs = zip(words.both(made.matrix), words.both(rounded.matrix), strict=True)
    for form, (before, after) in zip(("raw", "unit"), pairs, strict=True):
        tops = [units.top_images(m, v, long.K) for m in (before, after)]
        unit = words.unit_length(made.matrix)
        scores = [words.mean_cosine(unit, top) for top in tops]
        kept = (tops[0][:, :, None] == tops[1][:, None]).any(2)
        order = (tops[0] == tops[1]).all(1)
        moved = (after - before).double().norm(dim=1) / before.double().norm(dim=1)
        found[form] = {
            "words kept": float(kept.double().mean()),
            "rows with the same words": float(kept.all(1).double().mean()),
            "rows in the same order": float(order.double().mean()),
            "score before": float(scores[0].mean()),
            "score after": float(scores[1].mean()),
            "largest change of a vector, of its length": float(moved.max()),
        }
    return found


def cached(path: Path, make: Callable[..., dict], *arguments: object) -> dict:
    """Return ``make(*arguments)`` with CPU seconds, from ``path`` if it is there."""
    if path.is_file():
        return json.loads(path.read_text())
    began = time.process_time()
    found = make(*arguments)
    found["seconds"] = round(time.process_time() - began, 1)
    shelf.keep(path, found)
    sys.stdout.write(f"{path.name} {found['seconds']} s\n")
    sys.stdout.flush()
    return found


def over_seeds(runs: list[dict]) -> dict:
    """Return components minus each other group: the mean over states, then seeds."""
    found = {}
    for name in ("dimensions", "random", "whitened", "principal"):
        for score in ("cosine", "lift"):
            gaps = [
                np.mean([run["means"][f"ica {s}"][score] for s in STATES])
                - run["means"][name][score]
                for run in runs
            ]
            found[f"{name}, {score}"] = evaluation.mean_interval(gaps)
    return found


def main(arguments: list[str] | None = None) -> None:
    """Train, fit, score, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path("_build/words_axes"))
    folder = parser.parse_args(arguments).cache
    folder.mkdir(parents=True, exist_ok=True)
    runs = [cached(folder / f"run-{s}.json", measured, s, folder) for s in SEEDS]
    unit = words.unit_length(words.load(SOURCE).matrix)
    parts = {
        "noise": cached(folder / "noise.json", of_noise, unit, 0),
        "another training": cached(folder / "across.json", across, folder),
        "rounding": cached(folder / "rounding.json", rounding, folder),
    }
    spent = sum(part["seconds"] for part in [*runs, *parts.values()])
    content = {"k": long.K, "random": RANDOM, "runs": runs, **parts}
    results.save(
        "words_axes",
        content | {"over_seeds": over_seeds(runs)},
        command=COMMAND,
        seeds=SEEDS,
        dataset=f"{SOURCE}: CBOW vectors of length one, as in words.json",
        seconds=spent,
        packages=("torch", "numpy", "scipy", "scikit-learn", "gensim"),
    )


if __name__ == "__main__":
    main()
