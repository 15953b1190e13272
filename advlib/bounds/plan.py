"""A network laid out for the two walks: its steps, their shapes, their ReLUs."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count

import torch
from torch import Tensor, nn

from advlib._check import check_dtype, check_model, model_dtype
from advlib.networks import gate
from advlib.networks.canonical import canonical, output_shape, with_weights
from advlib.networks.layers import Residual

Box = tuple[Tensor, Tensor]

BUDGET = 2_000_000  # numbers in the largest temporary: bounds memory, and fits a cache


@dataclass(frozen=True)
class Step:
    """One layer, the shape of its input, the number of its ReLU, its branches."""

    layer: nn.Module
    shape: tuple[int, ...]
    index: int = -1
    body: "tuple[Step, ...]" = ()
    shortcut: "tuple[Step, ...]" = ()


Steps = Sequence[Step]


def plan_steps(
    model: nn.Module, shape: Sequence[int], x: Tensor | None = None
) -> tuple[Step, ...]:
    """Return ``model`` in canonical form as steps, for one input of ``shape``.

    ``x`` (N, *shape): inputs at which it is compared with the model itself. Raises what
    ``networks.canonical`` and ``networks.gate.compare`` raise, and ``TypeError`` for
    inputs of another dtype than the network.
    """
    check_model(model)
    if x is not None and x.dtype != model_dtype(model):
        check_dtype(model, x)
    net = canonical(model, shape)
    if x is not None:
        gate.compare(model, net, x)
    return _steps(net, tuple(shape), count())


def _steps(
    net: nn.Sequential, shape: tuple[int, ...], numbers: Iterator[int]
) -> tuple[Step, ...]:
    steps = []
    for layer in net:
        if isinstance(layer, Residual):
            branches = [_steps(b, shape, numbers) for b in (layer.body, layer.shortcut)]
            steps.append(Step(layer, shape, -1, *branches))
        else:
            index = next(numbers) if isinstance(layer, nn.ReLU) else -1
            steps.append(Step(layer, shape, index))
        shape = output_shape(layer, shape)
    return tuple(steps)


def count_classes(steps: Steps) -> int:
    """Return the number of logits after ``steps``; refuse another end.

    Raises ``ValueError``.
    """
    if not steps:
        raise ValueError("the model returns its input, not one row of logits per image")
    shape = output_shape(steps[-1].layer, steps[-1].shape)
    if len(shape) != 1:
        raise ValueError(f"the model returns {shape}, not one row of logits per image")
    return shape[0]


def frozen(steps: Steps) -> tuple[Step, ...]:
    """Return ``steps`` with detached parameters: no gradient is computed for them."""
    return tuple(
        replace(
            step,
            layer=_detached(step.layer),
            body=frozen(step.body),
            shortcut=frozen(step.shortcut),
        )
        for step in steps
    )


def _detached(layer: nn.Module) -> nn.Module:
    if not isinstance(layer, (nn.Linear, nn.Conv2d)):
        return layer
    bias = None if layer.bias is None else layer.bias.detach()
    return with_weights(layer, layer.weight.detach(), bias)


def _relu_shapes(steps: Steps) -> list[tuple[int, ...]]:
    """Return the shape of what enters each ReLU, in the order of their numbers."""
    shapes = []
    for s in steps:
        own = [s.shape] if s.index >= 0 else []
        shapes += own + _relu_shapes(s.body) + _relu_shapes(s.shortcut)
    return shapes


def check_pre(steps: Steps, pre: Sequence[Box], n: int) -> None:
    """Refuse ``pre`` unless it is a pair (``n``, *layer) per ReLU of ``steps``.

    With lower <= upper everywhere, but for rounding, which refuses NaN. Raises
    ``ValueError``, and ``TypeError`` for ends of several dtypes.
    """
    want = [(n, *shape) for shape in _relu_shapes(steps) for _ in (0, 1)]
    if [tuple(end.shape) for pair in pre for end in pair] != want:
        raise ValueError("pre needs one pair of bounds (N, *layer) per ReLU")
    ends = {end.dtype for pair in pre for end in pair}
    if len(ends) > 1 or not all(dtype.is_floating_point for dtype in ends):
        raise TypeError(f"pre must be of one floating dtype, not {ends}")
    for i, (low, up) in enumerate((low.detach(), up.detach()) for low, up in pre):
        slack = 16 * torch.finfo(low.dtype).eps * (low.abs() + up.abs())  # of rounding
        if not (low <= up + slack).all():  # refuses NaN, too
            raise ValueError(
                f"pre is no bound: before ReLU {i} a lower end is above its upper end, "
                "or NaN"
            )


def check_corners(lower: Tensor, upper: Tensor) -> None:
    """Refuse corners that cross, hold NaN, or differ in shape: ``lower``, ``upper``.

    Raises ``ValueError``.
    """
    if lower.shape != upper.shape or not (lower <= upper).all():  # refuses NaN, too
        raise ValueError("need two corners of equal shape, lower <= upper everywhere")


def largest_layer(steps: Steps) -> int:
    """Return the size of the largest layer of ``steps``, hidden in branches or not."""
    inner = [largest_layer(branch) for s in steps for branch in (s.body, s.shortcut)]
    return max([math.prod(s.shape) for s in steps] + inner, default=1)
