"""The two walks of the search: rows backward to the input, points forward again.

Backward: linear functions of a layer, ``rows``, are pulled through the lines around the
units below it, so that they stay lower bounds, and end as linear functions on the box.
Forward: from the corner of the box where such a function is least, through the same
lines. What arrives at a unit is the derivative of the bound by that unit's line: so the
gradient of every slope and multiplier costs one forward walk, and no autograd.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from advlib.networks.layered import Layered
from advlib.networks.maps import Map


@dataclass(frozen=True)
class Lines:
    """lower z + lower_offset <= unit(z) <= upper z + upper_offset, each (B, n).

    None for an offset is zero.
    """

    lower: Tensor
    lower_offset: Tensor | None
    upper: Tensor
    upper_offset: Tensor


def relu_lines(low: Tensor, high: Tensor, slope: Tensor | None = None) -> Lines:
    """Return the triangle around ReLU(z) on ``low`` <= z <= ``high``, each (B, n).

    A unit with low >= 0 is the identity, one with high <= 0 is zero; else ``slope``
    in [0, 1], by default 1 where high > -low, is that of the line below. Ends that
    are NaN or infinite give lines of NaN, which prove nothing.
    """
    unstable = (low < 0) & (high > 0)
    width = torch.where(unstable, high - low, 1.0)
    upper = torch.where(unstable, high / width, (low >= 0).to(low))
    upper = upper + 0 * (low + high)
    below = (high > -low).to(low) if slope is None else slope
    offset = torch.where(unstable, -upper * low, 0.0)
    return Lines(torch.where(unstable, below, upper), None, upper, offset)


@dataclass
class Backward:
    """A lower bound of rows: ``weight`` (B, S, inputs) x + ``constant`` (B, S).

    ``rows[j]`` (B, S, n) are the coefficients at the values of the units of layer j.
    """

    weight: Tensor
    constant: Tensor
    rows: dict[int, Tensor]


def walk_back(
    net: Layered,
    k: int,
    rows: Tensor,
    lines: Mapping[int, Lines],
    *,
    pushes: Mapping[int, Tensor] | None = None,
) -> Backward:
    """Return a lower bound, linear on the input, of ``rows`` of layer ``k`` of ``net``.

    ``rows`` (B or 1, S, n); ``lines`` of each layer below k, (B or 1, n) or with rows
    of their own (B, S, n). ``pushes`` (like lines): what multipliers of phases add to
    the coefficient of z of a layer.
    """
    layer, at, kept = net.layers[k - 1], {}, {}
    constant = rows @ layer.bias
    _spread(layer.sources, rows, at)
    for j in range(k - 1, 0, -1):
        if j not in at:
            continue
        value, line = at.pop(j), lines[j]
        kept[j] = value
        above, below = value.clamp(max=0), value.clamp(min=0)
        constant = constant + _dot(above, line.upper_offset)
        if line.lower_offset is not None:
            constant = constant + _dot(below, line.lower_offset)
        rows = above * _rows(line.upper) + below * _rows(line.lower)
        if pushes is not None:
            rows = rows + _rows(pushes[j])
        constant = constant + rows @ net.layers[j - 1].bias
        _spread(net.layers[j - 1].sources, rows, at)
    zero = constant.new_zeros(1).expand(*constant.shape, net.size)
    return Backward(at.get(0, zero), constant, kept)


def _rows(part: Tensor) -> Tensor:
    """Return ``part`` (B, n) as (B, 1, n); with rows of its own as it is."""
    return part[:, None] if part.dim() == 2 else part


def _dot(rows: Tensor, offset: Tensor) -> Tensor:
    if offset.dim() == 2 and offset.shape[0] == rows.shape[0]:
        return (rows @ offset[:, :, None])[..., 0]
    return (rows * _rows(offset)).sum(-1)


def _spread(
    sources: tuple[tuple[int, Map], ...], rows: Tensor, at: dict[int, Tensor]
) -> None:
    """Add what ``rows`` of a layer make of the values of its ``sources``."""
    for j, m in sources:
        part = m.pull(rows.reshape(-1, rows.shape[-1])).view(*rows.shape[:2], *m.inside)
        at[j] = at[j] + part if j in at else part


def corner(weight: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return where ``weight`` x is least from ``low`` to ``high``: (B, S, n)."""
    return torch.where(weight > 0, low[:, None], high[:, None])


def least(found: Backward, low: Tensor, high: Tensor) -> Tensor:
    """Return the minimum (B, S) of ``found`` over the boxes ``low`` .. ``high``."""
    middle, radius = (low + high) / 2, (high - low) / 2
    weight = found.weight
    value = weight @ middle[:, :, None] - weight.abs() @ radius[:, :, None]
    return found.constant + value[..., 0]


def walk_forward(
    net: Layered, k: int, x: Tensor, lines: Mapping[int, Lines], found: Backward
) -> dict[int, Tensor]:
    """Return z of each layer of ``net`` up to ``k`` as ``found`` sees it at ``x``.

    ``x`` (B, S, n). A unit that a row weighs positively follows the lower one of its
    ``lines``, else the upper one.
    """
    values, inner = {0: x}, {}
    for j in range(1, k + 1):
        if j < k and j not in found.rows:
            continue
        z = net.layers[j - 1].bias
        for i, m in net.layers[j - 1].sources:
            flat = values[i].reshape(-1, values[i].shape[-1])
            z = z + m.push(flat).view(*x.shape[:2], *m.outside)
        inner[j] = z
        if j < k:
            line, below = lines[j], found.rows[j] > 0
            under = _rows(line.lower) * z
            if line.lower_offset is not None:
                under = under + _rows(line.lower_offset)
            over = _rows(line.upper) * z + _rows(line.upper_offset)
            values[j] = torch.where(below, under, over)
    return inner
