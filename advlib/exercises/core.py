"""Checks, hints and the list of exercises: what a reader calls."""

import pkgutil
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module

import numpy as np
import torch

from advlib.exercises.judging import NotYet, last_line

PREFIX = "chapter_"
FOLDED = "no further hint: the solution stands folded below the exercise"


@dataclass(frozen=True)
class Exercise:
    """One code exercise: its ``number``, ``chapter``, ``title`` and what to hand in.

    ``wanted`` is that as one sentence; ``hints`` are two, the second says more;
    ``judge(answer, rng)`` returns a sentence for a right answer and raises ``NotYet``
    with the reason for a wrong one; ``rng`` draws the hidden cases.
    """

    number: str
    title: str
    wanted: str
    hints: tuple[str, str]
    judge: Callable[[object, np.random.Generator], str] = field(repr=False)

    @property
    def chapter(self) -> str:
        """The label of the chapter: ``4a`` for Exercise 4a.6."""
        return self.number.split(".")[0]

    def __str__(self) -> str:
        return f"Exercise {self.number}, {self.title}. Hand in {self.wanted}."

    __repr__ = __str__


@dataclass(frozen=True)
class Verdict:
    """What ``check`` found: whether the answer is ``right``, and the ``message``.

    A notebook shows the line that ``check`` prints, and not this object again.
    """

    right: bool
    message: str

    def __bool__(self) -> bool:
        return self.right

    def _ipython_display_(self) -> None:
        return None  # the line is printed already


_given: dict[str, int] = {}  # how many hints of each exercise were read


def known(chapter: str | None = None) -> tuple[str, ...]:
    """Return the numbers of the exercises with a checker, of one ``chapter`` or of all.

    Raises ``ValueError`` for a chapter that has none.
    """
    if chapter is not None:
        return tuple(_chapter(str(chapter)))
    return tuple(number for label in _labels() for number in _chapter(label))


def about(number: str) -> Exercise:
    """Return the exercise of this ``number``, such as ``"4a.6"``, to be read.

    Raises ``ValueError`` for an unknown number; the message lists those there are.
    """
    label = str(number).split(".")[0]
    found = _chapter(label)
    if number not in found:
        there = ", ".join(found)
        raise ValueError(f"no code exercise {number!r}; Chapter {label} has {there}")
    return found[number]


def check(number: str, answer: object, *, seed: int | None = None) -> Verdict:
    """Judge the ``answer`` to the exercise ``number`` and print one line about it.

    The line begins with "right:" or "not yet:" and says why. The hidden cases are drawn
    anew at each call; with a ``seed`` they are the same again. A wrong answer, or one
    that raises an error, raises none here; the random states of Python, NumPy and torch
    are left alone. Raises ``ValueError`` for an unknown number, as ``about`` does.
    """
    exercise = about(number)
    rng = np.random.default_rng(seed)
    with _random_states(int(rng.integers(2**31))), torch.enable_grad():
        try:
            verdict = Verdict(True, exercise.judge(answer, rng))
        except NotYet as reason:
            verdict = Verdict(False, str(reason))
        except Exception as error:
            verdict = Verdict(False, f"checking it stopped with {last_line(error)}")
    _say(f"{'right' if verdict.right else 'not yet'}: {verdict.message}")
    return verdict


def hint(number: str) -> None:
    """Print the next hint to the exercise ``number``: there are two.

    They are counted as long as Python runs. Raises ``ValueError`` for an unknown
    number, as ``about`` does.
    """
    hints = about(number).hints
    place = _given.get(number, 0)
    _given[number] = place + 1
    if place < len(hints):
        _say(f"hint {place + 1} of {len(hints)}: {hints[place]}")
    else:
        _say(FOLDED)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


def _labels() -> list[str]:
    package = import_module("advlib.exercises")
    names = [module.name for module in pkgutil.iter_modules(package.__path__)]
    labels = [n.removeprefix(PREFIX) for n in names if n.startswith(PREFIX)]
    return sorted(labels, key=lambda label: (int(label.rstrip("abc")), label))


def _chapter(label: str) -> dict[str, Exercise]:
    if label not in _labels():
        raise ValueError(
            f"no exercises of Chapter {label!r}; there are those of "
            + ", ".join(_labels())
        )
    module = import_module(f"advlib.exercises.{PREFIX}{label}")
    return {exercise.number: exercise for exercise in module.EXERCISES}


@contextmanager
def _random_states(seed: int) -> Iterator[None]:
    """Seed the three global generators, and put them back afterwards."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
