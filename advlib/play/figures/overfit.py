"""Catastrophic overfitting: three errors by epoch, and the loss on two ways."""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from advlib import plot
from advlib.play.stored import stored

USES = ()
NEEDS = ("overfit",)
LINES = (
    ("clean", "no attack", plot.COLORS["clean"], ":"),
    ("fgsm", "FGSM", plot.METHODS["fgsm"], "--"),
    ("pgd", "PGD", plot.METHODS["pgd"], "-"),
)


def draw() -> Figure:
    """Return the picture: FGSM's training, its best epoch under PGD and its last."""
    record = stored("overfit")
    rows = record["runs"]["FGSM"]
    best = min(range(len(rows)), key=lambda k: rows[k]["pgd"])
    fig, axes = plt.subplots(1, 3, figsize=(8, 3.4), layout="constrained")
    for key, name, color, style in LINES:
        axes[0].plot(range(1, len(rows) + 1), [row[key] for row in rows], style,
                     color=color, label=name)  # fmt: skip
    axes[0].set(xlabel="epoch", ylabel="validation error", ylim=(0, 1.02))
    axes[0].set_xticks([1, 5, 10])
    fig.legend(loc="outside lower left", ncols=3)
    for ax, epoch in zip(axes[1:], (best, len(rows) - 1), strict=True):
        axes[0].axvline(epoch + 1, color="black", lw=0.8)
        for key, name in (("fgsm", "FGSM"), ("pgd", "PGD")):
            loss, slope = (rows[epoch]["rays"][key][part] for part in ("loss", "slope"))
            color = plot.METHODS[key]
            ax.plot(record["shares"], loss, color=color)
            ax.plot([0, 1], [loss[0], loss[0] + slope], ":", color=color)
            ax.plot(1, loss[-1], "o", color=color)
            ax.annotate(f"{name} {loss[-1]:.2f}", (1, loss[-1]), (-6, 5), fontsize=8,
                        textcoords="offset points", ha="right")  # fmt: skip
        ax.set(title=f"after epoch {epoch + 1}", xlabel="share of the way",
               ylim=(0, 2.2), xlim=(0, 1.04))  # fmt: skip
    axes[1].set_ylabel("mean cross-entropy")
    return fig
