"""Where all phases are known a network is linear: a linear program in the pixels.

What HiGHS returns is used as a proposal only: the bound is computed from its dual
variables by weak duality, and that a program is empty from a combination of its rows
that no point of the box satisfies. Both hold for any numbers, up to rounding.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from scipy import sparse
from scipy.optimize import linprog
from torch import Tensor, from_numpy, nn

from advlib.exact.encoding import Array, power_of_two
from advlib.exact.splits import Nodes, Search, flat
from advlib.exact.verdicts import ROUNDING
from advlib.networks.canonical import output_shape
from advlib.networks.layers import Residual
from advlib.networks.sparse import sparse_matrix

SMALL = 1_000_000  # numbers of a dense matrix: below, sparse arithmetic is slower

Matrix = Array | sparse.csr_array


def leaf_program(search: Search, node: Nodes) -> tuple[float, Tensor | None]:
    """Return the smallest margin of a ``node`` with all phases known, and a point.

    ``search`` knows its image. Every unit is linear there, so it is a linear program in
    the pixels, which are measured from the middle of the box; rows and cost have unit
    size. The bound is inf if the program is empty, and -inf if HiGHS fails or nothing
    is proven.
    """
    shape, k = search.x.shape[1:], node.image[0]
    low, high = (corner[k].flatten().numpy() for corner in search.corners)
    half = (high - low) / 2 + np.spacing(np.maximum(abs(low), abs(high)))
    radius = power_of_two(half)
    start = _diagonal(radius, max([len(low), *search.sizes])), (low + high) / 2
    active = search.layers((node.phase > 0) | ((node.phase == 0) & (node.low >= 0)))
    parts = iter([part.flatten().numpy() for part in active])
    rows: list[tuple[Matrix, Array]] = []
    matrix, constant = _linear(search, search.net, shape, start, parts, rows)
    y, target = int(search.y[k]), int(node.target[0])
    cost = _dense(matrix[[y]] - matrix[[target]])[0]
    held = node.phase[0].numpy() != 0
    sign = 2.0 * flat(active, 1)[0].numpy() - 1
    program = _rows(rows, sign, held, len(low)), half / radius
    value, point = _minimum(cost, *program)
    bound = value + constant[y] - constant[target] - ROUNDING
    if point is None:
        return bound, None
    image = from_numpy(start[1] + radius * point).view(1, *shape)
    return bound, image.clamp(search.corners[0][k], search.corners[1][k])


def _diagonal(radius: Array, largest: int) -> Matrix:
    """Return the pixels' units as a matrix, sparse if layers are large."""
    if len(radius) * largest <= SMALL:
        return np.diag(radius)
    return sparse.csr_array(sparse.diags_array(radius))


def _dense(matrix: Matrix) -> Array:
    return matrix if isinstance(matrix, np.ndarray) else matrix.toarray()


def _times(scale: Array, matrix: Matrix) -> Matrix:
    """Return the rows of ``matrix`` times one number each."""
    if isinstance(matrix, np.ndarray):
        return scale[:, None] * matrix
    scaled = sparse.csr_array(sparse.diags_array(scale) @ matrix)
    scaled.eliminate_zeros()
    return scaled


def _rows(
    rows: list[tuple[Matrix, Array]], sign: Array, held: Array, pixels: int
) -> tuple[Matrix, Array]:
    """Return the assumptions ``held`` as rows A t <= b, each with entries of size 1."""
    if not held.any():
        return np.zeros((0, pixels)), np.zeros(0)
    matrices = [matrix for matrix, _ in rows]
    if isinstance(matrices[0], np.ndarray):
        sides = np.vstack(matrices)[held]
        peak = abs(sides).max(axis=1)
    else:
        sides = sparse.csr_array(sparse.vstack(matrices))[held]
        peak = abs(sides).max(axis=1).toarray().ravel()
    scale = sign[held] / power_of_two(peak)
    offset = np.concatenate([side for _, side in rows])[held]
    return _times(-scale, sides), scale * offset


def _minimum(
    cost: Array, rows: tuple[Matrix, Array], half: Array
) -> tuple[float, Array | None]:
    """Return a lower bound of cost @ t where A t <= b, -half <= t <= half; a point."""
    (matrix, side), box = rows, np.stack([-half, half], 1)
    unit = float(power_of_two(abs(cost).max(initial=0.0)))

    def proven(cost: Array, duals: Array) -> float:
        reduced = cost + duals @ matrix
        return float(-abs(reduced) @ half - duals @ side)

    found = linprog(cost / unit, A_ub=matrix, b_ub=side, bounds=box, method="highs")
    if found.status == 0:
        duals = np.maximum(-found.ineqlin.marginals, 0)
        return unit * proven(cost / unit, duals), found.x
    if found.status != 2:
        return -math.inf, None
    slack = sparse.csr_array(-np.ones((len(side), 1)))
    least = linprog(  # the smallest t by which all rows have to give way
        np.append(np.zeros(len(half)), 1.0),
        A_ub=sparse.csr_array(sparse.hstack([matrix, slack])),
        b_ub=side,
        bounds=[*box, (0, None)],
        method="highs",
    )
    if least.status != 0:
        return -math.inf, None
    duals = np.maximum(-least.ineqlin.marginals, 0)
    empty = proven(np.zeros(len(half)), duals) > ROUNDING
    return (math.inf if empty else -math.inf), None


def _linear(
    search: Search,
    net: nn.Sequential,
    shape: Sequence[int],
    value: tuple[Matrix, Array],
    active: Iterator[Array],
    rows: list[tuple[Matrix, Array]],
) -> tuple[Matrix, Array]:
    """Carry an affine ``value`` through the layers with known phases.

    Appends to ``rows`` what enters each ReLU, in order.
    """
    for layer in net:
        if isinstance(layer, nn.ReLU):
            rows.append(value)
            on = next(active).astype(float)
            value = _times(on, value[0]), on * value[1]
        elif isinstance(layer, Residual):
            first = _linear(search, layer.body, shape, value, active, rows)
            second = _linear(search, layer.shortcut, shape, value, active, rows)
            value = first[0] + second[0], first[1] + second[1]
        elif not isinstance(layer, nn.Flatten):
            if layer not in search.matrices:
                weight, bias = sparse_matrix(layer, shape)
                small = isinstance(value[0], np.ndarray)
                search.matrices[layer] = _dense(weight) if small else weight, bias
            weight, bias = search.matrices[layer]
            value = weight @ value[0], weight @ value[1] + bias
        shape = output_shape(layer, shape)
    return value
