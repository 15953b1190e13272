"""Layers of the book's networks; some hide a gradient on purpose.

``Scale``, ``Quantise``, ``Noise`` and ``Ripple`` are what ``evaluation.masking_checks``
should see.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


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


class Residual(nn.Module):
    """Return ``body(x) + shortcut(x)``; without ``shortcut``, ``body(x) + x``.

    Both branches see the same ``x``, also if a layer in them works in place.
    """

    def __init__(
        self, body: nn.Sequential, shortcut: nn.Sequential | None = None
    ) -> None:
        super().__init__()
        self.body = body
        self.shortcut = nn.Sequential() if shortcut is None else shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of the two branches at ``x`` (N, ...)."""
        inside = any(getattr(layer, "inplace", False) for layer in self.modules())
        return self.body(x.clone() if inside else x) + self.shortcut(x)


class TwoLogits(nn.Module):
    """Return the logits (0, z) of a binary network that returns one logit z.

    ``model`` maps images (N, ...) to (N, 1) or (N,); class 1 is z > 0, so that a
    softmax of the two is the sigmoid of z. Everything here that means a class, a label
    or a margin asks for two logits or more.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Return the two logits (N, 2) at ``x``.

        Raises ``ValueError`` if the network returns anything but one logit an image.
        """
        z = self.model(x)
        if tuple(z.shape) not in ((len(x), 1), (len(x),)):
            raise ValueError(f"need one logit for each image, not {tuple(z.shape)}")
        z = z.reshape(-1, 1)
        return torch.cat([torch.zeros_like(z), z], 1)


class Scale(nn.Module):
    """Multiply by ``factor``: no verdict changes, but the cross-entropy saturates.

    Behind a network, ``factor`` 1000 makes every softmax 0 or 1 in float32, and its
    gradient zero. Before a sigmoid it makes the unit steep (see ``sharpened``). Input
    and output of any shape. Raises ``ValueError`` unless ``factor`` is positive.
    """

    def __init__(self, factor: float) -> None:
        super().__init__()
        if not 0 < factor < math.inf:
            raise ValueError(f"need a positive, finite factor, not {factor}")
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """Return ``factor * x``, shaped as ``x``."""
        return self.factor * x


class Quantise(nn.Module):
    """Round to ``levels`` equally spaced values of [0, 1]: the gradient is zero.

    Input and output of any shape. Raises ``ValueError`` unless ``levels`` is a whole
    number of at least 2.
    """

    def __init__(self, levels: int) -> None:
        super().__init__()
        if not (isinstance(levels, int) and levels >= 2):
            raise ValueError(f"need a whole number of levels >= 2, not {levels}")
        self.levels = levels

    def forward(self, x: Tensor) -> Tensor:
        """Return the nearest levels, shaped as ``x``."""
        return (x * (self.levels - 1)).round() / (self.levels - 1)


class Noise(nn.Module):
    """Add normal noise of standard deviation ``sigma`` at every call, in eval mode too.

    Drawn from torch's global random state. Input and output of any shape. Raises
    ``ValueError`` unless ``sigma`` is positive and finite.
    """

    def __init__(self, sigma: float) -> None:
        super().__init__()
        if not 0 < sigma < math.inf:
            raise ValueError(f"need a positive, finite sigma, not {sigma}")
        self.sigma = sigma

    def forward(self, x: Tensor) -> Tensor:
        """Return the noisy images, shaped as ``x``."""
        return x + self.sigma * torch.randn_like(x)


class Ripple(nn.Module):
    """Add waves of length 1 / ``waves`` to the pixels: hardly seen, but steep.

    x + height * sin(2 pi waves x) / (2 pi waves) is within height / (2 pi waves) of x.
    With ``height`` > 1 its slope, 1 + height cos(2 pi waves x), changes sign on each
    wave: right at multiples of 1 / ``waves``, wrong between them. 255 waves put the
    pixels of 8-bit images on the right slope and all small steps in the dark. Raises
    ``ValueError`` unless both are positive and finite.
    """

    def __init__(self, waves: float = 255.0, height: float = 2.0) -> None:
        super().__init__()
        if not (0 < waves < math.inf and 0 < height < math.inf):
            raise ValueError(f"need positive, finite waves and height: {waves, height}")
        self.pace, self.height = 2 * math.pi * waves, height

    def forward(self, x: Tensor) -> Tensor:
        """Return the rippled images, shaped as ``x``."""
        return x + self.height * (self.pace * x).sin() / self.pace


def check_only_layers(model: nn.Module) -> None:
    """Refuse a ``model`` that is not its layers one after the other: no cut is it.

    Raises ``TypeError`` for what is no ``Sequential``, and one with hooks or a forward
    of its own, which a slice or a new Sequential would lose or apply twice.
    """
    if not isinstance(model, nn.Sequential):
        raise TypeError(f"need a Sequential to cut, not {type(model).__name__}")
    hooked = model._forward_hooks or model._forward_pre_hooks
    own = type(model).forward is not nn.Sequential.forward or "forward" in vars(model)
    if own or hooked:
        raise TypeError("the model computes more than its layers: it cannot be cut")


def sharpened(model: nn.Sequential, factor: float) -> nn.Sequential:
    """Return ``model`` with ``factor`` times steeper sigmoids; its layers are shared.

    Large factors saturate the hidden units: these become switches, and the slopes that
    a gradient is made of vanish in float32. Eval mode. Raises ``ValueError`` for a
    model without a Sigmoid layer or a factor that ``Scale`` refuses, ``TypeError`` for
    one with hooks or a forward of its own, which the copy would not have.
    """
    check_only_layers(model)
    layers: list[nn.Module] = []
    for layer in model:
        if isinstance(layer, nn.Sigmoid):
            layers.append(Scale(factor))
        layers.append(layer)
    if len(layers) == len(model):
        raise ValueError("no Sigmoid layer to sharpen")
    return nn.Sequential(*layers).eval()
