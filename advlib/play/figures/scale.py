"""The scale of the logits: the loss's prediction goes blind, the margin's does not."""

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure

from advlib import plot
from advlib.play.stored import stored

USES = ()
NEEDS = ("scale",)
LOOKS = {"linear": "clean", "dnn_2": "standard", "dnn_4": "third", "cnn": "random"}
SCALED = (("linear", 1), ("linear", 3), ("cnn", 1), ("cnn", 0.3))


def along(name: str, factor: float = 1) -> dict[str, np.ndarray | float]:
    """Return loss and margin (21,) on the way of one network, and their predictions.

    ``name`` of ``SCALED`` networks; its logits are multiplied by ``factor``. "rise" and
    "drop" are the changes over the whole way that the gradient at the image predicts.
    """
    record = stored("scale")
    label, of = record["label"], record["networks"][name]
    z, slope = (
        factor * torch.tensor(of[key], dtype=torch.float64)
        for key in ("logits", "slope")
    )
    loss = F.cross_entropy(z, torch.full((len(z),), label), reduction="none")
    others = torch.arange(z.shape[1]) != label
    rival = z[0].where(others, -torch.inf).argmax()
    predicted = (z[0].softmax(0) * (slope - slope[label])).sum()
    return {
        "loss": loss.numpy(),
        "margin": (z[:, label] - z[:, others].amax(1)).numpy(),
        "rise": float(predicted),
        "drop": float(slope[rival] - slope[label]),
    }


def draw() -> Figure:
    """Return the picture: losses of four scales, margins of four networks, tangents."""
    share = np.linspace(0, 1, 21)
    fig, axes = plt.subplots(1, 2, figsize=(8, 3.5), layout="constrained")
    for name, factor in SCALED:
        found = along(name, factor)
        loss, color = found["loss"], plot.COLORS[LOOKS[name]]
        rise = loss[-1] - loss[0]
        label = "linear" if name == "linear" else "CNN"
        label += "" if factor == 1 else f", logits x {factor}"
        label += f": {plot.number(rise / found['rise'], 2)}"
        axes[0].plot(share, (loss - loss[0]) / rise, "-" if factor == 1 else ":",
                     color=color, label=label)  # fmt: skip
        axes[0].plot(share, share * found["rise"] / rise, "--", color=color, lw=0.9)
    for name, color in LOOKS.items():
        found = along(name)
        margin = found["margin"] / found["margin"][0]
        axes[1].plot(share, margin, color=plot.COLORS[color], label=plot.LABELS[name])
        line = 1 - share * found["drop"] / found["margin"][0]
        axes[1].plot(share, line, "--", color=plot.COLORS[color], lw=0.9)
    axes[1].axhline(0, color="black", lw=0.8)
    axes[0].legend(title="rise / predicted", loc="upper left")
    axes[0].set(ylabel="rise of the loss / its whole rise", title="loss")
    axes[1].legend(loc="lower left")
    axes[1].set(ylabel="margin / clean margin", title="margin")
    for ax in axes:
        ax.set(xlabel="share of the way to the worst point", xlim=(0, 1))
    return fig
