"""What ``check``, ``hint`` and ``about`` promise, whatever the exercise."""

import random
import subprocess
import sys
from importlib import import_module

import numpy as np
import pytest
import torch
from torch import nn

from advlib import exercises
from advlib.exercises import core, judging

ALL = exercises.known()
STRANGE = [
    None,
    3,
    "text",
    torch.zeros(2),
    (1, 2),
    nn.Linear,
    lambda: 0,
    lambda *case: "text",
    lambda *case: float("nan"),
    lambda *case: torch.zeros(1, 2, 3),
    lambda *case: (torch.zeros(1), None),
    lambda *case: [[1], [1, 2]],
    lambda *case: lambda: 0,
    lambda *case: 1 / 0,
    lambda *case, more: more,
]


def tasks() -> list[tuple[str, judging.Task]]:
    """All comparisons, with the chapter that they belong to."""
    labels = dict.fromkeys(number.split(".")[0] for number in ALL)
    modules = {k: import_module(f"advlib.exercises.chapter_{k}") for k in labels}
    return [
        (name, value)
        for name, module in modules.items()
        for value in vars(module).values()
        if isinstance(value, judging.Task)
    ]


@pytest.mark.parametrize("number", ALL)
def test_strange_answers_raise_nothing(number, capsys):
    """One line, "not yet", and a verdict that is not right; never an exception."""
    for answer in STRANGE:
        verdict = exercises.check(number, answer, seed=0)
        said = capsys.readouterr().out
        assert not verdict.right
        assert not verdict
        assert said == f"not yet: {verdict.message}\n"
        assert "checking it stopped" not in said, (answer, said)


def test_an_error_in_the_answer_is_told_with_its_line():
    """The kind of error, its text, and the line of the reader's own code."""

    def answer(first, second):
        wanted = {}
        return wanted["p"]

    said = exercises.check("7a.6", answer).message
    assert "raised KeyError: 'p'" in said
    assert 'in the line `return wanted["p"]`' in said


def test_a_missing_argument_is_told():
    """Before anything is computed."""
    said = exercises.check("7a.6", lambda first: 1.0).message
    assert said == (
        "it is called as f(first, second), by position, and Python says: "
        "too many positional arguments"
    )


def test_an_argument_changed_in_place_is_told():
    """The caller's tensors would be other ones afterwards."""

    def answer(w, x, eps):
        x += 1
        return 0 * x

    said = exercises.check("2a.6", answer).message
    assert said == "it changes its argument x in place: work on a copy"


def test_a_seed_repeats_the_cases_and_none_draws_new_ones():
    """Seen by an answer that notes what it is asked."""
    asked = []

    def answer(first, second):
        asked.append((first, second))
        return 0.5

    runs = []
    for seed in (7, 7, 8, None, None):
        asked.clear()
        exercises.check("7a.6", answer, seed=seed)
        runs.append(tuple(asked))
    assert runs[0] == runs[1]
    assert len(set(runs)) == 4


def test_random_states_are_left_alone():
    """Those of Python, NumPy and torch: a chapter's digits must not move."""

    def answer(first, second):
        random.random(), np.random.rand(), torch.rand(1)
        return 0.5

    def drawn():
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        yield
        yield random.random(), np.random.rand(), float(torch.rand(1))

    seen = []
    for between in (lambda: None, lambda: exercises.check("7a.6", answer)):
        run = drawn()
        next(run)
        between()
        seen.append(next(run))
    assert seen[0] == seen[1]


def test_hints_are_graded(capsys, monkeypatch):
    """The first, the second, then the solution's place; each exercise for itself."""
    monkeypatch.setattr(core, "_given", {})
    for _ in range(4):
        exercises.hint("7a.6")
    exercises.hint("1.6")
    said = capsys.readouterr().out.splitlines()
    first, second = exercises.about("7a.6").hints
    assert said[:2] == [f"hint 1 of 2: {first}", f"hint 2 of 2: {second}"]
    assert said[2] == said[3] == core.FOLDED
    assert said[4].startswith("hint 1 of 2")


@pytest.mark.parametrize("call", [exercises.about, exercises.hint])
def test_an_unknown_number(call):
    """The text lists the numbers of the chapter, or the chapters."""
    with pytest.raises(ValueError, match=r"no code exercise '1\.2'.* has 1\.6, 1\.7"):
        call("1.2")
    with pytest.raises(ValueError, match=r"Chapter '12'; there are those of 1, 2a, 2b"):
        call("12.1")
    with pytest.raises(ValueError, match="4a"):
        exercises.check(4.6, None)
    with pytest.raises(ValueError, match="there are those of"):
        exercises.known("4")


@pytest.mark.parametrize("number", ALL)
def test_the_registry(number):
    """Number, chapter, title, what to hand in, two hints, the second with more."""
    one = exercises.about(number)
    assert one.number == number
    assert number in exercises.known(one.chapter)
    assert one.title[0].isupper()
    assert not one.title.endswith(".")
    assert str(one) == repr(one)
    assert one.wanted in str(one)
    assert len(set(one.hints)) == 2
    assert min(map(len, one.hints)) > 40


@pytest.mark.parametrize(("label", "task"), tasks())
def test_each_mistake_is_known_by_its_sentence(label, task):
    """On the hidden cases each one differs from the truth and from those before it."""
    judge = next(
        one.judge
        for one in map(exercises.about, exercises.known(label))
        if _uses(one.judge, task)
    )
    cases = _cases(judge, 3)
    table = [_values(task, function, cases) for function in task.mistakes.values()]
    for k, (message, row) in enumerate(zip(task.mistakes, table, strict=True)):
        for other in (_values(task, task.truth, cases), *table[:k]):
            equal = zip(row, other, strict=True)
            assert not all(judging.same(*p, task.tolerance) for p in equal), message
    message, wrong = next(iter(task.mistakes.items()))
    with pytest.raises(judging.NotYet) as caught:
        task.judge(_answer(task, wrong), cases)
    assert str(caught.value) == message


def _values(task: judging.Task, function, cases: list) -> list[np.ndarray]:
    return [task.view(judging.array(function(*case)), case) for case in cases]


def _cases(judge, seed: int) -> list:
    """What ``judge`` asks, taken at its door."""
    kept = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judging.Task, "judge", lambda self, answer, c: kept.extend(c))
        judge(lambda *case: None, np.random.default_rng(seed))
    return kept


def _uses(judge, task: judging.Task) -> bool:
    names = judge.__code__.co_names
    return any(judge.__globals__.get(name) is task for name in names)


def _answer(task: judging.Task, function):
    """A mistake as a reader would hand it in: of as many arguments, no keywords."""
    if "pre" in task.what:  # numbers in a row: the bound, then two ends a layer
        return lambda *case: _as_pair(np.asarray(function(*case)), case[0])
    return lambda *case: function(*case)


def _as_pair(row: np.ndarray, net: nn.Module) -> tuple:
    sizes = [layer.out_features for layer in net if isinstance(layer, nn.Linear)][:-1]
    ends = np.split(row[1:], np.cumsum([s for s in sizes for _ in "lu"])[:-1])
    return row[0], list(zip(ends[::2], ends[1::2], strict=True))


def test_a_notebook_shows_the_line_once():
    """The verdict that a cell ends with is not printed again; python -c shows it."""
    run = """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_cell("from advlib import exercises")
shell.run_cell("exercises.check('7a.6', 3)")
"""
    done = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True)
    assert done.stdout.count("not yet") == 1
    assert "Verdict" not in done.stdout
    assert "message=" in repr(exercises.Verdict(True, "fine"))
