"""The second exact method: a complete search over ReLU phases, and sweeps over images.

A subproblem is an image, a wrong class and a set of units whose phase (on or off) is
assumed. CROWN bounds its smallest margin from below: each assumption removes that
unit's triangle, tightens the bounds of the layers after it, and enters the bound with
a multiplier, so that only points which obey it count. A subproblem whose bound is
above zero is done; any other is split on one more unit. If no unit is left to split,
a linear program decides. Attacks, and the point at which each bound is attained, work
on the other side. Many subproblems, of all classes and images, are bounded at once.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from joblib import Parallel, delayed
from scipy.optimize import linprog
from torch import Tensor, nn

from advlib import attacks
from advlib._check import check_all
from advlib.bounds import (
    Box,
    _backward,
    _Lines,
    _minimum,
    _plan,
    _Rows,
    input_box,
    margin_spec,
    relaxation,
    relu_bounds,
)
from advlib.exact import ROUNDING, Margin, Verdict, _double
from advlib.models import Residual, affine_matrix, output_shape

Array = np.ndarray
Affine = tuple[Array, Array]  # weight (out, pixels) and constant (out,)

WORK = 40_000_000  # numbers in the largest temporary of one batch of subproblems


# ------------------------------------------------------------------ subproblems


@dataclass
class _Nodes:
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

    def take(self, index: Tensor) -> "_Nodes":
        """Return the subproblems ``index``, numbers or a mask."""
        return _Nodes(*(part[index] for part in vars(self).values()))

    def join(self, other: "_Nodes") -> "_Nodes":
        """Return these and the ``other`` subproblems."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return _Nodes(*(torch.cat(pair) for pair in pairs))


@dataclass
class _Found:
    """What one round finds: bounds, points where they are attained, units to split."""

    bound: Tensor
    point: Tensor
    unit: Tensor


class _Search:
    """The state of a search: images, the best margins met, open subproblems."""

    def __init__(self, net: nn.Sequential, x: Tensor, y: Tensor, corners: Box) -> None:
        self.net, self.x, self.y, self.corners = net, x, y, corners
        self.steps = _plan(net, x.shape[1:])
        self.shapes = []
        with torch.no_grad():
            self.pre = relu_bounds(net, *corners)
            self.classes = net(x[:1]).shape[1]
        self.shapes = [low.shape[1:] for low, _ in self.pre]
        self.sizes = [math.prod(shape) for shape in self.shapes]
        self.best = torch.full((len(x),), torch.inf, dtype=torch.float64)
        self.delta = torch.zeros_like(x)
        self.floor = torch.full((len(x),), torch.inf, dtype=torch.float64)
        self.count = torch.zeros(len(x), dtype=torch.int64)

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

    def root(self, images: Tensor) -> _Nodes:
        """Return one subproblem for each of ``images`` and each wrong class."""
        every = torch.arange(self.classes)
        image = images.repeat_interleave(self.classes)
        target = every.repeat(len(images))
        wrong = target != self.y[image]
        image, target = image[wrong], target[wrong]
        n = len(self.x)
        low, high = (_flat([p[end] for p in self.pre], n)[image] for end in (0, 1))
        zero = torch.zeros_like(low)
        slope = (high > -low).to(low)
        bound = torch.full((len(image),), -torch.inf, dtype=torch.float64)
        phase = zero.to(torch.int8)
        unit = torch.full_like(image, -1)
        return _Nodes(image, target, phase, low, high, slope, zero, bound, unit)

    def tighten(self, nodes: _Nodes) -> None:
        """Carry the latest split of each subproblem through the layers; in place.

        By CROWN, or by intervals where the split is in the last ReLU: no bound but its
        own depends on it. Bounds that a parent had are kept.
        """
        late = nodes.unit >= sum(self.sizes[:-1])
        for part, method in ((late, "interval"), (~late, "crown")):
            index = part.nonzero()[:, 0]
            if len(index):
                some = nodes.take(index)
                nodes.low[index], nodes.high[index] = self._clipped(some, method)

    def _clipped(self, nodes: _Nodes, method: str) -> Box:
        box = self.corners[0][nodes.image], self.corners[1][nodes.image]
        low = nodes.low.where(nodes.phase <= 0, nodes.low.clamp(min=0))
        high = nodes.high.where(nodes.phase >= 0, nodes.high.clamp(max=0))
        clip = list(zip(self.layers(low), self.layers(high), strict=True))
        with torch.no_grad():
            pre = relu_bounds(self.net, *box, method=method, clip=clip)
        n = len(nodes)
        return _flat([low for low, _ in pre], n), _flat([high for _, high in pre], n)

    def bound(self, nodes: _Nodes, cut: Tensor, num_steps: int) -> _Found:
        """Bound each subproblem; ``num_steps`` of ascent in slopes and multipliers.

        Stops early once every bound is above ``cut`` (M,). In place: the slopes,
        multipliers and bounds of ``nodes``.
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

            def given(i: int, rows: _Rows, line: object) -> Tensor:
                weights[i] = rows.weight[:, 0].detach()
                return slopes[i]

            start = _Rows(spec, spec.new_zeros(spec.shape[:2]))
            rows = _backward(start, self.steps, _Lines(lines, given, pushes))
            return _minimum(rows, *box)[:, 0], rows.weight[:, 0]

        value, weight = _ascend(walk, nodes, cut, num_steps)
        point = torch.where(weight > 0, *box)
        used = _flat([weights[i] for i in range(len(lines))], len(nodes))
        best, unit = F.pad(_score(nodes, used), (0, 1), value=-1.0).max(1)
        unit = unit.where(best >= 0, -1)
        return _Found(value, point, unit)


def _flat(parts: Sequence[Tensor], n: int) -> Tensor:
    """Return (N, *layer) tensors as one (N, R); ``n`` is N, for R = 0."""
    none = torch.zeros(n, 0, dtype=torch.float64)
    return torch.cat([none, *(part.flatten(1) for part in parts)], 1)


def _ascend(
    walk: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    nodes: _Nodes,
    cut: Tensor,
    num_steps: int,
) -> tuple[Tensor, Tensor]:
    """Raise the bounds by Adam; keep each subproblem's best slopes and multipliers.

    Every slope in [0, 1] and multiplier >= 0 gives a sound bound: nothing has to
    converge. Returns bounds and the weights of the input at the last point.
    """
    num_steps = num_steps if nodes.slope.shape[1] else 0
    slope, push = nodes.slope.clone(), nodes.push.clone()
    fixed = nodes.phase != 0
    moments = [torch.zeros_like(slope) for _ in range(4)]
    for step in range(1, num_steps + 2):
        last = step == num_steps + 1
        with torch.set_grad_enabled(not last):
            slope.requires_grad_(not last)
            push.requires_grad_(not last)
            value, weight = walk(slope, push)
        found = value.detach()
        better = found > nodes.bound
        nodes.bound = torch.where(better, found, nodes.bound)
        nodes.slope[better], nodes.push[better] = (
            slope.detach()[better],
            push.detach()[better],
        )
        if last or bool((nodes.bound > cut).all()):
            return nodes.bound, weight.detach()
        grads = torch.autograd.grad(value.sum(), (slope, push))
        rate = 0.95**step
        slope = _adam_step(slope, grads[0], moments[:2], step, 0.3 * rate).clamp(0, 1)
        push = _adam_step(push, grads[1], moments[2:], step, 0.15 * rate).clamp(min=0)
        push = torch.where(fixed, push, 0.0)
    raise AssertionError("unreachable")


def _adam_step(
    value: Tensor, gradient: Tensor, moments: list[Tensor], step: int, rate: float
) -> Tensor:
    mean, square = moments
    mean.mul_(0.8).add_(gradient, alpha=0.2)
    square.mul_(0.99).addcmul_(gradient, gradient, value=0.01)
    root = (square / (1 - 0.99**step)).sqrt_().add_(1e-12)
    return value.detach() + rate / (1 - 0.8**step) * mean / root


def _score(nodes: _Nodes, weight: Tensor) -> Tensor:
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


# -------------------------------------------------------------------- the search


@dataclass(frozen=True)
class _Limits:
    """When to stop, and how much to do at once."""

    deadline: float
    max_nodes: int
    batch: int
    num_steps: int
    tolerance: float | None  # None: only the sign is asked for

    def cut(self, search: _Search, image: Tensor) -> Tensor:
        """Return the bound above which a subproblem of ``image`` needs no split."""
        if self.tolerance is None:
            return torch.full((len(image),), ROUNDING, dtype=torch.float64)
        return search.best[image] - self.tolerance

    def over(self, search: _Search, image: Tensor) -> Tensor:
        """Return which of ``image`` need no more search at all."""
        if self.tolerance is None:
            return search.best[image] <= 0
        return torch.zeros(len(image), dtype=torch.bool)


def _search(search: _Search, images: Tensor, limits: _Limits) -> _Nodes:
    """Run the search on ``images``; return the subproblems that are left open."""
    roots = search.root(images)
    if len(roots) == 0:
        return roots
    parts = torch.arange(len(roots)).split(limits.batch)
    kept = [_judge(search, roots.take(part), limits, first=True) for part in parts]
    nodes, stuck = kept[0], roots.take(torch.arange(0))
    for part in kept[1:]:
        nodes = nodes.join(part)
    while len(nodes):
        nodes = nodes.take(~limits.over(search, nodes.image))
        late = time.perf_counter() > limits.deadline
        if late or int(search.count.sum()) >= limits.max_nodes:
            break
        now, nodes = _pop(nodes, limits.batch // 2)
        if len(now) == 0:
            break
        children, leaves = _split(now)
        stuck = stuck.join(_leaves(search, leaves, limits))
        if len(children):
            nodes = nodes.join(_judge(search, children, limits))
    return nodes.join(stuck)


def _pop(nodes: _Nodes, count: int) -> tuple[_Nodes, _Nodes]:
    """Take the ``count`` newest subproblems off: depth first, so the store is short."""
    where = torch.arange(len(nodes))
    return nodes.take(where[-count:]), nodes.take(where[: max(len(nodes) - count, 0)])


def _judge(
    search: _Search, nodes: _Nodes, limits: _Limits, *, first: bool = False
) -> _Nodes:
    """Bound the subproblems, try their points, and return those that stay open."""
    search.count += torch.bincount(nodes.image, minlength=len(search.count))
    if not first:
        search.tighten(nodes)
    empty = _contradicted(nodes)
    nodes = nodes.take(~empty)
    if len(nodes) == 0:
        return nodes
    steps = 2 * limits.num_steps if first else limits.num_steps
    found = search.bound(nodes, limits.cut(search, nodes.image), steps)
    search.try_points(nodes.image, found.point)
    nodes.unit = found.unit
    done = nodes.bound > limits.cut(search, nodes.image)
    _lower_floor(search, nodes.image[done], nodes.bound[done])
    return nodes.take(~done)


def _lower_floor(search: _Search, image: Tensor, bound: Tensor) -> None:
    search.floor.scatter_reduce_(0, image, bound, "amin")


def _contradicted(nodes: _Nodes) -> Tensor:
    """Return which subproblems hold no point: a phase that the bounds exclude."""
    on = (nodes.phase > 0) & (nodes.low < -ROUNDING)  # crossed ends change places
    off = (nodes.phase < 0) & (nodes.high > ROUNDING)
    return (on | off).any(1)


def _split(nodes: _Nodes) -> tuple[_Nodes, _Nodes]:
    """Return both children of each subproblem, and those with no unit to split."""
    leaf = nodes.unit < 0
    inner, leaves = nodes.take(~leaf), nodes.take(leaf)
    children = inner.join(inner)
    rows, n = torch.arange(len(children)), len(inner)
    children.phase[rows[:n], inner.unit] = 1
    children.phase[rows[n:], inner.unit] = -1
    return children, leaves


# -------------------------------------------------------------------- the leaves


def _leaves(search: _Search, nodes: _Nodes, limits: _Limits) -> _Nodes:
    """Decide subproblems without a free unit; return those that stay undecided."""
    undecided = torch.zeros(len(nodes), dtype=torch.bool)
    for i in range(len(nodes)):
        one = nodes.take(torch.tensor([i]))
        bound, point = _leaf_program(search, one)
        if point is not None:
            search.try_points(one.image, point)
        bound = torch.tensor([bound], dtype=torch.float64).maximum(one.bound)
        cut = limits.cut(search, one.image)
        exact = limits.tolerance is not None and bound.isfinite()
        if bound > cut or exact:
            _lower_floor(search, one.image, bound)
        else:
            nodes.bound[i], undecided[i] = bound[0], True
    return nodes.take(undecided)


def _leaf_program(search: _Search, node: _Nodes) -> tuple[float, Tensor | None]:
    """Return the smallest margin of a subproblem with all phases known, and a point.

    Every unit is linear there, so it is a linear program in the pixels. The bound is
    inf if the program is empty, and -inf if HiGHS fails.
    """
    shape, k = search.x.shape[1:], node.image[0]
    active = search.layers((node.phase > 0) | ((node.phase == 0) & (node.low >= 0)))
    rows: list[Affine] = []
    start = np.eye(math.prod(shape)), np.zeros(math.prod(shape))
    parts = iter([part.flatten().numpy() for part in active])
    matrix, constant = _linear(search.net, shape, start, parts, rows)
    y, target = int(search.y[k]), int(node.target[0])
    sides = np.vstack([start[0][:0], *(a for a, _ in rows)])
    offset = np.concatenate([start[1][:0], *(b for _, b in rows)])
    sign = 2.0 * _flat(active, 1)[0].numpy() - 1
    held = node.phase[0].numpy() != 0
    box = torch.stack([c[k].flatten() for c in search.corners], 1).numpy()
    program = linprog(
        matrix[y] - matrix[target],
        A_ub=(-sign[:, None] * sides)[held],
        b_ub=(sign * offset)[held],
        bounds=box,
        method="highs",
    )
    if program.status == 2:
        return math.inf, None
    if program.status != 0:
        return -math.inf, None
    point = torch.from_numpy(program.x).view(1, *shape)
    point = point.clamp(search.corners[0][k], search.corners[1][k])
    return program.fun + constant[y] - constant[target] - ROUNDING, point


def _linear(
    net: nn.Sequential,
    shape: Sequence[int],
    value: Affine,
    active: Iterator[Array],
    rows: list[Affine],
) -> Affine:
    """Carry an affine ``value`` through the layers with known phases.

    Appends to ``rows`` what enters each ReLU, in order.
    """
    for layer in net:
        if isinstance(layer, nn.ReLU):
            rows.append(value)
            on = next(active).astype(float)
            value = on[:, None] * value[0], on * value[1]
        elif isinstance(layer, Residual):
            first = _linear(layer.body, shape, value, active, rows)
            second = _linear(layer.shortcut, shape, value, active, rows)
            value = first[0] + second[0], first[1] + second[1]
        elif not isinstance(layer, nn.Flatten):
            weight, bias = (part.numpy() for part in affine_matrix(layer, shape))
            value = weight @ value[0], weight @ value[1] + bias
        shape = output_shape(layer, shape)
    return value


# ------------------------------------------------------------ the two questions


def _begin(
    model: nn.Module, x: Tensor, y: Tensor, eps: float, box: bool, seed: int
) -> _Search:
    """Check the input, make the bounds before each ReLU and run the attacks."""
    check_all(model, x, y, eps)
    net, x64, y = _double(model, x.shape[1:]), x.detach().double().cpu(), y.cpu()
    margin_spec(y, net(x64[:1]).shape[1])  # refuses labels that are no class
    search = _Search(net, x64, y, input_box(x64, eps, box=box))
    search.try_points(torch.arange(len(x)), x64)
    generator = torch.Generator().manual_seed(seed)
    plans = [(attacks.cross_entropy, None), (_hinge, generator)]
    for loss, start in plans:
        left = (search.best > 0).nonzero()[:, 0]
        if eps == 0 or len(left) == 0:
            break
        delta = attacks.pgd_linf(
            net, x64[left], y[left], eps, alpha=eps / 4, num_steps=10,
            generator=start, box=box, loss=loss,
        )  # fmt: skip
        points = (x64[left] + delta).clamp(
            search.corners[0][left], search.corners[1][left]
        )
        search.try_points(left, points)
    return search


def _hinge(logits: Tensor, y: Tensor) -> Tensor:
    """Return minus the margin: linear in the logits, so it does not saturate."""
    own = logits.gather(1, y[:, None])[:, 0]
    return logits.scatter(1, y[:, None], -torch.inf).amax(1) - own


def _limits(
    search: _Search, time_limit: float | None, max_nodes: int, tolerance: float | None
) -> _Limits:
    if max_nodes < 1 or (time_limit is not None and time_limit < 0):
        raise ValueError("need max_nodes >= 1 and time_limit >= 0")
    deadline = time.perf_counter() + (math.inf if time_limit is None else time_limit)
    largest = max([math.prod(search.x.shape[1:]), *search.sizes])
    batch = max(8, min(512, WORK // (16 * largest)))
    return _Limits(deadline, max_nodes, batch, 4, tolerance)


def branch_and_bound(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    box: bool = True,
    time_limit: float | None = None,
    max_nodes: int = 1_000_000,
    seed: int = 0,
) -> list[Verdict]:
    """Say of each image whether some allowed perturbation is misclassified: exact.

    ``x`` (N, ...) in [0, 1] with labels ``y`` (N,), ``eps`` in units of ``x``, with
    ``box`` cut to [0, 1]; ``model`` in eval mode. A complete search on ReLU phases
    with CROWN bounds, over all
    images and classes at once, after PGD from ``seed``. A tie counts as attacked. Its
    certificates hold up to float64 rounding (and, where every phase is fixed, HiGHS's
    tolerance); a counterexample has been run through the network. It stops after
    ``time_limit`` seconds, or ``max_nodes`` subproblems, for all images together; the
    images left open are "unknown", with a bound that is proven.

    Raises ``ValueError`` or ``TypeError`` for bad input and unknown layers. Bunel et
    al. 2020 (JMLR 21(42)); multipliers: Wang et al. 2021, arXiv:2103.06624.
    """
    begin = time.perf_counter()
    search = _begin(model, x, y, eps, box, seed)
    limits = _limits(search, time_limit, max_nodes, None)
    images = (search.best > 0).nonzero()[:, 0]
    left = _search(search, images, limits) if len(images) else search.root(images)
    _lower_floor(search, left.image, left.bound)
    seconds = (time.perf_counter() - begin) / len(x)
    return [_verdict(search, i, left, seconds) for i in range(len(x))]


def _verdict(search: _Search, i: int, left: _Nodes, seconds: float) -> Verdict:
    nodes = int(search.count[i])
    if search.best[i] <= 0:
        return Verdict("attacked", -math.inf, search.delta[i], seconds, nodes)
    bound = float(search.floor[i])
    status = "unknown" if bool((left.image == i).any()) else "certified"
    return Verdict(status, bound, None, seconds, nodes)


def minimal_margin(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    box: bool = True,
    tolerance: float = 1e-4,
    time_limit: float | None = None,
    max_nodes: int = 1_000_000,
    seed: int = 0,
) -> list[Margin]:
    """Return the smallest margin over the ball and all classes, to ``tolerance``.

    As ``branch_and_bound``, whose arguments it takes, but it goes on until the proven
    ``bound`` is within ``tolerance`` of a ``margin`` that is attained ("optimal"), or
    a limit is met ("time_limit"; the bound is still proven). Raises ``ValueError``
    also unless tolerance > 0.
    """
    begin = time.perf_counter()
    if not tolerance > 0:
        raise ValueError("tolerance must be positive")
    search = _begin(model, x, y, eps, box, seed)
    limits = _limits(search, time_limit, max_nodes, tolerance)
    left = _search(search, torch.arange(len(x)), limits)
    _lower_floor(search, left.image, left.bound)
    seconds = (time.perf_counter() - begin) / len(x)
    found = []
    for i in range(len(x)):
        bound = min(float(search.floor[i]), float(search.best[i]))
        late = bool((left.image == i).any())
        status = "time_limit" if late else "optimal"
        best, delta = float(search.best[i]), search.delta[i]
        found.append(Margin(bound, best, delta, status, seconds))
    return found


# --------------------------------------------------------------- sweeps over images

Verify = Callable[..., list[Verdict]]


@dataclass(frozen=True)
class ExactError:
    """The true robust error, between two counts: ``attacked`` and that plus unknown.

    ``verdicts``: one for each image, in order.
    """

    verdicts: tuple[Verdict, ...]

    def number(self, status: str) -> int:
        """Return how many images have the ``status``."""
        return sum(verdict.status == status for verdict in self.verdicts)

    @property
    def n(self) -> int:
        """The number of images."""
        return len(self.verdicts)

    @property
    def lower(self) -> float:
        """The share of images with a counterexample."""
        return self.number("attacked") / self.n

    @property
    def upper(self) -> float:
        """The share of images without a certificate; ``lower`` if all are decided."""
        return (self.n - self.number("certified")) / self.n

    @property
    def seconds(self) -> float:
        """The wall time of all images together, as if done one after the other."""
        return sum(verdict.seconds for verdict in self.verdicts)


def exact_error(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    verify: Verify = branch_and_bound,
    chunk: int = 1,
    n_jobs: int | None = None,
    **options: object,
) -> ExactError:
    """Return the true robust error on ``x``, ``y``: exact where all are decided.

    ``verify(model, x, y, eps, **options)`` gives the verdicts of a few images:
    ``branch_and_bound`` or ``exact.milp_robust``, with their ``options`` such as
    ``time_limit``. ``chunk`` images go to it at a time, through joblib, in ``n_jobs``
    processes: by default as ``joblib.parallel_config`` says (so a Dask or Ray cluster
    serves too), else one after the other. The result does not depend on the number of
    workers, unless a time limit strikes. Raises ``ValueError`` for chunk < 1, and
    what ``verify`` raises.
    """
    check_all(model, x, y, eps)
    if chunk < 1:
        raise ValueError("chunk must be at least 1")
    parts = torch.arange(len(x)).split(chunk)
    task = delayed(verify)
    done = Parallel(n_jobs=n_jobs)(
        task(model, x[part], y[part], eps, **options) for part in parts
    )
    return ExactError(tuple(verdict for part in done for verdict in part))
