"""Functions of one variable and maxima, as torch's operators call them, as nodes.

A rule each, as in ``aten``: those that are piecewise linear become ReLUs.
"""

import math

from torch import Tensor

from advlib.networks.aten import Call, Rule, Variable, picked, reduced
from advlib.networks.graph import Builder

# ------------------------------------------------------------------------- maxima


def greatest(builder: Builder, node: int, index: Tensor, name: str) -> int:
    """Return the maximum of the entries of ``node`` at ``index``, over its last axis.

    ``index``: places in the flat order of ``node``. The result, made by ``builder``
    under ``name``, has the other axes.
    """
    shape, n = index.shape[:-1], index.shape[-1]
    node = picked(builder, node, index.reshape(-1, n), name)
    while n > 1:
        places, half = builder.places(node), n // 2
        parts = places[:, :half], places[:, half : 2 * half], places[:, 2 * half :]
        first, second = (builder.pick(node, part, name) for part in parts[:2])
        most = builder.maximum(first, second, name)
        if n % 2:
            most = builder.concat([most, builder.pick(node, parts[2], name)], 1, name)
        node, n = most, half + n % 2
    return builder.reshape(node, shape, name)


def _maxima(call: Call) -> int:
    return _extreme(call, *reduced(call))


def _minima(call: Call) -> int:
    value, axes = reduced(call)
    turned = call.builder.scale(value.node, -1.0, name=call.name)
    node = _extreme(call, Variable(turned, value.shape), axes)
    return call.builder.scale(node, -1.0, name=call.name)


def _extreme(call: Call, value: Variable, axes: list[int]) -> int:
    if not axes:
        return value.node
    places = call.builder.places(value.node)
    places = places.movedim(axes, list(range(-len(axes), 0)))
    index = places.flatten(-len(axes))
    return greatest(call.builder, value.node, index, call.name)


# ---------------------------------------------------------------------- functions


def _unit(kind: str) -> Rule:
    return lambda call: call.builder.unit(call.variable().node, kind, name=call.name)


def _gelu(call: Call) -> int:
    kind = {"none": "gelu", "tanh": "gelu_tanh"}[call["approximate"]]
    return _unit(kind)(call)


def _softplus(call: Call) -> int:
    beta = float(call["beta"])
    if not (beta > 0 and call["threshold"] >= 20):
        raise ValueError("only with beta > 0 and a threshold of at least 20")
    return call.builder.unit(call.variable().node, "softplus", beta, name=call.name)


def _log_sigmoid(call: Call) -> int:
    """log(sigmoid(z)) = -softplus(-z)."""
    b, name = call.builder, call.name
    node = b.unit(b.scale(call.variable().node, -1.0, name=name), "softplus", 1.0)
    return b.scale(node, -1.0, name=name)


def _elu(call: Call) -> int:
    alpha, scale = float(call["alpha"]), float(call["scale"])
    if not alpha > 0 or call["input_scale"] != 1:
        raise ValueError("only with alpha > 0 and input_scale = 1")
    node = call.builder.unit(call.variable().node, "elu", alpha, name=call.name)
    return node if scale == 1 else call.builder.scale(node, scale, name=call.name)


def _celu(call: Call) -> int:
    """alpha elu(z / alpha)."""
    alpha, b, name = float(call["alpha"]), call.builder, call.name
    if not alpha > 0:
        raise ValueError("only with alpha > 0")
    inner = b.scale(call.variable().node, 1 / alpha, name=name)
    return b.scale(b.unit(inner, "elu", 1.0, name=name), alpha, name=name)


def _leaky(call: Call) -> int:
    slope = call.constant("weight" if "weight" in call.given else "negative_slope")
    return call.builder.leaky_relu(call.variable().node, slope, call.name)


def _clamp(low: str | float | None, high: str | float | None) -> Rule:
    """Return a rule that cuts; strings name arguments, which may be infinite."""

    def rule(call: Call) -> int:
        node, ends = call.variable().node, []
        for end in (low, high):
            end = call.constant(end) if isinstance(end, str) else end
            endless = isinstance(end, float) and math.isinf(end)
            ends.append(None if endless else end)
        if isinstance(ends[0], float) and ends[0] == 0:
            node, ends[0] = call.builder.relu(node, call.name), None
        return call.builder.clamp(node, *ends, call.name)

    return rule


def _hard_sigmoid(call: Call) -> int:
    """The cut of z / 6 + 1 / 2 to 0 .. 1."""
    b, name = call.builder, call.name
    return b.clamp(b.scale(call.variable().node, 1 / 6, 0.5, name), 0.0, 1.0, name)


def _threshold(call: Call) -> int:
    if call["threshold"] != call["value"]:
        raise ValueError("it jumps: its value is not its threshold")
    return _clamp("threshold", None)(call)


def _soft_shrink(call: Call) -> int:
    """z minus the cut of z to -lambd .. lambd."""
    z, end, b = call.variable().node, float(call["lambd"]), call.builder
    return b.difference(z, b.clamp(z, -end, end, call.name), call.name)


def _absolute(call: Call) -> int:
    return call.builder.absolute(call.variable().node, call.name)


def _greater(call: Call) -> int:
    first, second, b = call["self"], call["other"], call.builder
    if isinstance(first, Variable) and isinstance(second, Variable):
        return b.maximum(first.node, second.node, call.name)
    if not isinstance(first, Variable):
        first, second = second, first
    return b.clamp(first.node, call.aside(second), None, call.name)


def _lesser(call: Call) -> int:
    first, second, b = call["self"], call["other"], call.builder
    if isinstance(first, Variable) and isinstance(second, Variable):
        return b.minimum(first.node, second.node, call.name)
    if not isinstance(first, Variable):
        first, second = second, first
    return b.clamp(first.node, None, call.aside(second), call.name)


RULES: dict[str, Rule] = {
    "amax": _maxima,
    "max": _maxima,
    "amin": _minima,
    "min": _minima,
    "relu": _unit("relu"),
    "sigmoid": _unit("sigmoid"),
    "tanh": _unit("tanh"),
    "silu": _unit("silu"),
    "gelu": _gelu,
    "softplus": _softplus,
    "log_sigmoid_forward": _log_sigmoid,
    "elu": _elu,
    "celu": _celu,
    "leaky_relu": _leaky,
    "_prelu_kernel": _leaky,
    "hardtanh": _clamp("min_val", "max_val"),
    "relu6": _clamp(0.0, 6.0),
    "clamp": _clamp("min", "max"),
    "clamp_min": _clamp("min", None),
    "clamp_max": _clamp(None, "max"),
    "hardsigmoid": _hard_sigmoid,
    "threshold": _threshold,
    "softshrink": _soft_shrink,
    "abs": _absolute,
    "maximum": _greater,
    "minimum": _lesser,
}
