"""A small network's adversarial polytope, and what four methods cannot rule out."""

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.spatial import ConvexHull, HalfspaceIntersection
from torch import Tensor, nn

from advlib import bounds, models, plot, relaxations

USES = ("network", "bounds", "polygons", "toys")
NEEDS = ()
WEIGHTS = [[-2, 2], [-1, 2]], [[-1, 1], [-1, 2]], [[2, -2], [1, 1]]
BIASES = [-1, -0.5], [0, 0], [4, -3]
METHODS = ("interval", "dual", "crown", "lp")
DIRECTIONS = 64
NAMES = {  # where a region's name stands, and to which point of its edge it belongs
    "interval": ((5.4, 0.35), (5.2, -0.6)),
    "dual": ((6.75, -3.4), (6.4, -3.2)),
    "crown": ((0.2, -3.6), (1.85, -3.6)),
    "lp": ((3.3, 0.9), (2.6, 0.25)),
}


def network() -> nn.Sequential:
    """Return the network of Chapters 6a and 6c: 2 inputs, 2 + 2 ReLUs, 2 logits."""
    toy = models.mlp((1, 1, 2), [2, 2], 2).double().eval().requires_grad_(False)
    for layer, weight, bias in zip(toy[1::2], WEIGHTS, BIASES, strict=True):
        layer.weight.data = torch.tensor(weight).double()
        layer.bias.data = torch.tensor(bias).double()
    return toy


def supports(toy: nn.Sequential, x: Tensor, eps: float, rows: Tensor) -> dict:
    """Return a lower bound of ``rows`` (S, 2) @ logits (S,) for each of ``METHODS``.

    ``toy``: what ``network`` returns; ``x`` (1, 1, 1, 2) in [0, 1] and ``eps`` in units
    of ``x`` the ball, cut to [0, 1]. All methods but the intervals use the same bounds
    before each ReLU: CROWN's, cut with intervals.
    """
    box = bounds.input_box(x, eps)
    pre = bounds.relu_bounds(toy, *box)
    low, high = (end[0] for end in bounds.interval_bounds(toy, *box)[-2])
    pulled = rows @ toy[-1].weight
    found = {"interval": pulled.clamp(min=0) @ low + pulled.clamp(max=0) @ high}
    found["interval"] += rows @ toy[-1].bias
    for rule in ("dual", "crown"):
        found[rule] = bounds.linear_lower(toy, rows[None], *box, pre, rule=rule)[0]
    found["lp"] = _programs(toy, x, eps, rows, pre)
    return found


def _programs(
    toy: nn.Sequential, x: Tensor, eps: float, rows: Tensor, pre: list
) -> Tensor:
    """Return the linear programs' least ``rows`` @ logits: margins of other logits."""
    last = nn.Linear(2, len(rows) + 1).double().requires_grad_(False)
    last.weight.data = torch.cat([torch.zeros(1, 2).double(), -rows @ toy[-1].weight])
    last.bias.data = torch.cat([torch.zeros(1).double(), -rows @ toy[-1].bias])
    turned = nn.Sequential(*toy[:-1], last).eval()
    y = torch.tensor([0])
    return relaxations.lp_margins(turned, x, y, eps, pre=pre)[0, 1:]


def draw() -> Figure:
    """Return the picture: the pieces of the square, and the regions of the logits."""
    toy, x = network(), torch.full((1, 1, 1, 2), 0.5).double()
    fig, (square, ax) = plt.subplots(
        1, 2, figsize=(8.6, 4.2), width_ratios=(1, 2.1), layout="constrained"
    )
    ticks = torch.linspace(0, 1, 201).double()
    grid = torch.cartesian_prod(ticks, ticks)
    logits = toy(grid.view(-1, 1, 1, 2)).numpy()
    _square(square, toy, grid)
    angles = 2 * torch.pi / DIRECTIONS * torch.arange(DIRECTIONS).double()
    rows = torch.stack([angles.cos(), angles.sin()], 1)
    for name, bound in supports(toy, x, 0.5, rows).items():
        sides = np.column_stack([-rows, bound])  # bound <= row . z
        ends = HalfspaceIntersection(sides, logits.mean(0)).intersections
        region = ends[ConvexHull(ends).vertices]
        style = {"ls": plot.STYLES[name]["linestyle"], "ec": plot.METHODS[name]}
        ax.fill(*region.T, fill=False, lw=2.6 if name == "lp" else 1.8, **style)
        if name == "lp":
            ax.fill(*region.T, color=plot.METHODS[name], alpha=0.12, lw=0)
    ax.plot(*logits.T, ".", ms=1, color=plot.COLORS["exact"], rasterized=True)
    _words(ax)
    return fig


def _square(ax: Axes, toy: nn.Sequential, grid: Tensor) -> None:
    """Draw the square of inputs, darker where more first-layer units are on."""
    on = (toy[:2].eval()(grid.view(-1, 1, 1, 2)) > 0).sum(1).view(201, 201).T
    for count, alpha in enumerate((0.3, 0.55, 0.8)):
        ax.contourf(np.where(on == count, 1.0, 0.0), [0.5, 2], extent=(0, 1, 0, 1),
                    colors=[plot.COLORS["exact"]], alpha=alpha)  # fmt: skip
    for spot, text in (((0.2, 0.85), "2 on"), ((0.6, 0.75), "1 on"),
                       ((0.6, 0.25), "0 on")):  # fmt: skip
        ax.text(*spot, text, ha="center")
    ax.plot(0.5, 0.5, "+", color="k", ms=10)
    ax.set(xlabel="input 1", ylabel="input 2", aspect="equal", title="the ball")
    ax.set(xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
    ax.grid(False)


def _words(ax: Axes) -> None:
    """Shade the half where class 1 wins, and name sides and regions."""
    box = (-2.5, 8.6, -5.4, 2.1)
    ends = np.array(box[:2])
    ax.plot(ends, ends, color="k", lw=0.8)
    ax.fill_between(ends, ends, 9, lw=0, color=plot.COLORS["attack"], alpha=0.1)
    ax.axis(box)
    ax.text(-2.3, 1.7, "class 1 wins", va="top", color=plot.COLORS["attack"],
            weight="bold")  # fmt: skip
    ax.text(8.4, -5.2, "class 0 wins", ha="right", weight="bold")
    for name, (spot, end) in NAMES.items():
        color, side = plot.METHODS[name], "right" if spot[0] < 1 else "left"
        ax.annotate(plot.LABELS[name], end, spot, color=color, va="center", ha=side,
                    arrowprops={"arrowstyle": "-", "color": color})  # fmt: skip
    ax.text(1.3, -1.6, "the network", color=plot.COLORS["exact"], fontsize=9)
    ax.set(xlabel="logit of class 0", ylabel="logit of class 1", title="its image")
