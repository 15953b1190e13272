"""Chapter 8b: a mask that no check notices, and the attack that walks through it."""

from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from advlib.attacks import pgd_linf
from advlib.evaluation import attacked, masking_checks, wrong
from advlib.exercises.core import Exercise
from advlib.exercises.judging import NotYet, call, last_line, shaped, shown

EPS, COUNT, SIDE, CLASSES = 0.1, 60, 8, 3
WRONG, FALLS = 0.2, 0.3  # at most, as they are; at least, to the attack and not to PGD
PGD = partial(pgd_linf, eps=EPS, alpha=2.5 * EPS / 40, num_steps=40, drop_fooled=True)
ATTACK = "(weak, x, y)"


def _linear(weight: np.ndarray) -> nn.Sequential:
    """A linear network on x - 1/2 without a bias."""
    layer = nn.Linear(SIDE * SIDE, len(weight)).double()
    layer.weight.data = torch.from_numpy(weight)
    layer.bias.data = torch.from_numpy(-weight.sum(1) / 2)
    return nn.Sequential(nn.Flatten(), layer).eval().requires_grad_(False)


def _setting(
    rng: np.random.Generator,
) -> tuple[nn.Module, nn.Module, Tensor, Tensor]:
    """Return a weak network, a strong one, 8-bit images and their classes.

    A class is a coarse black-and-white pattern. The strong network matches patterns,
    and no change of 0.1 turns it; the weak one also listens to a fine pattern.
    """
    waves = [np.ones(SIDE), np.repeat([1, -1], 4), np.repeat([1, -1, -1, 1], 2)]
    waves.append(np.repeat([1, -1, 1, -1], 2))
    coarse = [np.outer(a, b).ravel() for a in waves for b in waves][1:]
    chosen = rng.choice(len(coarse), size=CLASSES, replace=False)
    patterns = np.array([coarse[k] * rng.choice([-1, 1]) for k in chosen])
    y = rng.integers(CLASSES, size=COUNT)
    x = 0.5 + 0.25 * patterns[y] + 0.05 * rng.standard_normal((COUNT, SIDE * SIDE))
    x = (x.clip(0, 1) * 255).round() / 255
    fine = rng.choice([-1.0, 1.0], size=(CLASSES, SIDE * SIDE))
    fine -= fine @ patterns.T @ patterns / SIDE**2  # blind to the classes
    strong, weak = _linear(patterns / 4), _linear(patterns / 4 + fine)
    images = torch.from_numpy(x).view(COUNT, 1, SIDE, SIDE)
    return weak, strong, images, torch.from_numpy(y)


def _masked(build: object, weak: nn.Module, strong: nn.Module) -> nn.Module:
    made = call(build, "(weak, strong)", weak, strong)
    if not isinstance(made, nn.Module):
        raise NotYet(f"mask(weak, strong) returns {shown(made)}, not a network")
    return made.eval()


def _clean(mask: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return which images are wrong as they are; few may be."""
    try:
        bad = wrong(mask, x, y)
    except Exception as error:
        raise NotYet(f"asked for its logits it raised {last_line(error)}") from error
    share = float(bad.double().mean())
    if share > WRONG:
        raise NotYet(f"the network reads {share:.0%} of the images wrong as they are")
    return bad


def _moved(attack: object, weak: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return what the attack makes of the images, after a look at its delta."""
    found = call(attack, ATTACK, weak, x, y)
    delta = torch.from_numpy(shaped(found, x.shape, "delta, shaped as x"))
    if delta.abs().max() > EPS + 1e-6:
        if (delta - x).abs().max() <= EPS + 1e-6:
            raise NotYet("the attack returns the images x + delta, not delta")
        raise NotYet(
            "the attack is not projected onto the ball: its largest |delta| is "
            f"{delta.abs().max():.3g}, eps is 0.1"
        )
    moved = x + delta
    if moved.min() < -1e-6 or moved.max() > 1 + 1e-6:
        raise NotYet(
            "the attack is not projected onto the box: x + delta leaves [0, 1]"
        )
    return moved


def _falls(
    mask: nn.Module, weak: nn.Module, moved: Tensor, x: Tensor, y: Tensor, bad: Tensor
) -> None:
    """Refuse what the attack does not fool, and what PGD fools as well."""
    fooled = wrong(mask, moved, y) & ~bad
    right = float((~bad).double().sum())
    share = float(fooled.double().sum()) / right
    if share < FALLS:
        seen = float((wrong(weak, moved, y) & ~bad).double().sum()) / right
        grey = moved * 255
        if seen >= FALLS and (grey - grey.round()).abs().max() < 1e-6:
            raise NotYet(
                f"your attack fools {seen:.0%} of the images on the weak network and "
                f"{share:.0%} behind the mask: 255 (x + delta) is whole only up to "
                "rounding, so let the mask allow 0.001"
            )
        raise NotYet(
            f"your attack fools {share:.0%} of the images behind the mask: that shows "
            f"no network that is not robust; at least {FALLS:.0%} are asked for"
        )
    alone = fooled & ~attacked(mask, x, y, [PGD])
    if float(alone.double().sum()) < FALLS * right:
        raise NotYet("nothing is masked: plain PGD fools what your attack fools")


def _judge(answer: object, rng: np.random.Generator) -> str:
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        raise NotYet("hand in the pair (mask, attack)")
    weak, strong, x, y = _setting(rng)
    mask = _masked(answer[0], weak, strong)
    bad = _clean(mask, x, y)
    _falls(mask, weak, _moved(answer[1], weak, x, y), x, y, bad)
    seed = int(rng.integers(2**31))
    checks = masking_checks(
        mask, x, y, EPS, num_queries=100, substitutes=[weak, strong], seed=seed
    )
    fired = [f"{check.name} ({check.meaning})" for check in checks if check.fired]
    if fired:
        raise NotYet(f"a check notices it: {'; '.join(fired)}")
    return "no check fires, and your attack fools what PGD leaves standing"


EXERCISES = [
    Exercise(
        "8b.7",
        "A mask that no check notices",
        "the pair (mask, attack): mask(weak, strong) returns the masked network, made "
        "of a weak and a robust one, and attack(weak, x, y) a delta with |delta| <= "
        "0.1 that fools it, for images of 8 bits in float64",
        (
            "the checks and the attacks visit points that no file can hold: a pixel of "
            "8 bits is a whole number over 255",
            "let the robust network answer for all points but those whose pixels are "
            "whole grey levels, where the weak one answers; the attack rounds what PGD "
            "finds on the weak one to grey levels, towards zero; one check still "
            "notices it: a step of PGD ends on the robust network, whose logits must "
            "be small beside the weak one's, so divide them by 10",
        ),
        _judge,
    )
]
