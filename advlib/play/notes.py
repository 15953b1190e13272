"""Networks as notes: what a page needs to compute with the same numbers as torch.

A weight is a whole number times one power of two a layer, so that a weight is the same
float in any language. The network of the note is another than the one it was made from,
by rounding; it is what the page shows, and ``from_note`` makes it again.
"""

import base64
import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from advlib.networks.canonical import canonical

UNIT = 2.0**-16  # of biases


def note(
    model: nn.Module, shape: tuple[int, int, int] = (1, 28, 28), *, bits: int = 8
) -> dict:
    """Return ``model`` as a note: int8 weights in base64, one scale a layer.

    ``model``: in eval mode, layers Flatten, Linear, Conv2d (square window, equal
    strides, zero padding) and ReLU, or what ``models.canonical`` makes such layers of;
    ``shape`` (C, H, W) of one image. Weights are rounded to ``bits`` (2 to 8) bits with
    sign. The dictionary goes through JSON unchanged; ``Sides.network`` of the pages and
    ``from_note`` read it. Raises ``ValueError`` for ``bits`` that are none and weights
    that are not finite, ``TypeError`` for a layer or an order of layers that the pages
    do not have.
    """
    if not 2 <= bits <= 8:
        raise ValueError(f"bits {bits} is not between 2 and 8")
    layers, relu, here = [], True, tuple(shape)
    with torch.no_grad():
        for layer in canonical(model, shape):
            if isinstance(layer, nn.ReLU):
                if relu:
                    raise TypeError("a note has one ReLU between two affine layers")
                relu = True
                continue
            if isinstance(layer, nn.Flatten):
                continue
            if not relu:
                raise TypeError("a note has a ReLU between two affine layers")
            found, here = _layer(layer, here, bits)
            layers.append(found)
            relu = False
    if relu:
        raise TypeError("a note ends with an affine layer")
    return {"shape": list(shape), "layers": layers}


def _layer(
    layer: nn.Module, shape: tuple[int, ...], bits: int
) -> tuple[dict, tuple[int, ...]]:
    """Return one affine layer as a note, and the shape of what leaves it."""
    if isinstance(layer, nn.Linear):
        return {"kind": "dense", **_numbers(layer, bits)}, (layer.out_features,)
    if not isinstance(layer, nn.Conv2d):
        raise TypeError(f"a note has no layer {type(layer).__name__}")
    size, stride, padding = (
        set(pair) for pair in (layer.kernel_size, layer.stride, layer.padding)
    )
    plain = layer.groups == 1 and set(layer.dilation) == {1}
    if not plain or max(map(len, (size, stride, padding))) > 1:
        raise TypeError("a note's Conv2d has one group, square windows, no dilation")
    window = {"size": size.pop(), "stride": stride.pop(), "padding": padding.pop()}
    channels, height, width = shape
    window |= {"channels": channels, "height": height, "width": width}
    out = layer(torch.zeros(1, *shape).to(layer.weight)).shape[1:]
    return {"kind": "conv", "shape": window, **_numbers(layer, bits)}, tuple(out)


def _numbers(layer: nn.Linear | nn.Conv2d, bits: int) -> dict:
    """Return weights and biases as whole numbers, with their units."""
    weight = layer.weight.detach().double().cpu()
    bias = weight.new_zeros(len(weight))
    if layer.bias is not None:
        bias = layer.bias.detach().double().cpu()
    if not (weight.isfinite().all() and bias.isfinite().all()):
        raise ValueError("weights and biases must be finite")
    most, largest = 2 ** (bits - 1) - 1, float(weight.abs().max())
    scale = 2.0 ** math.ceil(math.log2(largest / most)) if largest > 0 else 1.0
    whole = (weight / scale).round().clamp(-most, most).to(torch.int8)
    return {
        "weight": base64.b64encode(whole.numpy().tobytes()).decode(),
        "scale": scale,
        "bias": [int(b) for b in (bias / UNIT).round()],
        "unit": UNIT,
    }


def from_note(note: Mapping) -> nn.Sequential:
    """Return the network of a ``note``: exactly its numbers, in float64, eval mode.

    Images (N, C, H, W) go in, logits come out. Raises ``ValueError`` for a note whose
    sizes do not fit together, ``TypeError`` for an unknown kind of layer.
    """
    layers: list[nn.Module] = []
    flat, here = False, tuple(note["shape"])
    for number, found in enumerate(note["layers"]):
        if number:
            layers.append(nn.ReLU())
        if found["kind"] == "dense" and not flat:
            layers.append(nn.Flatten())
            here, flat = (math.prod(here),), True
        layer = _read(found, here)
        layers.append(layer)
        with torch.no_grad():
            here = tuple(layer(torch.zeros(1, *here).double()).shape[1:])
    return nn.Sequential(*layers).eval().requires_grad_(False)


def _read(found: Mapping, shape: tuple[int, ...]) -> nn.Linear | nn.Conv2d:
    whole = np.frombuffer(base64.b64decode(found["weight"]), np.int8)
    bias = torch.tensor(found["bias"], dtype=torch.float64) * found["unit"]
    if found["kind"] == "dense":
        size: tuple[int, ...] = (len(bias), shape[0])
        layer: nn.Linear | nn.Conv2d = nn.Linear(shape[0], len(bias))
    elif found["kind"] == "conv":
        window = found["shape"]
        if shape != (window["channels"], window["height"], window["width"]):
            raise ValueError(f"a convolution of {window} does not take {shape}")
        size = (len(bias), shape[0], window["size"], window["size"])
        layer = nn.Conv2d(
            shape[0], len(bias), window["size"], window["stride"], window["padding"]
        )
    else:
        raise TypeError(f"no layer is called {found['kind']!r}")
    if len(whole) != math.prod(size):
        raise ValueError(f"{len(whole)} weights are not {size}")
    weight: Tensor = torch.tensor(whole.copy()).double().view(size) * found["scale"]
    layer.double().load_state_dict({"weight": weight, "bias": bias})
    return layer
