"""Sound lines below and above every unit of a network, on any segment.

A line is slope z + offset. Its slope is free: whatever it is, there is a highest offset
with which the line stays below the unit F on the segment: the least value of
F(z) - slope z there. ``unit_lines`` bounds that least value from below, rigorously:

 - where F is concave (``bends`` knows where), the least value is at an end;
 - where it is convex, F lies above its tangent at any point t, so F(z) - slope z is at
   least F(t) - slope t + (F'(t) - slope) (z - t), and that is least at an end. The
   better t, the better the bound: at the t with F'(t) = slope it is exact. But it
   holds at any t, so no search for t needs to be trusted;
 - from both, what the float64 computation can be off is taken (``Curve.error``).

Good slopes are those of the lower convex hull of F on the segment (``hulls``). For ReLU
they are the slopes from 0 to 1 of CROWN (Zhang et al. 2018, arXiv:1811.00866), which
bounds smooth units by tangents and chords, too. Lines above are lines below -F.

All is computed in float64; lines in float32 are rounded slopes, with offsets computed
for the rounded slope and rounded outward.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from advlib.bounds.bends import ROUNDING, TINY, Curve, curve_of
from advlib.bounds.hulls import lower_hull, touching, with_gradient, within


class Lines(NamedTuple):
    """Two lines with slope z + offset: lower <= unit(z) <= upper on the segment."""

    lower_slope: Tensor
    lower_offset: Tensor
    upper_slope: Tensor
    upper_offset: Tensor


def unit_range(
    name: str, lower: Tensor, upper: Tensor, *options: float
) -> tuple[Tensor, Tensor]:
    """Return (low, high) between which unit ``name`` stays on [``lower``, ``upper``].

    ``lower``, ``upper``: tensors of equal dtype, float32 or float64; ``options`` of the
    unit as in ``networks.units``. Sound for the unit in real arithmetic: ReLU's range
    is exact, others are widened by what the float64 computation can be off, about
    4e-15 (1 + abs(value)) at most (``bends``), then rounded outward. NaN where an end
    is NaN or infinite or the ends cross. Raises ``ValueError`` for an unknown unit and
    ``TypeError`` for other dtypes.
    """
    left, right, valid = _segment(lower, upper)
    if name == "relu" and not options:
        low, high = left.clamp(min=0), right.clamp(min=0)
    else:
        curve = curve_of(name, options)
        at = left if curve.lowest is None else within(curve.lowest, left, right)
        low, high = curve.value(at), curve.value(right)
        low, high = low - _off(curve, at, low), high + _off(curve, right, high)
        if curve.lowest is not None:
            other = curve.value(left)
            high = high.maximum(other + _off(curve, left, other))
        low, high = (end.clamp(curve.floor, curve.ceiling) for end in (low, high))
    return (
        _known(_rounded(low, lower.dtype, -1), valid),
        _known(_rounded(high, lower.dtype, 1), valid),
    )


def unit_lines(
    name: str, lower: Tensor, upper: Tensor, *options: float,
    at: Tensor | tuple[Tensor, Tensor] | None = None,
) -> Lines:  # fmt: skip
    """Return lines below and above the unit ``name`` on [``lower``, ``upper``].

    ``lower``, ``upper``, ``options``, errors as ``unit_range``; NaN, which proves
    nothing, where the ends are NaN, infinite or cross, or where a number overflows.
    ``at``: which of the good slopes, from 0 (the line touches as near ``lower`` as it
    can) to 1 (``upper``), a tensor that broadcasts with the ends, or two, for below and
    above. For an unstable ReLU it is the slope below. Any value is sound (outside
    [0, 1] it is cut), and gradients flow to ``at`` and to the ends. None: the line
    that is best in the middle of the segment, so that the area between it and the unit
    is least; for ReLU CROWN's choice, 1 where ``upper`` > -``lower``, else 0.
    """
    left, right, valid = _segment(lower, upper)
    below, above = at if isinstance(at, tuple) else (at, at)
    if name == "relu" and not options:
        lines = _relu_lines(left, right, below, lower.dtype)
    else:
        curve = curve_of(name, options)
        slope, offset = _side(curve, left, right, below, lower.dtype)
        steep, high = _side(curve.mirrored(), left, right, above, lower.dtype)
        lines = slope, offset, -steep, -high
    valid = valid & torch.isfinite(sum(line.detach() for line in lines))
    return Lines(*(_known(line, valid) for line in lines))


def first_at(
    name: str, lower: Tensor, upper: Tensor, *options: float
) -> tuple[Tensor, Tensor]:
    """Return the two ``at`` with which ``unit_lines`` gives what it gives without.

    Arguments and errors as there: ``name``, ``lower``, ``upper``, ``options``. In
    [0, 1]; detached; 0.5 where there is no choice. Optimisers start there.
    """
    with torch.no_grad():
        left, right, _ = _segment(lower, upper)
        if name == "relu" and not options:
            below = (right > -left).to(lower.dtype)
            return below, torch.full_like(below, 0.5)
        curve, found = curve_of(name, options), []
        for side in (curve, curve.mirrored()):
            hull = lower_hull(side, left, right)
            share = hull.slope_at(side, (left + right) / 2) - hull.first
            free = hull.first < hull.last
            share = share / torch.where(free, hull.last - hull.first, 1.0)
            found.append(torch.where(free, share, 0.5).to(lower.dtype))
        return found[0], found[1]


# ------------------------------------------------------------------------ ends


def _segment(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the ends in float64, 0 where they are none, and where they are some."""
    if lower.dtype != upper.dtype or lower.dtype not in (torch.float32, torch.float64):
        raise TypeError(
            f"the ends must both be float32 or float64, not {lower.dtype} and "
            f"{upper.dtype}"
        )
    left, right = torch.broadcast_tensors(lower.double(), upper.double())
    valid = (left <= right) & torch.isfinite(right - left)  # refuses NaN, too
    return torch.where(valid, left, 0.0), torch.where(valid, right, 0.0), valid


def _known(values: Tensor, valid: Tensor) -> Tensor:
    return torch.where(valid, values, torch.nan)


def _off(curve: Curve, z: Tensor, value: Tensor) -> Tensor:
    """Return by how much a ``value`` at ``z`` can be off: not right of a corner."""
    error = curve.error(value)
    return error if curve.corner is None else torch.where(z >= curve.corner, 0.0, error)


def _rounded(values: Tensor, dtype: torch.dtype, side: int) -> Tensor:
    """Return float64 ``values`` in ``dtype``, none rounded against ``side`` (-1, 1)."""
    cast = values.to(dtype)
    away = torch.full_like(cast, side * torch.inf)
    wrong = (cast.double() - values) * side < 0
    return with_gradient(cast, torch.where(wrong, torch.nextafter(cast, away), cast))


# ------------------------------------------------------------------------ ReLU


def _relu_lines(
    left: Tensor, right: Tensor, at: Tensor | None, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the triangle: exact below, rounded outward above."""
    on, off = left >= 0, right <= 0
    crossing = ~(on | off)
    first = (right > -left).to(left) if at is None else at.double().clamp(0, 1)
    below = torch.where(crossing, first, on.to(left))
    # a slope not below that of the chord: then -slope left is the larger of both ends'
    width = torch.where(crossing, right - left, 1.0)
    chord = torch.where(crossing, right, 0.0) / width
    chord = _rounded(_up(_up(chord)), dtype, 1)
    steep = chord.double()
    high = _rounded(_up(-steep * left), dtype, 1)
    slopes = below.to(dtype), torch.where(crossing, chord, on.to(dtype))
    zero = torch.zeros_like(slopes[0])
    return slopes[0], zero, slopes[1], torch.where(crossing, high, 0.0)


def _up(values: Tensor) -> Tensor:
    away = torch.full_like(values, torch.inf)
    return with_gradient(values, torch.nextafter(values.detach(), away))


# ----------------------------------------------------------------- smooth units


def _side(
    curve: Curve, left: Tensor, right: Tensor, at: Tensor | None, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return slope and offset, in ``dtype``, of lines below the curve."""
    hull, middle = lower_hull(curve, left, right), (left + right) / 2
    if at is None:
        slope = hull.slope_at(curve, middle)
    else:
        slope = hull.first + at.double().clamp(0, 1) * (hull.last - hull.first)
    slope = slope.to(dtype)
    exact, left, right = torch.broadcast_tensors(slope.double(), left, right)
    with torch.no_grad():
        if at is None:
            touch = within(middle, hull.enter, hull.leave)
        else:
            touch = touching(curve, exact, left, right)
        offset, least = _offset(curve, exact, left, right, touch)
    if exact.requires_grad:  # that of the value where it is least
        least = torch.where(least == right, right, least)
        least = torch.where(least == left, left, least)
        offset = with_gradient(curve.value(least) - exact * least, offset)
    if curve.corner is not None:  # from here on the unit is the identity
        straight = left >= curve.corner
        slope = torch.where(straight, curve.sign, slope)
        offset = torch.where(straight, 0.0, offset)
    return slope, _rounded(offset, dtype, -1)


def _offset(
    curve: Curve, slope: Tensor, left: Tensor, right: Tensor, touch: Tensor
) -> tuple[Tensor, Tensor]:
    """Return a number below curve(z) - slope z on the segment, and where it is least.

    Both at most by rounding if ``touch`` is where the curve has that slope.
    """
    stops = [within(piece.stop, left, right) for piece in curve.pieces[:-1]]
    knots = [left, *stops, right]
    values = [_below_value(curve, slope, knot) for knot in knots]
    bound, least = torch.full_like(left, torch.inf), left
    for i, piece in enumerate(curve.pieces):
        a, b = knots[i], knots[i + 1]
        if piece.bend > 0:
            value, point = _below_tangents(curve, slope, touch, a, b)
        else:
            point = torch.where(values[i] < values[i + 1], a, b)
            value = values[i].minimum(values[i + 1])
        least = torch.where(value < bound, point, least)
        bound = bound.minimum(value)  # NaN stays: it proves nothing
    return bound, least


def _below_value(curve: Curve, slope: Tensor, z: Tensor) -> Tensor:
    """Return a number below curve(z) - slope z in real arithmetic."""
    value, rest = curve.value(z), slope * z
    return value - rest - (_off(curve, z, value) + ROUNDING / 4 * rest.abs() + TINY)


def _below_tangents(
    curve: Curve, slope: Tensor, touch: Tensor, a: Tensor, b: Tensor
) -> tuple[Tensor, Tensor]:
    """Return what the better of two tangents, less the slope, is at least on [a, b].

    That at ``touch``, and that at the end where curve(z) - slope z is less. Also
    return the better one's point.
    """
    first = within(touch, a, b)
    tilt = curve.slope(first) - slope
    second = torch.where(tilt > 0, a, b)
    one = _below_tangent(curve, slope, first, tilt, a, b)
    two = _below_tangent(curve, slope, second, curve.slope(second) - slope, a, b)
    return one.maximum(two), torch.where(one >= two, first, second)


def _below_tangent(
    curve: Curve, slope: Tensor, z: Tensor, tilt: Tensor, a: Tensor, b: Tensor
) -> Tensor:
    """Return a number below the tangent at ``z`` minus slope, on all of [a, b]."""
    fall = (tilt * (z - a)).maximum(tilt * (z - b))
    off = ROUNDING * (curve.steepest * (z - a).maximum(b - z) + fall)
    return _below_value(curve, slope, z) - (fall + off)
