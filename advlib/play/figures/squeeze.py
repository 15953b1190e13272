"""One digit, three networks: the band between attack and bounds, over the radius."""

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from advlib import attacks, bounds, plot
from advlib.play.notes import from_note
from advlib.play.stored import images, stored

USES = ("network", "attack", "bounds", "search", "both", "worker", "axis")
NEEDS = ("digits", "standard", "pgd", "ibp")
DIGIT = 7
RADII = np.linspace(0, 0.3, 16)
TITLES = {"standard": "trained on images", "pgd": "on PGD", "ibp": "on intervals"}
STEPS = 40


def both(model: nn.Module, x: Tensor, label: int, eps: float) -> dict[str, float]:
    """Return what holds the worst margin of one image ``x`` (1, C, H, W).

    ``model`` in float64, the ``label`` and the radius ``eps`` of the image: the margin
    where ``STEPS`` of PGD end, and the bounds by CROWN and intervals.
    """
    y = torch.tensor([label])
    delta = attacks.pgd_linf(model, x, y, eps, alpha=2.5 * eps / STEPS, num_steps=STEPS)
    others = torch.arange(10) != label
    z = model(x + delta)[0]
    return {
        "pgd": float(z[label] - z[others].max()),
        "crown": float(bounds.crown_margins(model, x, y, eps)[0, others].min()),
        "interval": float(bounds.interval_margins(model, x, y, eps)[0, others].min()),
    }


def draw() -> Figure:
    """Return the picture: margins over the radius, for each network."""
    x = images("digits")[DIGIT : DIGIT + 1]
    fig, axes = plt.subplots(1, 3, sharey=True, figsize=(7.2, 3), layout="constrained")
    for ax, (name, title) in zip(axes, TITLES.items(), strict=True):
        model = from_note(stored(name))
        rows = [both(model, x, DIGIT, float(eps)) for eps in RADII]
        _panel(ax, {key: np.array([row[key] for row in rows]) for key in rows[0]})
        ax.set(title=title, xlabel=r"radius $\epsilon$")
    axes[0].set_ylabel("worst margin")
    axes[2].legend(loc="lower left")
    return fig


def _panel(ax: Axes, of: dict[str, np.ndarray]) -> None:
    """Draw one network's curves and the band between them."""
    low = np.maximum(of["crown"], of["interval"])
    ax.fill_between(RADII, low, of["pgd"], color=plot.COLORS["exact"], alpha=0.15, lw=0)
    for key, label in (("pgd", "PGD"), ("crown", "CROWN"), ("interval", "intervals")):
        style = {**plot.STYLES[key], "markersize": 3.5}
        ax.plot(RADII, of[key], **style, label=label)
    ax.axhline(0, color="black", lw=1)
    ax.set_yscale("symlog", linthresh=2)
    ax.set_yticks([-100, -10, -1, 0, 1, 10], ["−100", "−10", "−1", "0", "1", "10"])
