"""Certificates that are checked in exact arithmetic, after the floats have spoken.

``make_certificate`` lets the bounds of this package propose, in float64, what a proof
needs: an interval for everything that enters a ReLU, and the slopes of the lines below
the ReLUs. ``check_certificate`` believes none of it: it reads the network anew, and
shares no code with what proposes. What is proved speaks of the network in real
arithmetic with the stored weights; ``forward_error_bound`` bounds how far the program
that runs it in floats can be off.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from advlib import bounds
from advlib._check import outside_inference
from advlib.bounds.crown import lines_from, spec_minimum
from advlib.bounds.plan import plan_steps
from advlib.bounds.walk import Lines
from advlib.networks.canonical import affine_matrix, canonical_double, output_shape
from advlib.proof.arithmetic import Exact, RejectedError
from advlib.proof.checker import check_certificate, exact_logits
from advlib.proof.files import GRID, SLOPE_GRID, Certificate, load, save
from advlib.proof.floats import forward_error_bound, holds_in_floats
from advlib.proof.questions import checked, question

# a certificate is proposed, kept, checked and read together
__all__ = [
    "GRID",
    "SLACK",
    "SLOPE_GRID",
    "Certificate",
    "Exact",
    "RejectedError",
    "check_certificate",
    "exact_logits",
    "forward_error_bound",
    "holds_in_floats",
    "load",
    "make_certificate",
    "question",
    "save",
]

SLACK = 2  # steps of the grid by which a proposed interval is widened


@outside_inference
def make_certificate(
    model: nn.Module, x: Tensor, y: int, eps: float, *, num_steps: int = 0
) -> Certificate:
    """Return what float64 bounds propose for image ``x`` of class ``y``; no proof yet.

    Arguments and errors as ``check_certificate``, which decides. Intervals by CROWN
    cut with interval arithmetic, widened by two steps of the grid, more than float64
    rounds; slopes are CROWN's, after ``num_steps`` steps of gradient ascent. Raises
    ``RejectedError``, too, if float64 bounds are beyond 2^47.
    """
    y, eps = checked(model, x, y, eps)
    asked = question(model, x, y, eps)
    floats = _affine_layers(model, x.shape)
    box = bounds.input_box(x[None].flatten(1).double().cpu(), eps)
    pre: list[Interval] = []
    for k in range(len(floats) - 1):
        pre.append(_propose(floats[: k + 1], box, pre))
    if not all((end.abs() <= 2.0**47).all() for pair in pre for end in pair):
        raise RejectedError("nothing to propose: bounds beyond 2^47, or NaN")
    slopes = _propose_slopes(floats, y, box, pre, num_steps)
    ends = [[(b[0] * 2**GRID).long().numpy() for b in pair] for pair in pre]
    lower, upper = tuple(e[0] for e in ends), tuple(e[1] for e in ends)
    return Certificate(y, eps, asked, lower, upper, slopes)


def _affine_layers(
    model: nn.Module, shape: Sequence[int]
) -> list[tuple[Tensor, Tensor]]:
    """Return the float64 matrix and bias of each affine layer of ``model``.

    Two of them with no ReLU between, as ``TwoLogits`` adds one, are folded.
    """
    found: list[tuple[Tensor, Tensor]] = []
    fold = False  # whether no ReLU came after the last of them
    for layer in canonical_double(model, shape):
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            weight, bias = affine_matrix(layer, shape)
            if fold:
                before = found.pop()
                weight, bias = weight @ before[0], weight @ before[1] + bias
            found.append((weight, bias))
            fold = True
        fold = fold and not isinstance(layer, nn.ReLU)
        shape = output_shape(layer, shape)
    return found


Interval = tuple[Tensor, Tensor]


def _dense(floats: Sequence[tuple[Tensor, Tensor]]) -> nn.Sequential:
    """Return affine layers with a ReLU between any two of them, in float64."""
    layers: list[nn.Module] = []
    for weight, bias in floats:
        layer = nn.Linear(*weight.T.shape, dtype=weight.dtype)
        layer.weight.data, layer.bias.data = weight, bias
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1]).requires_grad_(False).eval()


def _propose(
    floats: Sequence[tuple[Tensor, Tensor]], box: Interval, pre: list[Interval]
) -> Interval:
    """Return an interval (1, n) of what the last layer returns, rounded outward."""
    weight, bias = floats[-1]
    sides = torch.cat([torch.eye(len(bias)), -torch.eye(len(bias))]).double()[None]
    steps = plan_steps(_dense(floats), box[0].shape[1:])
    found = spec_minimum(steps, sides, box, Lines(lines_from(pre, "crown")))
    low, high = pre[-1] if pre else box
    low, high = (low.relu(), high.relu()) if pre else (low, high)
    center, radius = (low + high) / 2, (high - low) / 2
    center, radius = center @ weight.T + bias, radius @ weight.abs().T
    plain = torch.cat([center - radius, -center - radius], 1)
    low, minus = ((found.maximum(plain) * 2**GRID).floor() - SLACK).chunk(2, 1)
    return low / 2**GRID, -minus / 2**GRID


def _propose_slopes(
    floats: Sequence[tuple[Tensor, Tensor]],
    y: int,
    box: Interval,
    pre: list[Interval],
    num_steps: int,
) -> tuple[np.ndarray, ...]:
    """Return CROWN's slopes, per ReLU (K, n), after ``num_steps`` of ascent.

    Each step moves every slope of a row by its gradient over the row's largest, times
    a shrinking length; the best slopes of each row are kept.
    """
    classes = len(floats[-1][1])
    steps = plan_steps(_dense(floats), box[0].shape[1:])
    lines = lines_from(pre, "crown")
    spec = bounds.margin_spec(torch.tensor([y]), classes).double()
    slopes = [(up > -low).double().expand(1, classes, -1) for low, up in pre]
    best, kept = None, slopes
    for step in range(num_steps + 1 if slopes else 0):
        slopes = [(s * 2**SLOPE_GRID).round() / 2**SLOPE_GRID for s in slopes]
        slopes = [s.detach().requires_grad_() for s in slopes]
        with torch.enable_grad():  # also where the caller has switched it off
            at = Lines(lines, lambda i, rows, line, s=slopes: s[i])
            value = spec_minimum(steps, spec, box, at)
            grads = torch.autograd.grad(value.sum(), slopes, allow_unused=True)
        better = (value > best)[..., None] if best is not None else torch.tensor(True)
        best = value.detach() if best is None else best.maximum(value.detach())
        kept = [torch.where(better, s, k) for s, k in zip(slopes, kept, strict=True)]
        for i, g in enumerate(grads):
            if g is not None:
                g = g / g.abs().amax(2, keepdim=True).clamp(min=1e-12)
                slopes[i] = (slopes[i] + 0.5 * 0.9**step * g).clamp(0, 1)
    return tuple((s[0].detach() * 2**SLOPE_GRID).to(torch.int16).numpy() for s in kept)
