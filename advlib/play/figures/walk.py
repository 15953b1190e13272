"""Walks along the gradient's sign: margin, tangent, and where the class changes."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from advlib import plot
from advlib.play.stored import stored

USES = ()
NEEDS = ("walk",)
DIGIT = 0
TINTS = ("standard", "third", "exact", "robust")  # of the networks, as in the chapter


def tangent(one: dict, eps: np.ndarray) -> np.ndarray:
    """Return the margin by the tangent of the walk ``one`` at each of ``eps`` (N,)."""
    return np.min(np.array(one["gap"])[:, None] + np.outer(one["turn"], eps), axis=0)


def draw() -> Figure:
    """Return the picture: one image, a panel a network."""
    walks = stored("walk")["walks"]
    fig, axes = plt.subplots(1, 4, figsize=(9.4, 2.9), layout="constrained")
    for ax, (name, ten), tint in zip(axes, walks.items(), TINTS, strict=True):
        one, color = ten[DIGIT], plot.COLORS[tint]
        eps = np.linspace(0, one["reach"], len(one["margins"]))
        ax.axhline(0, color="black", lw=1)
        ax.plot(eps, one["margins"], color=color, label="margin")
        ax.plot(eps, tangent(one, eps), "--", color=plot.COLORS["clean"],
                label="tangent", lw=1.4)  # fmt: skip
        ax.plot(one["predicted"], 0, "o", ms=8, mfc="white", mec=plot.COLORS["clean"])
        ax.plot(one["actual"], 0, "o", ms=4.5, color=color)
        ax.set(xlim=(0, one["reach"]), xlabel=r"$\epsilon$")
        ax.set_ylim(-0.7 * one["margins"][0], 1.15 * one["margins"][0])
        ax.set_title(plot.LABELS[name], fontsize=9)
        ax.legend(fontsize=8, loc="upper right")
    axes[0].set_ylabel("margin")
    return fig
