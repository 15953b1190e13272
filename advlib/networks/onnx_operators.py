"""What each ONNX operator is in a graph: affine maps, sums, ReLUs and smooth units.

``RULES`` has a function for each operator that has a rule; operators that only move
entries about are in ``onnx_moves``. An operator or option without a rule is refused
with a ``NoRuleError`` that names the node.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from advlib.networks.graph import Unit
from advlib.networks.onnx_steps import Above, Erf, Step, Value
from advlib.networks.onnx_units import ROUNDED, UNITS_OF
from advlib.networks.onnx_windows import WINDOWS

FLOATS = {1, 11}  # float and double, as ONNX numbers its types


# ------------------------------------------------------------------- sums, factors


def _total(step: Step, factors: list[float]) -> int:
    """The inputs, each times its factor, added up."""
    weights: dict[int, float] = {}
    shift, shapes = None, [step.shape(i) for i in range(len(factors))]
    for i, factor in enumerate(factors):
        if step.is_variable(i):
            node = step.variable(i)
            weights[node] = weights.get(node, 0.0) + factor
        else:
            part = factor * step.numbers(i)
            shift = part if shift is None else shift + part
    builder, shape = step.builder, np.broadcast_shapes(*shapes)
    if len(weights) == 1 and 1.0 not in weights.values():
        ((node, factor),) = weights.items()
        node = builder.scale(node, factor, shift, step.name)
        return builder.expand(node, shape, step.name)
    parts = [
        node if factor == 1 else builder.scale(node, factor, name=step.name)
        for node, factor in weights.items()
    ]
    total = builder.sum(parts, step.name)
    if shift is not None:
        total = step.shift(total, shift)
    return builder.expand(total, shape, step.name)


def _add(step: Step) -> Value:
    for gate, other in ((0, 1), (1, 0)):
        erf = step.value(gate)
        if isinstance(erf, Erf):
            return Erf(erf.node, erf.factor, erf.shift + _single(step, other))
    return _total(step, [1.0, 1.0])


def _single(step: Step, i: int) -> float:
    """The constant input ``i``, one number."""
    numbers = step.numbers(i)
    if numbers.numel() != 1:
        raise step.refuse("Erf has a rule only within GELU")
    return numbers.item()


def _sum(step: Step) -> Value:
    return _total(step, [1.0] * len(step.values))


def _mean(step: Step) -> Value:
    return _total(step, [1 / len(step.values)] * len(step.values))


def _scaled(erf: Erf, by: float) -> Erf:
    return Erf(erf.node, erf.factor * by, erf.shift * by)


def _times(step: Step, node: int, factor: Tensor) -> int:
    """``factor`` times ``node``; a multiple of a multiple is one multiple."""
    known = step.multiple(node)
    if known and factor.numel() == 1 and factor.dim() <= len(step.builder.shape(node)):
        node, factor = known[0], factor.reshape(()) * known[1]
        if factor == 1:
            return node
    return step.builder.scale(node, factor, name=step.name)


def _multiply(step: Step) -> Value:
    for first, other in ((0, 1), (1, 0)):
        value = step.value(first)
        if isinstance(step.value(other), np.ndarray):
            if isinstance(value, Erf):
                return _scaled(value, _single(step, other))
            return _times(step, step.variable(first), step.numbers(other))
        if isinstance(value, Erf):
            return _gelu_of(step, value, step.variable(other))
    for first, other in ((0, 1), (1, 0)):
        silu = _silu_of(step, step.variable(first), step.variable(other))
        if silu is not None:
            return silu
    raise step.refuse(
        "both factors depend on the input; such products have a rule only as SiLU and "
        "GELU"
    )


def _gelu_of(step: Step, erf: Erf, node: int) -> int:
    """A multiple of z (1 + erf(z / sqrt 2)): GELU of z."""
    known = (node, 1.0) if node == erf.node else step.multiple(node)
    if known is None or known[0] != erf.node or erf.factor != erf.shift:
        raise step.refuse("Erf has a rule only within GELU: x / 2 * (1 + Erf(x / √2))")
    unit = step.builder.unit(erf.node, "gelu", name=step.name)
    factor = 2 * erf.factor * known[1]
    return step.builder.scale(unit, factor, name=step.name) if factor != 1 else unit


def _silu_of(step: Step, node: int, gate: int) -> int | None:
    """z times sigmoid(f z), which is silu(f z) / f, else None."""
    builder = step.builder
    if builder.nodes[gate].op != Unit("sigmoid"):
        return None
    inner = builder.nodes[gate].inputs[0]
    if inner == node:
        return builder.unit(node, "silu", name=step.name)
    known = step.multiple(inner)
    if known is None or known[0] != node or known[1] == 0:
        return None
    unit = builder.unit(inner, "silu", name=step.name)
    return builder.scale(unit, 1 / known[1], name=step.name)


def _divide(step: Step) -> Value:
    if not isinstance(step.value(1), np.ndarray):
        raise step.refuse("its divisor depends on the input; a constant has a rule")
    by = step.numbers(1)
    if (by == 0).any():
        raise ValueError(f"{step.name!r} divides by zero")
    value = step.value(0)
    if isinstance(value, Erf):
        return _scaled(value, 1 / _single(step, 1))
    return _times(step, step.variable(0), 1 / by)


# ------------------------------------------------------------------------ matrices


def _gemm(step: Step) -> Value:
    alpha, beta = step.number("alpha", 1.0), step.number("beta", 1.0)
    turned = [bool(step.integer(name, 0)) for name in ("transA", "transB")]
    if len(step.shape(0)) != 2 or len(step.shape(1)) != 2:
        raise ValueError(
            f"factors of {step.shape(0)} and {step.shape(1)}: not two axes"
        )
    left = step.is_variable(0)
    node, weight = step.variable(1 - left), alpha * step.numbers(int(left))
    if turned[1 - left]:
        node = step.pick(node, step.places(node).T)
    weight = weight.T if turned[left] else weight
    weight, axis = (weight.T, -1) if left else (weight, 0)
    product = step.builder.matrix(node, weight, axis=axis, name=step.name)
    if step.value(2) is None:
        return product
    if not step.is_variable(2):
        step.once.add(product)
        return step.shift(product, beta * step.numbers(2))
    rest = step.builder.scale(step.variable(2), beta, name=step.name)
    return step.builder.sum([product, rest], step.name)


def _matmul(step: Step) -> Value:
    """A constant matrix from the left or the right, or one for each leading index."""
    left, builder = step.is_variable(0), step.builder
    if left and step.is_variable(1):
        raise step.refuse(
            "both factors depend on the input; a constant weight has a rule"
        )
    node, weight = step.variable(1 - left), step.numbers(int(left))
    shape = _product_shape(step.shape(0), step.shape(1))
    if weight.dim() == 1:
        weight = weight[:, None] if left else weight[None]
    if len(builder.shape(node)) == 1:
        (n,) = builder.shape(node)
        node = builder.reshape(node, (1, n) if left else (n, 1), step.name)
    if math.prod(weight.shape[:-2]) == 1:
        weight = weight.reshape(weight.shape[-2:])
        weight, axis = (weight.T, -1) if left else (weight, -2)
        product = builder.matrix(node, weight, axis=axis, name=step.name)
    else:
        product = _many(step, node, weight, left)
    return builder.reshape(product, shape, step.name)


def _product_shape(first: Sequence[int], second: Sequence[int]) -> tuple[int, ...]:
    """The shape of a matrix product by the rules of numpy."""
    rows, columns = first[:-1], second[-1:] if len(second) > 1 else ()
    inner = second[-2] if columns else second[-1]
    if first[-1] != inner:
        raise ValueError(f"no product of {tuple(first)} and {tuple(second)}")
    lead = np.broadcast_shapes(rows[:-1], second[:-2])
    return (*lead, *rows[-1:], *columns)


def _many(step: Step, node: int, weight: Tensor, left: bool) -> int:
    """The products with one matrix for each leading index, entry by entry."""
    builder, (*lead, m, k) = step.builder, step.builder.shape(node)
    shape = (*lead, m, k, 1) if left else (*lead, 1, m, k)
    weight = weight[..., None, :, :] if left else weight[..., None]
    node = builder.reshape(node, shape, step.name)
    node = builder.scale(node, weight, name=step.name)
    ones = torch.ones(1, builder.shape(node)[-2])
    return builder.matrix(node, ones, axis=-2, name=step.name)


def _batch_norm(step: Step) -> Value:
    if step.integer("training_mode", 0) or not step.integer("spatial", 1):
        raise step.refuse("only inference, one number a channel, has a rule")
    step.take("momentum")
    if any(step.outputs[1:]):
        raise step.refuse("it is in training mode; export the network in eval mode")
    eps, node = step.number("epsilon", 1e-5), step.variable(0)
    scale, bias, mean, variance = (step.numbers(i) for i in (1, 2, 3, 4))
    if not (variance + eps > 0).all():
        raise ValueError(f"a variance of {step.name!r} is not positive")
    factor = scale / (variance + eps).sqrt()
    shape = step.shape(0)
    if len(shape) < 2 or any(n.shape != shape[1:2] for n in (scale, bias, mean)):
        raise ValueError(f"its numbers do not fit the channels of {shape}")
    ones = [1] * (len(shape) - 2)
    factor, shift = factor.view(-1, *ones), (bias - mean * factor).view(-1, *ones)
    return step.builder.scale(node, factor, shift, step.name)


# -------------------------------------------------------------- joining, choosing


def _concat(step: Step) -> Value:
    builder, every = step.builder, range(len(step.values))
    axis = step.axis(step.integer("axis", 0), len(step.shape(0)))
    nodes = {step.variable(i) for i in every if step.is_variable(i)}
    if len(nodes) > 1:
        parts = [
            step.variable(i) if step.is_variable(i) else step.fill(step.numbers(i))
            for i in every
        ]
        return builder.concat(parts, axis, step.name)
    (node,) = nodes
    places, shifts = [], []
    for i in every:
        own, shape = step.is_variable(i), step.shape(i)
        places.append(step.places(node) if own else np.full(shape, -1))
        shifts.append(np.zeros(shape) if own else step.numbers(i).numpy())
    shift = torch.from_numpy(np.concatenate(shifts, axis))
    node = step.pick(node, np.concatenate(places, axis))
    return builder.scale(node, 1.0, shift, step.name) if shift.any() else node


def _where(step: Step) -> Value:
    if isinstance(step.value(0), Above):
        return _softplus_of(step, step.value(0))
    chosen = step.array(0)
    if chosen.dtype != bool:
        raise step.refuse("its condition is not made of truth values")
    shape = np.broadcast_shapes(*(step.shape(i) for i in range(3)))
    chosen, parts, shift = np.broadcast_to(chosen, shape), [], np.zeros(shape)
    for i, mask in ((1, chosen), (2, ~chosen)):
        if step.is_variable(i):
            node = step.variable(i)
            places = np.broadcast_to(step.places(node), shape)
            parts.append(step.pick(node, np.where(mask, places, -1)))
        else:
            numbers = np.broadcast_to(step.numbers(i, finite=False).numpy(), shape)
            shift = np.where(mask, numbers, shift)
    node = step.builder.sum(parts, step.name)
    if not shift.any():
        return node
    return step.builder.scale(node, 1.0, torch.from_numpy(shift), step.name)


def _greater(step: Step) -> Value:
    level = step.value(1)
    if not step.is_variable(0) or not isinstance(level, np.ndarray) or level.size != 1:
        raise step.refuse("comparisons have a rule only within a softplus")
    return Above(step.variable(0), step.numbers(1).item())


def _softplus_of(step: Step, above: Above) -> int:
    """Softplus with a threshold, as torch exports it, without the threshold."""
    plain, soft = step.variable(1), step.variable(2)
    inner, back = step.multiple(soft) or (soft, 1.0)
    beta = step.multiple(above.node) or (above.node, 1.0)
    op, inputs = step.builder.nodes[inner].op, step.builder.nodes[inner].inputs
    fits = op == Unit("softplus") and inputs == (above.node,)
    fits = fits and (plain == above.node or plain == beta[0])
    scale = 1.0 if plain == above.node else beta[1]
    if not fits or abs(back * scale - 1) > ROUNDED or above.level < 20 or scale <= 0:
        raise step.refuse(
            "its condition depends on the input; that has a rule only as softplus: "
            "x if beta x > threshold else Softplus(beta x) / beta, threshold >= 20"
        )
    return soft


# ------------------------------------------------------------- what passes through


def _same(step: Step) -> Value:
    return step.value(0)


def _dropout(step: Step) -> Value:
    for name in ("ratio", "seed"):
        step.take(name)
    training = step.value(2)
    if any(step.outputs[1:]) or (training is not None and step.array(2).any()):
        raise step.refuse("it is in training mode; export the network in eval mode")
    return step.value(0)


def _cast(step: Step) -> Value:
    for name in ("saturate", "round_mode"):
        step.take(name)
    if step.integer("to", 0) not in FLOATS:
        raise step.refuse(
            "a value that depends on the input may be cast to float or double only: "
            "others round it"
        )
    return step.variable(0)


def _shape(step: Step) -> Value:
    shape = step.shape(0)
    ends = step.integer("start", 0), step.integer("end", len(shape))
    return np.array(shape[slice(*ends)], dtype=np.int64)


def _size(step: Step) -> Value:
    return np.array(math.prod(step.shape(0)), dtype=np.int64)


RULES: dict[str, Callable[[Step], Value]] = {
    **UNITS_OF,
    **WINDOWS,
    "Add": _add,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Concat": _concat,
    "Div": _divide,
    "Dropout": _dropout,
    "Gemm": _gemm,
    "Greater": _greater,
    "Identity": _same,
    "MatMul": _matmul,
    "Mean": _mean,
    "Mul": _multiply,
    "Neg": lambda step: _total(step, [-1.0]),
    "Shape": _shape,
    "Size": _size,
    "Sub": lambda step: _total(step, [1.0, -1.0]),
    "Sum": _sum,
    "Where": _where,
}
