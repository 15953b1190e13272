"""What a certificate holds, and how it is kept."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_bytes
from safetensors.numpy import save as save_bytes

from advlib._check import check_eps
from advlib.files import atomic_write
from advlib.proof.arithmetic import RejectedError

GRID = 16  # intervals lie on multiples of 2^-16, which keeps the integers short

SLOPE_GRID = 8  # slopes below on multiples of 2^-8

PARTS = {"lower": np.int32, "upper": np.int32, "slopes": np.int16}  # as they are stored

# what a reader of foreign data meets where a part is missing or of another kind
_MALFORMED = (
    SafetensorError, RecursionError, KeyError, ValueError, TypeError, AttributeError,
    IndexError, OverflowError,
)  # fmt: skip


@dataclass(frozen=True)
class Certificate:
    """What a proof needs, for one image of class ``label`` and one ``eps``.

    ``lower``, ``upper``: per ReLU the ends (n,) of the interval of what enters it, in
    units of 2^-16, int64. ``slopes``: per ReLU (K, n), in units of 2^-8, int16, the
    slopes of the lines below: row j for the margin against class j, row ``label`` for
    the intervals of later layers. ``question``: SHA-256 of network, image, label, eps.
    """

    label: int
    eps: float
    question: str
    lower: tuple[np.ndarray, ...]
    upper: tuple[np.ndarray, ...]
    slopes: tuple[np.ndarray, ...]


def form(certificate: Certificate) -> list[tuple[int, int]]:
    """Return classes and units (K, n) of each ReLU of a ``certificate``.

    Raises ``TypeError`` for what is no certificate, ``RejectedError`` for one whose
    label, radius or question are of another kind, or whose arrays hold no integers or
    do not fit each other.
    """
    if not isinstance(certificate, Certificate):
        raise TypeError(f"need a Certificate, not a {type(certificate).__name__}")
    head = certificate.label, certificate.eps, certificate.question
    kinds = zip(head, (int, float, str), strict=True)
    if isinstance(head[0], bool) or not all(isinstance(*pair) for pair in kinds):
        raise RejectedError("label, eps and question are an int, a float and a string")
    parts = [getattr(certificate, part) for part in PARTS]
    if any(not isinstance(part, tuple) for part in parts):
        raise RejectedError("intervals and slopes are tuples, an array for each ReLU")
    if any(len(part) != len(parts[0]) for part in parts):
        raise RejectedError("need intervals and slopes for every ReLU")
    arrays = [array for part in parts for array in part]
    if any(type(a) is not np.ndarray or a.dtype.kind != "i" for a in arrays):
        raise RejectedError("intervals and slopes are integers, in steps of their grid")
    for low, high, slopes in zip(*parts, strict=True):
        shape = slopes.shape
        if len(shape) != 2 or not low.shape == high.shape == shape[1:]:
            raise RejectedError("intervals or slopes of another network, or cut")
    return [slopes.shape for slopes in certificate.slopes]


def save(
    certificates: Sequence[Certificate], path: Path | str, **notes: object
) -> None:
    """Write ``certificates`` of one network to ``path`` as safetensors: no pickle.

    ``notes`` (JSON) say where they come from. The SHA-256 of the content is stored with
    it; a process that dies leaves the old file. Raises ``ValueError`` for none at all,
    ``RejectedError`` for certificates of several networks, ``OverflowError`` for an
    interval that 32 bits do not hold, as ``form``, and for a label that is no class
    and a radius that is none. Nothing is written then.
    """
    if not certificates:
        raise ValueError("no certificates to save")
    forms = [form(certificate) for certificate in certificates]
    if any(other != forms[0] for other in forms):
        raise RejectedError("certificates of several networks: keep a file for each")
    for certificate in certificates:
        _refuse_head(certificate)  # what ``load`` would refuse, with the good ones
    tensors = {}
    for part, kind in PARTS.items():
        for k in range(len(forms[0])):
            stacked = np.stack([getattr(c, part)[k] for c in certificates])
            if (stacked != stacked.astype(kind)).any():
                raise OverflowError("an interval beyond 2^15 does not fit the file")
            tensors[f"{part}.{k}"] = stacked.astype(kind)
    head = [[c.label, float(c.eps).hex(), c.question] for c in certificates]
    record = {"certificates": head, "notes": notes}
    text = json.dumps(record, sort_keys=True)
    metadata = {"record": text, "sha256": _digest(text, tensors)}
    atomic_write(path, save_bytes(tensors, metadata))


def _digest(text: str, tensors: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        digest.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def load(path: Path | str) -> tuple[list[Certificate], dict]:
    """Return the certificates in the file ``path``, unchecked, and its notes.

    Raises ``RejectedError`` for a file that is truncated or altered, or no file of
    certificates at all.
    """
    if Path(path).is_dir():
        raise RejectedError(f"{path} is a folder, no file of certificates")
    content = Path(path).read_bytes()
    try:
        tensors = load_bytes(content)
        size = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + size])["__metadata__"]
        text, expected = metadata["record"], metadata["sha256"]
        altered = _digest(text, tensors) != expected
        record = json.loads(text)
        heads, notes = record["certificates"], dict(record["notes"])
        heads = [(label, float.fromhex(eps), asked) for label, eps, asked in heads]
    except _MALFORMED as error:
        raise RejectedError(
            "the file is no safetensors file of certificates"
        ) from error
    if altered:
        raise RejectedError("the file was altered: its SHA-256 differs")
    return _unstacked(heads, tensors), notes


def _unstacked(
    heads: list[tuple[int, float, str]], tensors: dict[str, np.ndarray]
) -> list[Certificate]:
    """Return one certificate for each of ``heads``, or refuse what does not fit."""
    many = range(len(tensors) // len(PARTS))
    names = {f"{part}.{k}": kind for part, kind in PARTS.items() for k in many}
    kinds = {name: array.dtype for name, array in tensors.items()}
    if not heads or kinds != names:
        raise RejectedError("the file lacks certificates, or parts of them")
    if any(array.shape[:1] != (len(heads),) for array in tensors.values()):
        raise RejectedError("the file lacks parts of some certificates")
    found = []
    for i, head in enumerate(heads):
        parts = [[tensors[f"{part}.{k}"][i] for k in many] for part in PARTS]
        parts = [tuple(array.astype(np.int64) for array in part) for part in parts]
        found.append(Certificate(*head, *parts))
        _refuse_head(found[-1])
    return found


def _refuse_head(certificate: Certificate) -> None:
    """Refuse a label that is no class and a radius that is none."""
    classes = {k for k, _ in form(certificate)}
    if len(classes) > 1 or any(not 0 <= certificate.label < k for k in classes):
        raise RejectedError(f"the label {certificate.label} is no class")
    try:
        check_eps(certificate.eps)
    except (TypeError, ValueError) as error:
        raise RejectedError(f"a radius of the file is none: {error}") from error
