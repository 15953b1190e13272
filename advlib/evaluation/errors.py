"""Clean, attacked and certified error, and which images they count."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from scipy import stats
from torch import Tensor, nn

from advlib._check import check_images, check_labels, check_model
from advlib.attacks import Attack
from advlib.bounds import certified


@dataclass(frozen=True)
class ErrorRate:
    """``wrong`` of ``n`` images, and the 95 % Clopper-Pearson interval of the rate.

    The interval speaks of images drawn as the ``n`` were; it says nothing about
    retraining the network. Raises ``ValueError`` unless 0 <= wrong <= n, n >= 1.
    """

    wrong: int
    n: int

    def __post_init__(self) -> None:
        if not 0 <= self.wrong <= self.n or self.n < 1:
            raise ValueError(f"need 0 <= wrong <= n, n >= 1: {self.wrong} of {self.n}")

    @property
    def rate(self) -> float:
        """The share of wrong images."""
        return self.wrong / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % Clopper-Pearson interval."""
        exact = stats.binomtest(self.wrong, self.n).proportion_ci(method="exact")
        return float(exact.low), float(exact.high)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.rate:.2g} [{low:.2g}, {high:.2g}] (n = {self.n})"


def wrong(model: nn.Module, x: Tensor, y: Tensor, batch_size: int = 250) -> Tensor:
    """Return which images are misclassified (N,), bool.

    ``x`` (N, ...), ``y`` (N,) int64, ``batch_size`` images at a time. Raises
    ``ValueError`` or ``TypeError`` for a model in train mode, labels of another shape
    or dtype, and logits with NaN.
    """
    check_model(model)
    check_labels(x, y)
    with torch.no_grad():
        logits = torch.cat([model(part) for part in x.split(batch_size)])
    if logits.isnan().any():
        raise ValueError("the logits hold NaN")
    return logits.argmax(1) != y


def clean_error(model: nn.Module, x: Tensor, y: Tensor) -> ErrorRate:
    """Return the error on the images as they are; raises what ``wrong`` raises."""
    check_images(x)
    return ErrorRate(int(wrong(model, x, y).sum()), len(y))


def attacked(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    attacks: Sequence[Attack],
    *,
    batch_size: int = 250,
) -> Tensor:
    """Return which images are wrong as they are or under any of ``attacks``: (N,).

    An attack is ``attack(model, x, y) -> delta``; it is only run on images that still
    stand, ``batch_size`` of them at a time. Raises what ``wrong`` and the attacks
    raise.
    """
    check_images(x)
    fallen = wrong(model, x, y)
    for attack in attacks:
        for part in torch.arange(len(y)).split(batch_size):
            part = part[~fallen[part]]
            if len(part):
                delta = attack(model, x[part], y[part])
                fallen[part] = wrong(model, x[part] + delta, y[part])
    return fallen


def attacked_error(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    attacks: Attack | Sequence[Attack],
    *,
    batch_size: int = 250,
) -> ErrorRate:
    """Return the attacked error: a lower bound on the true robust error.

    ``attacks`` is one attack or several, run in batches of ``batch_size``; see
    ``attacked`` for how they count.
    """
    listed = attacks if isinstance(attacks, Sequence) else [attacks]
    fallen = attacked(model, x, y, listed, batch_size=batch_size)
    return ErrorRate(int(fallen.sum()), len(y))


Bound = Callable[[nn.Module, Tensor, Tensor], Tensor]  # margins (N, K), from below


def uncertified(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    margins: Bound | Sequence[Bound],
    *,
    batch_size: int = 250,
) -> Tensor:
    """Return which images (N,) none of the bounds ``margins`` certifies.

    A bound is ``margins(model, x, y) -> (N, K)``, as in ``bounds``; it is only run on
    images (``x``, ``y``) that are still open, ``batch_size`` of them at a time. Raises
    what the bounds raise.
    """
    check_images(x)
    check_labels(x, y)
    listed = margins if isinstance(margins, Sequence) else [margins]
    left = torch.ones(len(y), dtype=torch.bool)
    for bound in listed:
        for part in torch.arange(len(y)).split(batch_size):
            part = part[left[part]]
            if len(part):
                found = bound(model, x[part], y[part]).detach()
                left[part] = ~certified(found, y[part])
    return left


def certified_error(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    margins: Bound | Sequence[Bound],
    *,
    batch_size: int = 250,
) -> ErrorRate:
    """Return the certified error: an upper bound on the true robust error.

    The share of images without a certificate; see ``uncertified`` for ``model``,
    ``x``, ``y``, ``margins`` (one bound or several) and ``batch_size``.
    """
    left = uncertified(model, x, y, margins, batch_size=batch_size)
    return ErrorRate(int(left.sum()), len(y))
