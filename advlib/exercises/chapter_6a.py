"""Chapter 6a: the toy's bound as a function of one slope."""

import numpy as np

from advlib.exercises.core import Exercise
from advlib.exercises.judging import Case, Task, numbers, shown

# the toy of the chapter; its square is [0, 1]^2, its bounds before the two ReLU layers
WEIGHTS = [[[-2, 2], [-1, 2]], [[-1, 1], [-1, 2]]]
OFFSETS = [[-1, -0.5], [0, 0]]
READOUT, CONSTANT = [1, -3], 7.0  # of the margin of class 0 against class 1
BOUNDS = [([-3, -1.5], [1, 1.5]), ([-1, -1], [1.5, 3])]
CROWN = ([0.0, 1.0], [1.0, 1.0])


def _walk(first: list[float], second: list[float]) -> float:
    """Return CROWN's bound on the margin with these slopes below the ReLUs."""
    w, value = np.array(READOUT, dtype=float), CONSTANT
    for k in (1, 0):
        low, high = (np.array(end, dtype=float) for end in BOUNDS[k])
        chord = high / (high - low)
        value -= (w.clip(max=0) * chord * low).sum()
        w = np.where(w > 0, (first, second)[k], chord) * w
        value += w @ OFFSETS[k]
        w = w @ np.array(WEIGHTS[k])
    return float(value + w.clip(max=0).sum())


def _of(t: float) -> float:
    return _walk([t, 0.5], [1.0, 1.0])


def _line_only(t: float) -> float:
    """The first piece, which holds up to 0.7."""
    return -0.5 + 1.25 * t


def _loose(value: np.ndarray, case: Case) -> str | None:
    if float(value) <= 0.375 + 1e-9:
        return None
    return (
        f"{shown(value)} at t = {case[0]:.3g}: no slope gives more than 0.375, the "
        "value of the linear program"
    )


BOUND = Task(
    "(t)",
    truth=_of,
    read=numbers(None, "the bound on the margin"),
    mistakes={
        "it does not depend on t, the slope of the first unit of layer one": (
            lambda t: _walk(*CROWN)
        ),
        "t belongs to the first layer alone: the second keeps the slopes 1": (
            lambda t: _walk([t, 0.5], [t, 1.0])
        ),
        "beyond t = 0.7 the minimum moves to another corner: walk finds it": _line_only,
        "the slope is t, not 1 - t": lambda t: _of(1 - t),
        "this is the upper end: a bound on the margin is wanted from below": (
            lambda t: -_of(t)
        ),
    },
    broken=_loose,
)


def _judge(answer: object, rng: np.random.Generator) -> str:
    drawn = [0.0, 0.5, *rng.uniform(0.05, 0.65, 3), *rng.uniform(0.72, 0.98, 3), 1.0]
    BOUND.judge(answer, [(float(t),) for t in drawn])
    return "the bound at nine slopes t, from -0.5 at 0 by way of 0.375 at 0.7 to 0 at 1"


EXERCISES = [
    Exercise(
        "6a.7",
        "The bound as a function of one slope",
        "a function of t that returns the bound on the toy's margin",
        (
            "`walk(layers, pre, square, slopes)` takes one tensor of slopes for each "
            "ReLU layer, the lowest first",
            "`slopes = [tensor([t, 0.5]), tensor([1.0, 1.0])]`, in float64; the "
            "second unit of the first layer has no influence",
        ),
        _judge,
    )
]
