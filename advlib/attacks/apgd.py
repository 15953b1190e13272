"""PGD with momentum and a step that halves when an image is stuck."""

import math
from functools import partial

import torch
from torch import Tensor, nn

from advlib._check import check_all, check_steps, outside_inference
from advlib.attacks.losses import Loss, cross_entropy, finite_score
from advlib.attacks.pgd import random_l2, random_linf
from advlib.attacks.steps import (
    broadcast,
    free_room,
    logits_and_gradient,
    project,
    steepest_direction,
)


@outside_inference
def apgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    norm: str = "linf",
    num_steps: int = 100,
    generator: torch.Generator | None = None,
    box: bool = True,
    loss: Loss = cross_entropy,
) -> Tensor:
    """Return ``delta`` found by PGD with momentum and a step that halves when stuck.

    As ``pgd_linf`` (``norm`` "linf") or ``pgd_l2`` ("l2"), but the step starts at
    2 ``eps`` and each image halves its own at the checkpoints of ``num_steps`` where
    its ``loss`` rose too rarely or not at all; it then goes on from its best point.
    Returns each image's point of highest loss, a misclassified one if it met any; a
    loss that is not finite counts as the lowest. Starts at 0, or at random with a
    ``generator``. A lower bound. Raises what ``pgd_linf`` raises, and ``ValueError``
    for l1. Croce and Hein 2020, arXiv:2003.01690, algorithm 1, written anew.
    """
    check_all(model, x, y, eps, norm)
    check_steps(num_steps)
    if norm == "l1":
        raise ValueError("apgd has no l1 rule: use pgd_l1")
    x, (lower, upper) = x.detach(), free_room(x, box, eps if norm == "linf" else None)
    if norm == "linf":
        delta = random_linf(lower, upper, generator)
    else:
        delta = random_l2(eps, lower, upper, generator)
    nearest = partial(project, eps=eps, norm=norm, lower=lower, upper=upper)
    schedule = _Schedule(model, x, y, loss, delta, 2 * eps)
    previous = delta
    for step in range(num_steps):
        ahead = broadcast(schedule.size, x) * steepest_direction(
            schedule.gradient, norm
        )
        moved = nearest(delta + ahead)
        if step:  # momentum, from the second step on
            moved = nearest(delta + 0.75 * (moved - delta) + 0.25 * (delta - previous))
        previous, delta = delta, schedule.look(moved)
        if step + 1 in _checkpoints(num_steps):
            delta = schedule.halve(delta)
    return schedule.found


def _checkpoints(num_steps: int) -> list[int]:
    """Return the steps after which ``apgd`` considers halving: ever closer."""
    shares = [0.0, 0.22]
    while shares[-1] < 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    return sorted({math.ceil(round(s * num_steps, 6)) for s in shares[1:]})


class _Schedule:
    """Each image's best point, and what decides about its step ``size``."""

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        loss: Loss,
        delta: Tensor,
        size: float,
    ) -> None:
        self.ask = partial(logits_and_gradient, model, x, y=y, loss=loss)
        self.y, self.loss = y, loss
        logits, self.gradient = self.ask(delta)
        self.value = self.best = self.best_before = finite_score(loss(logits, y))
        self.best_delta, self.best_gradient = delta, self.gradient
        self.found, self.fooled = delta, logits.argmax(1) != y
        self.size = torch.full_like(self.value, size)
        self.size_before, self.rises = self.size, torch.zeros_like(self.value)
        self.looks = 0

    def look(self, delta: Tensor) -> Tensor:
        """Evaluate loss and gradient at ``delta``, remember the best, return it."""
        logits, self.gradient = self.ask(delta, first=False)
        value = finite_score(self.loss(logits, self.y))
        wrong = logits.argmax(1) != self.y
        self.rises, self.value = self.rises + (value > self.value), value
        self.looks += 1
        better = value > self.best
        found = (wrong & ~self.fooled) | (better & (wrong == self.fooled))
        self.found = torch.where(broadcast(found, delta), delta, self.found)
        self.fooled = self.fooled | wrong
        self.best = torch.where(better, value, self.best)
        better = broadcast(better, delta)
        self.best_delta = torch.where(better, delta, self.best_delta)
        self.best_gradient = torch.where(better, self.gradient, self.best_gradient)
        return delta

    def halve(self, delta: Tensor) -> Tensor:
        """Halve the step of images that are stuck; send these to their best point."""
        idle = (self.size == self.size_before) & (self.best == self.best_before)
        stuck = (self.rises < 0.75 * self.looks) | idle
        self.size_before, self.best_before = self.size, self.best
        self.size = torch.where(stuck, self.size / 2, self.size)
        self.value = torch.where(stuck, self.best, self.value)
        self.rises, self.looks = torch.zeros_like(self.rises), 0
        stuck = broadcast(stuck, delta)
        self.gradient = torch.where(stuck, self.best_gradient, self.gradient)
        return torch.where(stuck, self.best_delta, delta)
