"""Chapter 7b: one sum of floats in many orders, to nearest and outward."""

from fractions import Fraction

import numpy as np

from advlib.exercises.core import Exercise
from advlib.exercises.judging import NotYet, call, shaped

Array = np.ndarray
TAKES = "(row, bias, low, high, orders)"


def _exact(row: Array, bias: Array, low: Array, high: Array) -> Fraction:
    """Return the smallest value of row . x + bias on the box, without rounding."""
    total = Fraction(float(bias[0]))
    for w, *ends in zip(row[0], low[:, 0], high[:, 0], strict=True):
        total += min(Fraction(float(w)) * Fraction(float(end)) for end in ends)
    return total


def _case(rng: np.random.Generator, k: int, count: int) -> tuple:
    row = rng.standard_normal((1, k)).astype(np.float32)
    bias = rng.standard_normal(1).astype(np.float32)
    x = rng.random((k, 1))
    low, high = (x + s * 0.1 for s in (-1, 1))
    orders = [rng.permutation(k) for _ in range(count)]
    ends = (end.clip(0, 1).astype(np.float32) for end in (low, high))
    return row, bias, *ends, orders


def _error(case: tuple) -> float:
    """Return four times the a priori bound on the rounding error of such a sum."""
    row, bias, low, high, _ = case
    sizes = np.maximum(np.abs(row[0] * low[:, 0]), np.abs(row[0] * high[:, 0]))
    total = float(sizes.astype(float).sum() + np.abs(bias[0]))
    return 4 * (row.size + 2) * 2.0**-24 * total


def _two_lists(value: object, count: int) -> tuple[Array, Array]:
    if isinstance(value, dict):
        raise NotYet("it returns a dictionary: return two lists, to nearest first")
    if not isinstance(value, tuple | list | np.ndarray) or len(value) != 2:
        raise NotYet("return two lists of ends: to nearest, then outward")
    return tuple(shaped(part, (count,), "a list of one end an order") for part in value)


def _far(case: tuple, ends: Array) -> None:
    """Complain of ends that no rounding explains."""
    row, bias, low, high, orders = case
    exact, error = _exact(row, bias, low, high), _error(case)
    if all(abs(Fraction(end) - exact) <= error for end in map(float, ends)):
        return
    mixed = [float(_exact(row[:, order], bias, low, high)) for order in orders]
    if np.abs(ends - mixed).max() <= error:
        raise NotYet(
            "the weights are permuted and the pixels are not: permute low and high, too"
        )
    upper = -float(_exact(-row, -bias, low, high))
    if np.abs(ends - upper).max() <= error:
        raise NotYet("this is the upper end of the unit: the lower one is asked for")
    bare = float(exact - Fraction(float(bias[0])))
    if np.abs(ends - bare).max() <= error:
        raise NotYet("the bias is missing")
    worst = float(ends[np.abs(ends - float(exact)).argmax()])
    raise NotYet(
        f"an end is {worst:.6g}, and the exact one {float(exact):.6g}: more than "
        "rounding explains"
    )


def _judge_case(answer: object, case: tuple) -> None:
    exact = _exact(*case[:4])
    nearest, outward = _two_lists(call(answer, TAKES, *case), len(case[4]))
    for ends in (nearest, outward):
        _far(case, ends)
    above = [float(end) for end in outward if Fraction(float(end)) > exact]
    if above and all(Fraction(float(end)) <= exact for end in nearest):
        raise NotYet("the two lists are swapped: to nearest first, then outward")
    if np.array_equal(nearest, outward):
        raise NotYet("the second list is rounded to nearest, too: outward is missing")
    if above:
        raise NotYet(
            f"an outward end is {above[0]:.9g}, above the exact {float(exact):.9g}: "
            "round down after each product and each sum"
        )
    if np.ptp(nearest) == 0 or (nearest != nearest.astype(np.float32)).any():
        raise NotYet("the sums are not in float32, or all in the same order")


def _judge(answer: object, rng: np.random.Generator) -> str:
    for k, count in ((20, 12), (60, 10), (150, 8)):
        _judge_case(answer, _case(rng, k, count))
    return "near the exact end to nearest, and never above it outward"


EXERCISES = [
    Exercise(
        "7b.6",
        "A sum in fifty orders",
        "a function of (row, bias, low, high, orders), all float32, the shapes those "
        "of `lower_end`, that returns two lists with an end for each order: to "
        "nearest, outward",
        (
            "an order permutes the columns of the row, and the pixels low and high "
            "with them",
            "for each order call `lower_end([(row[:, order], bias)], low[order], "
            "high[order], outward)[0, 0]`, once with outward False and once with "
            "True",
        ),
        _judge,
    )
]
