"""Attacks made for training, and the noise that is their control."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from advlib._check import check_classes, check_delta, check_eps
from advlib.attacks import Attack, pgd_linf


def fast(
    eps: float,
    *,
    factor: float = 1.25,
    seed: int = 0,
    ramp: Callable[[], float] | None = None,
) -> Attack:
    """Return one gradient step from a random start: an attack to train with.

    The start is uniform in the l-inf ball of radius ``eps`` cut to the box [0, 1],
    drawn from ``seed``; the step, ``factor`` times the radius, is projected onto the
    same set: with a ``factor`` of 2 or more every pixel ends at a corner. ``ramp``
    gives the share of the radius for each batch (None: all of it). Raises
    ``ValueError`` for a radius that is none and unless ``factor`` is positive and
    finite. Wong et al. 2020, arXiv:2001.03994.
    """
    check_eps(eps)
    if not 0 < factor < math.inf:
        raise ValueError(f"the factor must be positive and finite: {factor}")
    generator = torch.Generator().manual_seed(seed)

    def attack(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        radius = eps if ramp is None else eps * ramp()
        return pgd_linf(
            model, x, y, radius, alpha=factor * radius, num_steps=1, generator=generator
        )

    return attack


def toward_random_target(
    attack: Callable[..., Tensor], num_classes: int, *, seed: int = 0
) -> Attack:
    """Return a targeted ``attack(model, x, y, target)`` as one on ``(model, x, y)``.

    Each image gets one of the other ``num_classes`` - 1 classes, drawn from ``seed``.
    Raises ``ValueError`` for fewer than two classes, and when called for a label that
    is none of them.
    """
    if num_classes < 2:
        raise ValueError("a target needs a second class")
    generator = torch.Generator().manual_seed(seed)

    def aimed(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        check_classes(y, num_classes)
        shift = torch.randint(1, num_classes, y.shape, generator=generator)
        return attack(model, x, y, (y + shift.to(y)) % num_classes)

    return aimed


def noise_as_long_as(attack: Attack, *, seed: int = 0) -> Attack:
    """Return Gaussian noise, in the box, with each image's l2 length of ``attack``.

    The control for what an attack adds to noise: the direction is drawn from ``seed``,
    clipped to [0, 1] and scaled until what is left of it is as long as the attack's
    perturbation (or as long as the box allows). When called, raises ``ValueError`` or
    ``TypeError`` if what the attack returns is no finite ``delta``, shaped as ``x``.
    """
    generator = torch.Generator().manual_seed(seed)

    def noise(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        delta = check_delta(attack(model, x, y), x)
        wanted = delta.flatten(1).norm(dim=1, keepdim=True)
        draw = torch.randn(x.shape, generator=generator).to(x).flatten(1)
        low, high = -x.flatten(1), 1 - x.flatten(1)
        below, above = torch.zeros_like(wanted), 1e3 * torch.ones_like(wanted)
        for _ in range(30):
            scale = (below + above) / 2
            length = (scale * draw).clamp(low, high).norm(dim=1, keepdim=True)
            below = torch.where(length < wanted, scale, below)
            above = torch.where(length < wanted, above, scale)
        return (below * draw).clamp(low, high).view_as(x)

    return noise


def shortened(attack: Attack, length: float) -> Attack:
    """Return ``attack`` with every perturbation cut to at most ``length`` in l2.

    Raises ``ValueError`` unless ``length`` is positive and finite; when called, also
    ``TypeError``, if what the attack returns is no finite ``delta``, shaped as ``x``.
    """
    if not 0 < length < math.inf:
        raise ValueError(f"the length must be positive and finite, not {length}")

    def short(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        delta = check_delta(attack(model, x, y), x)
        lengths = delta.flatten(1).norm(dim=1).view(-1, *[1] * (delta.dim() - 1))
        return delta * (length / lengths.clamp(min=length))

    return short
