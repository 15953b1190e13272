"""A device that no machine lacks: tensors that say cuda:0 and do not mix with others.

``World`` is a mode in which tensors can be made there; ``sent`` moves one, ``settle``
a network. The values lie in ordinary memory; what is imitated is who may meet whom:
an operation that mixes both kinds raises ``DeviceError``, except with numbers of no
dimension, and an ordinary index into a far tensor, both of which CUDA allows.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

CUDA = torch.device("cuda", 0)
INDEXING = ("__getitem__", "__setitem__")
SHAPES_ONLY = ("view_as", "expand_as", "reshape_as", "type_as")


class DeviceError(RuntimeError):
    """Tensors of two devices met."""


def leaves(tree: object) -> list[Tensor]:
    """All tensors in nested lists, tuples and dictionaries."""
    if isinstance(tree, Tensor):
        return [tree]
    if isinstance(tree, dict):
        tree = list(tree.values())
    if not isinstance(tree, (list, tuple)):
        return []
    return [leaf for branch in tree for leaf in leaves(branch)]


def each(tree: object, change: Callable[[Tensor], Tensor]) -> object:
    """The same nest with every tensor changed."""
    if isinstance(tree, Tensor):
        return change(tree)
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(each(branch, change) for branch in tree))
    if isinstance(tree, (list, tuple)):
        return type(tree)(each(branch, change) for branch in tree)
    return tree


def names_cuda(value: object) -> bool:
    """Whether an argument asks for the far device."""
    return isinstance(value, (str, torch.device)) and str(value).startswith("cuda")


def names_cpu(value: object) -> bool:
    """Whether an argument asks for ordinary memory."""
    return isinstance(value, (str, torch.device)) and str(value).startswith("cpu")


def sent(t: Tensor) -> Tensor:
    """The tensor, on the far device."""
    if isinstance(t, Far):  # a leaf stays one
        return t
    with torch._C.DisableTorchFunctionSubclass():
        return t.as_subclass(Far)


def fetched(t: Tensor) -> Tensor:
    """The tensor, in ordinary memory."""
    with torch._C.DisableTorchFunctionSubclass():
        return t.as_subclass(Tensor)


class Far(Tensor):
    """A tensor on the far device."""

    def __deepcopy__(self, memo):
        """A far copy."""
        with torch._C.DisableTorchFunctionSubclass():
            copy = sent(self.detach().clone()).requires_grad_(self.requires_grad)
        copy._is_param = getattr(self, "_is_param", False)
        memo[id(self)] = copy
        return copy

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        """Run ``func`` if all that it mixes is far."""
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
        if func == Tensor.device.__get__:
            return CUDA
        if func == Tensor.is_cuda.__get__:
            return True
        if name in ("numpy", "__array__"):
            raise DeviceError("numpy cannot read cuda:0")
        if name == "cpu":
            return fetched(args[0]).clone()
        if name == "to":
            return converted(args, kwargs)
        if names_cuda(kwargs.get("device")):
            kwargs.pop("device")
        strangers = [t for t in leaves([args, kwargs]) if not isinstance(t, Far)]
        if name in INDEXING:
            if not isinstance(args[0], Far) and any(
                isinstance(t, Far) for t in leaves([args[1]])
            ):
                raise DeviceError("a far index into an ordinary tensor")
            strangers = [t for t in leaves(list(args[2:])) if not isinstance(t, Far)]
        if any(t.dim() for t in strangers) and name not in SHAPES_ONLY:
            raise DeviceError(f"cuda:0 and cpu meet in {name}")
        with torch._C.DisableTorchFunctionSubclass():
            return each(func(*args, **kwargs), sent)


def converted(args: tuple, kwargs: dict) -> Tensor:
    """``Tensor.to`` of a far tensor, or to one."""
    asked = [*args[1:], *kwargs.values()]
    like = [a for a in asked if isinstance(a, Tensor)]
    kind = [a for a in asked if isinstance(a, torch.dtype)]
    kind = kind or [fetched(a).dtype for a in like]
    far = not any(map(names_cpu, asked))
    if like:
        far = isinstance(like[0], Far)
    plain = fetched(args[0]).to(*kind) if kind else fetched(args[0])
    return sent(plain) if far else plain


class World(TorchFunctionMode):
    """Inside, ``device="cuda"`` makes far tensors."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Run ``func``, with its result sent off if it is asked for there."""
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name == "as_tensor" and isinstance(args[0], Tensor):
            return args[0]
        if any(isinstance(t, Far) for t in leaves([args, kwargs])):
            return func(*args, **kwargs)
        if name == "to" and any(map(names_cuda, [*args[1:], *kwargs.values()])):
            return sent(converted(args, {**kwargs, "device": "cpu"}))
        if names_cuda(kwargs.get("device")):
            kwargs.pop("device")
            return each(func(*args, **kwargs), sent)
        return func(*args, **kwargs)


def settle(model: nn.Module) -> nn.Module:
    """Move parameters and buffers of ``model`` to the far device."""
    for module in model.modules():
        for name, p in module._parameters.items():
            if p is not None:
                module._parameters[name] = nn.Parameter(
                    sent(p.detach().clone()), requires_grad=p.requires_grad
                )
        for name, b in module._buffers.items():
            if b is not None:
                module._buffers[name] = sent(b.clone())
    return model
