"""Chapter 4b: an attack that goes through a defence without a gradient."""

from itertools import product

import numpy as np
import torch
from torch import Tensor, nn

from advlib.exercises.core import Exercise
from advlib.exercises.judging import Case, NotYet, call, network, shaped

EPS, ENOUGH = 0.3, 0.65
TAKES = "(network, x, y)"


def _answers(net: nn.Module, x: Tensor) -> Tensor:
    """The classes that the defended network gives."""
    return net((x > 0.5).to(x.dtype)).argmax(1)


def _can_be_fooled(net: nn.Module, image: Tensor, label: Tensor) -> bool:
    """Try all sides on which the pixels within eps of one half can end."""
    ends = torch.stack([image - EPS, image + EPS]).clamp(0, 1).flatten(1)
    sides = [sorted(set((pair > 0.5).double().tolist())) for pair in ends.T]
    all_ = torch.tensor(list(product(*sides)), dtype=torch.float64)
    return bool((net(all_.view(-1, *image.shape)).argmax(1) != label).any())


def _case(rng: np.random.Generator) -> Case:
    """A network, and images that some change of at most 0.3 fools."""
    while True:
        net = network(rng, (8, 16, 3), scale=2.0)
        x = rng.choice([0.0, 1.0, 0.35, 0.45, 0.55, 0.65], size=(60, 1, 1, 8))
        near = np.abs(x - 0.5) < 0.4
        x = torch.from_numpy(x + near * rng.uniform(-0.04, 0.04, x.shape))
        y = _answers(net, x)
        kept = [_can_be_fooled(net, *pair) for pair in zip(x, y, strict=True)]
        if sum(kept) >= 15:
            return net, x[torch.tensor(kept)], y[torch.tensor(kept)]


def _read(value: object, x: Tensor) -> Tensor:
    delta = torch.from_numpy(shaped(value, x.shape, "delta, shaped as x"))
    moved = x + delta
    if delta.abs().max() > EPS + 1e-6:
        if (delta - x).abs().max() <= EPS + 1e-6:
            raise NotYet("it returns the attacked images x + delta, not delta")
        raise NotYet(
            "not projected onto the ball: the largest |delta| is "
            f"{delta.abs().max():.3g}, eps is 0.3"
        )
    if moved.min() < -1e-6 or moved.max() > 1 + 1e-6:
        raise NotYet("not projected onto the box: x + delta leaves [0, 1]")
    return delta


def _judge(answer: object, rng: np.random.Generator) -> str:
    won = total = 0
    largest, moves = 0.0, False
    for case in (_case(rng) for _ in range(4)):
        net, x, y = case
        delta = _read(call(answer, TAKES, *case), x)
        won += int((_answers(net, x + delta) != y).sum())
        total += len(y)
        largest = max(largest, float(delta.abs().max()))
        moves = moves or bool(((x + delta > 0.5) != (x > 0.5)).any())
    share = f"{won} of {total} images that a change of at most 0.3 fools"
    if largest == 0:
        raise NotYet(
            "delta is zero: through x > 0.5 the gradient is 0; give the backward pass "
            "the slope of the identity"
        )
    if not moves and largest < 0.05:
        raise NotYet(
            f"eps is 0.3: your largest |delta| is {largest:.2g}, and no pixel "
            "changes sides"
        )
    if won < ENOUGH * total:
        raise NotYet(
            f"it fools {share}, too few: take the gradient where the network looks, at "
            "the black-and-white image, and step up the loss"
        )
    return "it fools most of the images that can be fooled through the defence"


EXERCISES = [
    Exercise(
        "4b.6",
        "An adaptive attack",
        "a function of (network, x, y), the network without the defence, that returns "
        "a delta with |delta| <= 0.3 that fools it behind `x > 0.5`",
        (
            "the layer `x > 0.5` has slope 0 wherever it has one; the attacker may put "
            "any other slope in its place, as long as the values stay",
            "a surrogate layer that returns `x + (binary(x) - x).detach()` has the "
            "values of the defence and the slope of the identity: run PGD on it, in "
            "front of the network",
        ),
        _judge,
    )
]
