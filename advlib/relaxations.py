"""Upper bounds on the worst case by convex programs: linear and semidefinite.

A convex program minimises the margin z_y - z_j over a convex set that holds everything
the network can do on the ball: so its minimum bounds the margin from below, and the
worst case from above. What a solver returns is only near the minimum, on either side.
So no number here is the solver's objective: from its dual variables a bound is
computed by weak duality, in a formula that is sound for *any* dual variables. A poor
solution then gives a loose bound, never a false one, up to the rounding of float64.

The linear program needs bounds l <= z <= u before each ReLU (``pre``). It imposes them
on every unit, stable ones too: then it is at least as tight as CROWN with any slopes,
Wong and Kolter's dual and folded intervals, when these use the same bounds.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial

import cvxpy as cp
import highspy
import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from torch import Tensor, nn

from advlib._check import check_all, check_model
from advlib.bounds import Box, crown_margins, input_box, margin_spec, relu_bounds
from advlib.models import Residual, affine_matrix, canonical, output_shape

Array = np.ndarray
Stage = tuple  # ("affine", W, b), ("relu",) or ("sum", body, shortcut)
Affine = tuple[sparse.csr_array, Array]  # a layer's value: matrix @ columns + constant
Pair = tuple[Array, Array]
Pairs = list[Pair]


class _EmptyError(Exception):
    """No point satisfies the program."""


# ------------------------------------------------------------------- the stages


def _stages(net: nn.Sequential, shape: Sequence[int]) -> list[Stage]:
    """Return a canonical network as sparse matrices and ReLUs, in float64."""
    stages: list[Stage] = []
    for layer in net:
        if isinstance(layer, nn.ReLU):
            stages.append(("relu",))
        elif isinstance(layer, Residual):
            branches = [_stages(b, shape) for b in (layer.body, layer.shortcut)]
            stages.append(("sum", *branches))
        elif not isinstance(layer, nn.Flatten):
            weight, bias = affine_matrix(layer, shape)
            weight = sparse.csr_array(weight.double().cpu().numpy())
            stages.append(("affine", weight, bias.double().cpu().numpy()))
        shape = output_shape(layer, shape)
    return stages


def _sizes(stages: Sequence[Stage], size: int) -> tuple[list[int], int]:
    """Return the number of units of each ReLU, and of the output."""
    found: list[int] = []
    for stage in stages:
        if stage[0] == "affine":
            size = stage[1].shape[0]
        elif stage[0] == "relu":
            found.append(size)
        else:
            (body, end), (shortcut, _) = (_sizes(part, size) for part in stage[1:])
            found, size = [*found, *body, *shortcut], end
    return found, size


# --------------------------------------------------------------- linear program


@dataclass
class _Program:
    """Columns lower <= v <= upper and rows low <= A v <= high, as they are added."""

    lower: list[Array] = field(default_factory=list)
    upper: list[Array] = field(default_factory=list)
    rows: list[tuple[sparse.csr_array, Array, Array]] = field(default_factory=list)
    size: int = 0
    num_relus: int = 0

    def columns(self, lower: Array, upper: Array) -> Array:
        """Add columns between ``lower`` and ``upper``; return their numbers."""
        self.lower.append(lower)
        self.upper.append(upper)
        self.size += len(lower)
        return np.arange(self.size - len(lower), self.size)

    def pick(self, columns: Array, scale: Array | float = 1.0) -> sparse.csr_array:
        """Return the matrix whose row i is ``scale`` at ``columns[i]``; -1: none."""
        rows = np.flatnonzero(columns >= 0)
        values = np.broadcast_to(scale, len(columns))[rows].astype(float)
        at = (values, (rows, columns[rows]))
        return sparse.csr_array(at, shape=(len(columns), self.size))

    def wide(self, matrix: sparse.csr_array) -> sparse.csr_array:
        """Return ``matrix`` with zero columns up to the present size."""
        parts = matrix.data, matrix.indices, matrix.indptr
        return sparse.csr_array(parts, shape=(matrix.shape[0], self.size))

    def add(self, matrix: sparse.csr_array, low: Array, high: Array) -> None:
        """Add the rows ``low <= matrix @ v <= high``."""
        self.rows.append((matrix, low, high))


def _add_relu(program: _Program, value: Affine, bounds: Pair) -> Affine:
    """Add the units of one ReLU: l <= z <= u on each, a triangle where l < 0 < u."""
    low, up = bounds
    z = program.columns(low, up)
    program.add(program.pick(z) - program.wide(value[0]), value[1], value[1])
    unstable = np.flatnonzero((low < 0) & (up > 0))
    low, up = low[unstable], up[unstable]
    slope, zero, infinite = up / (up - low), 0 * up, np.full(len(up), np.inf)
    a = program.columns(zero, up)  # what comes out of an unstable unit
    before = z[unstable]
    program.add(program.pick(a) - program.pick(before), zero, infinite)
    chord = program.pick(a) - program.pick(before, slope)
    program.add(chord, -infinite, -slope * low)
    source = np.where(bounds[0] >= 0, z, -1)  # stable: the input itself, or 0
    source[unstable] = a
    return program.pick(source), np.zeros(len(z))


AddRelu = Callable[[_Program, Affine, Pair], Affine]


def _push(
    program: _Program,
    stages: Sequence[Stage],
    value: Affine,
    pre: Pairs,
    add_relu: AddRelu = _add_relu,
) -> Affine:
    """Carry ``value`` through the stages; ``add_relu`` models each ReLU."""
    for stage in stages:
        if stage[0] == "affine":
            value = stage[1] @ value[0], stage[1] @ value[1] + stage[2]
        elif stage[0] == "sum":
            ends = [_push(program, part, value, pre, add_relu) for part in stage[1:]]
            (first, shift), (second, more) = ends
            value = program.wide(first) + program.wide(second), shift + more
        else:
            program.num_relus += 1
            value = add_relu(program, value, pre[program.num_relus - 1])
    return value


def _solver(program: _Program, matrix: sparse.csr_array) -> highspy.Highs:
    """Return HiGHS with the program loaded and costs of zero."""
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = program.size, matrix.shape[0]
    lp.col_cost_ = np.zeros(program.size)
    lp.col_lower_ = np.concatenate(program.lower)
    lp.col_upper_ = np.concatenate(program.upper)
    lp.row_lower_ = np.concatenate([r[1] for r in program.rows])
    lp.row_upper_ = np.concatenate([r[2] for r in program.rows])
    lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    lp.a_matrix_.start_ = matrix.indptr
    lp.a_matrix_.index_ = matrix.indices
    lp.a_matrix_.value_ = matrix.data
    solver = highspy.Highs()
    solver.setOptionValue("output_flag", False)
    solver.passModel(lp)
    return solver


def _matrix(program: _Program) -> sparse.csr_array:
    """Return all rows of the program."""
    blocks = [program.wide(block) for block, _, _ in program.rows]
    return sparse.csr_array(sparse.vstack(blocks))


def _dual_value(
    program: _Program, matrix: sparse.csr_array, cost: Array, duals: Array
) -> float:
    """Return a lower bound of ``cost @ v`` over the program, for any ``duals``.

    cost @ v = duals @ (A v) + (cost - duals @ A) @ v: minimise the first term over the
    sides of the rows and the second over those of the columns. A dual variable whose
    sign asks for an infinite side is set to 0.
    """
    low = np.concatenate([r[1] for r in program.rows])
    high = np.concatenate([r[2] for r in program.rows])
    side = np.where(duals > 0, low, high)
    kept = np.isfinite(side)
    duals, side = duals[kept], side[kept]
    rest = cost - duals @ matrix[kept]
    low, high = _ends(program)
    return float(duals @ side + np.minimum(rest * low, rest * high).sum())


def _minima(
    program: _Program, value: Affine, time_limit: float | None
) -> tuple[Array, Array]:
    """Return a lower bound of each row of ``value`` over the program, by weak duality.

    And whether HiGHS solved it. -inf where it leaves no dual variables. Raises
    ``_EmptyError`` if no column vector satisfies the program.
    """
    costs, found = program.wide(value[0]).toarray(), np.array(value[1])
    low, up = _ends(program)
    solved = np.ones(len(found), dtype=bool)
    if not program.rows:
        return found + np.minimum(costs * low, costs * up).sum(1), solved
    matrix = _matrix(program)
    solver = _solver(program, matrix)
    columns = np.arange(program.size, dtype=np.int32)
    for i, cost in enumerate(costs):
        solver.changeColsCost(program.size, columns, cost)
        if time_limit is not None:  # HiGHS counts all runs together
            limit = solver.getRunTime() + time_limit
            solver.setOptionValue("time_limit", limit)
        solver.run()
        status, solution = solver.getModelStatus(), solver.getSolution()
        if status == highspy.HighsModelStatus.kInfeasible:
            raise _EmptyError
        solved[i] = status == highspy.HighsModelStatus.kOptimal
        if not solution.dual_valid:
            found[i] = -np.inf
            continue
        duals = np.array(solution.row_dual)
        found[i] += _dual_value(program, matrix, cost, duals)
    return found, solved


def _start(
    lower: Array, upper: Array, program: _Program | None = None
) -> tuple[_Program, Affine]:
    """Put the input's columns into a ``program`` (default: a new linear one)."""
    program = _Program() if program is None else program
    inputs = program.columns(lower, upper)
    return program, (program.pick(inputs), np.zeros(len(lower)))


def _solve_image(
    stages: Sequence[Stage], box: Pair, pre: Pairs, spec: Array, limit: float | None
) -> tuple[Array, Array]:
    """Return the bounds of ``spec @ logits`` for one image, and which are solved.

    Raises ``ValueError`` if the program is empty: then ``pre`` are no bounds.
    """
    rows = sparse.csr_array(spec)
    for slack in (0.0, 1e-4):  # float32 bounds may contradict each other by rounding
        wide = [(a - slack * (1 + abs(a)), b + slack * (1 + abs(b))) for a, b in pre]
        program, value = _start(*box)
        value = _push(program, stages, value, wide)
        try:
            return _minima(program, (rows @ value[0], rows @ value[1]), limit)
        except _EmptyError:
            continue
    raise ValueError("the linear program is empty: pre are no bounds of this network")


def _down(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Return ``values`` in ``dtype``, rounded down where that needs rounding."""
    rounded = values.to(dtype)
    below = torch.nextafter(rounded, torch.full_like(rounded, -torch.inf))
    return torch.where(rounded.double() > values, below, rounded)


def lp_margins(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    box: bool = True,
    pre: Sequence[Box] | None = None,
    targets: Tensor | None = None,
    time_limit: float | None = None,
) -> Tensor:
    """Return lower bounds on z_y - z_j of ``model`` by linear programs: (N, K).

    The triangle relaxation over the ball, one linear program per image and class,
    solved by HiGHS in float64. ``x`` (N, ...) in [0, 1], ``y`` (N,) int64, ``eps`` in
    units of ``x``, with ``box`` cut to [0, 1]. ``pre``: bounds before each ReLU, by
    default those of ``bounds.relu_bounds`` with CROWN. ``targets`` (N, K) bool:
    entries to solve, by default all; the others hold CROWN's bound, which is also the
    result where HiGHS is stopped by ``time_limit`` (seconds per program) and its dual
    point is worse.

    Sound in any case: each entry is a dual value, computed by weak duality from the
    dual variables that HiGHS leaves, not its objective. Column y is 0. Raises
    ``ValueError`` or ``TypeError`` for bad input and unknown layers, and
    ``ValueError`` for ``pre`` that contradict each other. Ehlers 2017,
    arXiv:1705.01320; Salman et al. 2019, arXiv:1902.08722.
    """
    check_all(model, x, y, eps)
    net, x64 = _double(model, x.shape[1:]), x.detach().double().cpu()
    corners = input_box(x64, eps, box=box)
    stages = _stages(net, x.shape[1:])
    pre = _double_pre(net, corners, pre, _sizes(stages, x[0].numel())[0])
    with torch.no_grad():
        margins = crown_margins(net, x64, y.cpu(), eps, box=box, pre=pre)
    spec = margin_spec(y.cpu(), margins.shape[1]).double().numpy()
    for i, wanted in enumerate(_wanted(targets, margins, y)):
        if len(wanted) == 0:
            continue
        box_i = _pair(corners, i)
        pre_i = [_pair(bounds, i) for bounds in pre]
        bound, solved = _solve_image(stages, box_i, pre_i, spec[i, wanted], time_limit)
        crown = margins[i, wanted].numpy()
        found = np.where(solved, bound, np.maximum(bound, crown))
        margins[i, wanted] = torch.from_numpy(found)
    return _down(margins, x.dtype).to(x.device)


def _wanted(targets: Tensor | None, margins: Tensor, y: Tensor) -> list[Array]:
    """Return for each image the classes to solve for, never its own."""
    if targets is None:
        targets = torch.ones_like(margins, dtype=torch.bool)
    if targets.shape != margins.shape or targets.dtype != torch.bool:
        raise ValueError(f"targets must be bool of shape {tuple(margins.shape)}")
    own = F.one_hot(y, margins.shape[1]).bool()
    return [np.flatnonzero(row) for row in (targets & ~own).cpu().numpy()]


def _double(model: nn.Module, shape: Sequence[int]) -> nn.Sequential:
    """Return a detached canonical copy in float64 on the CPU."""
    check_model(model)
    copy = deepcopy(model).requires_grad_(False).double().cpu()
    return canonical(copy, shape).double()


def _double_pre(
    net: nn.Module, corners: Box, pre: Sequence[Box] | None, sizes: list[int]
) -> list[Box]:
    """Return ``pre`` in float64, by default CROWN's; refused unless it fits."""
    if pre is None:
        pre = relu_bounds(net, *corners)
    pre = [(low.detach().double().cpu(), up.detach().double().cpu()) for low, up in pre]
    finite = all((low + up).isfinite().all() for low, up in pre)
    if not finite or [low[0].numel() for low, _ in pre] != sizes:
        raise ValueError(
            f"pre needs a pair of finite bounds per ReLU, of sizes {sizes}"
        )
    return pre


def _pair(bounds: Box, i: int) -> Pair:
    """Return image ``i``'s bounds as flat arrays; they may cross by rounding."""
    low, up = (part[i].flatten().numpy() for part in bounds)
    return low, np.maximum(low, up)


def lp_bounds(
    model: nn.Module,
    lower: Tensor,
    upper: Tensor,
    *,
    pre: Sequence[Box] | None = None,
    layers: Sequence[int] | None = None,
    time_limit: float | None = None,
) -> list[Box]:
    """Return bounds of what enters each ReLU of ``model``, by linear programs.

    As ``bounds.relu_bounds`` over the box from ``lower`` to ``upper`` (N, ...), which
    gives ``pre`` if that is None. For each unit of the ReLUs numbered in ``layers``
    (default: all) that ``pre`` leaves unstable, both ends are optima over the triangle
    relaxation of the layers before, in turn from the first layer on: with all layers,
    the tightest bounds that this relaxation can give. (Tighter ends of a stable unit
    would change nothing: the rows of the program imply them.) Sound as ``lp_margins``
    is; ``time_limit`` in seconds per program. Raises ``ValueError`` for ``layers``
    that do not exist, for corners that cross, and what ``lp_margins`` raises.
    """
    if lower.shape != upper.shape or not (lower <= upper).all():
        raise ValueError("need two corners of equal shape, lower <= upper everywhere")
    net = _double(model, lower.shape[1:])
    corners = lower.detach().double().cpu(), upper.detach().double().cpu()
    stages = _stages(net, lower.shape[1:])
    pre = _double_pre(net, corners, pre, _sizes(stages, lower[0].numel())[0])
    chosen = range(len(pre)) if layers is None else layers
    if not set(chosen) <= set(range(len(pre))):
        raise ValueError(f"layers {list(chosen)} are not all below {len(pre)}")

    images: list[Pairs] = []

    def add_relu(program: _Program, value: Affine, bounds: Pair) -> Affine:
        if program.num_relus - 1 in chosen:
            bounds = _tightened(program, value, bounds, time_limit)
        images[-1].append(bounds)
        return _add_relu(program, value, bounds)

    for i in range(len(lower)):
        images.append([])
        program, value = _start(*_pair(corners, i))
        try:
            _push(program, stages, value, [_pair(b, i) for b in pre], add_relu)
        except _EmptyError:
            raise ValueError("the linear program is empty: pre are no bounds") from None
    return [_stacked(images, k, like) for k, like in enumerate(pre)]


def _tightened(
    program: _Program, value: Affine, bounds: Pair, time_limit: float | None
) -> Pair:
    """Cut the bounds of the unstable units with optima over the program so far."""
    low, up = bounds[0].copy(), bounds[1].copy()
    unit = np.flatnonzero((low < 0) & (up > 0))
    matrix, shift = value[0][unit], value[1][unit]
    least, _ = _minima(program, (matrix, shift), time_limit)
    most, _ = _minima(program, (-matrix, -shift), time_limit)
    low[unit] = np.maximum(low[unit], least)
    up[unit] = np.maximum(np.minimum(up[unit], -most), low[unit])
    return low, up


def _stacked(images: list[Pairs], k: int, like: Box) -> Box:
    low, up = (np.stack([pairs[k][end] for pairs in images]) for end in (0, 1))
    shape = like[0].shape
    return torch.from_numpy(low).view(shape), torch.from_numpy(up).view(shape)


# ----------------------------------------------------------- semidefinite program


@dataclass
class _Lifted(_Program):
    """Columns v, rows on v, and products a * a = a * z of the unstable units.

    The program is posed in the matrix P of all products of entries of (1, v), of
    which only the consequence remains that P is positive semidefinite.
    """

    products: list[tuple[Array, sparse.csr_array, Array]] = field(default_factory=list)


def _lift_relu(program: _Lifted, value: Affine, bounds: Pair, triangle: bool) -> Affine:
    """Add one column for each unstable unit, with ReLU as a >= 0, a >= z, a a = a z."""
    (low, up), (matrix, shift) = bounds, value
    unstable = np.flatnonzero((low < 0) & (up > 0))
    active = low >= 0
    a = program.columns(0 * up[unstable], up[unstable])
    matrix = program.wide(matrix)
    z, constant = matrix[unstable], shift[unstable]
    infinite = np.full(len(a), np.inf)
    program.add(program.pick(a) - z, constant, infinite)
    program.products.append((a, z, constant))
    if triangle:
        program.add(matrix, low - shift, up - shift)
        slope = up[unstable] / (up[unstable] - low[unstable])
        chord = program.pick(a) - sparse.diags_array(slope) @ z
        program.add(chord, -infinite, slope * (constant - low[unstable]))
    source = np.full(len(low), -1)
    source[unstable] = a
    kept = sparse.diags_array(active.astype(float)) @ matrix
    return sparse.csr_array(kept + program.pick(source)), np.where(active, shift, 0.0)


def _conic(program: _Lifted) -> tuple[Affine, Affine]:
    """Return (G, h) and (E, d): G vec(P) <= h and E vec(P) = d, P of the lifted side.

    Entry (i, j) of P stands at i * side + j; v_j is entry (0, j + 1).
    """
    side = program.size + 1
    column = np.arange(1, side)
    low, up = _ends(program)

    def place(rows: Array, at: Array, values: Array, n: int) -> sparse.csr_array:
        return sparse.csr_array((values, (rows, at)), shape=(n, side * side))

    one = np.ones(program.size)
    square = place(column - 1, column * (side + 1), one, program.size)
    square -= place(column - 1, column, low + up, program.size)  # (v-l)(v-u) <= 0
    matrix = _matrix(program) @ place(column - 1, column, one, program.size)
    least = np.concatenate([r[1] for r in program.rows])
    most = np.concatenate([r[2] for r in program.rows])
    above, below = np.isfinite(most), np.isfinite(least)
    upper = sparse.vstack([square, matrix[above], -matrix[below]])
    sides = np.concatenate([-low * up, most[above], -least[below]])
    equal, values = [place(np.zeros(1, int), np.zeros(1, int), np.ones(1), 1)], [1.0]
    for a, z, constant in program.products:
        z = z.tocoo()
        unit, at = np.arange(len(a)), a + 1
        row = place(unit, at * (side + 1), np.ones(len(a)), len(a))
        row -= place(unit, at, constant, len(a))
        row -= place(z.row, (z.col + 1) * side + at[z.row], z.data, len(a))
        equal.append(row)
        values += [0.0] * len(a)
    equal = sparse.csr_array(sparse.vstack(equal))
    return (sparse.csr_array(upper), sides), (equal, np.array(values))


def _sdp_duals(cost: Array, upper: Affine, equal: Affine) -> Pair:
    """Return the dual variables that CLARABEL leaves; ``cost`` is on vec(P)."""
    side = math.isqrt(len(cost))
    lifted = cp.Variable((side, side), PSD=True)
    flat = cp.vec(lifted, order="C")
    rows = [upper[0] @ flat <= upper[1], equal[0] @ flat == equal[1]]
    problem = cp.Problem(cp.Minimize(cost @ flat), rows)
    with warnings.catch_warnings():  # "may be inaccurate": no matter, see _sdp_value
        warnings.simplefilter("ignore", UserWarning)
        problem.solve(solver=cp.CLARABEL)
    if problem.status in (cp.INFEASIBLE, cp.INFEASIBLE_INACCURATE):
        raise ValueError("the semidefinite program is empty: pre are no bounds")
    if rows[0].dual_value is None:
        raise RuntimeError(f"CLARABEL ends with {problem.status}, without dual values")
    return rows[0].dual_value, rows[1].dual_value


def _sdp_value(
    cost: Array, upper: Affine, equal: Affine, duals: Pair, trace: float
) -> float:
    """Return a lower bound of ``cost @ vec(P)`` for any ``duals``, by weak duality.

    cost @ vec(P) >= <S, P> - duals @ sides with S = cost + G' lam + E' mu and lam >= 0.
    If S is positive semidefinite, <S, P> >= 0; else it is at least its least
    eigenvalue times the trace of P, which ``trace`` bounds.
    """
    lam, mu = np.maximum(duals[0], 0), duals[1]
    side = math.isqrt(len(cost))
    slack = (cost + lam @ upper[0] + mu @ equal[0]).reshape(side, side)
    slack = (slack + slack.T) / 2
    rounding = 1e-14 * side * np.abs(slack).max()
    least = min(np.linalg.eigvalsh(slack)[0] - rounding, 0.0)
    return float(-lam @ upper[1] - mu @ equal[1] + least * trace)


def sdp_margin(
    model: nn.Module,
    x: Tensor,
    y: int,
    target: int,
    eps: float,
    *,
    box: bool = True,
    pre: Sequence[Box] | None = None,
    triangle: bool = True,
    max_side: int = 80,
) -> float:
    """Return a lower bound on z_y - z_target of ``model`` by a semidefinite program.

    For small networks: the matrix has one row for 1, each input and each unstable
    unit, and more than ``max_side`` of them are refused. ``x`` (...) in [0, 1], one
    image without batch; ``y`` and ``target`` its class and another; ``eps`` in units
    of ``x``, with ``box`` cut to [0, 1]. ``pre``: bounds before each ReLU (1, *layer),
    by default CROWN's. With ``triangle`` the rows of the linear program are imposed,
    too: then the bound is at least that of ``lp_margins`` with the same ``pre``, up to
    the solver's tolerance; without, neither is always the better one.

    Sound: the value is computed from CLARABEL's dual variables by weak duality, with
    the least eigenvalue of the dual matrix as the check. Raises ``ValueError`` or
    ``TypeError`` for bad input, unknown layers, too large a matrix and contradicting
    ``pre``, ``RuntimeError`` if the solver returns no dual variables. Raghunathan,
    Steinhardt and Liang 2018, arXiv:1811.01057.
    """
    x = x[None]
    check_all(model, x, torch.tensor([y]), eps)
    net = _double(model, x.shape[1:])
    corners = input_box(x.detach().double().cpu(), eps, box=box)
    stages = _stages(net, x.shape[1:])
    sizes, num_classes = _sizes(stages, x.numel())
    if not (0 <= y < num_classes and 0 <= target < num_classes and y != target):
        raise ValueError(f"y and target must be two of the {num_classes} classes")
    pairs = [_pair(bounds, 0) for bounds in _double_pre(net, corners, pre, sizes)]
    program, value = _start(*_pair(corners, 0), _Lifted())
    add = partial(_lift_relu, triangle=triangle)
    matrix, shift = _push(program, stages, value, pairs, add)
    side = program.size + 1
    if side > max_side:
        raise ValueError(f"a matrix of side {side} is above max_side = {max_side}")
    rows = program.wide(matrix).toarray()
    least = _lifted_minimum(program, rows[y] - rows[target])
    return float(shift[y] - shift[target]) + least


def _lifted_minimum(program: _Lifted, cost: Array) -> float:
    """Return a lower bound of ``cost @ v`` over the semidefinite program."""
    low, up = _ends(program)
    if not program.rows:  # no ReLU: a linear function on a box
        return float(np.minimum(cost * low, cost * up).sum())
    side = program.size + 1
    lifted = np.zeros(side * side)
    lifted[1:side] = cost
    upper, equal = _conic(program)
    duals = _sdp_duals(lifted, upper, equal)
    trace = 1 + np.maximum(low**2, up**2).sum()
    return _sdp_value(lifted, upper, equal, duals, trace)


def _ends(program: _Program) -> Pair:
    """Return the bounds of all columns."""
    return np.concatenate(program.lower), np.concatenate(program.upper)
