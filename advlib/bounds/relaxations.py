"""Upper bounds on the worst case by convex programs: linear and semidefinite.

A convex program minimises the margin z_y - z_j over a convex set that holds everything
the network can do on the ball: so its minimum bounds the margin from below, and the
worst case from above. How a solution becomes a bound: see ``programs``.

The linear program needs bounds l <= z <= u before each ReLU (``pre``). It imposes them
on every unit, stable ones too: then it is at least as tight as CROWN with any slopes,
Wong and Kolter's dual and folded intervals, when these use the same bounds.
"""

import math
import operator
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from torch import Tensor, nn

from advlib._check import check_all, check_classes, check_limits
from advlib.bounds.crown import crown_margins, relu_bounds
from advlib.bounds.margins import input_box, margin_spec
from advlib.bounds.plan import Box, check_corners, count_classes, plan_steps
from advlib.bounds.programs import (
    SLACKS,
    Affine,
    Array,
    LinearProgram,
    Pair,
    Pairs,
    Stage,
    add_triangle,
    check_not_empty,
    column_ends,
    minima,
    network_stages,
    over,
    push_stages,
    relu_sizes,
    row_block,
    start_program,
    widened,
)
from advlib.networks.canonical import canonical_double


def _solve_image(
    stages: Sequence[Stage], box: Pair, pre: Pairs, spec: Array, limit: float | None
) -> Array:
    """Return the bounds of ``spec @ logits`` for one image; -inf where there is none.

    Raises ``ValueError`` if the program is empty: then ``pre`` are no bounds.
    """
    rows = sparse.csr_array(spec)
    for slack in SLACKS:
        program, value = start_program(*box)
        value = push_stages(program, stages, value, widened(pre, slack))
        value = rows @ value[0], rows @ value[1]
        found, empty = minima(program, value, limit)
        if not empty:
            return found
    check_not_empty(stages, box, pre)
    return found


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
    result where HiGHS is stopped by ``time_limit`` (seconds per program), or fails,
    and its dual point is worse.

    Sound in any case: each entry is a dual value, computed by weak duality from the
    dual variables that HiGHS leaves, not its objective. Column y is 0. Raises
    ``ValueError`` or ``TypeError`` for bad input and unknown layers, and
    ``ValueError`` for ``pre`` that contradict each other and a negative
    ``time_limit``. Ehlers 2017, arXiv:1705.01320; Salman et al. 2019,
    arXiv:1902.08722.
    """
    check_all(model, x, y, eps)
    check_limits(time_limit=time_limit)
    net, x64 = canonical_double(model, x.shape[1:], x), x.detach().double().cpu()
    check_classes(y, count_classes(plan_steps(net, x.shape[1:])))
    corners = input_box(x64, eps, box=box)
    stages = network_stages(net, x.shape[1:])
    pre = _double_pre(net, corners, pre, relu_sizes(stages, x[0].numel())[0])
    with torch.no_grad():
        margins = crown_margins(net, x64, y.cpu(), eps, box=box, pre=pre)
    spec = margin_spec(y.cpu(), margins.shape[1]).double().numpy()
    for i, wanted in enumerate(_wanted(targets, margins, y)):
        if len(wanted) == 0:
            continue
        box_i = _pair(corners, i)
        pre_i = [_pair(bounds, i) for bounds in pre]
        found = _solve_image(stages, box_i, pre_i, spec[i, wanted], time_limit)
        crown = margins[i, wanted].numpy()
        margins[i, wanted] = torch.from_numpy(np.fmax(found, crown))
    return _down(margins, x.dtype).to(x.device)


def _wanted(targets: Tensor | None, margins: Tensor, y: Tensor) -> list[Array]:
    """Return for each image the classes to solve for, never its own."""
    if targets is None:
        targets = torch.ones_like(margins, dtype=torch.bool)
    if targets.shape != margins.shape or targets.dtype != torch.bool:
        raise ValueError(f"targets must be bool of shape {tuple(margins.shape)}")
    own = F.one_hot(y.cpu(), margins.shape[1]).bool()
    return [np.flatnonzero(row) for row in (targets.cpu() & ~own).numpy()]


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
    if not all(
        (low - up <= SLACKS[1] * (low.abs() + up.abs())).all() for low, up in pre
    ):
        raise ValueError("pre is no bound: a lower end is above its upper end")
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
    is; ``time_limit`` in seconds per program. Float64. Raises ``ValueError`` for
    ``layers`` that do not exist, for corners that cross, and what ``lp_margins``
    raises.
    """
    check_corners(lower, upper)
    check_limits(time_limit=time_limit)
    net = canonical_double(model, lower.shape[1:], (lower + upper) / 2)
    corners = lower.detach().double().cpu(), upper.detach().double().cpu()
    stages = network_stages(net, lower.shape[1:])
    pre = _double_pre(net, corners, pre, relu_sizes(stages, lower[0].numel())[0])
    chosen = range(len(pre)) if layers is None else layers
    if not set(chosen) <= set(range(len(pre))):
        raise ValueError(f"layers {list(chosen)} are not all below {len(pre)}")

    images: list[Pairs] = []

    def add_relu(program: LinearProgram, value: Affine, bounds: Pair) -> Affine:
        if program.num_relus - 1 in chosen:
            tight = _tightened(program, value, bounds, time_limit)
            if tight is None:  # then HiGHS was wrong, or this is refused
                i = len(images) - 1
                check_not_empty(stages, _pair(corners, i), [_pair(b, i) for b in pre])
            bounds = bounds if tight is None else tight
        images[-1].append(bounds)
        return add_triangle(program, value, bounds)

    for i in range(len(lower)):
        images.append([])
        program, value = start_program(*_pair(corners, i))
        push_stages(program, stages, value, [_pair(b, i) for b in pre], add_relu)
    found = [_stacked(images, k, like) for k, like in enumerate(pre)]
    return [(low.to(lower.device), up.to(lower.device)) for low, up in found]


def _tightened(
    program: LinearProgram, value: Affine, bounds: Pair, time_limit: float | None
) -> Pair | None:
    """Cut the bounds of the unstable units with optima over the program so far.

    None if the solver takes the program for empty.
    """
    low, up = bounds[0].copy(), bounds[1].copy()
    unit = np.flatnonzero((low < 0) & (up > 0))
    matrix, shift = value[0][unit], value[1][unit]
    least, empty = minima(program, (matrix, shift), time_limit)
    most, void = minima(program, (-matrix, -shift), time_limit)
    if empty or void:
        return None
    low[unit] = np.maximum(low[unit], least)
    up[unit] = np.maximum(np.minimum(up[unit], -most), low[unit])
    return low, up


def _stacked(images: list[Pairs], k: int, like: Box) -> Box:
    low, up = (np.stack([pairs[k][end] for pairs in images]) for end in (0, 1))
    shape = like[0].shape
    return torch.from_numpy(low).view(shape), torch.from_numpy(up).view(shape)


@dataclass
class _Lifted(LinearProgram):
    """Columns v, rows on v, and products a * a = a * z of the unstable units.

    The program is posed in the matrix P of all products of entries of (1, v), of
    which only the consequence remains that P is positive semidefinite.
    """

    products: list[tuple[Array, sparse.csr_array, Array]] = field(default_factory=list)


def _lift_relu(program: _Lifted, value: Affine, bounds: Pair, triangle: bool) -> Affine:
    """Add one column for each unstable unit, with ReLU as a >= 0, a >= z, a a = a z.

    In units of their ``scales``, as in ``add_triangle``.
    """
    scale = program.scales(value)
    (low, up), shift = (end / scale for end in bounds), value[1] / scale
    unstable = np.flatnonzero((low < 0) & (up > 0))
    active = low >= 0
    a = program.columns(0 * up[unstable], up[unstable])
    matrix = program.wide(over(value[0], scale))
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
    kept = sparse.diags_array(active.astype(float)) @ program.wide(value[0])
    matrix = sparse.csr_array(kept + program.pick(source, scale))
    return matrix, np.where(active, value[1], 0.0)


def _conic(program: _Lifted) -> tuple[Affine, Affine]:
    """Return (G, h) and (E, d): G vec(P) <= h and E vec(P) = d, P of the lifted side.

    Entry (i, j) of P stands at i * side + j; v_j is entry (0, j + 1).
    """
    side = program.size + 1
    column = np.arange(1, side)
    low, up = column_ends(program)

    def place(rows: Array, at: Array, values: Array, n: int) -> sparse.csr_array:
        return sparse.csr_array((values, (rows, at)), shape=(n, side * side))

    one = np.ones(program.size)
    square = place(column - 1, column * (side + 1), one, program.size)
    square -= place(column - 1, column, low + up, program.size)  # (v-l)(v-u) <= 0
    matrix, least, most = row_block(program)
    matrix = matrix @ place(column - 1, column, one, program.size)
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


def _sdp_duals(cost: Array, upper: Affine, equal: Affine) -> Pair | None:
    """Return the dual variables that CLARABEL leaves; ``cost`` is on vec(P).

    None if it takes the program for empty.
    """
    import cvxpy as cp  # here: 80 MB and a second that linear programs do not need

    side = math.isqrt(len(cost))
    lifted = cp.Variable((side, side), PSD=True)
    flat = cp.vec(lifted, order="C")
    rows = [upper[0] @ flat <= upper[1], equal[0] @ flat == equal[1]]
    problem = cp.Problem(cp.Minimize(cost @ flat), rows)
    with warnings.catch_warnings():  # "may be inaccurate": no matter, see _sdp_value
        warnings.simplefilter("ignore", UserWarning)
        try:
            problem.solve(solver=cp.CLARABEL)
        except cp.SolverError as error:
            raise RuntimeError("CLARABEL failed on the semidefinite program") from error
    if problem.status in (cp.INFEASIBLE, cp.INFEASIBLE_INACCURATE):
        return None
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
    image without batch; ``y`` and ``target`` its class and another, whole numbers;
    ``eps`` in units of ``x``, with ``box`` cut to [0, 1]. ``pre``: bounds before each
    ReLU (1, *layer), by default CROWN's. With ``triangle`` the rows of the linear
    program are imposed, too: then the bound is at least that of ``lp_margins`` with the
    same ``pre``, up to the solver's tolerance; without, neither is always the better.

    Sound: the value is computed from CLARABEL's dual variables by weak duality, with
    the least eigenvalue of the dual matrix as the check. Raises ``ValueError`` or
    ``TypeError`` for bad input, unknown layers, too large a matrix and contradicting
    ``pre``, ``RuntimeError`` if the solver returns no dual variables. Raghunathan,
    Steinhardt and Liang 2018, arXiv:1811.01057.
    """
    x, y, target = x[None], _whole("y", y), _whole("target", target)
    check_all(model, x, torch.tensor([y]), eps)
    net = canonical_double(model, x.shape[1:], x)
    num_classes = count_classes(plan_steps(net, x.shape[1:]))
    check_classes(torch.tensor([y, target]), num_classes)
    if y == target:
        raise ValueError(f"y and target must be two of the {num_classes} classes")
    corners = input_box(x.detach().double().cpu(), eps, box=box)
    stages = network_stages(net, x.shape[1:])
    sizes, _ = relu_sizes(stages, x.numel())
    pairs = [_pair(bounds, 0) for bounds in _double_pre(net, corners, pre, sizes)]
    program, value = start_program(*_pair(corners, 0), _Lifted())
    add = partial(_lift_relu, triangle=triangle)
    matrix, shift = push_stages(program, stages, value, pairs, add)
    side = program.size + 1
    if side > max_side:
        raise ValueError(f"a matrix of side {side} is above max_side = {max_side}")
    rows = program.wide(matrix).toarray()
    least = _lifted_minimum(program, rows[y] - rows[target])
    if least is None:
        check_not_empty(stages, _pair(corners, 0), pairs)
        raise RuntimeError("CLARABEL takes the program for empty, which it is not")
    return float(shift[y] - shift[target]) + least


def _whole(name: str, value: int) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be a whole number, not {value!r}") from None


def _lifted_minimum(program: _Lifted, cost: Array) -> float | None:
    """Return a lower bound of ``cost @ v`` over the semidefinite program.

    None if the solver takes it for empty.
    """
    low, up = column_ends(program)
    if not program.rows:  # no ReLU: a linear function on a box
        return float(np.minimum(cost * low, cost * up).sum())
    side = program.size + 1
    scale = float(program.scales((sparse.csr_array(cost[None]), np.zeros(1)))[0])
    lifted = np.zeros(side * side)
    lifted[1:side] = cost / scale
    upper, equal = _conic(program)
    duals = _sdp_duals(lifted, upper, equal)
    if duals is None:
        return None
    trace = 1 + np.maximum(low**2, up**2).sum()
    return _sdp_value(lifted, upper, equal, duals, trace) * scale
