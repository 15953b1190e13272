"""What the tests of the exercises share: answers, seeds, messages."""

from collections.abc import Callable

import pytest

from advlib import exercises

SEEDS = (0, 1, 2)
Rights = dict[str, tuple]
Wrongs = dict[str, list[tuple]]


def each_right(rights: Rights) -> list[tuple]:
    """Number and answer, for each right answer."""
    return [(n, answer) for n, answers in rights.items() for answer in answers]


def each_wrong(wrongs: Wrongs) -> list[tuple]:
    """Number, answer and a part of the message, for each wrong answer."""
    return [(n, answer, said) for n, pairs in wrongs.items() for answer, said in pairs]


def is_right(number: str, answer: object) -> None:
    """It passes, whatever the seed."""
    for seed in SEEDS:
        verdict = exercises.check(number, answer, seed=seed)
        assert verdict.right, verdict.message


def is_wrong(number: str, answer: object, said: str) -> None:
    """It fails, and the message names the mistake."""
    verdict = exercises.check(number, answer, seed=0)
    assert not verdict.right
    assert said in verdict.message, verdict.message


def are_enough(rights: Rights, wrongs: Wrongs) -> None:
    """Two right and two wrong answers for each exercise."""
    assert set(rights) == set(wrongs)
    assert all(len(answers) >= 2 for answers in rights.values())
    assert all(len({said for _, said in pairs}) >= 2 for pairs in wrongs.values())


def judging_tests(
    rights: Rights, wrongs: Wrongs
) -> tuple[Callable, Callable, Callable]:
    """Return the three tests that every file of answers has."""

    def there_are_two_of_each():
        """Right answers and wrong ones."""
        are_enough(rights, wrongs)

    @pytest.mark.parametrize(("number", "answer"), each_right(rights))
    def right_answers(number, answer):
        """They pass with three seeds."""
        is_right(number, answer)

    @pytest.mark.parametrize(("number", "answer", "said"), each_wrong(wrongs))
    def wrong_answers(number, answer, said):
        """They fail, for the reason that the message gives."""
        is_wrong(number, answer, said)

    return there_are_two_of_each, right_answers, wrong_answers
