"""The gate: the network that is bounded is the network that runs.

Bounds and proofs read weights. They speak of the network that runs only if it computes
nothing but its layers' own class ``forward`` with the parameters that are stored. So
two things stand before them: what could compute anything else is refused by name
(``refuse_hidden``), and the canonical form is compared with the model itself on images
(``compare``), whenever its parameters, buffers or layers are not those of the last
comparison.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules import module as globally
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from advlib._check import model_dtype
from advlib.networks.layers import Normalize, Residual, TwoLogits

COMPARED = 100  # so many images of a batch are compared
ROUNDINGS = 100  # units in the last place of the absolute terms that are rounding

# what a subclass may define and still compute what its parent does
HARMLESS = {
    "__init__", "__doc__", "__module__", "__qualname__", "__annotations__",
    "__static_attributes__", "__firstlineno__", "__annotate__", "__annotate_func__",
    "__annotations_cache__", "__constants__", "__dict__", "__weakref__", "__slots__",
    "__orig_bases__", "__parameters__", "__abstractmethods__", "_abc_impl", "__repr__",
    "__type_params__", "__final__", "_get_name", "extra_repr", "reset_parameters",
    "train", "eval", "to", "state_dict", "load_state_dict", "_load_from_state_dict",
    "_save_to_state_dict", "get_extra_state", "set_extra_state", "_version",
    "__init_subclass__", "__class_getitem__", "__dir__",
}  # fmt: skip
CALLS = ("forward", "_call_impl", "_wrapped_call_impl", "_slow_forward")
CALLS += ("_conv_forward", "__call__")
PLACES = ("torch.nn.", "advlib.")  # modules where the methods of known layers are made

# what these classes compute: a program may replace a method of the class itself
KNOWN = (
    nn.Module, nn.Sequential, nn.Linear, nn.Conv2d, nn.ReLU, nn.Flatten, nn.BatchNorm1d,
    nn.BatchNorm2d, nn.AvgPool2d, nn.Dropout, nn.Identity, nn.Sigmoid, Normalize,
    Residual, TwoLogits,
)  # fmt: skip
_OWN = [
    (kind, c, getattr(kind, c))
    for kind in KNOWN
    for c in CALLS
    if hasattr(kind, c) and c != "_conv_forward"  # which the comparison sees
]

# what remakes a weight before each call, and what makes it permanent
REMAKERS = {
    WeightNorm: "nn.utils.remove_weight_norm(layer)",
    SpectralNorm: "nn.utils.remove_spectral_norm(layer)",
    BasePruningMethod: "nn.utils.prune.remove(layer, name)",
}


def is_kind(layer: nn.Module, *kinds: type[nn.Module]) -> bool:
    """Whether ``layer`` computes what one of ``kinds`` does: nothing of its own.

    A subclass may add methods and its own ``__init__``, but override nothing that is
    called on the way, ``weight`` and options included. A parametrised layer
    (``nn.utils.parametrizations``) is of its original kind.
    """
    return type(layer) in kinds or any(
        isinstance(layer, kind) and _adds_nothing(layer, kind) for kind in kinds
    )


def _adds_nothing(layer: nn.Module, kind: type[nn.Module]) -> bool:
    classes = type(layer).__mro__[: type(layer).__mro__.index(kind)]
    if classes and parametrize.is_parametrized(layer):
        classes = classes[1:]  # made by torch, around the weights alone
    return not any(_overrides(one, kind) for one in classes)


def _overrides(subclass: type, kind: type[nn.Module]) -> bool:
    own = set(vars(subclass)) - HARMLESS
    annotated = {"weight", "bias"}.union(
        *(vars(base).get("__annotations__", ()) for base in kind.__mro__)
    )
    return any(hasattr(kind, name) or name in annotated for name in own)


def flat_layers(model: nn.Module) -> list[nn.Module]:
    """Return the layers of ``model``, those of nested Sequentials in their place."""
    if not is_kind(model, nn.Sequential):
        return [model]
    return [part for layer in model for part in flat_layers(layer)]


def _walk(model: nn.Module) -> list[nn.Module]:
    """Return ``model`` and all modules inside, a shared one as often as it occurs."""
    found, waiting = [], [model]
    while waiting:
        layer = waiting.pop()
        found.append(layer)
        waiting.extend(inner for inner in layer._modules.values() if inner is not None)
    return found


def refuse_hidden(model: nn.Module) -> None:
    """Refuse a ``model`` that computes outside its layers' forward and parameters.

    Forward hooks and pre-hooks, on any module inside or global, ``forward`` set on an
    instance, weights remade before each call (the old ``weight_norm``,
    ``spectral_norm``, ``prune``), a method of torch's own classes replaced; and the
    lower precision of ``torch.autocast``, in which bounds would round, too. Whether a
    layer's class has a forward of its own: ``is_kind``. Raises ``TypeError`` that names
    the module and the way out.
    """
    if any(torch.is_autocast_enabled(device) for device in ("cpu", "cuda")):
        raise TypeError(
            "inside torch.autocast sums are rounded to half precision, those of "
            "bounds, too: ask for bounds outside of it"
        )
    if globally._global_forward_hooks or globally._global_forward_pre_hooks:
        raise TypeError(
            "a global forward hook of torch may change what every layer returns, and "
            "bounds would not see it: remove it"
        )
    for kind, call, own in _OWN:
        if getattr(kind, call) is not own or not own.__module__.startswith(PLACES):
            raise TypeError(
                f"the program has replaced {kind.__name__}.{call} by a function of its "
                "own, which bounds would not see: put the original back"
            )
    for layer in _walk(model):
        if layer._forward_pre_hooks or layer._forward_hooks:
            raise TypeError(_hooked(model, layer))
        if hasattr(layer, "_orig_mod"):
            raise TypeError(
                f"{_place(model, layer)} is made by torch.compile: bounds read the "
                "network that was compiled, its _orig_mod"
            )
        if any(call in vars(layer) for call in CALLS):
            raise TypeError(
                f"{_place(model, layer)} has its own forward, set on the instance, "
                "which bounds would not see: delete it, or make it a layer"
            )


def _place(model: nn.Module, layer: nn.Module) -> str:
    """Return how to name ``layer`` of ``model`` in an error."""
    name = next(name for name, inner in model.named_modules() if inner is layer)
    return f"{type(layer).__name__} {name!r}" if name else "the model itself"


def _hooked(model: nn.Module, layer: nn.Module) -> str:
    """Return what is wrong with a ``layer`` of ``model`` that has a hook."""
    where = _place(model, layer)
    for hook in layer._forward_pre_hooks.values():
        for kind, way in REMAKERS.items():
            if isinstance(hook, kind):
                return (
                    f"{where}: {type(hook).__name__} remakes its weight before each "
                    f"call; make the weight permanent with {way}, or use "
                    "nn.utils.parametrizations"
                )
    return (
        f"{where} has a forward hook, which may change what it returns, and bounds "
        "would not see it: remove the hook, or make it a layer"
    )


# -------------------------------------------------------------- the comparison

_seen: WeakKeyDictionary[nn.Module, tuple] = WeakKeyDictionary()
_structure_only: ContextVar[bool] = ContextVar("structure_only", default=False)


@contextmanager
def compared_once() -> Iterator[None]:
    """Within it, new values of known parameters ask for no new comparison.

    For losses, whose parameters change at every step: the same layers, hooks and shape
    are compared once a training.
    """
    token = _structure_only.set(True)
    try:
        yield
    finally:
        _structure_only.reset(token)


def _fingerprint(model: nn.Module, x: Tensor) -> tuple[tuple, list | None]:
    """Return layers and shape, and the versions of all tensors, or None if unknown."""
    walked = _walk(model)
    layers = [(id(m), type(m), type(m).forward, m.training) for m in walked]
    tensors = [
        tensor
        for layer in walked
        for tensor in (*layer._parameters.values(), *layer._buffers.values())
        if tensor is not None
    ]
    key = x.shape[1:], x.dtype, x.device, layers
    if any(tensor.is_inference() for tensor in tensors):  # these count no versions
        return key, None
    return key, [(id(t), t.data_ptr(), t._version) for t in tensors]


def compare(model: nn.Module, net: nn.Sequential, x: Tensor) -> None:
    """Refuse the canonical ``net`` unless it returns what ``model`` does at ``x``.

    ``x`` (N, ...), of which the first hundred are run, in the dtype of ``model``; the
    two may differ by rounding, measured by the absolute terms of all sums. Nothing is
    run if the parameters, buffers, layers and shape are those of the last comparison.
    Raises ``ValueError`` for a difference, and for logits with NaN or infinity.
    """
    layers, versions = _fingerprint(model, x)
    last = _seen.get(model)
    if versions is not None and last is not None and last[0] == layers:
        if last[1] == versions or _structure_only.get():
            return
    if len(x) == 0 or not x.isfinite().all():  # corners of a box may be infinite
        return
    _compare(model, net, x.detach()[:COMPARED])
    _seen[model] = layers, versions


def _compare(model: nn.Module, net: nn.Sequential, x: Tensor) -> None:
    inner, own = _weights(net), model_dtype(model)
    like = inner[0] if inner else x
    with torch.no_grad():
        want = model(x.to(x.dtype if own is None else own, copy=True))
        y = x.to(like)
        have, size = _evaluated(net, y, y.abs())
    if not isinstance(want, Tensor) or want.shape != have.shape:
        shape = tuple(want.shape) if isinstance(want, Tensor) else type(want).__name__
        raise ValueError(f"the model returns {shape}, its layers {tuple(have.shape)}")
    if not want.isfinite().all():
        raise ValueError("the logits hold NaN or infinity: look at the weights")
    coarse = max(torch.finfo(t.dtype).eps for t in (want, have))
    gap = (want.to(have) - have).abs()
    far = gap > ROUNDINGS * coarse * size
    if far.any():
        raise ValueError(
            f"the layers as bounds read them are not the network that runs: at image "
            f"{int(far.flatten(1).any(1).nonzero()[0])} of those given its outputs "
            f"differ by {float(gap[far].max()):.3g}, which no rounding explains"
        )


def _weights(net: nn.Module) -> list[Tensor]:
    layers = [m for m in net.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    return [layer.weight for layer in layers]


def _evaluated(
    net: nn.Sequential, value: Tensor, size: Tensor
) -> tuple[Tensor, Tensor]:
    """Carry a ``value`` and its absolute terms through ``net``, from the weights alone.

    By no affine layer's own ``forward``: so one that was replaced differs.
    Returns the output, and the sum of the absolute terms of each of its entries.
    """
    for layer in net:
        if isinstance(layer, Residual):
            first, second = (
                _evaluated(branch, value, size)
                for branch in (layer.body, layer.shortcut)
            )
            value, size = first[0] + second[0], first[1] + second[1]
        elif isinstance(layer, (nn.Linear, nn.Conv2d)):
            absolute = None if layer.bias is None else layer.bias.abs()
            value = _affine(layer, value, layer.weight, layer.bias)
            size = _affine(layer, size, layer.weight.abs(), absolute)
        elif isinstance(layer, nn.Flatten):
            ends = layer.start_dim, layer.end_dim
            value, size = value.flatten(*ends), size.flatten(*ends)
        elif isinstance(layer, nn.ReLU):
            value = value.clamp(min=0)
        else:  # a smooth activation, of which Lipschitz bounds know the slope
            value = layer(value)
    return value, size


def _affine(layer: nn.Module, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if isinstance(layer, nn.Linear):
        return F.linear(x, weight, bias)
    options = layer.stride, layer.padding, layer.dilation, layer.groups
    return F.conv2d(x, weight, bias, *options)
