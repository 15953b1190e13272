"""An ensemble of short attacks that works only on images that still stand."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from advlib._check import (
    ask,
    check_all,
    check_classes,
    check_counts,
    check_steps,
    outside_inference,
)
from advlib.attacks.losses import (
    Loss,
    cross_entropy,
    dlr_loss,
    margin_loss,
    targeted_loss,
)
from advlib.attacks.pgd import State, ascend
from advlib.attacks.search import search_squares, square_side, stripes
from advlib.attacks.steps import free_room, uniform_like


@outside_inference
def strong_attack(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    seed: int = 0,
    search: bool = True,
    num_restarts: int = 24,
    num_steps: int = 20,
    num_queries: int = 1000,
) -> Tensor:
    """Return ``delta`` of an ensemble that works only on images that still stand.

    ``model`` maps ``x`` (N, ...) in [0, 1] to logits; ``y`` (N,) int64; l-inf ``eps``
    in units of ``x``, the box respected. ``num_restarts`` short runs of ``num_steps``
    steps with momentum and a falling step, from random starts drawn from ``seed``, take
    turns with four losses: cross-entropy, margin, difference of logits ratio, one
    target class after the other.
    With ``search``, ``square`` follows in three rounds that cost about
    ``num_queries`` forward passes an image each: on all that stand, on the half
    nearest to an error, on a quarter. Fooled images are dropped at once. Returns each
    image's point of highest margin loss, or the one at which it fell: a lower bound.
    Raises ``ValueError`` or ``TypeError`` for bad input, included logits with NaN or
    infinity at any point that an image is tried at.
    """
    check_all(model, x, y, eps)
    check_steps(num_steps)
    check_counts(0, num_queries=num_queries)
    check_counts(0 if search and x.dim() == 4 else 1, num_restarts=num_restarts)
    x, generator = x.detach(), torch.Generator().manual_seed(seed)
    record = _Record(model, x, y)
    state = (x, y, torch.zeros_like(x), *free_room(x, True, eps))
    for loss in _turns(num_restarts, record.num_classes):
        delta = state[3] + (state[4] - state[3]) * uniform_like(x, generator)
        start = (x, y, delta.clamp(state[3], state[4]), *state[3:])
        record.keep(
            lambda part, loss=loss: _momentum(model, part, eps, num_steps, loss), start
        )
    for rounds in (1, 2, 4) if search and x.dim() == 4 else ():
        sides = [
            square_side(x, 0.8, k / num_queries / rounds)
            for k in range(rounds * num_queries)
        ]
        start = (x, y, stripes(*state[3:], generator), *state[3:])
        record.keep(
            lambda part, sides=sides: search_squares(model, part, sides, generator),
            start,
            rounds,
        )
    return record.delta


def _turns(num_restarts: int, num_classes: int) -> list[Loss]:
    """Return one loss for each run: what one of them is blind to, another sees."""
    ratio, losses = dlr_loss if num_classes > 2 else margin_loss, []
    for run in range(num_restarts):
        target = partial(targeted_loss, target=run // 6 % num_classes)
        cycle = (cross_entropy, margin_loss, cross_entropy, margin_loss, ratio, target)
        losses.append(cycle[run % 6])
    return losses


def _momentum(
    model: nn.Module, state: State, eps: float, num_steps: int, loss: Loss
) -> Tensor:
    """Run with steps from 2 eps down to eps / 50, each with a quarter of the last."""

    def move(
        delta: Tensor,
        gradient: Tensor,
        lower: Tensor,
        upper: Tensor,
        previous: Tensor,
        step: int,
    ) -> Tensor:
        alpha = 2 * eps * 0.01 ** (step / max(num_steps - 1, 1))
        moved = (delta + alpha * gradient.sign()).clamp_(lower, upper)
        inertia = 0.25 * (delta - previous)  # 0 at the first step
        return moved.sub_(delta).mul_(0.75).add_(delta + inertia).clamp_(lower, upper)

    return ascend(model, state, move, num_steps, loss, True)


class _Record:
    """The best ``delta`` of each image so far, its margin loss, and who stands."""

    def __init__(self, model: nn.Module, x: Tensor, y: Tensor) -> None:
        self.model, self.delta = model, torch.zeros_like(x)
        logits = ask(model, x)
        check_classes(y, logits.shape[1])
        self.num_classes = logits.shape[1]
        self.value = margin_loss(logits, y)
        self.standing = (logits.argmax(1) == y).nonzero().squeeze(1)

    def keep(
        self, attack: Callable[[State], Tensor], state: State, divide: int = 1
    ) -> None:
        """Attack those that stand, or the nearest to an error; remember the best."""
        some = self.standing
        if divide > 1:
            near = self.value[some].topk(math.ceil(len(some) / divide)).indices
            some = some[near]
        if len(some) == 0:
            return
        part = tuple(t[some] for t in state)
        delta = attack(part)
        logits = ask(self.model, part[0], delta)
        value, fooled = margin_loss(logits, part[1]), logits.argmax(1) != part[1]
        better = fooled | (value > self.value[some])
        self.delta[some[better]] = delta[better]
        self.value[some[better]] = value[better]
        fallen = torch.zeros_like(self.value, dtype=torch.bool)
        fallen[some] = fooled
        self.standing = self.standing[~fallen[self.standing]]
