"""Directions in feature space: what single units and random combinations like most.

A feature matrix ``phi`` (N, n) holds the activations of one layer, one row per image.
A direction is a row of n numbers; unit i is the direction e_i. To look at a direction
is to look at the images that it likes most: the K largest values of phi v. All work
here is in float64, and ties go to the image that comes first.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from advlib._check import check_dtype, check_images, check_model
from advlib.networks.layers import check_only_layers

KINDS = ("raw", "centred", "z-scored", "whitened")
DIRECTIONS = ("gaussian", "uniform")


def _check_matrix(matrix: Tensor, name: str, columns: int | None = None) -> None:
    """Refuse what is no finite (N >= 1, ``columns``) matrix: TypeError, ValueError."""
    if not matrix.is_floating_point():
        raise TypeError(f"{name} must be floating point, not {matrix.dtype}")
    if matrix.dim() != 2 or 0 in matrix.shape:
        raise ValueError(f"{name} must be a matrix, not {tuple(matrix.shape)}")
    if columns is not None and matrix.shape[1] != columns:
        raise ValueError(f"{name} has {matrix.shape[1]} columns, not {columns}")
    if not matrix.isfinite().all():
        raise ValueError(f"{name} holds NaN or infinity")


def features(
    model: nn.Sequential, x: Tensor, layer: int, *, batch_size: int = 500
) -> Tensor:
    """Return what ``layer`` of ``model`` gives for the images ``x``: (N, n), float64.

    ``x`` (N, ...) in [0, 1], ``batch_size`` at a time. ``layer`` counts as in a list:
    -2 is the last hidden layer of a network that ends with Linear. Raises
    ``ValueError`` for a model in train mode, no such layer, or bad images, and
    ``TypeError`` for a model that is no ``Sequential`` or computes more than its
    layers, and for images of another dtype.
    """
    check_only_layers(model)
    check_model(model)
    check_images(x)
    check_dtype(model, x)
    if not -len(model) <= layer < len(model):
        raise ValueError(f"no layer {layer}: the model has {len(model)}")
    front = model[: layer % len(model) + 1]
    with torch.no_grad():
        parts = [front(part.clone()).flatten(1) for part in x.split(batch_size)]
    return torch.cat(parts).double()


# ---------------------------------------------------------------------- directions


def random_directions(
    num: int, n: int, *, generator: torch.Generator, kind: str = "gaussian"
) -> Tensor:
    """Return ``num`` random directions of length 1 in ``n`` dimensions: (num, n).

    ``kind`` "gaussian" is uniform on the sphere. "uniform", every entry from [0, 1],
    is the *wrong* control: all its directions are nearly (1, ..., 1). Drawn from
    ``generator``, on its device. Raises ``ValueError`` for another kind or sizes below
    1.
    """
    if kind not in DIRECTIONS or num < 1 or n < 1:
        raise ValueError(f"need one of {DIRECTIONS}, num and n >= 1: {kind} {num} {n}")
    draw = torch.randn if kind == "gaussian" else torch.rand
    v = draw(
        (num, n), generator=generator, dtype=torch.float64, device=generator.device
    )
    return v / v.norm(dim=1, keepdim=True)


def spectrum(phi: Tensor) -> Tensor:
    """Return the eigenvalues (n,) of the covariance of ``phi`` (N, n), largest first.

    Raises ``ValueError`` or ``TypeError`` for what is no finite matrix.
    """
    _check_matrix(phi, "phi")
    return torch.linalg.eigvalsh(_covariance(phi)).flip(0)


def _covariance(phi: Tensor) -> Tensor:
    """Return the covariance (n, n) of ``phi`` (N, n), also of one feature or image.

    A feature that never changes has exactly 0: the rounding of its mean, some 1e-17,
    would count as a variance wherever all others are as small.
    """
    constant = (phi == phi[:1]).all(0)
    moving = torch.where(constant, 0.0, phi.double())
    return torch.cov(moving.T, correction=0).reshape(phi.shape[1], -1)


def effective_dimension(eigenvalues: Tensor) -> float:
    """Return the participation ratio of ``eigenvalues`` (n,): how many matter.

    (sum)^2 / sum of squares: r if r of them are equal and the others 0. Raises
    ``ValueError`` if none is positive.
    """
    if not eigenvalues.max() > 0:
        raise ValueError("no eigenvalue is positive")
    return float(eigenvalues.sum() ** 2 / eigenvalues.square().sum())


def pca_directions(phi: Tensor, num: int) -> Tensor:
    """Return the first ``num`` principal directions of ``phi`` (N, n): (num, n).

    Orthonormal, by falling variance; the sign is such that the entry of largest size
    is positive, so look at both ends. Raises ``ValueError`` unless 1 <= num <= n, and
    what ``spectrum`` raises.
    """
    _check_matrix(phi, "phi")
    if not 1 <= num <= phi.shape[1]:
        raise ValueError(f"need 1 <= num <= {phi.shape[1]}, not {num}")
    vectors = torch.linalg.eigh(_covariance(phi)).eigenvectors.flip(1)[:, :num].T
    largest = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
    return vectors * largest.sign()


# ---------------------------------------------------------------------- transforms


@dataclass(frozen=True)
class Affine:
    """The map ``phi -> (phi - center) @ matrix`` of features.

    ``center`` (n,) and ``matrix`` (n, n); a column j of the matrix makes unit j.
    """

    center: Tensor
    matrix: Tensor

    def __call__(self, phi: Tensor) -> Tensor:
        """Return the transformed ``phi`` (N, n), float64.

        Raises ``ValueError`` or ``TypeError`` for features of another shape.
        """
        _check_matrix(phi, "phi", len(self.center))
        return (phi.double() - self.center) @ self.matrix


def fit_transform(phi: Tensor, kind: str, *, tolerance: float = 1e-8) -> Affine:
    """Return the map that makes ``phi`` (N, n) "raw", "centred", "z-scored", ...

    ... or "whitened", by ``kind``. Whitening is symmetric: of all whitened features
    these stay closest to ``phi``. Still, coordinate i is a mixture, and its correlation
    with unit i may be one half. Units, or principal directions, whose variance is at
    most ``tolerance`` times the largest go to 0.
    Raises ``ValueError`` for another kind, and what ``spectrum`` raises.
    """
    if kind not in KINDS:
        raise ValueError(f"transform {kind!r} is none of {KINDS}")
    _check_matrix(phi, "phi")
    n, phi = phi.shape[1], phi.double()
    same = torch.eye(n, dtype=phi.dtype, device=phi.device)
    if kind == "raw":
        return Affine(torch.zeros_like(phi[0]), same)
    center, covariance = phi.mean(0), _covariance(phi)
    if kind == "centred":
        return Affine(center, same)
    if kind == "z-scored":
        return Affine(center, torch.diag(_inverse_root(covariance.diag(), tolerance)))
    values, vectors = torch.linalg.eigh(covariance)
    return Affine(center, vectors * _inverse_root(values, tolerance) @ vectors.T)


def _inverse_root(values: Tensor, tolerance: float) -> Tensor:
    kept = values > tolerance * values.max()
    return torch.where(kept, values.clamp(min=1e-300).rsqrt(), 0.0)


def live_units(phi: Tensor, *, share: float = 0.05) -> Tensor:
    """Return which units of ``phi`` (N, n) say something: (n,), bool.

    A unit is dead if less than a ``share`` of the images lift it above its smallest
    value (0 after a ReLU). A unit that is hardly ever on has no top images worth the
    name; and its few large values, divided by a small deviation, would be the top
    images of every random direction. Raises what ``spectrum`` raises.
    """
    _check_matrix(phi, "phi")
    return (phi > phi.amin(0)).double().mean(0) >= share


# ------------------------------------------------------------- the images on top


def top_images(phi: Tensor, directions: Tensor, k: int) -> Tensor:
    """Return for each direction the ``k`` images that it likes most: (m, k) int64.

    ``phi`` (N, n), ``directions`` (m, n), brought to its device; best image first,
    ties by position. Raises
    ``ValueError`` unless 1 <= k <= N, for a direction that is 0, for shapes that do
    not fit and for NaN; ``TypeError`` for integers.
    """
    _check_matrix(phi, "phi")
    _check_matrix(directions, "directions", phi.shape[1])
    if not 1 <= k <= len(phi):
        raise ValueError(f"need 1 <= k <= {len(phi)} images, not {k}")
    if not (directions != 0).any(1).all():
        raise ValueError("a direction is 0")
    phi, found = phi.double(), []
    for part in directions.to(phi).split(250):
        scores = part @ phi.T
        last = scores.topk(k).values[:, -1:]
        enough = int((scores >= last).sum(1).max())  # k, and the ties with the last
        places = scores.topk(enough).indices.sort(1).values
        kept = scores.gather(1, places)
        order = kept.sort(dim=1, descending=True, stable=True).indices[:, :k]
        found.append(places.gather(1, order))
    return torch.cat(found)


def _counts(labels: Tensor) -> Tensor:
    """Return how often each class occurs in each row of ``labels`` (m, k)."""
    if labels.dtype != torch.int64:
        raise TypeError(f"labels must be int64, not {labels.dtype}")
    if labels.dim() != 2 or 0 in labels.shape or not (labels >= 0).all():
        raise ValueError(f"need labels >= 0 of shape (m, k): {tuple(labels.shape)}")
    ones = torch.ones_like(labels).double()
    counts = ones.new_zeros(len(labels), int(labels.max()) + 1)
    return counts.scatter_add_(1, labels, ones)


def purity(labels: Tensor) -> Tensor:
    """Return the share of the most frequent label in each row of ``labels``: (m,).

    ``labels`` (m, k) int64 >= 0, of the top images. From 1 / k to 1. Raises
    ``ValueError`` or ``TypeError`` for labels of another shape, sign or dtype.
    """
    return _counts(labels).amax(1) / labels.shape[1]


def entropy(labels: Tensor) -> Tensor:
    """Return the entropy in bits of each row of ``labels`` (m, k): (m,).

    0 if all labels are equal. Of the shares as they are, so it is too low for the
    entropy of the classes behind them: compare it at one k only. Raises what
    ``purity`` raises.
    """
    share = _counts(labels) / labels.shape[1]
    return -torch.special.xlogy(share, share).sum(1) / math.log(2)


def chance(class_sizes: Sequence[int], k: int) -> tuple[float, float]:
    """Return the expected purity and entropy of ``k`` images drawn at random.

    Exact: without replacement, from a set with ``class_sizes`` images of each class.
    The number of draws in which no class occurs more than m times is a coefficient of
    a product of polynomials, here in whole numbers. Raises ``ValueError`` unless
    1 <= k <= number of images.
    """
    total = sum(class_sizes)
    if min(class_sizes, default=0) < 0 or not 1 <= k <= total:
        raise ValueError(f"need 1 <= k <= {total} images, sizes >= 0, not {k}")
    draws = math.comb(total, k)
    at_most = [_draws_up_to(class_sizes, k, m) for m in range(k)]
    mean = sum(1 - fewer / draws for fewer in at_most)
    bits = 0.0
    for size in class_sizes:
        for c in range(1, min(k, size) + 1):
            ways = math.comb(size, c) * math.comb(total - size, k - c)
            bits -= ways / draws * c / k * math.log2(c / k)
    return mean / k, bits


def _draws_up_to(class_sizes: Sequence[int], k: int, m: int) -> int:
    """Return the number of sets of ``k`` with at most ``m`` of every class."""
    ways = [1] + [0] * k
    for size in class_sizes:
        terms = [math.comb(size, c) for c in range(m + 1)]
        ways = [
            sum(term * ways[j - c] for c, term in enumerate(terms) if c <= j)
            for j in range(k + 1)
        ]
    return ways[k]


def overlap(top: Tensor) -> float:
    """Return the mean share of images that two rows of ``top`` (m, k) have in common.

    Over all pairs of different rows: 1 if every direction shows the same images.
    Raises ``ValueError`` for fewer than two rows or an image twice in a row.
    """
    if top.dim() != 2 or len(top) < 2 or top.shape[1] < 1:
        raise ValueError(f"need at least two rows of images, not {tuple(top.shape)}")
    _, place = top.unique(return_inverse=True)
    shape = len(top), int(place.max()) + 1
    member = torch.zeros(shape, dtype=torch.float64, device=top.device)
    member.scatter_(1, place, 1.0)
    m, k = top.shape
    if member.sum() != m * k:
        raise ValueError("an image occurs twice in a row")
    common = member.sum(0).square().sum() - m * k  # ordered pairs, not with itself
    return float(common / (m * (m - 1) * k))


# -------------------------------------------------------------- two groups compared


def mean_difference(
    units: Sequence[float], others: Sequence[float], *, seed: int = 0
) -> tuple[float, float, float]:
    """Return mean(``units``) - mean(``others``) and its 95 % bootstrap interval.

    The unit of resampling is the direction: both groups are drawn again, apart, 2000
    times from ``seed``. So it speaks of other units and directions of *this* network
    on *these* images; for other networks train more seeds and use
    ``evaluation.mean_interval`` on their differences. Raises ``ValueError`` for fewer
    than two values in a group, or NaN.
    """
    groups = [np.asarray(group, dtype=float) for group in (units, others)]
    if any(g.ndim != 1 or len(g) < 2 or not np.isfinite(g).all() for g in groups):
        raise ValueError("need two or more finite values in each group")
    rng = np.random.default_rng(seed)
    means = [g[rng.integers(len(g), size=(2000, len(g)))].mean(1) for g in groups]
    low, high = np.quantile(means[0] - means[1], [0.025, 0.975])
    return float(groups[0].mean() - groups[1].mean()), float(low), float(high)


def verdict(low: float, high: float, tolerance: float) -> str:
    """Return what an interval [``low``, ``high``] of a difference supports.

    With a ``tolerance`` named before the data were seen, two questions and four
    answers. An interval inside (-tolerance, tolerance) is "no difference" if it holds
    0, else "negligible": there is a difference, too small to matter. Any other is
    "undecided" if it holds 0, else "difference", of which the size may still be below
    the tolerance. Raises ``ValueError`` unless low <= high and tolerance > 0.
    """
    if not (low <= high and tolerance > 0):
        raise ValueError(
            f"need low <= high and tolerance > 0: {low}, {high}, {tolerance}"
        )
    if -tolerance < low and high < tolerance:
        return "no difference" if low <= 0 <= high else "negligible"
    return "undecided" if low <= 0 <= high else "difference"


# ---------------------------------------------------------------- causes: rotations


def random_rotation(n: int, *, generator: torch.Generator) -> Tensor:
    """Return an orthogonal matrix (n, n), uniform over all, drawn from ``generator``.

    On its device. Determinant 1 or -1: a rotation, perhaps with a reflection. Raises
    ``ValueError`` for ``n`` < 1.
    """
    if n < 1:
        raise ValueError(f"need n >= 1, not {n}")
    gaussian = torch.randn(
        (n, n), generator=generator, dtype=torch.float64, device=generator.device
    )
    q, r = torch.linalg.qr(gaussian)
    return q * r.diagonal().sign()


def rotate(
    first: nn.Linear, second: nn.Linear, rotation: Tensor
) -> tuple[nn.Linear, nn.Linear]:
    """Return copies of two layers, the features between them turned by ``rotation``.

    ``first`` then ``second`` is the same function as before, if nothing but a linear
    map that commutes with ``rotation`` (n, n) stands between. Raises ``ValueError`` if
    sizes do not fit or ``rotation`` is not orthogonal, ``TypeError`` for integers.
    """
    n = first.out_features
    _check_matrix(rotation, "rotation", n)
    if second.in_features != n or len(rotation) != n:
        raise ValueError(f"{n} features do not fit {second.in_features}")
    eye = torch.eye(n, dtype=rotation.dtype, device=rotation.device)
    if not torch.allclose(rotation @ rotation.T, eye, atol=1e-5):
        raise ValueError("rotation is not orthogonal")
    before, after = _copy(first), _copy(second)
    with torch.no_grad():
        before.weight.copy_(rotation.to(first.weight) @ first.weight)
        if before.bias is not None:
            before.bias.copy_(rotation.to(first.bias) @ first.bias)
        after.weight.copy_(second.weight @ rotation.to(second.weight).T)
    return before, after


def _copy(layer: nn.Linear) -> nn.Linear:
    other = nn.Linear(
        layer.in_features,
        layer.out_features,
        layer.bias is not None,
        dtype=layer.weight.dtype,
        device=layer.weight.device,
    )
    other.load_state_dict(layer.state_dict())
    return other.train(layer.training)


# ----------------------------------------------------------------- causes: ablation


def ablated_accuracy(
    rest: nn.Module,
    phi: Tensor,
    y: Tensor,
    directions: Tensor,
    counts: Sequence[int],
    *,
    center: Tensor | None = None,
) -> list[float]:
    """Return the accuracy of ``rest(phi)`` without the first few directions.

    For each k of ``counts`` the features ``phi`` (N, n) keep no trace of the span of
    the first k ``directions`` (m, n): along it they are set to those of ``center``
    (n,), by default 0. For units e_i that is clamping, as Morcos et al. 2018
    (arXiv:1803.06959) do; for other directions it is an orthogonal projection. ``y``
    (N,) int64 are the labels. Raises ``ValueError`` for dependent directions, counts
    outside 0..m, ``rest`` in train mode, and shapes or NaN; ``TypeError`` for integers.
    """
    check_model(rest)
    _check_matrix(phi, "phi")
    _check_matrix(directions, "directions", phi.shape[1])
    if y.shape != phi.shape[:1]:
        raise ValueError(f"need one label per row of phi, not {tuple(y.shape)}")
    if not all(0 <= k <= len(directions) for k in counts):
        raise ValueError(f"counts must lie in 0..{len(directions)}: {list(counts)}")
    phi = phi.double()
    q, r = torch.linalg.qr(directions.to(phi).T)
    if len(directions) > phi.shape[1] or not (r.diagonal().abs() > 1e-9).all():
        raise ValueError("the directions are not linearly independent")
    from_center = phi if center is None else phi - center.to(phi)
    dtype = next((p.dtype for p in rest.parameters()), phi.dtype)
    found = []
    with torch.no_grad():
        for k in counts:
            left = phi - from_center @ q[:, :k] @ q[:, :k].T
            answers = rest(left.to(dtype)).argmax(1)
            found.append(float((answers == y).double().mean()))
    return found
