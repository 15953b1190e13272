"""Randomised smoothing in the plane: some region, and the worst of the same chance."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from advlib import plot
from advlib.bounds import smoothing

USES = ("chance",)
NEEDS = ()
TAU, N, ETA, SEED = 0.8, 400, 0.001, 0
SPAN = 3.0


def edge(y: np.ndarray) -> np.ndarray:
    """Return where the drawn class A ends, to the right, at the heights ``y``."""
    return 1.1 + 0.5 * np.sin(2.5 * y) - 0.1 * y**2


def chance(x: float, y: float, tau: float) -> float:
    """Return the chance that noise of deviation ``tau`` around (x, y) stays in A."""
    v = np.linspace(-8, 8, 2001)
    inside = stats.norm.cdf((edge(y + tau * v) - x) / tau)
    return float(np.sum(stats.norm.pdf(v) * inside) * (v[1] - v[0]))


def draw() -> Figure:
    """Return the picture: votes, what they prove, and the half-plane behind it."""
    cloud = TAU * np.random.default_rng(SEED).normal(size=(N, 2))
    t, p = np.linspace(-SPAN, SPAN, 300), chance(0, 0, TAU)
    radius = TAU * stats.norm.ppf(p)
    fig, axes = plt.subplots(1, 2, figsize=(8, 3.9), sharey=True, layout="constrained")
    walls = (edge, lambda y: np.full_like(y, radius))
    for ax, wall, title in zip(axes, walls, ("some classifier f", "the worst set"),
                               strict=True):  # fmt: skip
        inside = cloud[:, 0] < wall(cloud[:, 1])
        low = smoothing.lower_confidence(int(inside.sum()), N, ETA)
        ax.fill_betweenx(t, -SPAN, wall(t), color=plot.COLORS["exact"], alpha=0.12,
                         lw=0)  # fmt: skip
        ax.scatter(*cloud[inside].T, s=4, color=plot.COLORS["random"])
        ax.scatter(*cloud[~inside].T, s=4, color=plot.COLORS["attack"])
        for r, color, style, label in (
            (radius, plot.COLORS["exact"], "--", "radius of the true p"),
            (
                TAU * stats.norm.ppf(low),
                plot.COLORS["bound"],
                "-",
                f"certified by {N} votes",
            ),
        ):
            ax.add_patch(plt.Circle((0, 0), r, fill=False, lw=2, color=color,
                                    ls=style, label=label))  # fmt: skip
        ax.plot(0, 0, "ko", ms=4)
        ax.set(xlim=(-SPAN, SPAN), ylim=(-SPAN, SPAN), aspect="equal", title=title)
        ax.set(xlabel="$x_1$")
        ax.grid(visible=False)
    axes[0].set_ylabel("$x_2$")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center",
               ncol=2)  # fmt: skip
    return fig
