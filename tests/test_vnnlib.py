"""Questions to a verifier, read from VNN-LIB files, against a plain evaluator."""

import gzip
import itertools
import math
import os
import random
import re
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from advlib.verify import formulas, vnnlib1, vnnlib2
from advlib.verify.questions import (
    Box,
    Case,
    QuestionError,
    Row,
    above,
    below,
    fraction,
    robustness,
)
from advlib.verify.reading import read_vnnlib

TESTS = {
    "<=": lambda a, b: a <= b,
    ">=": lambda a, b: a >= b,
    "<": lambda a, b: a < b,
    ">": lambda a, b: a > b,
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
}


def holds(node, values):
    """What the nested lists of a formula mean, in fractions: the truth of the tests."""
    op, *rest = node
    if op == "not":
        return not holds(rest[0], values)
    if op in ("and", "or"):
        found = [holds(part, values) for part in rest]
        return all(found) if op == "and" else any(found)
    return TESTS[op](*(number(part, values) for part in rest))


def number(node, values):
    if not isinstance(node, list):
        return values[node] if node in values else Fraction(node)
    op, *rest = node
    found = [number(part, values) for part in rest]
    if op == "*":
        return math.prod(found)
    if op == "+":
        return sum(found)
    return -found[0] if len(found) == 1 else found[0] - sum(found[1:])


def written(node):
    """The nested lists as text."""
    if isinstance(node, list):
        return "(" + " ".join(map(written, node)) + ")"
    return node


def nested(text):
    """The lists of a file's commands: a reader of its own, for well-formed files."""
    stack = [[]]
    for token in re.findall(r"[()]|[^\s()]+", re.sub(r";.*", "", text)):
        if token == "(":
            stack.append([])
        elif token == ")":
            done = stack.pop()
            stack[-1].append(done)
        else:
            stack[-1].append(token)
    return stack[0]


NAMES = ["X_0", "X_1", "Y_0", "Y_1"]
DECIMALS = ["0.0", "0.5", "-0.25", "1.0", "0.1", "-1.5"]


def some_term(rng, depth):
    kind = rng.choice(["name", "name", "number", "+", "-", "*"] if depth else ["name"])
    if kind == "name":
        return rng.choice(NAMES)
    if kind == "number":
        return rng.choice(DECIMALS)
    if kind == "*":
        pair = [rng.choice(DECIMALS), some_term(rng, depth - 1)]
        return ["*", *rng.sample(pair, 2)]
    return [kind, *(some_term(rng, depth - 1) for _ in range(rng.choice([1, 2, 3])))]


def some_formula(rng, depth, version):
    if depth and rng.random() < 0.7:
        kind = rng.choice(["and", "or", "not"] if version == 1 else ["and", "or"])
        count = 1 if kind == "not" else rng.choice([1, 2, 3])
        return [kind, *(some_formula(rng, depth - 1, version) for _ in range(count))]
    left = rng.choice(NAMES) if rng.random() < 0.5 else some_term(rng, 2)
    right = rng.choice(DECIMALS) if rng.random() < 0.5 else some_term(rng, 2)
    if version == 2 and not re.search(r"[XY]", written([left, right])):
        left = "Y_0"
    kinds = ["<=", ">=", "<", ">", "="] + ["!="] * (version == 2)
    return [rng.choice(kinds), left, right]


BOUNDS = [[c, f"X_{i}", v] for i in (0, 1) for c, v in (("<=", "1.0"), (">=", "-1.5"))]
HEADER = {
    1: "".join(f"(declare-const {name} Real)\n" for name in NAMES),
    2: "(vnnlib-version <2.0>)\n(declare-network N\n (declare-input X real [2])\n"
    " (declare-output Y real [1,2])\n)\n",
}


def file_of(parts, version):
    text = "\n".join(f"(assert {written(part)}) ; one" for part in parts)
    if version == 2:
        text = re.sub(r"X_(\d)", r"X[\1]", text)
        text = re.sub(r"Y_(\d)", r"Y[0,\1]", text).replace("(= ", "(== ")
    return HEADER[version] + text


@pytest.mark.parametrize("version", [1, 2])
def test_random_formulas_mean_what_they_say(version):
    if version == 2:
        pytest.importorskip("vnnlib")
    rng, answers = random.Random(version), []
    parse = vnnlib1.parse if version == 1 else vnnlib2.parse
    for _ in range(50):
        parts = [*BOUNDS, *(some_formula(rng, 3, version) for _ in range(2))]
        rng.shuffle(parts)
        question = parse(file_of(parts, version))
        for _ in range(15):
            grid = [rng.choice([-1.5, -0.25, 0.0, 0.1, 0.5, 1.0, 2.0]) for _ in NAMES]
            values = dict(zip(NAMES, map(Fraction, grid), strict=True))
            want = all(holds(part, values) for part in parts)
            assert question.violates(np.array(grid[:2]), np.array(grid[2:])) is want
            answers.append(want)
            if want:
                assert all_floats_hold(question, grid[:2], grid[2:])
    assert 50 < sum(answers) < len(answers) - 50


def all_floats_hold(question, x, y):
    """Whether the float form of some case allows the point, in fractions."""
    return any(
        not case.empty
        and all(case.lower <= x)
        and all(x <= case.upper)
        and rows_allow(case.input_floats(), x, y)
        and rows_allow(case.output_floats(), x, y)
        for case in question.cases
    )


def rows_allow(rows, x, y):
    for i, bound in enumerate(rows.bound):
        value, room = Fraction(0), Fraction(bound)
        for matrix, point in ((rows.x, x), (rows.y, y)):
            if matrix is not None:
                pairs = zip(matrix[i].tolist(), point, strict=True)
                value += sum(Fraction(c) * Fraction(p) for c, p in pairs)
        if rows.slack is not None:
            pairs = zip(rows.slack[i].tolist(), y, strict=True)
            room += sum(Fraction(c) * abs(Fraction(p)) for c, p in pairs)
        if value > room:
            return False
    return True


# ------------------------------------------------------------------------ rounding


def test_ends_are_rounded_outward_by_less_than_a_step():
    rng = random.Random(0)
    texts = [f"{rng.uniform(-2, 2):.{rng.randrange(1, 25)}f}" for _ in range(300)]
    texts += ["0", "-0.0", "1e-400", "-1e-400", "4.9e-324", "1e300", "0.5", "1e-5"]
    for text in texts:
        for value in (Decimal(text), Fraction(Decimal(text)), Decimal(text) / 3):
            exact, low, high = Fraction(value), below(value), above(value)
            assert Fraction(low) <= exact <= Fraction(high)
            assert (low == high) == (Fraction(float(value)) == exact)
            assert high <= math.nextafter(low, math.inf)
    assert below(Decimal("1e-400")) == 0.0 < above(Decimal("1e-400"))
    with pytest.raises(QuestionError, match="double precision"):
        above(Fraction(10) ** 400)


def test_a_point_on_the_rounded_end_is_outside_of_the_exact_one():
    text = HEADER[1] + "(assert (and (<= X_0 0.1) (>= X_0 -0.3) (<= X_1 0.5)"
    question = vnnlib1.parse(text + " (>= X_1 -0.5)))")
    (case,) = question.cases
    y = np.zeros(2)
    assert Fraction(0.1) > Fraction("0.1")  # and the float 0.3 is below the decimal
    assert not case.holds([0.1, 0.5], y)
    assert case.holds([math.nextafter(0.1, 0), 0.5], y)
    assert case.holds([-0.3, -0.5], y)
    assert not case.holds([math.nextafter(-0.3, -1), -0.5], y)
    assert not case.holds(np.array([0.1, 0.0], dtype=np.float32), y)
    assert case.upper[0] == 0.1
    assert not case.upper.flags.writeable
    assert case.box.exact[0] == (Fraction("-0.3"), Fraction("-0.5"))


def test_float_rows_allow_all_that_the_exact_rows_allow():
    rng, slacks = random.Random(1), 0
    box = Box((Decimal("-3.7"), Decimal(0)), (Decimal(2), Decimal("0.123")))
    for k in range(200):
        ugly = [Fraction(rng.randrange(10**17), 10**16) - 5 for _ in range(4)]
        short = [Fraction(rng.randrange(1, 99), 10) for _ in range(4)]
        c = ugly if k % 2 else short
        x = [rng.uniform(-3.7, 2), rng.uniform(0, 0.123)]
        y = [rng.uniform(-9, 9) for _ in range(2)]
        bound = sum(a * Fraction(b) for a, b in zip(c, y + x, strict=True))
        row = Row(tuple(enumerate(c[:2])), tuple(enumerate(c[2:])), bound)
        case = Case(box, (), (row,), 2)
        rows = case.output_floats()
        assert case.holds(x, y)
        assert rows_allow(rows, x, y)
        assert (rows.slack is None) or k % 2
        slacks += rows.slack is not None
        beyond = Row(row.y, row.x, bound - Fraction(1, 10**6))
        assert not rows_allow(Case(box, (), (beyond,), 2).output_floats(), x, y)
        assert not Row(row.y, row.x, bound, True).holds(x, y)
    assert slacks > 50


def test_points_must_be_numbers_that_float64_holds():
    question = robustness(torch.full((1, 2, 2), 0.5), "0.1", 1, 3)
    x, y = torch.full((4,), 0.5), torch.tensor([0.0, 0.0, -1.0])
    assert question.which(x.bfloat16(), y) == 0
    for bad, other, message in [
        (x[:3], y, "3 inputs, not 4"),
        (x, y[:2], "2 outputs, not 3"),
        (x / 0, y, "inputs: number 0 is inf"),
        (x, y * math.nan, "outputs: number 0 is nan"),
        (np.full(4, 2**60 + 1), y, "cannot hold"),
    ]:
        with pytest.raises(ValueError, match=message):
            question.violates(bad, other)


# ------------------------------------------------------------------------- cases


def test_cases_share_their_box():
    text = HEADER[1] + "".join(f"(assert {written(part)})" for part in BOUNDS)
    text += "(assert (or (>= Y_0 1) (and (<= X_0 0) (>= Y_1 1)) (< Y_0 Y_1)"
    text += "(and (<= X_0 5) (> Y_1 2)) (and (<= X_0 0.0) (<= Y_0 -7))))"
    question = vnnlib1.parse(text)
    groups = [at for _, at in question.groups]
    assert groups == [(0, 2, 3), (1, 4)]
    assert question.cases[0].box is question.cases[3].box
    assert [row.strict for case in question.cases for row in case.outputs] == [
        False, False, True, True, False,
    ]  # fmt: skip
    assert question.cases[2].output_floats().y.tolist() == [[1, -1]]


def test_contradictions_are_empty():
    for line, empty in [
        ("(assert (<= X_0 -1.50000000000000000001))", True),
        ("(assert (<= X_0 -1.5))", False),
        ("(assert (<= 1 0))", True),
        ("(assert (< (- Y_0 Y_0) 0))", True),
        ("(assert (<= (- Y_0 Y_0) 0))", False),
        ("(assert (not (= X_0 X_0)))", True),
    ]:
        text = HEADER[1] + "".join(f"(assert {written(part)})" for part in BOUNDS)
        question = vnnlib1.parse(text + line)
        assert all(case.empty for case in question.cases) is empty


def test_too_many_cases_are_refused(monkeypatch):
    monkeypatch.setattr(formulas, "MAX_CASES", 1000)
    text = HEADER[1] + "".join(f"(assert {written(part)})" for part in BOUNDS)
    ten = "(assert (or " + " ".join(f"(>= Y_0 {k})" for k in range(10)) + "))"
    assert len(vnnlib1.parse(text + 3 * ten).cases) == 1000
    with pytest.raises(QuestionError, match="10000 cases"):
        vnnlib1.parse(text + 4 * ten)


def test_robustness_is_the_margin_against_each_class():
    x = torch.tensor([[0.0, 0.25], [1.0, 0.5]])
    question = robustness(x, "0.1", 2, 4)
    assert len(question.cases) == 3
    assert len(question.groups) == 1
    low, high = question.cases[0].box.exact
    assert low == (0, Fraction("0.15"), Fraction("0.9"), Fraction("0.4"))
    assert high == (Fraction("0.1"), Fraction("0.35"), 1, Fraction("0.6"))
    for y, want in [
        ([0.0, 0.0, 1.0, 0.5], None),
        ([0.0, 1.0, 1.0, 0.5], 1),  # a tie
        ([0.0, 0.0, 1.0, 1.5], 2),
    ]:
        assert question.which(x, np.array(y)) == want
    assert not question.violates(x + 0.2, np.array([2.0, 0.0, 1.0, 0.0]))
    wide = robustness(x - 3, 0.5, 0, 2, clip=False).cases[0]
    assert wide.lower.tolist() == [-3.5, -3.25, -2.5, -3.0]
    assert robustness(x, 0.1, 0, 2).cases[0].box.exact[1][0] == Fraction(0.1)
    for bad, error in [
        ((x, -1, 0, 2), QuestionError),
        ((x, math.nan, 0, 2), QuestionError),
        ((x, "1e99999999", 0, 2), QuestionError),
        ((x - 3, 0.1, 0, 2), QuestionError),
        ((x, 0.1, 2, 2), IndexError),
    ]:
        with pytest.raises(error):
            robustness(*bad)
    assert fraction("0.1") == Fraction(1, 10)


# --------------------------------------------------------- what 1.0 files may hold

SMALL = "(declare-const X_0 Real)\n(declare-const Y_0 Real)\n"
WITHIN = "(assert (<= X_0 1))(assert (>= X_0 0))"


def test_layout_and_numbers_are_free():
    text = (
        "\ufeff; c\u00e9 (assert\n( declare-const\tX_0 Real);x\n(declare-const Y_0\r\n"
    )
    text += " Real)(assert(and(<= X_0 +1.E-1)(>= X_0 -.5)(<=(* 2 X_0 3)Y_0)))"
    (case,) = vnnlib1.parse(text.lstrip("\ufeff")).cases
    assert case.box.exact == ((Fraction(-1, 2),), (Fraction(1, 10),))
    assert case.outputs == (
        Row(((0, Fraction(-1)),), ((0, Fraction(6)),), Fraction(0)),
    )


@pytest.mark.parametrize(
    ("line", "where", "message"),
    [
        ("(assert (<= X_0 1)", "line 3, column 19", r"expected '\)', found the end"),
        ("(assert (<= X_0", "line 3, column 16", "expected a number.*found the end"),
        ("(assert (<= X_0 1)))", "line 3, column 20", r"expected '\(', found '\)'"),
        ("(assert\n  (=> (<= X_0 1) (<= Y_0 1)))", "line 4, column 4", "found '=>'"),
        ("(assert (<= X_0))", "line 3, column 16", r"expected a number.*found '\)'"),
        ("(assert (<= X_0 1 2))", "line 3, column 19", "which ends '<='.*found '2'"),
        (
            "(assert (not (<= X_0 1) (<= X_0 2)))",
            "line 3, column 25",
            "which ends 'not'",
        ),
        ("(assert (and))", "line 3, column 10", "no arguments"),
        ("(assert (<= (+) 1))", "line 3, column 14", "no arguments"),
        ("(assert (<= Y_1 1))", "line 3, column 13", "Y_1 is not declared"),
        ("(assert (<= X_1 1))", "line 3, column 13", "X_1 is not declared"),
        ("(assert (<= Z_0 1))", "line 3, column 13", "found 'Z_0'"),
        ("(assert (<= X_00 1))", "line 3, column 13", "found 'X_00'"),
        ("(assert (<= X_0 nan))", "line 3, column 17", "a finite number, found 'nan'"),
        ("(assert (<= X_0 -Inf))", "line 3, column 17", "a finite number"),
        ("(assert (<= X_0 1_0))", "line 3, column 17", "found '1_0'"),
        ("(assert (<= X_0 1e999))", "line 3, column 17", "double precision"),
        ("(assert (<= X_0 1e-9999))", "line 3, column 17", "decimal places"),
        ("(assert (<= (* X_0 Y_0) 1))", "line 3, column 14", "product of variables"),
        ("(assert (<= (/ X_0 2) 1))", "line 3, column 14", "found '/'"),
        ("(assert Y_0)", "line 3, column 9", "expected a formula"),
        ("(assert (Y_0))", "line 3, column 10", "or a comparison"),
        ("(check-sat)", "line 3, column 2", "declare-const or assert"),
        ("(declare-const X_0 Real)", "line 3, column 16", "declared twice"),
        ("(declare-const X_2 Real)", "line 3, column 16", "X_2 but no X_1"),
        ("(declare-const X_1 Int)", "line 3, column 20", "the sort Real, found 'Int'"),
        ("(declare-const A Real)", "line 3, column 16", "a variable X_0"),
        ("(assert " + 200 * "(and ", "line 3, column 515", "nested deeper"),
        ("(assert (<= " + 200 * "(+ ", "line 3, column 314", "nested deeper"),
        ("(assert (<= X_0 1))", "f.vnnlib: input X_0 has no lower", "needs both"),
        (
            "(assert (or (and (<= X_0 1) (>= X_0 0)) (<= X_0 0)))",
            "f.vnnlib",
            "X_0 has no lower",
        ),
    ],
)
def test_errors_say_where_and_what(line, where, message):
    with pytest.raises(QuestionError, match=message) as raised:
        vnnlib1.parse(SMALL + line, "f.vnnlib")
    assert where in str(raised.value)
    assert str(raised.value).startswith("f.vnnlib")


def test_inputs_without_bounds_may_be_cut():
    question = vnnlib1.parse(SMALL + "(assert (<= X_0 1))", cut=5)
    assert question.open == (0,)
    assert question.cases[0].lower.tolist() == [-5]
    assert vnnlib1.parse(SMALL + WITHIN, cut=5).open == ()


def test_every_cut_of_a_file_is_an_error_or_another_question():
    text = SMALL + WITHIN + "\n(assert (or (>= Y_0 (+ X_0 0.25)) (<= Y_0 -2)))"
    assert len(vnnlib1.parse(text).cases) == 2
    cuts = 0
    for end in range(len(text)):
        try:
            vnnlib1.parse(text[:end])
        except QuestionError:
            cuts += 1
        else:  # a file may end behind each command
            assert text[:end].rstrip().endswith(")")
    assert cuts > len(text) - 5


def test_files_are_read_by_what_they_are(tmp_path):
    path = tmp_path / "p.vnnlib"
    path.write_text("\ufeff" + SMALL + WITHIN, "utf-8")
    packed = tmp_path / "p.vnnlib.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    for file in (path, packed, str(packed)):
        question = read_vnnlib(file)
        assert question.source == str(file)
        assert question.violates([0.5], [1e9])
    packed.write_bytes(packed.read_bytes()[:-12])
    with pytest.raises(QuestionError, match="damaged gzip"):
        read_vnnlib(packed)
    with pytest.raises(FileNotFoundError):
        read_vnnlib(tmp_path / "none")
    for text, version in [
        ("; (vnnlib-version <2.0>)\n" + SMALL, False),
        ("; c\n (vnnlib-version <2.0>)", True),
        ("(declare-network N", True),
        ("", False),
    ]:
        assert vnnlib2.is_version_2(text) is version


# ----------------------------------------------------------------------- version 2

NETWORKS = """
(vnnlib-version <2.0>) ; (isomorphic-to C)
(declare-network A
  (declare-input X float32 [2,3])
  (declare-input U real [])
  (declare-hidden H float32 [2] "a \\"(deep\\" one")
  (declare-output Y float32 [1]))
(declare-network B (equal-to A)
  (declare-input X2 float32 [2,3])
  (declare-input U2 real [])
  (declare-output Y2 float32 [1]))
(declare-network C (isomorphic-to A)
  (declare-input X3 float16 [2,3])
  (declare-input U3 float64 [])
  (declare-output Y3 float16 [1]))
(declare-network D
  (declare-input Z real [1])
  (declare-output W int64 [2,1]))
"""


def ends(names):
    return "".join(f"(assert (<= -1.0 {n}))(assert (<= {n} 2.0))" for n in names)


def tensor(name):
    return [f"{name}[{i},{j}]" for i, j in itertools.product(range(2), range(3))]


def test_several_networks_stand_one_behind_the_other():
    pytest.importorskip("vnnlib")
    inputs = [*tensor("X"), "U", *tensor("X2"), "U2", *tensor("X3"), "U3", "Z[0]"]
    text = NETWORKS + ends(inputs)
    question = vnnlib2.parse(text + "(assert (>= W[1,0] 3))(assert (< X2[1,0] H[1]))")
    assert (question.num_inputs, question.num_outputs) == (22, 7)
    a, b, c, d = question.networks
    assert [n.relation for n in question.networks] == [
        None, "equal-to", "isomorphic-to", None,
    ]  # fmt: skip
    assert (b.of, c.of) == ("A", "A")
    assert a.hidden[0].onnx_name == 'a "(deep" one'
    places = [(v.start, v.size, v.dtype) for n in (a, c, d) for v in n.inputs]
    assert places == [
        (0, 6, "float32"), (6, 1, "real"), (14, 6, "float16"), (20, 1, "float64"),
        (21, 1, "real"),
    ]  # fmt: skip
    assert [v.start for n in question.networks for v in n.hidden + n.outputs] == [
        0, 2, 3, 4, 5,
    ]  # fmt: skip
    assert d.outputs[0].dtype == "int64"
    x, y = np.zeros(22), np.zeros(7)
    y[6], y[1] = 3, 0.5
    assert question.violates(x, y)
    x[7 + 3] = 0.5  # X2[1,0] and H[1] are equal
    assert not question.violates(x, y)
    with pytest.raises(QuestionError, match=r"input X3\[1,2\] has no lower"):
        vnnlib2.parse(NETWORKS + ends(n for n in inputs if n != "X3[1,2]"))


TWO = "(vnnlib-version <2.0>)\n(declare-network N (declare-input X float32 [2])\n"
TWO += "  (declare-output Y float32 [2]))\n"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("(assert (<= Y[0] 1.0)", "line 4, column 21: unexpected the end of the file"),
        ("(assert (= Y[0] 1.0))", "line 4, column 10: unexpected '='"),
        ("(assert (<= Y[0] 1e3))", "line 4, column 19: unexpected 'e3'"),
        ("(assert (<= Q[0] 1.0))", "line 4, column 13: Undeclared variable at 'Q'"),
        ("(assert (<= Y[2] 1.0))", "line 4, column 13: Index out of bounds"),
        ("(assert (<= Y[-1] 1.0))", "line 4, column 14: expected whole numbers"),
        ("(assert (<= Y[0.0] 1.0))", "line 4, column 14: expected whole numbers"),
        ("(assert (<= Y[0] 1))", "line 4, column 18: Type mismatch"),
        ("(assert (<= (* X[0] Y[0]) 1.0))", "line 4: a product of variables"),
        ("(assert (<= Y[0] 1.0))\0", "a zero byte"),
        ("(assert (<= Y[0] \u00e9))", "line 4, column 18: unexpected"),
        ("(assert " + 200 * "(and ", "nested deeper"),
        (f"(assert (<= Y[0] 1{400 * '0'}.0))", "a number beyond"),
        ("(assert (<= Y[0] 1.0))", r"input X\[0\] has no lower bound"),
    ],
)
def test_errors_of_version_2_say_where(line, message):
    pytest.importorskip("vnnlib")
    with pytest.raises(QuestionError, match=message) as raised:
        vnnlib2.parse(TWO + line, "f.vnnlib")
    assert str(raised.value).startswith("f.vnnlib")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("X float32 [2]", "X int32 [2]", "X: its element type is none of bfloat16"),
        ("float32", "Real", "X: its element type"),
        ("[2]", "[2.5]", "line 2, column 45: expected whole numbers"),
        ("[2]", "[0]", "positive integers"),
        ("<2.0>", "<3.0>", "line 1, column 17: Incompatible"),
        ("N (", "N (isomorphic-to M)(", "isomorphic-to needs an earlier network"),
        ("N (", "N (isomorphic-to N)(", "isomorphic-to needs an earlier network"),
        ("N (", "N (equal-to M)(", "Referenced network 'M' not found"),
    ],
)
def test_declarations_of_version_2_are_checked(old, new, message):
    pytest.importorskip("vnnlib")
    text = TWO + "(assert (<= Y[0] Y[1]))"
    with pytest.raises(QuestionError, match=message):
        vnnlib2.parse(text.replace(old, new))


def test_isomorphic_networks_have_equal_shapes():
    pytest.importorskip("vnnlib")
    text = NETWORKS.replace("X3 float16 [2,3]", "X3 float16 [3,2]")
    with pytest.raises(QuestionError, match="C is not isomorphic to A"):
        vnnlib2.parse(text + "(assert (<= Y[0] 0.0))")
    text = NETWORKS.replace("C (isomorphic-to A)", "C (isomorphic-to B)")
    with pytest.raises(QuestionError, match="without such a relation, not B"):
        vnnlib2.parse(text + "(assert (<= Y[0] 0.0))")


def test_the_conformance_suite_is_read():
    registry = pytest.importorskip("vnntest.core.registry")
    pytest.importorskip("vnnlib")
    read, refused = 0, {}
    for source in registry.get_cases():
        spec = source.build_vnnlib_spec()
        text = spec if isinstance(spec, str) else "\n".join(spec)
        try:
            read += bool(vnnlib2.parse(text, cut=100).cases)
        except QuestionError as error:
            refused[source.id] = source.node_type, str(error)
    assert read > 150
    for node_type, message in refused.values():
        assert node_type == "arithmetic_poly"
        assert "product of variables" in message


# ------------------------------------------------------------------ published files

FILES = sorted(
    Path(os.environ.get("ADVLIB_DATA", "none")).glob("vnncomp/*/*.vnnlib*"),
    key=lambda path: (path.parent.name, path.stat().st_size, path.name),
)


SETS = [list(g) for _, g in itertools.groupby(FILES, key=lambda p: p.parent.name)]
needs_files = pytest.mark.skipif(not FILES, reason="no files in ADVLIB_DATA")


@needs_files
def test_published_files_are_read_whole():
    for path in [path for group in SETS for path in {group[0], group[-1]}]:
        question = read_vnnlib(path)
        assert question.cases
        assert not any(case.empty for case in question.cases)
        assert all(case.output_floats().slack is None for case in question.cases)


@needs_files
def test_published_files_mean_what_they_say():
    """One file of each set, its formulas evaluated at points that are nearly in."""
    rng, found = np.random.default_rng(0), []
    for path in [group[0] for group in SETS]:
        question = read_vnnlib(path)
        if question.num_inputs > 700:
            continue
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rt") as file:
            parts = [c[1] for c in nested(file.read()) if c[0] == "assert"]
        numbers = [float(row.bound) for c in question.cases for row in c.outputs]
        numbers += [-v for v in numbers]
        for k in range(9):
            case = question.cases[k % len(question.cases)]
            x = rng.uniform(case.lower, case.upper).clip(case.lower, case.upper)
            at = rng.integers(question.num_inputs)
            x[at] += (0, 0, 1e-9)[k % 3] * rng.choice([-1, 1]) * np.ptp(x)
            y = rng.choice([*numbers, -5e3, 5e3, 0.5, 9.0], question.num_outputs)
            values = {f"X_{i}": Fraction(v) for i, v in enumerate(x)}
            values |= {f"Y_{i}": Fraction(v) for i, v in enumerate(y)}
            want = all(holds(part, values) for part in parts)
            assert question.violates(x, y) is want
            found.append(want)
    assert 10 < sum(found) < len(found) - 10
