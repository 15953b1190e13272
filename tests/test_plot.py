"""Drawing: on the given axes, with the given data, in the book's style."""

import re

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import colors
from matplotlib import pyplot as plt

from advlib import plot

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def restored():
    """Each test starts from matplotlib's defaults and leaves no figure."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.use("Agg")
        yield
        plt.close("all")


def rgba(shown, value: float):
    """The colour that ``shown`` gives to ``value``."""
    return np.array(shown.cmap(shown.norm(value)))


def test_use_style_sets_the_style():
    """Size, resolution, grid and frame, for figures made after it."""
    assert not plt.rcParams["axes.grid"]
    plot.use_style()
    fig, ax = plt.subplots()
    assert fig.get_size_inches().tolist() == [6.4, 3.6]
    assert fig.dpi == 110
    assert not ax.spines["top"].get_visible()
    assert not ax.spines["right"].get_visible()
    assert ax.spines["left"].get_visible()
    assert any(line.get_visible() for line in ax.get_xgridlines())


def test_palette_has_one_valid_colour_per_method():
    """No two methods share a colour, and every one is a full hex code."""
    values = list(plot.COLORS.values())
    assert len(set(values)) == len(values)
    assert all(re.fullmatch("#[0-9A-F]{6}", value) for value in values)
    assert {"clean", "attack", "exact", "bound"} <= set(plot.COLORS)


@pytest.mark.parametrize(
    ("color", "page", "ratio"),
    [
        ("#000000", "#FFFFFF", 21.0),
        ("#FFFFFF", "#FFFFFF", 1.0),
        ("#777777", "#FFFFFF", 4.48),  # the pair everybody quotes: just below 4.5
        ("#FFFFFF", "#0000FF", 8.59),
    ],
)
def test_contrast_by_hand(color, page, ratio):
    """Values that WCAG's own examples give, in either order."""
    assert plot.contrast(color, page) == pytest.approx(ratio, abs=0.005)
    assert plot.contrast(page, color) == plot.contrast(color, page)


@pytest.mark.parametrize("page", plot.PAGES)
def test_every_colour_is_seen_on_both_pages(page):
    """At least 3 to 1, the least that WCAG asks of a line in a figure."""
    for color in {*plot.COLORS.values(), *plot.METHODS.values()}:
        assert plot.contrast(color, page) >= 3, color


def test_methods_differ_without_colour():
    """No two methods of one side share a line and a marker."""
    assert set(plot.STYLES) == set(plot.METHODS)
    looks = [(str(s["linestyle"]), s["marker"]) for s in plot.STYLES.values()]
    assert len(set(looks)) == len(looks)
    assert all(s["color"] == plot.METHODS[n] for n, s in plot.STYLES.items())
    _, ax = plt.subplots()
    for style in plot.STYLES.values():
        ax.plot([0, 1], [0, 1], **style)


def draw_all(ax):
    """Every function that draws, once."""
    plot.image(ax, np.zeros((2, 2)))
    plot.images([ax], np.zeros((1, 1, 2, 2)))
    plot.perturbation(ax, np.zeros((2, 2)), eps=0.1)
    plot.band(ax, [0, 1], [1, 2], [0, 1], [2, 3], label="a", color="k")
    plot.both_sides(ax)


def test_only_the_given_axes_are_drawn_on():
    """The current axes are others, and stay empty; no figure is opened."""
    _, ax = plt.subplots()
    _, current = plt.subplots()
    plt.sca(current)
    draw_all(ax)
    assert ax.has_data()
    assert not current.has_data()
    assert len(plt.get_fignums()) == 2


def test_drawing_changes_no_setting():
    """Only ``use_style`` touches the parameters."""
    before = dict(plt.rcParams)
    draw_all(plt.subplots()[1])
    assert dict(plt.rcParams) == before


@pytest.mark.parametrize("shape", [(4, 5), (1, 4, 5)])
def test_grey_image(shape):
    """Pixels as they are, 0 black and 1 white, no ticks, no grid, the title."""
    pixels = torch.rand(shape, generator=torch.Generator().manual_seed(0)) / 2
    plot.use_style()
    _, ax = plt.subplots()
    shown = plot.image(ax, pixels, "a digit")
    assert np.allclose(shown.get_array(), pixels.view(4, 5).numpy())
    assert rgba(shown, 0).tolist() == [0, 0, 0, 1]
    assert rgba(shown, 1).tolist() == [1, 1, 1, 1]
    assert rgba(shown, 0.5)[0] == pytest.approx(0.5, abs=0.01)  # not stretched
    assert len(ax.get_xticks()) == len(ax.get_yticks()) == 0
    assert ax.get_title() == "a digit"
    assert shown in ax.images


def test_grey_image_with_its_own_scale():
    """``low`` is black and ``high`` white: for weights, say."""
    shown = plot.image(plt.subplots()[1], [[-2.0, 2.0]], low=-2, high=2)
    assert rgba(shown, -2)[0] == 0
    assert rgba(shown, 2)[0] == 1


def test_colour_image():
    """Channels go last; ``low`` and ``high`` hold here too, what is beyond is cut."""
    pixels = np.random.default_rng(0).random((3, 4, 5))
    shown = plot.image(plt.subplots()[1], torch.tensor(pixels))
    assert shown.get_array().shape == (4, 5, 3)
    for c in range(3):
        assert np.allclose(shown.get_array()[..., c], pixels[c])
    scaled = plot.image(plt.subplots()[1], pixels, low=0.25, high=0.75)
    expected = np.clip((pixels - 0.25) / 0.5, 0, 1)
    assert np.allclose(scaled.get_array(), expected.transpose(1, 2, 0))


@pytest.mark.parametrize("titles", [(), ["a", "b", "c", "d"]])
@pytest.mark.parametrize("shape", [(1, 4), (2, 2)])
def test_images_on_any_grid_of_axes(shape, titles):
    """One image per axes, row by row, with its title if there are titles."""
    batch = torch.rand(4, 1, 3, 3)
    _, axes = plt.subplots(*shape)
    plot.images(axes, batch, titles)
    for i, ax in enumerate(axes.flat):
        assert np.allclose(ax.images[0].get_array(), batch[i, 0])
        assert ax.get_title() == (titles[i] if titles else "")


def test_images_of_another_number_than_axes():
    """An image left over is a slip, not to be dropped in silence."""
    _, axes = plt.subplots(1, 3)
    for count in (2, 4):
        with pytest.raises(ValueError, match="zip"):
            plot.images(axes, torch.rand(count, 1, 3, 3))


def test_perturbation_is_symmetric_about_white():
    """-eps is blue, 0 white, +eps red, whatever the values are."""
    delta = torch.tensor([[0.01, -0.02], [0.0, 0.005]])
    shown = plot.perturbation(plt.subplots()[1], delta, "delta", eps=0.1)
    assert shown.get_clim() == pytest.approx((-0.14, 0.14))  # 1.4 eps, as documented
    assert np.allclose(shown.get_array(), delta.numpy())
    low, middle, high = (rgba(shown, value) for value in (-0.1, 0.0, 0.1))
    assert low[2] > low[0] + 0.2
    assert high[0] > high[2] + 0.2
    assert middle[:3].min() > 0.95
    assert shown.axes.get_title() == "delta"
    assert len(shown.axes.get_xticks()) == 0


def test_perturbation_of_a_colour_image():
    """Of each pixel the channel that changes most, with its sign."""
    delta = np.random.default_rng(1).normal(size=(3, 4, 5))
    shown = plot.perturbation(plt.subplots()[1], delta, eps=3)
    for i in range(4):
        for j in range(5):
            expected = max(delta[:, i, j], key=abs)
            assert shown.get_array()[i, j] == expected


def test_band_is_a_line_and_its_interval():
    """The line goes through the centres, the band from low to high, one colour."""
    _, ax = plt.subplots()
    x, center = [0, 1, 2], [1.0, 2.0, 3.0]
    low, high = [0.5, 1.0, 2.5], [1.5, 4.0, 3.5]
    plot.band(
        ax, x, center, low, high, label="PGD", color="#D55E00", style="--", marker="o"
    )
    (line,), (area,) = ax.lines, ax.collections
    assert line.get_xydata().tolist() == [[0, 1.0], [1, 2.0], [2, 3.0]]
    assert (line.get_label(), line.get_linestyle(), line.get_marker()) == (
        "PGD",
        "--",
        "o",
    )
    corners = {tuple(vertex) for vertex in area.get_paths()[0].vertices}
    assert corners == {*zip(x, low, strict=True), *zip(x, high, strict=True)}
    assert colors.to_hex(line.get_color()).upper() == "#D55E00"
    assert colors.to_hex(area.get_facecolor()[0]).upper() == "#D55E00"
    assert area.get_facecolor()[0][3] < 0.5  # the line shows through
    assert len(ax.get_legend_handles_labels()[1]) == 1  # the band has no own entry


def test_name_ends_names_each_line_once_in_the_order_of_the_ends():
    """Names stand apart although two lines end in one point; others have none."""
    _, ax = plt.subplots()
    for label, end in {"low": 0.1, "high": 0.9, "one": 0.5, "two": 0.5}.items():
        ax.plot([0, 1], [0, end], label=label)
    ax.plot([0, 1], [0.2, 0.2])
    plot.name_ends(ax, fontsize=8)
    at = {text.get_text(): text.get_position()[1] for text in ax.texts}
    assert set(at) == {"low", "high", "one", "two"}
    assert at["low"] < at["one"] < at["two"] < at["high"]
    height = ax.get_window_extent().height * 72 / ax.get_figure().dpi
    heights = np.array(sorted(at.values())) * height
    assert np.diff(heights).min() >= 8  # points: the names do not touch
    middle = (at["one"] + at["two"]) / 2
    (first, *_) = ax.lines
    ends = ax.transData + ax.transAxes.inverted()
    assert middle == pytest.approx(ends.transform((1, 0.5))[1])
    assert at["low"] == pytest.approx(ends.transform(first.get_xydata()[-1])[1])
    strokes = {colors.to_hex(text.arrow_patch.get_edgecolor()) for text in ax.texts}
    assert strokes == {colors.to_hex(line.get_color()) for line in ax.lines[:4]}
    with pytest.raises(ValueError, match="no line of these axes has a label"):
        plot.name_ends(plt.subplots()[1])


def test_names_on_a_logarithmic_axis_stand_at_their_ends():
    """The place of an end is that on the page, not that in units of the axis."""
    _, ax = plt.subplots()
    ax.plot([0, 1], [1, 10], label="ten")
    ax.plot([0, 1], [1, 1000], label="thousand")
    ax.set_yscale("log")
    ax.set_ylim(1, 1000)
    plot.name_ends(ax)
    heights = [text.get_position()[1] for text in ax.texts]
    assert heights == pytest.approx([1 / 3, 1.0])


def test_names_stand_beside_axes_whose_limits_nobody_has_asked_for():
    """Limits are made when they are asked for: before, ends lie far off the page."""
    _, ax = plt.subplots()
    ax.plot([1, 60], [90, 70], label="long")
    ax.plot([1, 15], [90, 75], label="short")
    plot.name_ends(ax)
    assert all(0 < text.get_position()[1] < 1 for text in ax.texts)
    assert all(1 < text.get_position()[0] < 1.2 for text in ax.texts)


def test_both_sides_closes_in_on_the_exact_line():
    """Lower bounds rise towards the exact line, upper ones fall; none crosses it."""
    _, ax = plt.subplots()
    plot.both_sides(ax)
    levels = {}
    for line in ax.lines:
        key = colors.to_hex(line.get_color()).upper()
        levels[key] = np.asarray(line.get_ydata(), dtype=float)
    (exact,) = set(levels[plot.COLORS["exact"]])
    lower, upper = levels[plot.COLORS["attack"]], levels[plot.COLORS["bound"]]
    assert (np.diff(lower) >= 0).all()
    assert (np.diff(upper) <= 0).all()
    assert lower.max() < exact < upper.min()
    assert ax.get_xlabel()
    assert ax.get_ylabel()
