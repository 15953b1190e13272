"""Steps towards the boundary that a linear model of it would have."""

from functools import partial

import torch
from torch import Tensor, nn

from advlib._check import (
    ask,
    check_all,
    check_counts,
    outside_inference,
)
from advlib.attacks.losses import check_targets, margin_loss, pick_logits
from advlib.attacks.steps import (
    broadcast,
    free_room,
    image_lengths,
    logits_and_gradient,
    shrink,
)


@outside_inference
def boundary_l2(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    target: int | Tensor,
    *,
    num_steps: int = 10,
    max_step: float = 1.0,
    num_halvings: int = 6,
) -> Tensor:
    """Return a short ``delta`` with which ``model`` predicts ``target``.

    ``x`` (N, ...) in [0, 1], ``y`` (N,) int64, ``target`` one class or one per image.
    Each of ``num_steps`` takes the target's lead over its best rival as linear and goes
    towards the shortest point of the box at which it would vanish, by at most
    ``max_step`` in l2. The shortest point that reached the target is kept, and pulled
    back on its segment to ``x`` by ``num_halvings`` bisections. So its length is an
    upper bound on the minimal distortion; exact for a linear model with two classes,
    and cheap enough for training. Where no point reached the target, the last one is
    returned. Raises ``ValueError`` or ``TypeError`` for bad input, a target that is the
    label, and logits or gradients that are not finite, at any point. Linearised like
    DeepFool (Moosavi-Dezfooli et al. 2016, arXiv:1511.04599), from ``x`` anew at each
    step like FAB (Croce and Hein 2020).
    """
    check_all(model, x, y, 0.0, "l2")
    check_counts(0, num_steps=num_steps, num_halvings=num_halvings)
    if not max_step > 0:
        raise ValueError(f"need max_step > 0, not {max_step}")
    x, best = x.detach(), torch.zeros_like(x)
    best_length = torch.full((len(x),), torch.inf).to(x)
    delta, lower, upper = torch.zeros_like(x), *free_room(x, True)
    for step in range(num_steps + 1):
        logits, slope = logits_and_gradient(
            model, x, delta, y, partial(_odds, target=target), first=step == 0
        )
        if step == 0:
            target = check_targets(logits, target)
            if (target == y).any():
                raise ValueError("a target is the label of its image")
        if not slope.isfinite().all():
            raise ValueError("a gradient is NaN or infinite: look at the weights")
        lead, length = _lead(logits, y, target), image_lengths(delta).flatten()
        better = (lead >= 0) & (length < best_length)
        best = torch.where(broadcast(better, x), delta, best)
        best_length = torch.where(better, length, best_length)
        if step < num_steps:
            lead = _odds(logits, y, target)
            onward = _least_step(slope, -1.01 * lead, lower - delta, upper - delta)
            gain = (slope * delta).flatten(1).sum(1) - 1.01 * lead
            anew = _least_step(slope, gain, lower, upper) - delta
            move = shrink(0.8 * onward + 0.2 * anew, max_step)
            delta = (delta + move).clamp(lower, upper)
    best = torch.where(broadcast(best_length.isinf(), x), delta, best)
    return _pull_back(model, x, best, target, num_halvings)


def _lead(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Return by how much the target is ahead of all others; ``y`` does not matter."""
    return -margin_loss(logits, check_targets(logits, target))


def _odds(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Return the logarithm of p / (1 - p) for the target's probability p."""
    target = check_targets(logits, target)
    others = logits.scatter(1, target[:, None], -torch.inf)
    return pick_logits(logits, target) - others.logsumexp(1)


def _least_step(slope: Tensor, gain: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Return the shortest point of the box with ``<slope, delta> >= gain``.

    It is ``clamp(s * slope)``; the gain is concave and piecewise linear in s >= 0, so
    that Newton's method from 0 comes from below and ends. Where no point gains enough,
    the one that gains most.
    """
    g = slope.flatten(1).to(torch.promote_types(slope.dtype, torch.float32))
    size, cap = g.abs(), torch.where(g > 0, upper.flatten(1), -lower.flatten(1))
    square, kink = size * size, cap / size.clamp(min=1e-30)  # a pixel stops at its kink
    s = torch.zeros_like(g[:, :1])
    for _ in range(g.shape[1] + 1):
        rest = gain[:, None] - (square * kink.minimum(s)).sum(1, keepdim=True)
        rate = (square * (kink > s)).sum(1, keepdim=True)
        grown = torch.where((rate > 0) & (rest > 0), s + rest / rate, s)
        if not (grown > s * (1 + 1e-4)).any():
            break
        s = grown
    return (s * g).to(slope.dtype).view_as(slope).clamp(lower, upper)


def _pull_back(
    model: nn.Module, x: Tensor, delta: Tensor, target: Tensor, num_halvings: int
) -> Tensor:
    """Shorten ``delta`` by bisection while the target stays ahead."""
    low, high = torch.zeros(len(x)).to(x), torch.ones(len(x)).to(x)
    for _ in range(num_halvings):
        middle = (low + high) / 2
        lead = _lead(ask(model, x, broadcast(middle, x) * delta), target, target)
        high = torch.where(lead >= 0, middle, high)
        low = torch.where(lead >= 0, low, middle)
    return broadcast(high, x) * delta
