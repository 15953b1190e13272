"""Eight rows of words, to be sorted: four dimensions, four random directions."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from advlib import plot
from advlib.play.stored import stored

USES = ()
NEEDS = ("guess",)
SEED = 3


def rows(form: str, seed: int) -> list[tuple[str, str]]:
    """Return eight rows in a random order, each the words and the direction's name.

    ``form`` is "raw" or "unit", vectors of length one, ``seed`` draws. Raises
    ``KeyError`` for another form.
    """
    record, rng = stored("guess"), np.random.default_rng(seed)
    found = [
        (record[form][kind][k], f"{letter}{record['first'] + k}")
        for kind, letter in (("dimensions", "e"), ("random", "v"))
        for k in rng.choice(len(record[form][kind]), 4, replace=False)
    ]
    return [found[k] for k in rng.permutation(8)]


def draw() -> Figure:
    """Return the picture: rows to sort, the answers upside down, and chance."""
    fig, (left, right) = plt.subplots(
        1, 2, figsize=(7.4, 3.2), layout="constrained", width_ratios=(2.3, 1)
    )
    shown = rows("raw", SEED)
    left.set(xlim=(0, 1), ylim=(8.6, -0.6), title="four of these are dimensions")
    left.axis("off")
    for k, (words, _) in enumerate(shown):
        left.text(0, k, f"{k + 1}", va="center", color=plot.COLORS["clean"])
        left.text(0.05, k, words, va="center", fontsize=9.5)
    answers = ", ".join(f"{k + 1} {name}" for k, (_, name) in enumerate(shown))
    left.text(1, 8.2, answers, rotation=180, fontsize=8, ha="right", va="center",
              color=plot.COLORS["clean"])  # fmt: skip
    hits = np.arange(5)
    bars = right.bar(2 * hits, stats.hypergeom(8, 4, 4).pmf(hits), width=1.2,
                     color=plot.COLORS["clean"])  # fmt: skip
    right.bar_label(bars, [f"{n} of 70" for n in (1, 16, 36, 16, 1)], fontsize=8)
    right.set(xlabel="right answers of 8", ylabel="chance", xticks=2 * hits)
    return fig
