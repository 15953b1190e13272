"""Affine layers as sparse matrices: programs need their rows, not a dense matrix.

A convolution touches few pixels for each output, so its matrix is nearly empty. It is
filled by index arithmetic from the kernel; no image is run through the layer.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy import sparse
from torch import Tensor, nn

from advlib.networks import gate
from advlib.networks.gate import is_kind

Array = np.ndarray


def sparse_matrix(
    layer: nn.Module, shape: Sequence[int]
) -> tuple[sparse.csr_array, Array]:
    """Return weight (out, in), sparse, and bias (out,) of an affine ``layer``.

    In float64. ``layer``: Flatten, Linear (on the last dimension) or Conv2d with any
    stride, dilation, groups and padding by zeros; ``shape``: one input without batch;
    both ends are counted in flattened order. The same numbers as
    ``models.affine_matrix``, which is dense; entries that are zero are not stored.
    Raises ``TypeError`` for another layer, for what ``gate.refuse_hidden`` refuses and
    for padding by anything but zeros, ``ValueError`` for an input that does not fit.
    """
    gate.refuse_hidden(layer)
    shape, size = tuple(shape), math.prod(shape)
    if is_kind(layer, nn.Flatten):
        return sparse.csr_array(sparse.eye_array(size)), np.zeros(size)
    if not is_kind(layer, nn.Linear, nn.Conv2d):
        raise TypeError(f"no sparse matrix for {type(layer).__name__}")
    weight = _array(layer.weight)
    channels = weight.shape[0]
    shift = np.zeros(channels) if layer.bias is None else _array(layer.bias)
    if is_kind(layer, nn.Linear):
        if shape[-1:] != (weight.shape[1],):
            raise ValueError(f"{type(layer).__name__} does not take inputs of {shape}")
        copies, matrix = size // weight.shape[1], sparse.csr_array(weight)
        if copies > 1:  # one block for each index of the dimensions before the last
            matrix = sparse.csr_array(sparse.kron(sparse.eye_array(copies), matrix))
        return matrix, np.tile(shift, copies)
    matrix = _convolution(layer, weight, shape)
    return matrix, np.repeat(shift, matrix.shape[0] // channels)


def _array(values: Tensor) -> Array:
    return values.detach().double().cpu().numpy()


def window_sides(
    layer: nn.Conv2d, shape: Sequence[int]
) -> list[tuple[int, int, int, int]]:
    """Return how many outputs, which stride, what reach and zeros before: each side.

    Of a convolution ``layer`` on inputs of ``shape`` (C, H, W), for height and width;
    the reach of a kernel counts the gaps of its dilation. Raises ``TypeError`` as
    ``padding_ends`` and ``ValueError`` for an input that does not fit.
    """
    channels, options = layer.weight.shape[1] * layer.groups, []
    for i, (before, after) in enumerate(padding_ends(layer)):
        reach = layer.dilation[i] * (layer.kernel_size[i] - 1) + 1
        if len(shape) == 3 and shape[0] == channels:
            room = shape[1 + i] + before + after - reach
            count = room // layer.stride[i] + 1
            if room >= 0:
                options.append((count, layer.stride[i], reach, before))
    if len(options) < 2:
        name = type(layer).__name__
        raise ValueError(f"{name} does not take inputs of {tuple(shape)}")
    return options


def padding_ends(layer: nn.Conv2d) -> list[tuple[int, int]]:
    """Return how many zeros ``layer`` puts before and after: for height and width.

    Padding "same" and "valid" in numbers. Raises ``TypeError`` for padding by anything
    but zeros.
    """
    if layer.padding_mode != "zeros":
        raise TypeError(f"no matrix for a convolution padded by {layer.padding_mode}")
    if layer.padding == "valid":
        return [(0, 0), (0, 0)]
    if layer.padding == "same":
        sides = zip(layer.kernel_size, layer.dilation, strict=True)
        whole = [d * (k - 1) for k, d in sides]
        return [(n // 2, n - n // 2) for n in whole]
    return [(p, p) for p in layer.padding]


def _convolution(
    layer: nn.Conv2d, weight: Array, shape: tuple[int, ...]
) -> sparse.csr_array:
    """Return the matrix of a convolution, filled one output channel at a time."""
    sides = window_sides(layer, shape)
    (_, height, width), (out, inner, *kernel) = shape, weight.shape
    y, x = (
        (np.arange(count) * stride - before)[:, None] + np.arange(taps) * dilation
        for (count, stride, _, before), taps, dilation in zip(
            sides, kernel, layer.dilation, strict=True
        )
    )  # which input each tap of each output reads, outside in the padding: (out, tap)
    rows = y[:, None, None, :, None], x[None, :, None, None, :]  # (y, x, c, tap, tap)
    inside = (rows[0] >= 0) & (rows[0] < height) & (rows[1] >= 0) & (rows[1] < width)
    channel = np.arange(inner)[:, None, None]
    at = (channel * height + rows[0]) * width + rows[1]
    inside = np.broadcast_to(inside, at.shape).reshape(len(y) * len(x), -1)
    index = at.reshape(inside.shape)[inside]  # what the first group's channels read
    counts = np.tile(inside.sum(1), out)
    start = np.concatenate([[0], np.cumsum(counts)])
    kind = np.int32 if max(start[-1], math.prod(shape)) < 2**31 else np.int64
    data, columns = np.empty(start[-1]), np.empty(start[-1], dtype=kind)
    for o, taps in enumerate(weight.reshape(out, -1)):
        group = o // (out // layer.groups)
        part = slice(o * len(index), (o + 1) * len(index))
        data[part] = np.broadcast_to(taps, inside.shape)[inside]
        columns[part] = index + group * inner * height * width
    parts = data, columns, start.astype(kind)
    matrix = sparse.csr_array(parts, shape=(len(counts), math.prod(shape)))
    matrix.eliminate_zeros()
    return matrix
