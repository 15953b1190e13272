"""A network on a ball as a mixed-integer linear program.

A binary variable for each ReLU whose sign is not fixed turns the network into linear
constraints.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import sparse
from torch import nn

from advlib.bounds.plan import Box
from advlib.networks.canonical import affine_matrix, output_shape
from advlib.networks.layers import Residual

Array = np.ndarray

Affine = tuple[sparse.csr_array, Array]  # a layer's value: matrix @ columns + constant

Encoded = tuple["IntegerProgram", Affine]

TOLERANCE = 1e-6  # HiGHS's: it takes a constraint for met within this


@dataclass
class IntegerProgram:
    """Columns between bounds, some of them 0 or 1; rows A w = b and A w <= b."""

    lower: list[Array] = field(default_factory=list)
    upper: list[Array] = field(default_factory=list)
    binary: list[Array] = field(default_factory=list)
    equal: list[Affine] = field(default_factory=list)
    at_most: list[Affine] = field(default_factory=list)
    size: int = 0

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


def _add_relu(program: IntegerProgram, value: Affine, bounds: Box) -> Affine:
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
    program: IntegerProgram,
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


def encode(net: nn.Sequential, corners: Box, pre: Sequence[Box]) -> Encoded:
    """Return the program of one image, and the logits as a function of its columns.

    ``net`` canonical; ``corners`` of the input, ``pre`` before each ReLU: (1, ...).
    Raises ``ValueError`` for too many of these.
    """
    program = IntegerProgram()
    ends = [corner[0].flatten().numpy() for corner in corners]
    inputs = program.columns(*ends)
    value = program.pick(inputs), np.zeros(len(inputs))
    given = iter(pre)
    value = _push(program, net, corners[0].shape[1:], value, given)
    if next(given, None) is not None:
        raise ValueError("pre has more pairs of bounds than the network has ReLUs")
    return program, (program.wide(value[0]), value[1])
