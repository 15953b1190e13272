"""Schedules of the step: how long each step is, and how far PGD gets with it."""

import math
from collections.abc import Callable

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from advlib import attacks, plot
from advlib.play.notes import from_note
from advlib.play.stored import images, stored

USES = ("network", "attack")
NEEDS = ("standard", "digits")
EPS, DIGIT, STEPS = 0.1, 3, 20

Rule = Callable[[float, int, int], float]  # of the first step, this one, their number

RULES: dict[str, Rule] = {
    "constant": lambda first, k, steps: first,
    "linear": lambda first, k, steps: first * (1 - k / steps),
    "cosine": lambda first, k, steps: first * (1 + math.cos(math.pi * k / steps)) / 2,
    "geometric": lambda first, k, steps: first * 0.01 ** (k / max(steps - 1, 1)),
}


def margins(
    model: nn.Module, x: Tensor, label: int, rule: Rule, first: float, steps: int,
    *, momentum: bool = False,
) -> list[float]:  # fmt: skip
    """Return the margin at each of ``steps`` + 1 points of PGD within ``EPS``.

    ``model`` in float64, one image ``x`` (1, C, H, W) of a ``label``; the ``first``
    step in units of ``x``, the others by the ``rule``, signs of the cross-entropy's
    gradient; ``momentum`` as in the chapter.
    """
    y, others = torch.tensor([label]), torch.arange(10) != label
    lower, upper = (-x).clamp(min=-EPS), (1 - x).clamp(max=EPS)
    delta = previous = torch.zeros_like(x)
    found = []
    for k in range(steps + 1):
        z = model(x + delta)[0]
        found.append(float(z[label] - z[others].max()))
        step = (
            rule(first, k, steps) * attacks.input_gradient(model, x + delta, y).sign()
        )
        ahead = (delta + step).clamp(lower, upper)
        if momentum:
            ahead = delta + 0.75 * (ahead - delta) + 0.25 * (delta - previous)
        previous, delta = delta, ahead.clamp(lower, upper)
    return found


def draw() -> Figure:
    """Return the picture: the schedules, and the least margin so far of three."""
    model, x = from_note(stored("standard")), images("digits")[DIGIT : DIGIT + 1]
    fig, axes = plt.subplots(1, 3, figsize=(8, 3.2), layout="constrained")
    styles = dict(zip(RULES, ("-", "--", ":", "-."), strict=True))
    for name, rule in RULES.items():
        lengths = [rule(1, k, STEPS) for k in range(STEPS)]
        axes[0].step(range(STEPS), lengths, styles[name], where="post", label=name,
                     color=plot.METHODS["pgd"])  # fmt: skip
    axes[0].set(xlabel="step", ylabel="length / first one", ylim=(0, 1.05))
    fig.legend(loc="outside lower center", ncols=4)
    for ax, first in zip(axes[1:], (0.1, 1.0), strict=True):
        for name, rule in RULES.items():
            path = torch.tensor(margins(model, x, DIGIT, rule, first * EPS, STEPS))
            ax.plot(path.cummin(0).values, styles[name], color=plot.METHODS["pgd"])
        ax.axhline(0, color="black", lw=1)
        ax.set(xlabel="step", ylim=(-7.7, 1.2), yticks=[-6, -4, -2, 0],
               title=rf"first step {first:g} $\epsilon$")  # fmt: skip
    axes[1].set_ylabel("least margin so far")
    return fig
