"""Nineteen ways to train, minus ReLU: what three seeds say, and what eight."""

import math

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from advlib import plot, results

USES = ()
NEEDS = ("arms",)
GROUPS = {
    "placebos": [
        "leaky_relu",
        "parametric_softplus_100",
        "smooth_relu",
        "smooth_relu_400",
    ],
    "smooth": ["parametric_softplus", "silu", "gelu", "softplus", "elu", "celu"],
    "smooth gradient only": ["surrogate_attack", "surrogate_update", "surrogate"],
    "more steps, more epochs": [
        "relu_2_steps",
        "relu_5_steps",
        "relu_10_steps",
        "silu_5_steps",
        "relu_twice_as_long",
        "relu_four_times_as_long",
    ],
}
NAMES = {
    "smooth_relu_400": "SmoothReLU fixed",
    "surrogate_attack": "for the attacker",
    "surrogate_update": "for the update",
    "surrogate": "for both",
    "relu_2_steps": "ReLU, 2 steps",
    "relu_5_steps": "ReLU, 5 steps",
    "relu_10_steps": "ReLU, 10 steps",
    "silu_5_steps": "SiLU, 5 steps",
    "relu_twice_as_long": "ReLU, twice as long",
    "relu_four_times_as_long": "ReLU, four times",
}
COLOURS = dict(zip(GROUPS, ("random", "robust", "third", "standard"), strict=True))
Errors = dict[str, dict[int, list[float]]]


def errors() -> Errors:
    """Return clean and attacked error in per cent, for each arm and seed."""
    record = results.load("smooth_training")["data"]
    found: Errors = {}
    for row in record["runs"]:
        if not row["arm"].startswith("standard"):
            found.setdefault(row["arm"], {})[row["seed"]] = [
                100 * row["clean_wrong"] / record["test_images"],
                100 * row["strong_wrong"] / record["attacked_images"],
            ]
    return found


def spread(found: Errors, which: int, seeds: set[int]) -> tuple[float, int]:
    """Return the sd of a paired difference, one for all arms, and its freedom.

    Errors, as ``errors`` has them ``found``, are arm plus seed plus rest, by least
    squares over the ``seeds``; ``which`` is 0 for the clean, 1 for the attacked error.
    """
    rows = [
        (arm, seed, pair[which])
        for arm, runs in found.items()
        for seed, pair in runs.items()
        if seed in seeds
    ]
    keys = [sorted({row[k] for row in rows}) for k in (0, 1)]
    design = np.array(
        [[row[k] == key for k in (0, 1) for key in keys[k]] for row in rows]
    )
    values = np.array([row[2] for row in rows])
    fit, _, rank, _ = np.linalg.lstsq(design.astype(float), values, rcond=None)
    free = len(values) - int(rank)
    rest = values - design @ fit
    return math.sqrt(2 * rest @ rest / free), free


def data() -> dict:
    """Return what the page needs: runs by arm and seed, and quantiles of t."""
    found = errors()
    groups = {"": ["relu"]} | GROUPS
    return {
        "arms": [
            {
                "key": arm,
                "name": NAMES.get(arm) or plot.LABELS[arm],
                "group": group,
                "runs": {
                    str(seed): [round(value, 6) for value in pair]
                    for seed, pair in sorted(found[arm].items())
                },
            }
            for group, arms in groups.items()
            for arm in arms
            if arm in found
        ],
        # .975 and .8 quantiles of Student's t for 1, 2, 3, ... degrees of freedom
        "t": [
            [round(float(stats.t.ppf(p, free)), 6) for p in (0.975, 0.8)]
            for free in range(1, 161)
        ],
    }


def draw() -> Figure:
    """Return the picture: attacked errors minus ReLU's, each seed, each interval."""
    found = errors()
    sd, free = spread(found, 1, set(range(100)))
    fig, ax = plt.subplots(figsize=(7.2, 5.6), layout="constrained")
    place, ticks = 0, {}
    for group, arms in GROUPS.items():
        colour = plot.COLORS[COLOURS[group]]
        ax.text(-7.9, place, group, va="center", color=colour, weight="bold", size=9)
        for arm in (arm for arm in arms if arm in found):
            place += 1
            dots = [
                pair[1] - found["relu"][seed][1] for seed, pair in found[arm].items()
            ]
            mean, half = np.mean(dots), stats.t.ppf(0.975, free) * sd / len(dots) ** 0.5
            ticks[place] = f"{NAMES.get(arm) or plot.LABELS[arm]} ({len(dots)})"
            ax.plot(dots, [place] * len(dots), "o", color=colour, alpha=0.6, ms=5)
            ax.plot([mean - half, mean + half], [place] * 2, color=colour, lw=2.5)
            ax.plot(mean, place, "|", color="black", ms=12, mew=2)
        place += 1
    ax.axvline(0, color="black", lw=1)
    ax.set(
        yticks=list(ticks),
        yticklabels=ticks.values(),
        xlim=(-8, 5),
        ylim=(place - 0.5, -0.7),
        xlabel="attacked error minus ReLU's, points (left: better)",
    )
    return fig
