"""Chapter 4a: PGD in l1 that moves a share of the pixels in each step."""

from functools import partial

import numpy as np
from torch import Tensor, nn

from advlib import attacks
from advlib.exercises.core import Exercise
from advlib.exercises.judging import Case, Task, network, pictures, shaped

EPS, STEP, STEPS = 10.0, 1.0, 20


def _run(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    share: float,
    *,
    eps: float = EPS,
    alpha: float = STEP,
    num_steps: int = STEPS,
    **more: bool,
) -> Tensor:
    return attacks.pgd_l1(
        net, x, y, eps, alpha=alpha, num_steps=num_steps, share=share, **more
    )


def _fixed(
    net: nn.Module, x: Tensor, y: Tensor, share: float, *, always: float
) -> Tensor:
    return _run(net, x, y, always)


def _images(net: nn.Module, x: Tensor, y: Tensor, share: float) -> Tensor:
    return x + _run(net, x, y, share)


def _other_ball(net: nn.Module, x: Tensor, y: Tensor, share: float) -> Tensor:
    return attacks.pgd_l2(net, x, y, EPS, alpha=STEP, num_steps=STEPS)


def _outside(delta: np.ndarray, case: Case) -> str | None:
    x = case[1].numpy()
    if (x + delta).min() < -1e-6 or (x + delta).max() > 1 + 1e-6:
        return "not projected onto the box: x + delta leaves [0, 1]"
    length = np.abs(delta).reshape(len(x), -1).sum(1).max()
    if length > EPS + 1e-6:
        return f"not projected onto the ball: an l1 norm is {length:.4g}, eps is 10"
    return None


ATTACK = Task(
    "(model, x, y, share)",
    truth=_run,
    read=lambda value, case: shaped(value, case[1].shape, "delta, shaped as x"),
    mistakes={
        "the share is ignored: a single pixel moves in each step": partial(
            _fixed, always=0.0
        ),
        "the share is ignored: it is always 0.1": partial(_fixed, always=0.1),
        "alpha is the l1 length of a step, here 1: yours is 0.1": partial(
            _run, alpha=0.1
        ),
        "alpha is the l1 length of a step, here 1: yours is eps": partial(
            _run, alpha=EPS
        ),
        "eps is 10 here: yours is 1": partial(_run, eps=1.0),
        "eps is 10 here: yours is 0.1": partial(_run, eps=0.1),
        "eps in units of 255": partial(_run, eps=EPS / 255),
        "twenty steps: yours takes forty": partial(_run, num_steps=40),
        "one step only: there are twenty": partial(_run, num_steps=1),
        "not projected onto the box: x + delta leaves [0, 1]": partial(_run, box=False),
        "it returns the attacked images x + delta, not delta": _images,
        "this is the l2 ball: use `attacks.pgd_l1`": _other_ball,
    },
    broken=_outside,
    also=(partial(_run, drop_fooled=True),),
)


def _judge(answer: object, rng: np.random.Generator) -> str:
    cases = []
    for n, pixels, share in ((1, 30, 0.0), (2, 60, 0.05), (3, 60, 0.1), (3, 90, 0.3)):
        net = network(rng, (pixels, 12, 4))
        x = pictures(rng, n, pixels)
        cases.append((net, x, net(x).argmax(1), share))
    ATTACK.judge(answer, cases)
    return "l1 PGD with the share asked for, on four small networks"


EXERCISES = [
    Exercise(
        "4a.6",
        "A share of the pixels",
        "a function of (model, x, y, share) that runs l1 PGD and returns delta",
        (
            "`attacks.pgd_l1` takes `share` by keyword: write a function of (model, x, "
            "y, share) that passes it on",
            "`attacks.pgd_l1(model, x, y, 10, alpha=1.0, num_steps=20, "
            "share=share)`; for the errors hand the chapter's `error` a partial of "
            "it",
        ),
        _judge,
    )
]
