"""Intervals, paired tests and sample sizes: what a difference of two numbers means."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy import optimize, stats
from torch import Tensor


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


def paired_p_value(first: Tensor, second: Tensor) -> float:
    """Return the p-value of McNemar's exact test that two error rates are equal.

    ``first``, ``second`` (N,) bool: which of the same images are errors of the one and
    of the other. Only images on which they differ count: were the rates equal, each of
    these would be the first's or the second's with probability one half. Raises
    ``ValueError`` for different shapes.
    """
    if first.shape != second.shape or first.dim() != 1:
        raise ValueError("need two masks over the same images")
    only = int((first & ~second).sum()), int((second & ~first).sum())
    return float(stats.binomtest(only[0], sum(only)).pvalue) if sum(only) else 1.0


def images_needed(
    difference: float, discordant: float, *, level: float = 0.05, power: float = 0.8
) -> int:
    """Return how many images show a ``difference`` of two error rates.

    ``discordant``: the share of images on which the two differ, at least the
    difference; for two separate test sets the share expected of independent errors,
    p (1 - q) + q (1 - p). The two-sided paired test at ``level`` then finds the
    difference with probability ``power`` (normal approximation; Connor 1987). Raises
    ``ValueError`` unless 0 < difference <= discordant <= 1.
    """
    if not 0 < difference <= discordant <= 1:
        raise ValueError("need 0 < difference <= discordant <= 1")
    z, strength = stats.norm.ppf(1 - level / 2), stats.norm.ppf(power)
    spread = strength * math.sqrt(discordant - difference**2)
    return math.ceil(((z * math.sqrt(discordant) + spread) / difference) ** 2)


def paired_t_p_value(differences: Sequence[float]) -> float:
    """Return the p-value of the two-sided t-test that ``differences`` have mean 0.

    One difference for each seed, of two runs that share it. 0 or 1 if they are all the
    same. Raises ``ValueError`` for fewer than two values.
    """
    mean, low, _ = mean_interval(differences)
    if low == mean:  # no spread at all
        return float(mean == 0)
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the ``p_values`` adjusted for being several, in the same order.

    Rejecting those at most a level keeps the chance of even one false rejection below
    that level, whatever the dependence of the tests. Holm 1979. Raises ``ValueError``
    for a value outside [0, 1].
    """
    if not all(0 <= p <= 1 for p in p_values):
        raise ValueError("a p-value lies between 0 and 1")
    order = sorted(range(len(p_values)), key=lambda k: p_values[k])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, k in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[k]))
        adjusted[k] = largest
    return adjusted


def detectable_difference(
    spread: float, seeds: int, *, level: float = 0.05, power: float = 0.8
) -> float:
    """Return the true mean difference that a paired t-test finds with ``power``.

    ``spread``: the standard deviation over seeds of the paired differences, as
    measured; ``seeds``: how many there are; two-sided test at ``level``. From the
    noncentral t distribution; in the units of ``spread``. Raises ``ValueError`` for
    fewer than two seeds, a negative spread and levels outside (0, 1).
    """
    if seeds < 2 or not spread >= 0 or not (0 < level < 1 and level < power < 1):
        raise ValueError("need seeds >= 2, spread >= 0, 0 < level < power < 1")
    edge = stats.t.ppf(1 - level / 2, seeds - 1)

    def missing(shift: float) -> float:
        # the lower tail, mirrored: scipy's cdf is NaN there for two seeds
        tails = [stats.nct.sf(edge, seeds - 1, sign * shift) for sign in (1, -1)]
        return float(sum(tails)) - power

    upper = 1.0
    while missing(upper) < 0:
        upper *= 2
    return float(optimize.brentq(missing, 0.0, upper)) * spread / math.sqrt(seeds)
