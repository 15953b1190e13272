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

from advlib._check import (
    ask,
    check_all,
    check_classes,
    check_counts,
    check_dtype,
    check_images,
    check_logits,
    check_model,
    outside_inference,
    run_model,
)
from advlib.networks import gate
from advlib.networks.canonical import canonical, output_shape, with_weights
from advlib.networks.gate import is_kind
from advlib.networks.layers import Residual
from advlib.networks.sparse import padding_ends, sparse_matrix, window_sides

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
    column sum where that is less. Any stride, dilation, groups and padding by zeros.
    Raises ``ValueError`` for another norm and an input that does not fit,
    ``TypeError`` for another layer or padding and what ``gate.refuse_hidden`` refuses.
    """
    if norm not in NORMS:
        raise ValueError(f"norm {norm!r} is none of {NORMS}")
    gate.refuse_hidden(layer)
    if is_kind(layer, nn.Flatten):
        return 1.0
    if is_kind(layer, nn.Linear):
        return _dense_norm(layer, shape, norm)
    if not is_kind(layer, nn.Conv2d):
        raise TypeError(f"no operator norm for {type(layer).__name__}")
    (high, *_), (wide, *_) = window_sides(layer, shape)
    rows = float(_absolute(layer, shape).max())
    if norm == "linf":
        return rows * (1 + 1e-12)
    if math.prod(shape) * layer.out_channels * high * wide > DENSE:
        columns = float(_absolute(layer, shape, transposed=True).max())
        wrapped = circular_norm(layer, padded_shape(layer, shape))
        return min(math.sqrt(rows * columns), wrapped) * (1 + 1e-12)
    weight = torch.from_numpy(sparse_matrix(layer, shape)[0].toarray())
    return float(torch.linalg.matrix_norm(weight, 2)) * (1 + 1e-12)


def _dense_norm(layer: nn.Linear, shape: Sequence[int], norm: str) -> float:
    """Return the norm of a Linear ``layer``, which acts on the last dimension alone."""
    weight = layer.weight.detach().double()
    if tuple(shape[-1:]) != (weight.shape[1],):
        raise ValueError(f"{type(layer).__name__} does not take inputs of {shape}")
    if norm == "linf":
        return float(weight.abs().sum(1).max()) * (1 + 1e-12)
    return float(torch.linalg.matrix_norm(weight, 2)) * (1 + 1e-12)


def _absolute(
    layer: nn.Conv2d, shape: Sequence[int], transposed: bool = False
) -> Tensor:
    """Return the row sums (or the column sums) of the absolute values of the matrix.

    Each entry of the matrix is one entry of the kernel.
    """
    weight = layer.weight.detach().double().abs()
    ends = [end for side in reversed(padding_ends(layer)) for end in side]
    options = {"stride": layer.stride, "dilation": layer.dilation}
    options |= {"groups": layer.groups}
    with torch.inference_mode(False), torch.enable_grad():
        ones = torch.ones(1, *shape, dtype=torch.float64, device=weight.device)
        ones.requires_grad_(transposed)
        rows = F.conv2d(F.pad(ones, ends), weight.clone(), **options)
        return torch.autograd.grad(rows.sum(), ones)[0] if transposed else rows


def padded_shape(layer: nn.Conv2d, shape: Sequence[int]) -> tuple[int, int, int]:
    """Return an image so large that ``layer`` wraps around it without meeting itself.

    ``shape`` (C, H, W) of the input. On a torus of the size returned, a multiple of the
    stride, the outputs of the real, zero-padded convolution are among those of the
    circular one, so that ``circular_norm`` there is an upper bound on the real norm.
    Raises ``ValueError`` for an input that does not fit, ``TypeError`` for another
    layer and padding by anything but zeros.
    """
    if not is_kind(layer, nn.Conv2d):
        raise TypeError(f"no padded image for {type(layer).__name__}")
    sides = []
    for n, (out, s, k, p) in zip(shape[1:], window_sides(layer, shape), strict=True):
        least = max((out - 1) * s + k, n + p)
        sides.append(-(-least // s) * s)
    return (shape[0], *sides)


def circular_norm(layer: nn.Conv2d, shape: Sequence[int]) -> float:
    """Return the l2 norm of ``layer`` as a circular convolution: exact up to rounding.

    ``shape`` (C, H, W): the image, taken as a torus, so that padding (a shift) plays no
    part; H and W must be multiples of the stride; dilation puts zeros between the
    kernel's entries. The Fourier transform turns the
    convolution into one small matrix per frequency; a stride adds up the frequencies
    that it cannot tell apart, side by side. Raises ``ValueError`` for a kernel larger
    than the image, a stride that does not divide it and other channels, ``TypeError``
    for another layer and what ``gate.refuse_hidden`` refuses. Sedghi, Gupta and Long
    2019, arXiv:1805.10408, written anew, with stride.
    """
    gate.refuse_hidden(layer)
    if not is_kind(layer, nn.Conv2d):
        raise TypeError(f"no circular norm for {type(layer).__name__} as it is")
    if len(shape) != 3 or shape[0] != layer.in_channels:
        raise ValueError(f"the layer does not take images of {tuple(shape)}")
    (height, width), (down, right) = shape[1:], layer.stride
    if height % down or width % right:
        raise ValueError(f"stride {layer.stride} does not divide {height} x {width}")
    weight = _spread(layer)
    if any(k > n for k, n in zip(weight.shape[2:], (height, width), strict=True)):
        raise ValueError("the kernel is larger than the image")
    spectrum = torch.fft.fft2(weight, s=(height, width))  # (out, in / groups, H, W)
    out, inner = spectrum.shape[:2]
    blocks = spectrum.view(
        out, inner, down, height // down, right, width // right
    ).permute(3, 5, 0, 1, 2, 4)  # frequency of the output first, its aliases last
    blocks = blocks.reshape(-1, layer.groups, out // layer.groups, inner * down * right)
    norms = torch.linalg.matrix_norm(blocks, 2)
    return float(norms.max()) / math.sqrt(down * right)


def _spread(layer: nn.Conv2d) -> Tensor:
    """Return the kernel in float64, with zeros where its dilation has gaps."""
    weight, (down, right) = layer.weight.detach().double(), layer.dilation
    if (down, right) == (1, 1):
        return weight
    high, wide = (
        (n - 1) * d + 1 for n, d in zip(weight.shape[2:], (down, right), strict=True)
    )
    spread = weight.new_zeros(*weight.shape[:2], high, wide)
    spread[..., ::down, ::right] = weight
    return spread


@outside_inference
def power_norm(
    layer: nn.Module, shape: Sequence[int], *, num_steps: int = 500, seed: int = 0
) -> float:
    """Return a lower bound on the l2 norm of an affine ``layer``: power iteration.

    ``num_steps`` of v <- W^T W v from a random start drawn from ``seed``, W^T by
    autograd, so that padding and stride are the real ones and no matrix is made.
    ``shape``: one input without batch. It converges to the norm from below. Raises
    ``ValueError`` for ``num_steps`` < 1 and an input that does not fit, ``TypeError``
    for a layer that is not affine, padding by anything but zeros and what
    ``gate.refuse_hidden`` refuses.
    """
    gate.refuse_hidden(layer)
    if not is_kind(layer, nn.Linear, nn.Conv2d):
        raise TypeError(f"{type(layer).__name__} is not affine")
    check_counts(1, num_steps=num_steps)
    if is_kind(layer, nn.Conv2d):
        window_sides(layer, shape)  # refuses inputs that do not fit
    elif tuple(shape[-1:]) != (layer.in_features,):
        raise ValueError(f"{type(layer).__name__} does not take inputs of {shape}")
    free = with_weights(layer, layer.weight.detach().double().clone(), None)
    generator = torch.Generator().manual_seed(seed)
    v = torch.randn(1, *shape, generator=generator, dtype=torch.float64).to(free.weight)
    norm = 0.0
    for _ in range(num_steps):
        v = (v / v.norm()).requires_grad_()
        with torch.enable_grad():
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


def _layers(model: nn.Module, shape: Sequence[int]) -> nn.Sequential:
    """Return the canonical layers, with the sigmoids of nested Sequentials."""
    gate.refuse_hidden(model)
    parts = gate.flat_layers(model)
    if not any(is_kind(part, nn.Sigmoid) for part in parts):
        return canonical(model, shape)
    found: list[nn.Module] = []
    waiting: list[nn.Module] = []
    for part in parts:
        if not is_kind(part, nn.Sigmoid):
            waiting.append(part)
            continue
        for inner in canonical(nn.Sequential(*waiting), shape):
            found.append(inner)
            shape = _output_shape(inner, shape)
        found.append(nn.Sigmoid())
        waiting = []
    return nn.Sequential(*found, *canonical(nn.Sequential(*waiting), shape)).eval()


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
    if norm not in NORMS:
        raise ValueError(f"norm {norm!r} is none of {NORMS}")
    check_dtype(model, x)
    net, shape = _layers(model, x.shape[1:]), x.shape[1:]
    if len(net) == 0 or not isinstance(net[-1], nn.Linear):
        raise TypeError("the last layer is not Linear")
    weight = net[-1].weight.detach()
    check_classes(y, len(weight))
    logits = ask(model, x)
    gate.compare(model, net, x)
    constant = _product(net[:-1], shape, norm)
    rows = weight[y][:, None] - weight
    slopes = torch.linalg.vector_norm(rows, 2 if norm == "l2" else 1, dim=2)
    return logits.gather(1, y[:, None]) - logits - eps * constant * slopes


@outside_inference
def jacobian_norms(model: nn.Module, x: Tensor) -> Tensor:
    """Return the l2 norm of the Jacobian of the outputs at each image: (N,).

    ``x`` (N, ...) in [0, 1]; ``model`` returns (N, K), any number K. How steep it is
    *there*: the largest of them is a lower bound on its Lipschitz constant. Raises
    ``ValueError`` or ``TypeError`` for bad input, a model in train mode, outputs or
    slopes that are not finite, outputs of another shape, and backward hooks.
    """
    check_model(model)
    check_images(x)
    gate.refuse_backward_hooks(model)
    return torch.linalg.matrix_norm(_jacobians(model, x), 2)


def _outputs(model: nn.Module, x: Tensor) -> Tensor:
    """Return (N, K) outputs, K >= 1, of ``model``, which may work on ``x`` in place."""
    outputs = run_model(model, x)
    if isinstance(outputs, Tensor) and outputs.shape == (len(x), 1):
        if not outputs.isfinite().all():
            raise ValueError("the output holds NaN or infinity: look at the weights")
        return outputs
    return check_logits(outputs, len(x))


def _jacobians(model: nn.Module, x: Tensor) -> Tensor:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        outputs = _outputs(model, x.clone())
        if not outputs.requires_grad:
            raise ValueError("no gradient of the outputs reaches the images")
        rows = [
            torch.autograd.grad(column.sum(), x, retain_graph=True)[0].flatten(1)
            for column in outputs.unbind(1)
        ]
    found = torch.stack(rows, 1)  # (N, K, pixels)
    if not found.isfinite().all():
        raise ValueError("a slope of the model at an image is infinite or NaN")
    return found


@outside_inference
def steepest_slopes(
    model: nn.Module, x: Tensor, *, length: float, num_steps: int = 20
) -> Tensor:
    """Return |h(x + r) - h(x)| / |r| of the steepest ``r`` found at each image: (N,).

    Finite differences in l2: from the Jacobian's leading direction, ``num_steps`` of
    gradient ascent on the change of the outputs over the sphere of radius ``length``
    around ``x`` (N, ...), the box not kept. Each is a lower bound on the Lipschitz
    constant of ``model``. Raises ``ValueError`` for ``length`` <= 0 and ``num_steps``
    < 0, and what ``jacobian_norms`` raises, at x + r, too.
    """
    check_model(model)
    check_images(x)
    if not 0 < length < math.inf or num_steps < 0:
        raise ValueError("need a finite length > 0 and num_steps >= 0")
    check_counts(0, num_steps=num_steps)
    x = x.detach()
    start = torch.linalg.svd(_jacobians(model, x), full_matrices=False).Vh[:, 0]
    best = torch.zeros(len(x)).to(x)
    with torch.no_grad():
        before = _outputs(model, x.clone())
    for sign in (1, -1):
        r = sign * length * start.view_as(x)
        for step in range(num_steps + 1):
            r.requires_grad_()
            with torch.enable_grad():
                change = (_outputs(model, x + r) - before).norm(dim=1)
                (slope,) = torch.autograd.grad(change.sum(), r)
            best = best.maximum(change.detach() / length)
            if step < num_steps:
                if not slope.isfinite().all():
                    raise ValueError("a slope of the model is infinite or NaN")
                ahead = slope.flatten(1) + 1e-30
                ahead = length * ahead / ahead.norm(dim=1, keepdim=True)
                r = r.detach().flatten(1) + ahead  # then half-way, on the sphere
                r = (length * r / r.norm(dim=1, keepdim=True)).view_as(x)
    return best
