"""ONNX operators that look through windows: convolutions, pooling, padding, reductions.

``WINDOWS`` has a function for each of them; see ``onnx_operators``.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from advlib.networks.maps import Convolution, Transposed, pooling_places
from advlib.networks.onnx_steps import Step

Pads = tuple[tuple[int, int], ...]


def _reach(kernel: Sequence[int], dilations: Sequence[int]) -> list[int]:
    return [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]


def _kernel(step: Step, axes: int) -> list[int]:
    """The attribute ``kernel_shape`` of a window over ``axes`` axes."""
    kernel = step.take("kernel_shape")
    if kernel is None or len(kernel) != axes or min(kernel) < 1:
        raise step.refuse(f"a kernel {kernel} on {axes} axes")
    return list(kernel)


def _pads(
    step: Step, sides: Sequence[int], reach: Sequence[int], strides: Sequence[int]
) -> Pads:
    """The zeros before and behind each axis, as ``pads`` or ``auto_pad`` say."""
    axes, auto = len(sides), step.take("auto_pad", "NOTSET")
    pads = step.integers("pads", [0] * 2 * axes)
    if auto == "NOTSET":
        return tuple(zip(pads[:axes], pads[axes:], strict=True))
    if any(pads) or auto not in ("VALID", "SAME_UPPER", "SAME_LOWER"):
        raise step.refuse(f"auto_pad {auto!r} with pads {pads}")
    if auto == "VALID":
        return ((0, 0),) * axes
    found = []
    for n, k, s in zip(sides, reach, strides, strict=True):
        total = max((-(-n // s) - 1) * s + k - n, 0)
        less, more = total // 2, total - total // 2
        found.append((less, more) if auto == "SAME_UPPER" else (more, less))
    return tuple(found)


# -------------------------------------------------------------------- convolutions


def _inside(step: Step, weight: Tensor) -> tuple[int, ...]:
    """The shape of the one image that a convolution is given, without leading 1."""
    shape, axes = step.shape(0), weight.dim() - 2
    if len(shape) != weight.dim() or not 1 <= axes <= 3:
        raise step.refuse(
            f"a weight {tuple(weight.shape)} on an input {shape}; there is a rule for "
            "1 to 3 axes"
        )
    if shape[0] != 1:
        raise step.refuse(
            f"its input {shape} holds {shape[0]} images: export the network with a "
            "leading length of 1, or a symbolic one"
        )
    kernel = step.take("kernel_shape")
    if kernel is not None and tuple(kernel) != tuple(weight.shape[2:]):
        raise ValueError(f"kernel_shape {kernel} of a weight {tuple(weight.shape)}")
    return shape[1:]


def _bias(step: Step, outside: Sequence[int]) -> Tensor | None:
    if step.value(2) is None:
        return None
    bias = step.numbers(2)
    if bias.shape != outside[:1]:
        raise ValueError(f"a bias {tuple(bias.shape)} for {outside[0]} channels")
    return bias.view(-1, *[1] * (len(outside) - 1))


def _conv(step: Step) -> int:
    weight = step.numbers(1)
    inside, axes = _inside(step, weight), weight.dim() - 2
    strides, dilations = (
        step.integers(name, [1] * axes, 1) for name in ("strides", "dilations")
    )
    reach = _reach(weight.shape[2:], dilations)
    pads = _pads(step, inside[1:], reach, strides)
    groups = step.integer("group", 1)
    linear = Convolution(weight, inside, tuple(strides), pads, tuple(dilations), groups)
    return _on_image(step, linear)


def _on_image(step: Step, linear: Convolution | Transposed) -> int:
    bias = _bias(step, linear.outside)
    node = step.builder.reshape(step.variable(0), linear.inside, step.name)
    node = step.builder.affine(node, linear, bias, step.name)
    return step.builder.reshape(node, (1, *linear.outside), step.name)


def _conv_transpose(step: Step) -> int:
    weight = step.numbers(1)
    inside, axes = _inside(step, weight), weight.dim() - 2
    strides, dilations = (
        step.integers(name, [1] * axes, 1) for name in ("strides", "dilations")
    )
    groups, more = step.integer("group", 1), step.integers("output_padding", [0] * axes)
    reach = _reach(weight.shape[2:], dilations)
    whole = [
        s * (n - 1) + p + r
        for n, s, p, r in zip(inside[1:], strides, more, reach, strict=True)
    ]
    pads = _transposed_pads(step, whole, inside[1:], strides)
    sides = [n - sum(pad) for n, pad in zip(whole, pads, strict=True)]
    outside = weight.shape[1] * groups, *sides
    of = Convolution(weight, outside, tuple(strides), pads, tuple(dilations), groups)
    if of.outside != inside:
        raise step.refuse(f"output_padding {more} with strides {strides}")
    return _on_image(step, Transposed(of))


def _transposed_pads(
    step: Step, whole: Sequence[int], sides: Sequence[int], strides: Sequence[int]
) -> Pads:
    """What is cut off ``whole`` outputs; where halves differ, readers do too."""
    auto, shape = step.take("auto_pad", "NOTSET"), step.take("output_shape")
    if auto in ("SAME_UPPER", "SAME_LOWER") and shape is None:
        shape = [n * s for n, s in zip(sides, strides, strict=True)]
    if shape is None:
        step.attributes["auto_pad"] = auto
        return _pads(step, sides, sides, strides)
    step.take("pads")  # not used beside a shape
    cuts = [n - m for n, m in zip(whole, shape, strict=True)]
    if any(cut < 0 or cut % 2 for cut in cuts):
        raise step.refuse(
            f"{cuts} entries are to be cut off on both sides together; give pads"
        )
    return tuple((cut // 2, cut // 2) for cut in cuts)


# ------------------------------------------------------------------------- pooling


def _pool_options(step: Step) -> tuple[list[int], list[int], Pads, list[int], bool]:
    """Kernel, strides, padding, dilations and whether windows may reach beyond."""
    sides = step.shape(0)[2:]
    kernel = _kernel(step, len(sides))
    strides, dilations = (
        step.integers(name, [1] * len(sides), 1) for name in ("strides", "dilations")
    )
    ceil = bool(step.integer("ceil_mode", 0))
    auto = step.attributes.get("auto_pad", "NOTSET")
    if auto != "NOTSET" and (ceil or max(dilations, default=1) > 1):
        raise step.refuse(
            f"auto_pad {auto!r} with ceil_mode or dilations, which runtimes read "
            "differently: give pads"
        )
    pads = _pads(step, sides, _reach(kernel, dilations), strides)
    return kernel, strides, pads, dilations, ceil


def _max_pool(step: Step) -> int:
    if any(step.outputs[1:]):
        raise step.refuse("its output of indices is used")
    if step.integer("storage_order", 0):
        raise step.refuse("storage_order is column major")
    kernel, strides, pads, dilations, ceil = _pool_options(step)
    node = step.variable(0)
    return step.builder.max_pool(
        node, kernel, strides, pads, dilations, ceil=ceil, name=step.name
    )


def _average_pool(step: Step) -> int:
    kernel, strides, pads, dilations, ceil = _pool_options(step)
    include, node = bool(step.integer("count_include_pad", 0)), step.variable(0)
    for i, options in enumerate(zip(kernel, strides, pads, dilations, strict=True)):
        weight = _averages(step, step.shape(0)[2 + i], *options, ceil, include)
        node = step.builder.matrix(node, weight, axis=2 + i, name=step.name)
    return node


def _averages(
    step: Step, n: int, k: int, stride: int, pads: tuple[int, int], dilation: int,
    ceil: bool, include: bool,
) -> Tensor:  # fmt: skip
    """The matrix (windows, ``n``) of averages along one axis.

    Padding counts with ``include``, what lies beyond it never.
    """
    try:
        at = pooling_places(n, k, stride, pads, dilation, ceil)
    except ValueError as error:
        raise ValueError(f"{step.name!r}: {error}") from None
    inside = (at >= 0) & (at < n)
    counted = at < n + pads[1] if include else inside
    share = inside.double() / counted.sum(1, keepdim=True)
    weight = torch.zeros(len(at), n, dtype=torch.float64)
    return weight.scatter_add(1, at.clamp(0, n - 1), share)


def _global_average(step: Step) -> int:
    axes = range(2, len(step.shape(0)))
    return step.builder.mean(step.variable(0), axes, step.name)


def _global_max(step: Step) -> int:
    return _maxima(step, step.variable(0), range(2, len(step.shape(0))))


# ---------------------------------------------------------------------- reductions


def _maxima(step: Step, node: int, axes: Sequence[int]) -> int:
    """The maximum over ``axes``, which stay with length 1."""
    shape = step.builder.shape(node)
    axes = [a for a in axes if shape[a] > 1]
    if not axes:
        return node
    kept = [a for a in range(len(shape)) if a not in axes]
    order = [*kept, *axes]
    node = step.pick(node, step.places(node).transpose(order))
    kernel = [shape[a] for a in axes]
    ones, pads = [1] * len(kernel), ((0, 0),) * len(kernel)
    node = step.builder.max_pool(node, kernel, ones, pads, ones, name=step.name)
    shape = [1 if a in axes else n for a, n in enumerate(shape)]
    return step.builder.reshape(node, shape, step.name)


def _reduced_axes(step: Step) -> list[int]:
    axes, rank = step.given("axes", 1), len(step.shape(0))
    nothing = step.integer("noop_with_empty_axes", 0)
    if not axes:
        return [] if nothing else list(range(rank))
    found = sorted({step.axis(a, rank) for a in axes})
    if len(found) != len(axes):
        raise ValueError(f"an axis is named twice in {axes}")
    return found


def _reduce(step: Step) -> int:
    """The sum, mean, maximum or minimum over some axes."""
    node, axes = step.variable(0), _reduced_axes(step)
    keep, builder, name = step.integer("keepdims", 1), step.builder, step.name
    shape = builder.shape(node)
    if step.kind == "ReduceMean":
        node = builder.mean(node, [a for a in axes if shape[a] > 1], name)
    elif step.kind == "ReduceSum":
        for axis in axes:
            ones = torch.ones(1, shape[axis])
            if shape[axis] > 1:
                node = builder.matrix(node, ones, axis=axis, name=name)
    elif axes:
        sign = 1.0 if step.kind == "ReduceMax" else -1.0
        node = builder.scale(node, sign, name=name) if sign < 0 else node
        node = _maxima(step, node, axes)
        node = builder.scale(node, sign, name=name) if sign < 0 else node
    if keep:
        return node
    return builder.reshape(
        node, [n for a, n in enumerate(shape) if a not in axes], name
    )


# ------------------------------------------------------------------------- padding


def _pad(step: Step) -> int:
    mode, node = step.take("mode", "constant"), step.variable(0)
    rank, pads = len(step.shape(0)), step.given("pads", 1) or []
    axes = list(range(rank)) if step.value(3) is None else step.whole(3)
    axes = [step.axis(a, rank) for a in axes]
    if len(pads) != 2 * len(axes):
        raise ValueError(f"{len(pads)} pads for {len(axes)} axes")
    value, places = _fill(step), step.places(node)
    ends = [(0, 0)] * rank
    for axis, before, behind in zip(
        axes, pads[: len(axes)], pads[len(axes) :], strict=True
    ):
        n = places.shape[axis]
        ends[axis] = max(before, 0), max(behind, 0)
        cut = range(max(-before, 0), n - max(-behind, 0))
        if len(cut) < n and mode != "constant":
            raise step.refuse(f"negative pads in mode {mode!r}")
        places = places.take(cut, axis)
    places = _padded(step, places, ends, mode)
    node = step.pick(node, places)
    if not value or not (places < 0).any():
        return node
    shift = torch.from_numpy(np.where(places < 0, value, 0.0))
    return step.builder.scale(node, 1.0, shift, step.name)


def _fill(step: Step) -> float:
    """The number that a Pad puts around."""
    if step.opset < 11:
        return step.number("value", 0.0)
    given = step.value(2)
    if given is None or not math.prod(np.shape(given)):
        return 0.0
    return step.numbers(2).item()


def _padded(
    step: Step, places: np.ndarray, ends: list[tuple[int, int]], mode: str
) -> np.ndarray:
    if mode == "constant":
        return np.pad(places, ends, constant_values=-1)
    limits = {"reflect": 1, "edge": 0, "wrap": 0}
    if mode not in limits:
        raise step.refuse(
            f"mode {mode!r}; constant, reflect, edge and wrap have a rule"
        )
    for n, pair in zip(places.shape, ends, strict=True):
        if mode != "edge" and max(pair) > n - limits[mode]:
            raise step.refuse(f"mode {mode!r} with pads {pair} on a length of {n}")
    return np.pad(places, ends, mode=mode)


WINDOWS: dict[str, Callable[[Step], int]] = {
    "AveragePool": _average_pool,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "GlobalAveragePool": _global_average,
    "GlobalMaxPool": _global_max,
    "MaxPool": _max_pool,
    "Pad": _pad,
    "ReduceMax": _reduce,
    "ReduceMean": _reduce,
    "ReduceMin": _reduce,
    "ReduceSum": _reduce,
}
