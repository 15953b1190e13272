"""An attack that asks for logits only: random squares."""

import math

import torch
from torch import Tensor, nn

from advlib._check import (
    ask,
    check_all,
    check_classes,
    check_counts,
    outside_inference,
)
from advlib.attacks.losses import margin_loss
from advlib.attacks.pgd import State
from advlib.attacks.steps import broadcast, free_room, uniform_like


@outside_inference
def square(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    generator: torch.Generator,
    num_queries: int = 1000,
    share: float = 0.8,
) -> Tensor:
    """Return ``delta`` found by a search that asks ``model`` for logits only.

    ``x`` (N, C, H, W) in [0, 1]; ``y`` (N,) int64; l-inf ``eps`` in units of ``x``. It
    starts with vertical stripes of +-``eps``; each of ``num_queries`` forward passes
    sets a random square, at first a ``share`` of the image and ever smaller, to random
    signs, and keeps it if the margin falls. Each image draws its own squares from
    ``generator`` and stops when fooled. A lower bound; the box is respected. Raises
    ``ValueError`` or ``TypeError`` for bad input, images of another shape and, at any
    query, logits that ``input_gradient`` refuses. Andriushchenko et al. 2020,
    arXiv:1912.00049, written anew.
    """
    check_all(model, x, y, eps)
    check_counts(0, num_queries=num_queries)
    if x.dim() != 4 or not 0 < share <= 1:
        raise ValueError("need images (N, C, H, W) and 0 < share <= 1")
    lower, upper = free_room(x, True, eps)
    delta = stripes(lower, upper, generator)
    state = (x.detach(), y, delta, lower, upper)
    sides = [square_side(x, share, step / num_queries) for step in range(num_queries)]
    return search_squares(model, state, sides, generator)


def stripes(lower: Tensor, upper: Tensor, generator: torch.Generator) -> Tensor:
    """Send every column of every image to ``lower`` or ``upper``, by ``generator``."""
    return torch.where(uniform_like(lower[:, :, :1], generator) < 0.5, lower, upper)


def square_side(x: Tensor, share: float, progress: float) -> int:
    """Return the side of a square in ``x``, first a ``share`` of it, at ``progress``.

    Its area halves eight times on the way from ``progress`` 0 to 1.
    """
    times = (0.001, 0.005, 0.02, 0.1, 0.2, 0.4, 0.6, 0.8)
    area = share * x[0, 0].numel() / 2 ** sum(progress >= t for t in times)
    return min(max(round(math.sqrt(area)), 1), *x.shape[2:])


def search_squares(
    model: nn.Module, state: State, sides: list[int], generator: torch.Generator
) -> Tensor:
    """Try one square of each of the ``sides``, from ``generator``; return ``delta``.

    ``model``; ``state`` holds x, y, delta, lower, upper. A square is kept where the
    margin loss rises.
    """
    x, y, delta, lower, upper = state
    result, standing = delta.clone(), torch.arange(len(y), device=y.device)
    best = torch.full(y.shape, -torch.inf).to(x)
    for side in [0, *sides]:  # the first looks at the start
        inside = _squares(delta, side, generator)
        up = uniform_like(delta[:, :, :1, :1], generator) < 0.5
        tried = torch.where(inside, torch.where(up, upper, lower), delta)
        logits = ask(model, x, tried)
        if side == 0:
            check_classes(y, logits.shape[1])
        value = margin_loss(logits, y)
        better = value >= best
        delta = torch.where(broadcast(better, x), tried, delta)
        best = torch.where(better, value, best)
        if not (stays := logits.argmax(1) == y).all():
            result[standing] = delta
            parts = (standing, x, y, delta, lower, upper, best)
            standing, x, y, delta, lower, upper, best = (t[stays] for t in parts)
            if len(y) == 0:
                return result
    result[standing] = delta
    return result


def _squares(delta: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Return a random square of each image (N, 1, H, W), as a mask."""
    masks = []
    for size in delta.shape[2:]:
        first = (
            uniform_like(delta[:, 0, 0, :1], generator) * (size - side + 1)
        ).floor()
        place = torch.arange(size, device=delta.device)
        masks.append((place >= first) & (place < first + side))
    return masks[0][:, None, :, None] & masks[1][:, None, None, :]
