"""Chapter 7a: McNemar's exact test."""

import math
from fractions import Fraction

import numpy as np
from scipy import stats

from advlib.exercises.core import Exercise
from advlib.exercises.judging import Case, Task, numbers, shown


def _tail(first: int, second: int, most: int) -> float:
    """The chance of at most ``most`` heads in so many throws."""
    throws = first + second
    ways = sum(math.comb(throws, k) for k in range(most + 1))
    return float(Fraction(ways, 2**throws))


def _p_value(first: int, second: int) -> float:
    return min(1.0, 2 * _tail(first, second, min(first, second)))


def _one_tail(first: int, second: int) -> float:
    return _tail(first, second, min(first, second))


def _not_capped(first: int, second: int) -> float:
    return 2 * _one_tail(first, second)


def _strictly_less(first: int, second: int) -> float:
    return min(1.0, 2 * _tail(first, second, min(first, second) - 1))


def _other_tail(first: int, second: int) -> float:
    return min(1.0, 2 * _tail(first, second, max(first, second)))


def _of_the_first(first: int, second: int) -> float:
    return min(1.0, 2 * _tail(first, second, first))


def _point(first: int, second: int) -> float:
    low = min(first, second)
    return _tail(first, second, low) - _tail(first, second, low - 1)


def _normal(first: int, second: int, correction: float = 0.0) -> float:
    if first + second == 0:
        return 1.0
    gap = max(0.0, abs(first - second) - correction)
    return float(stats.chi2.sf(gap**2 / (first + second), 1))


def _corrected(first: int, second: int) -> float:
    return _normal(first, second, 1.0)


def _mid_p(first: int, second: int) -> float:
    return min(1.0, 2 * _one_tail(first, second) - _point(first, second))


def _no_chance(value: np.ndarray, case: Case) -> str | None:
    if 0 <= float(value) <= 1:
        return None
    return f"a p-value lies between 0 and 1, and for {case} yours is {shown(value)}"


P_VALUE = Task(
    "(first, second)",
    truth=_p_value,
    read=numbers(None, "the p-value"),
    mistakes={
        "one tail only: a difference in the other direction counts as well": _one_tail,
        "capped at 1 it would be right: at equal numbers the two tails overlap": (
            _not_capped
        ),
        "the observed number belongs to the tail: at most, not fewer than": (
            _strictly_less
        ),
        "the wrong end: sum up to the smaller of the two numbers": _other_tail,
        "the tail is that of the smaller number, also if the first is larger": (
            _of_the_first
        ),
        "this is the chance of this split alone: a tail is a sum": _point,
        "this is the normal approximation: the exact test counts throws": _normal,
        "this is the corrected normal approximation, not the exact test": _corrected,
        "this is the mid-p value: the observed split counts in full": _mid_p,
    },
    broken=_no_chance,
    tolerance=1e-7,
)


def _judge(answer: object, rng: np.random.Generator) -> str:
    cases = [(0, 0), (1, 0), (0, 4), (3, 3)]
    for most in (6, 12, 40, 120, 400):
        first = int(rng.integers(1, most))
        cases.append((first, first + int(rng.integers(1, 2 + int(2 * first**0.5)))))
    cases[4:] = [pair[:: rng.choice([-1, 1])] for pair in cases[4:]]
    P_VALUE.judge(answer, cases)
    return "McNemar's exact p-value for nine pairs of numbers"


EXERCISES = [
    Exercise(
        "7a.6",
        "McNemar's exact test",
        "a function of the two numbers (first, second) that returns the p-value",
        (
            "if the two networks are equally good, each image on which they differ is "
            "a throw of a fair coin",
            "add the chances of 0, 1, ..., `min(first, second)` heads in first + "
            "second throws, double the sum for the other tail, and cut at 1",
        ),
        _judge,
    )
]
