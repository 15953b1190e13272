"""VNN-LIB 1.0, the format of the competitions: a box of X_i and constraints on Y_i.

Read here: ``(declare-const X_0 Real)``, and ``(assert ...)`` of ``and``, ``or``,
``not``, the comparisons ``<=``, ``>=``, ``<``, ``>``, ``=`` of two expressions, and in
these ``+``, ``-``, ``*``, decimals and declared variables. ``;`` begins a comment.
Anything else is refused with line and column. Demarchi et al. 2023, Supporting
Standardization of Neural Networks Verification with VNN-LIB and CoCoNet.
"""

import re
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import NoReturn

from advlib.verify.formulas import (
    NEGATED,
    Bound,
    Clauses,
    Linear,
    all_of,
    any_of,
    compare,
    product,
    question,
    total,
)
from advlib.verify.questions import Number, Question, QuestionError

MAX_DEPTH = 100
MAX_DIGITS = 2000

_SPACE = r"(?:[ \t\r\n]+|;[^\n]*)*"
_DECIMAL = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,5})?"
_TOKEN = re.compile(_SPACE + r"([()]|[^ \t\r\n();]+|\Z)")
_NUMBER = re.compile(_DECIMAL)
_VARIABLE = re.compile(r"([XY])_(0|[1-9][0-9]{0,8})")
# nearly every line of a file: one input and one number
_BOUND = re.compile(
    rf"[ \t\r\n]*\([ \t]*([<>]=)[ \t]+X_(0|[1-9][0-9]{{0,8}})[ \t]+({_DECIMAL})[ \t]*\)"
)
_FORMULA = "a formula: (and ...), (or ...), (not ...) or a comparison"
_EXPRESSION = "a number, a declared variable, (+ ...), (- ...) or (* ...)"


def parse(
    text: str, source: str = "", *, cut: Number | float | None = None
) -> Question:
    """Return the question in the ``text`` of a file; ``source``: its name in errors.

    ``cut``: where inputs without bounds stop (``formulas.question``). Raises
    ``QuestionError``, a ``ValueError``, with line, column and what was expected.
    """
    return _Parser(text, source).question(cut)


class _Parser:
    """A place in a text, and what has been read before it."""

    def __init__(self, text: str, source: str) -> None:
        self.text, self.source, self.end = text, source, 0
        # for X and Y: number -> where it is declared
        self.declared: dict[str, dict[int, int]] = {"X": {}, "Y": {}}
        self.parts: list[Clauses] = []

    def fail(self, at: int, message: str) -> NoReturn:
        """Raise the error that place ``at`` deserves."""
        line = self.text.count("\n", 0, at) + 1
        column = at - self.text.rfind("\n", 0, at)
        where = f"{self.source or 'VNN-LIB'}, line {line}, column {column}"
        raise QuestionError(f"{where}: {message}") from None

    def take(self) -> tuple[str, int]:
        """Return the next token, "" at the end, and its place."""
        match = _TOKEN.match(self.text, self.end)
        self.end = match.end()
        return match[1], match.start(1)

    def expect(self, wanted: str, what: str = "") -> int:
        """Take the token ``wanted``, or fail; return its place."""
        token, at = self.take()
        if token != wanted:
            self.unexpected(token, at, what or f"{wanted!r}")
        return at

    def unexpected(self, token: str, at: int, wanted: str) -> NoReturn:
        """Fail at ``token``, which stands ``at`` the place of what was ``wanted``."""
        found = f"{token[:40]!r}" if token else "the end of the file"
        self.fail(at, f"expected {wanted}, found {found}")

    def checked(self, at: int, make: Callable, *given: object) -> object:
        """Return ``make`` of what is ``given``; its errors get the place ``at``."""
        try:
            return make(*given)
        except QuestionError as error:
            self.fail(at, str(error))

    # ------------------------------------------------------------------ commands

    def question(self, cut: Number | float | None) -> Question:
        """Read the whole text; ``cut`` as in ``parse``."""
        while True:
            token, at = self.take()
            if not token:
                break
            if token != "(":
                self.unexpected(token, at, "'('")
            command, at = self.take()
            if command == "declare-const":
                self.declare()
            elif command == "assert":
                self.parts.append(self.formula(False, 0))
            else:
                self.unexpected(command, at, "declare-const or assert")
            self.expect(")")
        inputs, outputs = self.count("X", at), self.count("Y", at)
        try:
            given = self.parts, inputs, outputs, "X_{}".format
            return question(*given, source=self.source, cut=cut)
        except QuestionError as error:
            raise QuestionError(f"{self.source or 'VNN-LIB'}: {error}") from None

    def declare(self) -> None:
        """Read a variable and its sort."""
        token, at = self.take()
        match = _VARIABLE.fullmatch(token)
        if not match:
            self.unexpected(token, at, "a variable X_0, X_1, ... or Y_0, Y_1, ...")
        places = self.declared[match[1]]
        if int(match[2]) in places:
            self.fail(at, f"{token} is declared twice")
        places[int(match[2])] = at
        self.expect("Real", "the sort Real")

    def count(self, kind: str, at: int) -> int:
        """Return how many X, or Y, are declared; their numbers must have no gap."""
        places = self.declared[kind]
        if not places:
            self.fail(at, f"expected a declaration of {kind}_0, found none")
        missing = next(i for i in range(len(places) + 1) if i not in places)
        if missing < len(places):
            later = min(i for i in places if i > missing)
            self.fail(places[later], f"{kind}_{later} but no {kind}_{missing} declared")
        return len(places)

    # ------------------------------------------------------------------ formulas

    def formula(self, negated: bool, depth: int) -> Clauses:
        """Read one formula and return its clauses, or those of its opposite."""
        match = None if negated else _BOUND.match(self.text, self.end)
        if match and int(match[2]) in self.declared["X"]:
            self.end = match.end()
            value = self.number(match[3], match.start(3))
            return [(Bound(int(match[2]), value, match[1] == "<="),)]
        self.expect("(", _FORMULA)
        token, at = self.take()
        self.check_depth(depth, at)
        if token == "not":
            clauses = self.formula(not negated, depth + 1)
        elif token in ("and", "or"):
            parts = []
            while self.peek() != ")":
                parts.append(self.formula(negated, depth + 1))
            if not parts:
                self.fail(at, f"({token}) has no arguments, expected one or more")
            join = all_of if (token == "and") is not negated else any_of
            clauses = self.checked(at, join, parts)
        elif token in NEGATED and token != "!=":
            left, right = self.expression(depth + 1), self.expression(depth + 1)
            clauses = compare(left, NEGATED[token] if negated else token, right)
        else:
            self.unexpected(token, at, f"{_FORMULA} <=, >=, <, > or =")
        self.expect(")", f"')', which ends {token!r}")
        return clauses

    def peek(self) -> str:
        """Return the next token and leave it there."""
        return _TOKEN.match(self.text, self.end)[1]

    def check_depth(self, depth: int, at: int) -> None:
        """Fail beyond a nesting that no file has."""
        if depth > MAX_DEPTH:
            self.fail(at, f"nested deeper than {MAX_DEPTH} pairs of parentheses")

    def expression(self, depth: int) -> Linear:
        """Read one arithmetic expression."""
        token, at = self.take()
        if token != "(":
            return self.leaf(token, at)
        operator, at = self.take()
        self.check_depth(depth, at)
        if operator not in ("+", "-", "*"):
            self.unexpected(operator, at, "one of the operators + - *")
        parts = []
        while self.peek() != ")":
            parts.append(self.expression(depth + 1))
        self.expect(")")
        if not parts:
            self.fail(at, f"({operator}) has no arguments, expected one or more")
        if operator == "*":
            return self.checked(at, product, parts)
        if operator == "-" and len(parts) == 1:
            return Linear().plus(parts[0], -1)
        return total(parts, 1 if operator == "+" else -1)

    def leaf(self, token: str, at: int) -> Linear:
        """Return a variable or a number as an expression."""
        match = _VARIABLE.fullmatch(token)
        if not match:
            return Linear(constant=Fraction(self.number(token, at)))
        place = int(match[2])
        if place not in self.declared[match[1]]:
            self.fail(at, f"{token} is not declared before it is used")
        terms = {place: Fraction(1)}
        return Linear(x=terms) if match[1] == "X" else Linear(y=terms)

    def number(self, token: str, at: int) -> Decimal:
        """Return the decimal in ``token``."""
        if not _NUMBER.fullmatch(token):
            if token.lstrip("+-").lower() in ("nan", "inf", "infinity"):
                self.fail(at, f"expected a finite number, found {token!r}")
            self.unexpected(token, at, _EXPRESSION)
        value = Decimal(token)
        if value.adjusted() > 300:
            self.fail(at, f"{token[:40]!r} is beyond the range of double precision")
        if len(token) > MAX_DIGITS or value.adjusted() < -MAX_DIGITS:
            self.fail(at, f"{token[:40]!r} has more than {MAX_DIGITS} decimal places")
        return value
