"""Chapter 8c: how many seeds show a difference of a given size."""

from functools import cache, partial

import numpy as np
from scipy import stats

from advlib.evaluation import detectable_difference
from advlib.exercises.core import Exercise
from advlib.exercises.judging import Task, numbers

Array = np.ndarray
MOST = 200


@cache
def _least(n: int) -> float:
    """The detectable difference of ``n`` seeds in units of the spread."""
    return detectable_difference(1.0, n)


def _needed(gap: Array, size: float, *, ddof: int = 1, shift: int = 0) -> int:
    """Return the smallest number of seeds; a keyword plants a mistake."""
    spread = float(gap.std(ddof=ddof))
    seeds = range(2, MOST)
    return shift + next(n for n in seeds if spread * _least(n) <= size)


def _of_the_interval(gap: Array, size: float) -> int:
    """Where the half width of the interval is the size: power one half only."""
    spread = gap.std(ddof=1)
    half = (stats.t.ppf(0.975, n - 1) * spread / n**0.5 for n in range(2, MOST))
    return 2 + next(k for k, width in enumerate(half) if width <= size)


def _normal(gap: Array, size: float) -> int:
    edges = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)
    return max(2, int(np.ceil((edges * gap.std(ddof=1) / size) ** 2)))


def _of_the_sizes(gap: Array, size: float) -> int:
    return _needed(np.abs(gap), size)


def _measured(gap: Array, size: float) -> float:
    return float(gap.std(ddof=1)) * _least(len(gap))


def _here(gap: Array, size: float) -> int:
    return len(gap)


SEEDS = Task(
    "(gap, size)",
    truth=_needed,
    read=numbers(None, "the number of seeds"),
    mistakes={
        "one too many: the first number that suffices": partial(_needed, shift=1),
        "one too few: with your number the difference is not yet seen": partial(
            _needed, shift=-1
        ),
        "the spread of a sample has ddof=1": partial(_needed, ddof=0),
        "your test finds the size half of the time only: ask for power 0.8": (
            _of_the_interval
        ),
        "this is the normal approximation, too hopeful with few seeds": _normal,
        "the spread is that of the differences, not of their sizes": _of_the_sizes,
        "this is the detectable difference of the seeds there are: how many seeds "
        "are needed for `size`?": _measured,
        "this is the number of seeds in `gap`, not the number needed": _here,
    },
    tolerance=1e-9,
)


def _judge(answer: object, rng: np.random.Generator) -> str:
    cases = []
    for seeds in (3, 3, 4, 4, 5, 6):  # few, so that ddof matters
        gap = rng.normal(rng.normal(), rng.uniform(0.2, 1.0), seeds)
        size = 1.02 * _least(int(rng.integers(6, 26))) * gap.std(ddof=1)
        cases.append((gap, float(size)))
    SEEDS.judge(answer, cases)
    return "the smallest number of seeds, for six designs"


EXERCISES = [
    Exercise(
        "8c.7",
        "How many seeds?",
        "a function of (gap, size), the paired differences that were measured and the "
        "difference to be seen, that returns the smallest number of seeds, at least 2",
        (
            "the spread is `gap.std(ddof=1)`, whatever the number of seeds that you "
            "plan",
            "try n = 2, 3, ... until `evaluation.detectable_difference(spread, n)` "
            "is at most the size",
        ),
        _judge,
    )
]
