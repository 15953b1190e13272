"""Small networks as plain ``nn.Sequential``; sizes follow the shape of an image.

``small``, ``dnn_2``, ``dnn_4`` and ``cnn`` have the layers of the networks in Kolter
and Madry's tutorial of 2018. All take images in [0, 1] and return logits. For the
bounds, ``canonical`` rewrites a network with four kinds of layer. ``Scale``,
``Quantise``, ``Noise`` and ``Ripple`` hide a network's gradient on purpose: what
``evaluation.masking_checks`` should see.
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


class Residual(nn.Module):
    """Return ``body(x) + shortcut(x)``; without ``shortcut``, ``body(x) + x``."""

    def __init__(
        self, body: nn.Sequential, shortcut: nn.Sequential | None = None
    ) -> None:
        super().__init__()
        self.body = body
        self.shortcut = nn.Sequential() if shortcut is None else shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of the two branches at ``x`` (N, ...)."""
        return self.body(x) + self.shortcut(x)


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


def sharpened(model: nn.Sequential, factor: float) -> nn.Sequential:
    """Return ``model`` with ``factor`` times steeper sigmoids; its layers are shared.

    Large factors saturate the hidden units: these become switches, and the slopes that
    a gradient is made of vanish in float32. Eval mode. Raises ``ValueError`` for a
    model without a Sigmoid layer or a factor that ``Scale`` refuses.
    """
    layers: list[nn.Module] = []
    for layer in model:
        if isinstance(layer, nn.Sigmoid):
            layers.append(Scale(factor))
        layers.append(layer)
    if len(layers) == len(model):
        raise ValueError("no Sigmoid layer to sharpen")
    return nn.Sequential(*layers).eval()


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


def canonical(model: nn.Module, shape: Sequence[int]) -> nn.Sequential:
    """Return ``model`` as Flatten, Linear, Conv2d, ReLU and Residual only.

    The same function. ``shape``: one input of ``model`` without batch. Batch-norm is
    folded into the affine layer before it, average pooling and normalisation become
    convolutions, dropout (eval mode) vanishes; Linear and Conv2d layers are the model's
    own, so gradients reach them. Raises ``TypeError`` for any other layer or option,
    and ``ValueError`` for weights with NaN or infinity and an input that does not fit.
    """
    if not all(p.sum().isfinite() for p in model.state_dict().values()):
        raise ValueError("the weights hold NaN or infinity, or are too large to add up")
    like = next(model.parameters(), next(model.buffers(), torch.zeros(())))
    return _canonical(model, tuple(shape), like)


def _canonical(model: nn.Module, shape: tuple[int, ...], like: Tensor) -> nn.Sequential:
    layers: list[nn.Module] = []
    for layer in _flat(model):
        layer = _canonical_layer(layer, shape, layers, like)
        if layer is not None:
            layers.append(layer)
            shape = output_shape(layer, shape)
    return nn.Sequential(*layers).eval()


def _is(layer: nn.Module, *kinds: type[nn.Module]) -> bool:
    """Whether ``layer`` computes what one of ``kinds`` does: no forward of its own."""
    return any(
        isinstance(layer, kind) and type(layer).forward is kind.forward
        for kind in kinds
    )


def _flat(model: nn.Module) -> list[nn.Module]:
    if _is(model, nn.Sequential):
        return [inner for layer in model for inner in _flat(layer)]
    return [model]


def _canonical_layer(
    layer: nn.Module, shape: tuple[int, ...], before: list[nn.Module], like: Tensor
) -> nn.Module | None:
    """Return what stands for ``layer`` (None: nothing); may replace ``before[-1]``.

    New weights get the dtype and the device of ``like``.
    """
    if _is(layer, nn.Identity, nn.Dropout):
        return None
    if _is(layer, nn.ReLU):
        return nn.ReLU()  # a fresh one: never in place, and each one counts
    if _is(layer, nn.Flatten) and (layer.start_dim, layer.end_dim) == (1, -1):
        return layer
    if _is(layer, nn.Linear) or (_is(layer, nn.Conv2d) and _plain(layer)):
        return layer
    if _is(layer, Residual):
        branches = layer.body, layer.shortcut
        return Residual(*[_canonical(b, shape, like) for b in branches]).eval()
    if _is(layer, Normalize):
        scale = (1 / layer.std).flatten()
        return _channelwise(scale, -layer.mean.flatten() * scale, like)
    if _is(layer, nn.AvgPool2d) and layer.ceil_mode is False:
        return _pool(layer, shape[0], like)
    if _is(layer, nn.BatchNorm1d, nn.BatchNorm2d):
        return _batch_norm(layer, shape, before, like)
    raise TypeError(f"no bound rule for {type(layer).__name__} with these options")


def with_weights(layer: nn.Module, weight: Tensor, bias: Tensor | None) -> nn.Module:
    """Return a copy of a Linear or Conv2d ``layer`` with other ``weight``, ``bias``.

    These are kept as they are, so that gradients flow through them.
    """
    kind = nn.Linear if isinstance(layer, nn.Linear) else nn.Conv2d
    other = kind.__new__(kind)  # not a copy: a parametrised weight is a property
    other.__dict__.update(vars(layer), _parameters={}, _modules={})
    other.__dict__.update(weight=weight, bias=bias)
    return other


def _plain(layer: nn.Conv2d) -> bool:
    numbers = not isinstance(layer.padding, str)
    return numbers and layer.padding_mode == "zeros" and layer.dilation == (1, 1)


def _channelwise(scale: Tensor, shift: Tensor, like: Tensor) -> nn.Conv2d:
    c = len(scale)
    layer = nn.Conv2d(c, c, 1, groups=c, device="meta")
    return with_weights(layer, scale.view(c, 1, 1, 1).to(like), shift.to(like))


def _pool(layer: nn.AvgPool2d, c: int, like: Tensor) -> nn.Conv2d:
    if layer.padding not in (0, (0, 0)) and not layer.count_include_pad:
        raise TypeError("no bound rule for AvgPool2d without count_include_pad")
    options = layer.kernel_size, layer.stride, layer.padding
    conv = nn.Conv2d(c, c, *options, groups=c, device="meta")
    divisor = layer.divisor_override or math.prod(conv.kernel_size)
    weight = torch.ones(c, 1, *conv.kernel_size).to(like) / divisor
    return with_weights(conv, weight, None)


def _batch_norm(
    layer: nn.BatchNorm1d | nn.BatchNorm2d,
    shape: tuple[int, ...],
    before: list[nn.Module],
    like: Tensor,
) -> nn.Module | None:
    """Fold ``layer`` into the affine layer before it, else make it a layer."""
    if layer.running_var is None:
        raise TypeError("no bound rule for batch-norm without running statistics")
    scale = (layer.running_var + layer.eps).rsqrt()
    scale = scale if layer.weight is None else scale * layer.weight
    shift = -layer.running_mean * scale
    shift = shift if layer.bias is None else shift + layer.bias
    last = before[-1] if before else None
    affine = isinstance(last, nn.Conv2d if len(shape) == 3 else nn.Linear)
    if affine and len(last.weight) == len(scale):
        weight = last.weight * scale.view(-1, *[1] * (last.weight.dim() - 1))
        bias = shift if last.bias is None else shift + scale * last.bias
        before[-1] = with_weights(last, weight, bias)
        return None
    if len(shape) != 3:
        raise TypeError("no bound rule for BatchNorm1d that follows no Linear layer")
    return _channelwise(scale, shift, like)


def output_shape(layer: nn.Module, shape: Sequence[int]) -> tuple[int, ...]:
    """Return the shape of one output of a canonical ``layer`` for an input ``shape``.

    Raises ``ValueError`` if the input does not fit, ``TypeError`` for another layer.
    """
    shape = tuple(shape)
    if isinstance(layer, nn.ReLU):
        return shape
    if isinstance(layer, nn.Flatten):
        return (math.prod(shape),)
    if isinstance(layer, nn.Linear) and shape == (layer.in_features,):
        return (layer.out_features,)
    if isinstance(layer, nn.Conv2d) and shape[:-2] == (layer.in_channels,):
        sides = zip(
            shape[1:], layer.padding, layer.kernel_size, layer.stride, strict=True
        )
        sides = [(n + 2 * p - k) // s + 1 for n, p, k, s in sides]
        if min(sides) > 0:
            return (layer.out_channels, *sides)
    if isinstance(layer, Residual):
        ends = []
        for branch in (layer.body, layer.shortcut):
            end = shape
            for inner in branch:
                end = output_shape(inner, end)
            ends.append(end)
        if ends[0] == ends[1]:
            return ends[0]
    if not isinstance(layer, (nn.Linear, nn.Conv2d, Residual)):
        raise TypeError(f"no shape rule for {type(layer).__name__}")
    raise ValueError(f"{type(layer).__name__} does not take inputs of {shape}")


def affine_matrix(layer: nn.Module, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return ``weight`` (out, in) and ``bias`` (out,) of an affine ``layer``, dense.

    ``layer``: Flatten, Linear, Conv2d or a Sequential of them; ``shape``: one input
    without batch. Detached. Raises ``TypeError`` for a layer that is not affine.
    """
    parts = _flat(layer)
    wrong = [m for m in parts if not isinstance(m, (nn.Flatten, nn.Linear, nn.Conv2d))]
    if wrong:
        raise TypeError(f"{type(wrong[0]).__name__} is not affine")
    like = next((m.weight for m in parts if hasattr(m, "weight")), torch.zeros(()))
    size = math.prod(shape)
    with torch.no_grad():
        zero = layer(torch.zeros(1, *shape).to(like)).flatten()
        unit = torch.eye(size).to(like).view(size, *shape)
        free = [_without_bias(part) for part in parts]
        columns = nn.Sequential(*free)(unit).flatten(1)
    return columns.T.contiguous(), zero


def _without_bias(layer: nn.Module) -> nn.Module:
    """Return ``layer`` with no bias: it maps zero to zero."""
    if getattr(layer, "bias", None) is None:
        return layer
    return with_weights(layer, layer.weight, None)
