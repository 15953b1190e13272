"""Nine activations, and the slope along a way through a network with each of them."""

from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from advlib import activations, plot
from advlib.play.stored import stored

USES = ()
NEEDS = ("gates",)
NINE = ("relu", "leaky_relu", "elu", "celu", "smooth_relu", "softplus",
        "parametric_softplus", "silu", "gelu")  # fmt: skip
PARTS = (
    ("value", "clean", "-"),
    ("derivative", "exact", "-"),
    ("curvature", "random", "--"),
)


def network(activation: Callable[[], nn.Module]) -> nn.Sequential:
    """Return the network along the way, float64: t (N, 1) in, logit difference out.

    ``activation`` makes the layer that stands in ReLU's place.
    """
    note, model = stored("gates"), []
    keys = ("start", "step", "weight", "bias", "out", "last")
    start, step, weight, bias, out, last = (
        torch.tensor(note[key], dtype=torch.float64) for key in keys
    )
    layers = [(step[:, None], start), (weight, bias), (out[None], last[None])]
    for weight, bias in layers:
        layer = nn.Linear(weight.shape[1], weight.shape[0]).double()
        layer.load_state_dict({"weight": weight, "bias": bias})
        model += [layer, activation().double()]
    return nn.Sequential(*model[:-1]).eval().requires_grad_(False)


def slopes(model: nn.Module, t: Tensor) -> Tensor:
    """Return the slope of the ``model``'s logit difference at each of ``t`` (N,)."""
    way = t.double()[:, None].requires_grad_()
    return torch.autograd.grad(model(way).sum(), way)[0][:, 0]


def draw() -> Figure:
    """Return the picture: a panel an activation; below, slopes along the way."""
    fig = plt.figure(figsize=(7.4, 8.4), layout="constrained")
    grid = fig.add_gridspec(4, 3, height_ratios=(1, 1, 1, 1.25))
    first = None
    for k, name in enumerate(NINE):
        ax = fig.add_subplot(grid[k // 3, k % 3], sharex=first, sharey=first)
        first = first or ax
        _panel(ax, name)
        ax.tick_params(labelbottom=k > 5, labelleft=k % 3 == 0)
        ax.set_ylabel("f, f', f''" if k % 3 == 0 else "")
        ax.set_xlabel("x" if k > 5 else "")
    first.legend(loc="upper left", fontsize=8)
    _way(fig.add_subplot(grid[3, :]))
    return fig


def _panel(ax: Axes, name: str) -> None:
    """Draw value, slope and curvature of one activation, ReLU in grey."""
    line = torch.linspace(-3, 3, 1200).double()  # 0 is not among them
    layer = activations.make(name).double().requires_grad_(False)
    functions = [layer, torch.func.grad(layer), torch.func.grad(torch.func.grad(layer))]
    ax.plot(line, line.clamp(min=0), color="#dddddd", lw=5)
    for function, (label, color, style) in zip(functions, PARTS, strict=True):
        values = torch.func.vmap(function)(line)
        ax.plot(line, values, style, label=label, lw=1.5, color=plot.COLORS[color])
    ax.set(title=plot.LABELS[name], ylim=(-1.3, 2.9))


def _way(ax: Axes) -> None:
    """Draw the slopes of the network with four activations."""
    t = torch.linspace(0, 1, 1001).double()
    for name, color, style in (("relu", "clean", "-"), ("smooth_relu", "third", "--"),
                               ("parametric_softplus", "exact", "-"),
                               ("silu", "bound", "-.")):  # fmt: skip
        curve = slopes(network(lambda name=name: activations.make(name)), t)
        ax.plot(t, np.asarray(curve), style, color=plot.COLORS[color], lw=1.5,
                label=plot.LABELS[name])  # fmt: skip
    ax.set(xlabel="share t of the way from the image to an attack's end",
           ylabel="slope of the\nlogit difference")  # fmt: skip
    ax.legend(fontsize=8, loc="lower right")
