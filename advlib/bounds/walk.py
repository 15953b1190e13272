"""The backward walk: linear functions pulled through the layers, to the input.

At a ReLU each unit is replaced by a line below or a line above it, whichever keeps the
function a lower bound, and at the input the minimum over the box is a formula.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advlib.bounds import plan
from advlib.bounds.plan import Box, Steps, largest_layer
from advlib.networks.canonical import output_shape


@dataclass(frozen=True)
class Relaxation:
    """Two lines around each ReLU: lower * z <= ReLU(z) <= upper * z + offset.

    ``free`` is 1 where the lower slope may be any number in [0, 1], else 0.
    """

    lower: Tensor
    upper: Tensor
    offset: Tensor
    free: Tensor


def relaxation(lower: Tensor, upper: Tensor, *, rule: str = "crown") -> Relaxation:
    """Return the lines around ReLU(z) on ``lower <= z <= upper``, of equal shapes.

    A unit with lower >= 0 is the identity, one with upper <= 0 is zero, and one whose
    bounds are NaN or infinite has lines of NaN, which prove nothing; else the line
    above joins the two ends, and the slope below is, by ``rule``, "crown": 1 if
    upper > -lower, else 0; "dual": the slope of the line above. Raises ``ValueError``
    for another rule.
    """
    if rule not in ("crown", "dual"):
        raise ValueError(f"rule {rule!r} is neither 'crown' nor 'dual'")
    unstable = (lower < 0) & (upper > 0)
    width = torch.where(unstable, upper - lower, 1.0)  # no 0 / 0 in the gradient
    slope = torch.where(unstable, upper / width, (lower >= 0).to(lower))
    slope = slope + 0 * (lower + upper)  # NaN stays NaN: such a unit is not off
    below = slope if rule == "dual" else (upper > -lower).to(lower)
    return Relaxation(
        lower=torch.where(unstable, below, slope),
        upper=slope,
        offset=torch.where(unstable, -slope * lower, 0.0),
        free=unstable.to(lower),
    )


@dataclass(frozen=True)
class Rows:
    """S linear functions per image: ``constant`` + <``weight``, value of a layer>.

    ``weight`` is (N, S, *layer). For a unit of a convolution it is only the patch
    that the unit sees, (N, S, C, h, w); ``position`` (N, S) says which of the patches
    cut out by ``stride`` and ``padding``.
    """

    weight: Tensor
    constant: Tensor
    position: Tensor | None = None
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)

    def pick(self, values: Tensor) -> Tensor:
        """Return ``values`` (N, *layer) as they face ``weight``; 0 in the padding."""
        if self.position is None:
            return values[:, None]
        (h, w), (p, q), (s, t) = self.weight.shape[-2:], self.padding, self.stride
        windows = F.pad(values, (q, q, p, p)).unfold(2, h, s).unfold(3, w, t)
        patches = windows.permute(0, 2, 3, 1, 4, 5).flatten(0, 2).flatten(1)
        each = len(patches) // len(values)  # patches per image, row by row
        first = torch.arange(0, len(patches), each, device=values.device)[:, None]
        rows = patches.index_select(0, (first + self.position).flatten())
        return rows.view(*self.position.shape, -1, h, w)

    def dense(self, shape: Sequence[int]) -> "Rows":
        """Return the same rows with weights on the whole layer, (N, S, *shape)."""
        (h, w), (p, q), (s, t) = self.weight.shape[-2:], self.padding, self.stride
        high, wide = shape[1] + 2 * p, shape[2] + 2 * q
        across = (wide - w) // t + 1
        corner = (self.position // across) * s * wide + (self.position % across) * t
        down = torch.arange(h, device=corner.device) * wide
        inside = (down[:, None] + torch.arange(w, device=corner.device)).flatten()
        index = (corner[..., None] + inside)[:, :, None].expand(self._flat().shape)
        whole = self.weight.new_zeros(*index.shape[:3], high * wide)
        whole = whole.scatter(3, index, self._flat()).unflatten(3, (high, wide))
        cut = whole[..., p : p + shape[1], q : q + shape[2]]
        return Rows(cut, self.constant)

    def _flat(self) -> Tensor:
        return self.weight.flatten(3)

    def dot(self, weight: Tensor, values: Tensor) -> Tensor:
        """Return <``weight``, ``values``> for each row (N, S)."""
        if self.position is None:
            return (weight.flatten(2) @ values.flatten(1)[..., None])[..., 0]
        return (weight * self.pick(values)).flatten(2).sum(-1)


def _through_relu(
    rows: Rows, line: Relaxation, slopes: Tensor | None, push: Tensor | None
) -> Rows:
    weight, upper = rows.weight, rows.pick(line.upper)
    if slopes is None:
        lower = rows.pick(line.lower)
    else:
        free = rows.pick(line.free)
        lower = _facing(slopes, rows) * free + upper * (1 - free)
    constant = rows.constant + rows.dot(weight.clamp(max=0), line.offset)
    weight = torch.where(weight > 0, lower, upper) * weight
    if push is not None:
        weight = weight + _facing(push, rows)
    return replace(rows, weight=weight, constant=constant)


def _facing(values: Tensor, rows: Rows) -> Tensor:
    """Return ``values``, one per image or one per row, as they face the weights."""
    return values if values.dim() == rows.weight.dim() else rows.pick(values)


def _through_conv(rows: Rows, layer: nn.Conv2d, shape: tuple[int, ...]) -> Rows:
    weight, n = rows.weight, rows.weight.shape[:2]
    constant = rows.constant
    if rows.position is not None and any(rows.padding):  # what lies in the padding is 0
        out = output_shape(layer, shape)[1:]
        weight = weight * rows.pick(weight.new_ones(len(weight), 1, *out))
    if layer.bias is not None:
        constant = constant + weight.sum((-2, -1)) @ layer.bias
    flat, kernel, stride = weight.flatten(0, 1), layer.weight, layer.stride
    if rows.position is not None:  # each patch becomes the patch that it sees
        flat = _patch_transpose(flat, kernel, stride, layer.groups)
        (a, b), (s, t), (p, q) = rows.stride, stride, layer.padding
        padding = (rows.padding[0] * s + p, rows.padding[1] * t + q)
        moved = {"stride": (a * s, b * t), "padding": padding}
    else:
        moved, extra = {}, []
        for i in (0, 1):  # pixels at the far edge that no filter reaches
            reach = (flat.shape[2 + i] - 1) * stride[i] + layer.kernel_size[i]
            extra.append(max(shape[1 + i] + 2 * layer.padding[i] - reach, 0))
        flat = F.conv_transpose2d(
            flat, kernel, None, stride, layer.padding, tuple(extra), layer.groups
        )
    rows = replace(rows, weight=flat.unflatten(0, n), constant=constant, **moved)
    large = rows.position is not None and flat[0, 0].numel() >= math.prod(shape[1:])
    return rows.dense(shape) if large else rows


def _patch_transpose(
    flat: Tensor, kernel: Tensor, stride: tuple[int, int], groups: int
) -> Tensor:
    """Return the transposed convolution of many small patches (R, C, h, w).

    A small patch is mapped by one small matrix, made from the unit patches: a matrix
    product is much faster here than a convolution.
    """
    size = flat[0].numel()
    if len(flat) < size or size > 1024:
        return F.conv_transpose2d(flat, kernel, None, stride, groups=groups)
    unit = torch.eye(size, dtype=flat.dtype, device=flat.device)
    unit = unit.view(size, *flat.shape[1:])
    matrix = F.conv_transpose2d(unit, kernel, None, stride, groups=groups)
    if matrix.numel() > 300_000:
        return F.conv_transpose2d(flat, kernel, None, stride, groups=groups)
    return (flat.flatten(1) @ matrix.flatten(1)).view(-1, *matrix.shape[1:])


Slopes = Callable[[int, Rows, Relaxation], Tensor]  # of ReLU i, for these rows


@dataclass(frozen=True)
class Lines:
    """What a backward walk needs at each ReLU, by its number."""

    lines: Sequence[Relaxation]
    slopes: Slopes | None = None
    pushes: Sequence[Tensor] | None = None


def pull_rows(rows: Rows, steps: Steps, at: Lines) -> Rows:
    """Pull ``rows`` from the output of the last of ``steps`` to the input of the first.

    ``at``: the lines, slopes and multipliers at each ReLU.
    """
    for step in reversed(steps):
        layer = step.layer
        if isinstance(layer, nn.ReLU):
            i = step.index
            line, push = at.lines[i], None if at.pushes is None else at.pushes[i]
            slopes = None if at.slopes is None else at.slopes(i, rows, line)
            rows = _through_relu(rows, line, slopes, push)
        elif isinstance(layer, nn.Flatten):
            n = rows.weight.shape[:2]
            rows = replace(rows, weight=rows.weight.reshape(*n, *step.shape))
        elif isinstance(layer, nn.Linear):
            constant = rows.constant
            if layer.bias is not None:
                constant = constant + rows.weight @ layer.bias
            rows = replace(rows, weight=rows.weight @ layer.weight, constant=constant)
        elif isinstance(layer, nn.Conv2d):
            rows = _through_conv(rows, layer, step.shape)
        else:
            body = pull_rows(rows, step.body, at)
            rest = replace(rows, constant=torch.zeros_like(rows.constant))
            rest = pull_rows(rest, step.shortcut, at)
            weight = body.weight + rest.weight
            constant = body.constant + rest.constant
            rows = replace(rows, weight=weight, constant=constant)
    return rows


def box_minimum(rows: Rows, lower: Tensor, upper: Tensor) -> Tensor:
    """Return the minimum of ``rows`` (N, S) over ``lower``, ``upper``: a formula."""
    center, radius = (lower + upper) / 2, (upper - lower) / 2
    value = rows.constant + rows.dot(rows.weight, center)
    return value - rows.dot(rows.weight.abs(), radius)


def _unit_rows(steps: Steps, index: Tensor, sign: Tensor) -> tuple[Rows, Steps]:
    """Return the rows ``sign`` * (unit ``index``) of the last step's output.

    ``index`` (N, S) counts units in the flattened layer; ``sign`` (N, S). Also returns
    the steps that remain: an affine layer is taken in here, by picking its rows.
    """
    layer, shape = steps[-1].layer, steps[-1].shape
    out = output_shape(layer, shape)
    zero = torch.zeros_like(sign)
    if isinstance(layer, nn.Linear):
        weight = layer.weight[index] * sign[..., None]
        constant = zero if layer.bias is None else layer.bias[index] * sign
        return Rows(weight, constant), steps[:-1]
    if all(isinstance(s.layer, (nn.Conv2d, nn.ReLU)) for s in steps) and (
        isinstance(layer, nn.Conv2d) and layer.groups == 1
    ):
        area = out[1] * out[2]
        channel, position = index // area, index % area
        weight = layer.weight[channel] * sign[..., None, None, None]
        constant = zero if layer.bias is None else layer.bias[channel] * sign
        place = {"stride": layer.stride, "padding": layer.padding}
        return Rows(weight, constant, position, **place), steps[:-1]
    units = sign.new_zeros(*sign.shape, math.prod(out))
    units = units.scatter(2, index[..., None], sign[..., None])
    return Rows(units.unflatten(-1, out), zero), steps


def _row_size(steps: Steps) -> int:
    """Return about how many numbers one unit's row needs on its way to the input."""
    if not all(isinstance(s.layer, (nn.Conv2d, nn.ReLU)) for s in steps):
        last = steps[-1]
        own = isinstance(last.layer, nn.Linear)  # whose rows are picked, see _unit_rows
        units = 1 if own else math.prod(output_shape(last.layer, last.shape))
        return max(largest_layer(steps), units)
    size, largest = (1, 1), 1
    for step in reversed(steps):
        if isinstance(step.layer, nn.Conv2d):
            size = [
                (n - 1) * s + k
                for n, s, k in zip(
                    size, step.layer.stride, step.layer.kernel_size, strict=True
                )
            ]
            largest = max(largest, step.shape[0] * math.prod(size))
    return largest


def unit_bounds(steps: Steps, index: Tensor, box: Box, at: Lines) -> Box:
    """Return bounds (N, S) of the units ``index`` (N, S) of the last of ``steps``.

    Over the ``box``; ``at``: the lines, slopes and multipliers at each ReLU.
    """
    if at.slopes is not None:  # each row has its own: no splitting
        return _rows_minimum(steps, index, box, at)
    part = max(1, plan.BUDGET // (2 * len(index) * _row_size(steps)))
    parts = [_rows_minimum(steps, i, box, at) for i in index.split(part, dim=1)]
    return torch.cat([p[0] for p in parts], 1), torch.cat([p[1] for p in parts], 1)


def _rows_minimum(steps: Steps, index: Tensor, box: Box, at: Lines) -> Box:
    plus = torch.ones_like(index, dtype=box[0].dtype)
    sign = torch.cat([plus, -plus], 1)
    rows, rest = _unit_rows(steps, torch.cat([index, index], 1), sign)
    low = box_minimum(pull_rows(rows, rest, at), *box)
    return low[:, : index.shape[1]], -low[:, index.shape[1] :]
