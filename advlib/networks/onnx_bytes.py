"""ONNX files opened with care: what they hold is checked before it is used.

A file that is cut short, not ONNX, or whose weights lie anywhere but beside it is
refused before anything of it is computed.
"""

import gzip
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

LARGEST = 2**31 - 1  # bytes; protobuf reads no more
OLDEST, NEWEST = 7, 26  # versions of the operators that the rules were written for
# ONNX's numbers of the dtypes that constants may have
DTYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32",
    7: "int64", 9: "bool", 10: "float16", 11: "float64", 12: "uint32", 13: "uint64",
    16: "bfloat16",
}  # fmt: skip


class NoRuleError(TypeError):
    """An operator, an option or a dtype that is not known: nothing is guessed."""


@contextmanager
def naming(path: Path | None) -> Iterator[None]:
    """Put the name of the file at ``path`` before each error.

    Raises ``NoRuleError`` for these, and ``ValueError`` for all others that what a file
    holds can cause.
    """
    name = "the model" if path is None else path.name
    broken = AttributeError, IndexError, KeyError, MemoryError, OverflowError
    try:
        yield
    except NoRuleError as error:
        raise NoRuleError(f"{name}: {error}") from error
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    except (TypeError, RuntimeError, *broken) as error:
        kind = type(error).__name__
        raise ValueError(f"{name} is broken ({kind}: {error})") from error


def read_bytes(path: str | Path) -> bytes:
    """Return the bytes of the file at ``path``, unpacked if it ends in ``.gz``.

    Raises ``ValueError`` for a file that is empty, cut short, or of 2 GiB and more.
    """
    path = Path(path)
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"not a whole gzip file: {error}") from error
    if not data:
        raise ValueError("the file is empty")
    if len(data) > LARGEST:
        raise ValueError("2 GiB or more, which is no ONNX file")
    return data


def parse(data: bytes, path: Path | None = None) -> tuple[Any, bool]:
    """Return the ONNX model that ``data`` hold, and whether weights lay outside them.

    Weights in other files are read and put inside, if these lie in the folder of
    ``path`` or below. Raises ``ValueError`` for what is not a model and for weights
    elsewhere or not there, ``NoRuleError`` for versions of ONNX without rules, and
    ``ImportError`` without the package onnx.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise ImportError("ONNX files need the package onnx: pip install onnx") from (
            error
        )
    try:
        model = onnx.ModelProto.FromString(data)
    except DecodeError as error:
        raise ValueError(f"not ONNX, or cut short: {error}") from error
    if not model.ir_version or not model.graph.output or not model.opset_import:
        raise ValueError(
            "not ONNX, or cut short: it has no version, operators or output"
        )
    outside = [t for t in _tensors(model) if t.data_location == t.EXTERNAL]
    for tensor in outside:
        _fetch(tensor, path)
    return model, bool(outside)


def version(model: Any) -> int:
    """Return the version of the operators of an ONNX ``model``.

    Raises ``NoRuleError`` for one whose operators have no rules.
    """
    found = {o.version for o in model.opset_import if o.domain in ("", "ai.onnx")}
    if len(found) != 1 or not OLDEST <= min(found) <= NEWEST:
        raise NoRuleError(
            f"operators of the ONNX versions {sorted(found)}: versions {OLDEST} to "
            f"{NEWEST} have rules; onnx.version_converter may change them"
        )
    return found.pop()


def _tensors(model: Any) -> Iterator[Any]:
    """Every tensor of the model, wherever it is held."""
    yield from _of_graph(model.graph)
    for function in model.functions:
        for node in function.node:
            yield from _of_node(node)
    for info in model.training_info:
        yield from _of_graph(info.initialization)
        yield from _of_graph(info.algorithm)


def _of_graph(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        yield from _of_node(node)


def _of_node(node: Any) -> Iterator[Any]:
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        sparse = (
            [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
        )
        for pair in [*sparse, *attribute.sparse_tensors]:
            yield from (pair.values, pair.indices)
        graphs = [attribute.g] if attribute.HasField("g") else []
        for graph in [*graphs, *attribute.graphs]:
            yield from _of_graph(graph)


# ------------------------------------------------------------------------- weights


def _fetch(tensor: Any, path: Path | None) -> None:
    """Put the numbers of ``tensor``, which another file holds, into it."""
    info = {entry.key: entry.value for entry in tensor.external_data}
    data = _beside(tensor.name, info.get("location", ""), path)
    size, need = data.stat().st_size, _bytes_of(tensor)
    try:
        offset = int(info.get("offset") or 0)
        length = int(info.get("length") or size - offset)
    except ValueError as error:
        raise ValueError(f"the place of weight {tensor.name!r}: {error}") from error
    if offset < 0 or length < 0 or offset + length > size or length != need:
        raise ValueError(
            f"weight {tensor.name!r} of {need} bytes is said to be the {length} bytes "
            f"from {offset} on in {data.name}, which has {size}"
        )
    with data.open("rb") as file:
        file.seek(offset)
        tensor.raw_data = file.read(length)
    del tensor.external_data[:]
    tensor.data_location = tensor.DEFAULT


def _beside(name: str, location: str, path: Path | None) -> Path:
    """The file ``location`` in the folder of ``path``, or below it; else an error."""
    where = f"weight {name!r} is said to lie in {location!r}"
    if path is None:
        raise ValueError(f"{where}: a model given as bytes has no other files")
    parts = {*PurePosixPath(location).parts, *PureWindowsPath(location).parts}
    rooted = PureWindowsPath(location).anchor or PurePosixPath(location).is_absolute()
    if not location or "\0" in location or rooted or ".." in parts:
        raise ValueError(f"{where}: only files in the folder of {path.name} are read")
    folder = path.parent.resolve()
    data = (folder / location).resolve()
    if folder not in data.parents:
        raise ValueError(f"{where}, a link that leads out of the folder of {path.name}")
    if not data.is_file():
        raise ValueError(f"{where}, which is not there")
    return data


def _bytes_of(tensor: Any) -> int:
    """How many bytes the numbers of ``tensor`` take."""
    kind = DTYPES.get(tensor.data_type)
    if kind is None:
        raise NoRuleError(_no_dtype(tensor))
    width = 2 if kind == "bfloat16" else np.dtype(kind).itemsize
    if any(n < 0 for n in tensor.dims):
        raise ValueError(f"weight {tensor.name!r} has the shape {list(tensor.dims)}")
    return width * math.prod(tensor.dims)


def _no_dtype(tensor: Any) -> str:
    from onnx import TensorProto

    known = TensorProto.DataType.values()
    kind = tensor.data_type
    kind = TensorProto.DataType.Name(kind) if kind in known else kind
    return f"weight {tensor.name!r} is of dtype {kind}: floats and integers have rules"


def to_array(tensor: Any) -> np.ndarray:
    """Return the numbers of an ONNX ``tensor`` in its own dtype.

    Raises ``NoRuleError`` for dtypes without a rule, quantised ones among them, and
    ``ValueError`` if the numbers do not fit its shape.
    """
    from onnx import numpy_helper

    need = _bytes_of(tensor)
    held = len(tensor.raw_data) if tensor.HasField("raw_data") else need
    try:
        array = numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as error:
        raise ValueError(f"the weight {tensor.name!r} is broken: {error}") from error
    if held != need or array.shape != tuple(tensor.dims):
        raise ValueError(
            f"the weight {tensor.name!r} of shape {tuple(tensor.dims)} takes {need} "
            f"bytes, not {held}"
        )
    return array
