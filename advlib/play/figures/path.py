"""PGD in two dimensions: balls, box, paths, and the clamp that stops them."""

from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from advlib import attacks, plot
from advlib.play.notes import from_note
from advlib.play.stored import images, stored

USES = ("network",)
NEEDS = ("standard", "digits")
DIGIT, SIDE, CORNERS = 1, 5, ((4, 7), (4, 21))  # two patches: left, right
IMAGE, EPS = (0.2, 0.1), 0.6  # how bright the patches are, and the radius
VIEW = (-0.55, 1.05)
LEVELS = [0.05, 0.1, 0.2, 0.5, 1, 2, 3, 4, 5]  # of the loss


def network() -> nn.Sequential:
    """Return the standard network as a function of two patches' brightness, (N, 2).

    Its first layer is the network's at the digit with black patches, plus, for each
    patch, the sum of the weights of its pixels. Float64, eval mode.
    """
    whole = from_note(stored("standard"))
    _, first, *rest = whole
    patches = torch.zeros(2, 28, 28).double()
    for patch, (row, column) in zip(patches, CORNERS, strict=True):
        patch[row : row + SIDE, column : column + SIDE] = 1
    image = images("digits")[DIGIT].flatten() * (1 - patches.sum(0).flatten())
    layer = nn.Linear(2, first.out_features).double()
    with torch.no_grad():
        layer.weight.copy_(first.weight @ patches.flatten(1).T)
        layer.bias.copy_(first(image))
    return nn.Sequential(layer, *rest).eval().requires_grad_(False)


def trapped(
    model: nn.Module, start: Tensor, alpha: float, num_steps: int
) -> list[Tensor]:
    """Return the points of ``num_steps`` sign steps of ``alpha``, clamp in the graph.

    ``model`` of two inputs, ``start`` (1, 2) the first delta, inside the ball; the
    points (1, 2) are not clamped to the box, as the chapter's trap has it.
    """
    x, y = torch.tensor([IMAGE]).double(), torch.tensor([DIGIT])
    points = [start.double()]
    for _ in range(num_steps):
        leaf = (x + points[-1]).requires_grad_()
        loss = attacks.cross_entropy(model(leaf.clamp(0, 1)), y).sum()
        (gradient,) = torch.autograd.grad(loss, leaf)
        points.append((points[-1] + alpha * gradient.sign()).clamp(-EPS, EPS))
    return [x + point for point in points]


def draw() -> Figure:
    """Return the picture: three norms, two starts, and the clamp in the graph."""
    model, fig = network(), plt.figure(figsize=(7.6, 3.1), layout="constrained")
    axes = fig.subplots(1, 3, sharey=True)
    x, y = torch.tensor([IMAGE]).double(), torch.tensor([DIGIT])
    ways = {"linf": attacks.pgd_linf, "l2": attacks.pgd_l2, "l1": attacks.pgd_l1}
    for attack in ways.values():
        delta = [attack(model, x, y, EPS, alpha=0.1, num_steps=k) for k in range(13)]
        _path(axes[0], [x + d for d in delta], model)
    for start in ((0.0, 0.0), (-0.2, 0.3), (0.3, -0.1)):
        delta = torch.tensor([start]).double()
        points = [
            x + attacks.pgd_linf(model, x, y, EPS, alpha=0.1, num_steps=k, start=delta)
            for k in range(13)
        ]
        _path(axes[1], points, model)
    for start in ((-0.45, -0.35), (-0.4, 0.2)):
        points = trapped(model, torch.tensor([start]), 0.1, 12)
        _path(axes[2], points, lambda p: model(p.clamp(0, 1)))
    for ax, norms in zip(axes, (["linf", "l2", "l1"], ["linf"], ["linf"]), strict=True):
        _ground(ax, model if ax is not axes[2] else lambda p: model(p.clamp(0, 1)))
        for norm in norms:
            ax.plot(*_ball(norm), "--", color=plot.COLORS["clean"], lw=1)
    titles = ("three norms, from the image", "three starts", "clamp inside the graph")
    for ax, title in zip(axes, titles, strict=True):
        ax.set(title=title, xlabel="left patch", aspect="equal")
    axes[0].set_ylabel("right patch")
    return fig


def _ball(norm: str) -> np.ndarray:
    """Return the edge of the ball around the image, (2, M)."""
    turn = np.linspace(0, 2 * np.pi, 200)
    way = np.array([np.cos(turn), np.sin(turn)])
    order = {"linf": np.inf, "l2": 2, "l1": 1}[norm]
    return np.array(IMAGE)[:, None] + EPS * way / np.linalg.norm(way, order, axis=0)


def _ground(ax: Axes, model: Callable[[Tensor], Tensor]) -> None:
    """Draw the loss of a digit with two patches, where it is misread, and the box."""
    side = torch.linspace(*VIEW, 161).double()
    grid = torch.cartesian_prod(side, side)
    with torch.no_grad():
        logits = model(grid)
    loss = attacks.cross_entropy(logits, torch.full((len(grid),), DIGIT))
    loss, said = (part.view(161, 161).T for part in (loss, logits.argmax(1)))
    wrong = (said != DIGIT).double()
    ax.contourf(side, side, wrong, [0.5, 1.5], colors=[plot.COLORS["attack"]],
                alpha=0.18)  # fmt: skip
    ax.contour(side, side, loss, LEVELS, colors=plot.COLORS["clean"], linewidths=0.5)
    ax.contour(side, side, wrong, [0.5], colors=plot.COLORS["attack"], linewidths=1.2)
    ax.plot([0, 1, 1, 0, 0], [0, 0, 1, 1, 0], color="black", lw=1.2)
    for digit in said.unique().tolist():
        at = (said == digit) & (grid.view(161, 161, 2).amin(2) > 0.04).T
        if at.sum() > 200:
            rows, columns = (side[part.double().mean().round().int()]
                             for part in at.nonzero().T)  # fmt: skip
            ax.text(columns, rows, f"“{digit}”", ha="center", va="center", fontsize=8)
    ax.plot(*IMAGE, "P", color="black", ms=6, mec="white", mew=0.8)
    ax.set(xlim=VIEW, ylim=VIEW, xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
    ax.grid(False)


def _path(ax: Axes, points: list[Tensor], model: Callable[[Tensor], Tensor]) -> None:
    """Draw the ``points`` (1, 2) of one attack; its end is filled where misread."""
    way = torch.cat(points).numpy()
    with torch.no_grad():
        fooled = int(model(points[-1]).argmax()) != DIGIT
    color = plot.METHODS["pgd"]
    ax.plot(*way.T, ".-", color=color, ms=3.5, lw=1.3, zorder=3)
    ax.plot(*way[0], "o", color="white", mec=color, ms=5, zorder=4)
    ax.plot(*way[-1], "o", color=color if fooled else "white", mec=color, mew=1.5,
            ms=7, zorder=5)  # fmt: skip
