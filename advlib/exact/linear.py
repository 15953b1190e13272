"""Linear models, where the worst case is a closed form: both sides at once.

The inner problem of a linear model is to minimise ``<w, delta>`` over the allowed
set, a convex problem with an explicit solution for each norm, with and without the
box ``0 <= x + delta <= 1``. Everything else here follows from ``worst_delta``.
"""

import math

import cvxpy as cp
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advlib._check import (
    check_all,
    check_classes,
    check_dtype,
    check_eps,
    check_images,
    check_labels,
    check_model,
    model_dtype,
)
from advlib.exact.encoding import Array
from advlib.networks import gate
from advlib.networks.canonical import with_weights
from advlib.networks.gate import is_kind

DUAL = {"linf": 1, "l2": 2, "l1": float("inf")}


def dual_norm(w: Tensor, norm: str = "linf") -> Tensor:
    """Return the dual of ``norm`` of ``w`` (..., D), shape (...).

    ``max <w, delta>`` over ``norm(delta) <= eps`` is ``eps * dual_norm(w)``. Raises
    ``ValueError`` for a norm other than ``linf``, ``l2``, ``l1``.
    """
    check_eps(0.0, norm)
    return torch.linalg.vector_norm(w, ord=DUAL[norm], dim=-1)


def _before(terms: Tensor) -> Tensor:
    """Return the sum of the terms before each one (a difference would cancel)."""
    return F.pad(terms.cumsum(-1)[..., :-1], (1, 0))


def _fill_l2(slope: Tensor, room: Tensor, eps: float) -> Tensor:
    """Return min(t * slope, room) with the t at which its l2 norm is ``eps``.

    Pixels saturate in the order of room / slope; between two such t the squared norm
    is (room^2 of the saturated) + t^2 (slope^2 of the rest), so t is explicit.
    """
    reach = torch.where(slope > 0, room / slope, torch.inf)
    t, order = reach.sort(dim=-1)
    full = room.gather(-1, order).square().where(t.isfinite(), 0.0)
    free = slope.gather(-1, order).square()
    used = _before(full)  # by the pixels that saturate before this one
    left = free.flip(-1).cumsum(-1).flip(-1)  # slopes of this pixel and those after
    fits = used + torch.where(left > 0, t.square() * left, 0.0) <= eps**2
    k = fits.sum(-1, keepdim=True)  # so many pixels saturate
    last = k.clamp(max=slope.shape[-1] - 1)
    root = (eps**2 - used.gather(-1, last)).clamp(min=0) / left.gather(-1, last)
    everything = (k == slope.shape[-1]) | (left.gather(-1, last) == 0)
    scale = torch.where(everything, torch.inf, root.sqrt())
    step = torch.where(slope > 0, slope * scale, 0.0)
    return torch.minimum(step, room)


def _fill_l1(slope: Tensor, room: Tensor, eps: float) -> Tensor:
    """Return the greedy fill: the steepest pixels first, each up to its room."""
    room = torch.where(slope > 0, room, 0.0)
    order = slope.argsort(dim=-1, descending=True)
    sorted_room = room.gather(-1, order)
    spent = _before(sorted_room)
    step = torch.minimum((eps - spent).clamp(min=0), sorted_room)
    return torch.zeros_like(room).scatter(-1, order, step)


def worst_delta(
    w: Tensor, x: Tensor, eps: float, *, norm: str = "linf", box: bool = True
) -> Tensor:
    """Return the ``delta`` that minimises ``<w, delta>`` over the allowed set: exact.

    ``w`` and ``x`` (..., D) broadcast against each other; ``x`` in [0, 1]; ``eps`` in
    units of ``x``. With ``box``, ``x + delta`` stays in [0, 1]. Returns ``delta``
    (..., D), detached, exact up to rounding. Raises ``ValueError`` for NaN in ``w``,
    images outside [0, 1], a negative ``eps`` or an unknown ``norm``.
    """
    check_images(x.reshape(1, -1))
    check_eps(eps, norm)
    if not w.isfinite().all():
        raise ValueError("the weights hold NaN or infinity")
    peak = w.detach().abs().amax(-1, keepdim=True)
    w = torch.where(peak > 0, w.detach() / peak, 0.0)  # tiny squares would underflow
    w = torch.where(w.abs() > 1e-15, w, 0.0)  # less than rounding of the result
    w, x = torch.broadcast_tensors(w, x.detach())
    if not box:
        return _unboxed(w, eps, norm)
    if norm == "linf":
        return (-eps * w.sign()).clamp(-x, 1 - x)
    room = torch.where(w > 0, x, 1 - x)  # how far a pixel can move against w
    fill = {"l2": _fill_l2, "l1": _fill_l1}[norm]
    return (-w.sign() * fill(w.abs(), room, eps)).clamp(-x, 1 - x)


def _unboxed(w: Tensor, eps: float, norm: str) -> Tensor:
    if norm == "linf":
        return -eps * w.sign()
    if norm == "l2":
        length = torch.linalg.vector_norm(w, dim=-1, keepdim=True)
        return -eps * torch.where(length > 0, w / length, 0.0)
    steepest = w.abs().argmax(-1, keepdim=True)
    step = -eps * w.gather(-1, steepest).sign()
    return torch.zeros_like(w).scatter(-1, steepest, step)


def min_product(
    w: Tensor, x: Tensor, eps: float, *, norm: str = "linf", box: bool = True
) -> Tensor:
    """Return ``min <w, delta>`` over the allowed set, shape (...), differentiable in w.

    Arguments and errors as ``worst_delta``; without the box it is
    ``-eps * dual_norm(w)``. Its gradient in ``w`` is ``worst_delta`` (Danskin).
    """
    delta = worst_delta(w, x, eps, norm=norm, box=box)
    return (w * delta).sum(-1)


def _products(
    directions: Tensor, pick: Tensor, x: Tensor, eps: float, norm: str, box: bool
) -> Tensor:
    """Return ``min <directions[pick[n, k]], delta>`` over the set of image n: (N, K).

    Few ``directions`` (M, D) serve many images ``x`` (N, D). Without the box the
    minimum does not depend on the image. With it and l-inf it is a matrix product: a
    pixel with a positive weight falls by min(eps, x), one with a negative weight
    rises by min(eps, 1 - x).
    """
    check_eps(eps, norm)
    if not directions.isfinite().all():
        raise ValueError("the weights hold NaN or infinity")
    if eps == 0:
        return directions.new_zeros(pick.shape)
    if not box:
        return (-eps * dual_norm(directions, norm))[pick]
    if norm != "linf":
        return min_product(directions[pick], x[:, None], eps, norm=norm)
    falls, rises = x.clamp(max=eps), (1 - x).clamp(max=eps)
    damage = falls @ F.relu(directions).T + rises @ F.relu(-directions).T
    return -damage.gather(1, pick)


def binary_margins(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    norm: str = "linf",
    box: bool = True,
) -> Tensor:
    """Return the exact worst-case margins ``min y h(x + delta)`` (N,).

    ``model`` has one linear layer with one output; ``x`` (N, ...) in [0, 1]; ``y``
    (N,) of -1 and +1. Differentiable in the parameters. Raises ``TypeError`` for
    another model, ``ValueError`` for other labels, and what ``worst_delta`` raises.
    """
    weight, bias = _compared(model, x)
    if len(weight) != 1:
        raise TypeError(f"a binary model has one output, this one {len(weight)}")
    if y.shape != x.shape[:1] or not (y.abs() == 1).all():
        raise ValueError("binary labels are -1 and +1, one per image")
    check_images(x)
    x = x.flatten(1)
    clean = y * (x @ weight[0] + bias[0])
    directions, pick = torch.cat([-weight, weight]), (y > 0).long()[:, None]
    return clean + _products(directions, pick, x, eps, norm, box)[:, 0]


def parameters(model: nn.Module) -> tuple[Tensor, Tensor]:
    """Return ``weight`` (K, D) and ``bias`` (K,), or zeros, of a linear model.

    Raises ``TypeError`` unless ``model`` is exactly one Linear layer and Flatten layers
    (Identity, Dropout and Sequential around them change nothing), and for what
    ``networks.gate.refuse_hidden`` refuses.
    """
    layer = _linear_layer(model)
    bias = layer.weight.new_zeros(len(layer.weight)) if layer.bias is None else None
    return layer.weight, layer.bias if bias is None else bias


def _linear_layer(model: nn.Module) -> nn.Linear:
    if not isinstance(model, nn.Module):
        raise TypeError(f"the model is a {type(model).__name__}, no nn.Module")
    gate.refuse_hidden(model)
    parts = gate.flat_layers(model)
    for part in parts:
        if is_kind(part, nn.Dropout):
            check_model(part)  # in train mode it would drop; a Linear layer may train
    linears = [part for part in parts if is_kind(part, nn.Linear)]
    plain = (nn.Linear, nn.Flatten, nn.Identity, nn.Dropout)
    others = [part for part in parts if not is_kind(part, *plain)]
    if others or len(linears) != 1:
        what = type(others[0]).__name__ if others else f"{len(linears)} Linear layers"
        raise TypeError(
            f"not a linear model: {what}; need Flatten layers and one Linear"
        )
    return linears[0]


def _compared(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the parameters, compared with what ``model`` returns at images ``x``."""
    weight, bias = parameters(model)
    check_images(x)
    if x.dtype != weight.dtype:
        check_dtype(model, x)
    if x[0].numel() != weight.shape[1]:
        raise ValueError(
            f"images of {tuple(x.shape[1:])} do not fit {weight.shape[1]} weights"
        )
    layer = with_weights(_linear_layer(model), weight.detach(), bias.detach())
    with gate.compared_once():  # in training the weights change at every step
        gate.compare(model, nn.Sequential(nn.Flatten(), layer), x)
    return weight, bias


def pairwise_margins(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    norm: str = "linf",
    box: bool = True,
) -> Tensor:
    """Return ``min (z_y - z_j)(x + delta)`` for every class j: (N, K), exact.

    Each entry is exact on its own (the minimisers differ from class to class); entry
    j = y is 0. ``x`` (N, ...) in [0, 1], ``y`` (N,) int64. Differentiable in the
    parameters. Raises ``TypeError`` for a model that is not linear and what
    ``worst_delta`` raises.
    """
    check_labels(x, y)
    weight, bias = _compared(model, x)
    check_classes(y, len(weight))
    x, k = x.flatten(1), len(weight)
    logits = x @ weight.T + bias
    clean = logits.gather(1, y[:, None]) - logits
    differences = (weight[:, None] - weight).flatten(0, 1)  # row y * K + j: w_y - w_j
    pick = y[:, None] * k + torch.arange(k, device=y.device)
    return clean + _products(differences, pick, x, eps, norm, box)


def robustly_wrong(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    norm: str = "linf",
    box: bool = True,
) -> Tensor:
    """Return which images some allowed ``delta`` misclassifies (N,): exact, bool.

    A tie counts as an error: no other class may reach the logit of the right one.
    Arguments and errors as ``pairwise_margins``.
    """
    margins = pairwise_margins(model, x, y, eps, norm=norm, box=box)
    right = F.one_hot(y, margins.shape[1]).bool()
    return (margins.masked_fill(right, torch.inf) <= 0).any(1)


def cross_entropy_bound(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    norm: str = "linf",
    box: bool = True,
) -> Tensor:
    """Return an upper bound on the worst-case cross-entropy (N,): sound, not exact.

    It is the cross-entropy of the negated ``pairwise_margins``: each class gets its
    own best ``delta``. Exact for two classes. Arguments and errors as there.
    """
    margins = pairwise_margins(model, x, y, eps, norm=norm, box=box)
    return torch.logsumexp(-margins, dim=1)


def shortest_linear(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    """Return the exact minimal l2 distortion (N,) float64 of a linear ``model``.

    The length of the shortest ``delta`` with ``x + delta`` in [0, 1] at which no logit
    is above that of ``target`` (N,) int64, for ``x`` (N, ...): a convex quadratic
    program for each image, solved by Clarabel to about eight digits; inf where no point
    of the box is such. Each row is scaled by a power of two, so that the length does
    not depend on the scale of the logits. Raises ``TypeError`` for a model that is not
    linear (``parameters``), ``ValueError`` for bad input, ``RuntimeError`` if the
    solver gives up.
    """
    check_all(model, x, target, 0.0, "l2")
    weight, bias = (part.detach().double().cpu() for part in parameters(model))
    check_classes(target, len(weight))
    own = model_dtype(model)
    _compared(model, x.to(own))
    pairs = zip(x.detach().double().cpu().flatten(1).numpy(), target, strict=True)
    weight, bias = weight.numpy(), bias.numpy()
    return torch.tensor(
        [_quadratic(weight, bias, a, int(t)) for a, t in pairs]
    ).double()


def _quadratic(weight: Array, bias: Array, x: Array, t: int) -> float:
    r = cp.Variable(len(x))
    rivals = np.arange(len(bias)) != t
    rows, sides = weight[t] - weight[rivals], bias[t] - bias[rivals]
    size = np.abs(rows).max(1)
    if (sides[size == 0] < 0).any():  # no image changes this lead
        return math.inf
    rows, sides, size = rows[size > 0], sides[size > 0], size[size > 0]
    scale = np.exp2(-np.frexp(size)[1])  # exact
    rows, sides = rows * scale[:, None], sides * scale
    most = np.maximum(rows, 0).sum(1) + sides
    if (most < 0).any():
        return math.inf
    limits = [x + r >= 0, x + r <= 1]
    if len(rows):
        limits.append(rows @ (x + r) + sides >= 0)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(r)), limits)
    problem.solve(solver="CLARABEL")
    if problem.status == "infeasible":
        return math.inf
    if problem.status != "optimal":
        raise RuntimeError(f"the quadratic program is {problem.status}")
    return math.sqrt(max(problem.value, 0.0))
