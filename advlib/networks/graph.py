"""A network as a graph: affine maps, sums, ReLUs and smooth units, nothing else.

Whatever a network is written in, torch or ONNX, it becomes this form, and bounds,
search and proofs know only this form. Everything that is piecewise linear is ReLUs and
affine maps: max(a, b) = b + ReLU(a - b), and so are leaky slopes, clamps, absolute
values and pooling by the maximum. ``Builder`` knows these identities.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from advlib.networks.maps import (
    Map,
    Matrix,
    Pick,
    Reshape,
    Scale,
    Shape,
    flat_places,
    pooling_places,
)
from advlib.networks.units import UNITS


@dataclass(frozen=True)
class Input:
    """What a network is given."""


@dataclass(frozen=True)
class Affine:
    """``map`` of the one input, plus ``bias``, which has the output's shape."""

    map: Map
    bias: Tensor | None = None


@dataclass(frozen=True)
class Sum:
    """The sum of inputs of equal shape."""


@dataclass(frozen=True)
class Concat:
    """The inputs, one after the other along ``axis``, counted without batch."""

    axis: int


@dataclass(frozen=True)
class Unit:
    """One function of one variable, by ``name``, at every entry: see ``units``.

    ``name`` is "relu" or one of the smooth ``UNITS``; ``options`` are its numbers.
    """

    name: str
    options: tuple[float, ...] = ()

    def __call__(self, values: Tensor) -> Tensor:
        """Return the unit's value at ``values``."""
        return UNITS[self.name](values, *self.options)


Op = Input | Affine | Sum | Concat | Unit


@dataclass(frozen=True)
class Node:
    """One ``op``, the numbers of the nodes that it reads, the shape of its output.

    ``shape`` is without batch; ``name`` is the network's own name for it.
    """

    op: Op
    inputs: tuple[int, ...]
    shape: Shape
    name: str = ""


@dataclass(frozen=True)
class Graph:
    """``nodes`` in an order in which each reads only earlier ones; the last is output.

    Node 0 is the input, and the only one. Weights are float64 unless ``to`` was asked.
    """

    nodes: tuple[Node, ...]

    @property
    def inside(self) -> Shape:
        """The shape of one input."""
        return self.nodes[0].shape

    @property
    def outside(self) -> Shape:
        """The shape of one output."""
        return self.nodes[-1].shape

    def __call__(self, x: Tensor) -> Tensor:
        """Return the network's outputs (N, *outside) at ``x`` (N, *inside)."""
        return self.values(x)[-1]

    def values(self, x: Tensor) -> list[Tensor]:
        """Return the value of every node at ``x`` (N, *inside), in order.

        Raises ``ValueError`` for inputs of another shape.
        """
        if tuple(x.shape[1:]) != self.inside:
            raise ValueError(f"inputs of {tuple(x.shape[1:])}, not {self.inside}")
        found: list[Tensor] = []
        for node in self.nodes:
            found.append(evaluate(node, [found[i] for i in node.inputs], x))
        return found

    def to(self, like: Tensor) -> "Graph":
        """Return the graph with its numbers in dtype and on the device of ``like``."""
        return Graph(tuple(_moved(node, like) for node in self.nodes))

    @property
    def units(self) -> list[int]:
        """The numbers of the nodes that are not affine, in order."""
        return [i for i, n in enumerate(self.nodes) if isinstance(n.op, Unit)]

    @property
    def readers(self) -> list[list[int]]:
        """For each node the numbers of those that read it."""
        found: list[list[int]] = [[] for _ in self.nodes]
        for k, node in enumerate(self.nodes):
            for i in node.inputs:
                found[i].append(k)
        return found


def evaluate(node: Node, inputs: Sequence[Tensor], x: Tensor) -> Tensor:
    """Return the value of one ``node`` at its ``inputs``; of the input node, ``x``."""
    op = node.op
    if isinstance(op, Input):
        return x
    if isinstance(op, Affine):
        value = op.map.push(inputs[0])
        return value if op.bias is None else value + op.bias
    if isinstance(op, Sum):
        return torch.stack(list(inputs)).sum(0) if len(inputs) > 2 else sum(inputs)
    if isinstance(op, Concat):
        return torch.cat(list(inputs), dim=op.axis + 1)
    return op(inputs[0])


def _moved(node: Node, like: Tensor) -> Node:
    op = node.op
    if not isinstance(op, Affine):
        return node
    bias = None if op.bias is None else op.bias.to(like)
    return Node(Affine(op.map.to(like), bias), node.inputs, node.shape, node.name)


@dataclass
class Builder:
    """Grows a graph; each method adds nodes and returns the number of the last.

    ``name`` of a method: what errors call the node. Raises ``ValueError``
    for shapes that do not fit and for numbers that are NaN or infinite.
    """

    nodes: list[Node] = field(default_factory=list)

    def graph(self, output: int | None = None) -> Graph:
        """Return the graph that ends at node ``output`` (default: the last).

        Nodes that it does not need are left out, the input excepted.
        """
        output = len(self.nodes) - 1 if output is None else output
        needed = {0, output}
        for k in range(output, 0, -1):
            if k in needed:
                needed.update(self.nodes[k].inputs)
        order = sorted(needed)
        new = {old: k for k, old in enumerate(order)}
        return Graph(
            tuple(
                Node(n.op, tuple(new[i] for i in n.inputs), n.shape, n.name)
                for n in (self.nodes[k] for k in order)
            )
        )

    def shape(self, node: int) -> Shape:
        """Return the shape of ``node``, without batch."""
        return self.nodes[node].shape

    def _add(
        self, op: Op, inputs: Sequence[int], shape: Sequence[int], name: str
    ) -> int:
        self.nodes.append(Node(op, tuple(inputs), tuple(shape), name))
        return len(self.nodes) - 1

    # ------------------------------------------------------------- affine maps

    def input(self, shape: Sequence[int], name: str = "input") -> int:
        """Add the input ``name``, of ``shape`` without batch.

        Raises ``ValueError`` unless it comes first.
        """
        if self.nodes:
            raise ValueError("a graph has one input, and it comes first")
        return self._add(Input(), (), shape, name)

    def affine(
        self, node: int, linear: Map, bias: Tensor | None = None, name: str = ""
    ) -> int:
        """Add ``linear`` of ``node`` plus ``bias``, which broadcasts; its ``name``.

        Raises ``ValueError`` for shapes that do not fit and numbers that are not
        finite.
        """
        if linear.inside != self.shape(node):
            raise ValueError(f"inputs of {self.shape(node)}, not {linear.inside}")
        for part in (getattr(linear, "weight", None), getattr(linear, "factor", None)):
            _check_finite(part, name)
        if bias is not None:
            _check_finite(bias, name)
            bias = bias.detach().double().expand(linear.outside).contiguous()
        return self._add(Affine(linear, bias), (node,), linear.outside, name)

    def reshape(self, node: int, shape: Sequence[int], name: str = "") -> int:
        """Add ``node`` read in another ``shape``; its ``name``."""
        if tuple(shape) == self.shape(node):
            return node
        return self.affine(node, Reshape(self.shape(node), tuple(shape)), name=name)

    def pick(self, node: int, index: Tensor, name: str = "") -> int:
        """Add the entries of ``node`` at ``index`` (see ``Pick``); its ``name``."""
        return self.affine(node, Pick(index, self.shape(node)), name=name)

    def places(self, node: int) -> Tensor:
        """Return the place of each entry of ``node``, to be cut and fed to ``pick``."""
        return flat_places(self.shape(node))

    def scale(
        self, node: int, factor: Tensor | float, shift: Tensor | float | None = None,
        name: str = "",
    ) -> int:  # fmt: skip
        """Add ``factor`` times ``node`` plus ``shift``; both broadcast; ``name``."""
        factor = torch.as_tensor(factor, dtype=torch.float64).detach()
        shape = np.broadcast_shapes(factor.shape, self.shape(node))
        if shift is not None:
            shift = torch.as_tensor(shift, dtype=torch.float64).detach()
            shape = np.broadcast_shapes(shape, shift.shape)
        node = self.expand(node, shape, name)
        return self.affine(node, Scale(factor, tuple(shape)), shift, name)

    def expand(self, node: int, shape: Sequence[int], name: str = "") -> int:
        """Add ``node`` broadcast to ``shape``; its ``name``."""
        if tuple(shape) == self.shape(node):
            return node
        return self.pick(node, self.places(node).expand(*shape).contiguous(), name)

    def matrix(
        self, node: int, weight: Tensor, bias: Tensor | None = None, axis: int = -1,
        name: str = "",
    ) -> int:  # fmt: skip
        """Add ``weight`` times ``node`` along ``axis``, plus ``bias``; its ``name``."""
        weight = weight.detach().double()
        return self.affine(node, Matrix(weight, self.shape(node), axis), bias, name)

    def mean(self, node: int, axes: Sequence[int], name: str = "") -> int:
        """Add the mean of ``node`` over ``axes``, which stay; its ``name``."""
        for axis in axes:
            n = self.shape(node)[axis]
            row = torch.full((1, n), 1 / n, dtype=torch.float64)
            node = self.matrix(node, row, axis=axis, name=name)
        return node

    def sum(self, nodes: Sequence[int], name: str = "") -> int:
        """Add the sum of several ``nodes``, whose shapes broadcast; its ``name``."""
        shape = np.broadcast_shapes(*(self.shape(n) for n in nodes))
        nodes = [self.expand(n, shape, name) for n in nodes]
        return nodes[0] if len(nodes) == 1 else self._add(Sum(), nodes, shape, name)

    def difference(self, first: int, second: int, name: str = "") -> int:
        """Add ``first`` minus ``second``, whose shapes broadcast; its ``name``."""
        return self.sum([first, self.scale(second, -1.0, name=name)], name)

    def concat(self, nodes: Sequence[int], axis: int, name: str = "") -> int:
        """Add the ``nodes`` joined along ``axis``, counted without batch; its ``name``.

        Raises ``ValueError`` for shapes that differ elsewhere.
        """
        shapes = [list(self.shape(n)) for n in nodes]
        axis %= len(shapes[0])
        total = sum(shape.pop(axis) for shape in shapes)
        if any(shape != shapes[0] for shape in shapes):
            raise ValueError(f"{name or 'concat'}: shapes differ off axis {axis}")
        shape = [*shapes[0][:axis], total, *shapes[0][axis:]]
        return self._add(Concat(axis), nodes, shape, name)

    # --------------------------------------------------- units and their kin

    def unit(self, node: int, kind: str, *options: float, name: str = "") -> int:
        """Add the unit ``kind``, with its ``options``, of ``node``; its ``name``.

        Raises ``ValueError`` for a kind that is none of ``UNITS``.
        """
        if kind not in UNITS:
            raise ValueError(f"no unit {kind!r}: there are {sorted(UNITS)}")
        return self._add(Unit(kind, options), (node,), self.shape(node), name)

    def relu(self, node: int, name: str = "") -> int:
        """Add max(z, 0) of ``node`` z; its ``name``."""
        return self.unit(node, "relu", name=name)

    def leaky_relu(self, node: int, slope: Tensor | float, name: str = "") -> int:
        """Add slope z + (1 - ``slope``) ReLU(z) of ``node`` z; its ``name``."""
        slope = torch.as_tensor(slope, dtype=torch.float64)
        on = self.scale(self.relu(node, name), 1 - slope, name=name)
        return self.sum([self.scale(node, slope, name=name), on], name)

    def maximum(self, first: int, second: int, name: str = "") -> int:
        """Add b + ReLU(a - b), of ``first`` a and ``second`` b; its ``name``."""
        over = self.relu(self.difference(first, second, name), name)
        return self.sum([second, over], name)

    def minimum(self, first: int, second: int, name: str = "") -> int:
        """Add b - ReLU(b - a), of ``first`` a and ``second`` b; its ``name``."""
        under = self.relu(self.difference(second, first, name), name)
        return self.difference(second, under, name)

    def absolute(self, node: int, name: str = "") -> int:
        """Add 2 ReLU(z) - z, the absolute value of ``node`` z; its ``name``."""
        twice = self.scale(self.relu(node, name), 2.0, name=name)
        return self.difference(twice, node, name)

    def clamp(
        self, node: int, low: Tensor | float | None, high: Tensor | float | None,
        name: str = "",
    ) -> int:  # fmt: skip
        """Add ``node`` z cut to ``low`` .. ``high``; its ``name``.

        low + ReLU(z - low), then high - ReLU(high - z): the upper end is cut last, as
        torch does. None: no end on that side.
        """
        if low is not None:
            low = torch.as_tensor(low, dtype=torch.float64)
            node = self.relu(self.scale(node, 1.0, -low, name), name)
            node = self.scale(node, 1.0, low, name)
        if high is not None:
            high = torch.as_tensor(high, dtype=torch.float64)
            node = self.relu(self.scale(node, -1.0, high, name), name)
            node = self.scale(node, -1.0, high, name)
        return node

    def max_pool(
        self, node: int, kernel: Sequence[int], stride: Sequence[int],
        padding: Sequence[tuple[int, int]], dilation: Sequence[int], *,
        ceil: bool = False, name: str = "",
    ) -> int:  # fmt: skip
        """Add the maximum over windows of the last axes of ``node``; its ``name``.

        ``kernel``, ``stride``, ``padding`` (before and behind) and ``dilation`` have
        one entry an axis, and one axis is taken after the other.

        The padding is never the maximum, so a window's entry outside stands for one
        inside. ``ceil``: windows that begin inside or in the padding before and reach
        beyond the end count, as in torch. Raises ``ValueError`` for a window that does
        not fit or lies in the padding.
        """
        first = len(self.shape(node)) - len(kernel)
        for i, k in enumerate(kernel):
            options = k, stride[i], padding[i], dilation[i], ceil
            node = self._pool_axis(node, first + i, options, name)
        return node

    def _pool_axis(self, node: int, axis: int, options: tuple, name: str) -> int:
        """The maximum over windows along one ``axis``, as a tournament."""
        n, places = self.shape(node)[axis], self.places(node)
        try:
            at = pooling_places(n, *options)
        except ValueError as error:
            raise ValueError(f"{name or 'max pooling'}: {error}") from None
        k, inside = at.shape[1], (at >= 0) & (at < n)
        some = at.gather(1, inside.int().argmax(1, keepdim=True))
        at = torch.where(inside, at, some)
        if k == 1:
            return self.pick(node, places.index_select(axis, at[:, 0]), name)
        rows = [
            self.pick(node, places.index_select(axis, at[:, j]), name) for j in range(k)
        ]
        while len(rows) > 1:
            odd = rows[len(rows) // 2 * 2 :]
            pairs = zip(rows[0::2], rows[1::2], strict=False)
            rows = [self.maximum(a, b, name) for a, b in pairs] + odd
        return rows[0]


def _check_finite(numbers: Tensor | None, name: str) -> None:
    if numbers is not None and not math.isfinite(numbers.detach().abs().sum().item()):
        where = f" of {name}" if name else ""
        raise ValueError(f"the numbers{where} hold NaN or infinity, or are too large")
