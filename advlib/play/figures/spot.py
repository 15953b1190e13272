"""The shortest way to a target: the length of the change over the weight c."""

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from scipy.optimize import Bounds, minimize

from advlib import plot
from advlib.play.notes import from_note
from advlib.play.stored import images, stored

USES = ("network",)
NEEDS = ("standard", "digits")
DIGIT, TARGET = 2, 3
WEIGHTS = np.logspace(-3, 3, 13)


def solve(
    model: torch.nn.Module, x: torch.Tensor, target: int, c: float
) -> tuple[np.ndarray, float, int]:
    """Return the minimiser of c |delta|^2 + cross-entropy in the box, by L-BFGS-B.

    ``model`` in float64, ``x`` (1, C, H, W), the cross-entropy is that of ``target``:
    the changed image as a vector (d,), the value there, and what the model says.
    """
    start, wanted = x.numpy().ravel(), torch.tensor([target])

    def value(z: np.ndarray) -> tuple[float, np.ndarray]:
        point = torch.from_numpy(z).view_as(x).requires_grad_()
        loss = F.cross_entropy(model(point), wanted)
        (gradient,) = torch.autograd.grad(loss, point)
        r = z - start
        return c * float(r @ r) + loss.item(), 2 * c * r + gradient.numpy().ravel()

    found = minimize(value, start, method="L-BFGS-B", jac=True, bounds=Bounds(0, 1))
    said = model(torch.from_numpy(found.x).view_as(x)).argmax(1)
    return found.x, float(found.fun), int(said)


def draw() -> Figure:
    """Return the picture: RMS over c; the change and the image at three values."""
    model, x = from_note(stored("standard")), images("digits")[DIGIT : DIGIT + 1]
    found = [solve(model, x, TARGET, float(c)) for c in WEIGHTS]
    rms = np.array([np.sqrt(np.mean((z - x.numpy().ravel()) ** 2)) for z, *_ in found])
    hits = np.array([said == TARGET for *_, said in found])
    last = int(np.flatnonzero(hits).max())
    fig = plt.figure(figsize=(7.4, 3.2), layout="constrained")
    grid = fig.add_gridspec(2, 4, width_ratios=(3.4, 1, 1, 1))
    ax, color = fig.add_subplot(grid[:, 0]), plot.COLORS["attack"]
    ax.plot(WEIGHTS, rms, color=color, lw=1)
    ax.plot(WEIGHTS[hits], rms[hits], "o", color=color, label="target reached")
    ax.plot(WEIGHTS[~hits], rms[~hits], "o", color=color, mfc="white",
            label="not reached")  # fmt: skip
    ax.axvline(WEIGHTS[last], color="black", lw=0.8, ls=":")
    ax.set(xscale="log", xlabel="c, weight of the length", ylabel="RMS of the change")
    ax.legend(fontsize=9)
    for column, k in enumerate((0, last, last + 2)):
        z, _, said = found[k]
        delta = (z - x.numpy().ravel()).reshape(28, 28)
        above = fig.add_subplot(grid[0, 1 + column])
        plot.perturbation(above, delta, f"c = {WEIGHTS[k]:.2g}",
                          eps=np.abs(delta).max() / 1.4)  # fmt: skip
        below = fig.add_subplot(grid[1, 1 + column])
        plot.image(below, z.reshape(28, 28), f"says {said}")
    return fig
