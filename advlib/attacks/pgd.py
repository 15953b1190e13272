"""Projected gradient ascent in three norms, its one-step forebear, and restarts."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from advlib._check import (
    ask,
    check_all,
    check_classes,
    check_counts,
    check_delta,
    check_labels,
    check_model,
    check_steps,
    outside_inference,
)
from advlib.attacks.losses import Loss, cross_entropy, finite_score
from advlib.attacks.steps import (
    broadcast,
    free_room,
    input_gradient,
    logits_and_gradient,
    project_l1,
    shrink,
    steepest_direction,
    uniform_like,
    unit_length,
)

Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]

Move = Callable[..., Tensor]  # of delta, gradient, lower, upper, previous, step

State = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]  # x, y, delta, lower, upper


@outside_inference
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
    return delta.clamp(*free_room(x, box, eps))


@outside_inference
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
    if ``generator`` is None, at ``start`` (N, ...), brought into it, or at 0: the image
    itself, where a clip in the model can hide the gradient (that of ``nn.Hardtanh(0,
    1)`` is 0 at 0 and at 1). A ``generator`` goes on from call to call, inside of a
    ``functools.partial``, too; ``evaluation`` puts it back. With
    ``drop_fooled`` an image stops at its first misclassified point, which saves its
    remaining steps; ``loss`` then sees fewer images. Raises ``ValueError`` or
    ``TypeError`` for bad input, a model in train mode and, at any point, logits with
    NaN or infinity included; a gradient's NaN counts as 0. Madry et al. 2018,
    arXiv:1706.06083.
    """
    check_all(model, x, y, eps)
    check_steps(num_steps, alpha)
    lower, upper = free_room(x, box, eps)
    delta = random_linf(lower, upper, generator)
    if generator is None and start is not None:
        if start.shape != x.shape or not start.isfinite().all():
            raise ValueError("start must be finite, with the shape of x")
        delta = start.detach().to(x).clamp(lower, upper)

    def move(
        delta: Tensor, gradient: Tensor, lower: Tensor, upper: Tensor, *_: Tensor | int
    ) -> Tensor:
        return delta.add_(gradient.sign(), alpha=alpha).clamp_(lower, upper)

    state = (x.detach(), y, delta, lower, upper)
    return ascend(model, state, move, num_steps, loss, drop_fooled)


@outside_inference
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
    check_steps(num_steps, alpha)
    lower, upper = free_room(x, box)
    delta = random_l2(eps, lower, upper, generator)

    def move(
        delta: Tensor, gradient: Tensor, lower: Tensor, upper: Tensor, *_: Tensor | int
    ) -> Tensor:
        delta = delta + alpha * unit_length(gradient)
        return shrink(delta.clamp(lower, upper), eps)

    state = (x.detach(), y, delta, lower, upper)
    return ascend(model, state, move, num_steps, loss, drop_fooled)


@outside_inference
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
    check_steps(num_steps, alpha)
    if not 0 <= share <= 1:
        raise ValueError(f"need 0 <= share <= 1, not {share}")
    lower, upper = free_room(x, box)
    delta = torch.zeros_like(lower)
    if generator is not None:
        half = eps / x[0].numel()
        delta = (2 * half * uniform_like(x, generator) - half).clamp(lower, upper)
        delta = shrink(delta, eps, 1)

    def move(
        delta: Tensor, gradient: Tensor, lower: Tensor, upper: Tensor, *_: Tensor | int
    ) -> Tensor:
        leaves = (delta >= upper) & (gradient > 0) | (delta <= lower) & (gradient < 0)
        step = steepest_direction(gradient.masked_fill(leaves, 0), "l1", share=share)
        return project_l1(delta + alpha * step, eps, lower, upper)

    state = (x.detach(), y, delta, lower, upper)
    return ascend(model, state, move, num_steps, loss, drop_fooled)


def random_linf(
    lower: Tensor, upper: Tensor, generator: torch.Generator | None
) -> Tensor:
    """Return a uniform point between ``lower`` and ``upper``; 0 without ``generator``.

    Both shaped as the images.
    """
    if generator is None:
        return torch.zeros_like(lower)
    delta = lower + (upper - lower) * uniform_like(lower, generator)
    return delta.clamp(lower, upper)  # rounding, above all in half precision


def random_l2(
    eps: float, lower: Tensor, upper: Tensor, generator: torch.Generator | None
) -> Tensor:
    """Return a uniform point of the l2 ball ``eps``, then cut to the box.

    ``lower``, ``upper`` (N, ...) are the box; 0 without ``generator``.
    """
    if generator is None:
        return torch.zeros_like(lower)
    direction = torch.randn(lower.shape, generator=generator, device=generator.device)
    pixels = lower.flatten(1)
    radius = uniform_like(pixels[:, :1], generator) ** (1 / pixels.shape[1])
    delta = unit_length(direction.to(lower)) * broadcast(eps * radius, lower)
    return shrink(delta.clamp(lower, upper), eps)


def ascend(
    model: nn.Module,
    state: State,
    move: Move,
    num_steps: int,
    loss: Loss,
    drop_fooled: bool,
) -> Tensor:
    """Take ``num_steps`` of ``move`` up the ``loss`` of ``model``; return ``delta``.

    ``state`` holds x, y, delta, lower, upper. With ``drop_fooled`` only while an image
    stands. Raises what ``input_gradient`` raises, without a step, too.
    """
    x, y, delta, lower, upper = state
    previous = delta
    if num_steps == 0:
        check_classes(y, ask(model, x, delta).shape[1])
    result, standing = None, torch.arange(len(y), device=y.device)
    for step in range(num_steps):
        logits, gradient = logits_and_gradient(
            model, x, delta, y, loss, first=step == 0
        )
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
    the larger ``loss``; one that is not finite is the smallest. Still a lower bound.
    Raises ``ValueError`` or ``TypeError`` for ``num_restarts`` < 1, a model in train
    mode, bad labels, a ``delta`` of another shape or with NaN, and logits that
    ``input_gradient`` refuses.
    """
    check_counts(1, num_restarts=num_restarts)
    check_model(model)
    check_labels(x, y)
    x = x.detach()
    generator = torch.Generator().manual_seed(seed)
    best, best_loss = torch.zeros_like(x), torch.full(y.shape, -torch.inf).to(x)
    fooled = torch.zeros_like(y, dtype=torch.bool)
    for _ in range(num_restarts):
        delta = check_delta(attack(generator), x)
        logits = ask(model, x, delta)
        check_classes(y, logits.shape[1])
        wrong, score = logits.argmax(1) != y, finite_score(loss(logits, y))
        better = (wrong & ~fooled) | ((wrong == fooled) & (score > best_loss))
        best = torch.where(broadcast(better, x), delta, best)
        best_loss = torch.where(better, score, best_loss)
        fooled |= wrong
    return best
