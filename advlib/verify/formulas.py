"""From formulas in inputs and outputs to cases: what both readers have in common.

A formula is kept in disjunctive normal form: a list of clauses, each a tuple of atoms
that hold together. An atom is a ``Bound`` on one input or a ``Row``.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple

from advlib.verify.questions import (
    Box,
    Case,
    Network,
    Number,
    Question,
    QuestionError,
    Row,
    fraction,
    less,
)

MAX_CASES = 100_000
MAX_NUMBERS = 10_000_000  # in all clauses, and in all boxes


class Bound(NamedTuple):
    """Input ``place`` <= ``value`` if ``upper``, else >=; without = if ``strict``."""

    place: int
    value: Number
    upper: bool
    strict: bool = False


Atom = Bound | Row
Clauses = list[tuple[Atom, ...]]


@dataclass
class Linear:
    """A linear expression: ``x`` and ``y`` map places to coefficients."""

    x: dict[int, Fraction] = field(default_factory=dict)
    y: dict[int, Fraction] = field(default_factory=dict)
    constant: Fraction = Fraction(0)

    @property
    def is_constant(self) -> bool:
        """Whether there are no variables in it."""
        return not self.x and not self.y

    def plus(self, other: "Linear", factor: Fraction | int = 1) -> "Linear":
        """Return the sum of this and ``factor`` times ``other``."""
        x, y = _sum(self.x, other.x, factor), _sum(self.y, other.y, factor)
        return Linear(x, y, self.constant + factor * other.constant)


def _sum(first: dict, second: dict, factor: Fraction | int) -> dict:
    total = dict(first)
    for place, c in second.items():
        total[place] = total.get(place, 0) + factor * c
    return {place: c for place, c in total.items() if c}


def total(parts: Sequence[Linear], sign: int = 1) -> Linear:
    """Return the first of ``parts`` plus ``sign`` times the others."""
    value = parts[0]
    for part in parts[1:]:
        value = value.plus(part, sign)
    return value


def product(parts: Sequence[Linear]) -> Linear:
    """Return the product of ``parts``.

    Raises ``QuestionError`` if more than one of them has variables.
    """
    varying = [p for p in parts if not p.is_constant]
    if len(varying) > 1:
        raise QuestionError(
            "a product of variables, where only products with constants are linear"
        )
    factor = math.prod((p.constant for p in parts if p.is_constant), start=Fraction(1))
    return Linear().plus(
        varying[0] if varying else Linear(constant=Fraction(1)), factor
    )


# what holds where a comparison does not
NEGATED = {"<=": ">", ">=": "<", "<": ">=", ">": "<=", "=": "!=", "!=": "="}


def compare(left: Linear, relation: str, right: Linear) -> Clauses:
    """Return the clauses of ``left`` ``relation`` ``right``, one of ``NEGATED``."""
    if relation == "=":
        return [(*_atoms(left, right, False), *_atoms(right, left, False))]
    if relation == "!=":
        return [_atoms(left, right, True), _atoms(right, left, True)]
    if relation in (">", ">="):
        left, right = right, left
    return [_atoms(left, right, relation in ("<", ">"))]


def _atoms(left: Linear, right: Linear, strict: bool) -> tuple[Atom, ...]:
    """``left`` <= ``right``, or <: one atom, or none if that is always true."""
    rest = left.plus(right, -1)
    bound = -rest.constant
    if len(rest.x) == 1 and not rest.y:
        ((place, c),) = rest.x.items()
        return (Bound(place, bound / c, c > 0, strict),)
    row = Row(tuple(rest.y.items()), tuple(rest.x.items()), bound, strict)
    return () if rest.is_constant and not row.never else (row,)


def any_of(parts: Iterable[Clauses]) -> Clauses:
    """Return the clauses of a disjunction of ``parts``.

    Raises ``QuestionError`` if they are too many.
    """
    found = list(itertools.chain.from_iterable(parts))
    _check_room(len(found), sum(map(len, found)))
    return found


def all_of(parts: Sequence[Clauses]) -> Clauses:
    """Return the clauses of a conjunction of ``parts``: one of each, in all ways.

    Raises ``QuestionError`` if they are too many.
    """
    common = [atom for part in parts if len(part) == 1 for atom in part[0]]
    several = [part for part in parts if len(part) != 1]
    longest = len(common) + sum(max(map(len, part)) for part in several)
    count = math.prod(map(len, several))
    _check_room(count, count * longest if several else 0)
    found = [tuple(common)]
    for part in several:
        found = [head + tail for head in found for tail in part]
    return found


def _check_room(count: int, numbers: int) -> None:
    if count > MAX_CASES or numbers > MAX_NUMBERS:
        raise QuestionError(
            f"{count} cases with up to {numbers} constraints in all, where "
            f"{MAX_CASES} and {MAX_NUMBERS} can be read; ask in several files"
        )


@dataclass
class Boxes:
    """Gathers the ends of all boxes; ``name``: what errors call an input.

    ``cut``: where an input without an end stops, if at all; ``open``: which did so.
    """

    low: list[Number | None]
    high: list[Number | None]
    name: Callable[[int], str]
    cut: Fraction | None = None
    open: set[int] = field(default_factory=set)
    known: dict = field(default_factory=dict)

    def tighten(self, bound: Bound) -> None:
        """Let every box respect ``bound``."""
        low, high = self.low[bound.place], self.high[bound.place]
        self.low[bound.place], self.high[bound.place] = _tightened(low, high, bound)

    def box(self, bounds: Iterable[Bound]) -> Box:
        """Return the box that respects ``bounds`` too; equal ones are one object.

        Raises ``QuestionError``, with its name, for an input that has not two ends.
        """
        ends: dict[int, tuple] = {}
        for bound in bounds:
            old = self.low[bound.place], self.high[bound.place]
            now = _tightened(*ends.get(bound.place, old), bound)
            if now != old or bound.place in ends:
                ends[bound.place] = now
        key = frozenset(ends.items())
        if key not in self.known:
            _check_room(0, len(self.low) * (len(self.known) + 1))
            self.known[key] = self._made(ends)
        return self.known[key]

    def _made(self, ends: dict[int, tuple]) -> Box:
        low, high = list(self.low), list(self.high)
        for place, (a, b) in ends.items():
            low[place], high[place] = a, b
        for what, values, sign in (("lower", low, -1), ("upper", high, 1)):
            if None not in values:
                continue
            missing = [i for i, value in enumerate(values) if value is None]
            if self.cut is None:
                raise QuestionError(
                    f"input {self.name(missing[0])} has no {what} bound; every input "
                    "needs both"
                )
            self.open.update(missing)
            values[:] = [sign * self.cut if v is None else v for v in values]
        return Box(tuple(low), tuple(high))


def _tightened(low: Number | None, high: Number | None, bound: Bound) -> tuple:
    """The ends ``low`` and ``high`` of an input, cut by ``bound``."""
    if bound.upper:
        return low, bound.value if high is None or less(bound.value, high) else high
    return bound.value if low is None or less(low, bound.value) else low, high


def _strict_row(bound: Bound) -> Row:
    """A strict ``bound`` as a row; the box has it with =."""
    sign = 1 if bound.upper else -1
    terms = ((bound.place, Fraction(sign)),)
    return Row((), terms, sign * Fraction(bound.value), True)


def question(
    parts: Sequence[Clauses], num_inputs: int, num_outputs: int,
    name: Callable[[int], str], *, source: str = "",
    networks: tuple[Network, ...] = (), cut: Number | float | None = None,
) -> Question:  # fmt: skip
    """Return the question whose formula is the conjunction of ``parts``.

    ``name``: what errors call an input, by its place; ``num_inputs``, ``num_outputs``,
    ``source`` and ``networks`` as in ``Question``. ``cut``: inputs without an end stop
    there, at plus or minus that number, and are ``Question.open``. Raises
    ``QuestionError`` for inputs without bounds, unless cut, and for too many cases.
    """
    common = [atom for part in parts if len(part) == 1 for atom in part[0]]
    clauses = all_of([part for part in parts if len(part) != 1])
    end = None if cut is None else abs(fraction(cut))
    boxes = Boxes([None] * num_inputs, [None] * num_inputs, name, end)
    for atom in common:
        if isinstance(atom, Bound):
            boxes.tighten(atom)
    shared = _rows(common)
    _check_room(len(clauses), len(clauses) * len(shared))
    cases = []
    for clause in clauses:
        box = boxes.box(atom for atom in clause if isinstance(atom, Bound))
        rows = shared + _rows(clause) if clause else shared
        inputs = tuple(row for row in rows if not row.y)
        outputs = tuple(row for row in rows if row.y)
        cases.append(Case(box, inputs, outputs, num_outputs))
    without = tuple(sorted(boxes.open))
    return Question(tuple(cases), num_inputs, num_outputs, source, networks, without)


def _rows(atoms: Iterable[Atom]) -> tuple[Row, ...]:
    """What of ``atoms`` are rows, strict bounds among them."""
    return tuple(
        _strict_row(atom) if isinstance(atom, Bound) else atom
        for atom in atoms
        if isinstance(atom, Row) or atom.strict
    )
