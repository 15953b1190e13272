"""The canonical form: what every bound and every exact method works on.

A network as Flatten, Linear, Conv2d, ReLU and Residual only, and the same function.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from advlib._check import check_model, model_dtype, modules_of, tensors_of
from advlib.networks import gate
from advlib.networks.gate import is_kind
from advlib.networks.layers import Normalize, Residual, TwoLogits

DENSE = 50_000_000  # entries of the largest dense matrix that is made of a layer


def canonical(model: nn.Module, shape: Sequence[int]) -> nn.Sequential:
    """Return ``model`` as Flatten, Linear, Conv2d, ReLU and Residual only.

    The same function. ``shape``: one input of ``model`` without batch. Batch-norm is
    folded into the affine layer before it, average pooling and normalisation become
    convolutions, dropout (eval mode) vanishes; Linear and Conv2d layers are the model's
    own, so gradients reach them. Raises ``TypeError`` for any other layer or option
    and for what ``gate.refuse_hidden`` refuses, and ``ValueError`` for weights with NaN
    or infinity and an input that does not fit.
    """
    gate.refuse_hidden(model)  # before anything of it is read
    tensors = tensors_of(modules_of(model))
    own = model_dtype(model)
    like = next((t for t in tensors if t.dtype == own), torch.zeros(()))
    return _begin(model, shape, _Goal(like, True, model))


@dataclass(frozen=True)
class _Goal:
    """Weights get dtype and device of ``like``; with ``keep`` they stay the model's."""

    like: Tensor
    keep: bool
    model: nn.Module

    def to(self, tensor: Tensor) -> Tensor:
        """Return ``tensor`` as it is used."""
        return tensor if self.keep else tensor.detach().to(self.like)

    def refuse(self, layer: nn.Module, why: str) -> TypeError:
        """Return the error that names ``layer`` and says ``why``."""
        names = [name for name, m in self.model.named_modules() if m is layer]
        name = names[0] if names else ""
        where = f" {name!r}" if name else ""
        return TypeError(f"no bound rule for {type(layer).__name__}{where}: {why}")


def _begin(model: nn.Module, shape: Sequence[int], goal: _Goal) -> nn.Sequential:
    """The canonical form of a ``model`` that ``gate.refuse_hidden`` has let pass."""
    tensors = tensors_of(modules_of(model))
    if not all(math.isfinite(t.detach().sum().item()) for t in tensors):
        raise ValueError("the weights hold NaN or infinity, or are too large to add up")
    return _canonical(model, tuple(shape), goal)


def _canonical(model: nn.Module, shape: tuple[int, ...], goal: _Goal) -> nn.Sequential:
    layers: list[nn.Module] = []
    for layer in _flat(model, goal.like):
        layer = _canonical_layer(layer, shape, layers, goal)
        if layer is not None:
            layers.append(layer)
            shape = output_shape(layer, shape)
    return nn.Sequential(*layers).eval()


def _flat(model: nn.Module, like: Tensor) -> list[nn.Module]:
    """Return the layers of nested Sequentials, one after the other."""
    if is_kind(model, nn.Sequential):
        return [inner for layer in model for inner in _flat(layer, like)]
    if is_kind(model, TwoLogits):
        rows = like.new_tensor([[0.0], [1.0]])
        last = with_weights(nn.Linear(1, 2, device="meta"), rows, None)
        return [*_flat(model.model, like), last]
    return [model]


def _canonical_layer(
    layer: nn.Module, shape: tuple[int, ...], before: list[nn.Module], goal: _Goal
) -> nn.Module | None:
    """Return what stands for ``layer`` (None: nothing); may replace ``before[-1]``."""
    if is_kind(layer, nn.Identity, nn.Dropout):
        return None
    if is_kind(layer, nn.ReLU):
        return nn.ReLU()  # a fresh one: never in place, and each one counts
    if is_kind(layer, nn.Flatten) and _flattens_all(layer, shape):
        return nn.Flatten()
    if is_kind(layer, nn.Linear, nn.Conv2d):
        return _own(layer, goal)
    if is_kind(layer, Residual):
        branches = layer.body, layer.shortcut
        return Residual(*[_canonical(b, shape, goal) for b in branches]).eval()
    if is_kind(layer, Normalize):
        return _normalize(layer, shape, goal)
    if is_kind(layer, nn.AvgPool2d):
        return _pool(layer, shape[0], goal)
    if is_kind(layer, nn.BatchNorm1d, nn.BatchNorm2d):
        return _batch_norm(layer, shape, before, goal)
    raise goal.refuse(layer, _why(layer))


def _flattens_all(layer: nn.Flatten, shape: tuple[int, ...]) -> bool:
    """Whether ``layer`` makes one row of an input of ``shape`` (without batch)."""
    dims = len(shape) + 1
    ends = layer.start_dim % dims, layer.end_dim % dims
    return ends == (1, dims - 1)


KNOWN = (nn.Linear, nn.Conv2d, nn.ReLU, nn.Flatten, nn.Sequential, nn.Identity)
KNOWN += (nn.Dropout, nn.AvgPool2d, nn.BatchNorm1d, nn.BatchNorm2d, Normalize)
KNOWN += (Residual, TwoLogits)


def _why(layer: nn.Module) -> str:
    kind = next((k for k in KNOWN if isinstance(layer, k)), None)
    if kind is nn.Flatten:
        return "Flatten must make one row of each image: its dimensions 1 to -1"
    if kind is not None:
        return f"it is a {kind.__name__} that overrides what {kind.__name__} computes"
    rules = ", ".join(k.__name__ for k in KNOWN)
    return f"there are rules for {rules}; build the network of these, in a Sequential"


def _own(layer: nn.Linear | nn.Conv2d, goal: _Goal) -> nn.Module:
    """Return a Linear or Conv2d ``layer`` itself, or a copy in another dtype."""
    if isinstance(layer, nn.Conv2d):
        options = {
            f"padding={layer.padding!r}": isinstance(layer.padding, str),
            f"padding_mode={layer.padding_mode!r}": layer.padding_mode != "zeros",
            f"dilation={layer.dilation}": _pair(layer.dilation) != (1, 1),
        }
        odd = [option for option, is_odd in options.items() if is_odd]
        if odd:
            raise goal.refuse(layer, f"{odd[0]}; numbers, zeros and 1 have a rule")
    weight, bias = layer.weight, layer.bias
    if weight.numel() == 0:
        raise goal.refuse(layer, "it has no inputs or no outputs")
    if goal.keep and _says_its_shape(layer):
        return layer
    bias = None if bias is None else goal.to(bias)
    return with_weights(layer, goal.to(weight), bias)


def _says_its_shape(layer: nn.Linear | nn.Conv2d) -> bool:
    """Whether the attributes of ``layer`` are those of its weight, options in pairs.

    They are not after pruning by hand, or after ``layer.stride = 2``.
    """
    rows, columns = layer.weight.shape[:2]
    if isinstance(layer, nn.Linear):
        return layer.out_features == rows and layer.in_features == columns
    said = layer.out_channels, layer.in_channels, layer.kernel_size
    options = layer.stride, layer.padding, layer.dilation
    pairs = all(type(option) is tuple and len(option) == 2 for option in options)
    return pairs and said == (rows, columns * layer.groups, layer.weight.shape[2:])


def with_weights(layer: nn.Module, weight: Tensor, bias: Tensor | None) -> nn.Module:
    """Return a copy of a Linear or Conv2d ``layer`` with other ``weight``, ``bias``.

    These are kept as they are, so that gradients flow through them. The attributes that
    speak of the weight's shape are made anew, and options of a Conv2d are pairs.
    """
    kind = nn.Linear if isinstance(layer, nn.Linear) else nn.Conv2d
    other = kind.__new__(kind)  # not a copy: a parametrised weight is a property
    other.__dict__.update(vars(layer), _parameters={}, _modules={})
    other.__dict__.update(weight=weight, bias=bias)
    other.__dict__.pop("_compiled_call_impl", None)  # which would run the old layer
    rows, columns = weight.shape[:2]
    if kind is nn.Linear:
        other.__dict__.update(in_features=columns, out_features=rows)
        return other
    own = {"in_channels": columns * layer.groups, "out_channels": rows}
    own |= {"kernel_size": tuple(weight.shape[2:])}
    for option in ("stride", "padding", "dilation"):
        own[option] = _pair(getattr(layer, option))
    other.__dict__.update(own)
    return other


def _pair(option: str | int | Sequence[int] | None) -> object:
    """Return ``option`` of a convolution for both axes; a word and None as they are."""
    if option is None or isinstance(option, str):
        return option
    both = tuple(option) if isinstance(option, Sequence) else (option,)
    return both * 2 if len(both) == 1 else both


def _normalize(layer: Normalize, shape: tuple[int, ...], goal: _Goal) -> nn.Module:
    """Return ``layer`` as a convolution; one value may serve all channels."""
    mean, std = goal.to(layer.mean).flatten(), goal.to(layer.std).flatten()
    if not {len(mean), len(std)} <= {1, shape[0]}:
        raise goal.refuse(layer, f"its {len(mean)} means are not one for each channel")
    mean, std = mean.expand(shape[0]), std.expand(shape[0])
    _refuse_no_scale(layer, 1 / std, goal)
    return _channelwise(1 / std, -mean / std, goal.like)


def _refuse_no_scale(layer: nn.Module, scale: Tensor, goal: _Goal) -> None:
    """Refuse a division by zero or the root of a negative variance."""
    if not math.isfinite(scale.detach().sum().item()):
        message = str(goal.refuse(layer, "its standard deviation is zero, or none"))
        raise ValueError(message)


def _channelwise(scale: Tensor, shift: Tensor, like: Tensor) -> nn.Conv2d:
    c = len(scale)
    layer = nn.Conv2d(c, c, 1, groups=c, device="meta")
    return with_weights(layer, scale.view(c, 1, 1, 1).to(like), shift.to(like))


def _pool(layer: nn.AvgPool2d, c: int, goal: _Goal) -> nn.Conv2d:
    if layer.ceil_mode:
        raise goal.refuse(layer, "ceil_mode=True; without it there is a rule")
    kernel, stride, padding = map(
        _pair, (layer.kernel_size, layer.stride, layer.padding)
    )
    if padding != (0, 0) and not layer.count_include_pad:
        raise goal.refuse(layer, "padding needs count_include_pad=True")
    options = kernel, kernel if stride is None else stride, padding
    conv = nn.Conv2d(c, c, *options, groups=c, device="meta")
    divisor = layer.divisor_override or math.prod(conv.kernel_size)
    weight = torch.ones(c, 1, *conv.kernel_size).to(goal.like) / divisor
    return with_weights(conv, weight, None)


def _batch_norm(
    layer: nn.BatchNorm1d | nn.BatchNorm2d,
    shape: tuple[int, ...],
    before: list[nn.Module],
    goal: _Goal,
) -> nn.Module | None:
    """Fold ``layer`` into the affine layer before it, else make it a layer."""
    if layer.running_var is None or layer.running_mean is None:
        raise goal.refuse(layer, "it has no running statistics")
    scale = (goal.to(layer.running_var) + layer.eps).rsqrt()
    _refuse_no_scale(layer, scale, goal)
    scale = scale if layer.weight is None else scale * goal.to(layer.weight)
    shift = -goal.to(layer.running_mean) * scale
    shift = shift if layer.bias is None else shift + goal.to(layer.bias)
    last = before[-1] if before else None
    affine = isinstance(last, nn.Conv2d if len(shape) == 3 else nn.Linear)
    if affine and len(last.weight) == len(scale):
        weight = last.weight * scale.view(-1, *[1] * (last.weight.dim() - 1))
        bias = shift if last.bias is None else shift + scale * last.bias
        before[-1] = with_weights(last, weight, bias)
        return None
    if len(shape) != 3:
        raise goal.refuse(layer, "it follows no Linear layer")
    return _channelwise(scale, shift, goal.like)


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
    without batch. Detached. Raises ``TypeError`` for a layer that is not affine, and
    ``ValueError`` for a matrix of more than ``DENSE`` entries: ``networks.sparse`` has
    that of one layer without its zeros.
    """
    gate.refuse_hidden(layer)
    parts = _flat(layer, torch.zeros(()))
    wrong = [m for m in parts if not is_kind(m, nn.Flatten, nn.Linear, nn.Conv2d)]
    if wrong:
        kinds = "Flatten, Linear and Conv2d, in a plain Sequential"
        raise TypeError(f"{type(wrong[0]).__name__} is not affine: {kinds} are")
    like = next((m.weight for m in parts if hasattr(m, "weight")), torch.zeros(()))
    size = math.prod(shape)
    with torch.no_grad():
        zero = layer(torch.zeros(1, *shape).to(like)).flatten()
        entries = max(len(zero), size) * size
        if entries > DENSE and any(isinstance(m, nn.Conv2d) for m in parts):
            raise ValueError(
                f"a dense matrix of {entries} entries for a convolution is too large: "
                "networks.sparse.sparse_matrix leaves out its zeros"
            )
        unit = torch.eye(size).to(like).view(size, *shape)
        free = [_without_bias(part) for part in parts]
        columns = nn.Sequential(*free)(unit).flatten(1)
    return columns.T.contiguous(), zero


def _without_bias(layer: nn.Module) -> nn.Module:
    """Return ``layer`` with no bias: it maps zero to zero."""
    if getattr(layer, "bias", None) is None:
        return layer
    return with_weights(layer, layer.weight, None)


def canonical_double(
    model: nn.Module, shape: Sequence[int], x: Tensor | None = None
) -> nn.Sequential:
    """Return ``model``, for inputs of ``shape``, canonical, detached, float64, CPU.

    Compared with ``model`` at images ``x`` (N, *shape) if given; only without them may
    its own arithmetic be coarser than float32's. Raises what
    ``canonical`` and ``gate.compare`` raise.
    """
    check_model(model)
    gate.refuse_hidden(model, coarse=x is not None)
    like = torch.zeros((), dtype=torch.float64)
    net = _begin(model, shape, _Goal(like, False, model))
    if x is not None:
        gate.compare(model, net, x)
    return net
