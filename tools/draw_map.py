"""Write _static/both-sides.svg, the picture of README and front page."""

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

from advlib import plot

TARGET = Path(__file__).resolve().parent.parent / "_static" / "both-sides.svg"

if __name__ == "__main__":
    plot.use_style()
    plt.rcParams.update({"svg.hashsalt": "both-sides", "svg.fonttype": "path"})
    fig, ax = plt.subplots(figsize=(7.2, 3.6), layout="constrained")
    plot.both_sides(ax)
    fig.savefig(TARGET, metadata={"Date": None, "Creator": None})
