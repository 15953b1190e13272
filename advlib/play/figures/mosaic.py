"""The record of both sides, one cell an image: three networks at two radii."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from advlib import plot
from advlib.play.stored import stored

USES = ()
NEEDS = ("mosaic",)
ROWS, COLUMNS = 20, 25
TITLES = {
    "small": "trained on images",
    "small_pgd": "on PGD",
    "small_ibp": "on intervals",
}
RADII = (0.05, 0.1)

# letter of the record: words, colour of ``plot``, hatch; from attacks to bounds
KINDS = {
    "m": ("misclassified", plot.COLORS["clean"], ""),
    "f": ("attacked by FGSM", plot.METHODS["fgsm"], ""),
    "p": ("attacked by PGD", plot.METHODS["pgd"], ""),
    "s": ("attacked by ensemble", plot.METHODS["strong"], ""),
    "a": ("attacked by search", plot.METHODS["strong"], "/////"),
    "c": ("certified by search", plot.METHODS["exact"], ""),
    "z": ("certified by slopes", plot.METHODS["alpha"], ""),
    "w": ("certified by CROWN", plot.METHODS["crown"], ""),
    "i": ("certified by intervals", plot.METHODS["interval"], ""),
}


def draw() -> Figure:
    """Return the picture: a mosaic for each of three networks and two radii."""
    networks = {one["name"]: one for one in stored("mosaic")["networks"]}
    fig, axes = plt.subplots(2, 3, figsize=(7.2, 5), layout="constrained")
    for row, eps in zip(axes, RADII, strict=True):
        for ax, name in zip(row, TITLES, strict=True):
            of = networks[name]
            _panel(ax, of["verdicts"][of["eps"].index(eps)])
        row[0].set_ylabel(rf"$\epsilon = {eps}$")
    for ax, title in zip(axes[0], TITLES.values(), strict=True):
        ax.set_title(title)
    handles = [
        Patch(fc=color, ec="white", hatch=hatch, lw=0, label=words)
        for words, color, hatch in KINDS.values()
    ]
    fig.legend(handles=handles, loc="outside lower center", ncol=3)
    return fig


def _panel(ax: Axes, letters: str) -> None:
    """Draw one run: images by number, rows from the top."""
    colors = np.array([to_rgb(KINDS[letter][1]) for letter in letters])
    grid = colors.reshape(ROWS, COLUMNS, 3)
    ax.imshow(np.round(255 * grid).astype(np.uint8), interpolation="nearest")
    lines = {"color": "white", "lw": 0.6}
    for k in range(1, COLUMNS):
        ax.axvline(k - 0.5, **lines)
    for k in range(1, ROWS):
        ax.axhline(k - 0.5, **lines)
    for k in np.flatnonzero(np.array(list(letters)) == "a"):
        at, hatch = (k % COLUMNS - 0.5, k // COLUMNS - 0.5), KINDS["a"][2]
        ax.add_patch(plt.Rectangle(at, 1, 1, fc="none", ec="white", hatch=hatch, lw=0))
    ax.set(xticks=[], yticks=[])
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
