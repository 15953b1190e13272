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

from advlib._check import check_all, check_eps, check_images, check_labels
from advlib.exact.encoding import Array
from advlib.networks.canonical import canonical_double

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
    weight, bias = parameters(model)
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
    """Return ``weight`` (K, D) and ``bias`` (K,) of a linear model.

    Raises ``TypeError`` unless ``model`` is Flatten layers and exactly one Linear
    layer with a bias.
    """
    layers = list(model) if isinstance(model, nn.Sequential) else [model]
    linears = [layer for layer in layers if isinstance(layer, nn.Linear)]
    others = [m for m in layers if not isinstance(m, (nn.Linear, nn.Flatten))]
    if others or len(linears) != 1 or linears[0].bias is None:
        raise TypeError("not a linear model: need Flatten layers and one Linear")
    return linears[0].weight, linears[0].bias


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
    weight, bias = parameters(model)
    if not (y < len(weight)).all():
        raise ValueError(f"a label is not below the number of classes {len(weight)}")
    check_images(x)
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
    of the box is such. Raises ``TypeError`` for a model of more than one affine layer,
    ``ValueError`` for bad input, ``RuntimeError`` if the solver gives up.
    """
    check_all(model, x, target, 0.0, "l2")
    net = canonical_double(model, x.shape[1:])
    if [type(layer) for layer in net] != [nn.Flatten, nn.Linear]:
        raise TypeError("the program is for linear models, not for networks")
    if not (target < net[-1].out_features).all():
        raise ValueError(f"a target is not below the {net[-1].out_features} classes")
    weight, bias = net[-1].weight.numpy(), net[-1].bias.numpy()
    pairs = zip(x.detach().double().cpu().flatten(1).numpy(), target, strict=True)
    return torch.tensor(
        [_quadratic(weight, bias, a, int(t)) for a, t in pairs]
    ).double()


def _quadratic(weight: Array, bias: Array, x: Array, t: int) -> float:
    r = cp.Variable(len(x))
    rivals = np.arange(len(bias)) != t
    lead = (weight[t] - weight[rivals]) @ (x + r) + bias[t] - bias[rivals]
    limits = [lead >= 0, x + r >= 0, x + r <= 1]
    problem = cp.Problem(cp.Minimize(cp.sum_squares(r)), limits)
    problem.solve(solver="CLARABEL")
    if problem.status == "infeasible":
        return math.inf
    if problem.status != "optimal":
        raise RuntimeError(f"the quadratic program is {problem.status}")
    return math.sqrt(max(problem.value, 0.0))
