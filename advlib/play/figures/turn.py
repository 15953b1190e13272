"""An arrow turns in the plane of two units: its purity, and rows of its top images."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from advlib import plot
from advlib.play.stored import stored

USES = ()
NEEDS = ("turn",)
ARROWS = {0: "unit 1", 90: "unit 2", 38: "$v$", 115: "$v'$"}


def tops(record: dict, angles: np.ndarray) -> np.ndarray:
    """Return which images of the ``record`` are the top eight, (N, 8).

    ``angles`` (N,) in degrees; best image first, ties by position.
    """
    turned = np.deg2rad(angles)
    scores = (
        np.stack([np.cos(turned), np.sin(turned)], 1).round(12)
        @ np.array(record["plane"]).T
    )
    return np.argsort(-scores, axis=1, kind="stable")[:, :8]


def purity(record: dict, top: np.ndarray) -> np.ndarray:
    """Return the share of the most frequent class in each row of ``top`` (N, 8).

    ``top`` holds places in the ``record``, as ``tops`` returns them.
    """
    labels = np.array(record["labels"])[top]
    return (labels[:, :, None] == np.arange(10)).mean(1).max(1)


def draw() -> Figure:
    """Return the picture: the plane of two units, and purity over the angle."""
    record = stored("turn")
    fig, (left, right) = plt.subplots(
        1, 2, figsize=(7.4, 3.2), width_ratios=(1, 1.2), layout="constrained"
    )
    _plane(fig, left, record)
    angles = np.arange(360)
    right.plot(angles, purity(record, tops(record, angles)), color=plot.COLORS["clean"])
    for angle in ARROWS:
        color = plot.COLORS["standard" if angle % 90 == 0 else "third"]
        right.axvline(angle, color=color, ls="-" if angle % 90 == 0 else "--")
    right.set(xlabel="angle of the arrow, degrees", xticks=range(0, 361, 90),
              ylabel="purity of the top 8", ylim=(0.25, 1.03))  # fmt: skip
    return fig


def _plane(fig: Figure, ax: Axes, record: dict) -> None:
    """Draw the points, coloured by class, and the arrows."""
    points = np.array(record["points"])
    dots = ax.scatter(points[:, 0], points[:, 1], c=points[:, 2], cmap="tab10", s=8,
                      vmin=-0.5, vmax=9.5)  # fmt: skip
    fig.colorbar(dots, ticks=range(10), label="class", ax=ax)
    size = 0.8 * points[:, 0].max()
    for angle, label in ARROWS.items():
        step = size * np.array([np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))])
        color = plot.COLORS["standard" if angle % 90 == 0 else "third"]
        style = {"arrowstyle": "->", "lw": 2, "color": color}
        ax.annotate("", step, (0, 0), arrowprops=style)
        ax.annotate(label, step + 0.08 * size * np.array([0.4, 1]), color=color,
                    ha="center", weight="bold",
                    bbox={"fc": "white", "ec": "none", "pad": 1})  # fmt: skip
    ax.set(xlim=(-0.6 * size, None), ylim=(None, 1.35 * size),
           xlabel="activation of unit 1", ylabel="activation of unit 2")  # fmt: skip
