"""The shortest perturbation: upper bounds on the minimal distortion, in batches."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from advlib._check import (
    ask,
    check_all,
    check_classes,
    check_counts,
    check_eps,
    check_images,
    check_logits,
    outside_inference,
    run_model,
)
from advlib.attacks.losses import margin_loss
from advlib.attacks.steps import (
    broadcast,
    free_room,
    image_lengths,
    logits_and_gradient,
    project_l2,
    shrink,
    unit_length,
)


@dataclass(frozen=True)
class Minimal:
    """The shortest perturbation that an attack found, for each of N images.

    With ``success`` (N,) bool the network says the target at ``x + delta``, which lies
    in [0, 1]; elsewhere ``delta`` (N, ...) is zero and ``l2``, ``rms`` are NaN. ``c``
    (N,) float64 is the weight at which it was found, NaN if there was none. A length
    is an *upper* bound on the minimal distortion: another attack may find a shorter.
    """

    delta: Tensor
    success: Tensor
    c: Tensor

    @property
    def l2(self) -> Tensor:
        """The length of each ``delta`` (N,) float64, in units of the pixels."""
        lengths = image_lengths(self.delta.double()).flatten()
        return torch.where(self.success, lengths, torch.nan)

    @property
    def rms(self) -> Tensor:
        """The root mean square change of a pixel: ``l2`` / sqrt(number of pixels)."""
        return self.l2 / math.sqrt(self.delta[0].numel())


def rescale(x: Tensor, delta: Tensor, rms: float) -> Tensor:
    """Return ``delta`` times a factor, clipped to the box, with this ``rms``.

    ``x`` (N, ...) in [0, 1], ``delta`` shaped as ``x``, ``rms`` the root mean square
    over the pixels of each image, after clipping: so perturbations of several sources
    can be compared at equal distortion, in [0, 1]. The factor is as large as it has to
    be: only where every pixel that ``delta`` moves ends at the edge of the box is the
    result shorter; zero stays zero. In half precision its rounding remains. Raises
    ``ValueError`` or ``TypeError`` for bad ``x`` or ``rms``, and for a ``delta`` of
    another shape or not finite.
    """
    check_images(x)
    check_eps(rms)
    if delta.shape != x.shape or not delta.isfinite().all():
        raise ValueError("need a finite delta, shaped as x")
    kind = torch.promote_types(x.dtype, delta.dtype)
    wide, length = _at_least_single(delta), rms * math.sqrt(x[0].numel())
    room = free_room(_at_least_single(x), True)
    peak = broadcast(wide.flatten(1).abs().amax(1), x)
    far = torch.where(peak > 0, 1e6 * (wide / peak), 0.0)  # then projection scales
    found = project_l2(far, length, *room)
    inner = (delta != 0) & (found > room[0]) & (found < room[1])
    short = image_lengths(found.double()) < (1 - 1e-4) * length
    if not (again := short & broadcast(inner.flatten(1).any(1), x)).any():
        return found.to(kind)
    peak = torch.where(again, peak, 1.0).double()  # 1e6 was too small: tiny entries
    further = project_l2(1e150 * (wide.double() / peak), length, *room)
    return torch.where(again, further.to(found), found).clamp(*room).to(kind)


def _at_least_single(x: Tensor) -> Tensor:
    """Return ``x`` in float32 if its precision is half: 1e6 and 1e-5 lie outside it."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class Shortest:
    """The shortest successful ``delta`` of each image so far, and its ``c``."""

    def __init__(self, x: Tensor) -> None:
        self.delta = torch.zeros_like(x)
        self.length = torch.full(x.shape[:1], torch.inf, device=x.device).double()
        self.c = torch.full_like(self.length, torch.nan)

    def keep(self, delta: Tensor, hit: Tensor, c: Tensor) -> None:
        """Take over those of ``delta`` that ``hit`` and are shorter, found at ``c``."""
        length = image_lengths(delta.double()).flatten()
        better = hit & (length < self.length)
        self.delta = torch.where(broadcast(better, delta), delta, self.delta)
        self.length = torch.where(better, length, self.length)
        self.c = torch.where(better, c, self.c)

    def result(self) -> Minimal:
        """Return what was kept."""
        return Minimal(self.delta, self.length.isfinite(), self.c)


def check_aim(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    """Refuse bad ``x``, a ``target`` predicted already; return ``model``'s logits.

    Raises ``ValueError`` or ``TypeError``.
    """
    check_all(model, x, target, 0.0, "l2")
    logits = ask(model, x)
    check_classes(target, logits.shape[1])
    if (logits.argmax(1) == target).any():
        raise ValueError("a target equals the prediction: nothing is to be changed")
    return logits


@outside_inference
def carlini_wagner_l2(
    model: nn.Module,
    x: Tensor,
    target: Tensor,
    *,
    c: float = 1.0,
    num_searches: int = 9,
    num_steps: int = 300,
    lr: float = 0.02,
) -> Minimal:
    """Return short perturbations with which ``model`` predicts ``target``.

    As ``lbfgs``, but ``||delta||_2^2 + c max(0, lead)``: the weight ``c`` stands before
    the loss, so the search looks for the *smallest* one that succeeds, from the given
    one by tens, then by halving. The image is ``(tanh(w) + 1) / 2``, in (0, 1) for
    every w; Adam with ``lr`` makes ``num_steps`` steps for all ``x`` (N, ...) and
    ``target`` (N,) at once, in each of ``num_searches`` rounds. Every point on the way
    counts. An upper bound. Raises ``ValueError`` or ``TypeError`` for bad input, a
    target that is the prediction included, ``FloatingPointError`` for a gradient that
    is not finite. Carlini and Wagner 2017, arXiv:1608.04644.
    """
    check_counts(1, num_searches=num_searches, num_steps=num_steps)
    if not 0 < c < math.inf or not 0 < lr < math.inf:
        raise ValueError(f"need c and lr in (0, inf), not {c}, {lr}")
    check_aim(model, x, target)
    x, best = x.detach(), Shortest(x.detach())
    wide, whole = _at_least_single(x), x.dtype.itemsize >= 4
    weight = torch.full_like(best.c, c)
    low, high = torch.zeros_like(weight), torch.full_like(weight, torch.inf)
    for _ in range(num_searches):
        w = torch.atanh((2 * wide - 1) * (1 - 1e-5)).requires_grad_()
        adam, ever = torch.optim.Adam([w], lr), torch.zeros_like(target).bool()
        for _ in range(num_steps):
            with torch.enable_grad():
                free = (w.tanh() + 1) / 2 - wide
                delta = free.to(x.dtype)
                logits = check_logits(run_model(model, x + delta), len(x))
                lead = margin_loss(logits, target).clamp(min=0)
                cost = free.flatten(1).square().sum(1) + weight * lead
                cost = cost if whole else cost / weight  # else its slope overflows
                (w.grad,) = torch.autograd.grad(cost.sum(), w)
            if not w.grad.isfinite().all():
                raise FloatingPointError("the loss or its gradient is not finite")
            hit = logits.argmax(1) == target
            best.keep(delta.detach(), hit, weight)
            ever |= hit
            adam.step()
        low, high = torch.where(ever, low, weight), torch.where(ever, weight, high)
        weight = torch.where(high.isinf(), 10 * weight, (low + high) / 2)
    return best.result()


def _ahead(logits: Tensor, target: Tensor) -> Tensor:
    """Return the target's lead over its best rival: positive means success."""
    return -margin_loss(logits, target)


@outside_inference
def minimal_pgd_l2(
    model: nn.Module,
    x: Tensor,
    target: Tensor,
    *,
    num_radii: int = 14,
    num_steps: int = 100,
) -> Minimal:
    """Return short perturbations with which ``model`` predicts ``target``.

    PGD in an l2 ball that raises the target's lead over its best rival, and a bisection
    of the radius of each image's ball, ``num_radii`` times from the whole box: all of
    ``x`` (N, ...) and ``target`` (N,) at once. A run takes ``num_steps`` steps from 2
    radii down to 1 / 50 of one, and starts from the last point scaled to the ball;
    every point on the way counts. No ``c``. An upper bound on the minimal distortion.
    Raises ``ValueError`` or ``TypeError`` for bad input, a target that is the
    prediction included, ``FloatingPointError`` for a gradient that is not finite.
    """
    check_counts(1, num_radii=num_radii, num_steps=num_steps)
    check_aim(model, x, target)
    x, best = x.detach(), Shortest(x.detach())
    lower, upper = free_room(x, True)
    low, none = torch.zeros_like(best.length), torch.full_like(best.c, torch.nan)
    high = torch.full_like(low, math.sqrt(x[0].numel()))
    for _ in range(num_radii):
        radius = (low + high) / 2
        eps = broadcast(radius, x)
        delta = shrink(best.delta, eps)
        for step in range(num_steps):
            logits, gradient = logits_and_gradient(
                model, x, delta, target, _ahead, first=False
            )
            if not gradient.isfinite().all():
                raise FloatingPointError("the loss or its gradient is not finite")
            best.keep(delta, logits.argmax(1) == target, none)
            alpha = 2 * eps * 0.01 ** (step / max(num_steps - 1, 1))
            moved = delta + (alpha * unit_length(gradient)).to(x)
            delta = shrink(moved.clamp(lower, upper), eps)
        hit = best.length <= radius
        low, high = torch.where(hit, low, radius), torch.where(hit, radius, high)
        high = torch.minimum(high, best.length)
    return best.result()
