"""Exact worst cases: along a segment by its breakpoints, in a ball by integer programs.

A network of affine layers and ReLUs is piecewise linear. Along a segment its kinks
are finitely many and can all be listed; between two of them each logit is linear in
the position, so a convex loss of the logits is largest at a kink or an end.

In a ball there are too many pieces to list. A binary variable for each ReLU whose sign
is not fixed turns the network into linear constraints, and the smallest margin into a
mixed-integer linear program, which HiGHS solves through cvxpy. What counts as proven
is the solver's *bound*; a point that it finds is run through the network first. The
other exact method is ``branch_and_bound``.
"""

import math
import time
import warnings
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field

import cvxpy as cp
import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from advlib._check import check_all, check_model
from advlib.bounds import Box, crown_margins, input_box, margin_spec, relu_bounds
from advlib.models import Normalize, Residual, affine_matrix, canonical, output_shape

Array = np.ndarray
Affine = tuple[sparse.csr_array, Array]  # a layer's value: matrix @ columns + constant
Encoded = tuple["_Program", Affine]
TOLERANCE = 1e-6  # HiGHS's: it takes a constraint for met within this
ROUNDING = 1e-9  # of a bound in float64; what is below it counts as undecided
_AFFINE = (nn.Flatten, nn.Linear, nn.Conv2d, nn.AvgPool2d, Normalize)


def breakpoints(model: nn.Sequential, start: Tensor, end: Tensor) -> Tensor:
    """Return all t in [0, 1] where the network along the segment can have a kink.

    ``start``, ``end`` (...): one input each, without batch dimension. Returns sorted
    t with 0 and 1 included; the logits of ``start + t (end - start)`` are linear
    between neighbours, up to rounding (use float64). Raises ``TypeError`` for a layer
    that is neither affine nor ReLU, ``ValueError`` for unequal shapes, NaN or a model
    in train mode.
    """
    check_model(model)
    if start.shape != end.shape or not (start + end).isfinite().all():
        raise ValueError("the ends need equal shapes and finite values")
    t = start.new_tensor([0.0, 1.0])
    with torch.no_grad():
        values = torch.stack([start, end])
        for layer in model:
            if isinstance(layer, nn.ReLU):
                t, values = _add_zero_crossings(t, values)
            elif not isinstance(layer, _AFFINE):
                raise TypeError(f"no breakpoint rule for {type(layer).__name__}")
            values = layer(values)
    return t


def _add_zero_crossings(t: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Add to ``t`` each place where a piecewise linear unit of ``values`` is zero."""
    left, right = values[:-1].flatten(1), values[1:].flatten(1)
    piece, unit = ((left < 0) != (right < 0)).nonzero(as_tuple=True)
    a, b = left[piece, unit], right[piece, unit]
    new = t[piece] + a / (a - b) * (t[piece + 1] - t[piece])
    both = torch.cat([t, new]).unique()  # sorted
    right_end = torch.searchsorted(t, both).clamp(min=1)
    low, high = t[right_end - 1], t[right_end]
    share = ((both - low) / (high - low)).view(-1, *[1] * (values.dim() - 1))
    return both, torch.lerp(values[right_end - 1], values[right_end], share)


def segment_max(
    model: nn.Sequential, start: Tensor, end: Tensor, y: int
) -> tuple[Tensor, Tensor]:
    """Return the largest cross-entropy on the segment, and the t that attains it.

    Exact up to rounding: cross-entropy is convex in the logits, these are linear
    between ``breakpoints``, so the maximum is at one of them. Arguments and errors as
    there, and ``ValueError`` if ``y`` is no class of the model.
    """
    t = breakpoints(model, start, end)
    share = t.view(-1, *[1] * start.dim())
    with torch.no_grad():
        logits = model(torch.lerp(start, end, share))
    if not 0 <= y < logits.shape[1]:
        raise ValueError(f"y = {y} is no class of this model")
    loss = torch.logsumexp(logits, 1) - logits[:, y]
    return loss.max(), t[loss.argmax()]


# ------------------------------------------------- the network as an integer program


@dataclass(frozen=True)
class Margin:
    """The smallest margin of an image against a class, between two numbers.

    ``bound`` is proven: no allowed perturbation has a smaller margin, up to the
    solver's tolerance. ``margin`` is attained: the network has it at ``delta``
    (float64, shaped as one image), which was checked by running the network there.
    ``status`` is "optimal" or "time_limit"; ``seconds`` of wall time.
    """

    bound: float
    margin: float
    delta: Tensor
    status: str
    seconds: float


@dataclass(frozen=True)
class Verdict:
    """What an exact method says of one image.

    ``status``: "certified" (no allowed perturbation is misclassified), "attacked"
    (``delta``, float64, shaped as the image, is: checked by running the network) or
    "unknown" (stopped by a limit, or within the solver's tolerance of a tie).
    ``bound``: a proven lower bound of the smallest margin over all classes; once an
    image is attacked nothing more is proven, and it is -inf. ``nodes`` of branch and
    bound, 0 for another method; ``seconds`` of wall time.
    """

    status: str
    bound: float
    delta: Tensor | None
    seconds: float
    nodes: int = 0


@dataclass
class _Program:
    """Columns between bounds, some of them 0 or 1; rows A w = b and A w <= b."""

    lower: list[Array] = field(default_factory=list)
    upper: list[Array] = field(default_factory=list)
    binary: list[Array] = field(default_factory=list)
    equal: list[Affine] = field(default_factory=list)
    at_most: list[Affine] = field(default_factory=list)
    size: int = 0

    def columns(self, lower: Array, upper: Array, binary: bool = False) -> Array:
        """Add one column for each entry of ``lower``; return their numbers."""
        self.lower.append(lower)
        self.upper.append(upper)
        self.size += len(lower)
        numbers = np.arange(self.size - len(lower), self.size)
        if binary:
            self.binary.append(numbers)
        return numbers

    def pick(self, columns: Array, scale: Array | float = 1.0) -> sparse.csr_array:
        """Return the matrix whose row i is ``scale`` at column ``columns[i]``."""
        values = np.broadcast_to(np.asarray(scale, dtype=float), len(columns))
        at = (values, (np.arange(len(columns)), columns))
        return sparse.csr_array(at, shape=(len(columns), self.size))

    def wide(self, matrix: sparse.csr_array) -> sparse.csr_array:
        """Return ``matrix`` with zero columns up to the present size."""
        parts = matrix.data, matrix.indices, matrix.indptr
        return sparse.csr_array(parts, shape=(matrix.shape[0], self.size))

    def stacked(self, rows: list[Affine]) -> Affine:
        """Return all ``rows`` as one matrix and one right-hand side."""
        matrices = [self.wide(matrix) for matrix, _ in rows]
        sides = np.concatenate([side for _, side in rows])
        return sparse.csr_array(sparse.vstack(matrices)), sides


def _add_relu(program: _Program, value: Affine, bounds: Box) -> Affine:
    """Add the units of a ReLU whose input is ``value``, with ``bounds`` (l, u).

    Stable units cost nothing. An unstable one gets z = ReLU, s = ReLU of the opposite
    and a binary v: input = z - s, z <= u v, s <= -l (1 - v).
    """
    (matrix, constant), (low, high) = value, _flat_pair(bounds)
    if len(low) != len(constant):
        raise ValueError("pre has bounds of another size than the layer")
    unit = np.flatnonzero((low < 0) & (high > 0))
    active = np.flatnonzero(low >= 0)
    low, high, zero = low[unit], high[unit], np.zeros(len(unit))
    z, s = program.columns(zero, high), program.columns(zero, -low)
    v = program.columns(zero, zero + 1, binary=True)
    split = program.wide(matrix[unit]) - program.pick(z) + program.pick(s)
    program.equal.append((split, -constant[unit]))
    program.at_most.append((program.pick(z) - program.pick(v, high), zero))
    program.at_most.append((program.pick(s) - program.pick(v, low), -low))
    count = len(constant)
    keep = sparse.csr_array((np.ones(len(active)), (active, active)), (count, count))
    put = sparse.csr_array((np.ones(len(unit)), (unit, np.arange(len(unit)))),
                           (count, len(unit)))  # fmt: skip
    out = keep @ program.wide(matrix) + put @ program.pick(z)
    return sparse.csr_array(out), keep @ constant


def _flat_pair(bounds: Box) -> tuple[Array, Array]:
    """Return one image's bounds as arrays; unstable ones a little wider.

    So that the solver's tolerance, or the rounding of bounds, cuts no point off.
    """
    low, high = (part[0].detach().double().cpu().flatten().numpy() for part in bounds)
    if not np.isfinite(low + high).all():
        raise ValueError("bounds before a ReLU must be finite")
    return low - TOLERANCE * (1 + abs(low)), high + TOLERANCE * (1 + abs(high))


def _push(
    program: _Program,
    net: nn.Sequential,
    shape: Sequence[int],
    value: Affine,
    pre: Iterator[Box],
) -> Affine:
    """Carry ``value`` through the layers of a canonical network."""
    for layer in net:
        if isinstance(layer, nn.ReLU):
            value = _add_relu(program, value, next(pre))
        elif isinstance(layer, Residual):
            ends = [
                _push(program, branch, shape, value, pre)
                for branch in (layer.body, layer.shortcut)
            ]
            (first, shift), (second, more) = ends
            value = program.wide(first) + program.wide(second), shift + more
        elif not isinstance(layer, nn.Flatten):
            weight, bias = affine_matrix(layer, shape)
            weight = sparse.csr_array(weight.numpy())
            value = weight @ value[0], weight @ value[1] + bias.numpy()
        shape = output_shape(layer, shape)
    return value


def _encode(net: nn.Sequential, corners: Box, pre: Sequence[Box]) -> Encoded:
    """Return the program of one image, and the logits as a function of its columns."""
    program = _Program()
    ends = [corner[0].flatten().numpy() for corner in corners]
    inputs = program.columns(*ends)
    value = program.pick(inputs), np.zeros(len(inputs))
    given = iter(pre)
    value = _push(program, net, corners[0].shape[1:], value, given)
    if next(given, None) is not None:
        raise ValueError("pre has more pairs of bounds than the network has ReLUs")
    return program, (program.wide(value[0]), value[1])


def _problem(
    program: _Program, cost: Array
) -> tuple[cp.Problem, cp.Variable]:  # minimise cost @ w
    low, high = np.concatenate(program.lower), np.concatenate(program.upper)
    binary = np.concatenate([*program.binary, np.zeros(0, dtype=int)])
    kind = {"boolean": (binary,)} if len(binary) else {}
    w = cp.Variable(program.size, bounds=[low, high], **kind)
    rows = []
    if program.equal:
        matrix, side = program.stacked(program.equal)
        rows.append(matrix @ w == side)
    if program.at_most:
        matrix, side = program.stacked(program.at_most)
        rows.append(matrix @ w <= side)
    return cp.Problem(cp.Minimize(cost @ w), rows), w


def proven_bound(problem: cp.Problem) -> float:
    """Return what HiGHS has proven of the optimum of ``problem``, which it has solved.

    A lower bound of a minimum, an upper bound of a maximum; after a time limit, too,
    when ``problem.value`` is only the best point met. HiGHS reports the bound of a
    minimisation without the objective's constant: the constant is put back here, and
    the sign of a maximisation turned. Infinite if nothing is proven. Raises
    ``ValueError`` if the problem has not been solved by HiGHS, or has no integer
    variable (then nothing is proven before the end).
    """
    if problem.solver_stats is None or not problem.is_mixed_integer():
        raise ValueError("need a mixed-integer problem that HiGHS has worked on")
    variables = problem.variables()
    values = [variable.value for variable in variables]
    for variable in variables:
        variable.save_value(np.zeros(variable.shape))
    constant = float(problem.objective.expr.value)
    for variable, value in zip(variables, values, strict=True):
        variable.save_value(value)
    bound = float(problem.solver_stats.extra_stats.mip_dual_bound)
    return constant + (bound if isinstance(problem.objective, cp.Minimize) else -bound)


def _run(problem: cp.Problem, **options: float) -> str:
    """Solve by HiGHS; return "optimal", "limit" or "infeasible".

    Raises ``RuntimeError`` for any other end: then nothing is known.
    """
    with warnings.catch_warnings():  # of an inaccurate solution, after a time limit
        warnings.simplefilter("ignore", UserWarning)
        try:
            problem.solve(solver=cp.HIGHS, mip_rel_gap=0.0, **options)
        except cp.SolverError as error:
            raise RuntimeError("HiGHS failed on the integer program") from error
    ends = {
        cp.OPTIMAL: "optimal",
        cp.USER_LIMIT: "limit",
        cp.INFEASIBLE: "infeasible",
        cp.settings.INFEASIBLE_OR_UNBOUNDED: "infeasible",  # all columns are bounded
    }
    if problem.status not in ends:
        raise RuntimeError(f"HiGHS ended with status {problem.status}")
    return ends[problem.status]


# ------------------------------------------------------------ the two questions


def big_m_bounds(
    model: nn.Module, x: Tensor, eps: float, *, method: str = "crown", box: bool = True
) -> list[Box]:
    """Return bounds of what enters each ReLU of ``model``, for the integer program.

    In float64. ``x`` (N, ...) in [0, 1], ``eps`` in units of ``x``, with ``box`` cut to
    [0, 1].
    ``method``: "crown" or "interval", as in ``bounds.relu_bounds``, or "naive": one
    number M for all units, the largest of the interval bounds, between -M and M, so
    that no unit counts as stable. (``relaxations.lp_bounds`` gives tighter ones.)
    Raises ``ValueError`` for another method and what ``relu_bounds`` raises.
    """
    if method not in ("naive", "interval", "crown"):
        raise ValueError(f"method {method!r} is none of naive, interval, crown")
    check_model(model)
    corners = input_box(x.detach().double().cpu(), eps, box=box)
    net = _double(model, x.shape[1:])
    if method != "naive":
        return relu_bounds(net, *corners, method=method)
    pre = relu_bounds(net, *corners, method="interval")
    ends = [end.abs().flatten(1).amax(1) for pair in pre for end in pair]
    largest = torch.stack(ends).amax(0) if ends else x.new_zeros(len(x))
    wide = [largest.view(-1, *[1] * (low.dim() - 1)).expand_as(low) for low, _ in pre]
    return [(-m, m) for m in wide]


def _double(model: nn.Module, shape: Sequence[int]) -> nn.Sequential:
    """Return a canonical, detached copy in float64 on the CPU."""
    copy = deepcopy(model).requires_grad_(False).double().cpu()
    return canonical(copy, shape)


@dataclass(frozen=True)
class _Instance:
    """One image, everything in float64 and canonical, with the box and the bounds."""

    net: nn.Sequential
    x: Tensor
    y: Tensor
    corners: Box
    pre: list[Box]
    crown: Tensor  # CROWN's lower bounds of the margins (K,); inf for j = y

    def margins(self, x: Tensor) -> Tensor:
        """Return z_y - z_j of the network at ``x`` (1, ...): (K,); inf for j = y."""
        with torch.no_grad():
            logits = self.net(x)[0]
        margins = logits[self.y] - logits
        return margins.index_fill(0, self.y, torch.inf)

    def inside(self, inputs: Array) -> Tensor:
        """Return ``inputs``, moved into ball and box (the solver has a tolerance)."""
        point = torch.from_numpy(np.asarray(inputs)).view(self.x.shape)
        return point.clamp(*self.corners)


def _instances(
    model: nn.Module, x: Tensor, y: Tensor, eps: float, box: bool,
    pre: Sequence[Box] | None,
) -> list[_Instance]:  # fmt: skip
    check_all(model, x, y, eps)
    net, x64, y = _double(model, x.shape[1:]), x.detach().double().cpu(), y.cpu()
    num_classes = net(x64[:1]).shape[1]
    own = margin_spec(y, num_classes).eq(0).all(2)  # refuses labels that are no class
    corners = input_box(x64, eps, box=box)
    if pre is not None:
        pre = [(low.double(), high.double()) for low, high in pre]
    with torch.no_grad():
        crown = crown_margins(net, x64, y, eps, box=box, pre=pre)
    pre = relu_bounds(net, *corners) if pre is None else pre
    crown = crown.masked_fill(own, torch.inf)
    return [
        _Instance(
            net,
            x64[i : i + 1],
            y[i : i + 1],
            (corners[0][i : i + 1], corners[1][i : i + 1]),
            [(low[i : i + 1], high[i : i + 1]) for low, high in pre],
            crown[i],
        )
        for i in range(len(x))
    ]


def milp_margin(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    target: int,
    eps: float,
    *,
    box: bool = True,
    pre: Sequence[Box] | None = None,
    time_limit: float | None = None,
) -> Margin:
    """Return the smallest z_y - z_target over the ball: exact, by an integer program.

    For one image ``x`` (1, ...) in [0, 1] with its label ``y`` (1,) and another class
    ``target`` of ``model``; ``eps`` in units of ``x``, with ``box`` cut to [0, 1].
    ``pre``: sound
    bounds before each ReLU, the big-M of the program, as from ``big_m_bounds`` or
    ``relaxations.lp_bounds``; by default CROWN's. Exact to HiGHS's tolerance of 1e-6.

    After ``time_limit`` seconds the result is still a bound: the larger of what HiGHS
    has proven and CROWN's bound, never the best point met. Raises ``ValueError`` or
    ``TypeError`` for bad input, unknown layers and ``pre`` that admit no point, and
    ``RuntimeError`` if HiGHS fails. Tjeng et al. 2019, arXiv:1711.07356.
    """
    begin = time.perf_counter()
    if len(x) != 1:
        raise ValueError(f"need one image, (1, ...), not {len(x)}")
    (one,) = _instances(model, x, y, eps, box, pre)
    first = one.margins(one.x)
    if not 0 <= target < len(first) or target == y.item():
        raise ValueError(f"target {target} is no class other than the label {y.item()}")
    program, logits = _encode(one.net, one.corners, one.pre)
    cost, constant = _difference(logits, y.item(), target)
    problem, w = _problem(program, cost)
    limit = {} if time_limit is None else {"time_limit": float(time_limit)}
    end = _run(problem, **limit)
    if end == "infeasible":
        raise ValueError("the program is empty: pre are no bounds of this network")
    bound = max(one.crown[target].item(), _bound(problem, end) + constant)
    point = one.x if w.value is None else one.inside(w.value[: one.x.numel()])
    point = min((one.x, point), key=lambda p: one.margins(p)[target].item())
    return Margin(
        bound=bound,
        margin=one.margins(point)[target].item(),
        delta=(point - one.x)[0],
        status="optimal" if end == "optimal" else "time_limit",
        seconds=time.perf_counter() - begin,
    )


def _bound(problem: cp.Problem, end: str) -> float:
    """Return the proven bound; a linear program's is its optimum, at the end only."""
    if problem.is_mixed_integer():
        return proven_bound(problem)
    return float(problem.value) if end == "optimal" else -math.inf


def _difference(logits: Affine, y: int, target: int) -> tuple[Array, float]:
    """Return z_y - z_target as costs of the columns and a constant."""
    row = logits[0][[y]] - logits[0][[target]]
    return row.toarray()[0], float(logits[1][y] - logits[1][target])


def milp_robust(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    box: bool = True,
    pre: Sequence[Box] | None = None,
    time_limit: float | None = None,
) -> list[Verdict]:
    """Say of each image whether some allowed perturbation is misclassified: exact.

    Only the sign of the smallest margin is asked for. Classes that CROWN excludes need
    no program. For each of the others, HiGHS searches below margin zero alone: it
    stops at the first point there (a counterexample, checked by running the network),
    or when no such point is left. Arguments as ``milp_margin``, for a batch ``x``
    (N, ...) with labels ``y`` (N,); ``time_limit`` in seconds per image. A tie counts
    as attacked. Raises what ``milp_margin`` raises.
    """
    return [
        _image_verdict(one, time_limit)
        for one in _instances(model, x, y, eps, box, pre)
    ]


def _image_verdict(one: _Instance, time_limit: float | None) -> Verdict:
    begin = time.perf_counter()

    def verdict(status: str, bound: float, delta: Tensor | None = None) -> Verdict:
        return Verdict(status, bound, delta, time.perf_counter() - begin)

    if one.margins(one.x).min() <= 0:
        return verdict("attacked", -math.inf, torch.zeros_like(one.x[0]))
    bounds = one.crown.clone()
    waiting = [j for j in bounds.argsort().tolist() if bounds[j] <= ROUNDING]
    encoded = _encode(one.net, one.corners, one.pre) if waiting else None
    for j in waiting:
        spent = time.perf_counter() - begin
        left = None if time_limit is None else time_limit - spent
        if left is not None and left <= 0:
            break
        bounds[j], point = _sign(one, encoded, j, left, bounds[j].item())
        if point is not None:
            return verdict("attacked", -math.inf, (point - one.x)[0])
    bound = bounds.min().item()
    return verdict("certified" if bound > 0 else "unknown", bound)


def _sign(
    one: _Instance, encoded: Encoded, target: int, left: float | None, crown: float
) -> tuple[float, Tensor | None]:
    """Return a bound of the margin, positive if no point is below 0; and a point.

    ``objective_bound`` makes HiGHS drop every part of the search whose margin is above
    TOLERANCE: so what it then calls the optimum means only that nothing is below.
    ``objective_target`` stops it at the first point below 0.
    """
    program, logits = encoded
    cost, constant = _difference(logits, one.y.item(), target)
    problem, w = _problem(program, cost)
    options = {"objective_target": -constant, "objective_bound": TOLERANCE - constant}
    if left is not None:
        options["time_limit"] = left
    if not problem.is_mixed_integer():
        options = {}
    end = _run(problem, **options)
    if end != "infeasible" and w.value is not None:
        point = one.inside(w.value[: one.x.numel()])
        if one.margins(point)[target] <= 0:
            return -math.inf, point
    if end == "infeasible":
        return TOLERANCE, None
    bound = _bound(problem, end) + constant
    if bound >= TOLERANCE / 2:
        return max(crown, min(bound, TOLERANCE)), None
    return max(crown, min(bound, 0.0)), None


def shortest_linear(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    """Return the exact minimal l2 distortion (N,) float64 of a linear ``model``.

    The length of the shortest ``delta`` with ``x + delta`` in [0, 1] at which no logit
    is above that of ``target`` (N,) int64, for ``x`` (N, ...): a convex quadratic
    program for each image, solved by Clarabel to about eight digits; inf where no point
    of the box is such. Raises ``TypeError`` for a model of more than one affine layer,
    ``ValueError`` for bad input, ``RuntimeError`` if the solver gives up.
    """
    check_all(model, x, target, 0.0, "l2")
    net = _double(model, x.shape[1:])
    if [type(layer) for layer in net] != [nn.Flatten, nn.Linear]:
        raise TypeError("the program is for linear models, not for networks")
    if not (target < net[-1].out_features).all():
        raise ValueError(f"a target is not below the {net[-1].out_features} classes")
    weight, bias = net[-1].weight.numpy(), net[-1].bias.numpy()
    pairs = zip(x.detach().double().cpu().flatten(1).numpy(), target, strict=True)
    return torch.tensor(
        [_quadratic(weight, bias, a, int(t)) for a, t in pairs]
    ).double()


def _quadratic(weight: Array, bias: Array, x: Array, t: int) -> float:
    r = cp.Variable(len(x))
    rivals = np.arange(len(bias)) != t
    lead = (weight[t] - weight[rivals]) @ (x + r) + bias[t] - bias[rivals]
    limits = [lead >= 0, x + r >= 0, x + r <= 1]
    problem = cp.Problem(cp.Minimize(cp.sum_squares(r)), limits)
    problem.solve(solver="CLARABEL")
    if problem.status == "infeasible":
        return math.inf
    if problem.status != "optimal":
        raise RuntimeError(f"the quadratic program is {problem.status}")
    return math.sqrt(max(problem.value, 0.0))
