"""The lower convex hull of a curve on a segment: which slopes are worth having.

The hull is the highest convex function below the curve. A line below the curve that
touches the hull nowhere can be raised; those that touch it are the good ones, none of
them better than another everywhere. Their slopes go from that with which the hull
leaves the left end to that with which it reaches the right end. Nothing here needs to
be exact for a line to be sound: ``curves`` computes a sound offset for any slope.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from advlib.bounds.bends import Curve

ENOUGH = 2.0**-50  # what a search may leave, as a part of the steepest slope
ROUND, MOST_ROUNDS = 6, 6  # steps between looks who has found it, and further rounds


class Hull(NamedTuple):
    """Slopes ``first`` and ``last`` at the ends of a segment, and a part of it.

    From ``enter`` to ``leave`` the hull follows the curve, unless it is one chord;
    these are detached. The slopes have gradients in the ends.
    """

    first: Tensor
    last: Tensor
    enter: Tensor
    leave: Tensor

    def slope_at(self, curve: Curve, point: Tensor) -> Tensor:
        """Return the slope of the hull of ``curve`` at a ``point`` of the segment."""
        inside = curve.slope(point).maximum(self.first).minimum(self.last)
        inside = torch.where(point < self.enter, self.first, inside)
        inside = torch.where(point > self.leave, self.last, inside)
        if not curve.arcs:
            inside = self.first
        if curve.corner is None:
            return inside
        return torch.where(point > curve.corner, self.last, inside)


def within(point: float | Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Return ``point``, cut to the segment from ``left`` to ``right``."""
    if isinstance(point, Tensor):
        return point.maximum(left).minimum(right)
    return left.clamp(min=point).minimum(right)


def with_gradient(values: Tensor, target: Tensor) -> Tensor:
    """Return exactly ``target``, with the gradient of ``values``."""
    return target.detach() + (values - values.detach())


def lower_hull(curve: Curve, left: Tensor, right: Tensor) -> Hull:
    """Return the hull of ``curve`` from ``left`` to ``right``.

    It leaves with the least slope of all chords from the left end: that of the curve
    itself, of the chord to the right end or to a corner, or of a tangent that touches
    where the curve is convex. It arrives with the largest slope of all chords to there.
    """
    first, last = curve.slope(left), curve.slope(right)
    chord = _chord(curve, left, right)
    chord = chord.clamp(-curve.steepest, curve.steepest)
    chord = torch.where(left < right, chord, first)
    first, last = first.minimum(chord), last.maximum(chord)
    if curve.corner is not None:
        corner = within(curve.corner, left, right)
        slope = _chord(curve, left, corner)
        first = torch.where(left < corner, first.minimum(slope), first)
        slope = _chord(curve, corner, right)
        last = torch.where(corner < right, last.maximum(slope), last)
    enter, leave = convex_part(curve, left.detach(), right.detach())
    if curve.arcs:
        a, b = enter, leave
        enter, slope, found = _tangent(curve, left, a, b)
        first = torch.where(found, first.minimum(slope), first)
        leave, slope, found = _tangent(curve, right, a, b)
        last = torch.where(found, last.maximum(slope), last)
    return Hull(first, last.maximum(first), enter, leave)


def convex_part(curve: Curve, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Return the part of [``left``, ``right``] where ``curve`` is convex.

    A single point if none is. Where there are two, at both sides, the hull follows
    only one: the slopes in the left one are all below those in the right one, and no
    convex function passes from a larger slope to a smaller. It is the right one if
    right >= -left, for the curve is an even function, falling with abs(z), minus z / 2.
    """
    arcs = curve.arcs
    if not arcs:
        return left, left
    ends = [(within(p.start, left, right), within(p.stop, left, right)) for p in arcs]
    if len(ends) == 1:
        return ends[0]
    (a, b), (c, d) = ends
    upward = right >= -left
    return torch.where(upward, c, a), torch.where(upward, d, b)


def touching(curve: Curve, slope: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Return where the convex part of ``curve`` has ``slope``; an end if nowhere.

    The part is that of the segment from ``left`` to ``right``.
    """

    def miss(z: Tensor, slope: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        short = curve.slope(z) - slope
        return short, curve.bend(z), short

    a, b = convex_part(curve, left, right)
    return _search(miss, slope, a, b, curve)[0]


def _chord(curve: Curve, left: Tensor, right: Tensor) -> Tensor:
    width = right - left
    rise = curve.value(right) - curve.value(left)
    return rise / torch.where(width == 0, 1.0, width)


def _tangent(
    curve: Curve, end: Tensor, a: Tensor, b: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return where a line from ``end`` touches in [a, b], its slope, if there is one.

    The point is the nearer of ``a`` and ``b`` where there is none.
    """

    def miss(z: Tensor, end: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        away = end - z
        short = curve.slope(z) - (curve.value(end) - curve.value(z)) / away
        weight = away.abs().clamp(max=1) / (1 + end.abs())  # rounding divided by away
        return short, curve.bend(z) + short / away, short * weight

    still = end.detach()
    found = ((still < a) | (still > b)) & (a < b)
    point, slope = within(still, a, b), torch.zeros_like(a)
    if found.any():
        at, hit = _search(miss, still[found], a[found], b[found], curve)
        point = point.masked_scatter(found, torch.where(hit, at, point[found]))
        slope = slope.masked_scatter(found, curve.slope(at))
        found = found.masked_scatter(found, hit)
    if end.requires_grad:  # that of the chord: it is least or largest at the point
        slope = with_gradient(_chord(curve, end, point), slope)
    return point, slope, found


# by how much the slope at z misses what is sought, which rises with z, with the
# derivative of that, and that times a weight: it is found where this is near 0
Miss = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


def _search(
    miss: Miss, given: Tensor, low: Tensor, high: Tensor, curve: Curve
) -> tuple[Tensor, Tensor]:
    """Return where ``miss(z, given)`` is 0 between ``low`` and ``high``.

    And whether it is anywhere; if not, the point is ``low`` or ``high``, where it is
    nearer to 0. Nothing is searched beyond ``curve.reach``: slopes do not change there.
    """
    near = low.clamp(-curve.reach, curve.reach), high.clamp(-curve.reach, curve.reach)
    a, b = (within(end, low, high) for end in near)
    before, after = miss(a, given)[0], miss(b, given)[0]
    found = (before < 0) & (after > 0)
    point = torch.where(before < 0, high, low)
    if found.any():
        parts = given[found], a[found], b[found], (a + b)[found] / 2
        enough = ENOUGH * curve.steepest
        point = point.masked_scatter(found, _root(miss, *parts, enough, MOST_ROUNDS))
    return point, found


def _root(
    miss: Miss, given: Tensor, low: Tensor, high: Tensor, point: Tensor,
    enough: float, rounds: int,
) -> Tensor:  # fmt: skip
    """Return a root by Newton's steps from ``point``, or halvings where they leave."""
    for _ in range(ROUND):
        short, rise, _ = miss(point, given)
        low = torch.where(short < 0, point, low)
        high = torch.where(short > 0, point, high)
        step = point - short / rise
        point = torch.where((step >= low) & (step <= high), step, (low + high) / 2)
    left = miss(point, given)[2].abs() > enough
    if rounds and left.any():  # the few that need more
        parts = given[left], low[left], high[left], point[left]
        more = _root(miss, *parts, enough, rounds - 1)
        point = point.masked_scatter(left, more)
    return point
