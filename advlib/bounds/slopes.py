"""Optimised slopes: alpha-CROWN."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from advlib._check import outside_inference
from advlib.bounds import plan
from advlib.bounds.crown import (
    bounds_before_relus,
    lines_from,
    needs_walk,
    spec_minimum,
    units_left_open,
    visit_relus,
)
from advlib.bounds.intervals import before_logits, fold_last
from advlib.bounds.margins import batched_margins
from advlib.bounds.plan import Box, Steps, frozen, largest_layer
from advlib.bounds.walk import Lines, Relaxation, Rows, Slopes, unit_bounds


def _adam(
    parameters: list[Tensor], gradients: list[Tensor], state: list, step: int, lr: float
) -> None:
    """Take one ascent step of Adam, then clip to [0, 1].

    By hand, because the first optimiser object of a process costs over a second of
    imports. Kingma and Ba 2015, arXiv:1412.6980.
    """
    for p, g, (m, v) in zip(parameters, gradients, state, strict=True):
        m.mul_(0.9).add_(g, alpha=0.1)
        v.mul_(0.999).addcmul_(g, g, value=0.001)
        root = (v / (1 - 0.999**step)).sqrt_().add_(1e-8)
        p.data.addcdiv_(m, root, value=lr / (1 - 0.9**step)).clamp_(0, 1)


def _ascend(
    objective: Callable[[], Tensor],
    parameters: list[Tensor],
    num_steps: int,
    lr: float = 0.25,
) -> Tensor:
    """Return the best value of each row of ``objective`` on the way up."""
    if not parameters:  # no ReLU: nothing to choose
        return objective().detach()
    state = [(torch.zeros_like(p), torch.zeros_like(p)) for p in parameters]
    best = None
    for step in range(1, num_steps + 1):
        with torch.enable_grad():
            value = objective()
            gradients = torch.autograd.grad(value.sum(), parameters, allow_unused=True)
        found = value.detach()
        best = found if best is None else best.maximum(found)
        zeros = [torch.zeros_like(p) for p in parameters]
        known = [z if g is None else g for g, z in zip(gradients, zeros, strict=True)]
        _adam(parameters, known, state, step, lr * 0.97**step)
    with torch.no_grad():
        last = objective()
    return last if best is None else best.maximum(last)


class _Store:
    """Slopes under optimisation, made on first use: CROWN's, for every row."""

    def __init__(self) -> None:
        self.found: dict[tuple[int, int], Tensor] = {}

    def of(self, start: int) -> Slopes:
        """Return the slopes of the walk that starts at ReLU ``start`` (-1: logits)."""

        def slopes(i: int, rows: Rows, line: Relaxation) -> Tensor:
            if (start, i) not in self.found:
                first = rows.pick(line.lower).detach().expand_as(rows.weight)
                self.found[start, i] = first.clone().requires_grad_()
            return self.found[start, i]

        return slopes


def _optimise_last(
    steps: Steps, spec: Tensor, cut: Box, lines: list[Relaxation], num_steps: int
) -> Tensor:
    """Optimise the slopes of the last walk; the bounds before each ReLU stay."""
    store = _Store()

    def objective() -> Tensor:
        return spec_minimum(steps, spec, cut, Lines(lines, store.of(-1)))

    with torch.no_grad():
        objective()
    return _ascend(objective, list(store.found.values()), num_steps)


def _prefer(found: Tensor, floor: Tensor) -> Tensor:
    """Return the larger of two lower bounds; ``found`` where they agree.

    At the first step they do: a maximum would let rounding decide which of them gets
    the gradient, and only ``found`` hands it on to the slopes.
    """
    return torch.where(found >= floor - 1e-6 * (1 + floor.abs()), found, floor)


def _optimise_all(
    steps: Steps, spec: Tensor, cut: Box, first: list[Box], num_steps: int
) -> Tensor:
    """Optimise the slopes of every walk, those to the bounds before each ReLU too."""
    store = _Store()
    open_units = [units_left_open(*bounds) for bounds in first]

    def tighten(
        k: int, before: Steps, lower: Tensor, upper: Tensor, lines: list[Relaxation]
    ) -> Box:
        box = _prefer(lower, first[k][0]), -_prefer(-upper, -first[k][1])
        index = open_units[k][0]
        if not needs_walk(before) or index.shape[1] == 0:
            return box
        low, high = unit_bounds(before, index, cut, Lines(lines, store.of(k)))
        least, most = (end.flatten(1).gather(1, index) for end in box)
        marked = open_units[k][1]
        low = torch.where(marked, _prefer(low, least), least)
        high = torch.where(marked, -_prefer(-high, -most), most)
        ends = zip(box, (low, high), strict=True)
        low, high = (e.flatten(1).scatter(1, index, f).view_as(e) for e, f in ends)
        return low.minimum(high), low.maximum(high)

    def objective() -> Tensor:
        lines: list[Relaxation] = []
        visit_relus(steps, cut, (), "crown", tighten, [], lines)
        return spec_minimum(steps, spec, cut, Lines(lines, store.of(-1)))

    with torch.no_grad():
        objective()
    return _ascend(objective, list(store.found.values()), num_steps)


@outside_inference
def alpha_crown_margins(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    box: bool = True,
    pre: Sequence[Box] | None = None,
    num_steps: int = 20,
    slopes: str = "last",
) -> Tensor:
    """Return lower bounds on z_y - z_j over the ball by optimised slopes: (N, K).

    CROWN, then ``num_steps`` of projected gradient ascent (Adam) on the slopes below
    unstable units: with ``slopes`` "last" those of the walk from the logits, one set
    per class; with "all" also those of the walks to every bound before a ReLU (deep
    networks need it). Each set of slopes in [0, 1] gives a sound bound, and the best
    one met is returned, so it is never below CROWN's. Arguments, result and errors as
    ``crown_margins``, and ``ValueError`` for other ``slopes`` and num_steps < 0. Xu et
    al. 2021, arXiv:2011.13824.
    """
    if slopes not in ("last", "all") or num_steps < 0:
        raise ValueError("slopes is 'last' or 'all', and num_steps at least 0")

    def bound(steps: Steps, spec: Tensor, cut: Box, given: list[Box] | None) -> Tensor:
        steps, floor = frozen(steps), None
        with torch.no_grad():
            if given is None:
                last = before_logits(steps)
                given, _, end = bounds_before_relus(steps[:last], cut, "crown")
                floor = fold_last(steps[last:], spec, end)
            lines = lines_from(given, "crown")
        found = optimise(steps, spec, cut, given, lines)
        return found if floor is None else found.maximum(floor)

    def optimise(
        steps: Steps, spec: Tensor, cut: Box, given: list[Box], lines: list[Relaxation]
    ) -> Tensor:
        if slopes == "last":
            return _optimise_last(steps, spec, cut, lines, num_steps)
        most = max((units_left_open(*b)[0].shape[1] for b in given), default=1)
        part = max(1, 4 * plan.BUDGET // (2 * max(most, 1) * largest_layer(steps)))
        found = [
            _optimise_all(steps, spec[i], _at(cut, i), [_at(b, i) for b in given],
                          num_steps)
            for i in torch.arange(len(spec), device=spec.device).split(part)
        ]  # fmt: skip
        return torch.cat(found)

    return batched_margins(model, x, y, eps, box, pre, bound)


def _at(box: Box, index: Tensor) -> Box:
    return box[0][index], box[1][index]
