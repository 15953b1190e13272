"""Exact along a segment: a piecewise linear network by its breakpoints.

A network of affine layers and ReLUs is piecewise linear. Along a segment its kinks
are finitely many and can all be listed; between two of them each logit is linear in
the position, so a convex loss of the logits is largest at a kink or an end.
"""

import torch
from torch import Tensor, nn

from advlib._check import check_dtype, check_logits, check_model
from advlib.networks import gate
from advlib.networks.canonical import canonical
from advlib.networks.layers import Residual


def breakpoints(model: nn.Sequential, start: Tensor, end: Tensor) -> Tensor:
    """Return all t in [0, 1] where the network along the segment can have a kink.

    ``start``, ``end`` (...): one input each, without batch dimension. Returns sorted
    t with 0 and 1 included; the logits of ``start + t (end - start)`` are linear
    between neighbours, up to rounding (use float64). Raises ``TypeError`` for a layer
    that is neither affine nor ReLU and for ends of another dtype than the network,
    ``ValueError`` for unequal shapes, NaN or a model in train mode, and what
    ``networks.canonical`` raises.
    """
    check_model(model)
    if start.shape != end.shape or not (start + end).isfinite().all():
        raise ValueError("the ends need equal shapes and finite values")
    t = start.new_tensor([0.0, 1.0])
    values = torch.stack([start, end])
    check_dtype(model, values)
    net = canonical(model, start.shape)
    gate.compare(model, net, values)
    with torch.no_grad():
        for layer in net:
            if isinstance(layer, nn.ReLU):
                t, values = _add_zero_crossings(t, values)
            elif isinstance(layer, Residual):
                raise TypeError("no breakpoint rule for Residual")
            values = layer(values)
    return t


def _add_zero_crossings(t: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Add to ``t`` each place where a piecewise linear unit of ``values`` is zero."""
    left, right = values[:-1].flatten(1), values[1:].flatten(1)
    piece, unit = ((left < 0) != (right < 0)).nonzero(as_tuple=True)
    a, b = left[piece, unit], right[piece, unit]
    new = t[piece] + a / (a - b) * (t[piece + 1] - t[piece])
    both = torch.cat([t, new]).unique()  # sorted
    right_end = torch.searchsorted(t, both).clamp(min=1)
    low, high = t[right_end - 1], t[right_end]
    share = ((both - low) / (high - low)).view(-1, *[1] * (values.dim() - 1))
    return both, torch.lerp(values[right_end - 1], values[right_end], share)


def segment_max(
    model: nn.Sequential, start: Tensor, end: Tensor, y: int
) -> tuple[Tensor, Tensor]:
    """Return the largest cross-entropy on the segment, and the t that attains it.

    Exact up to rounding: cross-entropy is convex in the logits, these are linear
    between ``breakpoints``, so the maximum is at one of them. Arguments and errors as
    there, and ``ValueError`` if ``y`` is no class of the model, or there is only one.
    """
    t = breakpoints(model, start, end)
    share = t.view(-1, *[1] * start.dim())
    with torch.no_grad():
        logits = check_logits(model(torch.lerp(start, end, share)), len(t))
    if not 0 <= y < logits.shape[1]:
        raise ValueError(f"y = {y} is no class of this model")
    loss = torch.logsumexp(logits, 1) - logits[:, y]
    return loss.max(), t[loss.argmax()]
