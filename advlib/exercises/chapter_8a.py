"""Chapter 8a: two recipes compared by seed, and what such a design can see."""

from functools import partial

import numpy as np
from scipy import stats

from advlib.evaluation import detectable_difference
from advlib.exercises.core import Exercise
from advlib.exercises.judging import Case, Task, numbers

Array = np.ndarray


def _interval(
    first: Array,
    second: Array,
    *,
    sign: float = 1.0,
    ddof: int = 1,
    normal: bool = False,
    root: bool = True,
    spread_ddof: int = 1,
) -> Array:
    """Return mean, low, high, detectable difference; a keyword plants a mistake."""
    gap, n = sign * (second - first), len(first)
    edge = stats.norm.ppf(0.975) if normal else stats.t.ppf(0.975, n - 1)
    half = edge * gap.std(ddof=ddof) / (np.sqrt(n) if root else 1)
    least = detectable_difference(float(gap.std(ddof=spread_ddof)), n)
    return np.array([gap.mean(), gap.mean() - half, gap.mean() + half, least])


def _unpaired(first: Array, second: Array) -> Array:
    """The interval of two separate samples, as if the seeds were not shared."""
    n = len(first)
    both = first.var(ddof=1), second.var(ddof=1)
    error = np.sqrt(sum(both) / n)
    df = sum(both) ** 2 / sum(v**2 / (n - 1) for v in both)
    half, gap = stats.t.ppf(0.975, df) * error, second.mean() - first.mean()
    least = _interval(first, second)[3]
    return np.array([gap, gap - half, gap + half, least])


def _one_spread(first: Array, second: Array, *, which: int) -> Array:
    """The detectable difference from the spread of one recipe alone."""
    found = _interval(first, second)
    found[3] = detectable_difference(
        float((first, second)[which].std(ddof=1)), len(first)
    )
    return found


def _half_width(first: Array, second: Array) -> Array:
    found = _interval(first, second)
    found[3] = found[2] - found[0]
    return found


def _points(first: Array, second: Array) -> Array:
    return _interval(first, second) / 100


def _disorder(value: Array, case: Case) -> str | None:
    if value[1] <= value[0] <= value[2]:
        return None
    return "return the mean, the low end, the high end, then the detectable difference"


PAIRED = Task(
    "(first, second)",
    truth=_interval,
    read=numbers(4, "mean, low, high and the detectable difference"),
    mistakes={
        "the sign: the differences are the second minus the first": partial(
            _interval, sign=-1.0
        ),
        "not paired: take the differences seed by seed first": _unpaired,
        "the spread of a sample has ddof=1": partial(_interval, ddof=0, spread_ddof=0),
        "the spread of the detectable difference has ddof=1": partial(
            _interval, spread_ddof=0
        ),
        "the quantile is the normal's; with few seeds take Student's": partial(
            _interval, normal=True
        ),
        "the spread of the mean is that of one difference over sqrt(n)": partial(
            _interval, root=False
        ),
        "the detectable difference is not half the width: its power is 0.8": (
            _half_width
        ),
        "the spread is that of the first recipe, not of the differences": partial(
            _one_spread, which=0
        ),
        "the spread is that of the second recipe, not of the differences": partial(
            _one_spread, which=1
        ),
        "the values are points already: do not divide by 100": _points,
    },
    broken=_disorder,
    what="(mean, low, high, detectable)",
)


def _judge(answer: object, rng: np.random.Generator) -> str:
    cases = []
    for n in (3, 4, 6, 10):
        seeds = 20 + 3 * rng.standard_normal(n)
        noise = rng.standard_normal((2, n)) * rng.uniform(0.3, 1.5)
        cases.append((seeds + noise[0], seeds + noise[1] + rng.normal()))
    PAIRED.judge(answer, cases)
    return "mean, interval and detectable difference of four paired designs"


EXERCISES = [
    Exercise(
        "8a.8",
        "Two recipes, paired by seed",
        "a function of (first, second), arrays with one error for each seed, that "
        "returns mean, low and high of second - first and the detectable difference",
        (
            "subtract seed by seed; everything else is said about these differences",
            "`evaluation.mean_interval(gap)` gives three of the numbers, "
            "`evaluation.detectable_difference(gap.std(ddof=1), len(gap))` the "
            "fourth",
        ),
        _judge,
    )
]
