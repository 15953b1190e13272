"""What every attack and bound refuses, in one place."""

import math

import torch
from torch import Tensor, nn

NORMS = ("linf", "l2", "l1")


def check_eps(eps: float, norm: str = "linf") -> None:
    """Refuse a radius that is negative, not finite or no number of pixels.

    Raises ``ValueError``: unknown ``norm``, or not 0 <= eps (<= 1 for ``linf``).
    """
    if norm not in NORMS:
        raise ValueError(f"norm {norm!r} is none of {NORMS}")
    if not (0 <= eps < math.inf) or (norm == "linf" and eps > 1):
        raise ValueError(f"eps = {eps}: pixels live in [0, 1], so write 8 / 255, not 8")


def check_images(x: Tensor) -> None:
    """Refuse ``x`` if it is no batch of images: dtype, range, NaN.

    Raises ``TypeError`` for a dtype that is not floating, ``ValueError`` for values
    outside [0, 1], NaN included, and for an empty batch.
    """
    if not x.is_floating_point():
        raise TypeError(f"images must be floating point in [0, 1], not {x.dtype}")
    if x.dim() < 2 or len(x) == 0:
        raise ValueError(f"images must be (N, ...) with N >= 1, not {tuple(x.shape)}")
    if not (x.min() >= 0 and x.max() <= 1):  # written so that NaN fails
        raise ValueError("images must lie in [0, 1] and hold no NaN")


def check_labels(x: Tensor, y: Tensor) -> None:
    """Refuse labels ``y`` that are not int64 of shape (N,), one per image of ``x``.

    Raises ``TypeError`` for the dtype, ``ValueError`` for the shape or y < 0.
    """
    if y.dtype != torch.int64:
        raise TypeError(f"labels must be int64, not {y.dtype}")
    if y.shape != x.shape[:1] or not (y >= 0).all():
        raise ValueError(f"need one label >= 0 per image: {tuple(y.shape)}")


def check_model(model: nn.Module) -> None:
    """Refuse a model in train mode: dropout and batch-norm would move under us.

    Raises ``ValueError``.
    """
    if any(module.training for module in model.modules()):
        raise ValueError("the model is in train mode: call model.eval() first")


def check_all(
    model: nn.Module, x: Tensor, y: Tensor, eps: float, norm: str = "linf"
) -> None:
    """Check ``model``, ``x``, ``y``, ``eps`` and ``norm``: all of the above."""
    check_model(model)
    check_images(x)
    check_labels(x, y)
    check_eps(eps, norm)
