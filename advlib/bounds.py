"""Upper bounds on the worst case by propagation: intervals and linear functions.

Everything here bounds the *margins* z_y - z_j from below, over all inputs in a box;
so it bounds the worst case from above. Sound for the network in real arithmetic, up
to the rounding of the computation (``certificates`` closes that gap).

Two walks through the network. Forward, a box goes in and a box comes out (interval
arithmetic). Backward, a linear function of the logits is pulled through the layers
one by one; at a ReLU each unit is replaced by a line below or a line above it,
whichever keeps the function a lower bound, and at the input the minimum over the box
is a formula. The lines need bounds l <= z <= u of what enters the ReLU, and these come
from the same walk, started at that layer. Intermediate bounds that the backward walk
leaves looser than intervals are replaced by intervals, and the other way round.

A network is first rewritten by ``models.canonical``: an unknown layer is refused.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advlib._check import check_all, check_eps, check_images, check_model
from advlib.models import Residual, canonical, output_shape, with_weights

Box = tuple[Tensor, Tensor]
BUDGET = 2_000_000  # numbers in the largest temporary: bounds memory, and fits a cache


# ------------------------------------------------------------------ the input


def input_box(x: Tensor, eps: float, *, box: bool = True) -> Box:
    """Return the l-inf ball of radius ``eps`` around ``x`` (N, ...), as two corners.

    With ``box`` cut to [0, 1]. Raises ``ValueError`` or ``TypeError`` for images
    outside [0, 1] and a radius that is none.
    """
    check_images(x)
    check_eps(eps)
    lower, upper = x - eps, x + eps
    return (lower.clamp(min=0), upper.clamp(max=1)) if box else (lower, upper)


def margin_spec(y: Tensor, num_classes: int) -> Tensor:
    """Return the rows e_y - e_j for all classes j: (N, K, K), row j = y is zero.

    ``y`` (N,) int64; K = ``num_classes``. Raises ``ValueError`` if a label is not in
    0 .. K - 1.
    """
    if not ((y >= 0) & (y < num_classes)).all():
        raise ValueError(f"a label is none of the {num_classes} classes")
    rows = torch.eye(num_classes, device=y.device)
    return rows[y][:, None] - rows


def certified(margins: Tensor, y: Tensor) -> Tensor:
    """Return which images (N,) have a positive bound ``margins`` against every class.

    ``margins`` (N, K) are lower bounds, ``y`` (N,) the labels; column y is ignored.
    NaN certifies nothing.
    """
    own = F.one_hot(y, margins.shape[1]).bool()
    return (margins.masked_fill(own, torch.inf) > 0).all(1)


# ------------------------------------------------------------------- the plan


@dataclass(frozen=True)
class _Step:
    """One layer, the shape of its input, the number of its ReLU, its branches."""

    layer: nn.Module
    shape: tuple[int, ...]
    index: int = -1
    body: "tuple[_Step, ...]" = ()
    shortcut: "tuple[_Step, ...]" = ()


Steps = Sequence[_Step]


def _plan(model: nn.Module, shape: Sequence[int]) -> tuple[_Step, ...]:
    check_model(model)
    return _steps(canonical(model, shape), tuple(shape), count())


def _steps(
    net: nn.Sequential, shape: tuple[int, ...], numbers: Iterator[int]
) -> tuple[_Step, ...]:
    steps = []
    for layer in net:
        if isinstance(layer, Residual):
            branches = [_steps(b, shape, numbers) for b in (layer.body, layer.shortcut)]
            steps.append(_Step(layer, shape, -1, *branches))
        else:
            index = next(numbers) if isinstance(layer, nn.ReLU) else -1
            steps.append(_Step(layer, shape, index))
        shape = output_shape(layer, shape)
    return tuple(steps)


def _num_classes(steps: Steps) -> int:
    shape = output_shape(steps[-1].layer, steps[-1].shape)
    if len(shape) != 1:
        raise ValueError(f"the model returns {shape}, not one row of logits per image")
    return shape[0]


def _frozen(steps: Steps) -> tuple[_Step, ...]:
    """Return the steps with detached parameters: no gradient is computed for them."""
    return tuple(
        replace(
            step,
            layer=_detached(step.layer),
            body=_frozen(step.body),
            shortcut=_frozen(step.shortcut),
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


def _check_pre(steps: Steps, pre: Sequence[Box], n: int) -> None:
    """Refuse bounds that are not one pair (n, *layer) per ReLU."""
    want = [(n, *shape) for shape in _relu_shapes(steps) for _ in (0, 1)]
    if [tuple(end.shape) for pair in pre for end in pair] != want:
        raise ValueError("pre needs one pair of bounds (N, *layer) per ReLU")


def _largest(steps: Steps) -> int:
    """Return the size of the largest layer, hidden in branches or not."""
    inner = [_largest(branch) for s in steps for branch in (s.body, s.shortcut)]
    return max([math.prod(s.shape) for s in steps] + inner, default=1)


# ------------------------------------------------------------ forward: intervals


def _check_corners(lower: Tensor, upper: Tensor) -> None:
    if lower.shape != upper.shape or not (lower <= upper).all():  # refuses NaN, too
        raise ValueError("need two corners of equal shape, lower <= upper everywhere")


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


def _interval(step: _Step, lower: Tensor, upper: Tensor) -> Box:
    if isinstance(step.layer, (nn.Flatten, nn.ReLU)):  # monotone: map the corners
        return step.layer(lower), step.layer(upper)
    if isinstance(step.layer, (nn.Linear, nn.Conv2d)):
        return _affine_interval(step.layer, lower, upper)
    body = _last(step.body, lower, upper)
    shortcut = _last(step.shortcut, lower, upper)
    return body[0] + shortcut[0], body[1] + shortcut[1]


def _last(steps: Steps, lower: Tensor, upper: Tensor) -> Box:
    for step in steps:
        lower, upper = _interval(step, lower, upper)
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
    _check_corners(lower, upper)
    boxes = []
    for step in _plan(model, lower.shape[1:]):
        lower, upper = _interval(step, lower, upper)
        boxes.append((lower, upper))
    return boxes


# ----------------------------------------------------- backward: linear functions


@dataclass(frozen=True)
class _Relaxation:
    """Two lines around each ReLU: lower * z <= ReLU(z) <= upper * z + offset.

    ``free`` is 1 where the lower slope may be any number in [0, 1], else 0.
    """

    lower: Tensor
    upper: Tensor
    offset: Tensor
    free: Tensor


def relaxation(lower: Tensor, upper: Tensor, *, rule: str = "crown") -> _Relaxation:
    """Return the lines around ReLU(z) on ``lower <= z <= upper``, of equal shapes.

    A unit with lower >= 0 is the identity, one with upper <= 0 is zero; else the line
    above joins the two ends, and the slope below is, by ``rule``, "crown": 1 if
    upper > -lower, else 0; "dual": the slope of the line above. Raises ``ValueError``
    for another rule.
    """
    if rule not in ("crown", "dual"):
        raise ValueError(f"rule {rule!r} is neither 'crown' nor 'dual'")
    unstable = (lower < 0) & (upper > 0)
    width = torch.where(unstable, upper - lower, 1.0)  # no 0 / 0 in the gradient
    slope = torch.where(unstable, upper / width, (lower >= 0).to(lower))
    below = slope if rule == "dual" else (upper > -lower).to(lower)
    return _Relaxation(
        lower=torch.where(unstable, below, slope),
        upper=slope,
        offset=torch.where(unstable, -slope * lower, 0.0),
        free=unstable.to(lower),
    )


@dataclass(frozen=True)
class _Rows:
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

    def dense(self, shape: Sequence[int]) -> "_Rows":
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
        return _Rows(cut, self.constant)

    def _flat(self) -> Tensor:
        return self.weight.flatten(3)

    def dot(self, weight: Tensor, values: Tensor) -> Tensor:
        """Return <``weight``, ``values``> for each row (N, S)."""
        if self.position is None:
            return (weight.flatten(2) @ values.flatten(1)[..., None])[..., 0]
        return (weight * self.pick(values)).flatten(2).sum(-1)


def _through_relu(
    rows: _Rows, line: _Relaxation, slopes: Tensor | None, push: Tensor | None
) -> _Rows:
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


def _facing(values: Tensor, rows: _Rows) -> Tensor:
    """Return ``values``, one per image or one per row, as they face the weights."""
    return values if values.dim() == rows.weight.dim() else rows.pick(values)


def _through_conv(rows: _Rows, layer: nn.Conv2d, shape: tuple[int, ...]) -> _Rows:
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


Slopes = Callable[[int, _Rows, _Relaxation], Tensor]  # of ReLU i, for these rows


@dataclass(frozen=True)
class _Lines:
    """What a backward walk needs at each ReLU, by its number."""

    lines: Sequence[_Relaxation]
    slopes: Slopes | None = None
    pushes: Sequence[Tensor] | None = None


def _backward(rows: _Rows, steps: Steps, at: _Lines) -> _Rows:
    """Pull the rows from the output of the last step to the input of the first."""
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
            body = _backward(rows, step.body, at)
            rest = replace(rows, constant=torch.zeros_like(rows.constant))
            rest = _backward(rest, step.shortcut, at)
            weight = body.weight + rest.weight
            constant = body.constant + rest.constant
            rows = replace(rows, weight=weight, constant=constant)
    return rows


def _minimum(rows: _Rows, lower: Tensor, upper: Tensor) -> Tensor:
    """Return the minimum of each row (N, S) over the box: a formula."""
    center, radius = (lower + upper) / 2, (upper - lower) / 2
    value = rows.constant + rows.dot(rows.weight, center)
    return value - rows.dot(rows.weight.abs(), radius)


def _unit_rows(steps: Steps, index: Tensor, sign: Tensor) -> tuple[_Rows, Steps]:
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
        return _Rows(weight, constant), steps[:-1]
    if all(isinstance(s.layer, (nn.Conv2d, nn.ReLU)) for s in steps) and (
        isinstance(layer, nn.Conv2d) and layer.groups == 1
    ):
        area = out[1] * out[2]
        channel, position = index // area, index % area
        weight = layer.weight[channel] * sign[..., None, None, None]
        constant = zero if layer.bias is None else layer.bias[channel] * sign
        place = {"stride": layer.stride, "padding": layer.padding}
        return _Rows(weight, constant, position, **place), steps[:-1]
    units = sign.new_zeros(*sign.shape, math.prod(out))
    units = units.scatter(2, index[..., None], sign[..., None])
    return _Rows(units.unflatten(-1, out), zero), steps


def _row_size(steps: Steps) -> int:
    """Return about how many numbers one unit's row needs on its way to the input."""
    if not all(isinstance(s.layer, (nn.Conv2d, nn.ReLU)) for s in steps):
        return _largest(steps)
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


def _units(steps: Steps, index: Tensor, box: Box, at: _Lines) -> Box:
    """Return bounds (N, S) of the units ``index`` (N, S) of the last step's output."""
    if at.slopes is not None:  # each row has its own: no splitting
        return _rows_minimum(steps, index, box, at)
    part = max(1, BUDGET // (2 * len(index) * _row_size(steps)))
    parts = [_rows_minimum(steps, i, box, at) for i in index.split(part, dim=1)]
    return torch.cat([p[0] for p in parts], 1), torch.cat([p[1] for p in parts], 1)


def _rows_minimum(steps: Steps, index: Tensor, box: Box, at: _Lines) -> Box:
    plus = torch.ones_like(index, dtype=box[0].dtype)
    sign = torch.cat([plus, -plus], 1)
    rows, rest = _unit_rows(steps, torch.cat([index, index], 1), sign)
    low = _minimum(_backward(rows, rest, at), *box)
    return low[:, : index.shape[1]], -low[:, index.shape[1] :]


# ------------------------------------------------- bounds before every ReLU

Tighten = Callable[[int, Steps, Tensor, Tensor, list[_Relaxation]], Box]


def _visit(
    steps: Steps, box: Box, before: Steps, rule: str, tighten: Tighten,
    pre: list[Box], lines: list[_Relaxation],
) -> Box:  # fmt: skip
    """Walk forward with a box; at each ReLU note its input bounds, tightened."""
    for step in steps:
        if isinstance(step.layer, nn.ReLU):
            box = tighten(step.index, before, *box, lines)
            pre.append(box)
            lines.append(relaxation(*box, rule=rule))
            box = box[0].clamp(min=0), box[1].clamp(min=0)
        elif isinstance(step.layer, Residual):
            body = _visit(step.body, box, before, rule, tighten, pre, lines)
            rest = _visit(step.shortcut, box, before, rule, tighten, pre, lines)
            box = body[0] + rest[0], body[1] + rest[1]
        else:
            box = _interval(step, *box)
        before = (*before, step)
    return box


def _intersect(lower: Tensor, upper: Tensor, low: Tensor, high: Tensor) -> Box:
    """Return the common part of two boxes; ends that rounding crossed change places."""
    lower, upper = lower.maximum(low), upper.minimum(high)
    return lower.minimum(upper), lower.maximum(upper)


def _needs_walk(before: Steps) -> bool:
    """Whether intervals are not already exact: more than one affine layer so far."""
    return sum(not isinstance(step.layer, nn.Flatten) for step in before) > 1


def _open_units(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Return, per image, the units that intervals leave unstable: index (N, S).

    S is the largest count in the batch; images with fewer get other units too, marked
    False in the second result (N, S), so that nothing depends on the batch.
    """
    unstable = ((lower < 0) & (upper > 0)).flatten(1)
    most = int(unstable.sum(1).max())
    order = unstable.to(torch.uint8).argsort(dim=1, descending=True)
    index = order[:, :most]
    return index, unstable.gather(1, index)


def _put(
    units: tuple[Tensor, Tensor], bounds: Box, lower: Tensor, upper: Tensor
) -> Box:
    """Intersect the box with ``bounds`` (N, S) of the ``units`` (index and mark)."""
    index, marked = units
    low = torch.where(marked, bounds[0], -torch.inf)
    high = torch.where(marked, bounds[1], torch.inf)
    low = torch.full_like(lower, -torch.inf).flatten(1).scatter(1, index, low)
    high = torch.full_like(upper, torch.inf).flatten(1).scatter(1, index, high)
    return _intersect(lower, upper, low.view_as(lower), high.view_as(upper))


def _tightener(
    box: Box, method: str, intersect: bool, clip: Sequence[Box] | None
) -> Tighten:
    def tighten(
        k: int, before: Steps, lower: Tensor, upper: Tensor, lines: list[_Relaxation]
    ) -> Box:
        found = search(before, lower, upper, lines)
        return found if clip is None else _intersect(*found, *clip[k])

    def search(
        before: Steps, lower: Tensor, upper: Tensor, lines: list[_Relaxation]
    ) -> Box:
        if method == "interval" or not _needs_walk(before):
            return lower, upper
        if method == "crown" and intersect:
            units = _open_units(lower, upper)
            if units[0].shape[1] == 0:
                return lower, upper
            found = _units(before, units[0], box, _Lines(lines))
            return _put(units, found, lower, upper)
        every = torch.arange(lower[0].numel(), device=lower.device)
        index = every.expand(len(lower), -1)
        low, high = _units(before, index, box, _Lines(lines))
        return low.view_as(lower), high.view_as(upper)

    return tighten


def _pre(
    steps: Steps,
    box: Box,
    method: str,
    intersect: bool = True,
    clip: Sequence[Box] | None = None,
) -> tuple[list[Box], list[_Relaxation], Box]:
    pre: list[Box] = []
    lines: list[_Relaxation] = []
    rule = "dual" if method == "dual" else "crown"
    tighten = _tightener(box, method, intersect, clip)
    end = _visit(steps, box, (), rule, tighten, pre, lines)
    return pre, lines, end


def relu_bounds(
    model: nn.Module,
    lower: Tensor,
    upper: Tensor,
    *,
    method: str = "crown",
    intersect: bool = True,
    clip: Sequence[Box] | None = None,
) -> list[Box]:
    """Return bounds before each ReLU of ``model`` on the box ``lower`` to ``upper``.

    One pair (N, *layer) per ReLU, in forward order (in a ``Residual`` first the body,
    then the shortcut). ``method``: "interval"; "crown", the backward walk at every
    layer, with ``intersect`` cut with intervals (then units that intervals show to be
    stable keep the interval bounds); or "dual", the walk with equal slopes (Wong and
    Kolter). ``clip``: per ReLU two more bounds to cut with, +-inf where there are none
    (the phases that branch and bound has fixed; an empty branch gets some box). Sound
    up to rounding. Raises ``ValueError`` for another method and unless
    ``lower <= upper``, and what ``models.canonical`` raises.
    """
    if method not in ("interval", "crown", "dual"):
        raise ValueError(f"method {method!r} is none of interval, crown, dual")
    _check_corners(lower, upper)
    steps = _plan(model, lower.shape[1:])
    return _pre(steps, (lower, upper), method, intersect, clip)[0]


def linear_lower(
    model: nn.Module,
    spec: Tensor,
    lower: Tensor,
    upper: Tensor,
    pre: Sequence[Box],
    *,
    slopes: Sequence[Tensor] | None = None,
    multipliers: Sequence[Tensor] | None = None,
    rule: str = "crown",
) -> Tensor:
    """Return lower bounds (N, S) of ``spec @ logits`` over a box: one backward walk.

    ``model``: in eval mode; ``spec`` (N, S, K); ``lower``, ``upper`` (N, ...) the
    corners; ``pre`` sound bounds of what enters each ReLU, as from ``relu_bounds``.
    ``slopes``: per ReLU the slopes of the lines below unstable units, in [0, 1], (N,
    *layer) or (N, S, *layer); by default ``rule`` of ``relaxation`` chooses.
    ``multipliers``: per ReLU numbers of the same shapes that are added to the weight of
    its input z; minus a number >= 0 where z >= 0 is assumed, plus one where z <= 0 is
    (branch and bound), else 0. Raises ``ValueError`` for shapes that do not fit and
    slopes outside [0, 1].
    """
    _check_corners(lower, upper)
    steps = _plan(model, lower.shape[1:])
    if spec.shape[:1] != lower.shape[:1] or spec.shape[2:] != (_num_classes(steps),):
        raise ValueError(f"spec is {tuple(spec.shape)}, not (N, S, classes)")
    if slopes is not None and not all(((0 <= s) & (s <= 1)).all() for s in slopes):
        raise ValueError("slopes must lie in [0, 1]")
    _check_pre(steps, pre, len(lower))
    lines = [relaxation(low, high, rule=rule) for low, high in pre]
    given = None if slopes is None else (lambda i, rows, line: slopes[i])
    return _spec_minimum(steps, spec, (lower, upper), _Lines(lines, given, multipliers))


def _spec_minimum(steps: Steps, spec: Tensor, box: Box, at: _Lines) -> Tensor:
    constant = spec.new_zeros(spec.shape[:2])
    return _minimum(_backward(_Rows(spec, constant), steps, at), *box)


# ------------------------------------------------------------------ margins

Bound = Callable[[Steps, Tensor, Box, list[Box] | None], Tensor]


def _margins(
    model: nn.Module, x: Tensor, y: Tensor, eps: float, box: bool,
    pre: Sequence[Box] | None, bound: Bound,
) -> Tensor:  # fmt: skip
    """Run ``bound`` on batches that fit the memory; (N, K), column y is 0."""
    check_all(model, x, y, eps)
    corners = input_box(x, eps, box=box)
    steps = _plan(model, x.shape[1:])
    k = _num_classes(steps)
    if pre is not None:
        _check_pre(steps, pre, len(x))
    if not (y < k).all():
        raise ValueError(f"a label is none of the {k} classes")
    columns = torch.arange(k - 1, device=y.device).expand(len(y), -1)
    columns = columns + (columns >= y[:, None])  # the classes j != y
    rows = torch.eye(k, dtype=x.dtype, device=x.device)
    others = rows[y][:, None] - rows[columns]
    size = max(1, BUDGET // (k * _largest(steps)))
    found = []
    for i in range(0, len(y), size):
        part = slice(i, i + size)
        given = None if pre is None else [(low[part], up[part]) for low, up in pre]
        cut = corners[0][part], corners[1][part]
        found.append(bound(steps, others[part], cut, given))
    margins = torch.zeros(len(y), k, dtype=x.dtype, device=x.device)
    return margins.scatter(1, columns, torch.cat(found))


def _fold(steps: Steps, spec: Tensor, box: Box) -> Tensor:
    """Return the minimum of each row of ``spec`` over a box before the last steps.

    ``steps``: nothing, or one linear layer, which is folded into the rows. Rows that
    are differences of two logits share their weights: one table serves all images.
    """
    if not steps:
        return _minimum(_Rows(spec, spec.new_zeros(spec.shape[:2])), *box)
    layer = steps[0].layer
    center, radius = (box[0] + box[1]) / 2, (box[1] - box[0]) / 2
    table = (layer.weight[:, None] - layer.weight).abs().flatten(0, 1)
    reach = F.linear(radius, table)  # (N, K * K)
    pair = spec.argmax(2) * len(layer.weight) + spec.argmin(2)
    value = (spec @ layer(center)[..., None])[..., 0]
    return value - reach.gather(1, pair)


def _before_logits(steps: Steps) -> int:
    """Return how many steps come before a last linear layer, else all."""
    return len(steps) - isinstance(steps[-1].layer, nn.Linear)


def _interval_spec(steps: Steps, spec: Tensor, box: Box, _: list[Box] | None) -> Tensor:
    last = _before_logits(steps)
    return _fold(steps[last:], spec, _last(steps[:last], *box))


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
    return _margins(model, x, y, eps, box, None, _interval_spec)


def crown_margins(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    box: bool = True,
    pre: Sequence[Box] | None = None,
    intersect: bool = True,
) -> Tensor:
    """Return lower bounds on z_y - z_j over the ball by CROWN: (N, K).

    Arguments, result and errors as ``interval_margins``. ``pre``: bounds before each
    ReLU; by default CROWN's own, with ``intersect`` cut with intervals at every layer,
    the logits included: then never below ``interval_margins``, up to rounding. With
    ``pre`` given it is the backward walk alone. Images are split into batches that fit
    the memory. Zhang et al. 2018, arXiv:1811.00866.
    """

    def bound(steps: Steps, spec: Tensor, cut: Box, given: list[Box] | None) -> Tensor:
        lines = _given_lines(given, "crown")
        if lines is not None:
            return _spec_minimum(steps, spec, cut, _Lines(lines))
        last = _before_logits(steps)
        _, lines, end = _pre(steps[:last], cut, "crown", intersect)
        found = _spec_minimum(steps, spec, cut, _Lines(lines))
        return found.maximum(_fold(steps[last:], spec, end)) if intersect else found

    return _margins(model, x, y, eps, box, pre, bound)


def wong_kolter_margins(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    box: bool = True,
    pre: Sequence[Box] | None = None,
) -> Tensor:
    """Return lower bounds on z_y - z_j over the ball by Wong and Kolter's dual: (N, K).

    A feasible point of the dual of the triangle relaxation's linear program, found in
    one backward walk: CROWN with the slope u / (u - l) on both sides. Arguments,
    result and errors as ``crown_margins``; ``pre`` is by default made by the same
    rule. Wong and Kolter 2018, arXiv:1711.00851.
    """

    def bound(steps: Steps, spec: Tensor, cut: Box, given: list[Box] | None) -> Tensor:
        lines = _given_lines(given, "dual")
        if lines is None:
            lines = _pre(steps, cut, "dual")[1]
        return _spec_minimum(steps, spec, cut, _Lines(lines))

    return _margins(model, x, y, eps, box, pre, bound)


def _given_lines(given: list[Box] | None, rule: str) -> list[_Relaxation] | None:
    if given is None:
        return None
    return [relaxation(low, high, rule=rule) for low, high in given]


# ------------------------------------------------------------ optimised slopes


def _adam(
    parameters: list[Tensor], gradients: list[Tensor], state: list, step: int, lr: float
) -> None:
    """Take one ascent step of Adam, then clip to [0, 1].

    By hand, because the first optimiser object of a process costs over a second of
    imports. Kingma and Ba 2015, arXiv:1412.6980.
    """
    for p, g, (m, v) in zip(parameters, gradients, state, strict=True):
        m.mul_(0.9).add_(g, alpha=0.1)
        v.mul_(0.999).addcmul_(g, g, value=0.001)
        root = (v / (1 - 0.999**step)).sqrt_().add_(1e-8)
        p.data.addcdiv_(m, root, value=lr / (1 - 0.9**step)).clamp_(0, 1)


def _ascend(
    objective: Callable[[], Tensor],
    parameters: list[Tensor],
    num_steps: int,
    lr: float = 0.25,
) -> Tensor:
    """Return the best value of each row of ``objective`` on the way up."""
    if not parameters:  # no ReLU: nothing to choose
        return objective().detach()
    state = [(torch.zeros_like(p), torch.zeros_like(p)) for p in parameters]
    best = None
    for step in range(1, num_steps + 1):
        with torch.enable_grad():
            value = objective()
            gradients = torch.autograd.grad(value.sum(), parameters, allow_unused=True)
        found = value.detach()
        best = found if best is None else best.maximum(found)
        zeros = [torch.zeros_like(p) for p in parameters]
        known = [z if g is None else g for g, z in zip(gradients, zeros, strict=True)]
        _adam(parameters, known, state, step, lr * 0.97**step)
    with torch.no_grad():
        last = objective()
    return last if best is None else best.maximum(last)


class _Store:
    """Slopes under optimisation, made on first use: CROWN's, for every row."""

    def __init__(self) -> None:
        self.found: dict[tuple[int, int], Tensor] = {}

    def of(self, start: int) -> Slopes:
        """Return the slopes of the walk that starts at ReLU ``start`` (-1: logits)."""

        def slopes(i: int, rows: _Rows, line: _Relaxation) -> Tensor:
            if (start, i) not in self.found:
                first = rows.pick(line.lower).detach().expand_as(rows.weight)
                self.found[start, i] = first.clone().requires_grad_()
            return self.found[start, i]

        return slopes


def _optimise_last(
    steps: Steps, spec: Tensor, cut: Box, lines: list[_Relaxation], num_steps: int
) -> Tensor:
    """Optimise the slopes of the last walk; the bounds before each ReLU stay."""
    store = _Store()

    def objective() -> Tensor:
        return _spec_minimum(steps, spec, cut, _Lines(lines, store.of(-1)))

    with torch.no_grad():
        objective()
    return _ascend(objective, list(store.found.values()), num_steps)


def _prefer(found: Tensor, floor: Tensor) -> Tensor:
    """Return the larger of two lower bounds; ``found`` where they agree.

    At the first step they do: a maximum would let rounding decide which of them gets
    the gradient, and only ``found`` hands it on to the slopes.
    """
    return torch.where(found >= floor - 1e-6 * (1 + floor.abs()), found, floor)


def _optimise_all(
    steps: Steps, spec: Tensor, cut: Box, first: list[Box], num_steps: int
) -> Tensor:
    """Optimise the slopes of every walk, those to the bounds before each ReLU too."""
    store = _Store()
    open_units = [_open_units(*bounds) for bounds in first]

    def tighten(
        k: int, before: Steps, lower: Tensor, upper: Tensor, lines: list[_Relaxation]
    ) -> Box:
        box = _prefer(lower, first[k][0]), -_prefer(-upper, -first[k][1])
        index = open_units[k][0]
        if not _needs_walk(before) or index.shape[1] == 0:
            return box
        low, high = _units(before, index, cut, _Lines(lines, store.of(k)))
        least, most = (end.flatten(1).gather(1, index) for end in box)
        marked = open_units[k][1]
        low = torch.where(marked, _prefer(low, least), least)
        high = torch.where(marked, -_prefer(-high, -most), most)
        ends = zip(box, (low, high), strict=True)
        low, high = (e.flatten(1).scatter(1, index, f).view_as(e) for e, f in ends)
        return low.minimum(high), low.maximum(high)

    def objective() -> Tensor:
        lines: list[_Relaxation] = []
        _visit(steps, cut, (), "crown", tighten, [], lines)
        return _spec_minimum(steps, spec, cut, _Lines(lines, store.of(-1)))

    with torch.no_grad():
        objective()
    return _ascend(objective, list(store.found.values()), num_steps)


def alpha_crown_margins(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    box: bool = True,
    pre: Sequence[Box] | None = None,
    num_steps: int = 20,
    slopes: str = "last",
) -> Tensor:
    """Return lower bounds on z_y - z_j over the ball by optimised slopes: (N, K).

    CROWN, then ``num_steps`` of projected gradient ascent (Adam) on the slopes below
    unstable units: with ``slopes`` "last" those of the walk from the logits, one set
    per class; with "all" also those of the walks to every bound before a ReLU (deep
    networks need it). Each set of slopes in [0, 1] gives a sound bound, and the best
    one met is returned, so it is never below CROWN's. Arguments, result and errors as
    ``crown_margins``, and ``ValueError`` for other ``slopes`` and num_steps < 0. Xu et
    al. 2021, arXiv:2011.13824.
    """
    if slopes not in ("last", "all") or num_steps < 0:
        raise ValueError("slopes is 'last' or 'all', and num_steps at least 0")

    def bound(steps: Steps, spec: Tensor, cut: Box, given: list[Box] | None) -> Tensor:
        steps, floor = _frozen(steps), None
        with torch.no_grad():
            if given is None:
                last = _before_logits(steps)
                given, _, end = _pre(steps[:last], cut, "crown")
                floor = _fold(steps[last:], spec, end)
            lines = _given_lines(given, "crown")
        found = optimise(steps, spec, cut, given, lines)
        return found if floor is None else found.maximum(floor)

    def optimise(
        steps: Steps, spec: Tensor, cut: Box, given: list[Box], lines: list[_Relaxation]
    ) -> Tensor:
        if slopes == "last":
            return _optimise_last(steps, spec, cut, lines, num_steps)
        most = max((_open_units(*b)[0].shape[1] for b in given), default=1)
        part = max(1, 4 * BUDGET // (2 * max(most, 1) * _largest(steps)))
        found = [
            _optimise_all(steps, spec[i], _at(cut, i), [_at(b, i) for b in given],
                          num_steps)
            for i in torch.arange(len(spec), device=spec.device).split(part)
        ]  # fmt: skip
        return torch.cat(found)

    return _margins(model, x, y, eps, box, pre, bound)


def _at(box: Box, index: Tensor) -> Box:
    return box[0][index], box[1][index]
