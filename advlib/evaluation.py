"""Error rates with their intervals: clean <= attacked <= true robust error."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn

from advlib._check import check_images, check_labels, check_model
from advlib.attacks import Attack


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


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean of ``values`` and its 95 % t-interval (mean, low, high).

    For means over seeds. Raises ``ValueError`` for fewer than two values.
    """
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or len(array) < 2:
        raise ValueError("an interval needs at least two values")
    half = stats.t.ppf(0.975, len(array) - 1) * stats.sem(array)
    return float(array.mean()), float(array.mean() - half), float(array.mean() + half)


def bootstrap_interval(
    values: Sequence[float],
    statistic: Callable[..., np.ndarray] = np.median,
    *,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Return ``statistic`` of ``values`` and its 95 % percentile bootstrap interval.

    ``statistic(array, axis=...)``; 2000 resamples drawn from ``seed``. Raises
    ``ValueError`` for fewer than two values.
    """
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or len(array) < 2:
        raise ValueError("an interval needs at least two values")
    picks = np.random.default_rng(seed).integers(len(array), size=(2000, len(array)))
    low, high = np.quantile(statistic(array[picks], axis=1), [0.025, 0.975])
    return float(statistic(array, axis=0)), float(low), float(high)
