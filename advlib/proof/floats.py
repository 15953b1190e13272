"""The program that runs the network: how far floats can be off the real numbers."""

from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor, nn


def forward_error_bound(model: nn.Module, lower: Tensor, upper: Tensor) -> Tensor:
    """Return how far float logits can be from the real network's: (N, K), float64.

    For every float input in the box from ``lower`` to ``upper`` (N, ...), ``model`` in
    the dtype of its weights (float32 or float64) on a device that rounds each sum and
    product to nearest, in any order of summation, with or without fused multiply-add,
    and with subnormals flushed or not. A dot product of n terms and a bias errs by at
    most gamma_(n+1) times the sum of the absolute terms, gamma_m = m u / (1 - m u),
    on top of the errors that come in. Linear and ReLU only: convolutions may be
    computed by transforms (Winograd) for which this does not hold. Raises
    ``TypeError`` for other layers. Higham 2002, chapter 3.
    """
    if any(not isinstance(m, (nn.Flatten, nn.Linear, nn.ReLU)) for m in model):
        raise TypeError("forward errors are bounded for Linear and ReLU only")
    low, high = lower.flatten(1).double(), upper.flatten(1).double()
    error = torch.zeros_like(low)
    for layer in model:
        if isinstance(layer, nn.ReLU):  # exact, and never enlarges an error
            low, high = low.relu(), high.relu()
        elif isinstance(layer, nn.Linear):
            low, high, error = _linear_error(layer, low, high, error)
    return error


def _linear_error(
    layer: nn.Linear, low: Tensor, high: Tensor, error: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the box and the error after ``layer``; float64 itself gets a margin."""
    kind = torch.finfo(layer.weight.dtype)
    weight, n = layer.weight.detach().double(), layer.in_features
    bias = weight.new_zeros(len(weight))
    bias = bias if layer.bias is None else layer.bias.detach().double()
    unit, roundings = kind.eps / 2, n + 1
    if roundings * unit >= 1:
        raise TypeError(f"{n} terms are too many for {layer.weight.dtype}")
    size = low.abs().maximum(high.abs()) + error
    terms = size @ weight.abs().T + bias.abs()
    gamma = roundings * unit / (1 - roundings * unit)
    fresh = gamma * terms + 2 * roundings * kind.tiny
    center, radius = (low + high) / 2, (high - low) / 2
    center = center @ weight.T + bias
    radius = radius @ weight.abs().T + terms * 4 * roundings * 2.0**-53
    error = (error @ weight.abs().T + fresh) * (1 + 4 * roundings * 2.0**-53)
    return center - radius, center + radius, error


def holds_in_floats(margins: Sequence[Fraction], error: Tensor, y: int) -> bool:
    """Return whether the float program, too, returns class ``y`` on the whole ball.

    ``margins`` (K) as proved by ``check_certificate``, ``error`` (K,) of one image by
    ``forward_error_bound``: margins must exceed the errors of both logits.
    """
    allowed = [Fraction(float(e)) for e in error]
    pairs = (
        (m, e) for j, (m, e) in enumerate(zip(margins, allowed, strict=True)) if j != y
    )
    return all(m > e + allowed[y] for m, e in pairs)
