"""Linear programs over a network, and lower bounds from their dual variables.

What a solver returns is only near the minimum, on either side. So no number here is
the solver's objective: from its dual variables a bound is computed by weak duality, in
a formula that is sound for *any* dual variables. A poor solution then gives a loose
bound, never a false one, up to the rounding of float64.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import highspy
import numpy as np
from scipy import sparse
from torch import nn

from advlib.networks.canonical import affine_matrix, output_shape
from advlib.networks.layers import Residual

Array = np.ndarray

Stage = tuple  # ("affine", W, b), ("relu",) or ("sum", body, shortcut)

Affine = tuple[sparse.csr_array, Array]  # a layer's value: matrix @ columns + constant

Pair = tuple[Array, Array]

Pairs = list[Pair]


class EmptyProgramError(Exception):
    """No point satisfies the program."""


def network_stages(net: nn.Sequential, shape: Sequence[int]) -> list[Stage]:
    """Return a canonical ``net`` as sparse matrices and ReLUs, for one ``shape``."""
    stages: list[Stage] = []
    for layer in net:
        if isinstance(layer, nn.ReLU):
            stages.append(("relu",))
        elif isinstance(layer, Residual):
            branches = [network_stages(b, shape) for b in (layer.body, layer.shortcut)]
            stages.append(("sum", *branches))
        elif not isinstance(layer, nn.Flatten):
            weight, bias = affine_matrix(layer, shape)
            weight = sparse.csr_array(weight.double().cpu().numpy())
            stages.append(("affine", weight, bias.double().cpu().numpy()))
        shape = output_shape(layer, shape)
    return stages


def relu_sizes(stages: Sequence[Stage], size: int) -> tuple[list[int], int]:
    """Return the number of units of each ReLU of ``stages``, and of the output.

    ``size`` of the input.
    """
    found: list[int] = []
    for stage in stages:
        if stage[0] == "affine":
            size = stage[1].shape[0]
        elif stage[0] == "relu":
            found.append(size)
        else:
            (body, end), (shortcut, _) = (relu_sizes(part, size) for part in stage[1:])
            found, size = [*found, *body, *shortcut], end
    return found, size


@dataclass
class LinearProgram:
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


def add_triangle(program: LinearProgram, value: Affine, bounds: Pair) -> Affine:
    """Add the units of one ReLU of ``value`` to ``program``, with ``bounds`` (l, u).

    l <= z <= u on each, a triangle where l < 0 < u.
    """
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


AddRelu = Callable[[LinearProgram, Affine, Pair], Affine]


def push_stages(
    program: LinearProgram,
    stages: Sequence[Stage],
    value: Affine,
    pre: Pairs,
    add_relu: AddRelu = add_triangle,
) -> Affine:
    """Carry ``value`` through the ``stages``; ``add_relu`` models each ReLU of ``pre``.

    Columns and rows are added to ``program``.
    """
    for stage in stages:
        if stage[0] == "affine":
            value = stage[1] @ value[0], stage[1] @ value[1] + stage[2]
        elif stage[0] == "sum":
            ends = [
                push_stages(program, part, value, pre, add_relu) for part in stage[1:]
            ]
            (first, shift), (second, more) = ends
            value = program.wide(first) + program.wide(second), shift + more
        else:
            program.num_relus += 1
            value = add_relu(program, value, pre[program.num_relus - 1])
    return value


def _solver(program: LinearProgram, matrix: sparse.csr_array) -> highspy.Highs:
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


def row_matrix(program: LinearProgram) -> sparse.csr_array:
    """Return all rows of ``program``."""
    blocks = [program.wide(block) for block, _, _ in program.rows]
    return sparse.csr_array(sparse.vstack(blocks))


def _dual_value(
    program: LinearProgram, matrix: sparse.csr_array, cost: Array, duals: Array
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
    low, high = column_ends(program)
    return float(duals @ side + np.minimum(rest * low, rest * high).sum())


def minima(
    program: LinearProgram, value: Affine, time_limit: float | None
) -> tuple[Array, Array]:
    """Return a lower bound of each row of ``value`` over ``program``, by weak duality.

    And whether HiGHS solved it within ``time_limit``. -inf where it leaves no dual
    variables. Raises ``EmptyProgramError`` if no column vector satisfies the program.
    """
    costs, found = program.wide(value[0]).toarray(), np.array(value[1])
    low, up = column_ends(program)
    solved = np.ones(len(found), dtype=bool)
    if not program.rows:
        return found + np.minimum(costs * low, costs * up).sum(1), solved
    matrix = row_matrix(program)
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
            raise EmptyProgramError
        solved[i] = status == highspy.HighsModelStatus.kOptimal
        if not solution.dual_valid:
            found[i] = -np.inf
            continue
        duals = np.array(solution.row_dual)
        found[i] += _dual_value(program, matrix, cost, duals)
    return found, solved


def start_program(
    lower: Array, upper: Array, program: LinearProgram | None = None
) -> tuple[LinearProgram, Affine]:
    """Put the input's columns, ``lower`` to ``upper``, into ``program`` or a new."""
    program = LinearProgram() if program is None else program
    inputs = program.columns(lower, upper)
    return program, (program.pick(inputs), np.zeros(len(lower)))


def column_ends(program: LinearProgram) -> Pair:
    """Return the bounds of all columns of ``program``."""
    return np.concatenate(program.lower), np.concatenate(program.upper)
