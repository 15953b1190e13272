"""The gate: the network that is bounded is the network that runs.

Bounds and proofs read weights. They speak of the network that runs only if it computes
nothing but its layers' own class ``forward`` with the parameters that are stored. So
two things stand before them: what could compute anything else is refused by name
(``refuse_hidden``), and the canonical form is compared with the model itself on images
(``compare``), whenever its parameters, buffers or layers are not those of the last
comparison.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules import module as globally
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from advlib._check import model_dtype, modules_of, tensors_of
from advlib.networks.layers import Normalize, Residual, TwoLogits

COMPARED = 100  # so many images of a batch are compared
ROUNDINGS = 30  # so many times the rounding that is to be expected is rounding

# what a subclass may define and still compute what its parent does
HARMLESS = {
    "__init__", "__doc__", "__module__", "__qualname__", "__annotations__",
    "__static_attributes__", "__firstlineno__", "__annotate__", "__annotate_func__",
    "__annotations_cache__", "__constants__", "__dict__", "__weakref__", "__slots__",
    "__orig_bases__", "__parameters__", "__abstractmethods__", "_abc_impl", "__repr__",
    "__type_params__", "__final__", "_get_name", "extra_repr", "reset_parameters",
    "train", "eval", "to", "state_dict", "load_state_dict", "_load_from_state_dict",
    "_save_to_state_dict", "get_extra_state", "set_extra_state", "_version",
    "__init_subclass__", "__class_getitem__", "__dir__", "__getstate__", "__setstate__",
    "__deepcopy__",
}  # fmt: skip
CALLS = frozenset({
    "forward", "_call_impl", "_wrapped_call_impl", "_slow_forward", "_conv_forward",
    "__call__",
})  # fmt: skip
PLACES = ("torch", "advlib.")  # modules where the methods of known layers are made

# what these classes compute: a program may replace a method of the class itself
KNOWN = (
    nn.Module, nn.Sequential, nn.Linear, nn.Conv2d, nn.ReLU, nn.Flatten, nn.BatchNorm1d,
    nn.BatchNorm2d, nn.AvgPool2d, nn.Dropout, nn.Identity, nn.Sigmoid, Normalize,
    Residual, TwoLogits,
)  # fmt: skip
_OWN = [
    (kind, c, getattr(kind, c)) for kind in KNOWN for c in CALLS if hasattr(kind, c)
]
# and what their forward calls
_OWN += [
    (F, name, getattr(F, name))
    for name in ("linear", "conv2d", "relu", "batch_norm", "avg_pool2d")
]
_FOREIGN = {own for *_, own in _OWN if not own.__module__.startswith(PLACES)}
PLAIN = (Tensor, nn.Parameter)  # all others may compute what they like

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


def refuse_hidden(model: nn.Module, *, coarse: bool = True) -> None:
    """Refuse a ``model`` that computes outside its layers' forward and parameters.

    Forward hooks and pre-hooks, on any module inside or global, ``forward`` set on an
    instance, weights remade before each call (the old ``weight_norm``,
    ``spectral_norm``, ``prune``), a method or function of torch's own replaced,
    tensors of a class of their own; with ``coarse`` also arithmetic coarser than
    float32's (``refuse_coarse``). Whether a layer's class has a forward of its own:
    ``is_kind``. Raises ``TypeError`` that names the module and the way out.
    """
    walked = modules_of(model)
    if coarse:
        refuse_coarse(walked)
    if globally._global_forward_hooks or globally._global_forward_pre_hooks:
        raise TypeError(
            "a global forward hook of torch may change what every layer returns, and "
            "bounds would not see it: remove it"
        )
    for kind, call, own in _OWN:
        if getattr(kind, call) is not own or own in _FOREIGN:
            name = kind.__name__.removeprefix("torch.nn.")
            raise TypeError(
                f"the program has replaced {name}.{call} by a function of its "
                "own, which bounds would not see: put the original back"
            )
    for layer in walked:
        _refuse_layer(model, layer)


def _refuse_layer(model: nn.Module, layer: nn.Module) -> None:
    """Refuse one ``layer`` of ``model``, the modules inside it not looked at."""
    if isinstance(layer, LazyModuleMixin) and layer.has_uninitialized_params():
        raise TypeError(
            f"{_place(model, layer)} has no weights yet: run the model once"
        )
    if isinstance(layer, torch.jit.ScriptModule):
        raise TypeError(
            f"{_place(model, layer)} is made by torch.jit: bounds read the network "
            "that it was made from"
        )
    if layer._forward_pre_hooks or layer._forward_hooks:
        raise TypeError(_hooked(model, layer))
    if hasattr(layer, "_orig_mod"):
        raise TypeError(
            f"{_place(model, layer)} is made by torch.compile: bounds read the "
            "network that was compiled, its _orig_mod"
        )
    if not CALLS.isdisjoint(vars(layer)):
        raise TypeError(
            f"{_place(model, layer)} has its own forward, set on the instance, "
            "which bounds would not see: delete it, or make it a layer"
        )
    for held in (layer._parameters, layer._buffers):
        for name, tensor in held.items():
            if tensor is not None:
                _refuse_tensor(model, layer, name, tensor)


def _refuse_tensor(
    model: nn.Module, layer: nn.Module, name: str, tensor: Tensor
) -> None:
    """Refuse a ``tensor`` of ``layer`` whose numbers are not simply there.

    A class of its own may stand for another device, from which plain numbers come.
    """
    if type(tensor) not in PLAIN and not brings_plain(tensor):
        why = f"is a {type(tensor).__name__}, whose sums may be its own"
    elif tensor.layout is not torch.strided or tensor.is_meta:
        why = f"is stored as {'meta' if tensor.is_meta else tensor.layout}"
    elif tensor.is_complex():
        why = "is complex"
    else:
        return
    raise TypeError(
        f"the {name} of {_place(model, layer)} {why}: bounds read plain, dense, "
        "real tensors"
    )


def brings_plain(tensor: Tensor) -> bool:
    """Whether ``tensor`` is on another device, and plain once it is brought from it."""
    return tensor.device.type != "cpu" and type(tensor.detach().cpu()) is Tensor


def refuse_backward_hooks(model: nn.Module) -> None:
    """Refuse a ``model`` whose gradients a hook may change: they are no slopes.

    Raises ``TypeError`` that names the module.
    """
    if globally._global_backward_hooks or globally._global_backward_pre_hooks:
        raise TypeError("a global backward hook may change all gradients: remove it")
    for layer in modules_of(model):
        if layer._backward_hooks or layer._backward_pre_hooks:
            raise TypeError(
                f"{_place(model, layer)} has a backward hook, which may change the "
                "gradients, so that they are no slopes: remove it"
            )


def refuse_coarse(layers: Iterable[nn.Module]) -> None:
    """Refuse ``layers`` whose sums, and those of bounds, are rounded coarsely.

    In ``torch.autocast``, in a dtype coarser than float32, or where a setting lets
    products of float32 be made of fewer bits (TF32, bfloat16). ``layers``: all modules
    of a network. Raises ``TypeError``.
    """
    if torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda"):
        raise TypeError(
            "inside torch.autocast sums are rounded to half precision, those of "
            "bounds, too: ask for bounds outside of it"
        )
    places = {(tensor.dtype, tensor.device.type) for tensor in tensors_of(layers)}
    floats = {dtype for dtype, _ in places if dtype.is_floating_point}
    coarse = sorted(str(d) for d in floats - {torch.float32, torch.float64})
    if coarse:
        raise TypeError(
            f"the weights are {coarse[0]}: bounds would be rounded as coarsely, and "
            "prove nothing; ask for those of a copy, copy.deepcopy(model).float()"
        )
    if torch.float32 in floats and not _structure_only.get():
        gpu = any(kind == "cuda" for _, kind in places)
        _refuse_few_bits(gpu and torch.cuda.is_available())


def _refuse_few_bits(cuda: bool) -> None:
    """Refuse settings by which products of float32 keep fewer than its 24 bits."""
    backends = torch.backends
    asked = [backends.mkldnn.matmul, backends.mkldnn.conv]
    if cuda:
        asked += [backends.cuda.matmul, backends.cudnn.conv]
    found = {getattr(one, "fp32_precision", "none") for one in asked}
    if found & {"tf32", "bf16"}:
        raise TypeError(
            f"products of float32 are set to {min(found & {'tf32', 'bf16'})}, of fewer "
            "bits: bounds would be rounded as coarsely; call "
            'torch.set_float32_matmul_precision("highest")'
            + (" and set torch.backends.cudnn.allow_tf32 = False" if cuda else "")
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
    walked = modules_of(model)
    layers = [(id(m), type(m), type(m).forward, m.training) for m in walked]
    tensors = tensors_of(walked)
    key = x.shape[1:], x.dtype, x.device, layers
    if any(tensor.is_inference() for tensor in tensors):  # these count no versions
        return key, None
    return key, [(id(t), t.data_ptr(), t._version) for t in tensors]


def compare(model: nn.Module, net: nn.Sequential, x: Tensor) -> None:
    """Refuse the canonical ``net`` unless it returns what ``model`` does at ``x``.

    ``x`` (N, ...), of which the first hundred are run, in the dtype of ``model``; the
    two may differ by rounding: thirty times what is to be expected. Nothing is
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
    own = model_dtype(model)
    with torch.no_grad():
        want = model(x.to(x.dtype if own is None else own, copy=True))
        if not isinstance(want, Tensor):
            raise ValueError(f"the model returns a {type(want).__name__}, no logits")
        y, unit = x.to(want.device).double(), torch.finfo(want.dtype).eps
        have, error = _evaluated(net, y, unit * y.abs(), unit)
    if want.shape != have.shape:
        raise ValueError(
            f"the model returns {tuple(want.shape)}, its layers {tuple(have.shape)}"
        )
    if not want.isfinite().all():
        raise ValueError("the logits hold NaN or infinity: look at the weights")
    gap = (want.double() - have).abs()
    far = gap > ROUNDINGS * error.nan_to_num(nan=torch.inf)
    if far.any():
        raise ValueError(
            f"the layers as bounds read them are not the network that runs: at image "
            f"{int(far.flatten(1).any(1).nonzero()[0])} of those given its outputs "
            f"differ by {float(gap[far].max()):.3g}, which no rounding explains"
        )


def _evaluated(
    net: nn.Sequential, value: Tensor, error: Tensor, unit: float
) -> tuple[Tensor, Tensor]:
    """Carry ``value`` through ``net`` in float64, and the ``error`` to be expected.

    From the weights alone, by no affine layer's own ``forward``: so one that was
    replaced differs. ``unit``: the rounding of the model's dtype. In each layer an
    error as large as if all roundings of its own sums had one sign; those that come in
    are carried on as independent ones, which grow as the values do. (All of one sign
    they would grow with the depth beyond any use.) Returns the output and its error.
    """
    for layer in net:
        if isinstance(layer, Residual):
            first, second = (
                _evaluated(branch, value, error, unit)
                for branch in (layer.body, layer.shortcut)
            )
            value = first[0] + second[0]
            error = torch.hypot(first[1], second[1]) + unit * value.abs()
        elif isinstance(layer, (nn.Linear, nn.Conv2d)):
            weight = layer.weight.double()
            bias = None if layer.bias is None else layer.bias.double()
            absolute = None if bias is None else bias.abs()
            terms = _affine(layer, value.abs(), weight.abs(), absolute)
            # scaled, so that no square leaves the range of float64
            tiny = torch.finfo(torch.float64).tiny
            most, top = (t.abs().amax().clamp(min=tiny) for t in (error, weight))
            square = _affine(layer, (error / most) ** 2, (weight / top) ** 2, None)
            error = most * top * square.clamp(min=0).sqrt() + unit * terms
            value = _affine(layer, value, weight, bias)
        elif isinstance(layer, nn.Flatten):
            ends = layer.start_dim, layer.end_dim
            value, error = value.flatten(*ends), error.flatten(*ends)
        elif isinstance(layer, nn.ReLU):
            error = torch.where(value > -ROUNDINGS * error, error, 0)
            value = value.clamp(min=0)
        else:  # a smooth activation, of which Lipschitz bounds know the slope
            value = layer(value)
    return value, error


def _affine(layer: nn.Module, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if isinstance(layer, nn.Linear):
        return F.linear(x, weight, bias)
    options = layer.stride, layer.padding, layer.dilation, layer.groups
    return F.conv2d(x, weight, bias, *options)
