"""The course: its sums, its exercises, its chapters and its routes are the book's."""

import re
import sys
from pathlib import Path

import pytest

from advlib.exercises import catalogue

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "_ext"))

import landing  # noqa: E402

TEXT = (ROOT / "course.md").read_text(encoding="utf8")
PARTS = re.split(r"^### ", TEXT, flags=re.M)[1:]
WEEKS = [part for part in PARTS if part.startswith("Week ")]
ROUTES = [part for part in PARTS if not part.startswith("Week ")]
EXERCISES = catalogue.load()
LABEL = r"\d+[a-c]?"


def named(part: str) -> str:
    """The title of a part of the page."""
    return part.split("\n", 1)[0]


def asked(part: str) -> tuple[list[str], int]:
    """The exercises of a week or a route, and the minutes that stand there."""
    (line,) = re.findall(r"^- \*\*Set\.\*\* (.*) minutes\.$", part, re.M)
    numbers, minutes = line.rsplit(": ", 1)
    return re.findall(rf"{LABEL}\.\d+", numbers), int(minutes)


def chapters(text: str) -> set[str]:
    """The chapters that ``text`` names: "Chapters 1, 3 and 4a"."""
    found = re.findall(rf"Chapters? ((?:{LABEL}(?:, | and )?)+)", text)
    return {label for some in found for label in re.findall(LABEL, some)}


@pytest.mark.parametrize("part", PARTS, ids=named)
def test_minutes_add_up(part):
    """The printed sum is that of the catalogue; no exercise stands there twice."""
    numbers, minutes = asked(part)
    assert len(numbers) >= 6
    assert len(set(numbers)) == len(numbers)
    assert minutes == catalogue.minutes(numbers)


def test_twelve_weeks_of_like_length():
    """Numbered, each with reading, demonstration, exercises and what is hard."""
    assert [named(week).split(":")[0] for week in WEEKS] == [
        f"Week {k}" for k in range(1, 13)
    ]
    heads = ["Read", "In class", "Set", "Where it is hard"]
    for week in WEEKS:
        found = re.findall(r"^- \*\*(.*?)\.\*\*", week, re.M)
        assert [head for head in found if head in heads] == heads
        assert 55 <= asked(week)[1] <= 95, named(week)


@pytest.mark.parametrize("week", WEEKS, ids=named)
def test_exercises_belong_to_the_reading(week):
    """Of every chapter that is read there is an exercise, and of no other."""
    (reading,) = re.findall(r"^- \*\*Read\.\*\* (.*)$", week, re.M)
    numbers, _ = asked(week)
    assert {n.split(".")[0] for n in numbers} == chapters(reading)


def test_the_whole_book_is_in_the_course():
    """Every chapter is read, or is the subject of a talk."""
    assert chapters("\n".join(WEEKS)) == {e.chapter for e in EXERCISES.values()}


def test_routes_are_those_of_the_landing_page():
    """By name and by chapter, in order; each chapter has an exercise."""
    names = [named(route).split(":")[0].lower() for route in ROUTES]
    assert names == list(landing.ROUTES)
    for route, (_, labels) in zip(ROUTES, landing.ROUTES.values(), strict=True):
        first = re.search(r"Chapters (.*?)\.", route)[1]
        assert re.findall(LABEL, first) == labels.split()
        numbers, _ = asked(route)
        found = list(dict.fromkeys(n.split(".")[0] for n in numbers))
        assert found == labels.split()


def test_the_challenge_comes_with_branch_and_bound():
    """Once students have all parts of a verifier."""
    (week,) = [week for week in WEEKS if "**The verifier challenge**" in week]
    assert "branch and bound" in named(week)
