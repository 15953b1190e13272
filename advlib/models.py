"""Small networks as plain ``nn.Sequential``; sizes follow the shape of an image.

``small``, ``dnn_2``, ``dnn_4`` and ``cnn`` have the layers of the networks in Kolter
and Madry's tutorial of 2018. All take images in [0, 1] and return logits.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

Shape = tuple[int, int, int]


class Normalize(nn.Module):
    """Subtract ``mean`` and divide by ``std``, one value per channel.

    A layer, not a transform of the data: so perturbations live in pixel units. Input
    and output (N, C, H, W). Raises ``ValueError`` unless every ``std`` is positive.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std) or not all(s > 0 for s in std):
            raise ValueError("need one positive std for every mean")
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised images, shaped as ``x``."""
        return (x - self.mean) / self.std


def mlp(shape: Shape, hidden: Sequence[int], num_classes: int = 10) -> nn.Sequential:
    """Return Flatten, then Linear and ReLU for each hidden width, then Linear.

    ``shape`` (C, H, W) of one image, ``num_classes`` logits. With ``hidden`` empty it
    is a linear model.
    """
    widths = [math.prod(shape), *hidden]
    layers: list[nn.Module] = [nn.Flatten()]
    for i, o in pairwise(widths):
        layers += [nn.Linear(i, o), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], num_classes))


def linear(shape: Shape, num_classes: int = 10) -> nn.Sequential:
    """Return softmax regression, Flatten and one Linear; arguments as ``mlp``."""
    return mlp(shape, [], num_classes)


def small(shape: Shape, num_classes: int = 10) -> nn.Sequential:
    """Return 784-50-20-10 (on MNIST), for exact methods; arguments as ``mlp``."""
    return mlp(shape, [50, 20], num_classes)


def dnn_2(shape: Shape, num_classes: int = 10) -> nn.Sequential:
    """Return the two-layer network 784-200-10 (on MNIST); arguments as ``mlp``."""
    return mlp(shape, [200], num_classes)


def dnn_4(shape: Shape, num_classes: int = 10) -> nn.Sequential:
    """Return 784-200-100-100-10 (on MNIST), four layers; arguments as ``mlp``."""
    return mlp(shape, [200, 100, 100], num_classes)


def cnn(shape: Shape, num_classes: int = 10) -> nn.Sequential:
    """Return four 3x3 convolutions, then 100 units; arguments as ``mlp``."""
    c, h, w = shape
    layers: list[nn.Module] = []
    for i, o, stride in [(c, 32, 1), (32, 32, 2), (32, 64, 1), (64, 64, 2)]:
        layers += [nn.Conv2d(i, o, 3, padding=1, stride=stride), nn.ReLU()]
        h, w = -(-h // stride), -(-w // stride)
    head = [nn.Flatten(), nn.Linear(64 * h * w, 100), nn.ReLU()]
    return nn.Sequential(*layers, *head, nn.Linear(100, num_classes))


def seeded(build: Callable[..., nn.Module], *args, seed: int, **kwargs) -> nn.Module:
    """Return ``build(*args, **kwargs)`` initialised from ``seed``, in eval mode.

    The global random state is the same before and after.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build(*args, **kwargs).eval()


def num_parameters(model: nn.Module) -> int:
    """Return the number of trainable parameters of ``model``."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
