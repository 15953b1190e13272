"""Words as points: corpora, word2vec, compact vectors, and coherence of top words.

A word vector is a row of a matrix (V, d); "dimension i" is the direction e_i, as a
unit of a network is (see ``units``). The question is the same: are the words on top of
e_i more alike than those on top of a random direction? gensim trains the vectors and
is needed for nothing else; without it the committed vectors still load.
"""

import hashlib
import json
import lzma
import math
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from safetensors.torch import load as load_bytes
from safetensors.torch import save_file
from scipy import sparse
from torch import Tensor

from advlib import data, results
from advlib.units import random_rotation, top_images

IMDB8 = "text/imdb8.xz"
IMDB8_SHA256 = "b7620413568c3a1d341ea93a5ec6411c8facf654c84d125004a17140658c0b8b"
CHARACTERS = 100_000_000  # of text8 and of imdb8, to the letter
CORPORA = ("text8", "imdb8", "lee")
LEVELS = 127  # of an int8, on each side of zero


def _gensim(module: str) -> ModuleType:
    """Import ``gensim.MODULE`` when it is needed, or say how to get it."""
    import importlib

    try:
        return importlib.import_module(f"gensim.{module}")
    except ImportError as error:
        raise ImportError(
            "gensim trains word vectors and is not installed: pip install gensim. "
            "The committed vectors need no gensim: words.load(...)."
        ) from error


# ------------------------------------------------------------------------- corpora


@dataclass(frozen=True)
class Corpus:
    """A text as a list of lower-case ``words``, with a ``name``.

    ``note`` says why this corpus was taken, and is part of ``str``.
    """

    name: str
    words: list[str]
    note: str = ""

    def __str__(self) -> str:
        text = f"{self.name}: {len(self.words)} words"
        return text + (f" ({self.note})" if self.note else "")


def _interned(text: str) -> list[str]:
    """Split at spaces; equal words are one object, which saves a gigabyte."""
    known: dict[str, str] = {}
    return [known.setdefault(word, word) for word in text.split()]


def _text8(timeout: float) -> Corpus:
    downloader, before = _gensim("downloader"), socket.getdefaulttimeout()
    socket.setdefaulttimeout(timeout)
    try:
        parts = downloader.load("text8")
    except (OSError, ValueError, HTTPException) as error:  # gensim: no list, no network
        raise FileNotFoundError(f"text8 could not be downloaded: {error}") from error
    finally:
        socket.setdefaulttimeout(before)
    text = " ".join(" ".join(part) for part in parts)
    if abs(len(text) - CHARACTERS) > 2:  # gensim drops the spaces at the ends
        raise ValueError(f"text8 has {len(text)} characters: delete it, load again")
    return Corpus("text8", _interned(text))


def _imdb8(timeout: float) -> Corpus:
    paths = [root / IMDB8 for root in data.roots()]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise FileNotFoundError(f"{IMDB8} is in none of {[*map(str, data.roots())]}")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != IMDB8_SHA256:
        raise ValueError(f"{path} is not the published file: truncated or altered")
    return Corpus("imdb8", _interned(lzma.decompress(content).decode("ascii")))


def _lee(timeout: float) -> Corpus:
    path = Path(_gensim("test.utils").datapath("lee_background.cor"))
    text = path.read_text("utf-8").lower()
    return Corpus("lee", _interned(" ".join(re.findall("[a-z]+", text))))


_LOADERS = {"text8": _text8, "imdb8": _imdb8, "lee": _lee}


def load_corpus(name: str | None = None, *, timeout: float = 5) -> Corpus:
    """Load corpus ``name``, or the largest that can be had.

    "text8": the first 100 MB of Wikipedia, by ``gensim.downloader``, which waits at
    most ``timeout`` seconds for a silent server; "imdb8": film reviews of the same
    size and cleaning, from the folder ``ADVLIB_DATA``; "lee": 300 news items that
    travel inside gensim, in letters a-z too. Without ``name`` the first of these that
    is there, and the note says what was not. Raises ``ValueError`` for another name or
    a damaged file, ``FileNotFoundError`` if it cannot be had, ``ImportError`` without
    gensim (imdb8 needs none).
    """
    if name is not None:
        if name not in _LOADERS:
            raise ValueError(f"unknown corpus {name!r}; one of {CORPORA}")
        try:
            return _LOADERS[name](timeout)
        except OSError as error:
            raise FileNotFoundError(f"{name} cannot be had: {error}") from error
    missed = []
    for other in CORPORA:
        try:
            found = load_corpus(other, timeout=timeout)
        except (FileNotFoundError, ImportError):
            missed.append(other)
            continue
        why = f"{' and '.join(missed)} cannot be had" if missed else ""
        return Corpus(found.name, found.words, why)
    raise FileNotFoundError("no corpus: pip install gensim, or set ADVLIB_DATA")


def split(
    words: Sequence[str], *, size: int = 10_000, every: int = 10
) -> tuple[list[list[str]], list[list[str]]]:
    """Cut ``words`` into pieces of ``size``; hold out each ``every``-th piece.

    Returns (training pieces, held-out pieces). A piece is what gensim calls a
    sentence, of at most 10 000 words. Raises ``ValueError`` if either part is empty.
    """
    if size < 1 or every < 2:
        raise ValueError(f"need size >= 1 and every >= 2, not {size}, {every}")
    pieces = [list(words[i : i + size]) for i in range(0, len(words), size)]
    kept = [piece for i, piece in enumerate(pieces) if i % every != every - 1]
    held_out = pieces[every - 1 :: every]
    if not held_out:
        raise ValueError(f"{len(words)} words make {len(pieces)} pieces: none held out")
    return kept, held_out


# ------------------------------------------------------------------------- vectors


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
    word2vec = _gensim("models.word2vec")
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


# ----------------------------------------------------------------- compact vectors


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
    save_file(tensors, path, {"provenance": json.dumps({"command": command})})
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


# ----------------------------------------------------------------------- coherence


def mean_cosine(unit: Tensor, top: Tensor) -> Tensor:
    """Return the mean cosine of all pairs of words in each row of ``top``: (m,).

    ``unit`` (V, d) has rows of length 1, ``top`` (m, k) holds k >= 2 places in it. With
    s the sum of the k vectors it is (|s|^2 - k) / (k (k - 1)), so no pair is visited.
    Raises ``ValueError`` for rows of another length or k < 2.
    """
    k = top.shape[1]
    if k < 2:
        raise ValueError("a pair needs two words")
    lengths = unit[top.unique()].double().norm(dim=1)
    if not torch.allclose(lengths, torch.ones_like(lengths), atol=1e-4):
        raise ValueError("cosines need vectors of length 1: unit_length(matrix)")
    total = unit.double()[top].sum(1)
    return (total.square().sum(1) - k) / (k * (k - 1))


def frequency_bins(counts: Tensor) -> Tensor:
    """Return k with 2^(k-1) <= count < 2^k for each of ``counts`` (V,).

    The bins of Schakel and Wilson 2015, arXiv:1508.02297. Raises ``ValueError`` for a
    count below 1.
    """
    if not (counts >= 1).all():
        raise ValueError("counts must be at least 1")
    return torch.frexp(counts.double()).exponent


def same_frequency(
    counts: Tensor, top: Tensor, *, generator: torch.Generator
) -> Tensor:
    """Return ``top`` (m, k) with each word replaced by a random one as frequent.

    As frequent means of the same bin of ``counts`` (V,), see ``frequency_bins``, which
    raises ``ValueError``. Within a row no word occurs twice if the bin allows. Drawn
    from ``generator``.
    """
    bins = frequency_bins(counts)
    drawn = torch.empty_like(top)
    for value in bins[top].unique():
        members = (bins == value).nonzero()[:, 0]
        chosen = bins[top] == value
        width = int(chosen.sum(1).max())
        keys = torch.rand(len(top), len(members), generator=generator)
        order = keys.topk(min(width, len(members)), dim=1).indices
        place = (chosen.cumsum(1) - 1).remainder(order.shape[1])
        drawn = torch.where(chosen, members[order.gather(1, place)], drawn)
    return drawn


def presence(
    sentences: Sequence[Sequence[str]], words: Sequence[str], *, block: int = 100
) -> sparse.csr_array:
    """Return which of ``words`` occur in which block of text: (V, B) of 0 and 1.

    Each of ``sentences`` is cut into blocks of ``block`` words; a shorter rest is left
    out. Raises ``ValueError`` if there is no whole block.
    """
    place = {word: i for i, word in enumerate(words)}
    rows, columns, number = [], [], 0
    for sentence in sentences:
        for start in range(0, len(sentence) - block + 1, block):
            found = {place[w] for w in sentence[start : start + block] if w in place}
            rows += found
            columns += [number] * len(found)
            number += 1
    if not number:
        raise ValueError(f"no sentence has {block} words")
    ones = np.ones(len(rows), dtype=np.int64)
    return sparse.csr_array((ones, (rows, columns)), shape=(len(place), number))


def mean_lift(present: sparse.csr_array, top: Tensor) -> Tensor:
    """Return how much more often the words of each row of ``top`` meet than by chance.

    ``present`` (V, B) as from ``presence``, of a text that the vectors never saw;
    ``top`` (m, k) places in it. For two words in n_i and n_j of the B blocks and
    together in n_ij it is log2((n_ij + 1) / (n_i n_j / B + 1)): about 0 for independent
    words and for words too rare to tell, 1 for twice as often. Returns the mean over
    the pairs of each row, (m,). Raises ``ValueError`` for k < 2.
    """
    if top.shape[1] < 2:
        raise ValueError("a pair needs two words")
    pairs = np.triu_indices(top.shape[1], 1)
    blocks, scores = present.shape[1], []
    for row in top.numpy():
        chosen = present[row]
        together = (chosen @ chosen.T).toarray()
        each = together.diagonal()
        ratio = (together + 1) / (np.outer(each, each) / blocks + 1)
        scores.append(np.log2(ratio[pairs]).mean())
    return torch.tensor(np.array(scores))


def rotated_bases(
    matrix: Tensor, *, k: int, num: int, generator: torch.Generator
) -> Tensor:
    """Return the mean coherence of the axes of ``num`` randomly turned copies: (num,).

    For each random rotation Q the k words on top of every dimension of ``matrix`` Q
    (V, d) are scored by ``mean_cosine``, which a rotation leaves alone, with ``k``
    words a row; then the mean over the dimensions is taken. If the axes of ``matrix``
    are nothing special, their own mean is one more such draw: an exact test. Drawn
    from ``generator``; raises ``ValueError`` as ``unit_length`` and ``mean_cosine`` do.
    """
    unit = unit_length(matrix)
    means = []
    for _ in range(num):
        axes = random_rotation(matrix.shape[1], generator=generator)
        means.append(mean_cosine(unit, top_images(matrix, axes, k)).mean())
    return torch.stack(means)


def length_by_frequency(vectors: Vectors) -> list[dict[str, float]]:
    """Return the lengths of ``vectors`` by the bins of ``frequency_bins``.

    One entry a bin: ``count``, the geometric middle of the bin, ``words`` in it, and
    the ``low`` 10 %, ``median`` and ``high`` 90 % quantile of their lengths.
    """
    bins = frequency_bins(vectors.counts)
    length = torch.linalg.vector_norm(vectors.matrix, dim=1).double()
    found = []
    for value in bins.unique().tolist():
        here = length[bins == value]
        low, median, high = here.quantile(torch.tensor([0.1, 0.5, 0.9]).double())
        found.append(
            {
                "count": 2 ** (value - 0.5),
                "words": len(here),
                "low": float(low),
                "median": float(median),
                "high": float(high),
            }
        )
    return found
