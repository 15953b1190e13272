"""The first attack of all: box-constrained L-BFGS, image by image in float64."""

import math
from collections.abc import Callable
from copy import deepcopy

import numpy as np
import torch
from scipy.optimize import Bounds, minimize
from torch import Tensor, nn

from advlib._check import ask, check_counts, outside_inference, run_model
from advlib.attacks.losses import margin_loss
from advlib.attacks.minimal import Minimal, Shortest, check_aim
from advlib.attacks.steps import image_lengths

Array = np.ndarray

DECADES = 12  # the search over c gives up after so many factors of ten


@outside_inference
def lbfgs(
    model: nn.Module,
    x: Tensor,
    target: Tensor,
    *,
    loss: str = "cross_entropy",
    box: str = "bounds",
    c: float = 1.0,
    num_bisections: int = 8,
    max_iter: int = 200,
) -> Minimal:
    """Return short perturbations with which ``model`` predicts ``target``.

    Minimises ``c ||delta||_2^2 + loss(x + delta, target)`` with scipy's L-BFGS-B, image
    by image in float64. ``x`` (N, ...) in [0, 1], ``target`` (N,) int64. The search
    looks for the *largest* ``c`` that succeeds: decades from the given one, then
    ``num_bisections`` of log c, each run of at most ``max_iter`` steps started from the
    last success. ``loss`` "cross_entropy" is the paper's; "margin" is the square of
    ``max(0, lead + 0.1)``, the lead of the best rival over the target as a share of
    that at ``x``: its minimiser at the largest c is the shortest perturbation where
    the lead is convex. ``box`` "bounds" keeps [0, 1] as a constraint, "clip" ignores it
    and clips the result. An upper bound on the minimal distortion. Raises
    ``ValueError`` or ``TypeError`` for bad input, a target that is the prediction
    included, ``FloatingPointError`` for a loss or gradient that is not finite.
    Szegedy et al. 2014, arXiv:1312.6199.
    """
    if loss not in ("cross_entropy", "margin") or box not in ("bounds", "clip"):
        raise ValueError(f"unknown loss {loss!r} or box {box!r}")
    check_counts(0, num_bisections=num_bisections)
    check_counts(1, max_iter=max_iter)
    if not 0 < c < math.inf:
        raise ValueError(f"need 0 < c < inf, not {c}")
    logits = check_aim(model, x, target)
    double = deepcopy(model).double().requires_grad_(False)
    leads, best = margin_loss(logits, target).tolist(), Shortest(x)
    for i, (aim, lead) in enumerate(zip(target.tolist(), leads, strict=True)):
        cost = _cross_entropy if loss == "cross_entropy" else _Hinge(lead)
        one = _Penalised(model, double, x[i : i + 1].detach(), aim, cost, box, max_iter)
        found = _search_c(one, c, num_bisections)
        best.delta[i], best.length[i], best.c[i] = found
    return best.result()


class _Hinge:
    """The squared hinge of the rivals' lead, and its gradient in the logits.

    Both are measured by the lead at the start. The maximum over the rivals is smoothed
    (log-sum-exp, 0.5 % of that lead), or L-BFGS stops where two of them tie.
    """

    def __init__(self, lead: float, kappa: float = 0.1, width: float = 0.005) -> None:
        self.lead, self.kappa, self.width = max(lead, 1e-6), kappa, width

    def __call__(self, logits: Array, target: int) -> tuple[float, Array]:
        scaled = (logits - logits[target]) / (self.width * self.lead)
        scaled[target] = -np.inf
        top = scaled.max()
        share = np.exp(scaled - top)
        total = share.sum()
        lead = self.width * (top + math.log(total)) + self.kappa
        share /= total
        share[target] = -1.0
        over = max(lead, 0.0)
        return over**2, 2 * over / self.lead * share


def _cross_entropy(logits: Array, target: int) -> tuple[float, Array]:
    """Return the cross-entropy and its gradient in the logits of one image."""
    share = np.exp(logits - logits.max())
    total = share.sum()
    value = logits.max() + math.log(total) - logits[target]
    share /= total
    share[target] -= 1
    return float(value), share


class _Penalised:
    """``c ||z - x||^2 + loss(z, target)`` of one image, flat, in float64, for scipy.

    The parameters take no gradient, and the loss is differentiated by hand: one image
    costs a forward and a backward pass and little else.
    """

    def __init__(
        self,
        model: nn.Module,
        double: nn.Module,
        x: Tensor,
        target: int,
        cost: Callable[[Array, int], tuple[float, Array]],
        box: str,
        max_iter: int,
    ) -> None:
        self.model, self.double, self.x = model, double, x
        self.target, self.cost, self.max_iter = target, cost, max_iter
        self.start = x.double().flatten().cpu().numpy()
        self.bounds = Bounds(0.0, 1.0) if box == "bounds" else None

    def value(self, z: Array, c: float) -> tuple[float, Array]:
        """Return value and gradient at the image ``z``, as L-BFGS needs them."""
        point = torch.from_numpy(z).view_as(self.x).to(self.x.device)
        with torch.enable_grad():
            point.requires_grad_()
            logits = run_model(self.double, point.clone())  # it may work in place
            if not logits.isfinite().all():
                raise FloatingPointError("the logits are not finite")
            loss, slope = self.cost(logits.detach()[0].cpu().numpy(), self.target)
            seed = torch.from_numpy(slope)[None].to(logits)
            (gradient,) = torch.autograd.grad(logits, point, seed)
        r = z - self.start
        gradient = 2 * c * r + gradient.flatten().cpu().numpy()
        value = c * (r @ r) + loss
        if not (math.isfinite(value) and np.isfinite(gradient).all()):
            raise FloatingPointError("the loss or its gradient is not finite")
        return value, gradient

    def minimise(self, z: Array, c: float) -> tuple[Array, Tensor, bool]:
        """Return the minimiser from ``z``, its ``delta``, and whether that succeeds."""
        found = minimize(
            self.value,
            z,
            (c,),
            "L-BFGS-B",
            jac=True,
            bounds=self.bounds,
            options={"maxiter": self.max_iter},
        ).x
        r = torch.from_numpy(found - self.start).view_as(self.x).to(self.x)
        delta = r.clamp(-self.x, 1 - self.x)
        hit = ask(self.model, self.x, delta).argmax(1).item() == self.target
        return found, delta, hit


def _search_c(
    one: _Penalised, c: float, num_bisections: int
) -> tuple[Tensor, float, float]:
    """Return the shortest success, its length and its c: delta 0, inf, NaN if none."""
    low, high, z = 0.0, math.inf, one.start  # the largest success, the least failure
    best = torch.zeros_like(one.x[0]), math.inf, math.nan
    for _ in range(DECADES + num_bisections):
        last, delta, hit = one.minimise(z, c)
        length = float(image_lengths(delta.double()))
        if hit and length < best[1]:
            best = delta[0], length, c
        low, high = (c, high) if hit else (low, c)
        if hit or low == 0:
            z = last
        if low == 0 or high == math.inf:
            c *= 10 if hit else 0.1
        elif (num_bisections := num_bisections - 1) < 0:
            break
        else:
            c = math.sqrt(low * high)
    return best
