"""Chapter 1: PGD from nothing, and the radius at which FGSM starts to succeed."""

from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advlib import attacks
from advlib.exercises.core import Exercise
from advlib.exercises.judging import (
    Case,
    NotYet,
    Task,
    call,
    network,
    pictures,
    shaped,
)

STEP, STEPS, WIDTH = 0.01, 40, 1e-3


def _case(rng: np.random.Generator, n: int, pixels: int, eps: float) -> Case:
    net = network(rng, (pixels, 6, 3))
    x = pictures(rng, n, pixels)
    return net, x, net(x).argmax(1), eps


def _slope(net: nn.Module, x: Tensor, y: Tensor, mean: bool = False) -> Tensor:
    moved = x.clone().requires_grad_()
    loss = F.cross_entropy(net(moved), y, reduction="mean" if mean else "sum")
    return torch.autograd.grad(loss, moved)[0]


def _ascent(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    up: float = 1.0,
    raw: str = "",
    ball: bool = True,
    box: bool = True,
    each: bool = True,
    follow: bool = True,
    steps: int = STEPS,
) -> Tensor:
    """PGD; each keyword plants a mistake."""

    def back(delta: Tensor) -> Tensor:
        delta = delta.clamp(-eps, eps) if ball else delta
        return delta.clamp(-x, 1 - x) if box else delta

    delta = torch.zeros_like(x)
    for _ in range(steps):
        slope = _slope(net, x + delta if follow else x, y, raw == "mean")
        delta = delta + up * STEP * (slope if raw else slope.sign())
        delta = back(delta) if each else delta
    return back(delta)


def _as_images(net: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    return x + _ascent(net, x, y, eps)


def _in_bytes(net: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    return _ascent(net, x, y, eps / 255)


def _stopped(net: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """The library's, which may stop at the first error."""
    return attacks.pgd_linf(
        net, x, y, eps, alpha=STEP, num_steps=STEPS, drop_fooled=True
    )


PGD = Task(
    "(model, x, y, eps)",
    truth=_ascent,
    read=lambda value, case: shaped(value, case[1].shape, "delta, shaped as x"),
    mistakes={
        "it goes down the loss: an attack adds the step": partial(_ascent, up=-1.0),
        "the gradient's sign is missing: the step is alpha * gradient": partial(
            _ascent, raw="sum"
        ),
        "the gradient's sign is missing, and the loss is a mean over the "
        "images": partial(_ascent, raw="mean"),
        "not projected onto the box: x + delta leaves [0, 1]": partial(
            _ascent, box=False
        ),
        "not projected onto the ball: |delta| exceeds eps": partial(
            _ascent, ball=False
        ),
        "projected once at the end, not after each step": partial(_ascent, each=False),
        "the gradient is taken at the image only, as by FGSM: take it anew at "
        "x + delta in each of the forty steps": partial(_ascent, follow=False),
        "one step only: there are forty": partial(_ascent, steps=1),
        "it returns the attacked images x + delta, not delta": _as_images,
        "eps in units of 255: here pixels live in [0, 1]": _in_bytes,
    },
    broken=lambda value, case: _outside(value, case),
    tolerance=1e-7,
    also=(_stopped,),
)


def _outside(delta: np.ndarray, case: Case) -> str | None:
    x, eps = case[1].numpy(), case[3]
    if np.abs(delta).max() > eps + 1e-7:
        return (
            "not projected onto the ball: the largest |delta| is "
            f"{np.abs(delta).max():.3g}, eps is {eps:.3g}"
        )
    if (x + delta).min() < -1e-7 or (x + delta).max() > 1 + 1e-7:
        return "not projected onto the box: x + delta leaves [0, 1]"
    return None


def _judge_pgd(answer: object, rng: np.random.Generator) -> str:
    sizes = ((1, 3, 0.05), (2, 4, 0.1), (3, 6, 0.2), (4, 9, 0.3))
    PGD.judge(answer, [_case(rng, *size) for size in sizes])
    return "the same delta as forty steps on four small networks"


def _fools(
    net: nn.Module, image: Tensor, label: Tensor, eps: float, box: bool = True
) -> bool:
    if not 0 <= eps <= 1:
        return False
    delta = attacks.fgsm(net, image, label, eps, box=box)
    return bool(net(image + delta).argmax(1) != label)


def _crosses(case: Case, eps: float, box: bool = True) -> bool:
    """Whether FGSM fools at ``eps`` and not everywhere just below."""
    below = [max(0.0, eps - WIDTH * 1.01 * k / 20) for k in range(1, 21)]
    return _fools(*case, eps, box) and not all(_fools(*case, r, box) for r in below)


def _foolable(rng: np.random.Generator) -> Case:
    """A network and an image that FGSM fools at 1 and at no small radius."""
    while True:
        net = network(rng, (6, 8, 3))
        image = pictures(rng, 1, 6)
        label = net(image).argmax(1)
        if _fools(net, image, label, 1.0) and not any(
            _fools(net, image, label, eps) for eps in (0.0, 0.02, 0.04)
        ):
            return net, image, label


def _judge_bisection(answer: object, rng: np.random.Generator) -> str:
    for _ in range(6):
        case = _foolable(rng)
        value = call(answer, "(model, image, label)", *case)
        eps = float(shaped(value, (), "one radius eps"))
        if not _crosses(case, eps):
            raise NotYet(_why_no_crossing(case, eps))
    return "at your eps FGSM fools six small networks, just below it does not"


def _why_no_crossing(case: Case, eps: float) -> str:
    if eps > 1:
        if _crosses(case, eps / 255):
            return f"eps in units of 255: {eps:.4g}, where pixels live in [0, 1]"
        return f"eps = {eps:.4g}, but the box [0, 1] ends every search at 1"
    if _crosses(case, eps, box=False):
        return "not projected onto the box: FGSM's x + delta leaves [0, 1]"
    if not _fools(*case, eps):
        if any(_fools(*case, min(1.0, eps + WIDTH * k / 20)) for k in range(1, 23)):
            return "the end of the bracket that does not fool yet: return the high one"
        return f"at your eps = {eps:.4g} FGSM does not fool the network"
    return (
        f"too coarse: FGSM fools at your eps = {eps:.4g}, "
        f"and also all the way down to {eps - WIDTH:.4g}; "
        "halve the bracket until it is shorter than 0.001"
    )


EXERCISES = [
    Exercise(
        "1.6",
        "PGD from nothing",
        "a function of (model, x, y, eps) that returns delta, shaped as x",
        (
            "the gradient you need is that of the loss with respect to `x + delta`: "
            "`torch.autograd.grad(loss, moved)` gives it for all images at once",
            "after each step clamp twice: delta to `[-eps, eps]`, then delta to "
            "`[-x, 1 - x]`, which keeps `x + delta` inside the box",
        ),
        _judge_pgd,
    ),
    Exercise(
        "1.7",
        "Where FGSM starts to succeed",
        "a function of (model, image, label), one image with its batch dimension, "
        "that returns eps to within 0.001",
        (
            "keep two radii: at `low` FGSM fails, at `high` it succeeds; ask in the "
            "middle and move the one that agrees",
            "stop when `high - low` is below 0.001, and return `high`: only there "
            "is an image that fools the network in your hands",
        ),
        _judge_bisection,
    ),
]
