"""The plane of a network with eight ReLUs, two squares in it, and their margins."""

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle
from torch import Tensor, nn

from advlib import attacks, bounds, models, plot
from advlib.play.stored import stored

USES = ("network", "attack", "bounds", "polygons", "rows")
NEEDS = ("plane",)
EPS, STARTS, STEPS = 0.08, 12, 20
WRONG = "#F7CDB4"


def network(record: dict) -> nn.Sequential:
    """Return the network 2-n-2 of a ``record``, (N, 1, 1, 2) to (N, 2), in float64."""
    net = models.mlp((1, 1, 2), [len(record["biases"][0])], 2).double().eval()
    pairs = zip(record["weights"], record["biases"], strict=True)
    values = [torch.tensor(v, dtype=torch.float64) for pair in pairs for v in pair]
    net.load_state_dict(dict(zip(net.state_dict(), values, strict=True)))
    return net.requires_grad_(False)


def pieces(net: nn.Module, low: Tensor, high: Tensor, label: int) -> list:
    """Return the polygons of a box on which the margin of ``net`` is linear.

    ``low``, ``high`` (2,): the box; the margin is that of ``label``. Each is (corners
    (V, 2), parity of the ReLUs that are on, margins at the corners (V,)); the least
    margin of all is exact.
    """
    (w, b), (read, last) = (
        (layer.weight.numpy(), layer.bias.numpy())
        for layer in net
        if isinstance(layer, nn.Linear)
    )
    (a, c), (d, e) = low.tolist(), high.tolist()
    found = [(np.array([[a, c], [d, c], [d, e], [a, e]]), 0)]
    for row, offset in zip(w, b, strict=True):
        sides = [
            (clip(corners, sign * row, sign * offset), odd ^ on)
            for corners, odd in found
            for sign, on in ((1, 1), (-1, 0))
        ]
        found = [side for side in sides if len(side[0]) > 2]
    row, offset = read[label] - read[1 - label], last[label] - last[1 - label]
    return [
        (corners, odd, np.maximum(corners @ w.T + b, 0) @ row + offset)
        for corners, odd in found
    ]


def clip(corners: np.ndarray, row: np.ndarray, offset: float) -> np.ndarray:
    """Return the part of a polygon where ``row @ x + offset >= 0``.

    ``corners`` (V, 2) of a convex polygon, in order; ``row`` (2,).
    """
    value, out = corners @ row + offset, []
    for p, q, u, v in zip(
        corners, np.roll(corners, -1, 0), value, np.roll(value, -1), strict=True
    ):
        if u >= 0:
            out.append(p)
        if u * v < 0:
            out.append(p + u / (u - v) * (q - p))
    return np.array(out).reshape(-1, 2)


def starts(count: int = STARTS) -> Tensor:
    """Return ``count`` points (count, 2) that fill the unit square evenly."""
    step = torch.tensor([0.7548776662466927, 0.5698402909980532], dtype=torch.float64)
    return (0.5 + step * torch.arange(1, count + 1)[:, None]) % 1


def climb(net: nn.Module, point: Tensor, label: int, eps: float) -> Tensor:
    """Return the paths (STEPS + 1, STARTS, 2) of PGD on the margin in a square.

    The ``label``'s margin of ``net``; the square of radius ``eps`` around ``point``
    (2,), cut to the unit square.
    """
    low, high = (point - eps).clamp(min=0), (point + eps).clamp(max=1)
    x = point.expand(STARTS, 1, 1, 2)
    y = torch.full((STARTS,), label)
    path = [(low + starts() * (high - low)).view(x.shape) - x]
    for _ in range(STEPS):
        path.append(
            attacks.pgd_linf(net, x, y, eps, alpha=eps / 8, num_steps=1,
                             start=path[-1], loss=attacks.margin_loss)
        )  # fmt: skip
    return torch.stack(path).view(-1, STARTS, 2) + point


def margins(net: nn.Module, point: Tensor, label: int, eps: float) -> dict:
    """Return the smallest margins in a square, by method; PGD's at each end.

    Arguments as ``climb``: ``net``, ``point`` (2,), ``label``, ``eps``. "pgd" is from
    above, "exact" is exact up to rounding, "crown" and "interval" are sound bounds.
    """
    x, y = point.view(1, 1, 1, 2), torch.tensor([label])
    low, high = (point - eps).clamp(min=0), (point + eps).clamp(max=1)
    z = net(climb(net, point, label, eps)[-1].view(-1, 1, 1, 2))
    return {
        "pgd": (z[:, label] - z[:, 1 - label]).numpy(),
        "exact": min(found[2].min() for found in pieces(net, low, high, label)),
        "crown": float(bounds.crown_margins(net, x, y, eps)[0, 1 - label]),
        "interval": float(bounds.interval_margins(net, x, y, eps)[0, 1 - label]),
    }


def draw() -> Figure:
    """Return the picture: the plane, the squares A and B, and a line of margins."""
    record = stored("plane")
    net, points = network(record), torch.tensor(record["points"], dtype=torch.float64)
    labels = [int(label) for label in record["labels"]]
    fig, axes = plt.subplots(2, 2, figsize=(7.6, 6.9), layout="constrained")
    _plane(axes[0, 0], net, points.numpy(), np.array(labels))
    for ax, (name, k) in zip((axes[0, 1], axes[1, 0]), record["shown"].items(),
                             strict=True):  # fmt: skip
        low = (points[k] - EPS).clamp(min=0)
        width, height = (points[k] + EPS).clamp(max=1) - low
        axes[0, 0].add_patch(Rectangle(low, width, height, fill=False, lw=2))
        axes[0, 0].text(*(low - 0.01), name, fontsize=12, weight="bold", ha="right",
                        bbox={"fc": "white", "pad": 1, "lw": 0})  # fmt: skip
        _square(ax, net, points[k], labels[k])
        ax.set_title(f"the square of {name}")
    held = {name: margins(net, points[k], labels[k], EPS)
            for name, k in record["shown"].items()}  # fmt: skip
    _line(axes[1, 1], held)
    return fig


def _ground(ax: Axes, found: list) -> None:
    """Draw polygons, the misread parts, and the decision boundary."""
    for corners, odd, margin in found:
        ax.add_patch(Polygon(corners, fc="#E4E6E9" if odd else "#F8F8F8",
                             ec=plot.COLORS["clean"], lw=0.6, ls="--"))  # fmt: skip
        if margin.min() < 0:
            plane = np.linalg.lstsq(np.c_[corners, np.ones(len(corners))], margin)[0]
            wrong = clip(corners, -plane[:2], -plane[2])
            if len(wrong) > 2:
                ax.add_patch(Polygon(wrong, fc=WRONG, lw=0, alpha=0.8))
            edge = clip(wrong, plane[:2], plane[2] + 1e-9)
            ax.plot(*edge.T, color="black", lw=1.6)
    corners = np.concatenate([part[0] for part in found])
    ax.set(xlim=(corners[:, 0].min(), corners[:, 0].max()), aspect="equal",
           ylim=(corners[:, 1].min(), corners[:, 1].max()))  # fmt: skip
    ax.grid(False)


def _plane(ax: Axes, net: nn.Module, points: np.ndarray, labels: np.ndarray) -> None:
    _ground(ax, pieces(net, torch.zeros(2), torch.ones(2), 1))
    for label, mark in ((0, "o"), (1, "s")):
        ax.plot(*points[labels == label].T, mark, ms=2.5, color="#555555")
    ax.set(title="the plane", xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])


def _square(ax: Axes, net: nn.Module, point: Tensor, label: int) -> None:
    low, high = (point - EPS).clamp(min=0), (point + EPS).clamp(max=1)
    found = pieces(net, low, high, label)
    _ground(ax, found)
    for corners, _, margin in found:
        if len(corners) > 2 and np.ptp(margin) > 1e-9:
            ax.tricontour(*corners.T, margin, levels=np.arange(-20, 21), linewidths=0.6,
                          colors="#777777", linestyles="-")  # fmt: skip
    for path in climb(net, point, label, EPS).transpose(0, 1).numpy():
        ax.plot(*path.T, "-", color=plot.METHODS["pgd"], lw=1.4)
        ax.plot(*path[0], "o", ms=4, color=plot.METHODS["pgd"])
        ax.plot(*path[-1], "v", ms=8, color=plot.METHODS["pgd"], mec="white",
                clip_on=False, zorder=5)  # fmt: skip
    corners, _, margin = min(found, key=lambda part: part[2].min())
    ax.plot(*corners[margin.argmin()], "*", ms=15, color=plot.COLORS["exact"],
            mec="white", clip_on=False, zorder=6)  # fmt: skip
    ax.plot(*point, "k+", ms=9)
    ax.margins(0)


def _line(ax: Axes, held: dict) -> None:
    """Draw the margins of each square on one line."""
    ax.axvline(0, color="black", lw=0.8)
    for height, row in zip((1, 0), held.values(), strict=True):
        ax.plot([row["interval"], row["exact"]], [height] * 2, lw=6, alpha=0.35,
                color=plot.COLORS["bound"])  # fmt: skip
        ax.plot(row["pgd"], [height + 0.16] * STARTS, "|", ms=9,
                color=plot.METHODS["pgd"])  # fmt: skip
        for method, size in (("interval", 8), ("crown", 8), ("pgd", 10), ("exact", 5)):
            value = row["pgd"].min() if method == "pgd" else row[method]
            ax.plot(value, height, ms=size, **plot.STYLES[method])
        if height:
            words = (("interval", "intervals", "center"), ("crown", "CROWN ", "right"),
                     ("exact", "exact and\nbest start", "left"))  # fmt: skip
            for method, word, side in words:
                at = 0.1 if side == "left" else row[method]  # clear of the line at 0
                ax.text(at, 0.87, word, ha=side, va="top", fontsize=8)
            ax.text(row["pgd"].max(), 1.3, f"ends of the\n{STARTS} starts", ha="center",
                    fontsize=8)  # fmt: skip
    ax.set(yticks=[1, 0], yticklabels=list(held), ylim=(-0.5, 1.8), xlim=(-7.2, None),
           xlabel="smallest margin (above 0: robust)", title="the margins")  # fmt: skip
