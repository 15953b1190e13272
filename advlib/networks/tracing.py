"""A module is run once, on a tensor that writes down what happens to it.

``Traced`` stands for a plain tensor of one sample. Each operator that torch runs on it
is handed to ``Tape``, which runs it on the plain numbers and lets the operator's rule
(``aten``, ``functions``, ``windows``) add nodes to a graph. Views share their
``memory``, so that what is written in place is seen by all that look at it.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor, nn

from advlib._check import modules_of, tensors_of
from advlib.networks import aten, functions, windows
from advlib.networks.aten import HELP, UNKNOWN, Call, Variable, constant, sample
from advlib.networks.gate import PLAIN, brings_plain
from advlib.networks.graph import Builder
from advlib.networks.maps import Shape
from advlib.networks.memory import Store

RULES = {**aten.RULES, **functions.RULES, **windows.RULES}
# what takes only shape, dtype and device from a tensor
BLANK = {"empty_like", "new_empty", "new_empty_strided"}
FACTORIES = BLANK | {
    "zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full",
}  # fmt: skip
FLOATS = (torch.float32, torch.float64)
FOLLOWS = "it follows a softmax, which is left out only as the last operator"
TAILS = {"_softmax": torch.softmax, "_log_softmax": torch.log_softmax}


class Traced(Tensor):
    """Stands for the plain tensor ``value``, whose numbers ``store`` knows.

    ``tape`` is told of every operator. It has no memory of its own, so that nothing
    reads it unseen.
    """

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls: type, value: Tensor, store: Store, tape: "Tape") -> "Traced":
        """Return a tensor shaped as ``value``."""
        return Tensor._make_wrapper_subclass(
            cls, value.shape, strides=value.stride(), dtype=value.dtype,
            device=value.device, storage_offset=value.storage_offset(),
        )  # fmt: skip

    def __init__(self, value: Tensor, store: Store, tape: "Tape") -> None:
        self.value, self.store, self.tape = value, store, tape

    def __repr__(self) -> str:
        """Return the plain numbers, as text."""
        return f"Traced({self.value})"

    def _unseen(self, *args: object, **kwargs: object) -> None:
        raise ValueError(
            f"{self.tape.place()}: the numbers are read, or changed, by other means "
            "than torch's operators, so that nothing records what is done to them"
        )

    apply_ = map_ = map2_ = numpy = tolist = data_ptr = __array__ = _unseen

    @classmethod
    def __torch_dispatch__(
        cls: type, op: torch._ops.OpOverload, types: Sequence[type], args: tuple = (),
        kwargs: dict | None = None,
    ) -> object:  # fmt: skip
        """Hand ``op`` to the tape."""
        given = _bound(op, args, kwargs or {})
        tape = _traced(given)[0].tape
        return tape.run(op, given)


class Tape:
    """The graph of ``model`` as it grows while the model runs.

    ``logits``: a last softmax is left out. ``dtypes`` are those of all values that
    depend on the input; ``remade``: whether a constant was used that is no parameter or
    buffer of the model.
    """

    def __init__(self, model: nn.Module, *, logits: bool = False) -> None:
        self.builder, self.logits = Builder(), logits
        self.dtypes: set[torch.dtype] = set()
        self.remade = False
        self.names = {id(m): name for name, m in model.named_modules()}
        self.root = Path(torch.__file__).parent
        self.owned = {
            t.untyped_storage().data_ptr() for t in tensors_of(modules_of(model))
        }

    def start(self, x: Tensor) -> Traced:
        """Return the tensor to run the model on, for the numbers ``x`` (1, ...)."""
        node = self.builder.input(x.shape[1:])
        self.dtypes.add(x.dtype)
        x = x.clone()
        return Traced(x, Store(x, node), self)

    def end(self, out: object) -> int:
        """Return the node of ``out``, what the model returned.

        Raises ``ValueError`` for what is not one tensor that depends on the input.
        """
        if not isinstance(out, Tensor):
            raise ValueError(
                f"the model returns a {type(out).__name__}, not one tensor: wrap it in "
                "a module whose forward returns the tensor alone"
            )
        if not isinstance(out, Traced) or out.store.node is None:
            raise ValueError("what the model returns does not depend on its input")
        if out.shape[:1] != (1,):
            raise ValueError(
                f"the model returns {tuple(out.shape)} for one sample: the first axis "
                "of inputs and outputs must count samples"
            )
        if out.store.closed:
            raise ValueError(out.store.closed)
        return out.store.read(self.builder, out.value, "output")

    # ------------------------------------------------------------------ one operator

    def run(self, op: torch._ops.OpOverload, given: dict[str, object]) -> object:
        """Run ``op`` on the plain numbers ``given``, and write down what it does.

        Returns what it returns, traced. Raises ``ValueError``, which names operator and
        place, for what has no rule.
        """
        try:
            return self._run(op, given)
        except ValueError as error:
            name = str(op).removeprefix("aten.").split(".")[0]
            raise ValueError(
                f"{self.place()}: the operator {name} cannot be read: {error}"
            ) from error

    def _run(self, op: torch._ops.OpOverload, given: dict[str, object]) -> object:
        if not isinstance(op, torch._ops.OpOverload) or op.namespace != "aten":
            raise ValueError("it is none of torch's own ATen library")
        if torch.Tag.nondeterministic_seeded in op.tags:
            raise ValueError("it is random: the model is no function of its input")
        schema, plain, traced = op._schema, _each(given, _value), _traced(given)
        written = [
            a.name
            for a in schema.arguments
            if a.alias_info is not None and a.alias_info.is_write
        ]
        if schema.returns and schema.returns[0].alias_info is not None and not written:
            return self._view(traced[0], op(**plain))
        for tensor in _tensors(given):
            self._check(tensor)
        if written:
            return self._write(op, given, plain, written)
        name = op.overloadpacket.__name__
        if name in FACTORIES:
            return self._constant(op(**plain), name in BLANK)
        if all(t.store.node is None for t in traced):
            for t in traced:
                t.store.places(t.value)  # refuses what nothing was written to
            return _each(op(**plain), self._constant)
        return self._value(op, given, plain)

    def _check(self, tensor: Tensor) -> None:
        """Refuse a ``tensor`` whose numbers are not simply there, or not to be read."""
        if isinstance(tensor, Traced):
            if tensor.store.closed:
                raise ValueError(tensor.store.closed)
            return
        if type(tensor) not in PLAIN and not brings_plain(tensor):
            raise ValueError(f"it takes a {type(tensor).__name__}, no plain tensor")
        if tensor.layout is not torch.strided or tensor.is_meta or tensor.is_complex():
            raise ValueError("it takes numbers that are not dense and real")
        if tensor.is_floating_point():
            self.remade |= tensor.untyped_storage().data_ptr() not in self.owned

    def _constant(self, value: object, blank: bool = False) -> object:
        """Return a ``value`` that does not depend on the input, on this tape."""
        if not isinstance(value, Tensor):
            return value
        store = Store(value, None)
        if blank:
            store.index.fill_(-1)
        return Traced(value, store, self)

    def _view(self, of: Traced, out: object) -> object:
        """Return ``out``, which looks at numbers of ``of``, or is a list of such."""
        if isinstance(out, (list, tuple)):
            return [self._view(of, one) for one in out]
        memory = (t.untyped_storage().data_ptr() for t in (out, of.value))
        if len(set(memory)) > 1 or out.dtype != of.value.dtype:
            raise ValueError("it reads the bits of numbers as others")
        same = out.shape == of.value.shape and out.stride() == of.value.stride()
        if of.store.tail and not same:
            raise ValueError(FOLLOWS)
        return Traced(out, of.store, self)

    def _value(
        self, op: torch._ops.OpOverload, given: dict[str, object], plain: dict
    ) -> object:
        """Return what ``op`` makes of variables: a new value with a node."""
        name = op.overloadpacket.__name__
        tail = self.logits and TAILS.get(name)
        if not tail and name not in RULES:  # before it is run
            raise ValueError(HELP.get(name, UNKNOWN))
        out = op(**plain)
        several = isinstance(out, (list, tuple))
        first, *others = out if several else [out]
        if first.dtype not in FLOATS:
            raise ValueError(f"it returns {first.dtype}, which rounds")
        self.dtypes.add(first.dtype)
        if tail:
            node = self._read(given["self"], name).node
        else:
            node = self._node(op, given, tuple(first.shape), name)
        store = Store(first, node)
        if tail:
            store.tail = tail, given["dim"] % first.dim()
            if store.tail[1] == 0:
                raise ValueError("it is a softmax over the batch")
        made = [Traced(first, store, self)]
        for other in others:
            closed = f"of {name} only the values are read, not what else it returns"
            made.append(Traced(other, Store(other, None, closed), self))
        return tuple(made) if several else made[0]

    def _node(
        self, op: torch._ops.OpOverload, given: dict[str, object], shape: Shape,
        rule: str,
    ) -> int:  # fmt: skip
        """Return the node that ``rule`` makes of a call of ``op``."""
        if rule not in RULES:
            raise ValueError(HELP.get(rule, UNKNOWN))
        name = self._module() or rule
        read = _each(given, lambda value: self._read(value, name))
        node = RULES[rule](Call(self.builder, op, read, shape, name))
        return self.builder.reshape(node, sample(shape), name)

    def _read(self, value: object, name: str) -> object:
        """Return an argument as rules take it."""
        if not isinstance(value, Tensor):
            return value
        if isinstance(value, Traced):
            if value.store.tail:
                raise ValueError(FOLLOWS)
            if value.store.node is not None:
                node = value.store.read(self.builder, value.value, name)
                return Variable(node, tuple(value.shape))
            value.store.places(value.value)  # refuses what was not written
            value = value.value
        value = value.detach().cpu()
        return (
            value.to(torch.float64, copy=True) if value.is_floating_point() else value
        )

    # --------------------------------------------------------------------- in place

    def _write(
        self, op: torch._ops.OpOverload, given: dict[str, object], plain: dict,
        written: list[str],
    ) -> object:  # fmt: skip
        """Write into the memory of the argument that ``op`` changes."""
        target, name = given[written[0]], op.overloadpacket.__name__
        if not isinstance(target, Traced):
            raise ValueError(
                "it writes what depends on the input into another tensor: join parts "
                "with torch.cat or torch.stack, or make that tensor with x.new_zeros"
            )
        if len(written) > 1 or not name.endswith("_") or target.store.tail:
            raise ValueError("it writes to what is given as out=, or a last softmax")
        store, at = target.store, target.store.at(target.value)
        if all(t.store.node is None for t in _traced(given)):
            op(**plain)
            store.index[at] = 0
            return target
        if target.dtype not in FLOATS:
            raise ValueError(f"it writes to {target.dtype}, which rounds")
        label, source = self._module() or name, given.get("src")
        if store.node is None and not (store.index < 0).all():
            store.open(self.builder, target.value, label)
        if isinstance(source, Traced) and source.store is store:  # one moves a part
            store.move(store.at(source.value).expand(target.shape), at)
            op(**plain)
            return target
        if name == "index_put_":
            at, node = self._scattered(given, at, label)
        elif name in ("copy_", "fill_", "zero_"):
            source = given.get("value", 0.0) if source is None else source
            node = self._expanded(source, tuple(target.shape), label)
        else:
            node = self._node(op, given, tuple(target.shape), name.removesuffix("_"))
        op(**plain)
        store.write(self.builder, at, node, label)
        return target

    def _scattered(
        self, given: dict[str, object], at: Tensor, name: str
    ) -> tuple[Tensor, int]:
        """Return where ``index_put_`` writes in memory, and what."""
        indices = [i if i is None else self._read(i, name) for i in given["indices"]]
        if given["accumulate"] or any(isinstance(i, Variable) for i in indices):
            raise ValueError("only with constant indices and without accumulation")
        at = torch.ops.aten.index.Tensor(at, indices)
        if at.unique().numel() < at.numel():
            raise ValueError("it writes twice to one place")
        return at, self._expanded(given["values"], tuple(at.shape), name)

    def _expanded(self, source: object, shape: Shape, name: str) -> int:
        """Return a node with ``source`` repeated to ``shape``, without its batch."""
        source = self._read(source, name)
        if isinstance(source, Variable):
            return self.builder.expand(source.node, sample(shape), name)
        values = torch.as_tensor(source, dtype=torch.float64).expand(shape)
        return constant(self.builder, values, sample(shape), name)

    # ------------------------------------------------------------------- for errors

    def _module(self) -> str:
        """Return the name of the innermost module that runs now."""
        return next((name for _, name in self._frames() if name), "")

    def place(self) -> str:
        """Return where the model is: module, file and line, as far as they are known.

        A file is named only if it is none of torch's.
        """
        module, line = "", ""
        for frame, name in self._frames():
            module = module or name or ""
            file = Path(frame.f_code.co_filename)
            if not line and self.root not in file.parents:
                line = f"{file.name}, line {frame.f_lineno}"
        known = [f"module {module!r}"] if module else []
        return ", ".join(known + [line] * bool(line)) or "the model itself"

    def _frames(self) -> Iterator[tuple[FrameType, str | None]]:
        """Yield the frames of the model, innermost first, and modules' names."""
        frame = sys._getframe(1)
        while frame is not None and frame.f_code is not record.__code__:
            if frame.f_code.co_filename != __file__:
                owner = frame.f_locals.get("self")
                yield frame, self.names.get(id(owner))
            frame = frame.f_back


def record(
    model: nn.Module, x: Tensor, *, logits: bool = False
) -> tuple[Tape, Traced, int]:
    """Run ``model`` once on ``x`` (1, ...): return tape, output and the output's node.

    ``logits``: leave out a softmax at the very end. To be called without gradients.
    Raises ``ValueError`` for what cannot be read.
    """
    tape = Tape(model, logits=logits)
    out = model(tape.start(x))
    return tape, out, tape.end(out)


def _bound(
    op: torch._ops.OpOverload, args: Sequence[object], kwargs: dict[str, object]
) -> dict[str, object]:
    """Return the arguments of ``op`` by name, defaults included."""
    if not isinstance(op, torch._ops.OpOverload):
        return {"args": args, **kwargs}
    given = {}
    for i, argument in enumerate(op._schema.arguments):
        if argument.name in kwargs:
            given[argument.name] = kwargs[argument.name]
        elif i < len(args):
            given[argument.name] = args[i]
        elif argument.has_default_value():
            given[argument.name] = argument.default_value
    return given


def _each(value: object, function: Callable[[object], object]) -> object:
    """Return ``value`` with ``function`` of all parts of its lists and dictionaries."""
    if isinstance(value, dict):
        return {key: _each(part, function) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_each(part, function) for part in value)
    return function(value)


def _tensors(given: dict[str, object]) -> list[Tensor]:
    """Return the tensors among arguments, those in lists included."""
    found: list[Tensor] = []
    _each(given, lambda v: found.append(v) if isinstance(v, Tensor) else None)
    return found


def _traced(given: dict[str, object]) -> list[Traced]:
    return [t for t in _tensors(given) if isinstance(t, Traced)]


def _value(value: object) -> object:
    return value.value if isinstance(value, Traced) else value
