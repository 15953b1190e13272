"""Chapter 6b: a network on which a semidefinite bound is below the linear one."""

import numpy as np
import torch
from torch import nn

from advlib import bounds
from advlib.bounds import relaxations
from advlib.exercises.core import Exercise
from advlib.exercises.judging import NotYet, last_line, shaped

HALF = 0.5


def _target(z_hat: np.ndarray) -> np.ndarray:
    return 2 / 3 * z_hat - np.maximum(z_hat, 0)


def _margins(net: nn.Module, x: np.ndarray) -> np.ndarray:
    """Return z_0 - z_1 at the pixels ``x``."""
    images = torch.from_numpy(x).view(-1, 1, 1, 1)
    try:
        logits = net(images).detach()
    except Exception as error:
        raise NotYet(
            f"for images (N, 1, 1, 1) in float64 it raised {last_line(error)}"
        ) from error
    logits = torch.from_numpy(shaped(logits, (len(x), 2), "two logits an image"))
    return (logits[:, 0] - logits[:, 1]).numpy()


def _is(found: np.ndarray, wanted: np.ndarray) -> bool:
    gap = found - wanted
    return bool(np.abs(gap - gap.mean()).max() < 1e-6)  # equal up to a constant


def _check_margin(found: np.ndarray, x: np.ndarray) -> None:
    both = 3 * x - 1, 2 - 3 * x  # z_hat rises with the pixel, or falls
    if any(_is(found, _target(z)) for z in both):
        return
    if any(_is(-found, _target(z)) for z in both):
        raise NotYet(
            "the margin is z_0 - z_1: your two classes are the wrong way round"
        )
    if any(_is(found, 2 / 3 * z + np.maximum(z, 0)) for z in both):
        raise NotYet("the ReLU's sign: it is subtracted in the margin")
    if any(_is(found, -np.maximum(z, 0)) for z in both):
        raise NotYet("2/3 z_hat is missing: a unit that is always on can carry it")
    if any(_is(found, 2 / 3 * z) for z in both):
        raise NotYet("the margin has no ReLU in it: is your unit unstable?")
    rise = np.diff(found) / np.diff(x)
    if np.allclose(rise[[0, -1]], [2, -1]) or np.allclose(rise[[0, -1]], [1, -2]):
        raise NotYet(
            "the slopes are right, but z_hat is zero at another pixel: it must run "
            "from -1 to 2 as the pixel runs through [0, 1]"
        )
    raise NotYet(
        "the margin is not 2/3 z_hat - ReLU(z_hat) + const with z_hat from -1 to 2: "
        f"its slopes in the pixel are {rise[0]:.3g} on the left and {rise[-1]:.3g} on "
        "the right, where 1 and -2, or 2 and -1 are asked for"
    )


def _unstable(net: nn.Module, image: torch.Tensor) -> int:
    found = bounds.relu_bounds(net, *bounds.input_box(image, HALF))
    return sum(int(((low < 0) & (up > 0)).sum()) for low, up in found)


def _judge(answer: object, rng: np.random.Generator) -> str:
    if isinstance(answer, type) or not isinstance(answer, nn.Module):
        raise NotYet("hand in the network itself, an nn.Module")
    if any(p.dtype != torch.float64 for p in answer.parameters()):
        raise NotYet("the weights must be in float64: net.double()")
    x = np.sort(np.concatenate([[0.0, 1e-3, 0.999, 1.0], rng.random(40)]))
    _check_margin(_margins(answer, x), x)
    image = torch.full((1, 1, 1, 1), HALF, dtype=torch.float64)
    label = torch.tensor([0])
    try:
        count = _unstable(answer.eval(), image)
        lp = float(relaxations.lp_margins(answer, image, label, HALF)[0, 1])
        free = relaxations.sdp_margin(answer, image[0], 0, 1, HALF, triangle=False)
    except (TypeError, ValueError) as error:
        raise NotYet(f"the bounds cannot read it: {last_line(error)}") from error
    if count != 1:
        raise NotYet(f"it has {count} unstable units: one is asked for")
    if not free < lp - 1e-3:
        raise NotYet(
            f"without the triangle's rows the semidefinite bound is {free:.4f}, the "
            f"linear program's {lp:.4f}: it should be below"
        )
    return "one unstable unit, the margin asked for, and an SDP below the LP"


EXERCISES = [
    Exercise(
        "6b.5",
        "An SDP below the LP",
        "the network: one pixel in [0, 1], two classes, float64; the margin is that of "
        "class 0 against class 1",
        (
            "a unit that is always on, such as `z_hat + 2`, carries z_hat through "
            "the ReLU unharmed",
            "one hidden layer of two units: `z_hat = 3 x - 1` and `z_hat + 2`; the "
            "first logit is -1 times the first unit plus 2/3 times the second, the "
            "other logit 0",
        ),
        _judge,
    )
]
