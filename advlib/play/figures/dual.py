"""Dual norms: where a linear model's level lines touch three balls, and the box."""

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from advlib import linear, plot

USES = ("polygons",)
NEEDS = ()
W, X, EPS = (2.0, 1.0), (0.2, 0.7), 0.3
BALLS = {
    "linf": ("l-inf", 1, "l1"),
    "l2": ("l2", 2, "l2"),
    "l1": ("l1", np.inf, "l-inf"),
}


def worst(norm: str, *, box: bool) -> np.ndarray:
    """Return the worst change (2,) in the ball of ``norm``, cut by the ``box``."""
    w, x = (torch.tensor(v, dtype=torch.float64) for v in (W, X))
    return linear.worst_delta(w, x, EPS, norm=norm, box=box).numpy().reshape(2)


def draw() -> Figure:
    """Return the picture: a ball each for three norms, the touching line, the box."""
    fig, axes = plt.subplots(1, 3, figsize=(8, 2.9), layout="constrained", sharey=True)
    for ax, (norm, (name, order, dual)) in zip(axes, BALLS.items(), strict=True):
        value = np.linalg.norm(W, order)
        _panel(ax, norm)
        ax.set_title(f"ball: {name}; {dual} norm of w: {value:.3g}", fontsize=10)
    axes[0].set_ylabel("pixel 2")
    return fig


def _panel(ax: Axes, norm: str) -> None:
    w, x = np.array(W), np.array(X)
    angle = np.linspace(0, 2 * np.pi, 401)
    circle = np.stack([np.cos(angle), np.sin(angle)], 1)
    order = {"linf": np.inf, "l2": 2, "l1": 1}[norm]
    size = np.linalg.norm(circle, order, axis=1, keepdims=True)
    ax.fill(*(x + EPS * circle / size).T, color=plot.COLORS["random"], alpha=0.35)
    ax.plot([0, 1, 1, 0, 0], [0, 0, 1, 1, 0], "k--", lw=1)
    span = np.linspace(-0.4, 1.4, 2)
    for level in np.arange(-1, 5, 0.3):
        ax.plot(span, level - 2 * span, color="0.8", lw=0.8, zorder=0)
    free, kept = (worst(norm, box=box) for box in (False, True))
    ax.plot(span, w @ (x + free) - 2 * span, color=plot.COLORS["exact"])
    for end, style, name in ((free, "-", "attack"), (kept, "--", "robust")):
        arrow = {"arrowstyle": "->", "color": plot.COLORS[name], "lw": 2, "ls": style}
        ax.annotate("", x + end, x, arrowprops=arrow)
    ax.annotate("", x + 0.17 * w, x, arrowprops={"arrowstyle": "->"})
    ax.text(*(x + 0.17 * w + 0.02), "w")
    ax.text(*(x + np.array([-0.02, 0.05])), "x")
    ax.set(xlim=(-0.3, 1.1), ylim=(0, 1.1), aspect="equal", xlabel="pixel 1")
    ax.grid(False)
