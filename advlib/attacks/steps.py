"""Gradients, steps and projections: what all attacks have in common.

Losses are summed over the batch, so that one image's gradient does not depend on its
neighbours, and ``delta`` is projected; a clamp inside the graph would zero the gradient
of every pixel that touches the box.
"""

import torch
from torch import Tensor, nn

from advlib._check import (
    NORMS,
    check_classes,
    check_logits,
    explain,
    outside_inference,
    run_model,
)
from advlib.attacks.losses import Loss, cross_entropy


@outside_inference
def input_gradient(
    model: nn.Module, x: Tensor, y: Tensor, loss: Loss = cross_entropy
) -> Tensor:
    """Return the gradient of each image's ``loss`` in its own pixels, shaped as ``x``.

    ``model`` maps images ``x`` (N, ...) to logits (N, K); ``loss`` maps these and the
    labels ``y`` (N,) to losses (N,). The parameters' gradients are left alone, and so
    is ``x`` by a model that works in place. Works inside ``torch.no_grad()`` and
    ``torch.inference_mode()`` too. NaN and infinite entries are returned as they are.
    Raises ``ValueError`` or ``TypeError`` if a label is not below K, for anything but
    (N, K) finite logits with K >= 2, and for images and weights of two dtypes.
    """
    return logits_and_gradient(model, x, None, y, loss)[1]


def logits_and_gradient(
    model: nn.Module,
    x: Tensor,
    delta: Tensor | None,
    y: Tensor,
    loss: Loss,
    *,
    first: bool = True,
) -> tuple[Tensor, Tensor]:
    """Return logits at ``x + delta``, and the gradient of ``loss``, as ``x``.

    ``model``, ``x``, ``y``, ``loss`` as ``input_gradient``, whose errors are raised;
    ``delta`` None is zero. Labels are looked at where ``first`` is set, the logits
    always: NaN and infinity would decide at any point. Parameters cost nothing.
    """
    leaf = (x if delta is None else delta).detach().requires_grad_()
    with torch.enable_grad():
        # not a leaf: the model may work in place on it
        point = leaf.clone() if delta is None else x.detach() + leaf
        logits = check_logits(run_model(model, point), len(x))
        if first:
            check_classes(y, logits.shape[1])
        try:
            (gradient,) = torch.autograd.grad(loss(logits, y).sum(), leaf)
        except RuntimeError as error:
            explain(error)
            raise
    return logits.detach(), gradient


def steepest_direction(
    gradient: Tensor, norm: str = "linf", *, share: float = 0.0
) -> Tensor:
    """Return the unit step ``v`` of each image that maximises ``<gradient, v>``.

    ``gradient`` (N, ...); ``norm`` of the step. l-inf: the sign; l2: the direction;
    l1: the coordinate of largest slope. With ``share`` > 0 an l1 step is spread evenly
    over that share of the coordinates: no longer steepest, but many pixels move
    (Tramer and Boneh 2019, arXiv:1904.13000). Where the gradient is zero, so is ``v``.
    An entry that is NaN counts as zero; an infinite one as the largest, with its sign:
    in l2 as large as the image's largest finite one, so that it does not silence the
    others. Raises ``ValueError`` for an unknown norm or a share outside [0, 1].
    """
    if norm not in NORMS or not 0 <= share <= 1:
        raise ValueError(f"need a norm of {NORMS} and 0 <= share <= 1")
    if norm == "linf":
        return gradient.sign()
    if norm == "l2":
        return unit_length(gradient)
    flat = gradient.flatten(1).nan_to_num(0.0, torch.inf, -torch.inf)
    chosen = flat.abs().topk(max(1, round(share * flat.shape[1])), dim=1).indices
    step = torch.zeros_like(flat).scatter(1, chosen, flat.gather(1, chosen).sign())
    return (step / step.abs().sum(1, keepdim=True).clamp(min=1)).view_as(gradient)


def project(
    delta: Tensor,
    eps: float,
    norm: str = "linf",
    *,
    lower: Tensor | None = None,
    upper: Tensor | None = None,
) -> Tensor:
    """Return the point of the ball, and of the box, nearest to ``delta`` in l2.

    ``delta`` (N, ...) is projected onto ``||delta||_norm <= eps`` intersected with
    ``lower <= delta <= upper`` (shaped as ``delta``, around zero; for images in [0, 1]
    these are ``-x`` and ``1 - x``). Exact but for rounding, which never leaves the
    set. Raises ``ValueError`` for an unknown norm, a negative ``eps`` or a box that
    does not hold zero.
    """
    if norm not in NORMS or not eps >= 0:
        raise ValueError(f"need a norm of {NORMS} and eps >= 0, not {norm}, {eps}")
    lower = torch.full_like(delta, -torch.inf) if lower is None else lower
    upper = torch.full_like(delta, torch.inf) if upper is None else upper
    if not ((lower <= 0).all() and (upper >= 0).all()):
        raise ValueError("need lower <= 0 <= upper")
    if norm == "linf":
        return delta.clamp(-eps, eps).clamp(lower, upper)
    return (project_l2 if norm == "l2" else project_l1)(delta, eps, lower, upper)


def project_l2(delta: Tensor, eps: float, lower: Tensor, upper: Tensor) -> Tensor:
    """Project ``delta`` onto the l2 ball ``eps`` and the box ``lower``, ``upper``.

    Scale, then clip: Newton's method on the scale, which only grows.
    """
    z = delta.flatten(1).double()
    cap = torch.where(z > 0, upper.flatten(1), -lower.flatten(1)).double()
    scale, z = torch.zeros_like(z[:, :1]), z.abs()
    outside = torch.linalg.vector_norm(z.minimum(cap), dim=1, keepdim=True) > eps
    for _ in range(z.shape[1] + 1):
        full = scale * z >= cap
        rest = eps**2 - (cap.square() * full).nan_to_num().sum(1, keepdim=True)
        free = (z.square() * ~full).sum(1, keepdim=True)
        grown = torch.where(free > 0, rest.clamp(min=0) / free, 1.0).sqrt()
        grown = torch.where(outside, grown, 1.0).maximum(scale)
        if torch.equal(grown, scale):
            break
        scale = grown
    shrunk = delta * scale.to(delta).view(-1, *[1] * (delta.dim() - 1))
    return shrink(shrunk.clamp(lower, upper), eps)


def project_l1(delta: Tensor, eps: float, lower: Tensor, upper: Tensor) -> Tensor:
    """Project ``delta`` onto the l1 ball ``eps`` and the box ``lower``, ``upper``.

    Soft-threshold, then clip: the length is piecewise linear in the threshold.
    """
    z = delta.flatten(1).double()
    cap = torch.where(z > 0, upper.flatten(1), -lower.flatten(1)).double()
    z = z.abs()
    kinks = torch.cat([(z - cap).clamp(min=0), z], 1)  # there a pixel starts, ends
    change = torch.cat([-torch.ones_like(z), torch.ones_like(z)], 1)
    kinks, order = kinks.sort(1)
    slope = change.gather(1, order).cumsum(1)
    width = kinks.diff(dim=1, prepend=torch.zeros_like(kinks[:, :1]))
    before = torch.cat([torch.zeros_like(slope[:, :1]), slope[:, :-1]], 1)
    length = z.minimum(cap).sum(1, keepdim=True) + (width * before).cumsum(1)
    length[:, -1] = 0  # but for rounding it is
    first = (length <= eps).int().argmax(1, keepdim=True)
    pace = before.gather(1, first)
    over = length.gather(1, first) - eps
    threshold = kinks.gather(1, first) - torch.where(pace < 0, over / pace, 0.0)
    inside = z.minimum(cap).sum(1, keepdim=True) <= eps
    threshold = torch.where(inside, 0.0, threshold).to(delta)
    threshold = threshold.view(-1, *[1] * (delta.dim() - 1))
    shrunk = delta.sign() * (delta.abs() - threshold).clamp(min=0)
    return shrink(shrunk.clamp(lower, upper), eps, 1)


def free_room(x: Tensor, box: bool, eps: float | None = None) -> tuple[Tensor, Tensor]:
    """Return how far each pixel of ``x`` may go: the ``box``, and l-inf ``eps``."""
    x, radius = x.detach(), torch.inf if eps is None else _held(eps, x.dtype)
    lower, upper = torch.full_like(x, -radius), torch.full_like(x, radius)
    return (lower.maximum(-x), upper.minimum(1 - x)) if box else (lower, upper)


def _held(eps: float, dtype: torch.dtype) -> float:
    """Return ``eps``, or, in half precision, the largest number not above it.

    Rounded to nearest, a bfloat16 radius is up to 0.4 % too large; a float32 one by
    less than the sum of image and perturbation is rounded.
    """
    if torch.finfo(dtype).eps <= torch.finfo(torch.float32).eps:
        return eps
    nearest = torch.tensor(float(eps), dtype=dtype, device="cpu")
    below = torch.nextafter(nearest, torch.zeros_like(nearest))
    return float(nearest if float(nearest) <= eps else below)


def uniform_like(x: Tensor, generator: torch.Generator) -> Tensor:
    """Return uniform numbers in [0, 1], shaped as ``x``, from ``generator``."""
    return torch.rand(x.shape, generator=generator, device=generator.device).to(x)


def broadcast(per_image: Tensor, x: Tensor) -> Tensor:
    """Reshape ``per_image`` (N,) or (N, 1) so that it multiplies ``x`` (N, ...)."""
    return per_image.reshape(-1, *[1] * (x.dim() - 1))


def image_lengths(x: Tensor, order: int = 2) -> Tensor:
    """Return the norm of ``order`` of each image of ``x``, shaped to multiply it."""
    return broadcast(torch.linalg.vector_norm(x.flatten(1), order, dim=1), x)


def unit_length(x: Tensor) -> Tensor:
    """Scale each image of ``x`` to l2 length 1 (zero stays zero).

    By the largest entry first: tiny squares would underflow. NaN counts as zero, an
    infinite entry as the image's largest finite one.
    """
    peak = broadcast(x.flatten(1).abs().amax(1), x)
    if not peak.isfinite().all():
        x = _tame(x)
        peak = broadcast(x.flatten(1).abs().amax(1), x)
    x = torch.where(peak > 0, x / peak, 0.0)
    lengths = image_lengths(x)
    return torch.where(lengths > 0, x / lengths, 0.0)


def _tame(x: Tensor) -> Tensor:
    """Return ``x`` with 0 for NaN and its image's largest finite size for infinity."""
    finite = x.isfinite()
    peak = torch.where(finite, x.abs(), 0.0).flatten(1).amax(1)
    peak = torch.where(peak > 0, peak, 1.0)
    return torch.where(finite, x, x.sign() * broadcast(peak, x))  # the sign of NaN is 0


def shrink(delta: Tensor, eps: float | Tensor, order: int = 2) -> Tensor:
    """Scale images of ``delta`` outside the ball ``eps`` of norm ``order`` into it.

    A few rounding errors inside the edge.
    """
    slack = 1 - 8 * torch.finfo(delta.dtype).eps
    lengths = image_lengths(delta.double(), order)
    factor = torch.where(lengths > eps, slack * eps / lengths, 1.0)
    return delta * factor.to(delta)
