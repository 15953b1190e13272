"""Coherence of the words on top of a direction, and what chance gives."""

from collections.abc import Sequence

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from advlib.units import random_rotation, top_images
from advlib.words.vectors import Vectors, unit_length


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
