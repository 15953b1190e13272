"""Chapter 10b: the circular norms of the convolutions of a network."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from advlib.exercises.core import Exercise
from advlib.exercises.judging import Case, Task, shaped

Array = np.ndarray
Shape = tuple[int, int, int]


def _convolutions(net: nn.Module) -> list[nn.Conv2d]:
    return [layer for layer in net if isinstance(layer, nn.Conv2d)]


def _after(layer: nn.Conv2d, shape: Shape) -> Shape:
    """The shape that leaves a convolution."""
    sides = [
        (n + 2 * p - k) // s + 1
        for n, k, s, p in zip(
            shape[1:], layer.kernel_size, layer.stride, layer.padding, strict=True
        )
    ]
    return layer.out_channels, sides[0], sides[1]


def _spectral(layer: nn.Conv2d, shape: Shape) -> float:
    """The norm on a torus of ``shape``: column by column, through a wrapped layer."""
    c, height, width = shape
    size = c * height * width
    images = torch.eye(size, dtype=torch.float64).view(size, c, height, width)
    k = layer.kernel_size
    wrapped = nn.functional.pad(images, (0, k[1] - 1, 0, k[0] - 1), mode="circular")
    columns = nn.functional.conv2d(
        wrapped, layer.weight.detach().double(), stride=layer.stride
    )
    return float(torch.linalg.matrix_norm(columns.flatten(1), 2))


def _norms(
    net: nn.Module,
    shape: Shape,
    *,
    follow: bool = True,
    of: Callable[[nn.Conv2d, Shape], float] = _spectral,
) -> Array:
    """Return a norm for each convolution; a keyword plants a mistake."""
    found, inside = [], shape
    for layer in _convolutions(net):
        here = inside if follow else (layer.in_channels, *shape[1:])
        found.append(of(layer, here))
        inside = _after(layer, inside)
    return np.array(found)


def _entries(layer: nn.Conv2d, shape: Shape) -> float:
    return float(layer.weight.detach().norm())


def _as_matrix(layer: nn.Conv2d, shape: Shape) -> float:
    return float(torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2))


def _padded(layer: nn.Conv2d, shape: Shape) -> float:
    """The norm of the layer itself, with zeros around the image."""
    c, height, width = shape
    size = c * height * width
    images = torch.eye(size, dtype=torch.float64).view(size, c, height, width)
    columns = nn.functional.conv2d(
        images, layer.weight.detach(), stride=layer.stride, padding=layer.padding
    )
    return float(torch.linalg.matrix_norm(columns.flatten(1), 2))


def _product(net: nn.Module, shape: Shape) -> Array:
    return np.cumprod(_norms(net, shape))


def _squared(net: nn.Module, shape: Shape) -> Array:
    return _norms(net, shape) ** 2


def _read(value: object, case: Case) -> Array:
    count = len(_convolutions(case[0]))
    if isinstance(value, dict):
        value = list(value.values())
    if count == 1 and isinstance(value, float):
        value = [value]
    return shaped(value, (count,), "one norm for each convolution")


NORMS = Task(
    "(net, shape)",
    truth=_norms,
    read=_read,
    mistakes={
        "the second convolution does not see the image: its torus has the shape that "
        "leaves the layer before": partial(_norms, follow=False),
        "this is the length of all weights (Frobenius), not an operator norm": partial(
            _norms, of=_entries
        ),
        "this is the norm of the kernel as a matrix: a pixel is met by several "
        "kernels": partial(_norms, of=_as_matrix),
        "this is the norm of the layer itself, with zeros around: on a torus there "
        "is no edge": partial(_norms, of=_padded),
        "a product of the norms: one for each layer is asked for": _product,
        "this is the square of the norm: take the root": _squared,
    },
    tolerance=1e-4,
)


def _network(rng: np.random.Generator, channels: tuple[int, ...], k: int) -> nn.Module:
    """Convolutions, each of which halves the sides, with ReLUs between."""
    layers: list[nn.Module] = []
    for i, o in pairwise(channels):
        layer = nn.Conv2d(i, o, k, stride=2, padding=(k - 1) // 2).double()
        weight = rng.standard_normal(tuple(layer.weight.shape)) / k
        layer.weight.data = torch.from_numpy(weight)
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers).eval().requires_grad_(False)


def _judge(answer: object, rng: np.random.Generator) -> str:
    cases = [
        (_network(rng, (1, 2), 4), (1, 8, 8)),
        (_network(rng, (1, 3, 2), 4), (1, 8, 8)),
        (_network(rng, (2, 3, 4), 4), (2, 16, 8)),
    ]
    NORMS.judge(answer, cases)
    return "the norm of each convolution, on three small networks"


EXERCISES = [
    Exercise(
        "10b.7",
        "Norms at the start and after training",
        "a function of (net, shape), a Sequential of convolutions and ReLUs and the "
        "shape of an image, that returns the circular norm of each convolution",
        (
            "the torus of a convolution has the shape of *its* input; "
            "`models.output_shape(layer, shape)` follows the shape through a layer",
            "go through the layers; at each `nn.Conv2d` note "
            "`lipschitz.circular_norm(layer, shape)`, then replace shape by "
            "`models.output_shape(layer, shape)`",
        ),
        _judge,
    )
]
