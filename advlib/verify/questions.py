"""What a verifier is asked: whether an input in a box has an output of some kind.

A ``Question`` is a union of ``Case``s: the answer is "sat" if one of them has a point,
"unsat" if none has. A case is a box of inputs x and linear constraints on x and on the
network's outputs y. All numbers are kept as they were written, exactly; the floats that
a search works with are rounded so that they allow more, never less.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import cached_property

import numpy as np
from torch import Tensor

from advlib.proof.arithmetic import as_array

# exact numbers; a decimal is what a file holds, and cheap
Number = Decimal | Fraction
Terms = tuple[tuple[int, Fraction], ...]


class QuestionError(ValueError):
    """A question that cannot be read or is none; the message says what and where."""


def fraction(value: Number | float | str) -> Fraction:
    """Return ``value``, a number of any kind or a decimal, without any rounding.

    Raises ``QuestionError`` for NaN, infinity, text that is no decimal, and exponents
    beyond 2000.
    """
    try:
        exact = Decimal(value) if isinstance(value, str) else value
        if not isinstance(exact, int | Decimal | Fraction):
            exact = Fraction(float(exact))
        if not isinstance(exact, Decimal) or abs(exact.adjusted()) <= 2000:
            return Fraction(exact)
    except (ValueError, ArithmeticError):
        pass
    raise QuestionError(f"{value!r} is no finite number")


def less(first: Number, second: Number) -> bool:
    """Return whether ``first`` < ``second``, exactly, whatever the two are."""
    if type(first) is type(second):
        return first < second
    return Fraction(first) < Fraction(second)


def below(value: Number) -> float:
    """Return the greatest float that is not above ``value``.

    Raises ``QuestionError`` beyond the range of double precision.
    """
    near = _nearest(value)
    return math.nextafter(near, -math.inf) if less(value, _as(value, near)) else near


def above(value: Number) -> float:
    """Return the least float that is not below ``value``.

    Raises ``QuestionError`` beyond the range of double precision.
    """
    near = _nearest(value)
    return math.nextafter(near, math.inf) if less(_as(value, near), value) else near


def _nearest(value: Number) -> float:
    try:
        near = float(value) + 0.0  # no negative zero
    except OverflowError:
        near = math.inf
    if not abs(near) < 1.7e308:  # room for one step outward
        raise QuestionError("a number beyond the range of double precision")
    return near


def _as(value: Number, near: float) -> Number:
    """The float ``near``, of the kind of ``value``, exactly."""
    return Decimal.from_float(near) if isinstance(value, Decimal) else Fraction(near)


@dataclass(frozen=True, eq=False)
class Box:
    """The inputs from ``low`` to ``high``, both included: one exact number each.

    Cases that share a box share the object. Raises ``ValueError`` for unequal lengths.
    """

    low: tuple[Number, ...]
    high: tuple[Number, ...]

    def __post_init__(self) -> None:
        if len(self.low) != len(self.high):
            raise ValueError(f"{len(self.low)} lower ends, {len(self.high)} upper ones")

    @cached_property
    def lower(self) -> np.ndarray:
        """The lower ends (n,) as float64, rounded down; not to be written to."""
        return _frozen(np.array([below(v) for v in self.low]))

    @cached_property
    def upper(self) -> np.ndarray:
        """The upper ends (n,) as float64, rounded up; not to be written to."""
        return _frozen(np.array([above(v) for v in self.high]))

    @cached_property
    def exact(self) -> tuple[tuple[Fraction, ...], tuple[Fraction, ...]]:
        """The lower and the upper ends as fractions."""
        return tuple(map(Fraction, self.low)), tuple(map(Fraction, self.high))

    @cached_property
    def empty(self) -> bool:
        """Whether some lower end is above the upper one."""
        return any(less(b, a) for a, b in zip(self.low, self.high, strict=True))

    def holds(self, x: np.ndarray) -> bool:
        """Return whether the float64 inputs ``x`` (n,) lie in the box, exactly."""
        if not ((self.lower <= x) & (x <= self.upper)).all():
            return False
        # strictly between the rounded ends is between the exact ones
        return not any(
            less(Fraction(x[i]), self.low[i]) or less(self.high[i], Fraction(x[i]))
            for i in np.flatnonzero((x == self.lower) | (x == self.upper))
        )


def _frozen(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


@dataclass(frozen=True)
class Row:
    """One constraint: the sum of ``y`` and ``x`` <= ``bound``, or < if ``strict``.

    ``y`` and ``x`` hold pairs (place, coefficient) for outputs and inputs, each place
    once, no coefficient 0; all numbers are exact.
    """

    y: Terms
    x: Terms
    bound: Fraction
    strict: bool = False

    def holds(self, x: Sequence[float], y: Sequence[float]) -> bool:
        """Return whether the floats ``x`` and ``y`` satisfy the row, exactly."""
        value = sum((c * Fraction(y[i]) for i, c in self.y), Fraction(0))
        value += sum(c * Fraction(x[i]) for i, c in self.x)
        return value < self.bound if self.strict else value <= self.bound

    @property
    def never(self) -> bool:
        """Whether the row has no variables and is false."""
        false = self.bound < 0 or (self.strict and self.bound == 0)
        return false and not self.x and not self.y


@dataclass(frozen=True, eq=False)
class Floats:
    """k rows as float64 arrays: what a search works with.

    Each point of the case satisfies ``y`` @ outputs + ``x`` @ inputs <= ``bound`` +
    ``slack`` @ abs(outputs). Coefficients are exact where they can be: a row of
    decimals is multiplied until they are whole numbers. Where they cannot, ``slack``
    (k, outputs) is what they lack; it is None, for no slack, in nearly all questions.
    What the inputs' coefficients lack is in ``bound``, over the whole box, and
    ``bound`` (k,) is rounded up. ``x`` (k, inputs) and ``y`` (k, outputs) are None if
    all 0. ``strict`` (k,), booleans: < instead of <=, which no float can tell apart.
    """

    y: np.ndarray | None
    x: np.ndarray | None
    bound: np.ndarray
    strict: np.ndarray
    slack: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Case:
    """A ``box`` and rows that hold together: ``inputs`` on x alone, ``outputs`` on y.

    Rows in ``outputs`` may mix x and y. A constraint on one x alone is an end of the
    box; a strict one is a row as well. ``num_outputs``: how many y there are.
    """

    box: Box
    inputs: tuple[Row, ...]
    outputs: tuple[Row, ...]
    num_outputs: int

    @property
    def lower(self) -> np.ndarray:
        """The box's lower ends (n,), float64, rounded down."""
        return self.box.lower

    @property
    def upper(self) -> np.ndarray:
        """The box's upper ends (n,), float64, rounded up."""
        return self.box.upper

    @property
    def empty(self) -> bool:
        """Whether the box or a row without variables is contradictory: no points."""
        rows = self.inputs + self.outputs
        return self.box.empty or any(row.never for row in rows)

    def holds(self, x: np.ndarray | Tensor, y: np.ndarray | Tensor) -> bool:
        """Return whether inputs ``x`` and outputs ``y``, of any shape, are in the case.

        They are taken as the very floats that they are, and nothing is rounded. Raises
        ``ValueError`` for wrong counts, NaN, infinity and what float64 cannot hold.
        """
        x = as_floats(x, len(self.box.low), "inputs")
        y = as_floats(y, self.num_outputs, "outputs")
        if not self.box.holds(x):
            return False
        return all(row.holds(x, y) for row in self.inputs + self.outputs)

    def input_floats(self) -> Floats:
        """Return the rows ``inputs``, A x <= b, as floats: ``y`` is None."""
        return _floats(self.inputs, self.box, self.num_outputs)

    def output_floats(self) -> Floats:
        """Return the rows ``outputs``, R y + C x <= r, as floats."""
        return _floats(self.outputs, self.box, self.num_outputs)


def as_floats(values: np.ndarray | Tensor, count: int, what: str) -> np.ndarray:
    """Return ``values``, of any shape, as ``count`` float64 numbers, none rounded.

    ``what``: the word for them in errors. Raises ``ValueError`` for another count, for
    NaN and infinity, and for numbers that float64 cannot hold.
    """
    array = as_array(values).ravel()
    if array.size != count:
        raise ValueError(f"{array.size} {what}, not {count}")
    floats = array.astype(np.float64)
    if not np.isfinite(floats).all():
        at = int(np.flatnonzero(~np.isfinite(floats))[0])
        raise ValueError(f"{what}: number {at} is {floats[at]}")
    if not (floats.astype(array.dtype) == array).all():
        raise ValueError(f"{what}: float64 cannot hold all numbers of {array.dtype}")
    return floats


def _floats(rows: Sequence[Row], box: Box, num_outputs: int) -> Floats:
    """The float form of ``rows``, as ``Floats`` says."""
    k, rows = len(rows), [_whole(row) for row in rows]
    y = np.zeros((k, num_outputs)) if any(row.y for row in rows) else None
    x = np.zeros((k, len(box.low))) if any(row.x for row in rows) else None
    slack, bounds = np.zeros((k, num_outputs)), np.zeros(k)
    for i, row in enumerate(rows):
        bound = row.bound
        for j, c in row.y:
            y[i, j] = near = _nearest(c)
            slack[i, j] = above(abs(c - Fraction(near)))
        for j, c in row.x:
            x[i, j] = near = _nearest(c)
            far = max(abs(Fraction(box.low[j])), abs(Fraction(box.high[j])))
            bound += abs(c - Fraction(near)) * far
        bounds[i] = above(bound)
    strict = np.array([row.strict for row in rows], dtype=bool)
    return Floats(y, x, bounds, strict, slack if slack.any() else None)


def _whole(row: Row) -> Row:
    """The ``row`` times a number that makes all coefficients floats, if any."""
    numbers = [c for _, c in row.y + row.x]
    if all(map(_is_float, numbers)):
        return row
    many = math.lcm(*(c.denominator for c in numbers))
    factor = Fraction(many, math.gcd(*(int(c * many) for c in numbers)))
    if not all(_is_float(c * factor) for c in numbers):
        return row
    y, x = (tuple((i, c * factor) for i, c in part) for part in (row.y, row.x))
    return Row(y, x, row.bound * factor, row.strict)


def _is_float(value: Fraction) -> bool:
    return Fraction(_nearest(value)) == value


@dataclass(frozen=True)
class Variable:
    """One tensor of a network: its ``name`` in the question, ``dtype`` and ``shape``.

    Its numbers, in row-major order, are ``size`` of the question's inputs, or of its
    outputs, from ``start`` on. ``dtype`` as the file names it: "float32", "real".
    ``onnx_name``: of a hidden one, what the network's file calls it.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    onnx_name: str | None = None

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Network:
    """A network that a question declares, by ``name``, with its tensors in order.

    ``inputs`` are the question's x; ``hidden`` and ``outputs`` its y. ``relation`` is
    "equal-to" (the same file) or "isomorphic-to" (the same shape, other weights), and
    ``of`` the name of the earlier network that it refers to; else both are None.
    """

    name: str
    inputs: tuple[Variable, ...]
    hidden: tuple[Variable, ...]
    outputs: tuple[Variable, ...]
    relation: str | None = None
    of: str | None = None


@dataclass(frozen=True, eq=False)
class Question:
    """Is there a point in one of the ``cases``? "sat" if so, "unsat" if there is none.

    ``source``: the file, for messages. ``networks``: what VNN-LIB 2.0 declares; there x
    is all inputs of all networks, one after the other, and y all their hidden tensors
    and outputs. It is () where one network has ``num_inputs`` x and ``num_outputs`` y.
    ``open``: the inputs that have no lower or no upper bound in the file, and have one
    here because the reader was told to cut them: then no points is not yet "unsat".
    """

    cases: tuple[Case, ...]
    num_inputs: int
    num_outputs: int
    source: str = ""
    networks: tuple[Network, ...] = ()
    open: tuple[int, ...] = ()

    def which(self, x: np.ndarray | Tensor, y: np.ndarray | Tensor) -> int | None:
        """Return the number of the first case that holds at ``x`` and ``y``, or None.

        As exact, and with the errors, of ``Case.holds``.
        """
        x = as_floats(x, self.num_inputs, "inputs")
        y = as_floats(y, self.num_outputs, "outputs")
        found = (k for k, case in enumerate(self.cases) if case.holds(x, y))
        return next(found, None)

    def violates(self, x: np.ndarray | Tensor, y: np.ndarray | Tensor) -> bool:
        """Return whether ``x`` with outputs ``y`` is a counterexample, exactly."""
        return self.which(x, y) is not None

    @cached_property
    def groups(self) -> tuple[tuple[Box, tuple[int, ...]], ...]:
        """The different boxes, each with the numbers of its cases, in order."""
        found: dict[int, tuple[Box, list[int]]] = {}
        for k, case in enumerate(self.cases):
            found.setdefault(id(case.box), (case.box, []))[1].append(k)
        return tuple((box, tuple(at)) for box, at in found.values())


def robustness(
    x: np.ndarray | Tensor, eps: Number | float | str, label: int, num_outputs: int, *,
    clip: bool = True,
) -> Question:  # fmt: skip
    """Return whether an input within ``eps`` of ``x`` can have another label.

    ``x``, of any shape, the centre, and ``eps``, a number or a decimal such as "0.1",
    are taken exactly; ``clip``: the box is cut to [0, 1], where ``x`` must lie. One
    case for each class j of ``num_outputs`` but ``label``: y_j - y_label >= 0, so a tie
    is a counterexample. Raises ``QuestionError``, a ``ValueError``, for numbers that
    make no box, ``IndexError`` for a label that is no class.
    """
    x = as_array(x)
    centre, radius = as_floats(x, x.size, "inputs"), fraction(eps)
    if not 0 <= label < num_outputs:
        raise IndexError(f"label {label} is none of {num_outputs} classes")
    if radius < 0 or (clip and not ((centre >= 0) & (centre <= 1)).all()):
        raise QuestionError("need eps >= 0 and, for clip=True, x in [0, 1]")
    points = [Fraction(v) for v in centre]
    low, high = [v - radius for v in points], [v + radius for v in points]
    if clip:
        low = [max(v, Fraction(0)) for v in low]
        high = [min(v, Fraction(1)) for v in high]
    box, one = Box(tuple(low), tuple(high)), Fraction(1)
    rows = [
        Row(((label, one), (j, -one)), (), Fraction(0))
        for j in range(num_outputs)
        if j != label
    ]
    cases = tuple(Case(box, (), (row,), num_outputs) for row in rows)
    return Question(cases, len(points), num_outputs)
