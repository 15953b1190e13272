"""Exercises that answer back: ``exercises.check("4a.6", answer)`` says what is wrong.

Each code exercise of a chapter has a checker, in the module of that chapter. It draws
fresh small cases, compares the reader's answer with a solution of its own, and knows
the mistakes that are often made. ``exercises.hint("4a.6")`` gives two hints, one after
the other; ``exercises.about("4a.6")`` says what to hand in.
"""

from advlib.exercises.core import (
    Exercise,
    Verdict,
    about,
    check,
    hint,
    known,
)

__all__ = ["Exercise", "Verdict", "about", "check", "hint", "known"]
