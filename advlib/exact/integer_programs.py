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
from dataclasses import replace

import cvxpy as cp
import numpy as np
import torch
from torch import Tensor, nn

from advlib._check import check_limits, check_model, outside_inference
from advlib.bounds.crown import bounds_before_relus
from advlib.bounds.margins import input_box
from advlib.bounds.plan import Box, plan_steps
from advlib.exact.encoding import TOLERANCE, Array, IntegerProgram
from advlib.exact.instances import Instance, Prepared, Question, ask, instances, prepare
from advlib.exact.verdicts import ROUNDING, Margin, Verdict
from advlib.networks.canonical import canonical_double

NEAR = 0.1  # of the radius: so near the image HiGHS has to find a point

CLOSE = 3e-5  # of the margin's range: an optimum has bound and margin this near


def _problem(
    program: IntegerProgram, cost: Array
) -> tuple[cp.Problem, cp.Variable]:  # minimise cost @ w
    low, high = program.ends()
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
    net = canonical_double(model, x.shape[1:], x)
    steps = plan_steps(net, x.shape[1:])
    if method != "naive":
        return bounds_before_relus(steps, corners, method)[0]
    pre = bounds_before_relus(steps, corners, "interval")[0]
    ends = [end.abs().flatten(1).amax(1) for pair in pre for end in pair]
    largest = torch.stack(ends).amax(0) if ends else x.new_zeros(len(x))
    wide = [largest.view(-1, *[1] * (low.dim() - 1)).expand_as(low) for low, _ in pre]
    return [(-m, m) for m in wide]


@outside_inference
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
    allow_large: bool = False,
) -> Margin:
    """Return the smallest z_y - z_target over the ball: exact, by an integer program.

    For one image ``x`` (1, ...) in [0, 1] with its label ``y`` (1,) and another class
    ``target`` of ``model``; ``eps`` in units of ``x``, with ``box`` cut to [0, 1].
    ``pre``: sound bounds before each ReLU, the big-M of the program, as from
    ``big_m_bounds`` or ``relaxations.lp_bounds``; by default CROWN's.

    Exact to HiGHS's tolerance of 1e-6 in units of the largest coefficient of the
    margin, by which the returned bound is lowered: the program is balanced
    (``encoding``), so this holds at every scale of the weights. "optimal" means also
    that bound and margin are within 3e-5 of the range that the margin has while each
    variable stays in its bounds. Otherwise, and where the numbers are such that the
    solver's word cannot be taken (it contradicts a point that was tried, or terms
    cancel to less than 1e-5 of their size), the status is "unproven" and the bound
    CROWN's. ``time_limit`` is HiGHS's own, in seconds of the clock: then the result is
    still a bound, the larger of what HiGHS has proven and CROWN's, never the best point
    met ("time_limit").

    Raises ``ValueError`` or ``TypeError`` for bad input, unknown layers, a limit below
    0, ``pre`` that exclude the image or another point that was tried, and ``pre`` more
    than 1e5 times as large as a unit's own bounds: there the solver's tolerance decides
    (``allow_large`` takes them; the result is then never better than CROWN's).
    ``RuntimeError`` if HiGHS fails. Tjeng et al. 2019, arXiv:1711.07356.
    """
    begin = time.process_time()
    check_limits(time_limit=time_limit)
    if len(x) != 1:
        raise ValueError(f"need one image, (1, ...), not {len(x)}")
    (one,) = instances(model, x, y, eps, box, pre, allow_large)
    if not 0 <= target < len(one.crown) or target == y.item():
        raise ValueError(f"target {target} is no class other than the label {y.item()}")
    made = prepare(one)
    asked = ask(made, y.item(), target)
    limit = {} if time_limit is None else {"time_limit": float(time_limit)}
    end, bound, point = _minimum(one, made, asked, limit)
    points = one.x if point is None else torch.cat([one.x, point])
    margins = one.margins(points)[:, target]
    margin, best = margins.min(0)
    least = min(float(margin), float(made.known[target]))
    if not made.sound or bound > least + asked.slack * asked.scale:
        end, bound = ("limit" if end == "limit" else "doubt"), -math.inf
    bound = max(one.crown[target].item(), bound)
    close = (CLOSE * asked.spread + 2 * asked.slack) * asked.scale
    near = float(margin) - bound <= close and not one.large
    status = {"limit": "time_limit", "optimal": "optimal" if near else "unproven"}
    return Margin(
        bound=bound,
        margin=float(margin),
        delta=(points[best] - one.x[0]),
        status=status.get(end, "unproven"),
        seconds=time.process_time() - begin,
    )


def _minimum(
    one: Instance, made: Prepared, asked: Question, limit: dict[str, float]
) -> tuple[str, float, Tensor | None]:
    """Minimise the margin; return how HiGHS ended, what it has proven, and a point."""
    program = made.program
    if not program.whole():  # only a box is left: its minimum is a formula
        low, high = program.ends()
        return (
            "optimal",
            asked.below(program),
            _point(one, program, np.where(asked.cost > 0, low, high)),
        )
    problem, w = _problem(program, asked.cost)
    end = _run(problem, **limit)
    if end == "infeasible":  # but points were tried, and satisfy the rows
        return end, -math.inf, None
    bound = asked.scale * (_bound(problem, end) + asked.constant - asked.slack)
    return end, bound, None if w.value is None else _point(one, program, w.value)


def _point(one: Instance, program: IntegerProgram, columns: Array) -> Tensor:
    """Return the image that the ``columns`` stand for, moved into the box."""
    pixels = columns[: len(program.middle)]
    return one.inside(program.middle + program.radius * pixels)


def _bound(problem: cp.Problem, end: str) -> float:
    """Return the proven bound; a linear program's is its optimum, at the end only."""
    if problem.is_mixed_integer():
        return proven_bound(problem)
    return float(problem.value) if end == "optimal" else -math.inf


@outside_inference
def milp_robust(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    box: bool = True,
    pre: Sequence[Box] | None = None,
    time_limit: float | None = None,
    allow_large: bool = False,
) -> list[Verdict]:
    """Say of each image whether some allowed perturbation is misclassified: exact.

    Only the sign of the smallest margin is asked for. Classes that CROWN excludes need
    no program. For each of the others, HiGHS searches below margin zero alone: it
    stops at the first point there (a counterexample, checked by running the network),
    or when no such point is left. That answer, "infeasible", certifies, so it is taken
    only if the image and a few more points of the ball satisfy the rows in float64,
    none of them (each class has its own descent) contradicts it, and HiGHS itself
    finds a point of the same rows near the image once its margin is allowed.

    Arguments as ``milp_margin``, for a batch ``x`` (N, ...) with labels ``y`` (N,);
    ``time_limit`` in seconds per image: CPU time of this process between HiGHS's runs,
    time of the clock within one. A tie counts as attacked. With ``allow_large`` a
    program whose big-M is too large never certifies. Raises what ``milp_margin``
    raises.
    """
    check_limits(time_limit=time_limit)
    return [
        _image_verdict(one, time_limit)
        for one in instances(model, x, y, eps, box, pre, allow_large)
    ]


def _image_verdict(one: Instance, time_limit: float | None) -> Verdict:
    begin = time.process_time()

    def verdict(status: str, bound: float, delta: Tensor | None = None) -> Verdict:
        return Verdict(status, bound, delta, time.process_time() - begin)

    if one.margins(one.x).min() <= 0:
        return verdict("attacked", -math.inf, torch.zeros_like(one.x[0]))
    bounds = one.crown.clone()
    waiting = [j for j in bounds.argsort().tolist() if bounds[j] <= _certain(one)]
    made = prepare(one) if waiting else None
    for j in waiting:
        spent = time.process_time() - begin
        left = None if time_limit is None else time_limit - spent
        if left is not None and left <= 0:
            break
        bounds[j], point = _sign(one, made, j, left)
        if point is not None:
            return verdict("attacked", -math.inf, (point - one.x)[0])
    bound = bounds.min().item()
    proven = bound > 0 and not one.large
    return verdict("certified" if proven else "unknown", bound)


def _certain(one: Instance) -> float:
    """Return how large a bound by CROWN has to be: beyond rounding, at any scale."""
    with torch.no_grad():
        size = float(one.net(torch.cat([one.x, *one.corners])).abs().max())
    return ROUNDING * size


def _sign(
    one: Instance, made: Prepared, target: int, left: float | None
) -> tuple[float, Tensor | None]:
    """Return a bound of the margin, positive if no point is below 0; and a point.

    ``objective_bound`` makes HiGHS drop every part of the search whose margin is above
    the cut: so what it then calls the optimum means only that nothing is below.
    ``objective_target`` stops it at the first point below 0.
    """
    asked, program = ask(made, one.y.item(), target), made.program
    crown = min(one.crown[target].item(), 0.0)
    limit = {} if left is None else {"time_limit": left}
    cut = asked.slack + TOLERANCE
    if not program.whole():
        end, bound, point = _minimum(one, made, asked, limit)
    else:
        options = {"objective_target": 0.0, "objective_bound": cut}
        end, bound, point = _bounded(one, made, asked, options | limit)
    if point is not None and one.margins(point)[0, target] <= 0:
        return -math.inf, point
    if end == "infeasible" and not _confirmed(one, made, asked, target, limit):
        return crown, None
    if bound > 0 and made.known[target] <= 0:  # then the solver is wrong
        return -math.inf, made.points[target][None]
    if not made.sound or bound > float(made.known[target]) + asked.scale * cut:
        return crown, None
    return max(crown, bound), None


def _bounded(
    one: Instance, made: Prepared, asked: Question, options: dict[str, float]
) -> tuple[str, float, Tensor | None]:
    """As ``_minimum``, with a bound and a target of the margin among the ``options``.

    Both in units of the question's scale. If nothing is left below the bound, then it
    is what has been proven.
    """
    problem, w = _problem(made.program, asked.cost)
    moved = {k: options[k] - asked.constant for k in options if k != "time_limit"}
    end = _run(problem, **(options | moved))
    proven = cut = options["objective_bound"]
    if end != "infeasible":
        proven = min(cut, _bound(problem, end) + asked.constant)
    bound = asked.scale * (proven - asked.slack)
    found = end != "infeasible" and w.value is not None
    return end, bound, _point(one, made.program, w.value) if found else None


def _confirmed(
    one: Instance, made: Prepared, asked: Question, target: int,
    limit: dict[str, float],
) -> bool:  # fmt: skip
    """Whether HiGHS finds a point near the image, once its margin is below the cut.

    The rows are those of the whole program, only the pixels are kept near. Asked once.
    """
    if not made.confirmed:
        own = float(one.margins(one.x)[0, target]) / asked.scale + asked.slack
        options = {"objective_target": own, "objective_bound": own + TOLERANCE}
        program = made.program
        at = (one.x.flatten().numpy() - program.middle) / program.radius
        low = np.maximum(program.lower[0], at - NEAR)
        high = np.minimum(program.upper[0], at + NEAR)
        near = replace(
            program,
            lower=[low, *program.lower[1:]],
            upper=[high, *program.upper[1:]],
        )
        made = replace(made, program=near)
        found = _bounded(one, made, asked, options | limit)[2] is not None
        made.confirmed.append(found)
    return made.confirmed[0]
