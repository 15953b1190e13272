"""Five networks without their names, one of which hides something."""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from advlib import plot
from advlib.play.stored import stored

USES = ()
NEEDS = ("cheats",)
# base and mask of the networks that the printed page shows, A to E
SHOWN = (
    ("mlp_256_ibp", None),
    ("cnn_small", "rippled"),
    ("dnn_2_pgd", "clipped"),
    ("cnn_small_pgd_0", None),
    ("cnn_small", "quantised"),
)


def draw() -> Figure:
    """Return the picture: what PGD reports of five networks, and their checks."""
    record = stored("cheats")
    found = {(one["base"], one["mask"]): one for one in record["networks"]}
    names = ["no attack", "PGD, 40 steps"] + [name for name, *_ in record["checks"]]
    places = [0, 1] + [k + 2.6 for k in range(len(record["checks"]))]
    ticks = [threshold for _, threshold, _ in record["checks"]]
    fig, axes = plt.subplots(1, 5, sharey=True, figsize=(8, 3.4), layout="constrained")
    for letter, key, ax in zip("ABCDE", SHOWN, axes, strict=True):
        one = found[key]
        values = [wrong / record["images"] for wrong in one["wrong"][:2]]
        colors = [plot.COLORS["clean"], plot.METHODS["pgd"]]
        ax.barh(places, values + one["shown"], height=0.6,
                color=[*colors, *[plot.COLORS["random"]] * len(ticks)])  # fmt: skip
        ax.vlines(ticks, [p - 0.45 for p in places[2:]], [p + 0.45 for p in places[2:]],
                  color="black", lw=1)  # fmt: skip
        for place, value in zip(places, values + one["shown"], strict=True):
            ax.text(max(value, 0.05) + 0.04 if value < 0.7 else value - 0.04, place,
                    f"{100 * value:.0f} %", va="center", fontsize=7,
                    ha="left" if value < 0.7 else "right")  # fmt: skip
        ax.set(title=f"{letter}, $\\epsilon = {one['eps']}$", xlim=(0, 1.05),
               xticks=[0, 0.5, 1], xlabel="share of images")  # fmt: skip
        ax.grid(False, axis="y")
    axes[0].set_yticks(places, names)
    axes[0].invert_yaxis()
    return fig
