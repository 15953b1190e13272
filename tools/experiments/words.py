"""Are single dimensions of word2vec more coherent than random directions?

One command, about 40 minutes of CPU time, all but 5 of them gensim's:
PYTHONHASHSEED=0 python tools/experiments/words.py --corpus imdb8
Trains skip-gram and CBOW from three seeds on nine tenths of a corpus, and CBOW with
other epochs and thresholds; scores the words on top of dimensions and of random
directions; writes the vectors of one model in compact form. Each model and each
analysis is kept in CACHE when done, so that a run that was stopped goes on (one CACHE
for each corpus).
"""

import argparse
import json
import time
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import shelf
import torch
from scipy import sparse
from torch import Tensor

from advlib import evaluation, results, units, words

COMMAND = "PYTHONHASHSEED=0 python tools/experiments/words.py --corpus"
SEEDS = [1, 2, 3]
MODELS = {f"{kind}-{s}": {"sg": kind == "sg", "seed": s} for kind in ("cbow", "sg")
          for s in SEEDS}  # fmt: skip
LENGTHS = {
    "cbow-e1": {"epochs": 1},
    "cbow-s0-e1": {"epochs": 1, "sample": 0},
    "cbow-s0-e5": {"epochs": 5, "sample": 0},
    "cbow-e20": {"epochs": 20},
}  # and cbow-1: 5 epochs, sample 1e-3
COMPACT = "cbow-1"
K, SHOWN, RANDOM, TURNS = 10, 8, 1000, 99
FREQUENT = 100  # times in training: enough to be met in the held-out tenth
OTHER_K = (5, 20)


@cache
def corpus(name: str) -> tuple[list, list]:
    """Return the training pieces and the held-out pieces of corpus ``name``."""
    return words.split(words.load_corpus(name).words)


def trained(
    name: str, folder: Path, source: str = "imdb8"
) -> tuple[words.Vectors, float]:
    """Return the vectors of model ``name`` and the CPU seconds of its training."""
    path = folder / f"{name}.npz"
    if not path.is_file():
        began = time.process_time()
        setting = {"seed": 1} | MODELS.get(name, {}) | LENGTHS.get(name, {})
        made = words.train(corpus(source)[0], **setting)
        np.savez(
            path,
            words=np.array(made.words),
            counts=made.counts.numpy(),
            vectors=made.matrix.numpy(),
            seconds=time.process_time() - began,
        )
        print(name, flush=True)
    with np.load(path) as stored:
        counts, matrix = map(torch.from_numpy, (stored["counts"], stored["vectors"]))
        made = words.Vectors(stored["words"].tolist(), counts, matrix)
        return made, float(stored["seconds"])


def groups(num: int, seed: int) -> dict[str, Tensor]:
    """Return the three kinds of directions: axes, Gaussian, and the wrong control."""
    g = torch.Generator().manual_seed(seed)
    made = {"dimensions": torch.eye(100).double()}
    for kind in units.DIRECTIONS:
        made[kind] = units.random_directions(num, 100, generator=g, kind=kind)
    return made


def compared(scores: dict[str, list[Tensor]]) -> dict:
    """Return means of all groups, and dimensions minus Gaussian with its interval."""
    ours, random = scores["dimensions"], scores["gaussian"]
    means = {name: float(value.mean()) for name, value in scores.items()}
    difference = units.mean_difference(ours.tolist(), random.tolist())
    above = (ours[:, None] > random).double().mean()
    return {"means": means, "difference": difference, "above": float(above)}


def analysed(
    made: words.Vectors, matrix: Tensor, k: int, present: sparse.csr_array, seed: int
) -> dict:
    """Score the tops of all directions by cosine and by held-out co-occurrence."""
    unit = words.unit_length(matrix)
    g = torch.Generator().manual_seed(seed)
    cosine, lift, found = {}, {}, {}
    rank = made.matrix.norm(dim=1).argsort().argsort().double() / len(matrix)
    for name, directions in groups(RANDOM, seed).items():
        top = units.top_images(matrix, directions, k)
        same = words.same_frequency(made.counts, top, generator=g)
        cosine[name] = words.mean_cosine(unit, top)
        cosine[f"{name}, matched"] = words.mean_cosine(unit, same)
        lift[name] = words.mean_lift(present, top)
        lift[f"{name}, matched"] = words.mean_lift(present, same)
        found[name] = {
            "overlap": units.overlap(top),
            "count": made.counts[top].double().quantile(
                torch.tensor([0.1, 0.5, 0.9]).double()
            ).tolist(),
            "length_rank": float(rank[top].median()),
        }  # fmt: skip
    return {"cosine": compared(cosine), "lift": compared(lift), "tops": found}


def turned(matrix: Tensor, seed: int) -> dict:
    """Compare the axes with those of randomly rotated copies."""
    g = torch.Generator().manual_seed(seed)
    others = words.rotated_bases(matrix, k=K, num=TURNS, generator=g)
    top = units.top_images(matrix, torch.eye(100).double(), K)
    own = words.mean_cosine(words.unit_length(matrix), top).mean()
    return {"own": float(own), "others": [round(float(o), 5) for o in others]}


def tables(made: words.Vectors) -> dict:
    """Return the words on top of the first directions of each kind, raw and unit."""
    shown = {}
    for form, matrix in zip(("raw", "unit"), words.both(made.matrix), strict=True):
        for name, directions in groups(SHOWN, 0).items():
            top = units.top_images(matrix, directions[:SHOWN], K)
            shown[f"{form}, {name}"] = made.rows(top)
    return shown


def measured(name: str, folder: Path, source: str = "imdb8") -> dict:
    """Return one model's analysis, from the cache if it is there."""
    path = folder / f"{name}.json"
    if path.is_file():
        return json.loads(path.read_text())
    made, seconds = trained(name, folder, source)
    present = words.presence(corpus(source)[1], made.words)
    seed, found = MODELS[name]["seed"], {"model": name, "seconds": seconds}
    for form, matrix in zip(("raw", "unit"), words.both(made.matrix), strict=True):
        found[form] = analysed(made, matrix, K, present, seed)
        found[form]["rotated"] = turned(matrix, seed)
        for k in OTHER_K:
            found[form][f"k = {k}"] = analysed(made, matrix, k, present, seed)
        often = made.counts >= FREQUENT
        some = words.Vectors(
            [w for w, kept in zip(made.words, often, strict=True) if kept],
            made.counts[often],
            made.matrix[often],
        )
        part = analysed(some, matrix[often], K, present[often.numpy()], seed)
        found[form]["frequent"] = part
    found["tables"] = tables(made)
    shelf.keep(path, found)
    print("analysed", name, flush=True)
    return found


def lengths(folder: Path) -> dict:
    """Return the lengths by frequency of every model of which vectors are there."""
    names = [n for n in [*MODELS, *LENGTHS] if (folder / f"{n}.npz").is_file()]
    return {n: words.length_by_frequency(trained(n, folder)[0]) for n in names}


def gained(means: dict[str, float]) -> float:
    """Return what the words on top of dimensions have over equally frequent words."""
    return means["dimensions"] - means["dimensions, matched"]


def over_seeds(models: dict) -> dict:
    """Return, for each kind of model, the differences with t-intervals over seeds."""
    found = {}
    cases = product(("cbow", "sg"), ("all", "frequent"), ("cosine", "lift"))
    for kind, part, score in cases:
        runs = [models[f"{kind}-{seed}"] for seed in SEEDS]
        picked = {
            form: [(r[form] if part == "all" else r[form][part])[score] for r in runs]
            for form in ("raw", "unit")
        }
        for form, blocks in picked.items():
            gaps = [block["difference"][0] for block in blocks]
            key = f"{kind}, {form}, {part}, {score}"
            found[key] = evaluation.mean_interval(gaps)
        gains = [
            gained(unit["means"]) - gained(raw["means"])
            for raw, unit in zip(picked["raw"], picked["unit"], strict=True)
        ]
        key = f"{kind}, unit minus raw, {part}, {score}"
        found[key] = evaluation.mean_interval(gains)
    return found


def main(arguments: list[str] | None = None) -> None:
    """Train, analyse and write the vectors and the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path("_build/words"))
    parser.add_argument("--corpus", choices=words.CORPORA, default="imdb8")
    options = parser.parse_args(arguments)
    folder, source = options.cache, options.corpus
    folder.mkdir(parents=True, exist_ok=True)
    began = time.process_time()
    models = {name: measured(name, folder, source) for name in MODELS}
    spent = sum(trained(n, folder, source)[1] for n in [*MODELS, *LENGTHS])
    sizes = [sum(map(len, part)) for part in corpus(source)]
    text = f"{source}: {sizes[0]} words for training, {sizes[1]} held out"
    made, seconds = trained(COMPACT, folder)
    made = words.Vectors(made.words, made.counts, made.matrix, f"{COMPACT}, {text}")
    shown = groups(SHOWN, 0)
    directions = torch.cat([shown[n][:SHOWN] for n in ("dimensions", "gaussian")])
    words.save(
        source,
        made,
        command=f"{COMMAND} {source}",
        seed=1,
        seconds=seconds,
        directions=directions,
    )
    content = {
        "k": K,
        "random": RANDOM,
        "frequent": FREQUENT,
        "lengths": lengths(folder),
        "models": models,
        "over_seeds": over_seeds(models),
    }
    results.save(
        "words",
        content,
        command=f"{COMMAND} {source}",
        seeds=SEEDS,
        dataset=text,
        seconds=spent + time.process_time() - began,
        packages=("torch", "numpy", "gensim"),
    )


if __name__ == "__main__":
    main()
