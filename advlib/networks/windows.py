"""Operators of torch with windows, and all that only move numbers, as nodes.

Convolutions, batch norm, pooling and resizing have a rule each, as in ``aten``. What
moves numbers (slices, gathers, padding, shuffles) has one for all: torch itself moves
the numbers of places, and so tells where each entry comes from.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from advlib.networks.aten import Call, Rule, Variable, constant, sample
from advlib.networks.functions import greatest
from advlib.networks.maps import Convolution, Pick, Transposed

# ------------------------------------------------------------------ convolutions


def _each(numbers: int | Sequence[int], count: int) -> tuple[int, ...]:
    """Return ``numbers`` as one an axis."""
    numbers = (numbers,) if isinstance(numbers, int) else tuple(numbers)
    return numbers * count if len(numbers) == 1 else numbers


def _convolution(call: Call) -> int:
    weight, value, b = call["weight"], call.variable("input"), call.builder
    if isinstance(weight, Variable) or isinstance(call["bias"], Variable):
        raise ValueError("its weight or bias depends on the input")
    count = weight.dim() - 2
    stride, padding, dilation = (
        _each(call[key], count) for key in ("stride", "padding", "dilation")
    )
    # a batch inside of a sample stands for groups of channels
    n, channels, *sides = value.shape
    groups, weight = n * call["groups"], weight.repeat(n, *[1] * (count + 1))
    node = b.reshape(value.node, (n * channels, *sides), call.name)
    pads = tuple((p, p) for p in padding)
    bias = call["bias"]
    if bias is not None:
        bias = bias.repeat(n).view(-1, *[1] * count)
    if call["transposed"]:
        out = (n * call.shape[1], *call.shape[2:])
        linear = Convolution(weight, out, stride, pads, dilation, groups)
        return b.affine(node, Transposed(linear), bias, call.name)
    linear = Convolution(weight, b.shape(node), stride, pads, dilation, groups)
    return b.affine(node, linear, bias, call.name)


def _batch_norm(call: Call) -> int:
    mean, variance = call["running_mean"], call["running_var"]
    if call.get("training") or mean is None or variance is None:
        raise ValueError(
            "it divides by a deviation of its own input, as an instance norm does, "
            "which is not piecewise linear; with track_running_stats=True, in eval "
            "mode, the statistics are numbers, and it is read"
        )
    eps = call["eps"] if "eps" in call.given else call["epsilon"]
    factor = 1 / (variance + eps).sqrt()
    if call["weight"] is not None:
        factor = factor * call["weight"]
    shift = -mean * factor
    if call["bias"] is not None:
        shift = shift + call["bias"]
    value = call.variable("input")
    shape = -1, *[1] * (len(value.shape) - 2)
    factor, shift = factor.view(shape), shift.view(shape)
    return call.builder.scale(value.node, factor, shift, call.name)


# --------------------------------------------------------- averages, interpolation


def _along(call: Call, sizes: int, resize: Callable[[Tensor, int], Tensor]) -> int:
    """Resize the last ``sizes`` axes, one after the other, by a matrix each.

    ``resize``: rows (n, 1, n), number of the axis -> (n, 1, new): linear, by torch.
    """
    node = call.variable().node
    for i in range(sizes):
        n = call.builder.shape(node)[i - sizes]
        rows = resize(torch.eye(n, dtype=torch.float64)[:, None], i)
        node = call.builder.matrix(node, rows[:, 0].T, axis=i - sizes, name=call.name)
    return node


def _equal_windows(
    call: Call, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int],
    part: float,
) -> int:  # fmt: skip
    """Sums over windows, each entry times ``part``: each channel is convolved alone."""
    b, (n, channels, *sides) = call.builder, call.variable().shape
    node = b.reshape(call.variable().node, (n * channels, *sides), call.name)
    weight = torch.full((n * channels, 1, *kernel), part, dtype=torch.float64)
    options = tuple(stride), tuple((p, p) for p in padding), (1,) * len(kernel)
    linear = Convolution(weight, b.shape(node), *options, n * channels)
    return b.affine(node, linear, name=call.name)


def _average_pool(count: int) -> Rule:
    """Return the rule of averages over windows of the last ``count`` axes."""

    def rule(call: Call) -> int:
        kernel, padding = (
            _each(call[key], count) for key in ("kernel_size", "padding")
        )
        stride, ceil = _each(call["stride"] or kernel, count), call["ceil_mode"]
        padded, divisor = call["count_include_pad"], call.get("divisor_override")
        equal = padded or divisor is not None or not any(padding)
        if equal and not ceil and len(call.variable().shape) == count + 2:
            part = 1 / (divisor or math.prod(kernel))
            return _equal_windows(call, kernel, stride, padding, part)

        def pool(rows: Tensor, i: int) -> Tensor:
            windows = (1, kernel[i]), (1, stride[i]), (0, padding[i])
            sums = None if divisor is None else 1
            return F.avg_pool2d(rows[:, None], *windows, ceil, padded, sums)[:, 0]

        node, factor = _along(call, count, pool), 1 / (divisor or 1)
        return call.builder.scale(node, factor, name=call.name) if divisor else node

    return rule


def _adaptive_average(call: Call) -> int:
    shape, sizes = call.variable().shape, call["output_size"]
    inside = shape[-len(sizes) :]
    if len(shape) == len(sizes) + 2:
        if all(n % o == 0 for n, o in zip(inside, sizes, strict=True)):
            kernel = [n // o for n, o in zip(inside, sizes, strict=True)]
            part = 1 / math.prod(kernel)
            return _equal_windows(call, kernel, kernel, [0] * len(kernel), part)
    return _along(
        call, len(sizes), lambda rows, i: F.adaptive_avg_pool1d(rows, sizes[i])
    )


def _interpolate(count: int) -> Rule:
    """Return the rule of linear interpolation along the last ``count`` axes."""
    names = ("scales",) if count == 1 else ("scales_d", "scales_h", "scales_w")[-count:]

    def rule(call: Call) -> int:
        def resize(rows: Tensor, i: int) -> Tensor:
            options = [call.shape[i - count]], call["align_corners"], call[names[i]]
            return torch.ops.aten.upsample_linear1d.default(rows, *options)

        return _along(call, count, resize)

    return rule


# ------------------------------------------------------------------------- maxima


def _max_pool(count: int) -> Rule:
    """Return the rule of maxima over windows of the last ``count`` axes."""

    def rule(call: Call) -> int:
        kernel, padding, dilation = (
            _each(call[key], count) for key in ("kernel_size", "padding", "dilation")
        )
        stride = _each(call["stride"] or kernel, count)
        pads, ceil = tuple((p, p) for p in padding), call["ceil_mode"]
        options = kernel, stride, pads, dilation
        node = call.variable().node
        return call.builder.max_pool(node, *options, ceil=ceil, name=call.name)

    return rule


def _adaptive_maximum(call: Call) -> int:
    """Maxima over windows from floor(i n / o) to ceil((i + 1) n / o)."""
    node, sizes = call.variable().node, call["output_size"]
    for i, o in enumerate(sizes):
        axis, places = i - len(sizes), call.builder.places(node)
        n = places.shape[axis]
        count = torch.arange(o)[:, None]
        starts, ends = count * n // o, -(-(count + 1) * n // o)
        widest = int((ends - starts).max())
        at = (starts + torch.arange(widest)).minimum(ends - 1)
        rows = places.index_select(axis, at.flatten()).unflatten(axis, at.shape)
        index = rows.movedim(axis, -1)
        node = greatest(call.builder, node, index, call.name)
    return node


# ------------------------------------------------------------ what moves numbers


def _moved(call: Call) -> int:
    """Where each entry of the result comes from, found by moving places."""
    (key,) = [k for k, v in call.given.items() if isinstance(v, Variable)]
    value, b = call.variable(key), call.builder
    places = b.places(value.node).double().reshape(value.shape) + 1  # 0 is nowhere
    given, fill = {**call.given, key: places}, 0.0
    if call.get("value") is not None:  # what padding is filled with
        fill, given["value"] = float(call["value"]), 0.0
    index = (call.op(**given) - 1).long().reshape(sample(call.shape))
    shift = torch.where(index < 0, fill, 0.0).double() if fill else None
    return b.affine(value.node, Pick(index, b.shape(value.node)), shift, call.name)


def _joined(call: Call) -> int:
    """Several values one after the other, some of them perhaps constant."""
    return _join(call, call["tensors"], call["dim"])


def _stacked(call: Call) -> int:
    """Several values along a new axis."""
    dim = call["dim"] % len(call.shape)
    parts = [
        Variable(v.node, (*v.shape[:dim], 1, *v.shape[dim:]))
        if isinstance(v, Variable)
        else v.unsqueeze(dim)
        for v in call["tensors"]
    ]
    return _join(call, parts, dim)


def _join(call: Call, parts: Sequence[Variable | Tensor], dim: int) -> int:
    b, dim = call.builder, dim % len(call.shape)
    nodes = []
    for part in parts:
        shape = tuple(part.shape)
        if not math.prod(shape):
            continue  # torch lets empty ones pass
        if isinstance(part, Variable):
            nodes.append(b.reshape(part.node, shape if dim == 0 else sample(shape)))
        else:
            shape = shape if dim == 0 else sample(shape)
            nodes.append(constant(b, part.double(), shape, call.name))
    less = int(dim > 0 and call.shape[0] == 1)
    return b.concat(nodes, dim - less, call.name)


MOVES = (
    "index", "gather", "index_select", "take", "flip", "roll", "rot90", "repeat",
    "repeat_interleave", "constant_pad_nd", "reflection_pad1d", "reflection_pad2d",
    "reflection_pad3d", "replication_pad1d", "replication_pad2d", "replication_pad3d",
    "im2col", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle",
    "native_channel_shuffle", "upsample_nearest1d", "upsample_nearest2d",
    "upsample_nearest3d", "_upsample_nearest_exact1d", "_upsample_nearest_exact2d",
    "_upsample_nearest_exact3d", "tril", "triu", "diag_embed", "_unsafe_view",
)  # fmt: skip

RULES: dict[str, Rule] = {
    "convolution": _convolution,
    "native_batch_norm": _batch_norm,
    "cudnn_batch_norm": _batch_norm,
    "miopen_batch_norm": _batch_norm,
    "avg_pool1d": _average_pool(1),
    "avg_pool2d": _average_pool(2),
    "avg_pool3d": _average_pool(3),
    "adaptive_avg_pool1d": _adaptive_average,
    "_adaptive_avg_pool2d": _adaptive_average,
    "_adaptive_avg_pool3d": _adaptive_average,
    "upsample_linear1d": _interpolate(1),
    "upsample_bilinear2d": _interpolate(2),
    "upsample_trilinear3d": _interpolate(3),
    "max_pool1d_with_indices": _max_pool(1),
    "max_pool2d_with_indices": _max_pool(2),
    "max_pool3d_with_indices": _max_pool(3),
    "adaptive_max_pool1d": _adaptive_maximum,
    "adaptive_max_pool2d": _adaptive_maximum,
    "adaptive_max_pool3d": _adaptive_maximum,
    "cat": _joined,
    "stack": _stacked,
    **dict.fromkeys(MOVES, _moved),
}
