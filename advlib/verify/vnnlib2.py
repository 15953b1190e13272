"""VNN-LIB 2.0, which declares networks with typed tensors: read by ``vnnlib``.

The package's parser and type checker are used, and the tree that they return is walked
here: its own transformation to boxes and polytopes is not, as it takes > for >=, = for
<= and the conjunction of several assertions for their union. Roy, Antony, Gimelli and
Daggitt 2026, VNN-LIB 2.0, arXiv:2605.07451.
"""

import json
import math
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from fractions import Fraction
from types import ModuleType
from typing import Any, NoReturn

from advlib.verify.formulas import (
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
from advlib.verify.questions import (
    Network,
    Number,
    Question,
    QuestionError,
    Variable,
)

MAX_DEPTH = 100
MAX_DIGITS = 2000
FLOATS = {"F16": "float16", "F32": "float32", "F64": "float64", "BF16": "bfloat16"}
WHOLE = {f"{k}{n}": f"{w}{n}" for k, w in (("I", "int"), ("U", "uint"))
         for n in (8, 16, 32, 64)}  # fmt: skip

_LAYOUT = re.compile(r"[ \t\r\n]+|;[^\n]*")
_QUIET = re.compile(r';[^\n]*|"(?:[^"\\\n]|\\.)*"')  # comments and strings
_INDEX = re.compile(r"\[[^\[\]]*\]")
_PARSE_ERROR = re.compile(r"line (\d+), column (\d+)")
_ISOMORPHIC = re.compile(
    r"(\(declare-network[ \t\r\n]+([A-Za-z]\w*)[ \t\r\n]*)"
    r"(\(isomorphic-to[ \t\r\n]+([A-Za-z]\w*)[ \t\r\n]*\))",
    re.ASCII,
)


def is_version_2(text: str) -> bool:
    """Return whether the ``text`` of a file is VNN-LIB 2: it begins as such."""
    at = 0
    while match := _LAYOUT.match(text, at):
        at = match.end()
    return text.startswith(("(vnnlib-version", "(declare-network"), at)


def parse(
    text: str, source: str = "", *, cut: Number | float | None = None
) -> Question:
    """Return the question in the ``text`` of a file; ``source``: its name in errors.

    ``cut``: where inputs without bounds stop (``formulas.question``).

    Element types are ``real`` and the floats; outputs may be whole numbers, inputs not.
    Hidden tensors come before the outputs of their network. Raises ``QuestionError``, a
    ``ValueError``, with the line, and the column where the package tells it, and
    ``ImportError`` if the package is missing.
    """
    return _Reader(text, source).question(cut)


def _package() -> ModuleType:
    try:
        import vnnlib
    except ImportError as error:
        raise ImportError(
            "a file in VNN-LIB 2.0 is read by the package vnnlib: pip install vnnlib"
        ) from error
    return vnnlib


class _Reader:
    """One text on its way through the package, with what its networks declare."""

    def __init__(self, text: str, source: str) -> None:
        self.source = source or "VNN-LIB"
        # comments and strings blanked: everything stays in its place
        self.plain = _QUIET.sub(_blank, text)
        self.check(text)
        self.isomorphic = {m[2]: m[4] for m in _ISOMORPHIC.finditer(self.plain)}
        self.package = _package()
        self.query = self.parsed(self.without_isomorphic(text))
        # name -> kind "x" or "y", start, shape
        self.places: dict[str, tuple[str, int, tuple[int, ...]]] = {}
        p = self.package
        self.relations = {
            p.LessEqual: "<=", p.GreaterEqual: ">=", p.LessThan: "<",
            p.GreaterThan: ">", p.Equal: "=", p.NotEqual: "!=",
        }  # fmt: skip

    def fail(
        self, line: int | None, message: str, column: int | None = None
    ) -> NoReturn:
        """Raise the error for a ``line`` and ``column``, as far as they are known."""
        where = self.source if line is None else f"{self.source}, line {line}"
        where += "" if column is None else f", column {column}"
        raise QuestionError(f"{where}: {message}") from None

    def fail_at(self, at: int, message: str) -> NoReturn:
        """Raise the error for place ``at`` of the text."""
        line = self.plain.count("\n", 0, at) + 1
        column = at - self.plain.rfind("\n", 0, at)
        self.fail(line, message, column)

    # ------------------------------------------------------- before the package

    def check(self, text: str) -> None:
        """Refuse what the package would misread, or not survive."""
        if "\0" in text:
            self.fail_at(text.index("\0"), "a zero byte, at which the package stops")
        if not self.plain.isascii():
            at = next(i for i, c in enumerate(self.plain) if not c.isascii())
            self.fail_at(at, f"unexpected {self.plain[at]!r}")
        for match in _INDEX.finditer(self.plain):
            if not re.fullmatch(r"[\d, \t\r\n]*", match[0][1:-1]):
                wanted = "whole numbers from 0 on, as shape or index"
                self.fail_at(match.start(), f"expected {wanted}, found {match[0]}")
        depth = 0
        for match in re.finditer(r"[()]", self.plain):
            depth += 1 if match[0] == "(" else -1
            if depth > MAX_DEPTH:
                self.fail_at(match.start(), f"nested deeper than {MAX_DEPTH}")

    def without_isomorphic(self, text: str) -> str:
        """Blank ``isomorphic-to``: the package wants equal types, the standard not."""
        for match in _ISOMORPHIC.finditer(self.plain):
            start, end = match.span(3)
            text = text[:start] + _blank(match, 3) + text[end:]
        return text

    def parsed(self, text: str) -> Any:
        """Return the package's tree of the ``text``."""
        try:
            return self.package.parse_query_string(text)
        except self.package.VNNLibException as error:
            self.explain(str(error))
        except (IndexError, ValueError) as error:  # of a number or of an index
            self.fail(None, f"a number beyond what the package reads ({error})")

    def explain(self, report: str) -> NoReturn:
        """Raise the error that the package reports, as text or as JSON."""
        if match := _PARSE_ERROR.search(report):
            line, column = int(match[1]), int(match[2])
            column += line > 1  # which it counts from 0, but from 1 on the first line
            found = report[match.end() :].lstrip(": ")
            found = "the end of the file" if found in ("", "''") else found
            self.fail(line, f"unexpected {found}", column)
        try:
            first = json.loads(report)["errors"][0]
            symbol, line = first["offendingSymbol"], int(first["line"])
            message = f"{first['message']} at {symbol!r}: {first['hint']}"
        except (ValueError, LookupError, TypeError):
            self.fail(None, report)
        row = (self.plain.split("\n")[line - 1 : line] or [""])[0]
        at = [m.start() for m in re.finditer(rf"(?<!\w){re.escape(symbol)}(?!\w)", row)]
        self.fail(line, message, at[0] + 1 if len(at) == 1 else None)

    # ------------------------------------------------------------------ networks

    def question(self, cut: Number | float | None) -> Question:
        """Return the whole question; ``cut`` as in ``parse``."""
        sizes = {"x": 0, "y": 0}
        networks = tuple(self.network(n, sizes) for n in self.query.networks)
        for network in networks:
            self.check_relation(network, networks)
        parts = [self.formula(a.expr) for a in self.query.assertions]
        names = self.input_names(sizes["x"], networks)
        given = parts, sizes["x"], sizes["y"], names
        try:
            made = {"source": self.source, "networks": networks, "cut": cut}
            return question(*given, **made)
        except QuestionError as error:
            self.fail(None, str(error))

    def network(self, node: Any, sizes: dict[str, int]) -> Network:
        """Return what ``node`` declares, and count its tensors in ``sizes``."""
        inputs = tuple(self.variable(v, "x", sizes) for v in node.inputs)
        hidden = tuple(self.variable(v, "y", sizes) for v in node.hidden)
        outputs = tuple(self.variable(v, "y", sizes) for v in node.outputs)
        of, relation = self.isomorphic.get(node.name), "isomorphic-to"
        if node.equal_to:
            if of is not None:
                self.fail(None, f"network {node.name} has two relations, not one")
            of, relation = node.equal_to, "equal-to"
        relation = relation if of is not None else None
        return Network(node.name, inputs, hidden, outputs, relation, of)

    def variable(self, node: Any, kind: str, sizes: dict[str, int]) -> Variable:
        """Return the tensor that ``node`` declares."""
        dtype = node.dtype.name
        known = {"Real": "real"} | FLOATS | (WHOLE if kind == "y" else {})
        if dtype not in known:
            wanted = ", ".join(sorted(known.values()))
            self.fail(None, f"{node.name}: its element type is none of {wanted}")
        shape, start = tuple(node.shape), sizes[kind]
        sizes[kind] += math.prod(shape)
        self.places[node.name] = kind, start, shape
        name = getattr(node, "onnx_name", None)
        if name is not None:  # in quotes, as it stands in the file
            name = re.sub(r"\\(.)", _unescaped, name[1:-1])
        return Variable(node.name, known[dtype], shape, start, name)

    def check_relation(self, network: Network, networks: Sequence[Network]) -> None:
        """Refuse an ``isomorphic-to`` that its networks do not keep."""
        if network.relation != "isomorphic-to":
            return
        names = [n.name for n in networks]
        before = networks[: names.index(network.name)]
        other = next((n for n in before if n.name == network.of), None)
        if other is None or other.relation is not None:
            self.fail(None, f"network {network.name}: isomorphic-to needs an earlier "
                      f"network without such a relation, not {network.of}")  # fmt: skip
        for mine, its in (
            (network.inputs, other.inputs),
            (network.outputs, other.outputs),
        ):
            if [v.shape for v in mine] != [v.shape for v in its]:
                self.fail(None, f"network {network.name} is not isomorphic to "
                          f"{other.name}: the shapes differ")  # fmt: skip

    def input_names(
        self, count: int, networks: Sequence[Network]
    ) -> Callable[[int], str]:
        """Return what names the inputs by their places, as they are written."""
        variables = [v for n in networks for v in n.inputs]

        def name(place: int) -> str:
            v = next(v for v in variables if v.start <= place < v.start + v.size)
            rest, index = place - v.start, []
            for n in reversed(v.shape):
                rest, i = divmod(rest, n)
                index.insert(0, str(i))
            return f"{v.name}[{','.join(index)}]" if index else v.name

        return name

    # ------------------------------------------------------------------ formulas

    def formula(self, node: Any) -> Clauses:
        """Return the clauses of the formula at ``node``."""
        try:
            if isinstance(node, self.package.Connective):
                parts = [self.formula(part) for part in node.args]
                join = all_of if isinstance(node, self.package.And) else any_of
                return join(parts)
            left, relation, right = node.lhs, self.relations[type(node)], node.rhs
            if isinstance(left, self.package.Var) and relation in ("<=", ">="):
                kind, place = self.place(left)
                if kind == "x" and isinstance(right, self.package.Literal):
                    return [(Bound(place, self.number(right), relation == "<="),)]
            return compare(self.expression(left), relation, self.expression(right))
        except QuestionError as error:
            if str(error).startswith(self.source):
                raise
            self.fail(self.line(node), str(error))

    def line(self, node: Any) -> int | None:
        """Return the line of the first variable or number under ``node``."""
        while not hasattr(node, "line"):
            below = node.children()
            if not below:
                return None
            node = below[0]
        return node.line

    def expression(self, node: Any) -> Linear:
        """Return the arithmetic expression at ``node``."""
        p = self.package
        if isinstance(node, p.Var):
            kind, place = self.place(node)
            terms = {place: Fraction(1)}
            return Linear(x=terms) if kind == "x" else Linear(y=terms)
        if isinstance(node, p.Literal):
            return Linear(constant=Fraction(self.number(node)))
        if isinstance(node, p.Negate):
            return Linear().plus(self.expression(node.expr), -1)
        if isinstance(node, p.Minus):
            return total([self.expression(e) for e in (node.head, *node.rest)], -1)
        parts = [self.expression(e) for e in node.args]
        return product(parts) if isinstance(node, p.Multiply) else total(parts)

    def place(self, node: Any) -> tuple[str, int]:
        """Return the kind of the variable at ``node``, and its place."""
        kind, start, shape = self.places[node.name]
        indices, offset = node.indices, 0
        if len(indices) != len(shape):
            self.fail(node.line, f"{node.name} needs {len(shape)} indices")
        for i, n in zip(indices, shape, strict=True):
            if not 0 <= i < n:
                self.fail(node.line, f"index {i} of {node.name} is beyond {shape}")
            offset = offset * n + i
        return kind, start + offset

    def number(self, node: Any) -> Decimal:
        """Return the number at ``node``, exactly as it is written."""
        value = Decimal(node.lexeme)
        if value.adjusted() > 300 or len(node.lexeme) > MAX_DIGITS:
            self.fail(node.line, f"{node.lexeme[:40]} is too long a number")
        return value


def _blank(match: re.Match, group: int = 0) -> str:
    """Spaces in place of what ``match`` found, line ends kept."""
    return re.sub(r"[^\n]", " ", match[group])


def _unescaped(match: re.Match) -> str:
    return {"n": "\n", "t": "\t"}.get(match[1], match[1])
