"""Chapter 11b: seeds or images, which narrows an interval more."""

from functools import partial

import numpy as np

from advlib.exercises.core import Exercise
from advlib.exercises.judging import Case, Task, numbers

Array = np.ndarray
DRAWS = 4000


def _ends(
    first: Array,
    second: Array,
    *,
    over: tuple[bool, bool] = (True, True),
    paired: bool = True,
) -> Array:
    """Return the 95 % ends of the mean gap in points, by a bootstrap of two ways."""
    rng = np.random.default_rng(1)

    def weights(count: int, vary: bool) -> Array:
        even = np.full(count, 1 / count)
        return rng.multinomial(count, even, DRAWS) / count if vary else even[None]

    ways = list(zip(first.shape, over, strict=True))
    seeds, images = (weights(*way) for way in ways)
    gap = 100.0 * (first.astype(float) - second)
    means = ((seeds @ gap) * images).sum(1)
    if not paired:
        others = [weights(*way) for way in ways]
        parts = ((seeds, images, first), (*others, second))
        a, b = (((s @ (100.0 * part)) * i).sum(1) for s, i, part in parts)
        means = a - b
    return np.quantile(means, [0.025, 0.975])


def _width(
    first: Array,
    second: Array,
    seeds: int,
    images: int,
    *,
    over: tuple[bool, bool] = (True, True),
    paired: bool = True,
    scale: float = 1.0,
    cut: str = "both",
) -> float:
    """Return the width with fewer of each; a keyword plants a mistake."""
    rows = seeds if cut in ("both", "seeds") else len(first)
    columns = images if cut in ("both", "images") else first.shape[1]
    part = (slice(rows), slice(columns))
    low, high = _ends(first[part], second[part], over=over, paired=paired)
    return float(scale * (high - low))


def _length(value: Array, case: Case) -> str | None:
    return None if float(value) > 0 else "a width is positive: high minus low"


WIDTH = Task(
    "(first, second, seeds, images)",
    truth=_width,
    read=numbers(None, "the width of the interval"),
    mistakes={
        "in points: times 100": partial(_width, scale=0.01),
        "this is half the width: high minus low": partial(_width, scale=0.5),
        "the number of seeds is ignored": partial(_width, cut="images"),
        "the number of images is ignored": partial(_width, cut="seeds"),
        "both numbers are ignored": partial(_width, cut="none"),
        "the seeds are not drawn anew, the images alone": partial(
            _width, over=(False, True)
        ),
        "the images are not drawn anew, the seeds alone": partial(
            _width, over=(True, False)
        ),
        "not paired: both networks meet the same images and seeds": partial(
            _width, paired=False
        ),
    },
    broken=_length,
    tolerance=0.1,
)


def _verdicts(rng: np.random.Generator, seeds: int, images: int) -> Array:
    """Correlated errors of two kinds of network, (2, seeds, images), bool."""
    image, seed = rng.standard_normal(images), rng.standard_normal((2, seeds, 1))
    own = rng.standard_normal((2, seeds, images))
    shift = np.array([0.0, 0.4]).reshape(2, 1, 1)
    return image + 0.25 * seed + 0.7 * own + shift > 0.5


def _judge(answer: object, rng: np.random.Generator) -> str:
    cases = []
    for seeds, images, fewer in (
        (6, 300, (3, 300)),
        (6, 300, (6, 80)),
        (9, 400, (5, 150)),
    ):
        first, second = _verdicts(rng, seeds, images)
        cases.append((first, second, *fewer))
    WIDTH.judge(answer, cases)
    return "the width of the interval with fewer seeds and with fewer images"


EXERCISES = [
    Exercise(
        "11b.7",
        "Seeds or images?",
        "a function of (first, second, seeds, images), two arrays of verdicts, seeds x "
        "images, that returns the width in points with so many of each",
        (
            "`two_way` takes two arrays, seeds x images, and returns the mean gap and "
            "the two ends of its interval",
            "cut both arrays to `[:seeds, :images]`, call two_way, return `high - low`",
        ),
        _judge,
    )
]
