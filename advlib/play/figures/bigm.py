"""One ReLU as an integer program, for bounds that are tight, loose and none."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from advlib import plot

USES = (
    "polygons",
    "toys",
)
NEEDS = ()
REACH = (-1.0, 2.0)  # what really enters the unit
PANELS = (  # l and u, and whether b may be a fraction
    (-1, 2, False, "b is 0 or 1"),
    (-1, 2, True, "b between 0 and 1"),
    (-3, 4, True, "the same, M too large"),
    (-1, 1, True, "the same, M too small"),
)


def draw() -> Figure:
    """Return the picture: four panels with the graph of the ReLU."""
    fig, axes = plt.subplots(
        1, 4, figsize=(9.6, 2.9), sharey=True, layout="constrained"
    )
    for ax, (low, high, fraction, title) in zip(axes, PANELS, strict=True):
        ax.axvspan(*REACH, color=plot.COLORS["exact"], alpha=0.08, lw=0)
        if fraction:
            t = np.linspace(low, high, 201)
            top = high * (t - low) / (high - low)
            ax.fill_between(t, np.maximum(t, 0), top, alpha=0.3, lw=0,
                            color=plot.METHODS["lp"], label="allowed")  # fmt: skip
        _pieces(ax, low, high)
        ax.set(title=title, xlabel="what enters the ReLU", xlim=(-3.2, 4.2))
    axes[0].set_ylabel("what leaves it, a")
    axes[1].legend(loc="upper left")
    axes[2].text(0.5, 3.7, "real reach", ha="center", color=plot.COLORS["exact"])
    axes[3].text(2.15, 1.4, "cut off", color=plot.COLORS["attack"])
    return fig


def _pieces(ax: Axes, low: float, high: float) -> None:
    """Draw the two pieces of the ReLU, and what of the reach lies outside."""
    for side, style in (((low, 0), "--"), ((0, high), "-")):
        t = np.array(side)
        ax.plot(t, np.maximum(t, 0), style, color=plot.COLORS["exact"],
                label="b = 0" if style == "--" else "b = 1")  # fmt: skip
    if high < REACH[1]:
        ax.plot((high, REACH[1]), (high, REACH[1]), ":", color=plot.COLORS["attack"],
                lw=3)  # fmt: skip
