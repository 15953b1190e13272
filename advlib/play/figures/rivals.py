"""Three classes in the plane: two climbs, the largest loss, each rival's own corner."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from advlib import plot

USES = ("rows",)
NEEDS = ()
RIVALS = np.array([[-8.0, 2.0], [6.0, 3.0]])
CORNERS = ((-1, -1), (1, -1), (1, 1), (-1, 1))
EPS, STARTS, STEPS = 0.4, ((-0.06, -0.3), (0.15, -0.3)), 40


def loss(delta: np.ndarray, rivals: np.ndarray = RIVALS) -> np.ndarray:
    """Return the cross-entropy (...) at ``delta`` (..., 2); the label's logit is 0.

    ``rivals`` (2, 2): the weights of the two other classes.
    """
    leads = delta @ rivals.T
    return np.log1p(np.exp(leads).sum(-1))


def climb(start: tuple[float, float]) -> np.ndarray:
    """Return the path (STEPS + 1, 2) of signed steps uphill from ``start``."""
    path = [np.array(start)]
    for _ in range(STEPS):
        share = np.exp(RIVALS @ path[-1]) / (1 + np.exp(RIVALS @ path[-1]).sum())
        step = EPS / 20 * np.sign(share @ RIVALS)
        path.append((path[-1] + step).clip(-EPS, EPS))
    return np.array(path)


def draw() -> Figure:
    """Return the picture: the loss with two climbs, and the three values on a line."""
    fig, (left, right) = plt.subplots(
        1, 2, figsize=(8, 3.7), layout="constrained", width_ratios=(3, 2)
    )
    ends = _landscape(left)
    own = EPS * np.abs(RIVALS).sum(1)
    values = {
        "bound": [np.log1p(np.exp(own).sum())],
        "exact": [loss(EPS * np.array(CORNERS)).max()],  # convex: it is at a corner
        "attack": ends,
    }
    marks = {"bound": "^", "exact": "*", "attack": "v"}
    for height, (name, found) in enumerate(values.items()):
        right.plot(found, [height] * len(found), marks[name], ms=13, clip_on=False,
                   color=plot.COLORS[name])  # fmt: skip
        for value in found:
            right.annotate(f"{value:.2f}", (value, height), (0, 11), ha="center",
                           textcoords="offset points")  # fmt: skip
    right.set(yticks=range(3), yticklabels=["bound", "exact", "climbs"], xlim=(3.2, 5),
              ylim=(-0.5, 2.6), xlabel="largest cross-entropy")  # fmt: skip
    return fig


def _landscape(ax: Axes) -> list[float]:
    """Draw the loss, paths and corners; return the losses at the ends of the paths."""
    ticks = np.linspace(-EPS, EPS, 81)
    value = loss(np.stack(np.meshgrid(ticks, ticks), -1))
    shown = ax.contourf(ticks, ticks, value, levels=15, cmap="Greys", vmax=6)
    ax.figure.colorbar(shown, ax=ax, label="cross-entropy")
    paths = [climb(start) for start in STARTS]
    for path in paths:
        ax.plot(*path.T, "-", color=plot.METHODS["pgd"], lw=2.5, clip_on=False)
        ax.plot(*path[0], "o", color=plot.METHODS["pgd"])
    for j, corner in enumerate(EPS * np.sign(RIVALS), 1):
        ax.plot(*corner, "^", ms=17, color=plot.COLORS["bound"], clip_on=False)
        ax.annotate(f"own corner of rival {j}", corner, (0, 12), ha="center",
                    textcoords="offset points", annotation_clip=False)  # fmt: skip
    row, column = np.unravel_index(value.argmax(), value.shape)
    ax.plot(ticks[column], ticks[row], "*", ms=12, zorder=5, clip_on=False,
            color=plot.COLORS["exact"], mec="white")  # fmt: skip
    ax.set(xlabel="delta, pixel 1", ylabel="delta, pixel 2", aspect="equal",
           xticks=[-EPS, 0, EPS], yticks=[-EPS, 0, EPS])  # fmt: skip
    ax.grid(False)
    return [float(loss(path[-1])) for path in paths]
