"""Lower bounds on the worst case: each attack returns one allowed perturbation.

Whatever an attack finds, the worst case is at least that bad. Losses are summed over
the batch, so that one image's gradient does not depend on its neighbours, and
``delta`` is projected; a clamp inside the graph would zero the gradient of every
pixel that touches the box.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advlib._check import check_all

Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Return the cross-entropy of each image (N,), logits (N, K), labels ``y`` (N,)."""
    return F.cross_entropy(logits, y, reduction="none")


def input_gradient(
    model: nn.Module, x: Tensor, y: Tensor, loss: Loss = cross_entropy
) -> Tensor:
    """Return the gradient of each image's ``loss`` in its own pixels, shaped as ``x``.

    ``model`` maps images ``x`` (N, ...) to logits (N, K); ``loss`` maps these and the
    labels ``y`` (N,) to losses (N,). The parameters' gradients are left alone. Works
    inside ``torch.no_grad()`` too. Raises ``ValueError`` if a label is not below K.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        logits = model(x)
        if not (y < logits.shape[1]).all():
            raise ValueError(f"a label is not below the {logits.shape[1]} classes")
        (gradient,) = torch.autograd.grad(loss(logits, y).sum(), x)
    return gradient


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
    box: bool = True,
    loss: Loss = cross_entropy,
) -> Tensor:
    """Return ``delta`` that raises ``loss`` at ``x``: a lower bound on the inner max.

    ``x`` (N, ...) in [0, 1]; ``y`` (N,) int64; ``eps``, ``alpha`` in units of ``x``;
    ``num_steps`` steps. Returns ``delta`` (N, ...), ``|delta| <= eps``, with ``box``
    also ``x + delta`` in [0, 1]; detached. Starts at a uniform point of that set, or at
    0 if ``generator`` is None. Raises ``ValueError`` or ``TypeError`` for bad input, a
    model in train mode included. Madry et al. 2018, arXiv:1706.06083.
    """
    check_all(model, x, y, eps)
    x = x.detach()
    lower, upper = torch.full_like(x, -eps), torch.full_like(x, eps)
    if box:
        lower, upper = lower.maximum(-x), upper.minimum(1 - x)
    delta = torch.zeros_like(x)
    if generator is not None:
        delta = lower + (upper - lower) * _uniform(x, generator)
        delta = delta.clamp(lower, upper)  # rounding, above all in half precision
    for _ in range(num_steps):
        gradient = input_gradient(model, x + delta, y, loss)
        delta = (delta + alpha * gradient.sign()).clamp(lower, upper)
    return delta


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
) -> Tensor:
    """Return ``delta`` in the l2 ball that raises ``loss``: a lower bound.

    As ``pgd_linf``, but each of the ``num_steps`` steps has l2 length ``alpha`` (none
    where the gradient is zero), and ``||delta||_2 <= eps`` for each image. With ``box``
    the step is clipped to [0, 1] and then shrunk to the ball, which keeps it in the
    box. A random start is uniform in the ball. Raises what ``pgd_linf`` raises.
    """
    check_all(model, x, y, eps, "l2")
    x = x.detach()
    delta = torch.zeros_like(x)
    if generator is not None:
        direction = torch.randn(x.shape, generator=generator, device=generator.device)
        radius = _uniform(x.flatten(1)[:, :1], generator) ** (1 / x[0].numel())
        delta = _normalise(direction.to(x)) * _like(eps * radius, x)
        delta = delta.clamp(-x, 1 - x) if box else delta
    for _ in range(num_steps):
        gradient = input_gradient(model, x + delta, y, loss)
        delta = delta + alpha * _normalise(gradient)
        if box:
            delta = delta.clamp(-x, 1 - x)
        delta = _shrink(delta, eps)
    return delta


def _uniform(x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(x.shape, generator=generator, device=generator.device).to(x)


def _like(per_image: Tensor, x: Tensor) -> Tensor:
    """Reshape (N,) or (N, 1) so that it multiplies images (N, ...)."""
    return per_image.reshape(-1, *[1] * (x.dim() - 1))


def _lengths(x: Tensor) -> Tensor:
    return _like(torch.linalg.vector_norm(x.flatten(1), dim=1), x)


def _normalise(x: Tensor) -> Tensor:
    """Scale each image to length 1 (zero stays zero); tiny squares would underflow."""
    peak = _like(x.flatten(1).abs().amax(1), x)
    x = torch.where(peak > 0, x / peak, 0.0)
    lengths = _lengths(x)
    return torch.where(lengths > 0, x / lengths, 0.0)


def _shrink(delta: Tensor, eps: float) -> Tensor:
    lengths = _lengths(delta)
    return torch.where(lengths > eps, delta * (eps / lengths), delta)


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
