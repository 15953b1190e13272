"""Upper bounds on the worst case from Lipschitz constants: the oldest certificate.

If every logit difference moves by at most L times the length of the step, a margin m
cannot vanish within a distance m / L. The constant of a network is bounded by the
product of its layers' operator norms: cheap, independent of the image, and loose.

Two sides here as well. ``operator_norm``, ``circular_norm`` on a padded image and what
is built on them are upper bounds; ``power_norm``, ``jacobian_norms`` and
``steepest_slopes`` come from *below*, so that a certificate must not use them.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advlib._check import check_all, check_images, check_model
from advlib.networks.canonical import (
    affine_matrix,
    canonical,
    output_shape,
    with_weights,
)
from advlib.networks.layers import Residual

NORMS = ("l2", "linf")

DENSE = 4_000_000  # entries of a convolution's matrix up to which its SVD is taken

SLOPES = {nn.ReLU: 1.0, nn.Sigmoid: 0.25}  # the steepest slope of each activation


def operator_norm(layer: nn.Module, shape: Sequence[int], *, norm: str = "l2") -> float:
    """Return an upper bound on the norm of an affine ``layer``: its Lipschitz constant.

    ``shape``: one input without batch; ``norm``: of input and output, "l2" or "linf".
    Exact up to rounding for "linf" (the largest sum of a row's absolute values) and
    for "l2" of Linear layers and small convolutions (a singular value decomposition,
    rounded up). For large convolutions an upper bound: ``circular_norm`` on an image so
    large that nothing wraps around, or sqrt(rows * columns) of the largest row sum and
    column sum where that is less. Raises ``ValueError`` for another norm,
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
        wrapped = circular_norm(layer, padded_shape(layer, shape))
        return min(math.sqrt(rows * columns), wrapped) * (1 + 1e-12)
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


def padded_shape(layer: nn.Conv2d, shape: Sequence[int]) -> tuple[int, int, int]:
    """Return an image so large that ``layer`` wraps around it without meeting itself.

    ``shape`` (C, H, W) of the input. On a torus of the size returned, a multiple of the
    stride, the outputs of the real, zero-padded convolution are among those of the
    circular one, so that ``circular_norm`` there is an upper bound on the real norm.
    """
    sides = []
    ends = output_shape(layer, shape)[1:]
    options = zip(layer.kernel_size, layer.stride, layer.padding, strict=True)
    for n, out, (k, s, p) in zip(shape[1:], ends, options, strict=True):
        least = max((out - 1) * s + k, n + p)
        sides.append(-(-least // s) * s)
    return (shape[0], *sides)


def circular_norm(layer: nn.Conv2d, shape: Sequence[int]) -> float:
    """Return the l2 norm of ``layer`` as a circular convolution: exact up to rounding.

    ``shape`` (C, H, W): the image, taken as a torus, so that padding (a shift) plays no
    part; H and W must be multiples of the stride. The Fourier transform turns the
    convolution into one small matrix per frequency; a stride adds up the frequencies
    that it cannot tell apart, side by side. Raises ``ValueError`` for a kernel larger
    than the image or a stride that does not divide it, ``TypeError`` for another layer.
    Sedghi, Gupta and Long 2019, arXiv:1805.10408, written anew, with stride.
    """
    if not isinstance(layer, nn.Conv2d) or layer.dilation != (1, 1):
        raise TypeError(f"no circular norm for {type(layer).__name__} as it is")
    (height, width), (down, right) = shape[1:], layer.stride
    if height % down or width % right:
        raise ValueError(f"stride {layer.stride} does not divide {height} x {width}")
    if any(k > n for k, n in zip(layer.kernel_size, (height, width), strict=True)):
        raise ValueError("the kernel is larger than the image")
    weight = layer.weight.detach().double()
    spectrum = torch.fft.fft2(weight, s=(height, width))  # (out, in / groups, H, W)
    out, inner = spectrum.shape[:2]
    blocks = spectrum.view(
        out, inner, down, height // down, right, width // right
    ).permute(3, 5, 0, 1, 2, 4)  # frequency of the output first, its aliases last
    blocks = blocks.reshape(-1, layer.groups, out // layer.groups, inner * down * right)
    norms = torch.linalg.matrix_norm(blocks, 2)
    return float(norms.max()) / math.sqrt(down * right)


def power_norm(
    layer: nn.Module, shape: Sequence[int], *, num_steps: int = 500, seed: int = 0
) -> float:
    """Return a lower bound on the l2 norm of an affine ``layer``: power iteration.

    ``num_steps`` of v <- W^T W v from a random start drawn from ``seed``, W^T by
    autograd, so that padding and stride are the real ones and no matrix is made.
    ``shape``: one input without batch. It converges to the norm from below. Raises
    ``ValueError`` for ``num_steps`` < 1, ``TypeError`` for a layer that is not affine.
    """
    if not isinstance(layer, (nn.Linear, nn.Conv2d)):
        raise TypeError(f"{type(layer).__name__} is not affine")
    if num_steps < 1:
        raise ValueError("need num_steps >= 1")
    free = with_weights(layer, layer.weight.detach().double(), None)
    generator = torch.Generator().manual_seed(seed)
    v = torch.randn(1, *shape, generator=generator, dtype=torch.float64).to(free.weight)
    norm = 0.0
    for _ in range(num_steps):
        v = (v / v.norm()).requires_grad_()
        image = free(v)
        norm = max(norm, float(image.detach().norm()))
        if norm == 0:
            break
        (v,) = torch.autograd.grad(image, v, image.detach())
    return norm


def layer_norms(
    model: nn.Module, shape: Sequence[int], *, norm: str = "l2"
) -> list[tuple[str, float]]:
    """Return name and Lipschitz constant of each layer of ``model`` that can stretch.

    Upper bounds in ``norm``, "l2" or "linf", after ``models.canonical``; Flatten and
    ReLU, whose constant is 1, are left out, a sigmoid counts 1/4. ``shape``: one input
    without batch. Raises what ``lipschitz_bound`` raises.
    """
    check_model(model)
    found = []
    for layer in _layers(model, shape):
        if not isinstance(layer, (nn.ReLU, nn.Flatten)):
            found.append((type(layer).__name__, _product([layer], shape, norm)))
        shape = _output_shape(layer, shape)
    return found


def lipschitz_bound(
    model: nn.Module, shape: Sequence[int], *, norm: str = "l2"
) -> float:
    """Return an upper bound on the Lipschitz constant of the logits of ``model``.

    Both sides measured in ``norm``, "l2" or "linf"; ``shape``: one input without
    batch. The product of the layers' ``operator_norm``, ReLU counting 1, a sigmoid 1/4
    and a residual sum the sum of its branches. Raises ``ValueError`` for a model in
    train mode, and what ``operator_norm`` and ``models.canonical`` raise. Szegedy et
    al. 2013, arXiv:1312.6199.
    """
    check_model(model)
    return _product(_layers(model, shape), shape, norm)


def _layers(model: nn.Module, shape: Sequence[int]) -> list[nn.Module]:
    """Return the canonical layers, with the sigmoids of the outermost Sequential."""
    found: list[nn.Module] = []
    waiting: list[nn.Module] = []
    for layer in model if isinstance(model, nn.Sequential) else [model]:
        if not isinstance(layer, nn.Sigmoid):
            waiting.append(layer)
            continue
        for inner in canonical(nn.Sequential(*waiting), shape):
            found.append(inner)
            shape = _output_shape(inner, shape)
        found.append(layer)
        waiting = []
    return [*found, *canonical(nn.Sequential(*waiting), shape)]


def _output_shape(layer: nn.Module, shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(shape) if type(layer) in SLOPES else output_shape(layer, shape)


def _product(net: Sequence[nn.Module], shape: Sequence[int], norm: str) -> float:
    bound = 1.0
    for layer in net:
        if isinstance(layer, Residual):
            body = _product(layer.body, shape, norm)
            bound *= body + _product(layer.shortcut, shape, norm)
        elif type(layer) in SLOPES:
            bound *= SLOPES[type(layer)]
        else:
            bound *= operator_norm(layer, shape, norm=norm)
        shape = _output_shape(layer, shape)
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
    net, shape = _layers(model, x.shape[1:]), x.shape[1:]
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


def jacobian_norms(model: nn.Module, x: Tensor) -> Tensor:
    """Return the l2 norm of the Jacobian of the logits at each image: (N,).

    ``x`` (N, ...) in [0, 1]. How steep ``model`` is *there*: the largest of them is a
    lower bound on its Lipschitz constant. Raises ``ValueError`` or ``TypeError`` for
    bad input and a model in train mode.
    """
    check_model(model)
    check_images(x)
    return torch.linalg.matrix_norm(_jacobians(model, x), 2)


def _jacobians(model: nn.Module, x: Tensor) -> Tensor:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        logits = model(x)
        rows = [
            torch.autograd.grad(column.sum(), x, retain_graph=True)[0].flatten(1)
            for column in logits.unbind(1)
        ]
    return torch.stack(rows, 1)  # (N, K, pixels)


def steepest_slopes(
    model: nn.Module, x: Tensor, *, length: float, num_steps: int = 20
) -> Tensor:
    """Return |h(x + r) - h(x)| / |r| of the steepest ``r`` found at each image: (N,).

    Finite differences in l2: from the Jacobian's leading direction, ``num_steps`` of
    gradient ascent on the change of the logits over the sphere of radius ``length``
    around ``x`` (N, ...), the box not kept. Each is a lower bound on the Lipschitz
    constant of ``model``. Raises ``ValueError`` for ``length`` <= 0 and ``num_steps``
    < 0, and what ``jacobian_norms`` raises.
    """
    check_model(model)
    check_images(x)
    if not length > 0 or num_steps < 0:
        raise ValueError("need length > 0 and num_steps >= 0")
    x = x.detach()
    start = torch.linalg.svd(_jacobians(model, x), full_matrices=False).Vh[:, 0]
    best = torch.zeros(len(x)).to(x)
    with torch.no_grad():
        before = model(x)
    for sign in (1, -1):
        r = sign * length * start.view_as(x)
        for step in range(num_steps + 1):
            r.requires_grad_()
            with torch.enable_grad():
                change = (model(x + r) - before).norm(dim=1)
                (slope,) = torch.autograd.grad(change.sum(), r)
            best = best.maximum(change.detach() / length)
            if step < num_steps:
                ahead = slope.flatten(1) + 1e-30
                ahead = length * ahead / ahead.norm(dim=1, keepdim=True)
                r = r.detach().flatten(1) + ahead  # then half-way, on the sphere
                r = (length * r / r.norm(dim=1, keepdim=True)).view_as(x)
    return best
