"""The Gaussian world: the frontier of two errors, and where training lands."""

import math

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import optimize, stats

from advlib import plot

USES = ("chance",)
NEEDS = ()
P, ETA, D = 0.95, 0.2, 100
RADII = (0.1, 0.2, 0.4)  # half of eta, eta, twice eta
END = 0.08  # of the axis of clean errors


def error(share: float, radius: float, *, gated: bool) -> float:
    """Return an exact error in the world of ``P``, ``ETA``, ``D``.

    ``share`` in (0, 1] of the vote is the mean of the weak features, the rest the
    strong one; ``radius`` < 1 is 0 for the clean error; ``gated``: the strong feature
    counts by its sign, which no opponent can move.
    """
    lean = share * (1 - radius / ETA) - (0 if gated else radius * (1 - share))
    spread = share / (ETA * math.sqrt(D))
    right, wrong = ((r * (1 - share) + lean) / spread for r in (1, -1))
    return float(P * stats.norm.cdf(-right) + (1 - P) * stats.norm.cdf(-wrong))


def trained(radius: float) -> float:
    """Return the share of the weak features after training at ``radius``.

    It is the minimum of the expected logistic loss of the worst-case margin, all weak
    weights equal; from ``ETA`` on their share is 0.
    """
    if radius >= ETA:
        return 0.0
    z = np.linspace(-8, 8, 401)
    chance = stats.norm.pdf(z) * (z[1] - z[0])

    def loss(w: np.ndarray) -> float:
        weak = w[1] * (ETA - radius + z / math.sqrt(D))
        sides = [np.logaddexp(0, -weak - w[0] * (r - radius)) for r in (1, -1)]
        return float(P * sides[0] @ chance + (1 - P) * sides[1] @ chance)

    strong, weak = optimize.minimize(loss, [1.0, 1.0], tol=1e-12).x
    return float(ETA * weak / (ETA * weak + strong))


def draw() -> Figure:
    """Return the picture: the plane of two errors at three radii."""
    fig, axes = plt.subplots(
        1, 3, sharey=True, figsize=(7.4, 3.5), layout="constrained"
    )
    for ax, radius in zip(axes, RADII, strict=True):
        _panel(ax, radius)
        ax.set(title=rf"$\epsilon = {radius}$", xlabel="clean error")
        ax.set(xlim=(0, END), ylim=(0, 1.02))
    axes[0].set_ylabel("robust error")
    fig.legend(*axes[2].get_legend_handles_labels(), loc="outside lower center", ncol=3)
    return fig


def _panel(ax: Axes, radius: float) -> None:
    """Draw one radius; up to ``ETA``, and at twice that, the frontier is exact."""
    odds = math.log(P / (1 - P)), 2 * ETA**2 * D
    bayes = odds[1] / sum(odds)
    shares = np.linspace(0.002, bayes, 300)
    reach = np.array([[error(c, r, gated=True) for r in (0, radius)] for c in shares])
    reach = reach[reach[:, 1].argmin() :][::-1]  # what lies beyond is worse in both
    clean = np.linspace(0, END, 500)
    low = clean.copy()
    if radius >= 2 * ETA:
        low = np.maximum(1 - P / (1 - P) * clean, clean)
    best = np.maximum(np.interp(clean, *reach.T), low)
    best[clean < reach[0, 0]] = 1.02
    grey = {"color": plot.COLORS["clean"], "lw": 0}
    ax.fill_between(clean, 0, low, alpha=0.4, label="forbidden by the theorem", **grey)
    ax.fill_between(clean, low, best, alpha=0.15, label="forbidden", **grey)
    line = [[error(c, r, gated=False) for r in (0, radius)] for c in shares]
    ax.plot(*zip(*line, strict=True), "--", color=plot.COLORS["exact"], label="linear")
    ax.plot(*reach.T, color=plot.COLORS["exact"], label="best possible")
    ends = {"standard": bayes, "adversarial": trained(radius)}
    for (name, share), shape in zip(ends.items(), "os", strict=True):
        pair = [error(share, r, gated=False) if share else 1 - P for r in (0, radius)]
        color = plot.COLORS["robust" if name == "adversarial" else name]
        ax.plot(*pair, shape, color=color, ms=8, mec="white", label=f"{name} training")
