"""A graph as layers: between units there is nothing but one affine map.

Layer k is z_k = b_k + the sum of M_kj a_j over its sources j, where a_j are the values
of the units of layer j, and a_0 is the input; the last layer has no units. All arrays
are flat. So a walk through a network, forward or backward, is a loop over layers and
their sources, and a skip connection is one more source. Small maps are multiplied out.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from advlib.networks.graph import Affine, Concat, Graph, Sum, Unit
from advlib.networks.maps import (
    Convolution,
    Map,
    Matrix,
    Pick,
    Reshape,
    Shape,
    Transposed,
    dense,
    flat_places,
)

SMALL = 250_000  # a matrix of so many entries is always multiplied out
GAIN = 2  # and a larger one if it costs at most so many times what its parts cost


@dataclass(frozen=True)
class Chain:
    """Several maps, the first one first."""

    maps: tuple[Map, ...]

    @property
    def inside(self) -> Shape:
        """The shape of one input."""
        return self.maps[0].inside

    @property
    def outside(self) -> Shape:
        """The shape of one output."""
        return self.maps[-1].outside

    def push(self, values: Tensor) -> Tensor:
        """Return the maps of ``values`` (N, *inside), one after the other."""
        for one in self.maps:
            values = one.push(values)
        return values

    def pull(self, rows: Tensor) -> Tensor:
        """Return the transposed maps of ``rows`` (N, *outside), the last one first."""
        for one in reversed(self.maps):
            rows = one.pull(rows)
        return rows

    def absolute(self) -> "Chain":
        """Return the chain of absolute maps, whose numbers are no smaller than |M|'s.

        So what intervals make of it is sound, if looser than the matrix would be.
        """
        return Chain(tuple(one.absolute() for one in self.maps))

    def to(self, like: Tensor) -> "Chain":
        """Return the chain in dtype and on the device of ``like``."""
        return Chain(tuple(one.to(like) for one in self.maps))


@dataclass(frozen=True)
class Total:
    """The sum of several maps of the same input."""

    maps: tuple[Map, ...]

    @property
    def inside(self) -> Shape:
        """The shape of one input."""
        return self.maps[0].inside

    @property
    def outside(self) -> Shape:
        """The shape of one output."""
        return self.maps[0].outside

    def push(self, values: Tensor) -> Tensor:
        """Return the sum of the maps of ``values`` (N, *inside)."""
        return sum(one.push(values) for one in self.maps)

    def pull(self, rows: Tensor) -> Tensor:
        """Return the sum of the transposed maps of ``rows`` (N, *outside)."""
        return sum(one.pull(rows) for one in self.maps)

    def absolute(self) -> "Total":
        """Return the sum of absolute maps, as for ``Chain``."""
        return Total(tuple(one.absolute() for one in self.maps))

    def to(self, like: Tensor) -> "Total":
        """Return the sum in dtype and on the device of ``like``."""
        return Total(tuple(one.to(like) for one in self.maps))


Form = tuple[dict[int, Map], Tensor]  # maps of sources, and a constant


@dataclass(frozen=True)
class Layer:
    """z = ``bias`` + the sum of ``sources``' maps; its values are ``unit`` of z.

    ``sources``: pairs of an earlier layer's number (0: the input) and a map from its
    flat values to the flat z; ``unit`` is None for the last layer, the outputs.
    """

    sources: tuple[tuple[int, Map], ...]
    bias: Tensor
    unit: Unit | None

    @property
    def size(self) -> int:
        """The number of units, or of outputs."""
        return len(self.bias)


@dataclass(frozen=True)
class Layered:
    """``layers`` 1, 2, ... of a network of ``size`` inputs; the last are the outputs.

    ``layers[k - 1]`` is layer k: number 0 is the input.
    """

    size: int
    layers: tuple[Layer, ...]

    @property
    def like(self) -> Tensor:
        """A tensor of the network's dtype and device."""
        return self.layers[-1].bias

    def to(self, like: Tensor) -> "Layered":
        """Return the network in dtype and on the device of ``like``."""
        moved = []
        for layer in self.layers:
            sources = tuple((j, m.to(like)) for j, m in layer.sources)
            moved.append(Layer(sources, layer.bias.to(like), layer.unit))
        return Layered(self.size, tuple(moved))

    def __call__(self, x: Tensor) -> Tensor:
        """Return the outputs (N, n) at flat inputs ``x`` (N, size)."""
        return self.inner(x)[-1]

    def inner(self, x: Tensor) -> list[Tensor]:
        """Return z of each layer (N, n) at flat inputs ``x`` (N, size), in order."""
        values, found = [x], []
        for layer in self.layers:
            z = layer.bias + sum(m.push(values[j]) for j, m in layer.sources)
            found.append(z.expand(len(x), -1))
            values.append(found[-1] if layer.unit is None else layer.unit(found[-1]))
        return found

    def followed_by(self, matrix: Tensor, inputs: Tensor, shift: Tensor) -> "Layered":
        """Return the network with outputs ``matrix`` y + ``inputs`` x + ``shift``.

        ``matrix`` (k, outputs), ``inputs`` (k, size) and ``shift`` (k,) join its last
        affine map, so nothing stands between.
        """
        last = self.layers[-1]
        top = Matrix(matrix.to(self.like), (last.size,))
        maps = {j: _settled(Chain((m, top)), self.like) for j, m in last.sources}
        if bool((inputs != 0).any()):
            skip = Matrix(inputs.to(self.like), (self.size,))
            own = maps.get(0)
            maps[0] = skip if own is None else _settled(Total((own, skip)), self.like)
        bias = top.push(last.bias[None])[0] + shift.to(self.like)
        new = replace(last, sources=tuple(sorted(maps.items())), bias=bias)
        return Layered(self.size, (*self.layers[:-1], new))


def layered(graph: Graph) -> Layered:
    """Return ``graph`` as layers, in its own dtype, inputs and outputs flat."""
    like = _like(graph)
    inside, outside = math.prod(graph.inside), math.prod(graph.outside)
    forms: list[Form] = []
    number = 0
    layers: list[Layer] = []
    for node in graph.nodes:
        if isinstance(node.op, Unit):
            layers.append(_layer(forms[node.inputs[0]], node.op, like))
            number += 1
        if isinstance(node.op, Unit) or not node.inputs:
            flat = Reshape((math.prod(node.shape),), node.shape)
            forms.append(({number: flat}, like.new_zeros(node.shape)))
        else:
            forms.append(_form(node.op, [forms[i] for i in node.inputs], node.shape))
    layers.append(_layer(forms[-1], None, like))
    assert layers[-1].size == outside
    return Layered(inside, tuple(layers))


def _like(graph: Graph) -> Tensor:
    for node in graph.nodes:
        if isinstance(node.op, Affine):
            for part in ("weight", "factor"):
                if hasattr(node.op.map, part):
                    return getattr(node.op.map, part).new_zeros(())
    return torch.zeros((), dtype=torch.float64)


def _form(op: Affine | Sum | Concat, forms: Sequence[Form], shape: Shape) -> Form:
    """Return what an affine ``op`` makes of the ``forms`` of its inputs."""
    if isinstance(op, Affine):
        maps, constant = forms[0]
        constant = op.map.push(constant[None])[0]
        constant = constant if op.bias is None else constant + op.bias
        return {j: _then(m, op.map) for j, m in maps.items()}, constant
    if isinstance(op, Concat):
        places = flat_places(shape)
        parts, begin = [], 0
        for maps, constant in forms:
            long = constant.shape[op.axis]
            index = places.narrow(op.axis, begin, long).contiguous()
            put = Transposed(Pick(index, shape))
            parts.append(({j: _then(m, put) for j, m in maps.items()}, constant))
            begin += long
        joined = torch.cat([constant for _, constant in parts], dim=op.axis)
        return _added([maps for maps, _ in parts]), joined
    total = sum(constant for _, constant in forms)
    return _added([maps for maps, _ in forms]), total


def _added(parts: Sequence[dict[int, Map]]) -> dict[int, Map]:
    found: dict[int, Map] = {}
    for maps in parts:
        for j, m in maps.items():
            found[j] = Total((found[j], m)) if j in found else m
    return found


def _then(first: Map, second: Map) -> Map:
    """Return ``first`` and then ``second``, reshapings in a row as one."""
    maps = first.maps if isinstance(first, Chain) else (first,)
    if isinstance(second, Reshape) and isinstance(maps[-1], Reshape):
        second = Reshape(maps[-1].inside, second.outside)
        maps = maps[:-1]
    return Chain((*maps, second))


def _layer(form: Form, unit: Unit | None, like: Tensor) -> Layer:
    maps, constant = form
    flat = Reshape(tuple(constant.shape), (constant.numel(),))
    sources = []
    for j, m in sorted(maps.items()):
        sources.append((j, _settled(_then(m, flat), like)))
    return Layer(tuple(sources), constant.flatten(), unit)


def _settled(linear: Map, like: Tensor) -> Map:
    """Return a flat ``linear`` map as a matrix, if that is no dearer, else as it is."""
    size = math.prod(linear.inside) * math.prod(linear.outside)
    if size > max(SMALL, GAIN * _cost(linear)):
        return linear
    return Matrix(dense(linear, like), (math.prod(linear.inside),))


def _cost(linear: Map) -> int:
    """Return how many products a ``linear`` map takes for one input."""
    if isinstance(linear, (Chain, Total)):
        return sum(_cost(one) for one in linear.maps)
    if isinstance(linear, Transposed):
        return _cost(linear.of)
    if isinstance(linear, Matrix):
        return linear.weight.shape[0] * math.prod(linear.inside)
    if isinstance(linear, Convolution):
        return math.prod(linear.outside) * linear.weight[0].numel()
    return math.prod(linear.outside)
