"""Which question a certificate answers: a network as read, an image, a label, a radius.

The one thing, with the form of ``files``, that who proposes and who checks have in
common; nothing here takes part in a proof.
"""

import hashlib
import math
import operator

import numpy as np
import torch
from torch import Tensor, nn

from advlib._check import check_all, check_classes
from advlib.proof.arithmetic import as_array
from advlib.proof.reading import Layer, read_chain, read_layers


def as_label(y: int | Tensor) -> int:
    """Return the label ``y``, an integer of any kind, as Python's own.

    Raises ``TypeError`` for anything else, booleans included.
    """
    truth = isinstance(y, (bool, np.bool_)) or getattr(y, "dtype", None) == torch.bool
    try:
        if not truth:
            return operator.index(y)
    except TypeError:
        pass
    raise TypeError(f"the label must be one integer, not {y!r}")


def as_radius(eps: float) -> float:
    """Return the radius ``eps`` as the very float it is.

    Raises ``ValueError`` for NaN and for a number that is no 64-bit float, such as the
    fraction 1/10: a proof for the nearest float would speak of another ball.
    """
    radius = float(eps)
    if radius != eps:
        raise ValueError(f"eps = {eps!r} is no float: pixels live in [0, 1]")
    return radius


def checked(model: nn.Module, x: Tensor, y: int, eps: float) -> tuple[int, float]:
    """Return ``y`` and ``eps`` as Python's numbers, if the question can be asked.

    That is: ``model`` in eval mode, a chain that ``read_chain`` reads, for the image
    ``x`` (without batch) in [0, 1], with at least two classes, ``y`` one of them, and 0
    <= eps <= 1. Raises ``TypeError`` and ``ValueError`` otherwise.
    """
    y, eps = as_label(y), as_radius(eps)
    label = torch.tensor([y])
    check_all(model, x[None], label, eps)
    check_classes(label, math.prod(read_chain(model, x.shape)[-1].outputs))
    return y, eps


def question(model: nn.Module, x: Tensor, y: int, eps: float) -> str:
    """Return the SHA-256 of what a certificate speaks of.

    The layers of ``model`` with their options, the numbers that are stored in them and
    their types; the image ``x``, the label ``y`` and ``eps``. Equal for networks that
    differ in nesting, names and layers that do nothing. Raises ``TypeError`` and
    ``ValueError`` for what ``read_layers``, ``as_label`` and ``as_radius`` refuse.
    """
    digest = hashlib.sha256(f"{as_label(y)} {as_radius(eps).hex()}".encode())
    for layer in read_layers(model, x.shape):
        if layer.kind != "Flatten":  # which moves no number
            _add(digest, layer)
    pixels = as_array(x)
    digest.update(f"image {x.dtype} {pixels.shape}".encode() + pixels.tobytes())
    return digest.hexdigest()


def _add(digest: "hashlib._Hash", layer: Layer) -> None:
    """Add kind, options and stored numbers of ``layer``, each with its shape."""
    image = layer.inputs if layer.kind == "Conv2d" else ()
    digest.update(f"{layer.kind} {image} {layer.groups} {layer.dtype}".encode())
    for array in (layer.weight, layer.bias, *layer.places):
        if array is not None:
            digest.update(f"{array.dtype} {array.shape}".encode() + array.tobytes())
