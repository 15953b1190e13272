"""The canonical form: what every bound and every exact method works on.

A network as Flatten, Linear, Conv2d, ReLU and Residual only, and the same function.
"""

import math
from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

from advlib._check import check_model
from advlib.networks.layers import Normalize, Residual


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


def canonical_double(model: nn.Module, shape: Sequence[int]) -> nn.Sequential:
    """Return ``model``, for inputs of ``shape``, canonical, detached, float64, CPU."""
    check_model(model)
    copy = deepcopy(model).requires_grad_(False).double().cpu()
    return canonical(copy, shape)
