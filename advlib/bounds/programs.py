"""Linear programs over a network, and lower bounds from their dual variables.

What a solver returns is only near the minimum, on either side. So no number here is
the solver's objective: from its dual variables a bound is computed by weak duality, in
a formula that is sound for *any* dual variables. A poor solution then gives a loose
bound, never a false one, up to the rounding of float64.

The solver's tolerances are absolute. So columns and costs of unusual size are divided
by powers of two, which changes no digit: how tight a bound is does not depend on the
scale of the weights.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import highspy
import numpy as np
from scipy import sparse
from torch import nn

from advlib.networks.canonical import output_shape
from advlib.networks.layers import Residual
from advlib.networks.sparse import sparse_matrix

Array = np.ndarray

Stage = tuple  # ("affine", W, b), ("relu",) or ("sum", body, shortcut)

Affine = tuple[sparse.csr_array, Array]  # a layer's value: matrix @ columns + constant

Pair = tuple[Array, Array]

Pairs = list[Pair]


SLACKS = (0.0, 1e-5, 1e-3)  # bounds in float32 may contradict each other by rounding

USUAL = 10  # numbers between 2 ** -10 and 2 ** 10 suit the solver as they are


def powers_near(values: Array) -> Array:
    """Return powers of two near ``values`` >= 0; 1 for usual sizes and for 0."""
    exponent = np.frexp(values)[1]
    usual = (abs(exponent) <= USUAL) | ~np.isfinite(values)
    return np.ldexp(1.0, np.where(usual, 0, exponent.clip(-1000, 1000)))


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
            stages.append(("affine", *sparse_matrix(layer, shape)))
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


def relu_values(stages: Sequence[Stage], x: Array) -> tuple[list[Array], Array]:
    """Return what enters each ReLU of ``stages`` at an input ``x``, and the output."""
    found: list[Array] = []
    for stage in stages:
        if stage[0] == "affine":
            x = stage[1] @ x + stage[2]
        elif stage[0] == "relu":
            found.append(x)
            x = np.maximum(x, 0.0)
        else:
            (body, end), (shortcut, more) = (relu_values(s, x) for s in stage[1:])
            found, x = [*found, *body, *shortcut], end + more
    return found, x


@dataclass
class LinearProgram:
    """Columns lower <= v <= upper and rows low <= A v <= high, as they are added."""

    lower: list[Array] = field(default_factory=list)
    upper: list[Array] = field(default_factory=list)
    rows: list[tuple[sparse.csr_array, Array, Array]] = field(default_factory=list)
    size: int = 0
    num_relus: int = 0

    def scales(self, value: Affine) -> Array:
        """Return a power of two for each row of ``value``, near its largest term.

        A term: an entry times the largest size of its column; or the constant.
        """
        matrix = self.wide(value[0])
        low, high = column_ends(self)
        largest = np.maximum(abs(low), abs(high))
        terms, found = abs(matrix.data) * largest[matrix.indices], abs(value[1])
        filled = np.flatnonzero(np.diff(matrix.indptr))
        if len(filled):
            most = np.maximum.reduceat(terms, matrix.indptr[filled])
            found[filled] = np.maximum(found[filled], most)
        return powers_near(found)

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

    l <= z <= u on each, a triangle where l < 0 < u. The columns are z / ``scales``.
    """
    scale = program.scales(value)
    low, up = bounds[0] / scale, bounds[1] / scale
    z = program.columns(low, up)
    inputs, shift = program.wide(over(value[0], scale)), value[1] / scale
    program.add(program.pick(z) - inputs, shift, shift)
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
    return program.pick(source, scale), np.zeros(len(z))


def over(matrix: sparse.csr_array, scale: Array) -> sparse.csr_array:
    """Return ``matrix`` with each row divided by its ``scale``."""
    if (scale == 1).all():
        return matrix
    data = matrix.data / np.repeat(scale, np.diff(matrix.indptr))
    parts = data, matrix.indices.copy(), matrix.indptr  # which scipy sorts in place
    return sparse.csr_array(parts, matrix.shape)


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


def _solver(program: LinearProgram) -> highspy.Highs | None:
    """Return HiGHS with ``program`` loaded and costs of zero; None if it refuses.

    The arrays are handed over as they are: HiGHS makes the only copy.
    """
    matrix, low, high = row_block(program)
    zero, continuous = np.zeros(program.size), np.zeros(program.size, dtype=np.int32)
    index = (a.astype(np.int32, copy=False) for a in (matrix.indptr, matrix.indices))
    solver = highspy.Highs()
    solver.setOptionValue("output_flag", False)
    status = solver.passModel(
        program.size, matrix.shape[0], matrix.nnz, int(highspy.MatrixFormat.kRowwise),
        int(highspy.ObjSense.kMinimize), 0.0, zero, *column_ends(program), low, high,
        *index, matrix.data, continuous,
    )  # fmt: skip
    return None if status == highspy.HighsStatus.kError else solver


def row_block(program: LinearProgram) -> tuple[sparse.csr_array, Array, Array]:
    """Return all rows of ``program`` and their sides; kept as its only block."""
    if len(program.rows) > 1:
        matrix = sparse.vstack([program.wide(block) for block, _, _ in program.rows])
        sides = (np.concatenate([r[i] for r in program.rows]) for i in (1, 2))
        program.rows = [(sparse.csr_array(matrix), *sides)]
    ((matrix, low, high),) = program.rows
    return program.wide(matrix), low, high


def _dual_value(program: LinearProgram, cost: Array, duals: Array) -> float:
    """Return a lower bound of ``cost @ v`` over the program, for any ``duals``.

    cost @ v = duals @ (A v) + (cost - duals @ A) @ v: minimise the first term over the
    sides of the rows and the second over those of the columns. A dual variable that is
    no number or whose sign asks for an infinite side is set to 0.
    """
    matrix, low, high = row_block(program)
    side = np.where(duals > 0, low, high)
    kept = np.isfinite(side) & np.isfinite(duals)
    rest = cost - np.where(kept, duals, 0.0) @ matrix
    low, high = column_ends(program)
    ends = np.minimum(rest * low, rest * high).sum()
    return float(duals[kept] @ side[kept] + ends)


def minima(
    program: LinearProgram, value: Affine, time_limit: float | None
) -> tuple[Array, bool]:
    """Return a lower bound of each row of ``value`` over ``program``, by weak duality.

    -inf where HiGHS leaves no dual variables, after ``time_limit`` seconds or else.
    And whether it takes the program for empty: then nothing is known.
    """
    matrix, found = program.wide(value[0]), np.full(len(value[1]), -np.inf)
    low, up = column_ends(program)
    if not program.rows:
        rest = (matrix[[i]].toarray()[0] for i in range(len(found)))
        ends = [np.minimum(cost * low, cost * up).sum() for cost in rest]
        return value[1] + np.array(ends), False
    solver = _solver(program)
    if solver is None:
        return found, False
    columns, scale = np.arange(program.size, dtype=np.int32), program.scales(value)
    for i in range(len(found)):
        cost = matrix[[i]].toarray()[0] / scale[i]
        solver.changeColsCost(program.size, columns, cost)
        if time_limit is not None:  # HiGHS counts all runs together
            limit = solver.getRunTime() + time_limit
            solver.setOptionValue("time_limit", limit)
        solver.run()
        if solver.getModelStatus() == highspy.HighsModelStatus.kInfeasible:
            return found, True
        solution = solver.getSolution()
        if solution.dual_valid:
            duals = np.array(solution.row_dual)
            least = _dual_value(program, cost, duals) * scale[i] + value[1][i]
            found[i] = -np.inf if np.isnan(least) else least
    return found, False


def widened(pre: Pairs, slack: float) -> Pairs:
    """Return ``pre`` wider by ``slack`` times the largest bound of each layer."""
    sizes = [slack * max(abs(a).max(initial=0), abs(b).max(initial=0)) for a, b in pre]
    return [(a - size, b + size) for (a, b), size in zip(pre, sizes, strict=True)]


def check_not_empty(stages: Sequence[Stage], box: Pair, pre: Pairs) -> None:
    """Refuse ``pre`` that exclude the middle of the ``box``; else the solver was wrong.

    A program of the ``stages`` whose bounds hold there has a point, whatever the solver
    says. Raises ``ValueError``.
    """
    values, _ = relu_values(stages, (box[0] + box[1]) / 2)
    for k, (z, (low, up)) in enumerate(
        zip(values, widened(pre, SLACKS[-1]), strict=True)
    ):
        if not ((low <= z) & (z <= up)).all():
            raise ValueError(
                "the program is empty: pre are no bounds of this network; in the "
                f"middle of the box, ReLU {k} gets a value outside of them"
            )


def start_program(
    lower: Array, upper: Array, program: LinearProgram | None = None
) -> tuple[LinearProgram, Affine]:
    """Put the input's columns, ``lower`` to ``upper``, into ``program`` or a new."""
    program = LinearProgram() if program is None else program
    scale = powers_near(np.maximum(abs(lower), abs(upper)))
    inputs = program.columns(lower / scale, upper / scale)
    return program, (program.pick(inputs, scale), np.zeros(len(lower)))


def column_ends(program: LinearProgram) -> Pair:
    """Return the bounds of all columns of ``program``."""
    return np.concatenate(program.lower), np.concatenate(program.upper)
