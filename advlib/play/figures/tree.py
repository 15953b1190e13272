"""Branch and bound on a small network: the tree, and the square that it cuts."""

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from advlib import bounds, plot
from advlib.play.figures.polytope import network

USES = ("network", "bounds", "polygons", "toys", "branches")
NEEDS = ()
OPEN = torch.inf
SEARCH = (  # Chapter 6c's: in order the phases of units 1 and 2, and how a leaf ends
    ((0, 0), ""), ((-1, 0), ""), ((-1, -1), "bound"), ((-1, 1), "exact"),
    ((1, 0), ""), ((1, -1), "bound"), ((1, 1), "bound"),
)  # fmt: skip


def bounded(net: nn.Sequential, box: tuple[Tensor, Tensor], phases: list) -> float:
    """Return CROWN's bound of logit 0 minus logit 1 in a branch.

    ``net``: two inputs, two logits; ``box`` the corners, each (1, 1, 1, 2);
    ``phases`` one tensor (N,) for each ReLU layer: +1 assumed on, -1 off, 0 not
    assumed.
    """
    clip = [
        (
            torch.where(phase > 0, 0.0, -OPEN)[None].double(),
            torch.where(phase < 0, 0.0, OPEN)[None].double(),
        )
        for phase in phases
    ]
    pre = bounds.relu_bounds(net, *box, clip=clip)
    row = torch.tensor([[[1.0, -1.0]]]).double()
    return float(bounds.linear_lower(net, row, *box, pre))


def draw() -> Figure:
    """Return the picture: the finished tree beside the square of inputs."""
    net = network()
    box = bounds.input_box(torch.full((1, 1, 1, 2), 0.5).double(), 0.5)
    fig, (ax, square) = plt.subplots(
        1, 2, figsize=(8.6, 3.3), width_ratios=(1.8, 1), layout="constrained"
    )
    for number, (signs, ends) in enumerate(SEARCH, 1):
        phases = [torch.tensor(signs), torch.zeros(2)]
        _node(ax, number, signs, bounded(net, box, phases), ends)
        if ends:
            _region(square, number, signs, ends)
    ax.set(xlim=(-1, 1), ylim=(-2.3, 0.3))
    ax.axis("off")
    square.set(xlabel="input 1", ylabel="input 2", aspect="equal")
    square.set(xticks=[0, 0.5, 1], yticks=[0, 0.5, 1], xlim=(0, 1), ylim=(0, 1))
    square.grid(False)
    return fig


def _color(ends: str) -> str:
    return plot.COLORS[ends or "clean"]


def _node(ax: Axes, number: int, signs: tuple, bound: float, ends: str) -> None:
    """Draw one subproblem, and the line to its parent."""
    depth, steps = int(np.count_nonzero(signs)), np.array(signs) * [0.5, 0.25]
    x, parent = steps.sum(), steps[: max(depth - 1, 0)].sum()
    if depth:
        ax.plot([parent, x], [1 - depth, -depth], "k", lw=0.8, zorder=0)
        words = f"unit {depth} {'on' if x > parent else 'off'}"
        ax.text((parent + x) / 2, 0.5 - depth, words, fontsize=8.5, ha="center",
                va="center", bbox={"fc": "white", "ec": "none", "pad": 1})  # fmt: skip
    style = {"boxstyle": "round", "fc": "white", "ec": _color(ends), "lw": 2}
    label = f"{number}: {bound:g}".replace("-", "−")
    ax.text(x, -depth, label, ha="center", va="center", bbox=style)


def _region(ax: Axes, number: int, signs: tuple, ends: str) -> None:
    """Fill what of the square obeys the phases ``signs`` of units 1 and 2."""
    x1, x2 = np.meshgrid(*[np.linspace(0, 1, 301)] * 2)
    entering = -2 * x1 + 2 * x2 - 1, -x1 + 2 * x2 - 0.5
    inside = np.all([s * v >= 0 for s, v in zip(signs, entering, strict=True)], axis=0)
    if not inside.any():
        return
    ax.contourf(x1, x2, inside, [0.5, 2], colors=[_color(ends)], alpha=0.3)
    ax.text(x1[inside].mean(), x2[inside].mean(), number, ha="center")
    for value, style in zip(entering, ("-", "--"), strict=True):
        ax.contour(x1, x2, value, [0], colors="k", linestyles=style, linewidths=1)
