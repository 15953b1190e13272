"""A network on a ball as a mixed-integer linear program, in balanced numbers.

A binary variable for each ReLU whose sign is not fixed turns the network into linear
constraints. A solver takes a constraint for met within an absolute tolerance, so what
the numbers mean decides what is proven: pixels are measured from the middle of the
ball in units of its radius, each unit in units of the largest value that it can have,
and the margin in units of its largest coefficient. All of these are powers of two, so
nothing is rounded, and the program is the same whatever the scale of the weights.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from advlib.bounds.plan import Box
from advlib.networks.canonical import output_shape
from advlib.networks.layers import Residual
from advlib.networks.sparse import sparse_matrix

Array = np.ndarray

Affine = tuple[sparse.csr_array, Array]  # rows: matrix @ columns and a side

TOLERANCE = 1e-6  # HiGHS's: it takes a constraint for met within this

DROPPED = 1e-9  # HiGHS takes smaller coefficients for zero

LARGE = 1e5  # times TOLERANCE it is a tenth: a binary variable means little then

FLOATS = 2.0**-46  # of a sum of float64 numbers, beside the size of its terms


def power_of_two(sizes: Array) -> Array:
    """Return for each of ``sizes`` >= 0 the power of two just above it; 1 for 0."""
    exponent = np.clip(np.frexp(sizes)[1], -1000, 1000)
    return np.ldexp(1.0, np.where(sizes > 0, exponent, 0))


@dataclass(frozen=True)
class Value:
    """What a layer returns: ``matrix`` @ columns + ``constant``.

    ``size`` is at least the size of the terms that were added up for each entry: the
    rounding of an entry is small beside it.
    """

    matrix: sparse.csr_array
    constant: Array
    size: Array


@dataclass(frozen=True)
class Units:
    """The unstable units of one ReLU: ``rows`` @ columns + ``constant`` enters them.

    In units of ``scale``. ``index`` says which units of the layer; ``z``, ``s`` and
    ``v`` are the numbers of their columns.
    """

    rows: sparse.csr_array
    constant: Array
    scale: Array
    index: Array
    z: Array
    s: Array
    v: Array


@dataclass
class IntegerProgram:
    """Columns between bounds, some of them 0 or 1; rows A w = b and A w <= b.

    The first columns are the pixels: ``middle`` + ``radius`` * w. ``cancels`` says of
    which unit the terms cancel so much that the solver's tolerance, times their size,
    exceeds what is left; empty if of none.
    """

    middle: Array
    radius: Array
    lower: list[Array] = field(default_factory=list)
    upper: list[Array] = field(default_factory=list)
    binary: list[Array] = field(default_factory=list)
    equal: list[Affine] = field(default_factory=list)
    at_most: list[Affine] = field(default_factory=list)
    relus: list[Units] = field(default_factory=list)
    size: int = 0
    cancels: str = ""

    def columns(self, lower: Array, upper: Array, binary: bool = False) -> Array:
        """Add one column for each entry of ``lower``; return their numbers.

        Each up to ``upper``; with ``binary`` it is 0 or 1.
        """
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

    def whole(self) -> int:
        """Return how many columns are 0 or 1."""
        return sum(map(len, self.binary))

    def ends(self) -> tuple[Array, Array]:
        """Return the bounds of all columns."""
        return np.concatenate(self.lower), np.concatenate(self.upper)

    def largest(self) -> Array:
        """Return the largest absolute value of each column."""
        return np.maximum(*map(np.abs, self.ends()))


def without_small(
    matrix: sparse.csr_array, largest: Array
) -> tuple[sparse.csr_array, Array]:
    """Return ``matrix`` without what the solver drops, and the most that makes out.

    Entries below ``DROPPED`` go; the second result bounds, for each row, their sum
    over columns that are at most ``largest``.
    """
    small = np.abs(matrix.data) < DROPPED
    parts = np.where(small, np.abs(matrix.data), 0.0), matrix.indices, matrix.indptr
    left = sparse.csr_array(parts, shape=matrix.shape) @ largest[: matrix.shape[1]]
    parts = np.where(small, 0.0, matrix.data), matrix.indices, matrix.indptr
    kept = sparse.csr_array(parts, shape=matrix.shape, copy=True)
    kept.eliminate_zeros()
    return kept, left


def _add_relu(program: IntegerProgram, value: Value, bounds: Box, reach: Box) -> Value:
    """Add the units of a ReLU whose input is ``value``, with ``bounds`` (l, u).

    Stable units cost nothing. An unstable one gets z = ReLU, s = ReLU of the opposite
    and a binary v: input = z - s, z <= u v, s <= -l (1 - v), all in units of p, a
    power of two near the largest value that ``bounds`` and ``reach`` allow.
    """
    low, high, most = _flat_pair(value, bounds, reach)
    unit = np.flatnonzero((low < 0) & (high > 0))
    active = np.flatnonzero(low >= 0)
    low, high, p, zero = low[unit], high[unit], most[unit], np.zeros(len(unit))
    p = power_of_two(p)
    low, high = low / p, high / p
    rows = sparse.csr_array(sparse.diags_array(1 / p) @ value.matrix[unit])
    rows, left = without_small(rows, program.largest())
    left = left + FLOATS * value.size[unit] / p
    z, s = program.columns(zero, high), program.columns(zero, -low)
    v = program.columns(zero, zero + 1, binary=True)
    constant = value.constant[unit] / p
    units = Units(rows, constant, p, unit, z, s, v)
    program.relus.append(units)
    _note_cancelled(program, units)
    split = program.wide(rows) - program.pick(z) + program.pick(s)
    _add_equal(program, sparse.csr_array(split), -constant, left)
    program.at_most.append((program.pick(z) - program.pick(v, high), zero))
    program.at_most.append((program.pick(s) - program.pick(v, low), -low))
    return _after_relu(program, value, active, units, high * p)


def _add_equal(
    program: IntegerProgram, matrix: sparse.csr_array, side: Array, left: Array
) -> None:
    """Add ``matrix`` @ w = ``side``, met within ``left`` where that is not nothing."""
    loose = left > DROPPED
    program.equal.append((matrix[~loose], side[~loose]))
    if loose.any():
        rows, side, left = matrix[loose], side[loose], left[loose]
        program.at_most.append((rows, side + left))
        program.at_most.append((sparse.csr_array(-rows), left - side))


def _after_relu(
    program: IntegerProgram, value: Value, active: Array, units: Units, high: Array
) -> Value:
    """Return what leaves a ReLU: ``active`` units as they are, and the ``units``."""
    count = len(value.constant)
    keep = sparse.csr_array((np.ones(len(active)), (active, active)), (count, count))
    place = units.index, np.arange(len(units.index))
    put = sparse.csr_array((units.scale, place), (count, len(units.index)))
    out = keep @ program.wide(value.matrix) + put @ program.pick(units.z)
    size = keep @ value.size
    size[units.index] = high
    return Value(sparse.csr_array(out), keep @ value.constant, size)


def _note_cancelled(program: IntegerProgram, units: Units) -> None:
    """Note the first unit whose coefficients are above ``LARGE``."""
    if units.rows.nnz == 0 or program.cancels:
        return
    peak = abs(units.rows).max(axis=1).toarray().ravel()
    if peak.max() > LARGE:
        unit = units.index[int(peak.argmax())]
        program.cancels = f"ReLU {len(program.relus)}, unit {unit}"


def check_bounds(pre: Sequence[Box]) -> None:
    """Refuse bounds ``pre`` (N, *layer) that cross, or are NaN or infinite.

    Raises ``ValueError`` that names the ReLU and the unit.
    """
    for number, (low, high) in enumerate(pre, 1):
        if low.shape != high.shape:
            raise ValueError(f"pre has two shapes for ReLU {number}")
        if not (low + high).isfinite().all():
            raise ValueError(f"bounds before a ReLU must be finite: ReLU {number}")
        room = 1e-6 * torch.maximum(low.abs(), high.abs())  # float32 may cross
        wrong = (low > high + room).flatten(1).nonzero()
        if len(wrong):
            unit = int(wrong[0, 1])
            raise ValueError(f"pre crosses, lower > upper: ReLU {number}, unit {unit}")


def find_large(pre: Sequence[Box], reach: Sequence[Box]) -> str:
    """Say which unstable unit's bounds ``pre`` are huge beside its ``reach``; or "".

    Above ``LARGE`` times the largest absolute value of ``reach``, which are sound
    bounds, too: then the solver's tolerance is as large as what the unit returns.
    """
    for number, (given, own) in enumerate(zip(pre, reach, strict=True), 1):
        big = torch.maximum(given[0].abs(), given[1].abs()).double()
        size = torch.maximum(own[0].abs(), own[1].abs()).double()
        ratio = torch.where(size > 0, big / size, 0.0)  # 0: a unit without weights
        open_ = (given[0] < 0) & (given[1] > 0)
        worst = torch.where(open_, ratio, 0.0).flatten(1).amax(0)
        if len(worst) and worst.max() > LARGE:
            unit = int(worst.argmax())
            return (
                f"ReLU {number}, unit {unit}: its bounds are {worst[unit]:.1g} times "
                "what it can reach"
            )
    return ""


def _flat_pair(value: Value, bounds: Box, reach: Box) -> tuple[Array, Array, Array]:
    """Return one image's bounds as arrays, unstable ones a little wider; and a size.

    So that the solver's tolerance, or the rounding of bounds, cuts no point off. The
    last one is the largest absolute value that both pairs of bounds allow.
    """
    low, high = (_flat(part) for part in bounds)
    if len(low) != len(value.constant) or len(high) != len(low):
        raise ValueError("pre has bounds of another size than the layer")
    slack = TOLERANCE * np.maximum(abs(low), abs(high)) + FLOATS * value.size
    low, high = low - slack, high + slack
    most = np.maximum(abs(low), abs(high))
    own = np.maximum(*(abs(_flat(part)) for part in reach))
    own = own + FLOATS * value.size  # 0 for a unit without weights and bias
    return low, high, np.where(own > 0, np.minimum(most, own), most)


def _flat(part: Tensor) -> Array:
    return part[0].detach().double().cpu().flatten().numpy()


def _push(
    program: IntegerProgram,
    net: nn.Sequential,
    shape: Sequence[int],
    value: Value,
    pairs: Iterator[tuple[Box, Box]],
) -> Value:
    """Carry ``value`` through the layers of a canonical network."""
    for layer in net:
        if isinstance(layer, nn.ReLU):
            value = _add_relu(program, value, *_next(pairs))
        elif isinstance(layer, Residual):
            first, second = (
                _push(program, branch, shape, value, pairs)
                for branch in (layer.body, layer.shortcut)
            )
            value = Value(
                program.wide(first.matrix) + program.wide(second.matrix),
                first.constant + second.constant,
                first.size + second.size,
            )
        elif not isinstance(layer, nn.Flatten):
            weight, bias = sparse_matrix(layer, shape)
            constant = weight @ value.constant + bias
            size = abs(weight) @ value.size + abs(bias)
            value = Value(weight @ value.matrix, constant, size)
        shape = output_shape(layer, shape)
    return value


def _next(pairs: Iterator[tuple[Box, Box]]) -> tuple[Box, Box]:
    pair = next(pairs, None)
    if pair is None:
        raise ValueError("pre has fewer pairs of bounds than the network has ReLUs")
    return pair


def encode(
    net: nn.Sequential,
    corners: Box,
    pre: Sequence[Box],
    reach: Sequence[Box] | None = None,
) -> tuple[IntegerProgram, Value]:
    """Return the program of one image, and the logits as a function of its columns.

    ``net`` canonical; ``corners`` of the input, ``pre`` before each ReLU: (1, ...).
    ``reach``: bounds as ``pre``, which tell how large each unit's values are; by
    default these are ``pre``. Raises ``ValueError`` for too many or too few of these,
    another size, lower bounds above the upper ones, NaN and infinity.
    """
    check_bounds(pre)
    low, high = (corner[0].flatten().double().cpu().numpy() for corner in corners)
    half = (high - low) / 2 + np.spacing(np.maximum(abs(low), abs(high)))
    radius = power_of_two(half)
    program = IntegerProgram((low + high) / 2, radius)
    inputs = program.columns(-half / radius, half / radius)
    size = np.maximum(abs(low), abs(high))
    value = Value(program.pick(inputs, radius), program.middle, size)
    pairs = iter(list(zip(pre, pre if reach is None else reach, strict=False)))
    value = _push(program, net, corners[0].shape[1:], value, pairs)
    if next(pairs, None) is not None or (reach is not None and len(pre) > len(reach)):
        raise ValueError("pre has more pairs of bounds than the network has ReLUs")
    return program, replace(value, matrix=program.wide(value.matrix))


def columns_at(program: IntegerProgram, points: Array) -> Array:
    """Return the columns (size, M) of ``program`` for the network at M inputs.

    ``points`` (M, pixels). Every ReLU is computed from the rows, so the equations hold;
    whether the columns are between their bounds is for ``find_outside`` to say.
    """
    w = np.zeros((program.size, len(points)))
    shifted = (points - program.middle) / program.radius
    w[: points.shape[1]] = shifted.T
    for units in program.relus:
        before = units.rows @ w[: units.rows.shape[1]] + units.constant[:, None]
        w[units.z], w[units.s] = np.maximum(before, 0), np.maximum(-before, 0)
        w[units.v] = before > 0
    return w


def find_outside(program: IntegerProgram, columns: Array) -> str:
    """Say which unit's value in ``columns`` (size, M) its bounds exclude; or "".

    Those of ``program``; the pixels are looked at, too.
    """
    low, high = program.ends()
    excess = np.maximum(low[:, None] - columns, columns - high[:, None]).max(1)
    worst = int(excess.argmax())
    if not excess[worst] > DROPPED and np.isfinite(columns).all():
        return ""
    for number, units in enumerate(program.relus, 1):
        for part in (units.z, units.s):
            if len(part) and part[0] <= worst <= part[-1]:
                return f"ReLU {number}, unit {units.index[worst - part[0]]}"
    return f"pixel {worst}"
