"""Files that are there whole or not at all, and networks as the bytes of a file."""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor


def atomic_write(path: Path | str, content: bytes) -> Path:
    """Write ``content`` to the file ``path``, whole or not at all; return its path.

    A process that dies while it writes, or a full disk, leaves the old file (or none)
    as it was: the bytes go to a draft in the same folder, which then takes the file's
    name and keeps its permissions. A link is followed. Raises ``OSError`` if the folder
    is missing or cannot be written; no draft stays behind.
    """
    target = Path(path).resolve()  # or a link would be replaced by a file
    draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with draft.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # else a power cut leaves the new name, empty
        if target.exists():
            draft.chmod(target.stat().st_mode & 0o7777)
        os.replace(draft, target)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    return Path(path)


def tensor_bytes(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> bytes:
    """Return ``tensors`` by name, of any shape and device, as a safetensors file.

    ``metadata`` is stored with them. Tensors that share memory, as the weights of tied
    layers do, are stored once for each name; loaded into a network with the same ties
    they are one again.
    """
    keep = torch.contiguous_format  # safetensors refuses views, and shared memory
    own = {k: v.detach().cpu().clone(memory_format=keep) for k, v in tensors.items()}
    return save(own, None if metadata is None else dict(metadata))
