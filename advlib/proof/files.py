"""What a certificate holds, which question it answers, and how it is kept."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_bytes
from safetensors.numpy import save as save_bytes
from torch import Tensor, nn

from advlib.proof.arithmetic import RejectedError

GRID = 16  # intervals lie on multiples of 2^-16, which keeps the integers short

SLOPE_GRID = 8  # slopes below on multiples of 2^-8


@dataclass(frozen=True)
class Certificate:
    """What a proof needs, for one image of class ``label`` and one ``eps``.

    ``lower``, ``upper``: per ReLU the ends (n,) of the interval of what enters it, in
    units of 2^-16, int64. ``slopes``: per ReLU (K, n), in units of 2^-8, int16, the
    slopes of the lines below: row j for the margin against class j, row ``label`` for
    the intervals of later layers. ``question``: SHA-256 of weights, image, label, eps.
    """

    label: int
    eps: float
    question: str
    lower: tuple[np.ndarray, ...]
    upper: tuple[np.ndarray, ...]
    slopes: tuple[np.ndarray, ...]


def question(model: nn.Module, x: Tensor, y: int, eps: float) -> str:
    """Return the SHA-256 of the weights, names and shapes of ``model``, ``x``, ``y``,
    ``eps``: of what a certificate speaks of.
    """
    digest = hashlib.sha256(f"{y} {float(eps).hex()} {tuple(x.shape)}".encode())
    parts = [*model.state_dict().items(), ("x", x)]
    for name, value in parts:
        kind = f"{name} {value.dtype} {tuple(value.shape)}"
        digest.update(kind.encode() + value.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


def save(
    certificates: Sequence[Certificate], path: Path | str, **notes: object
) -> None:
    """Write ``certificates`` of one network to ``path`` as safetensors: no pickle.

    ``notes`` (JSON) say where they come from. The SHA-256 of the content is stored
    with it. Raises ``OverflowError`` for an interval that 32 bits do not hold.
    """
    tensors = {}
    for part in ("lower", "upper", "slopes"):
        for k in range(len(certificates[0].lower)):
            stacked = np.stack([getattr(c, part)[k] for c in certificates])
            kind = np.int32 if part != "slopes" else np.int16
            if (stacked != stacked.astype(kind)).any():
                raise OverflowError("an interval beyond 2^15 does not fit the file")
            tensors[f"{part}.{k}"] = stacked.astype(kind)
    head = [[c.label, float(c.eps).hex(), c.question] for c in certificates]
    record = {"certificates": head, "notes": notes}
    text = json.dumps(record, sort_keys=True)
    metadata = {"record": text, "sha256": _digest(text, tensors)}
    Path(path).write_bytes(save_bytes(tensors, metadata))


def _digest(text: str, tensors: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(name.encode() + np.ascontiguousarray(tensors[name]).tobytes())
    return digest.hexdigest()


def load(path: Path | str) -> tuple[list[Certificate], dict]:
    """Return the certificates in the file ``path``, unchecked, and its notes.

    Raises ``RejectedError`` for a file that is truncated or altered.
    """
    content = Path(path).read_bytes()
    try:
        tensors = load_bytes(content)
        size = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + size])["__metadata__"]
        text, expected = metadata["record"], metadata["sha256"]
    except (SafetensorError, KeyError, ValueError) as error:
        raise RejectedError(
            "the file is no safetensors file of certificates"
        ) from error
    if _digest(text, tensors) != expected:
        raise RejectedError("the file was altered: its SHA-256 differs")
    record = json.loads(text)
    found = []
    for i, (label, eps, asked) in enumerate(record["certificates"]):
        parts = [
            tuple(
                tensors[f"{part}.{k}"][i].astype(np.int64)
                for k in range(len(tensors) // 3)
            )
            for part in ("lower", "upper", "slopes")
        ]
        found.append(Certificate(label, float.fromhex(eps), asked, *parts))
    return found, record["notes"]
