"""CROWN, and Wong and Kolter's dual: bounds before each ReLU, then the margins.

The lines of the backward walk need bounds l <= z <= u of what enters each ReLU, and
these come from the same walk, started at that layer. Intermediate bounds that it leaves
looser than intervals are replaced by intervals, and the other way round.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from advlib.bounds.intervals import before_logits, fold_last, step_interval
from advlib.bounds.margins import batched_margins
from advlib.bounds.plan import (
    Box,
    Steps,
    check_corners,
    check_pre,
    count_classes,
    plan_steps,
)
from advlib.bounds.walk import (
    Lines,
    Relaxation,
    Rows,
    box_minimum,
    pull_rows,
    relaxation,
    unit_bounds,
)
from advlib.networks.layers import Residual

Tighten = Callable[[int, Steps, Tensor, Tensor, list[Relaxation]], Box]


def visit_relus(
    steps: Steps, box: Box, before: Steps, rule: str, tighten: Tighten,
    pre: list[Box], lines: list[Relaxation],
) -> Box:  # fmt: skip
    """Walk forward through ``steps`` with a ``box``; return the box of the output.

    At each ReLU its input bounds, made by ``tighten`` from the steps ``before``, are
    appended to ``pre``, and their lines by ``rule`` to ``lines``.
    """
    for step in steps:
        if isinstance(step.layer, nn.ReLU):
            box = tighten(step.index, before, *box, lines)
            pre.append(box)
            lines.append(relaxation(*box, rule=rule))
            box = box[0].clamp(min=0), box[1].clamp(min=0)
        elif isinstance(step.layer, Residual):
            body = visit_relus(step.body, box, before, rule, tighten, pre, lines)
            rest = visit_relus(step.shortcut, box, before, rule, tighten, pre, lines)
            box = body[0] + rest[0], body[1] + rest[1]
        else:
            box = step_interval(step, *box)
        before = (*before, step)
    return box


def _intersect(lower: Tensor, upper: Tensor, low: Tensor, high: Tensor) -> Box:
    """Return the common part of two boxes; ends that rounding crossed change places."""
    lower, upper = lower.maximum(low), upper.minimum(high)
    return lower.minimum(upper), lower.maximum(upper)


def needs_walk(before: Steps) -> bool:
    """Whether ``before`` holds two affine layers or more: intervals are not exact."""
    return sum(not isinstance(step.layer, nn.Flatten) for step in before) > 1


def units_left_open(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Return, per image, the units that ``lower``, ``upper`` leave unstable.

    An index (N, S): S is the largest count in the batch; images with fewer get other
    units too, marked False in the second result (N, S), so that nothing depends on the
    batch.
    """
    unstable = ((lower < 0) & (upper > 0)).flatten(1)
    most = int(unstable.sum(1).max())
    order = unstable.to(torch.uint8).argsort(dim=1, descending=True)
    index = order[:, :most]
    return index, unstable.gather(1, index)


def _put(
    units: tuple[Tensor, Tensor], bounds: Box, lower: Tensor, upper: Tensor
) -> Box:
    """Intersect the box with ``bounds`` (N, S) of the ``units`` (index and mark)."""
    index, marked = units
    low = torch.where(marked, bounds[0], -torch.inf)
    high = torch.where(marked, bounds[1], torch.inf)
    low = torch.full_like(lower, -torch.inf).flatten(1).scatter(1, index, low)
    high = torch.full_like(upper, torch.inf).flatten(1).scatter(1, index, high)
    return _intersect(lower, upper, low.view_as(lower), high.view_as(upper))


def _tightener(
    box: Box, method: str, intersect: bool, clip: Sequence[Box] | None
) -> Tighten:
    def tighten(
        k: int, before: Steps, lower: Tensor, upper: Tensor, lines: list[Relaxation]
    ) -> Box:
        found = search(before, lower, upper, lines)
        return found if clip is None else _intersect(*found, *clip[k])

    def search(
        before: Steps, lower: Tensor, upper: Tensor, lines: list[Relaxation]
    ) -> Box:
        if method == "interval" or not needs_walk(before):
            return lower, upper
        if method == "crown" and intersect:
            units = units_left_open(lower, upper)
            if units[0].shape[1] == 0:
                return lower, upper
            found = unit_bounds(before, units[0], box, Lines(lines))
            return _put(units, found, lower, upper)
        every = torch.arange(lower[0].numel(), device=lower.device)
        index = every.expand(len(lower), -1)
        low, high = unit_bounds(before, index, box, Lines(lines))
        return low.view_as(lower), high.view_as(upper)

    return tighten


def bounds_before_relus(
    steps: Steps,
    box: Box,
    method: str,
    intersect: bool = True,
    clip: Sequence[Box] | None = None,
) -> tuple[list[Box], list[Relaxation], Box]:
    """Return bounds and lines at each ReLU of ``steps``, and the box of the output.

    ``box`` of the input; ``method``, ``intersect`` and ``clip`` as ``relu_bounds``.
    """
    pre: list[Box] = []
    lines: list[Relaxation] = []
    rule = "dual" if method == "dual" else "crown"
    tighten = _tightener(box, method, intersect, clip)
    end = visit_relus(steps, box, (), rule, tighten, pre, lines)
    return pre, lines, end


def relu_bounds(
    model: nn.Module,
    lower: Tensor,
    upper: Tensor,
    *,
    method: str = "crown",
    intersect: bool = True,
    clip: Sequence[Box] | None = None,
) -> list[Box]:
    """Return bounds before each ReLU of ``model`` on the box ``lower`` to ``upper``.

    One pair (N, *layer) per ReLU, in forward order (in a ``Residual`` first the body,
    then the shortcut). ``method``: "interval"; "crown", the backward walk at every
    layer, with ``intersect`` cut with intervals (then units that intervals show to be
    stable keep the interval bounds); or "dual", the walk with equal slopes (Wong and
    Kolter). ``clip``: per ReLU two more bounds to cut with, +-inf where there are none
    (the phases that branch and bound has fixed; an empty branch gets some box). Sound
    up to rounding. Raises ``ValueError`` for another method and unless
    ``lower <= upper``, and what ``models.canonical`` raises.
    """
    if method not in ("interval", "crown", "dual"):
        raise ValueError(f"method {method!r} is none of interval, crown, dual")
    check_corners(lower, upper)
    steps = plan_steps(model, lower.shape[1:], (lower + upper) / 2)
    return bounds_before_relus(steps, (lower, upper), method, intersect, clip)[0]


def linear_lower(
    model: nn.Module,
    spec: Tensor,
    lower: Tensor,
    upper: Tensor,
    pre: Sequence[Box],
    *,
    slopes: Sequence[Tensor] | None = None,
    multipliers: Sequence[Tensor] | None = None,
    rule: str = "crown",
) -> Tensor:
    """Return lower bounds (N, S) of ``spec @ logits`` over a box: one backward walk.

    ``model``: in eval mode; ``spec`` (N, S, K); ``lower``, ``upper`` (N, ...) the
    corners; ``pre`` sound bounds of what enters each ReLU, as from ``relu_bounds``.
    ``slopes``: per ReLU the slopes of the lines below unstable units, in [0, 1],
    ``(N, *layer)`` or ``(N, S, *layer)``; by default ``rule`` of ``relaxation``
    chooses.
    ``multipliers``: per ReLU numbers of the same shapes that are added to the weight of
    its input z; minus a number >= 0 where z >= 0 is assumed, plus one where z <= 0 is
    (branch and bound), else 0. Raises ``ValueError`` for shapes that do not fit,
    ``pre`` that cross, slopes outside [0, 1] and multipliers or a ``spec`` that are not
    finite, ``TypeError`` for a ``spec`` that the dtype of the network cannot hold.
    """
    check_corners(lower, upper)
    steps = plan_steps(model, lower.shape[1:], (lower + upper) / 2)
    if spec.shape[:1] != lower.shape[:1] or spec.shape[2:] != (count_classes(steps),):
        raise ValueError(f"spec is {tuple(spec.shape)}, not (N, S, classes)")
    spec = _as_exact(spec, lower)
    if multipliers is not None and not all(m.isfinite().all() for m in multipliers):
        raise ValueError("multipliers must be finite")
    if slopes is not None and not all(((0 <= s) & (s <= 1)).all() for s in slopes):
        raise ValueError("slopes must lie in [0, 1]")
    check_pre(steps, pre, len(lower))
    lines = [relaxation(low, high, rule=rule) for low, high in pre]
    given = None if slopes is None else (lambda i, rows, line: slopes[i])
    return spec_minimum(steps, spec, (lower, upper), Lines(lines, given, multipliers))


def _as_exact(spec: Tensor, like: Tensor) -> Tensor:
    """Return ``spec`` in the dtype of ``like``: refused if that would round it."""
    if not spec.isfinite().all():
        raise ValueError("spec must be finite")
    if spec.dtype == like.dtype:
        return spec
    if not (spec.to(like).to(spec) == spec).all():
        raise TypeError(
            f"spec is {spec.dtype} and does not fit {like.dtype}: convert it"
        )
    return spec.to(like)


def spec_minimum(steps: Steps, spec: Tensor, box: Box, at: Lines) -> Tensor:
    """Return lower bounds of ``spec`` @ logits over ``box``: a walk through ``steps``.

    ``at``: the lines, slopes and multipliers at each ReLU.
    """
    constant = spec.new_zeros(spec.shape[:2])
    return box_minimum(pull_rows(Rows(spec, constant), steps, at), *box)


def crown_margins(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    box: bool = True,
    pre: Sequence[Box] | None = None,
    intersect: bool = True,
) -> Tensor:
    """Return lower bounds on z_y - z_j over the ball by CROWN: (N, K).

    Arguments, result and errors as ``interval_margins``. ``pre``: bounds before each
    ReLU; by default CROWN's own, with ``intersect`` cut with intervals at every layer,
    the logits included: then never below ``interval_margins``, up to rounding. With
    ``pre`` given it is the backward walk alone. Images are split into batches that fit
    the memory. Zhang et al. 2018, arXiv:1811.00866.
    """

    def bound(steps: Steps, spec: Tensor, cut: Box, given: list[Box] | None) -> Tensor:
        lines = lines_from(given, "crown")
        if lines is not None:
            return spec_minimum(steps, spec, cut, Lines(lines))
        last = before_logits(steps)
        _, lines, end = bounds_before_relus(steps[:last], cut, "crown", intersect)
        found = spec_minimum(steps, spec, cut, Lines(lines))
        return found.maximum(fold_last(steps[last:], spec, end)) if intersect else found

    return batched_margins(model, x, y, eps, box, pre, bound)


def wong_kolter_margins(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    box: bool = True,
    pre: Sequence[Box] | None = None,
) -> Tensor:
    """Return lower bounds on z_y - z_j over the ball by Wong and Kolter's dual: (N, K).

    A feasible point of the dual of the triangle relaxation's linear program, found in
    one backward walk: CROWN with the slope u / (u - l) on both sides. Arguments,
    result and errors as ``crown_margins``; ``pre`` is by default made by the same
    rule. Wong and Kolter 2018, arXiv:1711.00851.
    """

    def bound(steps: Steps, spec: Tensor, cut: Box, given: list[Box] | None) -> Tensor:
        lines = lines_from(given, "dual")
        if lines is None:
            lines = bounds_before_relus(steps, cut, "dual")[1]
        return spec_minimum(steps, spec, cut, Lines(lines))

    return batched_margins(model, x, y, eps, box, pre, bound)


def lines_from(given: list[Box] | None, rule: str) -> list[Relaxation] | None:
    """Return the lines by ``rule`` for the bounds ``given``; None for None."""
    if given is None:
        return None
    return [relaxation(low, high, rule=rule) for low, high in given]
