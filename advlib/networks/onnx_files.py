"""Networks in ONNX files, read as graphs, and the same files run by onnxruntime.

One sample is the whole input of the file, its leading dimension included, which must be
fixed or counts as 1. A graph is the function in real numbers: weights become float64,
which holds each float32 exactly, and constants that the file computes are computed in
the file's own dtypes.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from advlib.networks.graph import Builder, Graph
from advlib.networks.onnx_bytes import (
    NoRuleError,
    naming,
    parse,
    read_bytes,
    to_array,
    version,
)
from advlib.networks.onnx_moves import MOVES, fold, move
from advlib.networks.onnx_operators import RULES
from advlib.networks.onnx_steps import Step, Value

FLOATS = {1: "float32", 11: "float64"}  # by ONNX's numbers
# what numpy and torch raise for shapes and places that do not fit, and for huge ones
OTHERS = RuntimeError, IndexError, MemoryError
LOGITS = (
    "its inputs, the logits, have the same order as its outputs: end the network there"
)
HINTS = {
    "HardSwish": "it is a product of two values that depend on the input",
    "Pow": "it is not piecewise linear; export GELU at version 20 or later as one node",
    "If": "a graph of fixed operators has rules: export without branches",
    "Loop": "a graph of fixed operators has rules: export with loops unrolled",
}


@dataclass(frozen=True)
class OnnxNetwork:
    """A ``graph``, and what its file says of it.

    ``input_name``, ``output_name``: in the file; ``input_shape``, ``output_shape``: of
    one sample, as declared, symbolic dimensions being 1; ``input_dtype``: "float32" or
    "float64", in which the file's own arithmetic is done.
    """

    graph: Graph
    input_name: str
    output_name: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    input_dtype: str


def read_onnx(path: str | Path) -> OnnxNetwork:
    """Return the network in the ``.onnx`` or ``.onnx.gz`` file at ``path``.

    Operators that the output does not need are left out. Raises ``NoRuleError``, a
    ``TypeError``, that names the node for operators, options and dtypes that have no
    rule, and ``ValueError`` for a file that is broken, for numbers that are NaN or
    infinite, and for several inputs or outputs; ``ImportError`` without the package
    onnx.
    """
    path = Path(path)
    with naming(path):
        model, _ = parse(read_bytes(path), path)
        return _read(model)


# ---------------------------------------------------------------------- signature


@dataclass(frozen=True)
class _Signature:
    """The one input and the one output of a model."""

    input: str
    output: str
    inside: tuple[int, ...]
    outside: tuple[int, ...] | None
    dtype: str


def _signature(model: Any) -> _Signature:
    weights = {t.name for t in model.graph.initializer}
    weights |= {t.values.name for t in model.graph.sparse_initializer}
    inputs = [i for i in model.graph.input if i.name not in weights]
    for what, found in (("inputs", inputs), ("outputs", model.graph.output)):
        if len(found) != 1:
            names = ", ".join(i.name for i in found) or "none"
            raise ValueError(
                f"{len(found)} {what} ({names}): a network has one of each"
            )
    (given,), (made,) = inputs, model.graph.output
    kind = given.type.tensor_type
    if kind.elem_type not in FLOATS:
        raise NoRuleError(f"input {given.name!r} is not made of float32 or float64")
    if not kind.HasField("shape"):
        raise ValueError(f"input {given.name!r} has no shape: export it with one")
    inside = tuple(_length(d) for d in kind.shape.dim)
    if any(n is None for n in inside[1:]) or 0 in inside:
        said = [d.dim_param or d.dim_value for d in kind.shape.dim]
        raise ValueError(
            f"input {given.name!r} of shape {said}: all but its first length must be "
            "fixed and none may be zero"
        )
    outside = None
    if made.type.tensor_type.HasField("shape"):
        outside = tuple(_length(d) or 1 for d in made.type.tensor_type.shape.dim)
    inside = tuple(n or 1 for n in inside)
    return _Signature(given.name, made.name, inside, outside, FLOATS[kind.elem_type])


def _length(dim: Any) -> int | None:
    """The length of a dimension, None if it is free."""
    return dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else None


# ----------------------------------------------------------------------- the graph


@dataclass
class _Reading:
    """A model on its way into a graph: its ``values`` by name, as they come to be."""

    model: Any
    signature: _Signature
    opset: int
    builder: Builder = field(default_factory=Builder)
    values: dict[str, Value] = field(default_factory=dict)


def _read(model: Any) -> OnnxNetwork:
    signature = _signature(model)
    reading = _Reading(model, signature, version(model))
    nodes = _needed(model, signature)
    uses = Counter(name for node in nodes for name in node.input)
    uses[signature.output] += 1
    _begin(reading, uses)
    for node in nodes:
        _follow(reading, node, uses)
    output = reading.values.get(signature.output)
    if not isinstance(output, int):
        raise ValueError(
            f"the output {signature.output!r} does not depend on the input, or is no "
            "number"
        )
    graph = reading.builder.graph(output)
    outside = graph.outside if signature.outside is None else signature.outside
    if outside != graph.outside:
        raise ValueError(
            f"the output is declared to be of shape {outside}, and the operators make "
            f"one of {graph.outside}"
        )
    names = signature.input, signature.output
    return OnnxNetwork(graph, *names, graph.inside, outside, signature.dtype)


def _needed(model: Any, signature: _Signature) -> list[Any]:
    """The nodes that the output needs, in the file's order."""
    makers: dict[str, int] = {}
    names = [signature.input, *(t.name for t in model.graph.initializer)]
    names += [name for node in model.graph.node for name in node.output if name]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"the value {twice[0]!r} is defined twice")
    for k, node in enumerate(model.graph.node):
        makers.update({name: k for name in node.output if name})
    needed: set[int] = set()
    waiting = [signature.output]
    while waiting:
        k = makers.get(waiting.pop())
        if k is not None and k not in needed:
            needed.add(k)
            waiting += model.graph.node[k].input
    return [model.graph.node[k] for k in sorted(needed)]


def _begin(reading: _Reading, uses: Counter[str]) -> None:
    """The input, and those weights that are used."""
    signature, graph = reading.signature, reading.model.graph
    name = signature.input
    reading.values[name] = reading.builder.input(signature.inside, name)
    for tensor in graph.initializer:
        if uses[tensor.name]:
            array = to_array(tensor)
            if array.dtype.kind not in "biu" and not _finite(array):
                raise ValueError(f"the weight {tensor.name!r} holds NaN or infinity")
            reading.values[tensor.name] = array
    for sparse in graph.sparse_initializer:
        if uses[sparse.values.name]:
            raise NoRuleError(f"the weight {sparse.values.name!r} is stored as sparse")


def _finite(array: np.ndarray) -> bool:
    return bool(np.isfinite(array).all())


def _follow(reading: _Reading, node: Any, uses: Counter[str]) -> None:
    """Compute one ``node`` of the model."""
    step = _step(reading, node, uses)
    try:
        found = _outputs(step, reading.signature.output)
    except (ValueError, ArithmeticError, *OTHERS) as error:
        raise ValueError(f"{step.kind} {step.name!r}: {error}") from error
    if step.attributes:
        raise step.refuse(f"nothing is known of its {', '.join(step.attributes)}")
    for name, value in zip(step.outputs, found, strict=False):
        if name:
            reading.values[name] = value
    missing = [name for name in step.outputs[len(found) :] if name]
    if missing:
        raise step.refuse(f"its output {missing[0]!r} is used")


def _step(reading: _Reading, node: Any, uses: Counter[str]) -> Step:
    """The ``node`` with its inputs and attributes, checked."""
    name = node.name or next(iter(node.output), "")
    unknown = [i for i in node.input if i and i not in reading.values]
    if unknown:
        raise ValueError(
            f"{node.op_type} {name!r} reads {unknown[0]!r}, which nothing before makes"
        )
    values = [reading.values[i] if i else None for i in node.input]
    once = {
        value
        for i, value in zip(node.input, values, strict=True)
        if isinstance(value, int) and uses[i] == 1
    }
    step = Step(
        node.op_type, name, reading.opset, tuple(node.input), values,
        tuple(o if uses[o] else "" for o in node.output), {}, reading.builder, node,
        once,
    )  # fmt: skip
    own = {(_domain(f.domain), f.name) for f in reading.model.functions}
    if (_domain(node.domain), node.op_type) in own:
        raise step.refuse(
            "it is a function of the file's own: dissolve these with "
            "onnx.inliner.inline_local_functions"
        )
    if _domain(node.domain):
        raise step.refuse(f"it is of the domain {node.domain!r}, not ONNX's own")
    if "Quant" in node.op_type or node.op_type.startswith(("QLinear", "MatMulInt")):
        raise step.refuse("it is quantised; export the network with float weights")
    step.attributes = {a.name: _attribute(step, a) for a in node.attribute}
    return step


def _domain(name: str) -> str:
    """The domain ``name``, empty for ONNX's own."""
    return "" if name == "ai.onnx" else name


def _attribute(step: Step, attribute: Any) -> Any:
    """The value of an ``attribute``, as numbers, text or an array."""
    from onnx import helper

    kinds = type(attribute)
    if attribute.ref_attr_name or attribute.type in (kinds.GRAPH, kinds.GRAPHS):
        raise step.refuse(HINTS.get(step.kind, "it holds a graph of its own"))
    if attribute.type == kinds.TENSOR:
        return to_array(attribute.t)
    value = helper.get_attribute_value(attribute)
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _outputs(step: Step, last: str) -> Sequence[Value]:
    """What ``step`` makes of its inputs; ``last`` is the network's output."""
    constant = all(v is None or isinstance(v, np.ndarray) for v in step.values)
    if constant:
        return fold(step)
    if step.kind in MOVES and step.is_variable(0):
        return move(step)
    if step.kind in RULES:
        return [RULES[step.kind](step)]
    if step.kind in MOVES:
        raise step.refuse("its second input depends on the network's input")
    if step.kind in ("Softmax", "LogSoftmax") and last in step.outputs:
        raise step.refuse(LOGITS)
    rules = ", ".join(sorted({*RULES, *MOVES}))
    raise step.refuse(HINTS.get(step.kind, f"there are rules for {rules}"))


# --------------------------------------------------------------------- onnxruntime


class Runtime:
    """The network of an ONNX file as onnxruntime runs it, in the file's own arithmetic.

    ``source``: the path of an ``.onnx`` or ``.onnx.gz`` file, or a file's bytes. One
    thread, one sample after the other. Raises ``ValueError`` for a file that
    ``read_onnx`` would call broken or that onnxruntime cannot open, and
    ``ImportError`` without the packages onnx and onnxruntime.
    """

    def __init__(self, source: str | Path | bytes) -> None:
        path = None if isinstance(source, bytes) else Path(source)
        with naming(path):
            data = source if path is None else read_bytes(path)
            model, outside = parse(data, path)
            signature = _signature(model)
            self._session = _session(model.SerializeToString() if outside else data)
        self._names = signature.input, signature.output
        self.input_shape, self.dtype = signature.inside, np.dtype(signature.dtype)

    def __call__(self, x: np.ndarray | Tensor) -> np.ndarray:
        """Return the outputs at each of ``x`` (N, *input_shape), of the file's dtype.

        Raises ``ValueError`` for another shape or dtype, and if onnxruntime fails.
        """
        x = np.asarray(x)
        if x.shape[1:] != self.input_shape or x.dtype != self.dtype or not len(x):
            raise ValueError(
                f"inputs of shape {x.shape} and dtype {x.dtype}: not (N, "
                f"{', '.join(map(str, self.input_shape))}) of {self.dtype}"
            )
        given, made = self._names
        with _as_value_error("cannot run the model"):
            return np.stack([self._session.run([made], {given: one})[0] for one in x])


def _session(data: bytes) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(
            "running ONNX files needs the package onnxruntime: pip install onnxruntime"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # its errors are raised, not printed too
    with _as_value_error("cannot open the model"):
        return onnxruntime.InferenceSession(
            data, options, providers=["CPUExecutionProvider"]
        )


@contextmanager
def _as_value_error(what: str) -> Iterator[None]:
    """Turn onnxruntime's errors into ``ValueError``."""
    from onnxruntime.capi import onnxruntime_pybind11_state as errors

    kinds = errors.Fail, errors.InvalidGraph, errors.NotImplemented
    kinds += errors.InvalidArgument, errors.InvalidProtobuf, errors.RuntimeException
    try:
        yield
    except kinds as error:
        raise ValueError(f"onnxruntime {what}: {error}") from error


def compare_onnx(
    network: OnnxNetwork, runtime: Runtime, *, count: int = 1000, seed: int = 0,
    lower: float | Tensor = 0.0, upper: float | Tensor = 1.0, batch: int = 50,
) -> float:  # fmt: skip
    """Return how far ``network`` is from ``runtime``: a share of the largest output.

    The largest difference at ``count`` inputs drawn evenly between ``lower`` and
    ``upper``, numbers or of the shape of one input, from ``seed``, ``batch`` at a time;
    both compute at the same numbers of the file's dtype. Raises ``ValueError`` if one
    of them makes NaN or infinity.
    """
    generator = torch.Generator().manual_seed(seed)
    dtype, shape = getattr(torch, network.input_dtype), network.input_shape
    gap = largest = 0.0
    for start in range(0, count, batch):
        n = min(batch, count - start)
        share = torch.rand(n, *shape, generator=generator, dtype=torch.float64)
        x = (lower + (upper - lower) * share).to(dtype)
        own = network.graph(x.double())
        theirs = torch.from_numpy(runtime(x)).double()
        if own.shape != theirs.shape or not (own - theirs).isfinite().all():
            raise ValueError(
                f"outputs of {tuple(own.shape)} and {tuple(theirs.shape)}, or NaN"
            )
        gap = max(gap, (own - theirs).abs().max().item())
        largest = max(largest, theirs.abs().max().item())
    return gap / largest if largest else gap
