"""Results of long experiments: one JSON file each, with where it came from.

A chapter plots ``load(name)["data"]`` and re-runs a smaller version live. The record
says by which command, from which seeds and images, with which versions and in what
time; its digest shows an edit by hand.
"""

import base64
import binascii
import hashlib
import json
import platform
import re
import zlib
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import numpy as np

from advlib.files import atomic_write

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "numpy", "cvxpy", "highspy")
PACKED = ("bool", "int8", "uint8")  # what ``pack`` takes: masks and small integers
KEYS = {
    "command": str,
    "seeds": list,
    "dataset": str,
    "versions": dict,
    "seconds": (int, float),
    "data": (dict, list),
}


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Return the versions of Python and of those ``packages`` that are installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package).split("+")[0]
        except metadata.PackageNotFoundError:
            continue
    return found


def _digest(record: dict) -> str:
    text = json.dumps(record, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _text(content: dict) -> str:
    """Return it as JSON, indented, the innermost lists and objects on one line each."""
    text = json.dumps(content, indent=1) + "\n"
    return re.sub(r"[\[{][^][{}]*[\]}]", lambda m: re.sub(r"\n *", " ", m[0]), text)


def save(
    name: str,
    data: dict | list,
    *,
    command: str,
    seeds: Sequence[int],
    dataset: str,
    seconds: float,
    packages: Sequence[str] = PACKAGES,
) -> Path:
    """Write ``data`` and its provenance to ``advlib/results/NAME.json``; return it.

    ``name`` of the experiment, ``data`` of numbers, strings, lists and dictionaries;
    ``command`` that makes it again, ``seeds`` used, ``dataset`` in words, ``seconds``
    it took, ``packages`` whose versions matter. Raises ``ValueError`` for a name that
    is no plain word and for NaN or infinity, ``TypeError`` for what JSON cannot hold.
    """
    record = {
        "command": command,
        "seeds": list(seeds),
        "dataset": dataset,
        "versions": versions(packages),
        "seconds": round(seconds, 1),
        "data": data,
    }
    record = json.loads(json.dumps(record, allow_nan=False))  # tuples become lists
    path = _path(name)
    path.parent.mkdir(exist_ok=True)
    content = record | {"sha256": _digest(record)}
    return atomic_write(path, _text(content).encode())


def load(name: str) -> dict:
    """Return the record of experiment ``name``: data, command, seeds, versions, ...

    Raises ``FileNotFoundError``, with the names there are, if it was never run, and
    ``ValueError`` if the file is not what ``save`` wrote.
    """
    path = _path(name)
    if not path.is_file():
        names = sorted(p.stem for p in RESULTS.glob("*.json"))
        raise FileNotFoundError(f"no results {name!r}; there are {names}")
    try:
        record = json.loads(path.read_text("utf-8"))
        digest = record.pop("sha256")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path.name} is truncated or no record") from error
    wrong = [k for k, kind in KEYS.items() if not isinstance(record.get(k), kind)]
    if wrong or set(record) != set(KEYS):
        raise ValueError(f"{path.name} lacks or adds entries; to check: {wrong}")
    if _digest(record) != digest:
        raise ValueError(f"{path.name} was altered; remake it: {record['command']}")
    return record


def pack(array: np.ndarray) -> str:
    """Return ``array``, a mask or small integers of any shape, as text for a record.

    The text names type and shape, and holds the bytes compressed; ``unpack`` reads it
    back exactly. Raises ``ValueError`` for a type that is not one of ``PACKED``.
    """
    array = np.asarray(array)
    if array.dtype.name not in PACKED:
        raise ValueError(f"pack takes {', '.join(PACKED)}, not {array.dtype.name}")
    shape = "x".join(map(str, array.shape))
    content = base64.b64encode(zlib.compress(array.tobytes(), 9)).decode()
    return f"{array.dtype.name} {shape} {content}"


def unpack(text: str) -> np.ndarray:
    """Return the array that ``pack`` made ``text`` of.

    Raises ``ValueError`` for a text that ``pack`` does not write.
    """
    try:
        kind, shape, content = text.split(" ")
        if kind not in PACKED:
            raise ValueError(f"the type {kind!r} is none of {PACKED}")
        raw = zlib.decompress(base64.b64decode(content, validate=True))
        sides = [int(side) for side in shape.split("x") if side]
        return np.frombuffer(raw, dtype=kind).reshape(sides).copy()
    except (ValueError, binascii.Error, zlib.error) as error:
        raise ValueError(f"no packed array: {error}") from error


def _path(name: str) -> Path:
    if not name.replace("_", "").replace("-", "").isalnum():
        raise ValueError(f"the name of a result is letters, digits, _ or -: {name!r}")
    return RESULTS / f"{name}.json"
