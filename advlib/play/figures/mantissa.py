"""A trap in arithmetic of m bits: to nearest the program leaves the real margin."""

from collections.abc import Sequence
from fractions import Fraction

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from advlib import plot

USES = ("rounded",)
NEEDS = ()
LOW, HIGH, LARGEST = 0.25, 0.75, 0.6
PANELS = ((24, False), (27, False), (27, True))  # bits of a number, rounded outward
POWER = 24  # of the large weight
Layers = Sequence[tuple[Sequence[Sequence[float]], Sequence[float]]]


def rounded(value: Fraction, bits: int | None, way: str = "nearest") -> Fraction:
    """Return ``value`` with ``bits`` binary digits, or as it is if ``bits`` is None.

    ``way`` is "nearest" (ties to even), "down" or "up"; exponents have no limits.
    Raises ``ValueError`` for another way and for less than one bit.
    """
    if way not in ("nearest", "down", "up") or (bits is not None and bits < 1):
        raise ValueError(f"cannot round {way!r} to {bits} bits")
    if value == 0 or bits is None:
        return value
    size = abs(value)
    power = size.numerator.bit_length() - size.denominator.bit_length()
    if size < Fraction(2) ** power:
        power -= 1
    step = Fraction(2) ** (power + 1 - bits)
    whole = {"nearest": round, "down": np.floor, "up": np.ceil}[way]
    return int(whole(value / step)) * step


def interval(
    layers: Layers,
    low: Sequence[float],
    high: Sequence[float],
    *,
    bits: int | None,
    outward: bool,
) -> tuple[list[Fraction], list[Fraction]]:
    """Return the ends of what leaves ``layers``, in arithmetic of ``bits`` bits.

    ``layers`` are weights (out, in) and biases, ReLU between them; ``low`` and ``high``
    the ends of the input. Weights, products and sums are rounded, to nearest or
    ``outward``; outward the interval holds every real value.
    """

    def down(v: Fraction) -> Fraction:
        return rounded(v, bits, "down" if outward else "nearest")

    def up(v: Fraction) -> Fraction:
        return rounded(v, bits, "up" if outward else "nearest")

    x = [(down(Fraction(a)), up(Fraction(b))) for a, b in zip(low, high, strict=True)]
    for k, (weight, bias) in enumerate(layers):
        if k:
            x = [(max(a, Fraction(0)), max(b, Fraction(0))) for a, b in x]
        out = []
        for row, b in zip(weight, bias, strict=True):
            ends = down(Fraction(b)), up(Fraction(b))
            for w, pair in zip(row, x, strict=True):
                both = [v * u for v in {down(Fraction(w)), up(Fraction(w))}
                        for u in pair]  # fmt: skip
                ends = (down(ends[0] + min(map(down, both))),
                        up(ends[1] + max(map(up, both))))  # fmt: skip
            out.append(ends)
        x = out
    return [a for a, _ in x], [b for _, b in x]


def trap(power: int) -> Layers:
    """Return a network of two pixels whose margin is 0.6 less the second one.

    With the first pixel 1; a weight of two to the ``power`` hides the second one.
    """
    big = 2.0**power
    return [([[big, 1]], [0]), ([[1]], [-big]), ([[-1]], [LARGEST])]


def draw() -> Figure:
    """Return the picture: the margin along an edge of the ball, rounded three ways."""
    fig, axes = plt.subplots(
        1, 3, sharey=True, figsize=(7.2, 3.1), layout="constrained"
    )
    for ax, (bits, outward) in zip(axes, PANELS, strict=True):
        _panel(ax, bits, outward=outward)
        ax.set(title=f"{bits} bits, {'outward' if outward else 'to nearest'}")
        ax.set(xlabel="second pixel", ylim=(-0.55, 0.75))
    axes[0].set_ylabel("margin of class 0")
    handles = {}
    for ax in axes:
        handles |= dict(zip(*ax.get_legend_handles_labels()[::-1], strict=True))
    fig.legend(handles.values(), handles, loc="outside lower center", ncol=2)
    return fig


def _panel(ax: Axes, bits: int, *, outward: bool) -> None:
    """Draw real margin, program or interval, and the bound over the ball."""
    x, layers = np.linspace(LOW, HIGH, 257), trap(POWER)
    pairs = [interval(layers, [1, v], [1, v], bits=bits, outward=outward) for v in x]
    lower, upper = (np.array([float(pair[k][0]) for pair in pairs]) for k in (0, 1))
    ball = interval(layers, [0.75, LOW], [1, HIGH], bits=bits, outward=outward)
    ax.plot(x, LARGEST - x, color=plot.COLORS["exact"], label="real margin")
    if outward:
        ax.fill_between(x, lower, upper, color=plot.METHODS["interval"], alpha=0.5,
                        lw=0, label="interval around it")  # fmt: skip
    else:
        ax.plot(x, lower, "--", color=plot.COLORS["third"], label="program")
    ax.axhline(float(ball[0][0]) - 0.015, color=plot.METHODS["interval"], ls=":",
               label="interval bound over the ball")  # fmt: skip
    ax.axhline(0, color="black", lw=0.8)
