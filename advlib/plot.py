"""Drawing on axes that the caller owns: one style, one colour per method.

Every colour has a contrast of at least 3 to 1 with both ``PAGES``, the white one and
the dark one, and what shares a figure differs in line or marker, too (``STYLES``).
Tables and names are those of ``tables``.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.image import AxesImage

from advlib.tables import LABELS, Table, interval, number, table, text

__all__ = [
    "COLORS",
    "LABELS",
    "METHODS",
    "PAGES",
    "STYLES",
    "Table",
    "band",
    "both_sides",
    "contrast",
    "image",
    "images",
    "interval",
    "name_ends",
    "number",
    "perturbation",
    "table",
    "text",
    "use_style",
]

FONTS = Path(__file__).parent / "fonts"  # the sans of the site, as TrueType
PAGES = ("#FFFFFF", "#121212")  # of the site, light and dark

# what a colour means through the whole book
COLORS = {
    "clean": "#6B6B6B",
    "attack": "#D55E00",
    "exact": "#0072B2",
    "bound": "#009E73",
    "random": "#A1887F",
    "standard": "#B8860B",
    "robust": "#1899B0",
    "third": "#B5629B",
}

# the methods in the order of the argument: below, exact, above
METHODS = {
    "fgsm": "#B98055",
    "pgd": "#E8703A",
    "strong": "#C44E00",
    "exact": "#0072B2",
    "lp": "#00785A",
    "alpha": "#4F8F1F",
    "crown": "#00A37A",
    "dual": "#8A7A1E",
    "interval": "#6F9B8A",
    "sdp": "#9C5A86",
}

# line and marker of a method: ``ax.plot(x, y, **plot.STYLES["crown"])``
STYLES = {
    name: {"color": METHODS[name], "linestyle": line, "marker": marker}
    for name, line, marker in [
        ("fgsm", ":", "v"),
        ("pgd", "--", "v"),
        ("strong", "-", "v"),
        ("exact", "-", "o"),
        ("lp", "-", "s"),
        ("alpha", "--", "^"),
        ("crown", "-.", "^"),
        ("dual", (0, (5, 1, 1, 1, 1, 1)), "D"),
        ("interval", ":", "^"),
        ("sdp", "-", "P"),
    ]
}


def contrast(color: str, page: str) -> float:
    """Return the contrast of two colours, 1 to 21, as WCAG 2.2 defines it.

    ``color`` and ``page`` are any colours of matplotlib; their order does not matter.
    Raises ``ValueError`` for what is no colour.
    """
    light, dark = sorted((_luminance(color), _luminance(page)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(color: str) -> float:
    """Relative luminance: sRGB made linear, weighted as the eye does."""
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in to_rgb(color)
    ]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def use_style() -> None:
    """Set the book's matplotlib style: size, resolution, grid, fonts.

    A notebook draws at twice the 110 dpi and shows that at half its size: 220 dots to
    an inch of the page.
    """
    _sharpen()
    known = {font.fname for font in font_manager.fontManager.ttflist}
    for path in sorted(map(str, FONTS.glob("*.ttf"))):
        if path not in known:
            font_manager.fontManager.addfont(path)
    plt.rcParams.update(
        {
            "font.family": ["Book Sans", "DejaVu Sans"],  # what one lacks the other has
            "mathtext.fontset": "stix",
            "figure.figsize": (6.4, 3.6),
            "figure.dpi": 110,
            "figure.facecolor": "white",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.3,
            "legend.frameon": False,
            "font.size": 10.5,
            "axes.titlesize": 10.5,
            "lines.linewidth": 1.8,
        }
    )


def _sharpen() -> None:
    """Ask the notebook that runs this, if one does, for figures of twice the dots."""
    shell = sys.modules.get("IPython")
    if shell is not None and shell.get_ipython() is not None:
        inline = import_module("matplotlib_inline.backend_inline")
        inline.set_matplotlib_formats("retina")


def _frame(ax: Axes, title: str) -> None:
    """Give a picture a thin frame all around, a title and no ticks."""
    ax.set(xticks=[], yticks=[], title=title)
    ax.grid(False)
    for spine in ax.spines.values():
        spine.set(visible=True, linewidth=0.5)


def image(
    ax: Axes, pixels, title: str = "", *, low: float = 0.0, high: float = 1.0
) -> AxesImage:
    """Draw ``pixels`` (C, H, W) or (H, W) on ``ax``, with a ``title``.

    ``low`` is black and ``high`` is white.
    """
    array = np.asarray(pixels, dtype=float)
    if array.ndim == 3:
        array = array[0] if len(array) == 1 else array.transpose(1, 2, 0)
    if array.ndim == 3:  # colour: matplotlib ignores vmin and vmax there
        array = ((array - low) / (high - low)).clip(0, 1)
    shown = ax.imshow(array, cmap="gray", vmin=low, vmax=high)
    _frame(ax, title)
    return shown


def images(axes: Sequence[Axes], batch, titles: Sequence[str] = ()) -> None:
    """Draw the images of ``batch`` (N, C, H, W) on N ``axes``, under ``titles``."""
    names = list(titles) or [""] * np.size(axes)
    for ax, pixels, title in zip(np.ravel(axes), batch, names, strict=True):
        image(ax, pixels, title)


def perturbation(ax: Axes, delta, title: str = "", *, eps: float) -> AxesImage:
    """Draw ``delta`` on ``ax``, under a ``title``: blue is -eps, white 0, red +eps.

    The scale ends at 1.4 eps, so that the full change keeps a readable colour.
    """
    array = np.asarray(delta, dtype=float)
    if array.ndim == 3:  # the largest change over the channels, with its sign
        flat = np.abs(array).argmax(0)
        array = np.take_along_axis(array, flat[None], 0)[0]
    shown = ax.imshow(array, cmap="RdBu_r", vmin=-1.4 * eps, vmax=1.4 * eps)
    _frame(ax, title)
    return shown


def band(
    ax: Axes,
    x,
    center,
    low,
    high,
    *,
    label: str,
    color: str,
    style: str = "-",
    marker: str = "",
) -> None:
    """Draw on ``ax`` a line through ``center`` over ``x``, with a band around it.

    The band reaches from ``low`` to ``high``; ``label``, ``color``, ``style`` and
    ``marker`` are matplotlib's, and the band has the line's colour.
    """
    ax.plot(x, center, style, color=color, label=label, marker=marker)
    ax.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0)


def name_ends(ax: Axes, *, fontsize: float = 8) -> None:
    """Write the label of each line of ``ax`` at its end, instead of a legend.

    The names stand in the order of the ends, moved apart where lines lie on one
    another; a stroke in the line's colour joins each to its end. Call it after all is
    drawn and the scales and limits are set. ``fontsize`` is in points. Raises
    ``ValueError`` if no line has a label.
    """
    lines = [line for line in ax.lines if not str(line.get_label()).startswith("_")]
    if not lines:
        raise ValueError("no line of these axes has a label")
    ax.get_xlim(), ax.get_ylim()  # limits that nobody has asked for are not made yet
    place = ax.transData + ax.transAxes.inverted()  # of a point, in parts of the axes
    ends = [tuple(place.transform(line.get_xydata()[-1])) for line in lines]
    order = sorted(range(len(lines)), key=lambda k: ends[k][1])
    height = ax.get_window_extent().height * 72 / ax.get_figure().dpi
    step = 1.3 * fontsize / height
    heights = _apart([ends[k][1] for k in order], step)
    right = max(1.0, max(x for x, _ in ends))
    for k, y in zip(order, heights, strict=True):
        color = lines[k].get_color()
        ax.annotate(
            lines[k].get_label(),
            ends[k],
            (right + 0.045, y),
            xycoords="axes fraction",
            textcoords="axes fraction",
            fontsize=fontsize,
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": color, "lw": 1.2, "shrinkA": 1,
                        "shrinkB": 0},
        )  # fmt: skip


def _apart(heights: Sequence[float], step: float) -> list[float]:
    """Heights in rising order, moved as little as possible to be ``step`` apart."""
    groups: list[tuple[list[float], float]] = []  # members, height of the lowest
    for height in heights:
        members, low = [height], height
        while groups and groups[-1][1] + step * len(groups[-1][0]) > low:
            members = groups.pop()[0] + members
            low = float(np.mean([h - step * i for i, h in enumerate(members)]))
        groups.append((members, low))
    return [low + step * i for members, low in groups for i in range(len(members))]


def both_sides(ax: Axes) -> None:
    """Draw the map of the book on ``ax``: two sides that close in on the worst case.

    A drawing, not a measurement: effort to the right, the loss of one image upwards.
    """
    truth = 1.0
    steps = {
        "attack": [(0.0, 0.18, "FGSM"), (1.6, 0.5, "PGD"), (3.2, 0.74, "restarts"),
                   (4.8, 0.9, "ensembles")],
        "bound": [(0.0, 2.0, "intervals"), (1.6, 1.6, "CROWN"),
                  (3.2, 1.26, "optimised slopes"), (4.8, 1.14, "linear programs")],
    }  # fmt: skip
    for side, points in steps.items():
        x = [p[0] for p in points] + [6.4]
        level = [p[1] for p in points] + [points[-1][1]]
        color = COLORS[side]
        ax.step(x, level, where="post", color=color)
        ax.fill_between(x, level, truth, step="post", color=color, alpha=0.12, lw=0)
        for left, height, name in points:
            up = side == "bound"
            ax.text(
                left + 0.08,
                height + (0.05 if up else -0.05),
                name,
                color=color,
                va="bottom" if up else "top",
            )
    ax.plot([0, 6.4], [truth, truth], ":", color=COLORS["exact"], lw=1)
    ax.plot([5.8, 6.4], [truth, truth], color=COLORS["exact"], lw=4)  # its effort
    for height, side, words in [
        (1.5, "bound", "upper bounds\n(Chapters 6a, 6b)"),
        (truth, "exact", "exact: integer programs,\nbranch and bound (Chapters 5, 6c)"),
        (0.5, "attack", "lower bounds\n(Chapter 4)"),
    ]:
        ax.text(6.6, height, words, color=COLORS[side], va="center")
    ax.set(
        xlim=(0, 10.4), ylim=(0, 2.25), xticks=[], yticks=[], xlabel="effort",
        ylabel="worst-case loss of one image",
    )  # fmt: skip
    ax.grid(False)
