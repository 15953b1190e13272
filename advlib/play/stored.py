"""What the pages load, read by Python: notes of networks, and images."""

import base64
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

DATA = Path(__file__).parent / "data"


def _read(name: str) -> dict:
    path = DATA / f"{name}.js"
    if not path.is_file():
        known = sorted(found.stem for found in DATA.glob("*.js"))
        raise ValueError(f"no data are called {name!r}; one of {known}")
    text = path.read_text(encoding="utf8")
    return json.loads(text.split("] = ", 1)[1].rstrip().removesuffix(";"))


def stored(name: str) -> dict:
    """Return the note of the network ``name``, as the pages have it.

    Raises ``ValueError`` for an unknown name.
    """
    return _read(name)


def images(name: str, size: int = 28) -> Tensor:
    """Return the images ``name``, (N, 1, ``size``, ``size``) in [0, 1], float64.

    Raises ``ValueError`` for an unknown name.
    """
    pixels = np.frombuffer(base64.b64decode(_read(name)["pixels"]), np.uint8)
    return torch.tensor(pixels.copy()).double().view(-1, 1, size, size) / 255
