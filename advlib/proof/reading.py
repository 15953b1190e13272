"""What the checker reads: the stored numbers of layers whose function it knows.

Each layer is read by its class and its attributes, in NumPy. No layer is ever run, and
nothing here is shared with what proposes a certificate. Whatever a network computes
beside these classes' own forward and their stored numbers cannot be read, and is
refused: hooks, a forward of its own, weights that a hook makes anew at every call.
"""

import math
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules import module as of_all_modules
from torch.nn.utils import parametrize

from advlib.proof.arithmetic import Exact, as_array

MOST_ENTRIES = 2**24  # of a convolution's matrix: 128 MiB for the pointers alone

_DROPOUT = (
    nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d,
    nn.AlphaDropout, nn.FeatureAlphaDropout,
)  # fmt: skip
_KNOWN = (nn.Sequential, nn.Identity, nn.Flatten, nn.ReLU, nn.Linear, nn.Conv2d)
_FORWARD = {kind: kind.forward for kind in (*_KNOWN, *_DROPOUT)}
_CALLED = [  # on the way to and in a forward
    (kind, name, getattr(kind, name))
    for kind in (nn.Module, *_KNOWN)
    for name in ("__call__", "_call_impl", "_wrapped_call_impl", "_conv_forward")
    if hasattr(kind, name)
] + [(F, name, getattr(F, name)) for name in ("linear", "conv2d", "relu")]
_READ = {
    "weight", "bias", "stride", "padding", "dilation", "groups", "padding_mode",
    "start_dim", "end_dim", "training",
}  # fmt: skip
_HARMLESS = {  # what a class may define and still compute what its parent does
    "__init__", "__doc__", "__module__", "__qualname__", "__dict__", "__weakref__",
    "__annotations__", "__annotate__", "__annotate_func__", "__annotations_cache__",
    "__constants__", "__slots__", "__orig_bases__", "__parameters__", "__type_params__",
    "__firstlineno__", "__static_attributes__", "__repr__", "extra_repr", "_get_name",
    "_version", "reset_parameters", "train", "eval", "to", "state_dict",
    "load_state_dict", "_load_from_state_dict", "_save_to_state_dict",
    "get_extra_state", "set_extra_state", "__getstate__", "__setstate__",
    "__deepcopy__",
}  # fmt: skip
_TWO_LOGITS = "advlib.networks.layers", "TwoLogits"  # by name: nothing is imported
_REMOVERS = {
    "WeightNorm": "torch.nn.utils.remove_weight_norm",
    "SpectralNorm": "torch.nn.utils.remove_spectral_norm",
    "BasePruningMethod": "torch.nn.utils.prune.remove",
}


@dataclass(frozen=True)
class Layer:
    """One layer as it was read: ``kind`` is "Linear", "Conv2d", "ReLU" or "Flatten".

    ``inputs``, ``outputs``: the shape of one input and of one output. ``weight`` and
    ``bias`` (zeros if there is none): the stored numbers; ``dtype``: the weight's.
    ``places``: of a convolution, per axis (out, kernel), the pixel of the input that
    each entry of the kernel meets (outside: a padded zero). ``groups``: its groups.
    """

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    weight: np.ndarray | None = None
    bias: np.ndarray | None = None
    dtype: torch.dtype | None = None
    places: tuple[np.ndarray, ...] = ()
    groups: int = 1

    def matrix(self) -> tuple[Exact, Exact]:
        """Return the matrix (out, in) and the bias (out,) of an affine layer, exact.

        Raises ``RejectedError`` for NaN and infinity, and ``ValueError`` for a
        convolution whose matrix has more than ``MOST_ENTRIES`` entries.
        """
        weight, bias = Exact.of(self.weight), Exact.of(self.bias)
        if self.kind == "Linear":
            return weight, bias
        sites = math.prod(self.outputs[1:])
        size = len(bias.ints) * sites, math.prod(self.inputs)
        if size[0] * size[1] > MOST_ENTRIES:
            raise ValueError(
                f"a convolution from {self.inputs} to {self.outputs} is a matrix of "
                f"{size[0]} x {size[1]}, too large for the exact check, which takes "
                f"{MOST_ENTRIES} entries: use smaller images or fewer channels"
            )
        ints = _gathered(self, weight.ints).reshape(size)
        return Exact(ints, weight.shift), bias[
            np.repeat(np.arange(size[0] // sites), sites)
        ]


def _gathered(layer: Layer, kernel: np.ndarray) -> np.ndarray:
    """Return the convolution as (channels out, sites out, channels in, pixels in)."""
    rows, columns = layer.places
    height, width = layer.inputs[1:]
    inside = ((rows >= 0) & (rows < height))[:, None, :, None]
    inside = inside & ((columns >= 0) & (columns < width))[None, :, None, :]
    top, left, i, j = np.nonzero(inside)  # each pair of a site and an entry met there
    site, pixel = top * len(columns) + left, rows[top, i] * width + columns[left, j]
    many, each = len(kernel), kernel.shape[1]
    shape = many, len(rows) * len(columns), layer.inputs[0], height * width
    matrix = np.zeros(shape, dtype=object)
    for out in range(many):
        first = out // (many // layer.groups) * each
        for k in range(each):
            matrix[out, site, first + k, pixel] = kernel[out, k, i, j]
    return matrix


def read_chain(model: nn.Module, shape: Sequence[int]) -> list[Layer]:
    """Return the affine layers of ``model`` for inputs of ``shape``, without batch.

    Only for a chain of them with a ReLU between any two, which returns one row of
    numbers. Raises ``TypeError`` and ``ValueError`` as ``read_layers``, and for any
    other form.
    """
    layers = read_layers(model, shape)
    chain = [layer for layer in layers if layer.kind != "Flatten"]
    relus = [layer.kind == "ReLU" for layer in chain]
    if not chain or relus != [k % 2 == 1 for k in range(len(relus))] or relus[-1]:
        raise TypeError("need affine layers with a ReLU between any two of them")
    if len(layers[-1].outputs) != 1:
        raise ValueError(
            f"the network returns {layers[-1].outputs}, not one row of logits: end the "
            "map with Flatten"
        )
    return chain[::2]


def read_layers(model: nn.Module, shape: Sequence[int]) -> list[Layer]:
    """Return the Linear, Conv2d, ReLU and Flatten layers of ``model``, in their order.

    ``shape``: one input without batch. Nested Sequentials are opened, Identity and
    dropout in eval mode left out; a parametrised weight is the one that is computed.
    Raises ``TypeError`` for a layer without exact rule and for one that runs anything
    else than its class's forward on its stored numbers, ``ValueError`` for an input
    that does not fit and for dropout in train mode.
    """
    _refuse_global_hooks()
    _refuse_replaced()
    layers: list[Layer] = []
    shape = tuple(shape)
    for name, layer, kind in _opened(model, ""):
        made = kind in _DROPOUT or parametrize.is_parametrized(layer)
        if made and any(part.training for part in layer.modules()):
            raise ValueError(f"{name} is in train mode: call model.eval() first")
        if kind is nn.Flatten:
            if (layer.start_dim, layer.end_dim) != (1, -1):
                raise TypeError(f"no exact rule for {name}, which flattens in part")
            layers.append(Layer("Flatten", shape, (math.prod(shape),)))
        elif kind is nn.ReLU:
            layers.append(Layer("ReLU", shape, shape))
        elif _named(kind) == _TWO_LOGITS:
            layers[-1:] = [_two_rows(name, layers)]
        elif kind in (nn.Linear, nn.Conv2d):
            read = _linear if kind is nn.Linear else _convolution
            layers.append(read(name, layer, shape))
        shape = layers[-1].outputs if layers else shape
    return layers


def _opened(layer: nn.Module, path: str) -> Iterator[tuple[str, nn.Module, type]]:
    """Yield name, layer and class of ``layer``, or of each inside a Sequential."""
    name = f"{path or 'the model'} ({type(layer).__name__})"
    _refuse_hooks(layer, name)
    kind = _kind(layer, name)
    if _named(kind) == _TWO_LOGITS:
        yield from _opened(layer.model, f"{path}.model" if path else "layer model")
    if kind is not nn.Sequential:
        yield name, layer, kind
        return
    for key, inner in layer._modules.items():
        yield from _opened(inner, f"{path}.{key}" if path else f"layer {key}")


def _refuse_global_hooks() -> None:
    """Refuse hooks that torch calls around every module there is."""
    if of_all_modules._global_forward_hooks or of_all_modules._global_forward_pre_hooks:
        raise TypeError(
            "a forward hook of all modules is registered, so that what runs is not "
            "what the layers' weights say: remove it (handle.remove())"
        )


def _refuse_replaced() -> None:
    """Refuse a program that has replaced what torch runs on weights."""
    for owner, name, own in _CALLED:
        if getattr(owner, name) is not own or not own.__module__.startswith("torch"):
            raise TypeError(
                f"the program has replaced {owner.__name__}.{name}, so that what runs "
                "is not what the layers' weights say: put the original back"
            )


def _refuse_hooks(layer: nn.Module, name: str) -> None:
    """Refuse a ``layer`` with a forward hook or a method of its own instance."""
    if not isinstance(layer, nn.Module):
        raise TypeError(f"{name} is no torch module")
    hooks = [*layer._forward_pre_hooks.values(), *layer._forward_hooks.values()]
    kinds = [c.__name__ for hook in hooks for c in type(hook).__mro__]
    ways = [f"call {_REMOVERS[kind]}" for kind in kinds if kind in _REMOVERS]
    if hooks:
        raise TypeError(
            f"{name} has a forward hook, so that what runs is not what its weights "
            f"say: {(ways or ['remove it (handle.remove())'])[0]} first"
        )
    own = [n for n, v in vars(layer).items() if callable(v) and hasattr(type(layer), n)]
    if own:
        raise TypeError(
            f"{name} has a method {own[0]} set on the instance, so that what runs is "
            "not its class's: delete it, or write it as layers"
        )


def _kind(layer: nn.Module, name: str) -> type[nn.Module]:
    """Return the class of torch whose forward runs; refuse what overrides it."""
    made = set(layer.parametrizations) if parametrize.is_parametrized(layer) else set()
    if _named(type(layer)) == _TWO_LOGITS:
        return type(layer)
    defined: set[str] = set()
    for kind in type(layer).__mro__:
        if kind in _FORWARD:
            own = {n for n in defined if hasattr(kind, n) or n in _READ}
            own -= _HARMLESS | made
            if not own and kind.forward is _FORWARD[kind]:
                return kind
            raise TypeError(
                f"no exact rule for {name}: it has a {min(own, default='forward')} "
                f"of its own, not that of {kind.__name__}; write it as layers"
            )
        defined |= vars(kind).keys()
    raise TypeError(f"no exact rule for {type(layer).__name__} here")


def _named(kind: type) -> tuple[str, str]:
    return kind.__module__, kind.__qualname__


def _two_rows(name: str, layers: Sequence[Layer]) -> Layer:
    """Return the last of ``layers``, one logit z, as a layer that returns (0, z)."""
    if not layers or layers[-1].kind != "Linear" or layers[-1].outputs != (1,):
        raise TypeError(f"no exact rule for {name}: need a Linear layer of one logit")
    one = layers[-1]
    rows = [np.concatenate([np.zeros_like(a), a]) for a in (one.weight, one.bias)]
    return replace(one, outputs=(2,), weight=rows[0], bias=rows[1])


def _stored(name: str, layer: nn.Module) -> tuple[np.ndarray, np.ndarray, torch.dtype]:
    """Return weight and bias (zeros if there is none) of ``layer``, and the dtype."""
    weight, bias = layer.weight, layer.bias
    for part in (weight, bias):
        if part is not None and not _is_plain(part):
            raise TypeError(
                f"no exact rule for {name}: its numbers are a {type(part).__name__}, "
                "whose sums may be its own"
            )
    for first, again in ((weight, layer.weight), (bias, layer.bias)):
        if first is not again and not _equal(first, again):  # both were computed
            raise TypeError(f"{name} computes other weights at every call")
    dtype, weight = weight.dtype, as_array(weight)
    bias = np.zeros(len(weight), weight.dtype) if bias is None else as_array(bias)
    if bias.shape != weight.shape[:1]:
        raise ValueError(f"{name}: the bias {bias.shape} does not fit its weight")
    return weight, bias, dtype


def _is_plain(part: Tensor) -> bool:
    """Whether ``part`` is of torch's own classes, once it has left another device."""
    if type(part) in (Tensor, nn.Parameter):
        return True
    return part.device.type != "cpu" and type(part.detach().cpu()) is Tensor


def _equal(first: Tensor, second: Tensor) -> bool:
    return np.array_equal(as_array(first), as_array(second), equal_nan=True)


def _linear(name: str, layer: nn.Linear, shape: tuple[int, ...]) -> Layer:
    weight, bias, dtype = _stored(name, layer)
    if shape != weight.shape[1:]:
        raise ValueError(
            f"{name} takes inputs of {weight.shape[1:]}, not of {shape}: Flatten first"
        )
    return Layer("Linear", shape, weight.shape[:1], weight, bias, dtype)


def _convolution(name: str, layer: nn.Conv2d, shape: tuple[int, ...]) -> Layer:
    if layer.padding_mode != "zeros":
        raise TypeError(f"no exact rule for {name} with {layer.padding_mode} padding")
    weight, bias, dtype = _stored(name, layer)
    groups = operator.index(layer.groups)
    fits = shape[:-2] == (weight.shape[1] * groups,) and len(weight) % groups == 0
    steps, holes = _pair(layer.stride), _pair(layer.dilation)
    places, ends = [], []
    for axis, (n, k) in enumerate(zip(shape[-2:], weight.shape[2:], strict=False)):
        before, after = _padding(layer.padding, axis, (k - 1) * holes[axis])
        out = (n + before + after - (k - 1) * holes[axis] - 1) // steps[axis] + 1
        fits = fits and out > 0
        starts = np.arange(max(out, 0))[:, None] * steps[axis] - before
        places.append(starts + np.arange(k) * holes[axis])
        ends.append(out)
    if not fits:
        raise ValueError(f"{name} does not take inputs of {shape}")
    outputs = len(weight), *ends
    return Layer("Conv2d", shape, outputs, weight, bias, dtype, tuple(places), groups)


def _pair(option: int | Sequence[int]) -> tuple[int, int]:
    """Return ``option`` for both axes."""
    both = tuple(option) if isinstance(option, Sequence) else (option,)
    first, second = both * 2 if len(both) == 1 else both
    return operator.index(first), operator.index(second)


def _padding(
    option: str | int | Sequence[int], axis: int, reach: int
) -> tuple[int, int]:
    """Return the zeros before and after; "same" puts an odd one behind."""
    if option == "valid":
        return 0, 0
    if option == "same":
        return reach // 2, reach - reach // 2
    return (_pair(option)[axis],) * 2
