"""Objectives of a training: the cross-entropy, robust losses, penalties."""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advlib import bounds
from advlib._check import ask, check_classes, check_eps, check_steps
from advlib.attacks import pgd_linf
from advlib.networks.gate import compared_once
from advlib.training.modes import in_eval_mode

Objective = Callable[[nn.Module, Tensor, Tensor], Tensor]


def mean_cross_entropy(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the mean cross-entropy of ``model`` on a batch ``x``, ``y``: a scalar.

    Raises ``ValueError`` for labels that are none of the classes, and a single class,
    whose cross-entropy is always 0.
    """
    logits = model(x)
    if logits.dim() == 2:
        check_classes(y, logits.shape[1])
    return F.cross_entropy(logits, y)


class Ramp:
    """A share that grows: 0 at the first call, 1 from call ``num_calls`` on.

    With ``num_calls`` = 0 it is always 1. Robust training from the full radius tends
    to end in a network that ignores its input.
    """

    def __init__(self, num_calls: int) -> None:
        self.num_calls = num_calls
        self.calls = 0

    def __call__(self) -> float:
        """Return the share of this call, and count it."""
        share = min(1.0, self.calls / self.num_calls) if self.num_calls else 1.0
        self.calls += 1
        return share


class IntervalLoss:
    """Training on a certificate: the mean of clean and interval cross-entropy.

    Over all perturbations in the l-inf ball of radius ``eps``, in the box [0, 1], the
    cross-entropy is at most that of the logits z_j - z_y raised to the upper ends of
    their intervals. ``ramp`` gives the share s of the radius for each batch; the
    weights are 1 - s / 2 for the clean loss and s / 2 for this bound, so that training
    starts as a standard one. Gowal et al. 2018, arXiv:1810.12715.
    """

    def __init__(self, eps: float, ramp: Callable[[], float]) -> None:
        self.eps = eps
        self.ramp = ramp

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Return the loss of ``model`` on a batch ``x``, ``y``: a scalar.

        The bounds are those of eval mode; the mode is put back.
        """
        share = self.ramp()
        clean = mean_cross_entropy(model, x, y)
        with in_eval_mode(model), compared_once():
            margins = self.margins(model, x, y, share)
        return (1 - share / 2) * clean + share / 2 * F.cross_entropy(-margins, y)

    def margins(self, model: nn.Module, x: Tensor, y: Tensor, share: float) -> Tensor:
        """Return lower bounds (N, K) on the margins at ``x``, ``y`` at that ``share``.

        ``model`` is in eval mode.
        """
        return bounds.interval_margins(model, x, y, share * self.eps)


class CrownIntervalLoss(IntervalLoss):
    """Training on a certificate that starts as a tight one and ends as a loose one.

    As ``IntervalLoss``, with the mean of two bounds on the margins, weighted by the
    share s of the radius: s times that by intervals plus 1 - s times that of a CROWN
    walk over interval bounds before each ReLU. A mean of bounds is a bound. Zhang et
    al. 2020, arXiv:1906.06316.
    """

    def margins(self, model: nn.Module, x: Tensor, y: Tensor, share: float) -> Tensor:
        """Return lower bounds (N, K) on the margins at ``x``, ``y`` at that ``share``.

        ``model`` is in eval mode.
        """
        eps = share * self.eps
        loose = bounds.interval_margins(model, x, y, eps)
        if share == 1:
            return loose
        corners = bounds.input_box(x, eps)
        pre = bounds.relu_bounds(model, *corners, method="interval")
        tight = bounds.crown_margins(model, x, y, eps, pre=pre)
        return share * loose + (1 - share) * tight


class TradesLoss:
    """The cross-entropy of clean images plus ``beta`` times how far they can be moved.

    The second term is the divergence KL(p(x) || p(x + delta)) of the network's
    probabilities, its delta found in the l-inf ball of radius ``eps``, box respected,
    by ``num_steps`` of PGD on that divergence, each of length ``alpha``, from a start
    of size 0.001 drawn from ``seed`` (at delta = 0 its gradient is 0). Labels are used
    in the first term only. Raises ``ValueError`` for a ``beta``, ``eps``, ``alpha`` or
    ``num_steps`` that is negative or not finite; called, what ``pgd_linf`` raises.
    Zhang et al. 2019, arXiv:1901.08573.
    """

    def __init__(
        self, eps: float, *, alpha: float, num_steps: int, beta: float, seed: int = 0
    ) -> None:
        check_eps(eps)
        check_steps(num_steps, alpha)
        if not 0 <= beta < math.inf:
            raise ValueError(f"beta must not be negative, and finite: {beta}")
        self.eps, self.alpha, self.num_steps, self.beta = eps, alpha, num_steps, beta
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Return the loss of ``model`` on a batch ``x``, ``y``: a scalar."""
        delta = self.perturb(model, x, y)
        logits = model(x.clone())  # it may work in place
        divergence = _divergence(logits, model(x + delta)).mean()
        return F.cross_entropy(logits, y) + self.beta * divergence

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Return ``delta`` that moves the probabilities of ``model`` at ``x`` far.

        Crafted in eval mode; the mode is put back. ``y`` only has to be a class.
        """
        start = 1e-3 * torch.randn(x.shape, generator=self.generator).to(x)
        with in_eval_mode(model):
            clean = ask(model, x)
            return pgd_linf(
                model,
                x,
                y,
                self.eps,
                alpha=self.alpha,
                num_steps=self.num_steps,
                start=start,
                loss=lambda logits, _: _divergence(clean, logits),
            )


def _divergence(logits: Tensor, moved: Tensor) -> Tensor:
    """Return KL(softmax(logits) || softmax(moved)) per image (N,)."""
    logs = logits.log_softmax(1), moved.log_softmax(1)
    return F.kl_div(logs[1], logs[0], reduction="none", log_target=True).sum(1)


class DecayedLoss:
    """An ``objective``, the mean cross-entropy, plus weight decay: a factor per layer.

    Each fully connected layer with weights W and k units adds ``decay * |W|^2 / k``,
    |W| the Frobenius norm; ``decays`` in the order of the layers.
    """

    def __init__(
        self, decays: Sequence[float], objective: Objective = mean_cross_entropy
    ) -> None:
        self.decays, self.objective = decays, objective

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Return the loss of ``model`` on a batch ``x``, ``y``: a scalar.

        Raises ``ValueError`` unless there is one factor for each layer.
        """
        layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
        penalty = sum(
            decay * layer.weight.square().sum() / layer.out_features
            for decay, layer in zip(self.decays, layers, strict=True)
        )
        return self.objective(model, x, y) + penalty


class SparseReconstruction:
    """What a sparse autoencoder minimises; its labels are ignored.

    The network ends in (encoder, units, decoder), the units sigmoid, the decoder a
    Linear of logits, one for each pixel. The cross-entropy of the pixels in [0, 1],
    summed over the image, plus ``weight`` times the divergence, summed over the units,
    of a mean activity of ``share`` from the one measured on the batch.
    """

    def __init__(self, share: float, weight: float) -> None:
        self.share = share
        self.weight = weight

    def __call__(self, model: nn.Sequential, x: Tensor, y: Tensor) -> Tensor:
        """Return the loss of ``model`` on a batch ``x``: a scalar; ``y`` is unused."""
        hidden = model[:-1](x)
        pixels = F.binary_cross_entropy_with_logits(
            model[-1](hidden), x.flatten(1), reduction="sum"
        )
        active = hidden.mean(0).clamp(1e-4, 1 - 1e-4)
        excess = self.share * (self.share / active).log()
        excess = excess + (1 - self.share) * ((1 - self.share) / (1 - active)).log()
        return pixels / len(x) + self.weight * excess.sum()
