"""The checker: believes nothing, and proves each interval and each margin anew.

It reads the stored numbers itself (``reading``), runs no layer, computes with integers
(``arithmetic``) and raises ``RejectedError`` for anything that is not implied. With
what proposes (``advlib.networks``, ``advlib.bounds``) it shares no code, only the form
of a certificate and of a question. What is proved speaks of the network in real
arithmetic with the stored weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from torch import Tensor, nn

from advlib.proof.arithmetic import Exact, RejectedError, as_array, stack
from advlib.proof.files import GRID, SLOPE_GRID, Certificate, form
from advlib.proof.questions import checked, question
from advlib.proof.reading import read_chain

CHORD_GRID = 30  # slopes above on multiples of 2^-30, rounded up


Layers = Sequence[tuple[Exact, Exact]]

Box = tuple[Exact, Exact]


def exact_layers(model: nn.Module, shape: Sequence[int]) -> Layers:
    """Return the matrix and the bias of each affine layer of ``model``, unrounded.

    For inputs of ``shape``, without batch; ReLUs lie between. No layer is folded into
    another, for that would round. Raises what ``read_chain`` and ``matrix`` raise.
    """
    return [layer.matrix() for layer in read_chain(model, shape)]


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

    ``x`` one input without batch, anywhere. Raises ``RejectedError`` for NaN and
    infinity, and what ``exact_layers`` raises for a network that it cannot read.
    """
    value = Exact.of(as_array(x).ravel())
    for k, (weight, bias) in enumerate(exact_layers(model, x.shape)):
        value = value if k == 0 else value.clip(0, None)
        value = weight @ value + bias
    return value.fractions()


def _input_box(x: Tensor, eps: float) -> Box:
    pixels, radius = Exact.of(as_array(x).ravel()), Exact.of(eps)
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


def _check_form(certificate: Certificate, widths: Sequence[int]) -> None:
    """Refuse what is no certificate for layers of ``widths``, the last the classes."""
    if len(form(certificate)) != len(widths) - 1:
        raise RejectedError("need intervals and slopes for every ReLU")
    if form(certificate) != [(widths[-1], n) for n in widths[:-1]]:
        raise RejectedError("intervals or slopes of another network")
    parts = certificate.lower, certificate.upper, certificate.slopes
    for low, high, slopes in zip(*parts, strict=True):
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
    ``RejectedError`` if anything is not implied, and ``TypeError`` and ``ValueError``
    for a question that cannot be asked, as ``checked``, and for layers without exact
    rule, as ``exact_layers``.
    """
    y, eps = checked(model, x, y, eps)
    form(certificate)
    if certificate.question != question(model, x, y, eps):
        raise RejectedError("made for other weights, another image, label or eps")
    if (certificate.label, certificate.eps) != (y, eps):
        raise RejectedError("made for another label or eps")
    layers = exact_layers(model, x.shape)
    _check_form(certificate, [len(bias.ints) for _, bias in layers])
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
