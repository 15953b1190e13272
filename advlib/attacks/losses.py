"""What attacks raise: losses of the logits, one number for each image."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Return the cross-entropy of each image (N,), logits (N, K), labels ``y`` (N,)."""
    return F.cross_entropy(logits, y, reduction="none")


def margin_loss(logits: Tensor, y: Tensor) -> Tensor:
    """Return ``max_{j != y} z_j - z_y`` of each image (N,): positive means wrong.

    ``logits`` (N, K), labels ``y`` (N,). The loss of Carlini and Wagner 2017 without
    its threshold, arXiv:1608.04644; unlike cross-entropy it never saturates.
    """
    others = logits.scatter(1, y[:, None], -torch.inf)
    return others.amax(1) - pick_logits(logits, y)


def dlr_loss(logits: Tensor, y: Tensor) -> Tensor:
    """Return the difference of logits ratio of each image (N,): positive means wrong.

    The margin loss of ``logits`` (N, K) with labels ``y`` (N,), divided by the largest
    logit minus the third: blind to shifts and scale. Raises ``ValueError`` for K < 3.
    Croce and Hein 2020, arXiv:2003.01690.
    """
    if logits.shape[1] < 3:
        raise ValueError("the third largest of two logits: use margin_loss")
    top = logits.topk(3, dim=1).values
    return margin_loss(logits, y) / (top[:, 0] - top[:, 2] + _tiny(logits))


def targeted_loss(logits: Tensor, y: Tensor, target: int | Tensor) -> Tensor:
    """Return ``z_target - z_y`` of each image (N,): positive means wrong.

    ``logits`` (N, K), labels ``y`` (N,), ``target`` one class or one for each image;
    ``functools.partial(targeted_loss, target=2)`` is the loss of an attack. An image
    whose label is its target has loss 0 and stays where it is. Raises ``ValueError``
    for a target that is no class.
    """
    return pick_logits(logits, check_targets(logits, target)) - pick_logits(logits, y)


def targeted_sum_loss(logits: Tensor, y: Tensor, target: int | Tensor) -> Tensor:
    """Return ``z_target`` minus the sum of all other logits, for each image (N,).

    Arguments and errors as ``targeted_loss``, but the labels ``y`` do not matter: all
    other classes are pushed down. Kolter and Madry 2018, chapter 3.
    """
    return 2 * pick_logits(logits, check_targets(logits, target)) - logits.sum(1)


def targeted_dlr_loss(logits: Tensor, y: Tensor, target: int | Tensor) -> Tensor:
    """Return the targeted difference of logits ratio (N,): positive means wrong.

    As ``targeted_loss``, divided by the largest logit minus the mean of the third and
    the fourth. Raises ``ValueError`` for K < 4. See ``dlr_loss`` for the source.
    """
    if logits.shape[1] < 4:
        raise ValueError("the fourth largest of fewer logits: use targeted_loss")
    top = logits.topk(4, dim=1).values
    scale = top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + _tiny(logits)
    return targeted_loss(logits, y, target) / scale


def finite_score(losses: Tensor) -> Tensor:
    """Return ``losses`` (N,) with -inf for NaN and infinity: these win nothing."""
    return torch.where(losses.isfinite(), losses, -torch.inf)


def _tiny(logits: Tensor) -> float:
    """Return what keeps a denominator from 0: in half precision 1e-12 would be 0."""
    return max(1e-12, torch.finfo(logits.dtype).tiny)


def pick_logits(logits: Tensor, index: Tensor) -> Tensor:
    """Return the entry ``index`` (N,) of each row of ``logits`` (N, K): (N,)."""
    return logits.gather(1, index[:, None]).squeeze(1)


def check_targets(logits: Tensor, target: int | Tensor) -> Tensor:
    """Return ``target`` as one class per row of ``logits``.

    Raises ``ValueError`` for what is no class.
    """
    target = torch.as_tensor(target, device=logits.device)
    if target.dim() and target.shape != logits.shape[:1]:
        raise ValueError(f"need one target, or one per image: {tuple(target.shape)}")
    if not (0 <= target.min() and target.max() < logits.shape[1]):
        raise ValueError(f"a target is not one of the {logits.shape[1]} classes")
    return target.expand(len(logits))
