"""Word vectors: trained by gensim, made compact, saved and loaded."""

import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load as load_bytes
from torch import Tensor

from advlib import results
from advlib.files import atomic_write, tensor_bytes
from advlib.units import top_images
from advlib.words.corpora import import_gensim

LEVELS = 127  # of an int8, on each side of zero


@dataclass(frozen=True)
class Vectors:
    """Word vectors: ``words``, their ``counts`` (V,) in training, ``matrix`` (V, d).

    The most frequent word comes first. ``note`` says where they come from.
    Raises ``ValueError`` if the three do not fit, for a word twice, or for NaN.
    """

    words: list[str]
    counts: Tensor
    matrix: Tensor
    note: str = ""

    def __post_init__(self) -> None:
        sizes = {len(self.words), len(set(self.words)), *self.counts.shape}
        if self.matrix.dim() != 2 or sizes != {len(self.matrix)}:
            raise ValueError("need one word, one count and one row for each vector")
        if not self.matrix.isfinite().all() or not (self.counts >= 1).all():
            raise ValueError("vectors must be finite, counts at least 1")

    def rows(self, top: Tensor) -> list[list[str]]:
        """Return the words at the places ``top`` (m, k)."""
        return [[self.words[i] for i in row] for row in top.tolist()]


def unit_length(matrix: Tensor) -> Tensor:
    """Return the rows of ``matrix`` (V, d) divided by their lengths.

    Raises ``ValueError`` for a row that is 0 or not finite.
    """
    length = torch.linalg.vector_norm(matrix, dim=1, keepdim=True)
    if not ((length > 0) & length.isfinite()).all():
        raise ValueError("a vector of length 0, or NaN, has no direction")
    return matrix / length


def train(
    sentences: Sequence[Sequence[str]],
    *,
    seed: int,
    sg: bool = False,
    epochs: int = 5,
    sample: float = 1e-3,
    dimension: int = 100,
    rotation: Tensor | None = None,
) -> Vectors:
    """Train word2vec on ``sentences`` by gensim, on one thread.

    ``sg``: skip-gram, else CBOW, gensim's default; ``epochs``, ``sample`` (the
    threshold above which frequent words are thinned out; 0: never), ``dimension``
    and all else as in gensim: window 5, 5 negative words, words that occur 5 times.
    The vectors start at uniform points of a box, drawn from ``seed``; a ``rotation``
    (d, d) turns the start. Raises ``ImportError`` without gensim, ``ValueError`` if no
    word occurs 5 times.
    """
    word2vec = import_gensim("models.word2vec")
    model = word2vec.Word2Vec(
        vector_size=dimension,
        sg=int(sg),
        seed=seed,
        epochs=epochs,
        sample=sample,
        workers=1,
    )
    model.build_vocab(sentences)
    vocabulary = model.wv.index_to_key
    if not vocabulary:
        raise ValueError("no word occurs 5 times")
    if rotation is not None:
        model.wv.vectors[:] = model.wv.vectors @ rotation.numpy()
    model.train(sentences, total_examples=model.corpus_count, epochs=epochs)
    counts = [model.wv.get_vecattr(word, "count") for word in vocabulary]
    matrix = torch.from_numpy(model.wv.vectors.copy())
    kind = f"{'skip-gram' if sg else 'CBOW'}, seed {seed}"
    return Vectors(list(vocabulary), torch.tensor(counts), matrix, kind)


def compress(
    matrix: Tensor, directions: Tensor | None = None, *, k: int = 10
) -> tuple[Tensor, Tensor]:
    """Return whole numbers int8 (V, d) and a scale float32 (V,) for each row.

    The largest entry of a row of ``matrix`` becomes 127 or -127, and no entry of
    ``scale * number`` is off by more than half a scale. Rounding swaps words of nearly
    equal score. So for the ``k`` words on top of each of ``directions`` (m, d), and
    the next, raw or of length 1, the scale is not the least possible one but the one,
    up to twice as large, that moves their scores least, measured by the distance to
    the next score. Raises ``ValueError`` for a
    row that is 0 or not finite.
    """
    largest = matrix.abs().amax(1)
    if not ((largest > 0) & largest.isfinite()).all():
        raise ValueError("a vector of length 0, or NaN, cannot be scaled")
    scale = (largest / LEVELS).float()
    if directions is not None:
        tables = [_table(points, directions, k) for points in both(matrix)]
        for place in torch.cat([top for top, _ in tables]).unique().tolist():
            liking = [
                (directions[(top == place).any(1)], gap[top == place])
                for top, gap in tables
            ]
            scale[place] = _quiet_scale(matrix[place], scale[place], liking)
    numbers = (matrix / scale[:, None]).round().clamp(-LEVELS, LEVELS)
    return numbers.to(torch.int8), scale


def both(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return the vectors of ``matrix`` (V, d) as they are, and divided by their length.

    Raises what ``unit_length`` raises.
    """
    return matrix, unit_length(matrix)


def _table(points: Tensor, directions: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k + 1 words on top and, of each, how near the next score is: (m, k+1).

    Near is a share of its own score, so a rounding that moves less swaps nothing.
    """
    top = top_images(points, directions, k + 1)
    scores = torch.einsum("mkd,md->mk", points.double()[top], directions.double())
    steps = scores[:, :-1] - scores[:, 1:]
    ends = torch.full((len(top), 1), math.inf, dtype=torch.float64)
    nearest = torch.minimum(torch.cat([ends, steps], 1), torch.cat([steps, ends], 1))
    return top, nearest / scores.abs()


def _quiet_scale(
    vector: Tensor, least: Tensor, liking: Sequence[tuple[Tensor, Tensor]]
) -> Tensor:
    """Return the scale at which rounding moves the scores of ``vector`` least.

    ``liking`` holds, for its raw form and for its unit form, the directions that matter
    and how much they allow.
    """
    scales = (least * torch.linspace(1, 2, 10_000)).float()
    rounded = (vector / scales[:, None]).round() * scales[:, None]
    forms = both(torch.stack([vector, *rounded]).double())
    moved = torch.zeros(len(scales), dtype=torch.float64)
    for points, (directions, allowed) in zip(forms, liking, strict=True):
        scores = points @ directions.double().T
        share = (scores[1:] / scores[0] - 1).abs() / allowed
        moved = torch.maximum(moved, share.amax(1)) if share.shape[1] else moved
    return scales[moved.argmin()]


def expand(numbers: Tensor, scale: Tensor) -> Tensor:
    """Return ``scale`` (V,) times ``numbers`` (V, d), as float32."""
    return numbers.float() * scale.float()[:, None]


def _path(name: str) -> Path:
    return results.RESULTS / f"words-{name}.safetensors"


def save(
    name: str,
    vectors: Vectors,
    *,
    command: str,
    seed: int,
    seconds: float,
    directions: Tensor | None = None,
) -> Path:
    """Write ``vectors`` in compact form under ``name``, with a record; return the file.

    One int8 for each entry, a scale and a count for each word; what is on top of
    ``directions`` is kept, see ``compress``. The record ``words_NAME.json`` holds the
    digest, the ``command`` that makes the file, the ``seed`` of the training and the
    ``seconds`` it took. Raises ``ValueError`` for words that are not plain a-z.
    """
    text = "\n".join(vectors.words)
    if not re.fullmatch(r"[a-z\n]+", text):
        raise ValueError("words must be of the letters a to z")
    numbers, scale = compress(vectors.matrix, directions)
    letters = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
    tensors = {"numbers": numbers, "scale": scale, "words": letters}
    path = _path(name)
    path.parent.mkdir(exist_ok=True)
    tensors["counts"] = vectors.counts.to(torch.int32)
    provenance = {"provenance": json.dumps({"command": command})}
    atomic_write(path, tensor_bytes(tensors, provenance))
    results.save(
        f"words_{name}",
        {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()},
        command=command,
        seeds=[seed],
        dataset=vectors.note,
        seconds=seconds,
        packages=("torch", "numpy", "gensim"),
    )
    return path


def load(name: str) -> Vectors:
    """Return the committed vectors ``name``, expanded to float32.

    Raises ``FileNotFoundError`` if there are none, and ``ValueError`` if the file is
    not, to the last bit, the one that was saved.
    """
    record = results.load(f"words_{name}")
    content = _path(name).read_bytes()
    if hashlib.sha256(content).hexdigest() != record["data"]["sha256"]:
        raise ValueError(f"{_path(name).name} is truncated or altered; restore it")
    stored = load_bytes(content)
    words = bytes(stored["words"].numpy()).decode().split("\n")
    matrix = expand(stored["numbers"], stored["scale"])
    return Vectors(words, stored["counts"].long(), matrix, record["dataset"])
