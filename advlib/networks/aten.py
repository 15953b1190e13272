"""The operators of torch as nodes of a graph: one rule for each.

Whatever a module calls, torch runs a few hundred operators, its ATen library. A rule is
given one call (``Call``) and adds nodes to the graph that compute the same. Here are
those of arithmetic, products and sums; those of functions of one variable and maxima
are in ``functions``, those of convolutions, pooling and what moves numbers in
``windows``. There are none for what is neither piecewise linear nor one of the smooth
``units``; ``HELP`` says what would help.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from advlib.networks.graph import Builder, Unit
from advlib.networks.maps import Pick, Shape
from advlib.networks.units import UNITS


@dataclass(frozen=True)
class Variable:
    """A value that depends on the input: its ``node``, its ``shape`` with batch."""

    node: int
    shape: Shape


@dataclass(frozen=True)
class Call:
    """One operator's call for one sample: what a rule is given.

    ``op`` the operator; ``given`` its arguments by name, defaults included: each tensor
    a ``Variable``, or its numbers in float64 if it does not depend on the input;
    ``shape`` of the result with batch, which is 1; ``name`` for the new nodes.
    """

    builder: Builder
    op: torch._ops.OpOverload
    given: dict[str, object]
    shape: Shape
    name: str

    def __getitem__(self, key: str) -> object:
        """Return the argument ``key``."""
        return self.given[key]

    def get(self, key: str, default: object = None) -> object:
        """Return the argument ``key``, or ``default`` if the operator has none."""
        return self.given.get(key, default)

    def variable(self, key: str = "self") -> Variable:
        """Return the argument ``key``; raises ``ValueError`` if it is constant."""
        value = self.given[key]
        if not isinstance(value, Variable):
            raise ValueError(f"its {key} does not depend on the input, others do")
        return value

    def constant(self, key: str) -> Tensor | float | None:
        """Return the numbers ``key``, as ``aside``; raises ``ValueError`` for others.

        A number is returned as a float, None as None.
        """
        value = self.given[key]
        if isinstance(value, Variable):
            raise ValueError(f"its {key} depends on the input: only a constant is read")
        return value if value is None else self.aside(value)

    def aside(self, value: Tensor | float) -> Tensor | float:
        """Return ``value`` without batch, to be used with a result of ``shape``."""
        if not isinstance(value, Tensor):
            return float(value)
        same = self.shape[:1] == (1,) and value.dim() == len(self.shape)
        return value[0] if same else value

    def full(self, value: Variable) -> int:
        """Return the node of ``value`` in its shape with batch."""
        return self.builder.reshape(value.node, value.shape, self.name)

    def axes(self, value: Variable, dims: Sequence[int]) -> list[int]:
        """Return the ``dims`` of ``value`` as axes of its node; the batch has none."""
        less = int(value.shape[:1] == (1,))
        at = {d % len(value.shape) for d in dims} if value.shape else set()
        return sorted(d - less for d in at if d >= less)


Rule = Callable[[Call], int]


def sample(shape: Sequence[int]) -> Shape:
    """Return ``shape`` without its batch of 1, as nodes have it."""
    return tuple(shape[1:] if tuple(shape[:1]) == (1,) else shape)


def constant(builder: Builder, values: Tensor, shape: Shape, name: str) -> int:
    """Return a node of ``shape`` that has the ``values``, whatever the input is.

    Made by ``builder`` under ``name``.
    """
    nowhere = Pick(torch.full(shape, -1), builder.shape(0))
    return builder.affine(0, nowhere, values.reshape(shape), name)


def picked(builder: Builder, node: int, index: Tensor, name: str) -> int:
    """Return the entries of ``node`` at the places ``index``.

    Made by ``builder`` under ``name``, and as simple as may be.
    """
    places = builder.places(node).flatten()
    if torch.equal(index.flatten(), places):
        return builder.reshape(node, index.shape, name)
    return builder.pick(node, index, name)


# --------------------------------------------------------------------- arithmetic


def _plus(call: Call, first: object, second: object, factor: float) -> int:
    """``first`` + ``factor`` * ``second``."""
    b, name = call.builder, call.name
    if isinstance(first, Variable) and isinstance(second, Variable):
        other = second.node if factor == 1 else b.scale(second.node, factor, name=name)
        return b.sum([first.node, other], name)
    if isinstance(first, Variable):
        return b.scale(first.node, 1.0, factor * call.aside(second), name)
    return b.scale(second.node, factor, call.aside(first), name)


def _add(call: Call) -> int:
    return _plus(call, call["self"], call["other"], call.get("alpha", 1))


def _subtract(call: Call) -> int:
    return _plus(call, call["self"], call["other"], -call.get("alpha", 1))


def _subtract_from(call: Call) -> int:
    if call.get("alpha", 1) != 1:
        raise ValueError("only with alpha = 1")
    return _plus(call, call["other"], call["self"], -1)


def _multiply(call: Call) -> int:
    first, second, b = call["self"], call["other"], call.builder
    if not isinstance(first, Variable):
        first, second = second, first
    if not isinstance(second, Variable):
        return b.scale(first.node, call.aside(second), name=call.name)
    for one, other in ((first.node, second.node), (second.node, first.node)):
        gate = b.nodes[other]
        if gate.op == Unit("sigmoid") and gate.inputs == (one,):
            return b.unit(one, "silu", name=call.name)
    raise ValueError(
        "it multiplies two values that both depend on the input, which is neither "
        "piecewise linear nor a unit of one variable; only z * sigmoid(z) is read"
    )


def _divide(call: Call) -> int:
    if call.get("rounding_mode") is not None:
        raise ValueError("it rounds")
    if isinstance(call["other"], Variable):
        raise ValueError("it divides by a value that depends on the input")
    other = torch.as_tensor(call.constant("other"), dtype=torch.float64)
    return call.builder.scale(call.variable().node, 1 / other, name=call.name)


def _negative(call: Call) -> int:
    return call.builder.scale(call.variable().node, -1.0, name=call.name)


def _where(call: Call) -> int:
    """A constant choice between two values."""
    chosen = call.constant("condition").double()
    parts, b = [], call.builder
    for key, mask in (("self", chosen), ("other", 1 - chosen)):
        value = call[key]
        if isinstance(value, Variable):
            parts.append(b.scale(value.node, mask, name=call.name))
        else:
            value = torch.as_tensor(call.aside(value), dtype=torch.float64)
            values, shape = torch.where(mask.bool(), value, 0.0), sample(call.shape)
            parts.append(constant(b, values.expand(shape), shape, call.name))
    return b.sum(parts, call.name)


def _masked_fill(call: Call) -> int:
    mask = torch.as_tensor(call.constant("mask"))
    value = torch.as_tensor(call.constant("value"), dtype=torch.float64)
    filled, node = torch.where(mask, value, 0.0), call.variable().node
    return call.builder.scale(node, (~mask).double(), filled, name=call.name)


def _same(call: Call) -> int:
    return call.variable().node


# ------------------------------------------------------------------ products, sums


def _product(call: Call, first: object, second: object, bias: Tensor | None) -> int:
    """The product of two matrices, one of them constant."""
    b, name = call.builder, call.name
    if isinstance(first, Variable) and isinstance(second, Variable):
        raise ValueError(
            "it multiplies two matrices that both depend on the input, as attention "
            "does: neither piecewise linear nor a unit of one variable"
        )
    if isinstance(first, Variable):
        return b.matrix(first.node, second.T, bias, name=name)
    node = b.matrix(call.full(second), first, axis=0, name=name)
    return node if bias is None else b.scale(node, 1.0, bias, name)


def _matrices(call: Call) -> int:
    return _product(call, call["self"], call["mat2"], None)


def _matrices_plus(call: Call) -> int:
    """alpha * mat1 @ mat2 + beta * self."""
    first, second, bias = call["mat1"], call["mat2"], call["self"]
    alpha, beta, b = call["alpha"], call["beta"], call.builder
    if isinstance(bias, Variable):
        node = _product(call, first, second, None)
        parts = [
            n if factor == 1 else b.scale(n, factor, name=call.name)
            for n, factor in ((node, alpha), (bias.node, beta))
        ]
        return b.sum([b.reshape(n, sample(call.shape)) for n in parts], call.name)
    if alpha != 1:
        first, second = (
            v if isinstance(v, Variable) else v * alpha for v in (first, second)
        )
    return _product(call, first, second, beta * call.aside(bias))


def _vector(call: Call) -> int:
    """A matrix times a vector, or a vector times one."""
    first, second = call["self"], call.get("vec", call.get("tensor"))
    if isinstance(second, Variable):
        if not isinstance(first, Variable) and first.dim() == 1:
            first = first[None]
        return _product(call, first, second, None)
    return _product(call, first, second[:, None], None)


def _batches(call: Call) -> int:
    """Products of matrices, one for each entry of the first axis."""
    first, second, b = call["self"], call["mat2"], call.builder
    if isinstance(first, Variable) and isinstance(second, Variable):
        return _product(call, first, second, None)
    left = isinstance(first, Variable)
    value, numbers = (first, second.mT) if left else (second, first)
    axis, node = (-1, call.full(value)) if left else (-2, call.full(value))
    if torch.equal(numbers, numbers[:1].expand_as(numbers)):
        return b.matrix(node, numbers[0], axis=axis, name=call.name)
    places, parts = b.places(node), []
    for k, weight in enumerate(numbers):
        row = b.pick(node, places[k : k + 1], call.name)
        parts.append(b.matrix(row, weight, axis=axis, name=call.name))
    return b.concat(parts, 0, call.name)


def reduced(call: Call) -> tuple[Variable, list[int]]:
    """Return what the reduction ``call`` reduces, and along which axes."""
    value, dims = call.variable(), call.get("dim")
    if dims is None or dims == []:
        dims = range(len(value.shape))
    return value, call.axes(value, [dims] if isinstance(dims, int) else dims)


def _mean(call: Call) -> int:
    value, axes = reduced(call)
    return call.builder.mean(value.node, axes, call.name)


def _total(call: Call) -> int:
    value, axes = reduced(call)
    node = value.node
    for axis in axes:
        row = torch.ones(1, call.builder.shape(node)[axis], dtype=torch.float64)
        node = call.builder.matrix(node, row, axis=axis, name=call.name)
    return node


def _running_total(call: Call) -> int:
    value, axes = reduced(call)
    node = value.node
    for axis in axes:
        n = call.builder.shape(node)[axis]
        ones = torch.ones(n, n, dtype=torch.float64).tril()
        node = call.builder.matrix(node, ones, axis=axis, name=call.name)
    return node


RULES: dict[str, Rule] = {
    "add": _add,
    "sub": _subtract,
    "rsub": _subtract_from,
    "mul": _multiply,
    "div": _divide,
    "neg": _negative,
    "where": _where,
    "masked_fill": _masked_fill,
    "clone": _same,
    "_to_copy": _same,
    "mm": _matrices,
    "addmm": _matrices_plus,
    "mv": _vector,
    "dot": _vector,
    "bmm": _batches,
    "mean": _mean,
    "sum": _total,
    "cumsum": _running_total,
}

_NORM = (
    "it divides by a deviation of its own input, which is not piecewise linear; a "
    "batch norm in eval mode, whose statistics are numbers, is read"
)
_SMOOTH = f"it is neither piecewise linear nor one of the units {', '.join(UNITS)}"
UNKNOWN = (
    "there is no rule for it; read are sums, products with constants, convolutions, "
    "pooling, maxima, clamps, what moves numbers, and the units " + ", ".join(UNITS)
)
_LAST = (
    "as the last operator it may be left out, for the classes keep their order: "
    "graph_of(model, shape, logits=True), or a model without it"
)
_DATA = "what is computed next would depend on the input"
_LEAKY = "; a slope that changes at 0 is F.leaky_relu, a cut clamp or torch.maximum"
HELP: dict[str, str] = {
    "native_layer_norm": _NORM,
    "native_group_norm": _NORM,
    "hardswish": f"{_SMOOTH}; train with ReLU or SiLU in its place",
    "mish": f"{_SMOOTH}; train with SiLU in its place",
    "erf": f"{_SMOOTH}; is it part of a GELU, F.gelu is read",
    "exp": f"{_SMOOTH}; is it part of a sigmoid, F.sigmoid is read",
    "_softmax": f"it divides by a sum of its own inputs; {_LAST}",
    "_log_softmax": f"it divides by a sum of its own inputs; {_LAST}",
    "_local_scalar_dense": _DATA + _LEAKY,
    **dict.fromkeys(["gt", "lt", "ge", "le", "eq", "ne", "sign"], "it jumps" + _LEAKY),
    **dict.fromkeys(["round", "floor", "ceil", "trunc", "heaviside"], "it jumps"),
}
