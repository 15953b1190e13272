"""The catalogue of the exercises: kind, difficulty, minutes, and questions.

``catalogue.toml``, beside this module, has one table for each exercise. What to recall
and what to predict carries a question: a choice, each option with the sentence that
answers it, or a number with the interval that counts as right. Texts are plain words
with TeX between dollar signs and code between backticks.
"""

import math
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).parent / "catalogue.toml"
KINDS = ("recall", "predict", "pencil", "code", "open")
ASKED = ("recall", "predict")  # the kinds that the page can answer at once
DIFFICULTIES = {1: "easy", 2: "medium", 3: "hard"}


@dataclass(frozen=True)
class Option:
    """One answer: what it says, whether it is right, and the sentence why."""

    text: str
    right: bool
    why: str


@dataclass(frozen=True)
class Choice:
    """A question with options, one of them right, or several if ``several``."""

    ask: str
    options: tuple[Option, ...]
    several: bool

    def __post_init__(self) -> None:
        rights = sum(option.right for option in self.options)
        texts = {option.text for option in self.options}
        _need(3 <= len(self.options) <= 4, "a choice has three or four options")
        _need(len(texts) == len(self.options), "two options say the same")
        _need(rights < len(self.options), "an option must be wrong")
        _need(rights > 1 if self.several else rights == 1, "as many right as asked")
        _need(all((self.ask, *texts, *(o.why for o in self.options))), "words missing")


@dataclass(frozen=True)
class Number:
    """A question whose answer is a number; from ``low`` to ``high`` it is right.

    ``inside``, ``below`` and ``above`` answer a guess there, ``after`` every guess.
    """

    ask: str
    answer: float
    low: float
    high: float
    inside: str
    below: str
    above: str
    after: str

    def __post_init__(self) -> None:
        ends = (self.low, self.answer, self.high)
        _need(all(map(math.isfinite, ends)), "numbers must be finite")
        _need(self.low <= self.answer <= self.high, "need low <= answer <= high")
        _need(self.low < self.high, "an interval has two ends")
        words = (self.ask, self.inside, self.below, self.above, self.after)
        _need(all(words), "words missing")

    def reply(self, guess: float) -> str:
        """Return what answers ``guess``, a finite number; else ``ValueError``."""
        _need(math.isfinite(guess), "a guess is a finite number")
        inside = self.low <= guess <= self.high
        side = self.below if guess < self.low else self.above
        return f"{self.inside if inside else side} {self.after}"


@dataclass(frozen=True)
class Exercise:
    """One exercise: its number, as "6a.3", what it takes, and its question, if any."""

    number: str
    kind: str
    difficulty: int
    minutes: int
    question: Choice | Number | None

    def __post_init__(self) -> None:
        _need(self.kind in KINDS, f"a kind is one of {', '.join(KINDS)}")
        _need(self.difficulty in DIFFICULTIES, "a difficulty is 1, 2 or 3")
        _need(1 <= self.minutes <= 240, "minutes are from 1 to 240")
        asked = self.kind in ASKED
        _need(asked == (self.question is not None), "recall and predict have questions")

    @property
    def chapter(self) -> str:
        """The chapter, as "6a"."""
        return self.number.split(".")[0]


def _need(true: bool, otherwise: str) -> None:
    if not true:
        raise ValueError(otherwise)


def _question(table: dict) -> Choice | Number | None:
    """Take the question out of ``table``, what stands in the file for one exercise."""
    if "options" in table:
        options = tuple(
            Option(o.pop("text"), o.pop("right", False), o.pop("why"))
            for o in table["options"]
        )
        _need(not any(table.pop("options")), "an option has text, right and why")
        choose = table.pop("choose", "one")
        _need(choose in ("one", "all"), "one chooses one or all")
        return Choice(table.pop("ask"), options, choose == "all")
    if "answer" in table:
        words = [table.pop(n) for n in ("inside", "below", "above", "after")]
        ends = [float(table.pop(n)) for n in ("answer", "low", "high")]
        return Number(table.pop("ask"), *ends, *words)
    return None


def parse(text: str) -> dict[str, Exercise]:
    """Return the exercises of ``text``, a catalogue in TOML, by number, in its order.

    Raises ``ValueError`` that names the exercise if one is not well formed.
    """
    found: dict[str, Exercise] = {}
    for table in tomllib.loads(text).get("exercise", []):
        number = str(table.get("number", "without a number"))
        try:
            question = _question(table)
            made = Exercise(**table, question=question)
            _need(number not in found, "it stands there twice")
        except KeyError as error:
            raise ValueError(f"exercise {number}: {error} is missing") from error
        except (TypeError, ValueError) as error:
            raise ValueError(f"exercise {number}: {error}") from error
        found[number] = made
    return found


def load() -> dict[str, Exercise]:
    """Return all exercises of the book by number, in the book's order."""
    return parse(FILE.read_text(encoding="utf8"))


def minutes(numbers: Iterable[str]) -> int:
    """Return how long the exercises with these ``numbers`` take, together.

    Raises ``ValueError`` for a number that no exercise has.
    """
    known, total = load(), 0
    for number in numbers:
        if number not in known:
            raise ValueError(f"no exercise {number}")
        total += known[number].minutes
    return total
