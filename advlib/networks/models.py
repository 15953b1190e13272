"""Small networks as plain ``nn.Sequential``; sizes follow the shape of an image.

``small``, ``dnn_2``, ``dnn_4`` and ``cnn`` have the layers of the networks in Kolter
and Madry's tutorial of 2018. All take images in [0, 1] and return logits.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import nn

from advlib.networks.canonical import (
    affine_matrix,
    canonical,
    output_shape,
    with_weights,
)
from advlib.networks.layers import (
    Noise,
    Normalize,
    Quantise,
    Residual,
    Ripple,
    Scale,
    TwoLogits,
    sharpened,
)

# a network is asked for together with its layers and its canonical form
__all__ = [
    "Noise",
    "Normalize",
    "Quantise",
    "Residual",
    "Ripple",
    "Scale",
    "Shape",
    "TwoLogits",
    "ae_400",
    "affine_matrix",
    "canonical",
    "cnn",
    "cnn_deep",
    "cnn_shallow",
    "cnn_small",
    "dnn_2",
    "dnn_4",
    "fc_100_100",
    "fc_123_456",
    "fc_200_200",
    "linear",
    "mlp",
    "mlp_256",
    "num_parameters",
    "output_shape",
    "residual_small",
    "seeded",
    "sharpened",
    "small",
    "with_weights",
]

Shape = tuple[int, int, int]


def mlp(
    shape: Shape,
    hidden: Sequence[int],
    num_classes: int = 10,
    *,
    activation: Callable[[], nn.Module] = nn.ReLU,
) -> nn.Sequential:
    """Return Flatten, then Linear and activation for each hidden width, then Linear.

    ``shape`` (C, H, W) of one image, ``num_classes`` logits, ``activation`` makes the
    layer after each of the ``hidden`` ones. With none of these it is a linear model.
    """
    widths = [math.prod(shape), *hidden]
    layers: list[nn.Module] = [nn.Flatten()]
    for i, o in pairwise(widths):
        layers += [nn.Linear(i, o), activation()]
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


def mlp_256(shape: Shape, num_classes: int = 10) -> nn.Sequential:
    """Return 784-256-256-10 (on MNIST); arguments as ``mlp``."""
    return mlp(shape, [256, 256], num_classes)


def fc_100_100(shape: Shape, num_classes: int = 10) -> nn.Sequential:
    """Return 784-100-100-10 (on MNIST) with sigmoid units; arguments as ``mlp``.

    This and the next three are networks of Szegedy et al. 2013, arXiv:1312.6199.
    """
    return mlp(shape, [100, 100], num_classes, activation=nn.Sigmoid)


def fc_200_200(shape: Shape, num_classes: int = 10) -> nn.Sequential:
    """Return 784-200-200-10 (on MNIST), sigmoid units; arguments as ``mlp``."""
    return mlp(shape, [200, 200], num_classes, activation=nn.Sigmoid)


def fc_123_456(shape: Shape, num_classes: int = 10) -> nn.Sequential:
    """Return 784-123-456-10 (on MNIST), sigmoid units; arguments as ``mlp``."""
    return mlp(shape, [123, 456], num_classes, activation=nn.Sigmoid)


def ae_400(shape: Shape, num_classes: int = 10) -> nn.Sequential:
    """Return 784-400-10 (on MNIST), sigmoid units; arguments as ``mlp``.

    The recipe of ``zoo`` trains the hidden layer as the encoder of an autoencoder.
    """
    return mlp(shape, [400], num_classes, activation=nn.Sigmoid)


def cnn_small(shape: Shape, num_classes: int = 10) -> nn.Sequential:
    """Return conv16 and conv32 (4x4, stride 2), then 100 units; arguments as ``mlp``.

    The small network of the certified-training literature, cheap enough for sweeps.
    """
    c, h, w = shape
    h, w = h // 2 // 2, w // 2 // 2
    return nn.Sequential(
        nn.Conv2d(c, 16, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * h * w, 100),
        nn.ReLU(),
        nn.Linear(100, num_classes),
    )


def cnn_shallow(shape: Shape, num_classes: int = 10) -> nn.Sequential:
    """Return two convolutions with batch-norm, then 100 units; arguments as ``mlp``.

    The parameters behind the first layer have the same sizes for every ``shape``.
    """
    return _pooled([(shape[0], 32, 4, 2), (32, 32, 4, 2)], 4, num_classes)


def cnn_deep(shape: Shape, num_classes: int = 10) -> nn.Sequential:
    """Return four convolutions with batch-norm, then 100 units; arguments as ``mlp``.

    The parameters behind the first layer have the same sizes for every ``shape``.
    """
    convs = [(shape[0], 32, 3, 1), (32, 48, 3, 1), (48, 48, 3, 1), (48, 64, 3, 1)]
    return _pooled(convs, 2, num_classes)


def _pooled(
    convs: Sequence[tuple[int, int, int, int]], side: int, num_classes: int
) -> nn.Sequential:
    """Stack (in, out, kernel, stride) and pool to ``side`` x ``side``, then 100 units.

    Without stride, the first two convolutions are followed by a max-pooling. The
    memory layout of the weights makes training faster and changes nothing else.
    """
    layers: list[nn.Module] = []
    for position, (i, o, kernel, stride) in enumerate(convs):
        conv = nn.Conv2d(i, o, kernel, stride=stride, padding=1, bias=False)
        layers += [conv, nn.BatchNorm2d(o), nn.ReLU()]
        if stride == 1 and position < 2:
            layers.append(nn.MaxPool2d(2))
    layers += [nn.AdaptiveAvgPool2d(side), nn.Flatten()]
    layers += [nn.Linear(convs[-1][1] * side**2, 100), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(100, num_classes))
    return model.to(memory_format=torch.channels_last)


def residual_small(
    shape: Shape,
    num_classes: int = 10,
    *,
    activation: Callable[[], nn.Module] = nn.ReLU,
    width: int = 16,
) -> nn.Sequential:
    """Return a residual network: a stem with stride 2, two blocks, a linear layer.

    The blocks are pre-activated (batch-norm, ``activation``, convolution, twice),
    halve the side and have 2 and 4 times the ``width`` channels of the stem. Every
    ``activation()`` makes a new layer, so that it may have parameters. The memory
    layout of the weights makes training faster and changes nothing else. The other
    arguments as ``mlp``. He et al. 2016, arXiv:1603.05027.
    """
    stem = nn.Conv2d(shape[0], width, 3, stride=2, padding=1, bias=False)
    blocks = [_block(i, 2 * i, activation) for i in (width, 2 * width)]
    head = [nn.BatchNorm2d(4 * width), activation(), nn.AdaptiveAvgPool2d(1)]
    last = [nn.Flatten(), nn.Linear(4 * width, num_classes)]
    model = nn.Sequential(stem, *blocks, *head, *last)
    return model.to(memory_format=torch.channels_last)


def _block(i: int, o: int, activation: Callable[[], nn.Module]) -> Residual:
    """Return a pre-activated block with stride 2 from ``i`` to ``o`` channels."""
    body = nn.Sequential(
        nn.BatchNorm2d(i),
        activation(),
        nn.Conv2d(i, o, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(o),
        activation(),
        nn.Conv2d(o, o, 3, padding=1, bias=False),
    )
    return Residual(body, nn.Sequential(nn.Conv2d(i, o, 1, stride=2, bias=False)))


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
