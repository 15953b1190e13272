"""The checker: believes nothing, and proves each interval and each margin anew.

It computes with integers (``arithmetic``) and raises ``RejectedError`` for anything
that is not implied. What is proved speaks of the network in real arithmetic with the
stored weights.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor, nn

from advlib._check import check_all
from advlib.networks.canonical import affine_matrix, canonical, output_shape
from advlib.proof.arithmetic import Exact, RejectedError, stack
from advlib.proof.files import GRID, SLOPE_GRID, Certificate, question

CHORD_GRID = 30  # slopes above on multiples of 2^-30, rounded up


def affine_layers(
    model: nn.Module, shape: Sequence[int]
) -> list[tuple[Tensor, Tensor]]:
    """Return the float64 matrix and bias of each affine layer of ``model``.

    For inputs of ``shape``; ReLUs lie between. No layer is folded into another, for
    that would round. Raises ``TypeError`` for a layer without exact rule.
    """
    layers, relus, shape = [], [], tuple(shape)
    canonical(model, shape)  # refuses options that are not the plain ones
    for layer in model:
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            layers.append(affine_matrix(deepcopy(layer).double(), shape))
            relus.append(False)
        elif isinstance(layer, nn.ReLU) and relus and not relus[-1]:
            relus[-1] = True
        elif not isinstance(layer, nn.Flatten):
            raise TypeError(f"no exact rule for {type(layer).__name__} here")
        shape = output_shape(layer, shape)
    if not layers or relus != [True] * (len(layers) - 1) + [False]:
        raise TypeError("need affine layers with a ReLU between any two of them")
    return layers


@dataclass(frozen=True)
class _Line:
    """Around a ReLU: lower * z <= ReLU(z) <= upper * z + offset."""

    lower: Exact
    upper: Exact
    offset: Exact


def _exact_line(low: np.ndarray, high: np.ndarray, slopes: np.ndarray) -> _Line:
    """Return lines that hold on [low, high]; ``slopes`` (S, n), one row or many.

    Above: a line of slope s through the point (low, 0), where s is the chord's slope
    high / (high - low) rounded up. A convex function lies below a line that is above
    it at both ends: at low by construction, at high because s is no smaller.
    """
    active, dead = low >= 0, high <= 0
    width = np.where(active | dead, 1, high - low)
    one = 1 << CHORD_GRID
    chord = -((-high << CHORD_GRID) // width)
    fixed = np.where(active & ~dead, one, 0)
    upper = np.where(active | dead, fixed, chord)
    offset = np.where(active | dead, 0, -upper * low)
    given = slopes.astype(object) << (CHORD_GRID - SLOPE_GRID)
    lower = np.where(active | dead, fixed, given)
    as_exact = (Exact(lower, CHORD_GRID), Exact(upper, CHORD_GRID))
    return _Line(*as_exact, Exact(offset, CHORD_GRID + GRID))


Layers = Sequence[tuple[Exact, Exact]]

Box = tuple[Exact, Exact]


def _minimum(rows: Exact, constant: Exact, low: Exact, high: Exact) -> Exact:
    """Return the minimum of each row + constant over a box: exact."""
    return constant + rows.clip(0, None) @ low + rows.clip(None, 0) @ high


def _walk(
    rows: Exact, constant: Exact, below: Layers, lines: Sequence[_Line], box: Box
) -> Exact:
    """Return lower bounds of ``rows`` of the last ReLU's output, plus ``constant``.

    ``below``: the affine layers, each followed by the ReLU of ``lines``.
    """
    for (weight, bias), line in zip(reversed(below), reversed(lines), strict=True):
        up, down = rows.clip(0, None), rows.clip(None, 0)
        rows = up * line.lower + down * line.upper
        constant = constant + down @ line.offset + rows @ bias
        rows = rows @ weight
    return _minimum(rows, constant, *box)


def exact_logits(model: nn.Module, x: Tensor) -> list[Fraction]:
    """Return what the real-number network ``model`` returns at ``x``, unrounded.

    ``x`` one input without batch, anywhere. Raises ``TypeError`` for layers other than
    affine ones with a ReLU between, ``RejectedError`` for NaN and infinity.
    """
    value = Exact.of(x.flatten())
    for k, (weight, bias) in enumerate(affine_layers(model, x.shape)):
        value = value if k == 0 else value.clip(0, None)
        value = Exact.of(weight) @ value + Exact.of(bias)
    return value.fractions()


def _input_box(x: Tensor, eps: float) -> Box:
    pixels, radius = Exact.of(x.flatten()), Exact.of(eps)
    return (pixels + -radius).clip(0, 1), (pixels + radius).clip(0, 1)


def _check_interval(k: int, claim: Box, layers: Layers, lines: list[_Line],
                    before: Box, box: Box) -> None:  # fmt: skip
    """Prove that what enters ReLU ``k`` lies in the interval ``claim``, or refuse.

    ``before`` holds the values that enter the layer just below. First by interval
    arithmetic, then what is left by a walk.
    """
    weight, bias = layers[-1]
    both, shift = stack(weight, -weight), stack(bias, -bias)
    need = stack(claim[0], -claim[1])
    (left,) = np.nonzero(~(need <= _minimum(both, shift, *before)))
    if len(left) and k > 0:
        found = _walk(both[left], shift[left], layers[:-1], lines, box)
        left = left[~(need[left] <= found)]
    if len(left):
        raise RejectedError(
            f"an interval before ReLU {k} is not implied: unit {left[0]}"
        )


def _check_form(
    certificate: Certificate, layers: Sequence[tuple[Tensor, Tensor]]
) -> None:
    widths = [len(bias) for _, bias in layers]
    parts = certificate.lower, certificate.upper, certificate.slopes
    if not 0 <= certificate.label < widths[-1]:
        raise RejectedError("the label is no class")
    if any(len(part) != len(widths) - 1 for part in parts):
        raise RejectedError("need intervals and slopes for every ReLU")
    if any(array.dtype.kind != "i" for part in parts for array in part):
        raise RejectedError("intervals and slopes are integers, in steps of their grid")
    for low, high, slopes, n in zip(*parts, widths[:-1], strict=True):
        if not low.shape == high.shape == (n,) or slopes.shape != (widths[-1], n):
            raise RejectedError("intervals or slopes of another network")
        if not (low <= high).all():
            raise RejectedError("an interval has its ends swapped")
        if not ((0 <= slopes) & (slopes <= 1 << SLOPE_GRID)).all():
            raise RejectedError("a slope lies outside [0, 1]")


def check_certificate(
    model: nn.Module, x: Tensor, y: int, eps: float, certificate: Certificate
) -> list[Fraction]:
    """Return exact lower bounds of z_y - z_j, one per class, all > 0 for j != y.

    A proof for the real-number network ``model`` (Linear and Conv2d with ReLU between,
    float weights as stored), one image ``x`` (without batch), its class ``y``, the
    l-inf ball whose radius is the very float ``eps``, cut to [0, 1]. Proves every
    interval of ``certificate`` from the input on; entry y is 0. Raises
    ``RejectedError`` if anything is not implied, and ``TypeError`` for a layer without
    exact rule.
    """
    check_all(model, x[None], torch.tensor([y]), eps)
    floats = affine_layers(model, x.shape)
    if certificate.question != question(model, x, y, eps):
        raise RejectedError("made for other weights, another image, label or eps")
    if (certificate.label, certificate.eps) != (y, eps):
        raise RejectedError("made for another label or eps")
    _check_form(certificate, floats)
    layers = [(Exact.of(weight), Exact.of(bias)) for weight, bias in floats]
    box = before = _input_box(x, eps)
    ends = zip(certificate.lower, certificate.upper, certificate.slopes, strict=True)
    shared, outer = [], []
    for k, (low, high, slopes) in enumerate(ends):
        low, high = low.astype(object), high.astype(object)
        claim = Exact(low, GRID), Exact(high, GRID)
        _check_interval(k, claim, layers[: k + 1], shared, before, box)
        shared.append(_exact_line(low, high, slopes[y]))
        outer.append(_exact_line(low, high, np.delete(slopes, y, axis=0)))
        before = claim[0].clip(0, None), claim[1].clip(0, None)
    return _check_margins(y, layers, outer, before, box)


def _check_margins(
    y: int, layers: Layers, lines: list[_Line], before: Box, box: Box
) -> list[Fraction]:
    """Return per class the better of the walk and of intervals (``before``)."""
    classes = len(layers[-1][1].ints)
    rows = np.delete(-np.eye(classes, dtype=int), y, axis=0)
    rows[:, y] = 1
    weight, bias = layers[-1]
    rows = Exact(rows.astype(object))
    start = rows @ weight, rows @ bias
    walk = _walk(*start, layers[:-1], lines, box).fractions()
    plain = _minimum(*start, *before).fractions()
    found = [max(pair) for pair in zip(walk, plain, strict=True)]
    found.insert(y, Fraction(0))
    worst = min((m, j) for j, m in enumerate(found) if j != y)
    if worst[0] <= 0:
        raise RejectedError(
            f"the margin against class {worst[1]} is not proved positive"
        )
    return found
