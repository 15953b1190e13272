"""Lower bounds on the worst case: each attack returns one allowed perturbation.

Whatever an attack finds, the worst case is at least that bad. Losses are summed over
the batch, so that one image's gradient does not depend on its neighbours, and
``delta`` is projected; a clamp inside the graph would zero the gradient of every
pixel that touches the box.
"""

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import Bounds, minimize
from torch import Tensor, nn

from advlib._check import NORMS, check_all, check_eps, check_images

Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]
Move = Callable[..., Tensor]  # of delta, gradient, lower, upper, previous, step


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Return the cross-entropy of each image (N,), logits (N, K), labels ``y`` (N,)."""
    return F.cross_entropy(logits, y, reduction="none")


def margin_loss(logits: Tensor, y: Tensor) -> Tensor:
    """Return ``max_{j != y} z_j - z_y`` of each image (N,): positive means wrong.

    ``logits`` (N, K), labels ``y`` (N,). The loss of Carlini and Wagner 2017 without
    its threshold, arXiv:1608.04644; unlike cross-entropy it never saturates.
    """
    others = logits.scatter(1, y[:, None], -torch.inf)
    return others.amax(1) - _pick(logits, y)


def dlr_loss(logits: Tensor, y: Tensor) -> Tensor:
    """Return the difference of logits ratio of each image (N,): positive means wrong.

    The margin loss of ``logits`` (N, K) with labels ``y`` (N,), divided by the largest
    logit minus the third: blind to shifts and scale. Raises ``ValueError`` for K < 3.
    Croce and Hein 2020, arXiv:2003.01690.
    """
    if logits.shape[1] < 3:
        raise ValueError("the third largest of two logits: use margin_loss")
    top = logits.topk(3, dim=1).values
    return margin_loss(logits, y) / (top[:, 0] - top[:, 2] + 1e-12)


def targeted_loss(logits: Tensor, y: Tensor, target: int | Tensor) -> Tensor:
    """Return ``z_target - z_y`` of each image (N,): positive means wrong.

    ``logits`` (N, K), labels ``y`` (N,), ``target`` one class or one for each image;
    ``functools.partial(targeted_loss, target=2)`` is the loss of an attack. An image
    whose label is its target has loss 0 and stays where it is. Raises ``ValueError``
    for a target that is no class.
    """
    return _pick(logits, _targets(logits, target)) - _pick(logits, y)


def targeted_sum_loss(logits: Tensor, y: Tensor, target: int | Tensor) -> Tensor:
    """Return ``z_target`` minus the sum of all other logits, for each image (N,).

    Arguments and errors as ``targeted_loss``, but the labels ``y`` do not matter: all
    other classes are pushed down. Kolter and Madry 2018, chapter 3.
    """
    return 2 * _pick(logits, _targets(logits, target)) - logits.sum(1)


def targeted_dlr_loss(logits: Tensor, y: Tensor, target: int | Tensor) -> Tensor:
    """Return the targeted difference of logits ratio (N,): positive means wrong.

    As ``targeted_loss``, divided by the largest logit minus the mean of the third and
    the fourth. Raises ``ValueError`` for K < 4. See ``dlr_loss`` for the source.
    """
    if logits.shape[1] < 4:
        raise ValueError("the fourth largest of fewer logits: use targeted_loss")
    top = logits.topk(4, dim=1).values
    scale = top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + 1e-12
    return targeted_loss(logits, y, target) / scale


def _pick(logits: Tensor, index: Tensor) -> Tensor:
    return logits.gather(1, index[:, None]).squeeze(1)


def _targets(logits: Tensor, target: int | Tensor) -> Tensor:
    target = torch.as_tensor(target, device=logits.device)
    if target.dim() and target.shape != logits.shape[:1]:
        raise ValueError(f"need one target, or one per image: {tuple(target.shape)}")
    if not (0 <= target.min() and target.max() < logits.shape[1]):
        raise ValueError(f"a target is not one of the {logits.shape[1]} classes")
    return target.expand(len(logits))


def input_gradient(
    model: nn.Module, x: Tensor, y: Tensor, loss: Loss = cross_entropy
) -> Tensor:
    """Return the gradient of each image's ``loss`` in its own pixels, shaped as ``x``.

    ``model`` maps images ``x`` (N, ...) to logits (N, K); ``loss`` maps these and the
    labels ``y`` (N,) to losses (N,). The parameters' gradients are left alone. Works
    inside ``torch.no_grad()`` too. Raises ``ValueError`` if a label is not below K or
    the logits hold NaN.
    """
    return _gradient(model, x, y, loss, check=True)[1]


def _gradient(
    model: nn.Module, x: Tensor, y: Tensor, loss: Loss, *, check: bool = False
) -> tuple[Tensor, Tensor]:
    """Return logits and gradient in ``x`` alone; the parameters cost nothing."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        logits = model(x)
        if check:
            _check_logits(logits, y)
        (gradient,) = torch.autograd.grad(loss(logits, y).sum(), x)
    return logits.detach(), gradient


def _check_logits(logits: Tensor, y: Tensor) -> None:
    """Refuse labels that are no class, and NaN: a comparison with it is False."""
    if not (y < logits.shape[1]).all():
        raise ValueError(f"a label is not below the {logits.shape[1]} classes")
    if logits.isnan().any():
        raise ValueError("the logits hold NaN: look at the weights")


def steepest_direction(
    gradient: Tensor, norm: str = "linf", *, share: float = 0.0
) -> Tensor:
    """Return the unit step ``v`` of each image that maximises ``<gradient, v>``.

    ``gradient`` (N, ...); ``norm`` of the step. l-inf: the sign; l2: the direction;
    l1: the coordinate of largest slope. With ``share`` > 0 an l1 step is spread evenly
    over that share of the coordinates: no longer steepest, but many pixels move
    (Tramer and Boneh 2019, arXiv:1904.13000). Where the gradient is zero, so is ``v``.
    Raises ``ValueError`` for an unknown norm or a share outside [0, 1].
    """
    if norm not in NORMS or not 0 <= share <= 1:
        raise ValueError(f"need a norm of {NORMS} and 0 <= share <= 1")
    if norm == "linf":
        return gradient.sign()
    if norm == "l2":
        return _normalise(gradient)
    flat = gradient.flatten(1)
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
    return (_project_l2 if norm == "l2" else _project_l1)(delta, eps, lower, upper)


def _project_l2(delta: Tensor, eps: float, lower: Tensor, upper: Tensor) -> Tensor:
    """Scale, then clip: Newton's method on the scale, which only grows."""
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
    return _shrink(shrunk.clamp(lower, upper), eps)


def _project_l1(delta: Tensor, eps: float, lower: Tensor, upper: Tensor) -> Tensor:
    """Soft-threshold, then clip: the length is piecewise linear in the threshold."""
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
    return _shrink(shrunk.clamp(lower, upper), eps, 1)


def fgsm(
    model: nn.Module, x: Tensor, y: Tensor, eps: float, *, box: bool = True
) -> Tensor:
    """Return ``delta = eps sign(gradient)``: a lower bound on the inner maximum.

    ``x`` (N, ...) in [0, 1]; ``y`` (N,) int64; ``eps`` in units of ``x``. With
    ``box``, ``x + delta`` is clipped to [0, 1]. Exact on binary linear models. Raises
    ``ValueError`` or ``TypeError`` for bad input, a model in train mode included.
    Goodfellow et al. 2015, arXiv:1412.6572.
    """
    check_all(model, x, y, eps)
    x = x.detach()
    delta = eps * input_gradient(model, x, y).sign()
    return delta.clamp(-x, 1 - x) if box else delta


def pgd_linf(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    alpha: float,
    num_steps: int,
    generator: torch.Generator | None = None,
    start: Tensor | None = None,
    box: bool = True,
    loss: Loss = cross_entropy,
    drop_fooled: bool = False,
) -> Tensor:
    """Return ``delta`` that raises ``loss`` at ``x``: a lower bound on the inner max.

    ``x`` (N, ...) in [0, 1]; ``y`` (N,) int64; ``eps``, ``alpha`` in units of ``x``;
    ``num_steps`` steps. Returns ``delta`` (N, ...), ``|delta| <= eps``, with ``box``
    also ``x + delta`` in [0, 1]; detached. Starts at a uniform point of that set, or,
    if ``generator`` is None, at ``start`` (N, ...), brought into it, or at 0. With
    ``drop_fooled`` an image stops at its first misclassified point, which saves its
    remaining steps; ``loss`` then sees fewer images. Raises ``ValueError`` or
    ``TypeError`` for bad input, a model in train mode and logits with NaN included.
    Madry et al. 2018, arXiv:1706.06083.
    """
    check_all(model, x, y, eps)
    lower, upper = _room(x, box, eps)
    delta = torch.zeros_like(lower)
    if generator is not None:
        delta = lower + (upper - lower) * _uniform(x, generator)
        delta = delta.clamp(lower, upper)  # rounding, above all in half precision
    elif start is not None:
        if start.shape != x.shape or not start.isfinite().all():
            raise ValueError("start must be finite, with the shape of x")
        delta = start.detach().to(x).clamp(lower, upper)

    def move(
        delta: Tensor, gradient: Tensor, lower: Tensor, upper: Tensor, *_: Tensor | int
    ) -> Tensor:
        return delta.add_(gradient.sign_(), alpha=alpha).clamp_(lower, upper)

    state = (x.detach(), y, delta, lower, upper)
    return _ascend(model, state, move, num_steps, loss, drop_fooled)


def pgd_l2(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    alpha: float,
    num_steps: int,
    generator: torch.Generator | None = None,
    box: bool = True,
    loss: Loss = cross_entropy,
    drop_fooled: bool = False,
) -> Tensor:
    """Return ``delta`` in the l2 ball that raises ``loss``: a lower bound.

    As ``pgd_linf``, but each of the ``num_steps`` steps has l2 length ``alpha`` (none
    where the gradient is zero), and ``||delta||_2 <= eps`` for each image. With ``box``
    the step is clipped to [0, 1] and then shrunk to the ball, which keeps it in the
    box: allowed and cheap, if not the nearest such point (that is ``project``). A
    random start is uniform in the ball. Raises what ``pgd_linf`` raises.
    """
    check_all(model, x, y, eps, "l2")
    lower, upper = _room(x, box)
    delta = torch.zeros_like(lower)
    if generator is not None:
        direction = torch.randn(x.shape, generator=generator, device=generator.device)
        radius = _uniform(x.flatten(1)[:, :1], generator) ** (1 / x[0].numel())
        delta = _normalise(direction.to(x)) * _like(eps * radius, x)
        delta = _shrink(delta.clamp(lower, upper), eps)

    def move(
        delta: Tensor, gradient: Tensor, lower: Tensor, upper: Tensor, *_: Tensor | int
    ) -> Tensor:
        delta = delta + alpha * _normalise(gradient)
        return _shrink(delta.clamp(lower, upper), eps)

    state = (x.detach(), y, delta, lower, upper)
    return _ascend(model, state, move, num_steps, loss, drop_fooled)


def pgd_l1(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    alpha: float,
    num_steps: int,
    share: float = 0.01,
    generator: torch.Generator | None = None,
    box: bool = True,
    loss: Loss = cross_entropy,
    drop_fooled: bool = False,
) -> Tensor:
    """Return ``delta`` in the l1 ball that raises ``loss``: a lower bound.

    As ``pgd_linf``, but each of the ``num_steps`` steps has l1 length ``alpha``, spread
    over a ``share`` of the pixels (0: a single one, the steepest). Pixels at the edge
    of the box that would leave it are passed over, and ``delta`` is projected exactly
    onto ball and box. A random start is uniform in the box of half-width eps / D,
    inside the ball. Raises what ``pgd_linf`` and ``steepest_direction`` raise.
    Tramer and Boneh 2019, arXiv:1904.13000; box: Croce and Hein 2021, arXiv:2103.01208.
    """
    check_all(model, x, y, eps, "l1")
    lower, upper = _room(x, box)
    delta = torch.zeros_like(lower)
    if generator is not None:
        half = eps / x[0].numel()
        delta = (2 * half * _uniform(x, generator) - half).clamp(lower, upper)
        delta = _shrink(delta, eps, 1)

    def move(
        delta: Tensor, gradient: Tensor, lower: Tensor, upper: Tensor, *_: Tensor | int
    ) -> Tensor:
        leaves = (delta >= upper) & (gradient > 0) | (delta <= lower) & (gradient < 0)
        step = steepest_direction(gradient.masked_fill(leaves, 0), "l1", share=share)
        return _project_l1(delta + alpha * step, eps, lower, upper)

    state = (x.detach(), y, delta, lower, upper)
    return _ascend(model, state, move, num_steps, loss, drop_fooled)


State = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]  # x, y, delta, lower, upper


def _ascend(
    model: nn.Module,
    state: State,
    move: Move,
    num_steps: int,
    loss: Loss,
    drop_fooled: bool,
) -> Tensor:
    """Take ``num_steps`` steps; with ``drop_fooled`` only while an image stands."""
    x, y, delta, lower, upper = state
    previous = delta
    result, standing = None, torch.arange(len(y), device=y.device)
    for step in range(num_steps):
        logits, gradient = _gradient(model, x + delta, y, loss, check=step == 0)
        if drop_fooled and not (stays := logits.argmax(1) == y).all():
            result = delta.clone() if result is None else result
            result[standing] = delta
            parts = (standing, x, y, delta, lower, upper, gradient, previous)
            parts = (t[stays] for t in parts)
            standing, x, y, delta, lower, upper, gradient, previous = parts
            if len(y) == 0:
                return result
        moved = move(delta, gradient, lower, upper, previous, step)
        previous, delta = delta, moved
    if result is None:
        return delta
    result[standing] = delta
    return result


def _room(x: Tensor, box: bool, eps: float | None = None) -> tuple[Tensor, Tensor]:
    """Return how far each pixel may go down and up: the box, and l-inf ``eps``."""
    x, radius = x.detach(), torch.inf if eps is None else eps
    lower, upper = torch.full_like(x, -radius), torch.full_like(x, radius)
    return (lower.maximum(-x), upper.minimum(1 - x)) if box else (lower, upper)


def _uniform(x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(x.shape, generator=generator, device=generator.device).to(x)


def _like(per_image: Tensor, x: Tensor) -> Tensor:
    """Reshape (N,) or (N, 1) so that it multiplies images (N, ...)."""
    return per_image.reshape(-1, *[1] * (x.dim() - 1))


def _lengths(x: Tensor, order: int = 2) -> Tensor:
    return _like(torch.linalg.vector_norm(x.flatten(1), order, dim=1), x)


def _normalise(x: Tensor) -> Tensor:
    """Scale each image to length 1 (zero stays zero); tiny squares would underflow."""
    peak = _like(x.flatten(1).abs().amax(1), x)
    x = torch.where(peak > 0, x / peak, 0.0)
    lengths = _lengths(x)
    return torch.where(lengths > 0, x / lengths, 0.0)


def _shrink(delta: Tensor, eps: float | Tensor, order: int = 2) -> Tensor:
    """Scale images outside the ball into it, a few rounding errors inside the edge."""
    slack = 1 - 8 * torch.finfo(delta.dtype).eps
    lengths = _lengths(delta.double(), order)
    factor = torch.where(lengths > eps, slack * eps / lengths, 1.0)
    return delta * factor.to(delta)


def best_of(
    attack: Callable[[torch.Generator], Tensor],
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    num_restarts: int,
    seed: int = 0,
    loss: Loss = cross_entropy,
) -> Tensor:
    """Run ``attack(generator)`` ``num_restarts`` times; keep each image's best delta.

    ``attack`` returns a ``delta`` for images ``x`` (N, ...) of ``model`` with labels
    ``y`` (N,); its generator starts from ``seed``. Best is misclassified first, then
    the larger ``loss``. Still a lower bound. Raises ``ValueError`` for
    ``num_restarts`` < 1.
    """
    if num_restarts < 1:
        raise ValueError(f"num_restarts must be at least 1, not {num_restarts}")
    generator = torch.Generator().manual_seed(seed)
    best, best_loss = torch.zeros_like(x), torch.full(y.shape, -torch.inf).to(x)
    fooled = torch.zeros_like(y, dtype=torch.bool)
    for _ in range(num_restarts):
        delta = attack(generator)
        with torch.no_grad():
            logits = model(x + delta)
        wrong, score = logits.argmax(1) != y, loss(logits, y)
        better = (wrong & ~fooled) | ((wrong == fooled) & (score > best_loss))
        best = torch.where(_like(better, x), delta, best)
        best_loss = torch.where(better, score, best_loss)
        fooled |= wrong
    return best


# ------------------------------------------------------- the shortest perturbation

Array = np.ndarray
DECADES = 12  # the search over c gives up after so many factors of ten


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
        lengths = _lengths(self.delta.double()).flatten()
        return torch.where(self.success, lengths, torch.nan)

    @property
    def rms(self) -> Tensor:
        """The root mean square change of a pixel: ``l2`` / sqrt(number of pixels)."""
        return self.l2 / math.sqrt(self.delta[0].numel())


def rescale(x: Tensor, delta: Tensor, rms: float) -> Tensor:
    """Return ``delta`` times a factor, clipped to the box, with this ``rms``.

    ``x`` (N, ...) in [0, 1], ``delta`` shaped as ``x``, ``rms`` the root mean square
    over the pixels of each image, after clipping: so perturbations of several sources
    can be compared at equal distortion. One that cannot become so large inside the box
    ends at its edge; zero stays zero. Raises ``ValueError`` or ``TypeError`` for bad
    ``x`` or ``rms``, and for a ``delta`` of another shape or not finite.
    """
    check_images(x)
    check_eps(rms)
    if delta.shape != x.shape or not delta.isfinite().all():
        raise ValueError("need a finite delta, shaped as x")
    peak = _like(delta.flatten(1).abs().amax(1), x)
    far = torch.where(peak > 0, 1e6 * (delta / peak), 0.0)  # then projection scales
    return _project_l2(far, rms * math.sqrt(x[0].numel()), *_room(x, True))


class _Shortest:
    """The shortest successful ``delta`` of each image so far, and its ``c``."""

    def __init__(self, x: Tensor) -> None:
        self.delta = torch.zeros_like(x)
        self.length = torch.full(x.shape[:1], torch.inf, device=x.device).double()
        self.c = torch.full_like(self.length, torch.nan)

    def keep(self, delta: Tensor, hit: Tensor, c: Tensor) -> None:
        """Take over those of ``delta`` that hit and are shorter."""
        length = _lengths(delta.double()).flatten()
        better = hit & (length < self.length)
        self.delta = torch.where(_like(better, delta), delta, self.delta)
        self.length = torch.where(better, length, self.length)
        self.c = torch.where(better, c, self.c)

    def result(self) -> Minimal:
        """Return what was kept."""
        return Minimal(self.delta, self.length.isfinite(), self.c)


def _check_aim(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    """Refuse bad input and a target that is predicted already; return the logits."""
    check_all(model, x, target, 0.0, "l2")
    with torch.no_grad():
        logits = model(x)
    _check_logits(logits, target)
    if (logits.argmax(1) == target).any():
        raise ValueError("a target equals the prediction: nothing is to be changed")
    return logits


def lbfgs(
    model: nn.Module,
    x: Tensor,
    target: Tensor,
    *,
    loss: str = "cross_entropy",
    box: str = "bounds",
    c: float = 1.0,
    num_bisections: int = 8,
    max_iter: int = 200,
) -> Minimal:
    """Return short perturbations with which ``model`` predicts ``target``.

    Minimises ``c ||delta||_2^2 + loss(x + delta, target)`` with scipy's L-BFGS-B, image
    by image in float64. ``x`` (N, ...) in [0, 1], ``target`` (N,) int64. The search
    looks for the *largest* ``c`` that succeeds: decades from the given one, then
    ``num_bisections`` of log c, each run of at most ``max_iter`` steps started from the
    last success. ``loss`` "cross_entropy" is the paper's; "margin" is the square of
    ``max(0, lead + 0.1)``, the lead of the best rival over the target as a share of
    that at ``x``: its minimiser at the largest c is the shortest perturbation where
    the lead is convex. ``box`` "bounds" keeps [0, 1] as a constraint, "clip" ignores it
    and clips the result. An upper bound on the minimal distortion. Raises
    ``ValueError`` or ``TypeError`` for bad input, a target that is the prediction
    included, ``FloatingPointError`` for a loss or gradient that is not finite.
    Szegedy et al. 2014, arXiv:1312.6199.
    """
    if loss not in ("cross_entropy", "margin") or box not in ("bounds", "clip"):
        raise ValueError(f"unknown loss {loss!r} or box {box!r}")
    if not 0 < c < math.inf or num_bisections < 0 or max_iter < 1:
        raise ValueError("need 0 < c < inf, num_bisections >= 0, max_iter >= 1")
    logits = _check_aim(model, x, target)
    double = deepcopy(model).double().requires_grad_(False)
    leads, best = margin_loss(logits, target).tolist(), _Shortest(x)
    for i, (aim, lead) in enumerate(zip(target.tolist(), leads, strict=True)):
        cost = _cross_entropy if loss == "cross_entropy" else _Hinge(lead)
        one = _Penalised(model, double, x[i : i + 1].detach(), aim, cost, box, max_iter)
        found = _search_c(one, c, num_bisections)
        best.delta[i], best.length[i], best.c[i] = found
    return best.result()


class _Hinge:
    """The squared hinge of the rivals' lead, and its gradient in the logits.

    Both are measured by the lead at the start. The maximum over the rivals is smoothed
    (log-sum-exp, 0.5 % of that lead), or L-BFGS stops where two of them tie.
    """

    def __init__(self, lead: float, kappa: float = 0.1, width: float = 0.005) -> None:
        self.lead, self.kappa, self.width = max(lead, 1e-6), kappa, width

    def __call__(self, logits: Array, target: int) -> tuple[float, Array]:
        scaled = (logits - logits[target]) / (self.width * self.lead)
        scaled[target] = -np.inf
        top = scaled.max()
        share = np.exp(scaled - top)
        total = share.sum()
        lead = self.width * (top + math.log(total)) + self.kappa
        share /= total
        share[target] = -1.0
        over = max(lead, 0.0)
        return over**2, 2 * over / self.lead * share


def _cross_entropy(logits: Array, target: int) -> tuple[float, Array]:
    """Return the cross-entropy and its gradient in the logits of one image."""
    share = np.exp(logits - logits.max())
    total = share.sum()
    value = logits.max() + math.log(total) - logits[target]
    share /= total
    share[target] -= 1
    return float(value), share


class _Penalised:
    """``c ||z - x||^2 + loss(z, target)`` of one image, flat, in float64, for scipy.

    The parameters take no gradient, and the loss is differentiated by hand: one image
    costs a forward and a backward pass and little else.
    """

    def __init__(
        self,
        model: nn.Module,
        double: nn.Module,
        x: Tensor,
        target: int,
        cost: Callable[[Array, int], tuple[float, Array]],
        box: str,
        max_iter: int,
    ) -> None:
        self.model, self.double, self.x = model, double, x
        self.target, self.cost, self.max_iter = target, cost, max_iter
        self.start = x.double().flatten().cpu().numpy()
        self.bounds = Bounds(0.0, 1.0) if box == "bounds" else None

    def value(self, z: Array, c: float) -> tuple[float, Array]:
        """Return value and gradient at the image ``z``, as L-BFGS needs them."""
        point = torch.from_numpy(z).view_as(self.x).to(self.x.device)
        with torch.enable_grad():
            logits = self.double(point.requires_grad_())
            loss, slope = self.cost(logits.detach()[0].cpu().numpy(), self.target)
            seed = torch.from_numpy(slope)[None].to(logits)
            (gradient,) = torch.autograd.grad(logits, point, seed)
        r = z - self.start
        gradient = 2 * c * r + gradient.flatten().cpu().numpy()
        value = c * (r @ r) + loss
        if not (math.isfinite(value) and np.isfinite(gradient).all()):
            raise FloatingPointError("the loss or its gradient is not finite")
        return value, gradient

    def minimise(self, z: Array, c: float) -> tuple[Array, Tensor, bool]:
        """Return the minimiser from ``z``, its ``delta``, and whether that succeeds."""
        found = minimize(
            self.value,
            z,
            (c,),
            "L-BFGS-B",
            jac=True,
            bounds=self.bounds,
            options={"maxiter": self.max_iter},
        ).x
        r = torch.from_numpy(found - self.start).view_as(self.x).to(self.x)
        delta = r.clamp(-self.x, 1 - self.x)
        with torch.no_grad():
            hit = self.model(self.x + delta).argmax(1).item() == self.target
        return found, delta, hit


def _search_c(
    one: _Penalised, c: float, num_bisections: int
) -> tuple[Tensor, float, float]:
    """Return the shortest success, its length and its c: delta 0, inf, NaN if none."""
    low, high, z = 0.0, math.inf, one.start  # the largest success, the least failure
    best = torch.zeros_like(one.x[0]), math.inf, math.nan
    for _ in range(DECADES + num_bisections):
        last, delta, hit = one.minimise(z, c)
        length = float(_lengths(delta.double()))
        if hit and length < best[1]:
            best = delta[0], length, c
        low, high = (c, high) if hit else (low, c)
        if hit or low == 0:
            z = last
        if low == 0 or high == math.inf:
            c *= 10 if hit else 0.1
        elif (num_bisections := num_bisections - 1) < 0:
            break
        else:
            c = math.sqrt(low * high)
    return best


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
    if not 0 < c < math.inf or min(num_searches, num_steps) < 1 or not lr > 0:
        raise ValueError("need 0 < c < inf, rounds and steps >= 1, lr > 0")
    _check_aim(model, x, target)
    x, best = x.detach(), _Shortest(x.detach())
    weight = torch.full_like(best.c, c)
    low, high = torch.zeros_like(weight), torch.full_like(weight, torch.inf)
    for _ in range(num_searches):
        w = torch.atanh((2 * x - 1) * (1 - 1e-5)).requires_grad_()
        adam, ever = torch.optim.Adam([w], lr), torch.zeros_like(target).bool()
        for _ in range(num_steps):
            with torch.enable_grad():
                delta = (w.tanh() + 1) / 2 - x
                logits = model(x + delta)
                lead = margin_loss(logits, target).clamp(min=0)
                cost = delta.flatten(1).square().sum(1) + weight * lead
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
    if min(num_radii, num_steps) < 1:
        raise ValueError("need at least one radius and one step")
    _check_aim(model, x, target)
    x, best = x.detach(), _Shortest(x.detach())
    lower, upper = _room(x, True)
    low, none = torch.zeros_like(best.length), torch.full_like(best.c, torch.nan)
    high = torch.full_like(low, math.sqrt(x[0].numel()))
    for _ in range(num_radii):
        radius = (low + high) / 2
        eps = _like(radius, x)
        delta = _shrink(best.delta, eps)
        for step in range(num_steps):
            logits, gradient = _gradient(model, x + delta, target, _ahead)
            if not gradient.isfinite().all():
                raise FloatingPointError("the loss or its gradient is not finite")
            best.keep(delta, logits.argmax(1) == target, none)
            alpha = 2 * eps * 0.01 ** (step / max(num_steps - 1, 1))
            moved = delta + (alpha * _normalise(gradient)).to(x)
            delta = _shrink(moved.clamp(lower, upper), eps)
        hit = best.length <= radius
        low, high = torch.where(hit, low, radius), torch.where(hit, radius, high)
        high = torch.minimum(high, best.length)
    return best.result()


def apgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    norm: str = "linf",
    num_steps: int = 100,
    generator: torch.Generator | None = None,
    box: bool = True,
    loss: Loss = cross_entropy,
) -> Tensor:
    """Return ``delta`` found by PGD with momentum and a step that halves when stuck.

    As ``pgd_linf`` (``norm`` "linf") or ``pgd_l2`` ("l2"), but the step starts at
    2 ``eps`` and each image halves its own at the checkpoints of ``num_steps`` where
    its ``loss`` rose too rarely or not at all; it then goes on from its best point.
    Returns each image's point of highest loss, a misclassified one if it met any.
    Starts at 0, or at random with a ``generator``. A lower bound. Raises what
    ``pgd_linf`` raises, and ``ValueError`` for l1. Croce and Hein 2020,
    arXiv:2003.01690, algorithm 1, written anew.
    """
    check_all(model, x, y, eps, norm)
    if norm == "l1":
        raise ValueError("apgd has no l1 rule: use pgd_l1")
    start = {"linf": pgd_linf, "l2": pgd_l2}[norm]
    delta = start(model, x, y, eps, alpha=0, num_steps=0, generator=generator, box=box)
    x, (lower, upper) = x.detach(), _room(x, box, eps if norm == "linf" else None)
    nearest = partial(project, eps=eps, norm=norm, lower=lower, upper=upper)
    schedule = _Schedule(model, x, y, loss, delta, 2 * eps)
    previous = delta
    for step in range(num_steps):
        ahead = _like(schedule.size, x) * steepest_direction(schedule.gradient, norm)
        moved = nearest(delta + ahead)
        if step:  # momentum, from the second step on
            moved = nearest(delta + 0.75 * (moved - delta) + 0.25 * (delta - previous))
        previous, delta = delta, schedule.look(moved)
        if step + 1 in _checkpoints(num_steps):
            delta = schedule.halve(delta)
    return schedule.found


def _checkpoints(num_steps: int) -> list[int]:
    """Return the steps after which ``apgd`` considers halving: ever closer."""
    shares = [0.0, 0.22]
    while shares[-1] < 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    return sorted({math.ceil(round(s * num_steps, 6)) for s in shares[1:]})


class _Schedule:
    """Each image's best point, and what decides about its step ``size``."""

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        loss: Loss,
        delta: Tensor,
        size: float,
    ) -> None:
        self.ask = partial(_gradient, model, y=y, loss=loss)
        self.x, self.y, self.loss = x, y, loss
        logits, self.gradient = self.ask(x + delta, check=True)
        self.value = self.best = self.best_before = loss(logits, y)
        self.best_delta, self.best_gradient = delta, self.gradient
        self.found, self.fooled = delta, logits.argmax(1) != y
        self.size = torch.full_like(self.value, size)
        self.size_before, self.rises = self.size, torch.zeros_like(self.value)
        self.looks = 0

    def look(self, delta: Tensor) -> Tensor:
        """Evaluate loss and gradient at ``delta``, remember the best, return it."""
        logits, self.gradient = self.ask(self.x + delta)
        value, wrong = self.loss(logits, self.y), logits.argmax(1) != self.y
        self.rises, self.value = self.rises + (value > self.value), value
        self.looks += 1
        better = value > self.best
        found = (wrong & ~self.fooled) | (better & (wrong == self.fooled))
        self.found = torch.where(_like(found, delta), delta, self.found)
        self.fooled = self.fooled | wrong
        self.best = torch.where(better, value, self.best)
        better = _like(better, delta)
        self.best_delta = torch.where(better, delta, self.best_delta)
        self.best_gradient = torch.where(better, self.gradient, self.best_gradient)
        return delta

    def halve(self, delta: Tensor) -> Tensor:
        """Halve the step of images that are stuck; send these to their best point."""
        idle = (self.size == self.size_before) & (self.best == self.best_before)
        stuck = (self.rises < 0.75 * self.looks) | idle
        self.size_before, self.best_before = self.size, self.best
        self.size = torch.where(stuck, self.size / 2, self.size)
        self.value = torch.where(stuck, self.best, self.value)
        self.rises, self.looks = torch.zeros_like(self.rises), 0
        stuck = _like(stuck, delta)
        self.gradient = torch.where(stuck, self.best_gradient, self.gradient)
        return torch.where(stuck, self.best_delta, delta)


def square(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    generator: torch.Generator,
    num_queries: int = 1000,
    share: float = 0.8,
) -> Tensor:
    """Return ``delta`` found by a search that asks ``model`` for logits only.

    ``x`` (N, C, H, W) in [0, 1]; ``y`` (N,) int64; l-inf ``eps`` in units of ``x``. It
    starts with vertical stripes of +-``eps``; each of ``num_queries`` forward passes
    sets a random square, at first a ``share`` of the image and ever smaller, to random
    signs, and keeps it if the margin falls. Each image draws its own squares from
    ``generator`` and stops when fooled. A lower bound; the box is respected. Raises
    ``ValueError`` or ``TypeError`` for bad input and images of another shape.
    Andriushchenko et al. 2020, arXiv:1912.00049, written anew.
    """
    check_all(model, x, y, eps)
    if x.dim() != 4 or num_queries < 0 or not 0 < share <= 1:
        raise ValueError("need images (N, C, H, W), num_queries >= 0, 0 < share <= 1")
    lower, upper = _room(x, True, eps)
    delta = _stripes(lower, upper, generator)
    state = (x.detach(), y, delta, lower, upper)
    sides = [_side(x, share, step / num_queries) for step in range(num_queries)]
    return _search(model, state, sides, generator)


def _stripes(lower: Tensor, upper: Tensor, generator: torch.Generator) -> Tensor:
    """Every column of every image goes all the way up or down."""
    return torch.where(_uniform(lower[:, :, :1], generator) < 0.5, lower, upper)


def _side(x: Tensor, share: float, progress: float) -> int:
    """Return the side of the square: its area halves eight times on the way."""
    times = (0.001, 0.005, 0.02, 0.1, 0.2, 0.4, 0.6, 0.8)
    area = share * x[0, 0].numel() / 2 ** sum(progress >= t for t in times)
    return min(max(round(math.sqrt(area)), 1), *x.shape[2:])


def _search(
    model: nn.Module, state: State, sides: list[int], generator: torch.Generator
) -> Tensor:
    """Try one square of each of the ``sides``; keep it where the margin loss rises."""
    x, y, delta, lower, upper = state
    result, standing = delta.clone(), torch.arange(len(y), device=y.device)
    best = torch.full(y.shape, -torch.inf).to(x)
    for side in [0, *sides]:  # the first looks at the start
        inside = _squares(delta, side, generator)
        up = _uniform(delta[:, :, :1, :1], generator) < 0.5
        tried = torch.where(inside, torch.where(up, upper, lower), delta)
        with torch.no_grad():
            logits = model(x + tried)
        if side == 0:
            _check_logits(logits, y)
        value = margin_loss(logits, y)
        better = value >= best
        delta = torch.where(_like(better, x), tried, delta)
        best = torch.where(better, value, best)
        if not (stays := logits.argmax(1) == y).all():
            result[standing] = delta
            parts = (standing, x, y, delta, lower, upper, best)
            standing, x, y, delta, lower, upper, best = (t[stays] for t in parts)
            if len(y) == 0:
                return result
    result[standing] = delta
    return result


def _squares(delta: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Return a random square of each image (N, 1, H, W), as a mask."""
    masks = []
    for size in delta.shape[2:]:
        first = (_uniform(delta[:, 0, 0, :1], generator) * (size - side + 1)).floor()
        place = torch.arange(size, device=delta.device)
        masks.append((place >= first) & (place < first + side))
    return masks[0][:, None, :, None] & masks[1][:, None, None, :]


def strong_attack(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    seed: int = 0,
    search: bool = True,
    num_restarts: int = 24,
    num_steps: int = 20,
    num_queries: int = 1000,
) -> Tensor:
    """Return ``delta`` of an ensemble that works only on images that still stand.

    ``model`` maps ``x`` (N, ...) in [0, 1] to logits; ``y`` (N,) int64; l-inf ``eps``
    in units of ``x``, the box respected. ``num_restarts`` short runs of ``num_steps``
    steps with momentum and a falling step, from random starts drawn from ``seed``, take
    turns with four losses: cross-entropy, margin, difference of logits ratio, one
    target class after the other.
    With ``search``, ``square`` follows in three rounds that cost about
    ``num_queries`` forward passes an image each: on all that stand, on the half
    nearest to an error, on a quarter. Fooled images are dropped at once. Returns each
    image's point of highest margin loss, or the one at which it fell: a lower bound.
    Raises ``ValueError`` or ``TypeError`` for bad input, logits with NaN included.
    """
    check_all(model, x, y, eps)
    x, generator = x.detach(), torch.Generator().manual_seed(seed)
    record = _Record(model, x, y)
    state = (x, y, torch.zeros_like(x), *_room(x, True, eps))
    for loss in _turns(num_restarts, record.num_classes):
        delta = state[3] + (state[4] - state[3]) * _uniform(x, generator)
        start = (x, y, delta.clamp(state[3], state[4]), *state[3:])
        record.keep(
            lambda part, loss=loss: _momentum(model, part, eps, num_steps, loss), start
        )
    for rounds in (1, 2, 4) if search and x.dim() == 4 else ():
        sides = [
            _side(x, 0.8, k / num_queries / rounds) for k in range(rounds * num_queries)
        ]
        start = (x, y, _stripes(*state[3:], generator), *state[3:])
        record.keep(
            lambda part, sides=sides: _search(model, part, sides, generator),
            start,
            rounds,
        )
    return record.delta


def _turns(num_restarts: int, num_classes: int) -> list[Loss]:
    """Return one loss for each run: what one of them is blind to, another sees."""
    ratio, losses = dlr_loss if num_classes > 2 else margin_loss, []
    for run in range(num_restarts):
        target = partial(targeted_loss, target=run // 6 % num_classes)
        cycle = (cross_entropy, margin_loss, cross_entropy, margin_loss, ratio, target)
        losses.append(cycle[run % 6])
    return losses


def _momentum(
    model: nn.Module, state: State, eps: float, num_steps: int, loss: Loss
) -> Tensor:
    """Run with steps from 2 eps down to eps / 50, each with a quarter of the last."""

    def move(
        delta: Tensor,
        gradient: Tensor,
        lower: Tensor,
        upper: Tensor,
        previous: Tensor,
        step: int,
    ) -> Tensor:
        alpha = 2 * eps * 0.01 ** (step / max(num_steps - 1, 1))
        moved = (delta + alpha * gradient.sign_()).clamp_(lower, upper)
        inertia = 0.25 * (delta - previous)  # 0 at the first step
        return moved.sub_(delta).mul_(0.75).add_(delta + inertia).clamp_(lower, upper)

    return _ascend(model, state, move, num_steps, loss, True)


class _Record:
    """The best ``delta`` of each image so far, its margin loss, and who stands."""

    def __init__(self, model: nn.Module, x: Tensor, y: Tensor) -> None:
        self.model, self.delta = model, torch.zeros_like(x)
        with torch.no_grad():
            logits = model(x)
        _check_logits(logits, y)
        self.num_classes = logits.shape[1]
        self.value = margin_loss(logits, y)
        self.standing = (logits.argmax(1) == y).nonzero().squeeze(1)

    def keep(
        self, attack: Callable[[State], Tensor], state: State, divide: int = 1
    ) -> None:
        """Attack those that stand, or the nearest to an error; remember the best."""
        some = self.standing
        if divide > 1:
            near = self.value[some].topk(math.ceil(len(some) / divide)).indices
            some = some[near]
        if len(some) == 0:
            return
        part = tuple(t[some] for t in state)
        delta = attack(part)
        with torch.no_grad():
            logits = self.model(part[0] + delta)
        value, fooled = margin_loss(logits, part[1]), logits.argmax(1) != part[1]
        better = fooled | (value > self.value[some])
        self.delta[some[better]] = delta[better]
        self.value[some[better]] = value[better]
        fallen = torch.zeros_like(self.value, dtype=torch.bool)
        fallen[some] = fooled
        self.standing = self.standing[~fallen[self.standing]]


def boundary_l2(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    target: int | Tensor,
    *,
    num_steps: int = 10,
    max_step: float = 1.0,
    num_halvings: int = 6,
) -> Tensor:
    """Return a short ``delta`` with which ``model`` predicts ``target``.

    ``x`` (N, ...) in [0, 1], ``y`` (N,) int64, ``target`` one class or one per image.
    Each of ``num_steps`` takes the target's lead over its best rival as linear and goes
    towards the shortest point of the box at which it would vanish, by at most
    ``max_step`` in l2. The shortest point that reached the target is kept, and pulled
    back on its segment to ``x`` by ``num_halvings`` bisections. So its length is an
    upper bound on the minimal distortion; exact for a linear model with two classes,
    and cheap enough for training. Where no point reached the target, the last one is
    returned. Raises ``ValueError`` or ``TypeError`` for bad input, and for a target
    that is the label. Linearised like DeepFool (Moosavi-Dezfooli et al. 2016,
    arXiv:1511.04599), from ``x`` anew at each step like FAB (Croce and Hein 2020).
    """
    check_all(model, x, y, 0.0, "l2")
    if num_steps < 0 or num_halvings < 0 or not max_step > 0:
        raise ValueError("need num_steps, num_halvings >= 0 and max_step > 0")
    x, best = x.detach(), torch.zeros_like(x)
    best_length = torch.full((len(x),), torch.inf).to(x)
    delta, lower, upper = torch.zeros_like(x), *_room(x, True)
    for step in range(num_steps + 1):
        logits, slope = _gradient(model, x + delta, y, partial(_odds, target=target))
        if step == 0:
            _check_logits(logits, y)
            target = _targets(logits, target)
            if (target == y).any():
                raise ValueError("a target is the label of its image")
        if not slope.isfinite().all():
            raise ValueError("a gradient is NaN or infinite: look at the weights")
        lead, length = _lead(logits, y, target), _lengths(delta).flatten()
        better = (lead >= 0) & (length < best_length)
        best = torch.where(_like(better, x), delta, best)
        best_length = torch.where(better, length, best_length)
        if step < num_steps:
            lead = _odds(logits, y, target)
            onward = _least_step(slope, -1.01 * lead, lower - delta, upper - delta)
            gain = (slope * delta).flatten(1).sum(1) - 1.01 * lead
            anew = _least_step(slope, gain, lower, upper) - delta
            move = _shrink(0.8 * onward + 0.2 * anew, max_step)
            delta = (delta + move).clamp(lower, upper)
    best = torch.where(_like(best_length.isinf(), x), delta, best)
    return _pull_back(model, x, best, target, num_halvings)


def _lead(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Return by how much the target is ahead of all others; ``y`` does not matter."""
    return -margin_loss(logits, _targets(logits, target))


def _odds(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Return the logarithm of p / (1 - p) for the target's probability p."""
    target = _targets(logits, target)
    others = logits.scatter(1, target[:, None], -torch.inf)
    return _pick(logits, target) - others.logsumexp(1)


def _least_step(slope: Tensor, gain: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Return the shortest point of the box with ``<slope, delta> >= gain``.

    It is ``clamp(s * slope)``; the gain is concave and piecewise linear in s >= 0, so
    that Newton's method from 0 comes from below and ends. Where no point gains enough,
    the one that gains most.
    """
    g = slope.flatten(1)
    size, cap = g.abs(), torch.where(g > 0, upper.flatten(1), -lower.flatten(1))
    square, kink = size * size, cap / size.clamp(min=1e-30)  # a pixel stops at its kink
    s = torch.zeros_like(g[:, :1])
    for _ in range(g.shape[1] + 1):
        rest = gain[:, None] - (square * kink.minimum(s)).sum(1, keepdim=True)
        rate = (square * (kink > s)).sum(1, keepdim=True)
        grown = torch.where((rate > 0) & (rest > 0), s + rest / rate, s)
        if not (grown > s * (1 + 1e-4)).any():
            break
        s = grown
    return (s * g).view_as(slope).clamp(lower, upper)


def _pull_back(
    model: nn.Module, x: Tensor, delta: Tensor, target: Tensor, num_halvings: int
) -> Tensor:
    """Shorten ``delta`` by bisection while the target stays ahead."""
    low, high = torch.zeros(len(x)).to(x), torch.ones(len(x)).to(x)
    for _ in range(num_halvings):
        middle = (low + high) / 2
        with torch.no_grad():
            lead = _lead(model(x + _like(middle, x) * delta), target, target)
        high = torch.where(lead >= 0, middle, high)
        low = torch.where(lead >= 0, low, middle)
    return _like(high, x) * delta
