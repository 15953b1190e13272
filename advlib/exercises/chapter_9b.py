"""Chapter 9b: whether the answer depends on the number of words."""

from functools import partial

import numpy as np

from advlib import results
from advlib.exercises.core import Exercise
from advlib.exercises.judging import Task, numbers

NUMBERS = (5, 10, 20)


def _difference(
    name: str,
    words: int,
    *,
    form: str = "unit",
    score: str = "cosine",
    always: int | None = None,
    sign: float = 1.0,
) -> np.ndarray:
    """Return mean, low, high from the record; a keyword plants a mistake."""
    run = results.load("words")["data"]["models"][name][form]
    asked = always or words
    part = run if asked == 10 else run[f"k = {asked}"]
    mean, low, high = part[score]["difference"]
    return np.array([mean, low, high] if sign > 0 else [-mean, -high, -low])


def _half(name: str, words: int) -> np.ndarray:
    """5 and 20 words exchanged."""
    return _difference(name, {5: 20, 10: 10, 20: 5}[words])


def _other_kind(name: str, words: int) -> np.ndarray:
    kind, seed = name.split("-")
    return _difference(f"{'sg' if kind == 'cbow' else 'cbow'}-{seed}", words)


WORDS = Task(
    "(name, words)",
    truth=_difference,
    read=numbers(3, "mean, low and high"),
    mistakes={
        "the number of words is ignored: yours is always 10": partial(
            _difference, always=10
        ),
        "5 and 20 words are exchanged": _half,
        "these vectors are raw: at length one they stand under 'unit'": partial(
            _difference, form="raw"
        ),
        "this is the lift, not the mean cosine": partial(_difference, score="lift"),
        "the sign: dimensions minus random directions": partial(_difference, sign=-1.0),
        "CBOW and skip-gram are exchanged": _other_kind,
    },
    tolerance=1e-6,
    what="(mean, low, high)",
)


def _judge(answer: object, rng: np.random.Generator) -> str:
    names = list(results.load("words")["data"]["models"])
    every = [(name, words) for words in NUMBERS for name in names]
    picked = sorted(rng.choice(len(every), size=9, replace=False))
    WORDS.judge(answer, [every[k] for k in picked])
    return "the difference of mean cosines for nine models and numbers of words"


EXERCISES = [
    Exercise(
        "9b.6",
        "The number of words",
        "a function of (name, words), as in ('cbow-1', 5), that returns the difference "
        "of mean cosines, its low and its high end",
        (
            "`content['models'][name]['unit']` holds the scores at length one; that "
            "of 10 words stands there itself, the others under 'k = 5' and 'k = "
            "20'",
            "each part has `['cosine']['difference']`: mean, low, high",
        ),
        _judge,
    )
]
