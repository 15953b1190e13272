"""The catalogue of exercises is that of the notebooks, and its questions are fair."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from advlib.exercises import catalogue
from advlib.exercises.catalogue import Choice, Number

CHAPTERS = sorted((Path(__file__).parents[1] / "chapters").glob("*.ipynb"))
HEAD = re.compile(r"^\*\*Exercise (\d+[a-c]?\.\d+) \((\w+)\)\.\*\*", re.M)
EXERCISES = catalogue.load()
CHOICES = {
    n: e.question for n, e in EXERCISES.items() if isinstance(e.question, Choice)
}
NUMBERS = {
    n: e.question for n, e in EXERCISES.items() if isinstance(e.question, Number)
}
SINGLE = [q for q in CHOICES.values() if not q.several]

GOOD = """
[[exercise]]
number = "1.1"
kind = "recall"
difficulty = 1
minutes = 3
ask = "Which?"
options = [
  {right = true, text = "this", why = "It is."},
  {text = "that", why = "It is not."},
  {text = "neither", why = "This is."},
]
"""
NUMBER = """
[[exercise]]
number = "1.1"
kind = "predict"
difficulty = 1
minutes = 3
ask = "How many?"
answer = 3
low = 2
high = 4
inside = "Yes."
below = "More."
above = "Fewer."
after = "So it is."
"""


def markdown(path: Path) -> str:
    """The prose of a notebook."""
    cells = json.loads(path.read_text(encoding="utf8"))["cells"]
    return "\n\n".join(
        "".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"
    )


def texts(question: Choice | Number) -> list[str]:
    """All words of a question."""
    if isinstance(question, Choice):
        return [question.ask, *(t for o in question.options for t in (o.text, o.why))]
    q = question
    return [q.ask, q.inside, q.below, q.above, q.after]


def test_every_exercise_of_the_notebooks_and_no_other():
    """Numbers and kinds, in the book's order."""
    found = [pair for path in CHAPTERS for pair in HEAD.findall(markdown(path))]
    assert len(found) > 150
    assert [(e.number, e.kind) for e in EXERCISES.values()] == found


@pytest.mark.parametrize("number", [*CHOICES, *NUMBERS])
def test_words_are_sentences_and_formulas_are_closed(number):
    """Answers are sentences; dollars and backticks come in pairs; no HTML."""
    question = EXERCISES[number].question
    for text in texts(question):
        assert text.count("$") % 2 == 0
        assert text.count("`") % 2 == 0
        assert text == text.strip()
        assert "  " not in text
        assert not re.search(r"<\w|&\w+;", text)
    replies = texts(question)[1:]
    if isinstance(question, Choice):
        replies = [option.why for option in question.options]
    for text in replies:
        assert text[-1] in ".?"
        assert text[0].isupper() or not text[0].isalpha()
        assert 10 <= len(text) <= 200
    assert question.ask.endswith("?")


def test_the_right_option_stands_anywhere():
    """No place of the right option is much more likely than another."""
    fours = [q for q in SINGLE if len(q.options) == 4]
    places = Counter([o.right for o in q.options].index(True) for q in fours)
    share = len(fours) / 4
    assert len(fours) > 20
    assert all(0.5 * share <= places[k] <= 1.5 * share for k in range(4)), places
    marks = Counter(
        k for q in CHOICES.values() if q.several for k, o in enumerate(q.options)
        if o.right
    )  # fmt: skip
    assert max(marks.values()) <= 2.5 * min(marks[k] for k in range(3))


def test_the_right_option_is_neither_longest_nor_shortest():
    """Who always takes the longest option, or the shortest, does little better than
    chance; and on average the lengths are alike."""
    longest = [max(q.options, key=lambda o: len(o.text)).right for q in SINGLE]
    shortest = [min(q.options, key=lambda o: len(o.text)).right for q in SINGLE]
    assert sum(longest) <= 0.36 * len(SINGLE)
    assert sum(shortest) <= 0.36 * len(SINGLE)
    several = [o for q in CHOICES.values() for o in q.options]
    mean = {
        right: sum(len(o.text) for o in several if o.right is right)
        / sum(o.right is right for o in several)
        for right in (True, False)
    }
    assert abs(mean[True] - mean[False]) < 4, mean


def test_a_choice_of_all_is_not_always_of_as_many():
    """Neither the number of right options nor that of wrong ones is known before."""
    rights = Counter(
        sum(o.right for o in q.options) for q in CHOICES.values() if q.several
    )
    assert len(rights) > 1


@pytest.mark.parametrize("number", NUMBERS)
def test_a_number_answers_what_was_found_what_is_less_and_what_is_more(number):
    """Three different replies, each followed by what surprises."""
    question = NUMBERS[number]
    width = question.high - question.low
    replies = {
        question.reply(guess)
        for guess in (
            question.answer,
            question.low,
            question.high,
            question.low - width,
            question.high + width,
        )
    }
    assert len(replies) == 3
    assert all(reply.endswith(question.after) for reply in replies)
    for guess in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="finite"):
            question.reply(guess)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_number_stands_in_its_solution(number):
    """What counts as found is printed or written in the chapter, in some unit."""
    chapter = number.split(".")[0]
    path = next(p for p in CHAPTERS if p.name.lstrip("0").startswith(f"{chapter}_"))
    notebook = json.loads(path.read_text(encoding="utf8"))
    whole = "".join(
        "".join(part)
        for cell in notebook["cells"]
        for part in [cell["source"], *(_printed(o) for o in cell.get("outputs", []))]
    )
    value = NUMBERS[number].answer
    # counted from numbers printed there: 0.045 / 0.0024; 1 - .53, .66, .55; 3397 / 45
    derived = {"2a.4": 0.045 / 0.0024, "6c.4": 3397 / 45}
    derived["10a.5"] = 100 - (53 + 66 + 55) / 3
    derived["4a.8"], derived["3.6"] = 100 * 152 / 152, 0.43 / 0.21
    if number in derived:
        assert value == pytest.approx(derived[number], rel=0.03)
        return
    forms = {f"{value:g}", f"{value:.2f}", f"{value / 100:.2f}", f"{value / 100:g}"}
    assert any(re.search(rf"(?<![\d]){re.escape(f)}(?!\d)", whole) for f in forms)


def _printed(output: dict) -> str:
    text = output.get("text") or output.get("data", {}).get("text/plain", "")
    return "".join(text)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("kind = ", "kind = 'guess' #", "a kind is one of"),
        ("difficulty = 1", "difficulty = 4", "1, 2 or 3"),
        ("minutes = 3", "minutes = 0", "minutes"),
        ("minutes = 3", "", "minutes"),
        ("minutes = 3", "minutes = 3\nseconds = 4", "seconds"),
        ("right = true, ", "", "as many right"),
        ('text = "that"', 'right = true, text = "that"', "as many right"),
        ('text = "that"', 'text = "this"', "say the same"),
        ("why = ", "because = ", "why"),
        ("why = ", "colour = 3, why = ", "an option has"),
        ('ask = "Which?"', 'ask = ""', "words missing"),
        ('ask = "Which?"', 'ask = "Which?"\nchoose = "some"', "one or all"),
        ('"recall"', '"pencil"', "have questions"),
        ('  {text = "that", why = "It is not."},\n', "", "three or four"),
        (GOOD, GOOD + GOOD, "twice"),
        (GOOD, NUMBER.replace("low = 2", "low = 3.5"), "low <= answer"),
        (GOOD, NUMBER.replace("high = 4", "high = inf"), "finite"),
        (GOOD, NUMBER.replace("answer = 3", "answer = nan"), "finite"),
        (GOOD, NUMBER.replace('below = "More."', ""), "below"),
        (GOOD, NUMBER.replace('"predict"', '"code"'), "have questions"),
    ],
)
def test_what_is_not_well_formed_is_refused(old, new, complaint):
    """With the exercise's number and what is wrong."""
    assert len(catalogue.parse(GOOD)) == len(catalogue.parse(NUMBER)) == 1
    assert old in GOOD
    with pytest.raises(ValueError, match=rf"exercise 1\.1: .*{complaint}"):
        catalogue.parse(GOOD.replace(old, new, 1))


def test_minutes_add_up_and_unknown_numbers_are_refused():
    """As a course asks for them."""
    assert catalogue.minutes([]) == 0
    first, second = list(EXERCISES.values())[:2]
    both = [first.number, second.number]
    assert catalogue.minutes(both) == first.minutes + second.minutes
    with pytest.raises(ValueError, match=r"no exercise 99\.1"):
        catalogue.minutes(["99.1"])
