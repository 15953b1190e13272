"""From a bound of linear functions to margins: the input box, the rows, the batches."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advlib._check import check_all, check_classes, check_eps, check_images
from advlib.bounds import plan
from advlib.bounds.plan import (
    Box,
    Steps,
    check_pre,
    count_classes,
    largest_layer,
    plan_steps,
)


def input_box(x: Tensor, eps: float, *, box: bool = True) -> Box:
    """Return the l-inf ball of radius ``eps`` around ``x`` (N, ...), as two corners.

    With ``box`` cut to [0, 1]. Raises ``ValueError`` or ``TypeError`` for images
    outside [0, 1] and a radius that is none.
    """
    check_images(x)
    check_eps(eps)
    return _corners(x, eps, box)


def _corners(x: Tensor, eps: float, box: bool) -> Box:
    lower, upper = x - eps, x + eps
    return (lower.clamp(min=0), upper.clamp(max=1)) if box else (lower, upper)


def margin_spec(y: Tensor, num_classes: int) -> Tensor:
    """Return the rows e_y - e_j for all classes j: (N, K, K), row j = y is zero.

    ``y`` (N,) int64; K = ``num_classes`` >= 2. In torch's default dtype, exact in any.
    Raises ``ValueError`` if a label is not in 0 .. K - 1.
    """
    check_classes(y, num_classes)
    rows = torch.eye(num_classes, device=y.device)
    return rows[y][:, None] - rows


def certified(margins: Tensor, y: Tensor) -> Tensor:
    """Return which images (N,) have a positive bound ``margins`` against every class.

    ``margins`` (N, K) are lower bounds, ``y`` (N,) the labels; column y is ignored.
    NaN and infinity certify nothing. Raises ``ValueError`` for other shapes, a single
    class and labels that are none.
    """
    if margins.dim() != 2 or y.shape != margins.shape[:1]:
        raise ValueError(
            f"need margins (N, K) and labels (N,), not {tuple(margins.shape)} and "
            f"{tuple(y.shape)}"
        )
    check_classes(y, margins.shape[1])
    margins = margins.masked_fill(F.one_hot(y, margins.shape[1]).bool(), 1.0)
    return ((margins > 0) & margins.isfinite()).all(1)


Bound = Callable[[Steps, Tensor, Box, list[Box] | None], Tensor]


def batched_margins(
    model: nn.Module, x: Tensor, y: Tensor, eps: float, box: bool,
    pre: Sequence[Box] | None, bound: Bound,
) -> Tensor:  # fmt: skip
    """Run ``bound`` on batches that fit the memory; (N, K), column y is 0.

    ``model``, ``x``, ``y``, ``eps``, ``box`` and ``pre`` as ``crown_margins``.
    """
    check_all(model, x, y, eps)
    corners = _corners(x, eps, box)
    steps = plan_steps(model, x.shape[1:], x)
    k = count_classes(steps)
    check_classes(y, k)
    if pre is not None:
        check_pre(steps, pre, len(x))
    columns = torch.arange(k - 1, device=y.device).expand(len(y), -1)
    columns = columns + (columns >= y[:, None])  # the classes j != y
    rows = torch.eye(k, dtype=x.dtype, device=x.device)
    others = rows[y][:, None] - rows[columns]
    size = max(1, plan.BUDGET // (k * largest_layer(steps)))
    found = []
    for i in range(0, len(y), size):
        part = slice(i, i + size)
        given = None if pre is None else [(low[part], up[part]) for low, up in pre]
        cut = corners[0][part], corners[1][part]
        found.append(bound(steps, others[part], cut, given))
    margins = torch.zeros(len(y), k, dtype=x.dtype, device=x.device)
    return margins.scatter(1, columns, torch.cat(found))
