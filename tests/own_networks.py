"""Thirty-three ordinary networks, of one kind of layer each, as a reader has them.

Small ones for images of 3 x 8 x 8, seeded, in eval mode.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from advlib.networks import models

SHAPE = (3, 8, 8)


def _seeded(build: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """Return ``build`` from seed 0, with statistics that are not 0 and 1."""

    def made() -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = build()
            for layer in model.modules():
                if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                    nn.init.normal_(layer.running_mean, std=0.3)
                    nn.init.uniform_(layer.running_var, 0.5, 2)
        return model.eval()

    return made


def _with(*layers: Callable[[], nn.Module], channels: int = 6, side: int = 8):
    """Return a network that begins with a convolution and has ``layers`` inside."""

    def build() -> nn.Module:
        first = nn.Conv2d(3, 6, 3, padding=1)
        last = nn.Flatten(), nn.Linear(channels * side * side, 5)
        return nn.Sequential(first, *(layer() for layer in layers), *last)

    return _seeded(build)


def _convolved(**options) -> Callable[[], nn.Module]:
    """Return a network with a second convolution of these ``options``."""
    kernel = options.pop("kernel", 3)
    with torch.random.fork_rng():
        with torch.no_grad():
            conv = nn.Conv2d(6, 6, kernel, **options)
            side = conv(torch.zeros(1, 6, 8, 8)).shape[-1]
    return _with(
        nn.ReLU, lambda: nn.Conv2d(6, 6, kernel, **options), nn.ReLU, side=side
    )


class Functional(nn.Module):
    """A forward of its own with a functional ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.first, self.second = nn.Linear(64, 16), nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.conv(x))
        x = torch.flatten(x, 1)
        return self.second(F.relu(self.first(x)))


class Block(nn.Module):
    """A residual block as textbooks write it, with ReLU in place."""

    def __init__(self, i: int, o: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(i, o, 3, stride=stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(o, o, 3, padding=1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(o), nn.BatchNorm2d(o)
        self.relu = nn.ReLU(inplace=True)
        self.down = None if i == o else nn.Conv2d(i, o, 1, stride=stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += x if self.down is None else self.down(x)
        return self.relu(out)


def _written() -> nn.Module:
    blocks = Block(6, 6, 1), Block(6, 8, 2)
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
    return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), *blocks, *head)


def _library() -> nn.Module:
    body = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.ReLU())
    last = nn.Flatten(), nn.Linear(384, 5)
    return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), models.Residual(body), *last)


def _dense(*layers: Callable[[], nn.Module], outputs: int = 5) -> Callable:
    """Return a network of two linear layers with ``layers`` between them."""

    def build() -> nn.Module:
        inner = [layer() for layer in layers]
        first, last = nn.Linear(192, 16), nn.Linear(16, outputs)
        return nn.Sequential(nn.Flatten(), first, *inner, last)

    return _seeded(build)


def _unflattened() -> nn.Module:
    first = nn.Flatten(), nn.Linear(192, 32), nn.Unflatten(1, (2, 4, 4))
    return nn.Sequential(*first, nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(),
                         nn.Linear(12, 5))  # fmt: skip


OWN: dict[str, Callable[[], nn.Module]] = {
    "MaxPool2d": _with(nn.ReLU, lambda: nn.MaxPool2d(2), side=4),
    "AdaptiveAvgPool2d": _with(nn.ReLU, lambda: nn.AdaptiveAvgPool2d(1), side=1),
    "AvgPool2d without padding": _with(
        nn.ReLU, lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False), side=4
    ),
    "LeakyReLU": _with(lambda: nn.LeakyReLU(0.1)),
    "ReLU6": _with(nn.ReLU6),
    "Hardtanh": _with(nn.Hardtanh),
    "PReLU": _with(lambda: nn.PReLU(6, 0.3)),
    "ELU": _with(nn.ELU),
    "Sigmoid": _with(nn.Sigmoid),
    "Tanh": _with(nn.Tanh),
    "GELU": _with(nn.GELU),
    "SiLU": _with(nn.SiLU),
    "GroupNorm": _with(lambda: nn.GroupNorm(2, 6), nn.ReLU),
    "InstanceNorm2d": _with(lambda: nn.InstanceNorm2d(6), nn.ReLU),
    "Dropout2d": _with(nn.ReLU, nn.Dropout2d),
    "Softmax": _seeded(lambda: nn.Sequential(_dense(nn.ReLU)(), nn.Softmax(1))),
    "ZeroPad2d": _with(lambda: nn.ZeroPad2d(1), nn.ReLU, side=10),
    "reflect": _convolved(padding=1, padding_mode="reflect"),
    "same": _convolved(padding="same", kernel=5),
    "dilation": _convolved(dilation=2),
    "Unflatten": _seeded(_unflattened),
    "own forward": _seeded(Functional),
    "own residual block": _seeded(_written),
    "cnn_shallow": _seeded(lambda: models.cnn_shallow(SHAPE, 5)),
    "cnn_deep": _seeded(lambda: models.cnn_deep(SHAPE, 5)),
    "residual_small": _seeded(lambda: models.residual_small(SHAPE, 5, width=4)),
    "strided and grouped": _convolved(stride=2, groups=3),
    "depthwise": _convolved(groups=6, padding=1),
    "BatchNorm2d": _with(lambda: nn.BatchNorm2d(6), nn.ReLU),
    "BatchNorm1d": _dense(lambda: nn.BatchNorm1d(16), nn.ReLU),
    "AvgPool2d": _with(nn.ReLU, lambda: nn.AvgPool2d(2), side=4),
    "Residual": _seeded(_library),
    "one logit": _dense(nn.ReLU, outputs=1),
}
