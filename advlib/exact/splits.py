"""Subproblems of branch and bound: phases of ReLUs, their bounds, and how they split.

A subproblem is an image, a wrong class and a set of units whose phase (on or off) is
assumed. CROWN bounds its smallest margin from below: each assumption removes that
unit's triangle, tightens the bounds of the layers after it, and enters the bound with
a multiplier, so that only points which obey it count.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advlib.bounds.crown import bounds_before_relus
from advlib.bounds.plan import Box, plan_steps
from advlib.bounds.walk import Lines, Rows, box_minimum, pull_rows, relaxation
from advlib.exact.verdicts import ROUNDING


@dataclass
class Nodes:
    """M subproblems: image, class, phases and what was found of their parents.

    ``phase`` (M, R) is +1 (on), -1 (off) or 0 (free) for each of the R ReLU units;
    ``low``, ``high`` (M, R) bound their inputs; ``slope`` and ``push`` (M, R) are the
    slopes below the units and the multipliers of the phases; ``bound`` (M,); ``unit``
    (M,) is the next one to split, -1 if none is left.
    """

    image: Tensor
    target: Tensor
    phase: Tensor
    low: Tensor
    high: Tensor
    slope: Tensor
    push: Tensor
    bound: Tensor
    unit: Tensor

    def __len__(self) -> int:
        return len(self.image)

    def take(self, index: Tensor) -> "Nodes":
        """Return the subproblems ``index``, numbers or a mask."""
        return Nodes(*(part[index] for part in vars(self).values()))

    def cut(self, at: int) -> tuple["Nodes", "Nodes"]:
        """Return the first ``at`` subproblems and the others; nothing is copied."""
        parts = list(vars(self).values())
        return Nodes(*(p[:at] for p in parts)), Nodes(*(p[at:] for p in parts))

    def join(self, *others: "Nodes") -> "Nodes":
        """Return these and the ``others``."""
        every = zip(*(vars(nodes).values() for nodes in (self, *others)), strict=True)
        return Nodes(*(torch.cat(parts) for parts in every))

    def by_image(self) -> dict[int, "Nodes"]:
        """Return the subproblems of each image, in their order."""
        nodes = self.take(self.image.argsort(stable=True))
        image, counts = nodes.image.unique_consecutive(return_counts=True)
        every = [part.split(counts.tolist()) for part in vars(nodes).values()]
        pieces = zip(*every, strict=True)
        return dict(zip(image.tolist(), (Nodes(*p) for p in pieces), strict=True))


@dataclass
class _Found:
    """What one round finds: bounds, points where they are attained, units to split."""

    bound: Tensor
    point: Tensor
    unit: Tensor


class Search:
    """The state of a search: images, the best margins met, what each one cost.

    ``net`` canonical, ``x`` (N, ...) with labels ``y`` (N,) and ``corners`` of their
    boxes, in float64. Raises ``ValueError`` if the bounds before a ReLU overflow.
    """

    def __init__(self, net: nn.Sequential, x: Tensor, y: Tensor, corners: Box) -> None:
        self.net, self.x, self.y, self.corners = net, x, y, corners
        self.steps = plan_steps(net, x.shape[1:])
        with torch.no_grad():
            self.pre = bounds_before_relus(self.steps, corners, "crown")[0]
            self.classes = net(x[:1]).shape[1]
        if not all(end.isfinite().all() for pair in self.pre for end in pair):
            raise ValueError("the bounds before a ReLU overflow: the weights are huge")
        self.shapes = [low.shape[1:] for low, _ in self.pre]
        self.sizes = [math.prod(shape) for shape in self.shapes]
        ends = [flat([pair[end] for pair in self.pre], len(x)) for end in (0, 1)]
        self.room = ROUNDING * ends[0].abs().maximum(ends[1].abs()).clamp(min=1)
        self.best = torch.full((len(x),), torch.inf, dtype=torch.float64)
        self.delta = torch.zeros_like(x)
        self.floor = torch.full((len(x),), torch.inf, dtype=torch.float64)
        self.count = torch.zeros(len(x), dtype=torch.int64)
        self.seconds = torch.zeros(len(x), dtype=torch.float64)
        self.matrices: dict[nn.Module, tuple] = {}  # of the affine layers

    # ----------------------------------------------------------- the other side

    def try_points(self, image: Tensor, points: Tensor) -> None:
        """Run the network at ``points`` (M, ...) of ``image`` (M,); keep the best."""
        margins = self.margins(points, self.y[image])
        for i in (margins < self.best[image]).nonzero()[:, 0].tolist():
            k = image[i]
            if margins[i] < self.best[k]:
                self.best[k] = margins[i]
                self.delta[k] = points[i] - self.x[k]

    def margins(self, points: Tensor, y: Tensor) -> Tensor:
        """Return the margin of each of ``points``, with labels ``y``."""
        with torch.no_grad():
            logits = self.net(points)
        own = logits.gather(1, y[:, None])[:, 0]
        rest = logits.scatter(1, y[:, None], -torch.inf).amax(1)
        return own - rest

    # ------------------------------------------------------------------- bounds

    def layers(self, flat: Tensor) -> list[Tensor]:
        """Return ``flat`` (M, R) as one tensor (M, *layer) for each ReLU."""
        parts = flat.split(self.sizes, dim=1)
        pairs = zip(parts, self.shapes, strict=True)
        return [part.reshape(len(flat), *shape) for part, shape in pairs]

    def root(self, images: Tensor) -> Nodes:
        """Return one subproblem for each of ``images`` and each wrong class."""
        every = torch.arange(self.classes)
        image = images.repeat_interleave(self.classes)
        target = every.repeat(len(images))
        wrong = target != self.y[image]
        image, target = image[wrong], target[wrong]
        n = len(self.x)
        low, high = (flat([p[end] for p in self.pre], n)[image] for end in (0, 1))
        zero = torch.zeros_like(low)
        slope = (high > -low).to(low)
        bound = torch.full((len(image),), -torch.inf, dtype=torch.float64)
        phase = zero.to(torch.int8)
        unit = torch.full_like(image, -1)
        return Nodes(image, target, phase, low, high, slope, zero, bound, unit)

    def tighten(self, nodes: Nodes) -> None:
        """Carry the latest split of each of ``nodes`` through the layers; in place.

        By CROWN, or by intervals where the split is in the last ReLU: no bound but its
        own depends on it. Bounds that a parent had are kept.
        """
        late = nodes.unit >= sum(self.sizes[:-1])
        for part, method in ((late, "interval"), (~late, "crown")):
            index = part.nonzero()[:, 0]
            if len(index):
                some = nodes.take(index)
                low, high = self._clipped(some, method)
                nodes.low[index] = low.where(~low.isnan(), some.low)
                nodes.high[index] = high.where(~high.isnan(), some.high)

    def _clipped(self, nodes: Nodes, method: str) -> Box:
        box = self.corners[0][nodes.image], self.corners[1][nodes.image]
        low = nodes.low.where(nodes.phase <= 0, nodes.low.clamp(min=0))
        high = nodes.high.where(nodes.phase >= 0, nodes.high.clamp(max=0))
        clip = list(zip(self.layers(low), self.layers(high), strict=True))
        with torch.no_grad():
            pre = bounds_before_relus(self.steps, box, method, clip=clip)[0]
        n = len(nodes)
        return flat([low for low, _ in pre], n), flat([high for _, high in pre], n)

    def bound(self, nodes: Nodes, cut: Tensor, num_steps: int) -> _Found:
        """Bound each subproblem; ``num_steps`` of ascent in slopes and multipliers.

        Those of an image stop early once all its bounds are above ``cut`` (M,). In
        place: the slopes, multipliers and bounds of ``nodes``.
        """
        box = self.corners[0][nodes.image], self.corners[1][nodes.image]
        eye = torch.eye(self.classes, dtype=torch.float64)
        spec = (eye[self.y[nodes.image]] - eye[nodes.target])[:, None]
        lows, highs = self.layers(nodes.low), self.layers(nodes.high)
        lines = [relaxation(*pair) for pair in zip(lows, highs, strict=True)]
        weights: dict[int, Tensor] = {}

        def walk(slope: Tensor, push: Tensor) -> tuple[Tensor, Tensor]:
            slopes = [part[:, None] for part in self.layers(slope)]
            pushes = [part[:, None] for part in self.layers(-nodes.phase * push)]

            def given(i: int, rows: Rows, line: object) -> Tensor:
                weights[i] = rows.weight[:, 0].detach()
                return slopes[i]

            start = Rows(spec, spec.new_zeros(spec.shape[:2]))
            rows = pull_rows(start, self.steps, Lines(lines, given, pushes))
            return box_minimum(rows, *box)[:, 0], rows.weight[:, 0]

        value, weight = _ascend(walk, nodes, cut, num_steps)
        point = torch.where(weight > 0, *box)
        used = flat([weights[i] for i in range(len(lines))], len(nodes))
        best, unit = F.pad(_score(nodes, used), (0, 1), value=-1.0).max(1)
        unit = unit.where(best >= 0, -1)
        return _Found(value, point, unit)


def flat(parts: Sequence[Tensor], n: int) -> Tensor:
    """Return the tensors ``parts`` (N, *layer) as one (N, R); ``n`` is N."""
    none = torch.zeros(n, 0, dtype=torch.float64)
    return torch.cat([none, *(part.flatten(1) for part in parts)], 1)


def _ascend(
    walk: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    nodes: Nodes,
    cut: Tensor,
    num_steps: int,
) -> tuple[Tensor, Tensor]:
    """Raise the bounds by Adam; keep each subproblem's best slopes and multipliers.

    Every slope in [0, 1] and multiplier >= 0 gives a sound bound: nothing has to
    converge. Returns bounds and the weights of the input at the last point.
    """
    num_steps = num_steps if nodes.slope.shape[1] else 0
    slope, push = nodes.slope.clone(), nodes.push.clone()
    fixed, done = nodes.phase != 0, torch.zeros(len(nodes), dtype=torch.bool)
    moments = [torch.zeros_like(slope) for _ in range(4)]
    kept: Tensor | None = None
    for step in range(1, num_steps + 2):
        last = step == num_steps + 1
        with torch.set_grad_enabled(not last):
            slope.requires_grad_(not last)
            push.requires_grad_(not last)
            value, weight = walk(slope, push)
            total = value.sum()
        found = value.detach()
        point = weight.detach()
        kept = point if kept is None else _kept(done, kept, point)
        better = (found > nodes.bound) & ~done
        nodes.bound = torch.where(better, found, nodes.bound)
        nodes.slope[better], nodes.push[better] = (
            slope.detach()[better],
            push.detach()[better],
        )
        done = _finished(nodes, cut)
        if last or bool(done.all()):
            return nodes.bound, kept
        grads = torch.autograd.grad(total, (slope, push))
        rate = 0.95**step
        slope = _adam_step(slope, grads[0], moments[:2], step, 0.3 * rate).clamp(0, 1)
        push = _adam_step(push, grads[1], moments[2:], step, 0.15 * rate).clamp(min=0)
        push = torch.where(fixed, push, 0.0)
    raise AssertionError("unreachable")


def _finished(nodes: Nodes, cut: Tensor) -> Tensor:
    """Return of which ``nodes`` the image has no bound left that is not above ``cut``.

    By image, not by batch: so what is found of one does not depend on its neighbours.
    """
    short = torch.bincount(nodes.image, weights=(~(nodes.bound > cut)).double())
    return short[nodes.image] == 0


def _kept(done: Tensor, old: Tensor, new: Tensor) -> Tensor:
    return torch.where(done.view(-1, *[1] * (new.dim() - 1)), old, new)


def _adam_step(
    value: Tensor, gradient: Tensor, moments: list[Tensor], step: int, rate: float
) -> Tensor:
    mean, square = moments
    mean.mul_(0.8).add_(gradient, alpha=0.2)
    square.mul_(0.99).addcmul_(gradient, gradient, value=0.01)
    root = (square / (1 - 0.99**step)).sqrt_().add_(1e-12)
    return value.detach() + rate / (1 - 0.8**step) * mean / root


def _score(nodes: Nodes, weight: Tensor) -> Tensor:
    """Return how much each free unit's triangle costs the bound; -1: not free.

    ``weight`` (M, R) is the bound's weight of the unit's output. Where it is negative
    the bound uses the line above, which is -l u / (u - l) too high at zero. Where it is
    positive it uses the line below, whose slope was optimised: that gap counts little
    (counted in full, the search tree of one MNIST image grew from 297 to over 6000).
    """
    low, high = nodes.low, nodes.high
    free = (low < 0) & (high > 0) & (nodes.phase == 0)
    above = -low * high / (high - low).clamp(min=1e-12)
    below = torch.minimum(-low * nodes.slope, high * (1 - nodes.slope))
    score = (-weight).clamp(min=0) * above + 0.1 * weight.clamp(min=0) * below
    return torch.where(free, score, -1.0)


def contradicted(nodes: Nodes, room: Tensor | float = ROUNDING) -> Tensor:
    """Return which ``nodes`` hold no point: a phase that the bounds exclude.

    By more than ``room``, the rounding of a unit's bounds: a number, or (M, R).
    """
    on = (nodes.phase > 0) & (nodes.low < -room)  # crossed ends change places
    off = (nodes.phase < 0) & (nodes.high > room)
    return (on | off).any(1)


def split_nodes(nodes: Nodes) -> tuple[Nodes, Nodes]:
    """Return both children of each of ``nodes``, and those with no unit to split."""
    leaf = nodes.unit < 0
    inner, leaves = nodes.take(~leaf), nodes.take(leaf)
    children = inner.join(inner)
    rows, n = torch.arange(len(children)), len(inner)
    children.phase[rows[:n], inner.unit] = 1
    children.phase[rows[n:], inner.unit] = -1
    return children, leaves
