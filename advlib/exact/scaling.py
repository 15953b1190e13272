"""The same network with other units inside: values near 1 in every layer.

relu(s z) = s relu(z) for s > 0, so each layer may count in units of its own. Rounding
errors, and the smallest number that is more than one of them, are absolute numbers in
a search; a network whose weights are tiny or huge is brought near 1 first.
"""

import torch
from torch import Tensor, nn

from advlib.exact.encoding import power_of_two
from advlib.networks.canonical import with_weights
from advlib.networks.layers import Residual

FAR = 2.0**10  # values between 1 / FAR and FAR are near enough to 1


def near_one(net: nn.Sequential, x: Tensor) -> tuple[nn.Sequential, float]:
    """Return ``net`` with values near 1 in each layer, and the unit of its logits.

    ``net`` canonical, in float64; ``x`` (1, ...) gives the shape. Layer by layer the
    values at three constant images, black, grey and white, are looked at; only those
    above 1024 or below 1 / 1024 change, by a power of two. The logits of ``net`` are
    those of the result times the unit; where nothing changes it is ``net`` itself.
    """
    shade = torch.tensor([0.0, 0.5, 1.0]).to(x).view(3, *[1] * (x.dim() - 1))
    with torch.no_grad():
        layers, _, unit = _walk(net, shade.expand(3, *x.shape[1:]), 1.0, None)
    same = all(old is new for old, new in zip(net, layers, strict=True))
    return (net if same else nn.Sequential(*layers).eval()), unit


def _affine(layer: nn.Module) -> bool:
    return isinstance(layer, (nn.Linear, nn.Conv2d))


def _walk(
    net: nn.Sequential, values: Tensor, unit: float, end: float | None
) -> tuple[list[nn.Module], Tensor, float]:
    """Return the layers in new units, their values and the last unit.

    ``values`` come in, in units of ``unit``; the last affine layer returns units of
    ``end``, if that is given.
    """
    layers: list[nn.Module] = []
    last = max((i for i, m in enumerate(net) if _affine(m)), default=-1)
    for i, layer in enumerate(net):
        if _affine(layer):
            wanted = end if i == last else None
            layer, unit = _rescaled(layer, values, unit, wanted)
        elif isinstance(layer, Residual):
            parts = layer.body, layer.shortcut
            ends = [_walk(part, values, unit, unit)[0] for part in parts]
            pairs = zip(parts, ends, strict=True)
            if not all(o is n for p, e in pairs for o, n in zip(p, e, strict=True)):
                layer = Residual(*(nn.Sequential(*e) for e in ends)).eval()
        layers.append(layer)
        values = layer(values)
    return layers, values, unit


def _rescaled(
    layer: nn.Module, values: Tensor, unit: float, end: float | None
) -> tuple[nn.Module, float]:
    """Return ``layer`` for inputs in units of ``unit``, and the unit of its output."""
    bias = None if layer.bias is None else layer.bias / unit
    peak = float(with_weights(layer, layer.weight, bias)(values).abs().max())
    new = unit if end is None else end
    if end is None and 0 < peak < float("inf") and not 1 / FAR <= peak <= FAR:
        new = unit * float(power_of_two(peak))
    if unit == new == 1:
        return layer, new
    bias = None if layer.bias is None else layer.bias / new
    return with_weights(layer, layer.weight * (unit / new), bias), new
