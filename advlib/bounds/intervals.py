"""The forward walk: a box goes in and a box comes out (interval arithmetic)."""

import torch.nn.functional as F
from torch import Tensor, nn

from advlib.bounds.margins import batched_margins
from advlib.bounds.plan import Box, Step, Steps, check_corners, plan_steps
from advlib.bounds.walk import Rows, box_minimum


def _affine_interval(layer: nn.Module, lower: Tensor, upper: Tensor) -> Box:
    """Map a box by its centre and radius: exact for one Linear or Conv2d."""
    center, radius = (lower + upper) / 2, (upper - lower) / 2
    weight = layer.weight.abs()
    if isinstance(layer, nn.Linear):
        radius = F.linear(radius, weight)
    else:
        options = layer.stride, layer.padding, layer.dilation, layer.groups
        radius = F.conv2d(radius, weight, None, *options)
    center = layer(center)
    return center - radius, center + radius


def step_interval(step: Step, lower: Tensor, upper: Tensor) -> Box:
    """Return the box of the output of ``step`` on the box ``lower``, ``upper``."""
    if isinstance(step.layer, (nn.Flatten, nn.ReLU)):  # monotone: map the corners
        return step.layer(lower), step.layer(upper)
    if isinstance(step.layer, (nn.Linear, nn.Conv2d)):
        return _affine_interval(step.layer, lower, upper)
    body = _last(step.body, lower, upper)
    shortcut = _last(step.shortcut, lower, upper)
    return body[0] + shortcut[0], body[1] + shortcut[1]


def _last(steps: Steps, lower: Tensor, upper: Tensor) -> Box:
    for step in steps:
        lower, upper = step_interval(step, lower, upper)
    return lower, upper


def interval_bounds(model: nn.Module, lower: Tensor, upper: Tensor) -> list[Box]:
    """Propagate the box from ``lower`` to ``upper`` through ``model`` (IBP).

    ``lower``, ``upper`` (N, ...) in the units of the network input. Returns one
    (lower, upper) pair per layer of ``models.canonical``, the box of its *output*;
    the last one bounds the logits. Sound up to rounding; exact for one affine layer,
    else loose. Differentiable in the parameters. Raises ``ValueError`` unless
    ``lower <= upper``, and what ``canonical`` raises: a guessed bound is not a bound.
    Gowal et al. 2018, arXiv:1810.12715.
    """
    check_corners(lower, upper)
    boxes = []
    for step in plan_steps(model, lower.shape[1:], (lower + upper) / 2):
        lower, upper = step_interval(step, lower, upper)
        boxes.append((lower, upper))
    return boxes


def fold_last(steps: Steps, spec: Tensor, box: Box) -> Tensor:
    """Return the minimum of each row of ``spec`` over a ``box`` before last ``steps``.

    ``steps``: nothing, or one linear layer, which is folded into the rows. Rows that
    are differences of two logits share their weights: one table serves all images.
    """
    if not steps:
        return box_minimum(Rows(spec, spec.new_zeros(spec.shape[:2])), *box)
    layer = steps[0].layer
    center, radius = (box[0] + box[1]) / 2, (box[1] - box[0]) / 2
    table = (layer.weight[:, None] - layer.weight).abs().flatten(0, 1)
    reach = F.linear(radius, table)  # (N, K * K)
    pair = spec.argmax(2) * len(layer.weight) + spec.argmin(2)
    value = (spec @ layer(center)[..., None])[..., 0]
    return value - reach.gather(1, pair)


def before_logits(steps: Steps) -> int:
    """Return how many ``steps`` come before a last linear layer, else all."""
    return len(steps) - isinstance(steps[-1].layer, nn.Linear)


def _interval_spec(steps: Steps, spec: Tensor, box: Box, _: list[Box] | None) -> Tensor:
    last = before_logits(steps)
    return fold_last(steps[last:], spec, _last(steps[:last], *box))


def interval_margins(
    model: nn.Module, x: Tensor, y: Tensor, eps: float, *, box: bool = True
) -> Tensor:
    """Return lower bounds on z_y - z_j over the ball by intervals: (N, K).

    ``model``: in eval mode; ``x`` (N, ...) in [0, 1], ``y`` (N,) int64, ``eps`` in
    units of ``x``, with ``box`` cut to [0, 1]. The last linear layer is folded into the
    difference of two logits, which is tighter than the difference of two intervals.
    Column y is 0. Sound up to rounding, differentiable in the parameters. Raises
    ``ValueError`` or ``TypeError`` for bad input and unknown layers. Gowal et al. 2018,
    arXiv:1810.12715.
    """
    return batched_margins(model, x, y, eps, box, None, _interval_spec)
