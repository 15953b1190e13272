"""One image and its integer program: what is checked before a solver is asked.

A solver's word is worth what the program is worth. So the bounds before each ReLU are
looked at, a few points of the ball are run through network and rows, and the margin
becomes a cost of unit size.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from advlib._check import check_all, check_classes, check_logits
from advlib.bounds.crown import bounds_before_relus, crown_margins
from advlib.bounds.margins import input_box, margin_spec
from advlib.bounds.plan import Box, check_pre, plan_steps
from advlib.exact.encoding import (
    DROPPED,
    FLOATS,
    TOLERANCE,
    Array,
    IntegerProgram,
    Value,
    check_bounds,
    columns_at,
    encode,
    find_large,
    find_outside,
    power_of_two,
)
from advlib.networks.canonical import canonical_double

DESCENT = 10  # steps towards each class: points that a false bound would contradict


@dataclass(frozen=True)
class Instance:
    """One image, everything in float64 and canonical, with the box and the bounds."""

    net: nn.Sequential
    x: Tensor
    y: Tensor
    corners: Box
    pre: list[Box]
    reach: list[Box]  # our own bounds before each ReLU, whatever ``pre`` is
    given: bool  # whether ``pre`` is the caller's
    large: bool  # and so large that no solver's word is taken
    crown: Tensor  # CROWN's lower bounds of the margins (K,); inf for j = y

    def margins(self, x: Tensor) -> Tensor:
        """Return z_y - z_j at the points ``x`` (M, ...) for all classes j: (M, K).

        infinity for j = y.
        """
        with torch.no_grad():
            logits = self.net(x)
        own = logits[:, self.y]
        return (own - logits).index_fill(1, self.y, torch.inf)

    def inside(self, flat: Array) -> Tensor:
        """Return ``flat`` as an image (1, ...), moved into the box."""
        point = torch.from_numpy(flat).view_as(self.x)
        return point.clamp(*self.corners)


def instances(
    model: nn.Module, x: Tensor, y: Tensor, eps: float, box: bool,
    pre: Sequence[Box] | None, allow_large: bool,
) -> list[Instance]:  # fmt: skip
    """Check the input; return each image with its bounds.

    ``model``, ``x``, ``y``, ``eps``, ``box``, ``pre`` and ``allow_large`` as
    ``milp_robust``. Raises ``ValueError`` or ``TypeError`` for what is refused there.
    """
    check_all(model, x, y, eps)
    net = canonical_double(model, x.shape[1:], x)
    x64, y = x.detach().double().cpu(), y.cpu()
    with torch.no_grad():
        check_classes(y, check_logits(net(x64), len(x)).shape[1])
    corners, large = input_box(x64, eps, box=box), ""
    with torch.no_grad():
        steps = plan_steps(net, x.shape[1:])
        reach = bounds_before_relus(steps, corners, "crown")[0]
        if pre is not None:
            pre, large = _given(net, corners, pre, reach, allow_large)
        crown = crown_margins(net, x64, y, eps, box=box, pre=pre)
    crown = crown.masked_fill(~crown.isfinite(), -torch.inf)
    crown = crown.scatter(1, y[:, None], torch.inf)

    def one(pairs: list[Box], i: int) -> list[Box]:
        return [(low[i : i + 1], high[i : i + 1]) for low, high in pairs]

    return [
        Instance(
            net,
            x64[i : i + 1],
            y[i : i + 1],
            (corners[0][i : i + 1], corners[1][i : i + 1]),
            one(reach if pre is None else pre, i),
            one(reach, i),
            pre is not None,
            bool(large),
            crown[i],
        )
        for i in range(len(x))
    ]


def _given(
    net: nn.Sequential, corners: Box, pre: Sequence[Box], reach: list[Box],
    allow_large: bool,
) -> tuple[list[Box], str]:  # fmt: skip
    """Return the caller's bounds in float64, and which of them is too large."""
    pre = [(low.detach().double().cpu(), up.detach().double().cpu()) for low, up in pre]
    check_pre(plan_steps(net, corners[0].shape[1:]), pre, len(corners[0]))
    check_bounds(pre)
    large = find_large(pre, reach)
    if large and not allow_large:
        raise ValueError(
            f"a big-M is too large, {large}; use the bounds of big_m_bounds or "
            "lp_bounds (allow_large=True searches for counterexamples all the same)"
        )
    return pre, large


@dataclass(frozen=True)
class Prepared:
    """The program of an image, and what is known of it before it is solved.

    ``sound``: whether its numbers are such that the solver's word is taken. ``known``
    (K,) are the least margins that some point was found to have, at ``points``.
    """

    program: IntegerProgram
    logits: Value
    sound: bool
    known: Tensor
    points: Tensor
    confirmed: list[bool] = field(default_factory=list)  # that HiGHS finds the image


def prepare(one: Instance) -> Prepared:
    """Encode an image ``one``; run some points of the ball through network and rows.

    Raises ``ValueError`` if bounds that the caller gave exclude one of them.
    """
    program, logits = encode(one.net, one.corners, one.pre, one.reach)
    points = _tried(one)
    columns = columns_at(program, points.flatten(1).numpy())
    outside = find_outside(program, columns)
    if outside and one.given:
        raise ValueError(
            f"pre are no bounds of this network: a point of the ball, {outside}, "
            "has a value outside"
        )
    with torch.no_grad():
        there = one.net(points).numpy()
    meant = (logits.matrix @ columns).T + logits.constant
    same = bool((abs(meant - there) <= TOLERANCE * logits.size).all())
    sound = same and not (outside or one.large or program.cancels)
    known, best = one.margins(points).min(0)
    return Prepared(program, logits, sound, known, points[best])


def _tried(one: Instance) -> Tensor:
    """Return points of the ball: image, middle, corners, a descent for each class."""
    low, high = one.corners
    middle = (low + high) / 2
    k = len(one.crown)
    spec = margin_spec(one.y, k)[0].double()
    point = middle.expand(k, *low.shape[1:]).clone()
    for _ in range(DESCENT):
        with torch.enable_grad():
            point.requires_grad_()
            value = (one.net(point) * spec).sum()
            (gradient,) = torch.autograd.grad(value, point)
        step = gradient.sign() * (high - low) / 4
        point = (point.detach() - step).clamp(low, high)
    return torch.cat([one.x, middle, low, high, point])


@dataclass(frozen=True)
class Question:
    """A margin as a cost: margin = ``scale`` * (``cost`` @ w + ``constant``).

    ``slack`` is what the solver's tolerance may add to a bound of the bracket, and
    ``spread`` how far the margin can range while each column stays in its bounds; both
    in units of ``scale``, a power of two near the largest cost.
    """

    cost: Array
    constant: float
    scale: float
    slack: float
    spread: float

    def below(self, program: IntegerProgram) -> float:
        """Return the smallest margin while each column of ``program`` is in bounds."""
        low, high = program.ends()
        least = np.minimum(self.cost * low, self.cost * high).sum()
        return self.scale * float(least + self.constant - self.slack)


def ask(made: Prepared, y: int, target: int) -> Question:
    """Return z_``y`` - z_``target`` as a cost of unit size for the program ``made``.

    Costs that HiGHS drops are left out, and what they may come to is in the slack.
    """
    logits, program = made.logits, made.program
    row = (logits.matrix[[y]] - logits.matrix[[target]]).toarray()[0]
    scale = float(power_of_two(abs(row).max(initial=0.0)))
    rounding = FLOATS * float(logits.size[y] + logits.size[target])
    cost, constant = row / scale, float(logits.constant[y] - logits.constant[target])
    small = abs(cost) < DROPPED
    slack = float(abs(cost[small]) @ program.largest()[small]) + rounding / scale
    slack += TOLERANCE if program.whole() else 0.0
    low, high = program.ends()
    spread = float(abs(cost) @ (high - low))
    cost = np.where(small, 0.0, cost)
    return Question(cost, constant / scale, scale, slack, spread)
