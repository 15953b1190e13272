"""ONNX operators of one variable, and the maximum and minimum of several.

``UNITS_OF`` has a function for each of them; see ``onnx_operators``.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from advlib.networks.onnx_steps import Erf, Step

LARGE = 1e6  # constants above it would drown the digits of what they are compared with
FLOAT_MAX = 3.4028234e38  # a Clip's "no end" in old files
ROUNDED = 1e-7  # so exact is a constant such as 1 / sqrt(2) in float32


# ------------------------------------------------------------ piecewise linear units


def _relu(step: Step) -> int:
    return step.builder.relu(step.variable(0), step.name)


def _leaky_relu(step: Step) -> int:
    slope = step.number("alpha", 0.01)
    return step.builder.leaky_relu(step.variable(0), slope, step.name)


def _prelu(step: Step) -> int:
    return step.builder.leaky_relu(step.variable(0), step.numbers(1), step.name)


def _clip(step: Step) -> int:
    ends = [
        torch.tensor(float(step.take(name, sign * math.inf)), dtype=torch.float64)
        if step.value(i) is None
        else step.numbers(i, finite=False)
        for i, name, sign in ((1, "min", -1), (2, "max", 1))
    ]
    if any(end.numel() != 1 for end in ends):
        raise ValueError(f"the ends of {step.name!r} are not one number each")
    return _cut(step, step.variable(0), *(end.reshape(()) for end in ends))


def _cut(step: Step, node: int, low: Tensor | None, high: Tensor | None) -> int:
    """``node`` cut to ``low`` .. ``high``; an end that no float passes is none."""
    low = None if low is None or (low <= -FLOAT_MAX).all() else low
    high = None if high is None or (high >= FLOAT_MAX).all() else high
    for end in (low, high):
        if end is not None and not (end.abs() <= LARGE).all():
            raise step.refuse(
                f"it cuts at {end.abs().max():.3g}: beyond {LARGE:.0e} digits get lost"
            )
    return step.builder.clamp(node, low, high, step.name)


def _abs(step: Step) -> int:
    return step.builder.absolute(step.variable(0), step.name)


def _extreme(step: Step) -> int:
    """Max or Min of several inputs, which broadcast, as a tournament."""
    builder, upper = step.builder, step.kind == "Max"
    every = range(len(step.values))
    rows = list(dict.fromkeys(step.variable(i) for i in every if step.is_variable(i)))
    ends = [step.numbers(i) for i in every if not step.is_variable(i)]
    shape = np.broadcast_shapes(*(step.shape(i) for i in every))
    pair = builder.maximum if upper else builder.minimum
    while len(rows) > 1:
        rows = [*rows[2:], pair(rows[0], rows[1], step.name)]
    node = builder.expand(rows[0], shape, step.name)
    for end in ends:
        low, high = (end, None) if upper else (None, end)
        node = _cut(step, node, low, high)
    return node


def _hard_sigmoid(step: Step) -> int:
    alpha, beta = step.number("alpha", 0.2), step.number("beta", 0.5)
    node = step.builder.scale(step.variable(0), alpha, beta, step.name)
    return step.builder.clamp(node, 0.0, 1.0, step.name)


# ------------------------------------------------------------------------- smooth


def _plain(kind: str) -> Callable[[Step], int]:
    """The rule of an operator that is the unit ``kind`` without options."""

    def rule(step: Step) -> int:
        return step.builder.unit(step.variable(0), kind, name=step.name)

    return rule


def _gelu(step: Step) -> int:
    kinds = {"none": "gelu", "tanh": "gelu_tanh"}
    kind = step.take("approximate", "none")
    if kind not in kinds:
        raise step.refuse(f"the approximation {kind!r}")
    return step.builder.unit(step.variable(0), kinds[kind], name=step.name)


def _erf(step: Step) -> Erf:
    known = step.multiple(step.variable(0))
    if known is None or abs(known[1] * math.sqrt(2) - 1) > ROUNDED:
        raise step.refuse("it has a rule only within GELU: x / 2 * (1 + Erf(x / √2))")
    return Erf(known[0])


def _positive(step: Step, name: str, default: float) -> float:
    value = step.number(name, default)
    if value <= 0:
        raise step.refuse(f"{name} is {value}; it has a rule above 0")
    return value


def _elu(step: Step) -> int:
    alpha = _positive(step, "alpha", 1.0)
    return step.builder.unit(step.variable(0), "elu", alpha, name=step.name)


def _selu(step: Step) -> int:
    alpha = _positive(step, "alpha", 1.67326319217681884765625)
    gamma = step.number("gamma", 1.05070102214813232421875)
    unit = step.builder.unit(step.variable(0), "elu", alpha, name=step.name)
    return step.builder.scale(unit, gamma, name=step.name)


def _celu(step: Step) -> int:
    """alpha elu(z / alpha)."""
    alpha, builder = _positive(step, "alpha", 1.0), step.builder
    node = builder.scale(step.variable(0), 1 / alpha, name=step.name)
    unit = builder.unit(node, "elu", 1.0, name=step.name)
    return builder.scale(unit, alpha, name=step.name)


def _swish(step: Step) -> int:
    """z sigmoid(alpha z) = silu(alpha z) / alpha."""
    alpha, builder = _positive(step, "alpha", 1.0), step.builder
    node = step.variable(0)
    node = builder.scale(node, alpha, name=step.name) if alpha != 1 else node
    unit = builder.unit(node, "silu", name=step.name)
    return builder.scale(unit, 1 / alpha, name=step.name) if alpha != 1 else unit


UNITS_OF: dict[str, Callable[[Step], int | Erf]] = {
    "Abs": _abs,
    "Celu": _celu,
    "Clip": _clip,
    "Elu": _elu,
    "Erf": _erf,
    "Gelu": _gelu,
    "HardSigmoid": _hard_sigmoid,
    "LeakyRelu": _leaky_relu,
    "Max": _extreme,
    "Min": _extreme,
    "PRelu": _prelu,
    "Relu": _relu,
    "Selu": _selu,
    "Sigmoid": _plain("sigmoid"),
    "Softplus": _plain("softplus"),
    "Swish": _swish,
    "Tanh": _plain("tanh"),
}
