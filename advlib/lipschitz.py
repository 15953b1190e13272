"""Upper bounds on the worst case from Lipschitz constants: the oldest certificate.

If every logit difference moves by at most L times the length of the step, a margin m
cannot vanish within a distance m / L. The constant of a network is bounded by the
product of its layers' operator norms: cheap, independent of the image, and loose.

Each norm here is an upper bound. A power iteration converges to the l2 norm from
*below*, so a certificate must not use one.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advlib._check import check_all, check_model
from advlib.models import Residual, affine_matrix, canonical, output_shape

NORMS = ("l2", "linf")
DENSE = 4_000_000  # entries of a convolution's matrix up to which its SVD is taken


def operator_norm(layer: nn.Module, shape: Sequence[int], *, norm: str = "l2") -> float:
    """Return an upper bound on the norm of an affine ``layer``: its Lipschitz constant.

    ``shape``: one input without batch; ``norm``: of input and output, "l2" or "linf".
    Exact up to rounding for "linf" (the largest sum of a row's absolute values) and
    for "l2" of Linear layers and small convolutions (a singular value decomposition,
    rounded up); for large convolutions sqrt(rows * columns), the geometric mean of the
    largest row sum and column sum. Raises ``ValueError`` for another norm,
    ``TypeError`` for another layer.
    """
    if norm not in NORMS:
        raise ValueError(f"norm {norm!r} is none of {NORMS}")
    if isinstance(layer, nn.Flatten):
        return 1.0
    if not isinstance(layer, (nn.Linear, nn.Conv2d)):
        raise TypeError(f"no operator norm for {type(layer).__name__}")
    rows = float(_absolute(layer, shape).max())
    if norm == "linf":
        return rows * (1 + 1e-12)
    size = math.prod(shape) * math.prod(output_shape(layer, shape))
    if isinstance(layer, nn.Conv2d) and size > DENSE:
        columns = float(_absolute(layer, shape, transposed=True).max())
        return math.sqrt(rows * columns) * (1 + 1e-12)
    weight, _ = affine_matrix(layer, shape)
    return float(torch.linalg.matrix_norm(weight.double(), 2)) * (1 + 1e-12)


def _absolute(
    layer: nn.Module, shape: Sequence[int], transposed: bool = False
) -> Tensor:
    """Return the row sums (or the column sums) of the absolute values of the matrix."""
    weight = layer.weight.detach().double().abs()
    if isinstance(layer, nn.Linear):
        return weight.sum(0 if transposed else 1)
    ends = output_shape(layer, shape) if transposed else shape
    ones = torch.ones(1, *ends, dtype=torch.float64, device=weight.device)
    options = layer.stride, layer.padding
    if transposed:
        return F.conv_transpose2d(ones, weight, None, *options, groups=layer.groups)
    return F.conv2d(ones, weight, None, *options, groups=layer.groups)


def lipschitz_bound(
    model: nn.Module, shape: Sequence[int], *, norm: str = "l2"
) -> float:
    """Return an upper bound on the Lipschitz constant of the logits of ``model``.

    Both sides measured in ``norm``, "l2" or "linf"; ``shape``: one input without
    batch. The product of the layers' ``operator_norm``, ReLU counting 1 and a residual
    sum the sum of its branches. Raises ``ValueError`` for a model in train mode, and
    what ``operator_norm`` and ``models.canonical`` raise. Szegedy et al. 2013,
    arXiv:1312.6199.
    """
    check_model(model)
    return _product(canonical(model, shape), shape, norm)


def _product(net: Sequence[nn.Module], shape: Sequence[int], norm: str) -> float:
    bound = 1.0
    for layer in net:
        if isinstance(layer, Residual):
            body = _product(layer.body, shape, norm)
            bound *= body + _product(layer.shortcut, shape, norm)
        elif not isinstance(layer, nn.ReLU):
            bound *= operator_norm(layer, shape, norm=norm)
        shape = output_shape(layer, shape)
    return bound


def lipschitz_margins(
    model: nn.Module, x: Tensor, y: Tensor, eps: float, *, norm: str = "l2"
) -> Tensor:
    """Return lower bounds on z_y - z_j of ``model`` over a ball by norms: (N, K).

    ``x`` (N, ...) in [0, 1], ``y`` (N,) int64, ``eps`` in units of ``x``, the radius
    in ``norm``, "l2" or "linf". The margin at ``x`` less ``eps`` times a Lipschitz
    constant of it: that of the last hidden layer times the dual norm of the
    difference of two rows of the last layer. Column y is 0. Sound up to rounding, and
    holds beyond [0, 1], too. Raises ``ValueError`` or ``TypeError`` for bad input,
    unknown layers and a model that does not end with a Linear layer. Tsuzuku, Sato and
    Sugiyama 2018, arXiv:1802.04034.
    """
    check_all(model, x, y, eps, norm)
    net, shape = canonical(model, x.shape[1:]), x.shape[1:]
    if len(net) == 0 or not isinstance(net[-1], nn.Linear):
        raise TypeError("the last layer is not Linear")
    weight = net[-1].weight.detach()
    if not (y < len(weight)).all():
        raise ValueError(f"a label is none of the {len(weight)} classes")
    constant = _product(net[:-1], shape, norm)
    with torch.no_grad():
        logits = model(x)
    rows = weight[y][:, None] - weight
    slopes = torch.linalg.vector_norm(rows, 2 if norm == "l2" else 1, dim=2)
    return logits.gather(1, y[:, None]) - logits - eps * constant * slopes
