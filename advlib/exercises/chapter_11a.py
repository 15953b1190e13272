"""Chapter 11a: the smooth update against ReLU's, at a delta found by twenty steps."""

import copy
import math
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advlib.activations import with_gradient
from advlib.attacks import pgd_linf
from advlib.exercises.core import Exercise
from advlib.exercises.judging import Task, network, numbers, pictures

EPS, LENGTH = 0.3, 0.01


def _twins(net: nn.Module) -> list[nn.Module]:
    """The network with ReLU's gradient, and with a smooth one."""
    return [with_gradient(net, smooth=smooth) for smooth in (False, True)]


def _worst(net: nn.Module, x: Tensor, y: Tensor, *known: Tensor) -> tuple:
    """Return the mean of the largest losses found, and their deltas."""
    tries = list(known)
    for twin in _twins(net):
        for start in (None, *known):
            g = torch.Generator().manual_seed(1) if start is None else None
            tries.append(
                pgd_linf(
                    twin,
                    x,
                    y,
                    EPS,
                    alpha=EPS / 8,
                    num_steps=20,
                    start=start,
                    generator=g,
                )
            )
    losses = [F.cross_entropy(net(x + d), y, reduction="none") for d in tries]
    highest, which = torch.stack(losses).max(0)
    return highest.mean(), torch.stack(tries)[which, torch.arange(len(y))]


def _stepped(net: nn.Module, twin: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
    """A copy of ``net`` after one step down the gradient of ``twin``."""
    open_twin = copy.deepcopy(twin).requires_grad_()
    loss = F.cross_entropy(open_twin(x), y)
    parts = torch.autograd.grad(loss, list(open_twin.parameters()))
    size = math.sqrt(sum(float(part.square().sum()) for part in parts))
    moved = copy.deepcopy(net)
    for weight, part in zip(moved.parameters(), parts, strict=True):
        weight.data -= LENGTH / size * part
    return moved


def _gap(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    at: str = "twenty",
    sign: float = 1.0,
    percent: float = 100.0,
    again: bool = True,
    relative: bool = True,
) -> float:
    """Return smooth minus ReLU in per cent; a keyword plants a mistake."""
    old, far = _worst(net, x, y, _worst(net, x, y)[1])
    if at == "clean":
        point = x
    elif at == "one":
        relu = _twins(net)[0]
        point = x + pgd_linf(relu, x, y, EPS, alpha=EPS, num_steps=1)
    else:
        point = x + far
    new = []
    for twin in _twins(net):
        moved = _stepped(net, twin, point, y)
        same = F.cross_entropy(moved(x + far), y)
        new.append(float(_worst(moved, x, y, far)[0] if again else same))
    return sign * percent * (new[1] - new[0]) / (float(old) if relative else 1.0)


GAP = Task(
    "(model, x, y)",
    truth=_gap,
    read=numbers(None, "smooth minus ReLU in per cent"),
    mistakes={
        "the sign: smooth minus ReLU": partial(_gap, sign=-1.0),
        "in per cent of the worst loss: times 100": partial(_gap, percent=1.0),
        "divide by the worst loss before the step": partial(_gap, relative=False),
        "the step is taken at the clean images: take it at x + far": partial(
            _gap, at="clean"
        ),
        "the step is taken at a delta of one step, as in the text: take that of "
        "`worst`": partial(_gap, at="one"),
        "after the step the opponent moves again: call `worst` on the new network": (
            partial(_gap, again=False)
        ),
    },
    tolerance=1e-5,
)


def _judge(answer: object, rng: np.random.Generator) -> str:
    cases = []
    for pixels, hidden in ((8, 8), (10, 10), (12, 12)):
        net = network(rng, (pixels, hidden, hidden, 3))
        x = pictures(rng, 8, pixels)
        cases.append((net, x, net(x).argmax(1)))
    GAP.judge(answer, cases)
    return "smooth minus ReLU, in per cent, on three small networks"


EXERCISES = [
    Exercise(
        "11a.8",
        "The update at twenty steps",
        "a function of (model, x, y) that returns, for one batch, how much higher the "
        "worst loss is after the smooth update than after ReLU's, in per cent of the "
        "worst loss before",
        (
            "`worst(model, x, y, 0.3)` finds a delta, and once more with that delta "
            "as a further start gives the worst loss before the step and `far`",
            "for each twin of `either(model)` take `after_step(model, twin, x + "
            "far, y)`, and on that network `worst(..., 0.3, far)[0]`; subtract, "
            "divide, times 100",
        ),
        _judge,
    )
]
