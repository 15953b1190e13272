"""Each code exercise has a checker, each checker an exercise, each solution a call."""

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest

from advlib import exercises

CHAPTERS = sorted((Path(__file__).parents[2] / "chapters").glob("*.ipynb"))
CODE = re.compile(r"\*\*Exercise ([\w.]+) \(code\)\.\*\*")
HAND_IN = 'exercises.check("{}", '


def stored() -> dict[str, tuple[str, dict]]:
    """For each code exercise its text, and the cell after it."""
    found = {}
    for path in CHAPTERS:
        cells = json.loads(path.read_text("utf8"))["cells"]
        for cell, after in pairwise(cells):
            text = "".join(cell["source"])
            for number in CODE.findall(text):
                text = text.split(f"**Exercise {number} (code).**")[1]
                found[number] = text.split("**Exercise")[0], after
    return found


STORED = stored()


def test_exercises_and_checkers_are_the_same():
    """No exercise without a checker, and no checker without an exercise."""
    assert len(STORED) == 25
    assert sorted(STORED) == sorted(exercises.known())


@pytest.mark.parametrize("number", STORED)
def test_the_text_says_what_to_hand_in(number):
    """The call stands in the exercise, with a name for the answer."""
    text, _ = STORED[number]
    assert HAND_IN.format(number) in text


@pytest.mark.parametrize("number", STORED)
def test_the_solution_calls_the_check(number):
    """A folded cell, whose stored output says that it is right, of the same name."""
    _, cell = STORED[number]
    assert cell["cell_type"] == "code"
    assert "hide-cell" in cell["metadata"]["tags"]
    source = "".join(cell["source"])
    asked = re.search(re.escape(HAND_IN.format(number)) + r"(.+?)\)(?=\n|$)", source)
    assert asked
    said = "".join(
        "".join(output["text"])
        for output in cell["outputs"]
        if output["output_type"] == "stream"
    )
    lines = [line for line in said.splitlines() if line.startswith("right: ")]
    assert len(lines) == 1


def test_every_chapter_has_one():
    """Twenty-one chapters, none without an exercise that answers."""
    labels = {exercises.about(number).chapter for number in STORED}
    assert len(labels) == len(CHAPTERS)
