"""Exact in a ball: integer programs, solved by HiGHS through cvxpy.

In a ball there are too many linear pieces to list; the smallest margin is the optimum
of an integer program (``encoding``). What counts as proven is the solver's *bound*; a
point that it finds is run through the network first. The other exact method is
``branch_and_bound``.
"""

import math
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import cvxpy as cp
import numpy as np
import torch
from torch import Tensor, nn

from advlib._check import check_all, check_model
from advlib.bounds.crown import crown_margins, relu_bounds
from advlib.bounds.margins import input_box, margin_spec
from advlib.bounds.plan import Box
from advlib.exact.encoding import (
    TOLERANCE,
    Affine,
    Array,
    Encoded,
    IntegerProgram,
    encode,
)
from advlib.exact.verdicts import ROUNDING, Margin, Verdict
from advlib.networks.canonical import canonical_double


def _problem(
    program: IntegerProgram, cost: Array
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
    net = canonical_double(model, x.shape[1:])
    if method != "naive":
        return relu_bounds(net, *corners, method=method)
    pre = relu_bounds(net, *corners, method="interval")
    ends = [end.abs().flatten(1).amax(1) for pair in pre for end in pair]
    largest = torch.stack(ends).amax(0) if ends else x.new_zeros(len(x))
    wide = [largest.view(-1, *[1] * (low.dim() - 1)).expand_as(low) for low, _ in pre]
    return [(-m, m) for m in wide]


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
    net, x64, y = (
        canonical_double(model, x.shape[1:]),
        x.detach().double().cpu(),
        y.cpu(),
    )
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
    program, logits = encode(one.net, one.corners, one.pre)
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
    encoded = encode(one.net, one.corners, one.pre) if waiting else None
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
