"""The program that runs the network: how far floats can be off the real numbers."""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor, nn

from advlib.proof.questions import as_label
from advlib.proof.reading import Layer, read_layers


def forward_error_bound(model: nn.Module, lower: Tensor, upper: Tensor) -> Tensor:
    """Return how far float logits can be from the real network's: (N, K), float64.

    For every float input in the box from ``lower`` to ``upper`` (N, ...), ``model`` in
    the dtype of its weights on a device that rounds each sum and product to nearest, in
    any order of summation, with or without fused multiply-add, and with subnormals
    flushed or not. A dot product of n terms and a bias errs by at most gamma_(n+1)
    times the sum of the absolute terms, gamma_m = m u / (1 - m u), on top of the errors
    that come in; it is infinite where a sum may exceed the largest float. Linear and
    ReLU only: convolutions may be computed by transforms (Winograd) for which this does
    not hold. Raises ``TypeError`` and ``ValueError`` for other layers and for a box
    that is none. Higham 2002, chapter 3.
    """
    if lower.shape != upper.shape or not (lower <= upper).all():  # also refuses NaN
        raise ValueError("need lower <= upper everywhere, of one shape")
    layers = read_layers(model, lower.shape[1:])
    if any(layer.kind == "Conv2d" for layer in layers):
        raise TypeError("forward errors are bounded for Linear and ReLU only")
    low, high = (end.detach().cpu().flatten(1).double() for end in (lower, upper))
    error = torch.zeros_like(low)
    for layer in layers:
        if layer.kind == "ReLU":  # exact, and never enlarges an error
            low, high = low.relu(), high.relu()
        elif layer.kind == "Linear":
            low, high, error = _linear_error(layer, low, high, error)
    return error.nan_to_num(nan=math.inf, posinf=math.inf).to(lower.device)


def _linear_error(
    layer: Layer, low: Tensor, high: Tensor, error: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the box and the error after ``layer``; float64 itself gets a margin."""
    kind, n = torch.finfo(layer.dtype), layer.weight.shape[1]
    stored = layer.weight, layer.bias
    weight, bias = (torch.from_numpy(a.astype(np.float64)) for a in stored)
    unit, roundings = kind.eps / 2, n + 1
    if roundings * unit >= 1:
        raise TypeError(f"{n} terms are too many for {layer.dtype}")
    size = low.abs().maximum(high.abs()) + error
    terms = size @ weight.abs().T + bias.abs()
    gamma = roundings * unit / (1 - roundings * unit)
    fresh = gamma * terms + 2 * roundings * kind.tiny
    fresh = fresh.where(terms + fresh < kind.max / 2, math.inf)  # NaN, too
    center, radius = (low + high) / 2, (high - low) / 2
    center = center @ weight.T + bias
    radius = radius @ weight.abs().T + terms * 4 * roundings * 2.0**-53
    error = (error @ weight.abs().T + fresh) * (1 + 4 * roundings * 2.0**-53)
    return center - radius, center + radius, error


def holds_in_floats(margins: Sequence[Fraction], error: Tensor, y: int) -> bool:
    """Return whether the float program, too, returns class ``y`` on the whole ball.

    ``margins`` (K) as proved by ``check_certificate``, ``error`` (K,) of one image by
    ``forward_error_bound``: margins must exceed the errors of both logits, and NaN or
    infinity, in either, never does. Raises ``ValueError`` for fewer than two classes,
    for a ``y`` that is none of them, and for margins and errors of other numbers;
    ``TypeError`` as ``as_label``.
    """
    y, errors = as_label(y), error.tolist()
    if not (error.dim() == 1 and len(errors) == len(margins) >= 2):
        raise ValueError("need one margin and one error for each of at least 2 classes")
    if not 0 <= y < len(errors):
        raise ValueError(f"the label {y} is not below the {len(errors)} classes")
    if not all(0 <= e < math.inf for e in errors):
        return False
    if not all(-math.inf < m < math.inf for m in margins):
        return False
    allowed = [Fraction(e) + Fraction(errors[y]) for e in errors]
    pairs = enumerate(zip(margins, allowed, strict=True))
    return all(m > e for j, (m, e) in pairs if j != y)
