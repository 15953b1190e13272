"""Tables and numbers as a reader sees them."""

import math
import re

import numpy as np
import pandas as pd
import pytest
import torch

from advlib import plot, zoo
from advlib.evaluation import ErrorRate
from advlib.tables import LABELS, interval, number, table, text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (20.0, "20"),
        (19.96, "20"),
        (0.0449, "0.045"),
        (0.3, "0.30"),
        (-3.456, "-3.5"),
        (99.99, "100"),
        (1234.0, "1200"),
        (999_999.0, "1.0·10⁶"),
        (1.2e-9, "1.2·10⁻⁹"),
        (-1.25e12, "-1.2·10¹²"),
        (9.999e-5, "0.00010"),
        (0.0, "0"),
        (-0.0, "0"),
        (10000, "10000"),
        (np.int64(7), "7"),
        (math.inf, "∞"),
        (-math.inf, "-∞"),
        (math.nan, "–"),
        (5e-324, "4.9·10⁻³²⁴"),
        (1.7e308, "1.7·10³⁰⁸"),
    ],
)
def test_numbers(value, shown):
    """Two digits, no e+01, no nan."""
    assert number(value) == shown


@pytest.mark.parametrize("seed", range(3))
def test_a_number_reads_back(seed):
    """What is shown is the value to the digits promised, at any size."""
    generator = np.random.default_rng(seed)
    superscript = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
    for _ in range(500):
        value = generator.normal() * 10.0 ** generator.integers(-30, 30)
        digits = int(generator.integers(1, 6))
        shown = number(value, digits)
        assert not re.search(r"e[+-]|nan", shown)
        back = float(re.sub(r"·10(.*)", r"e\1", shown).translate(superscript))
        assert back == pytest.approx(value, rel=0.51 * 10.0 ** (1 - digits))


@pytest.mark.parametrize(
    ("ends", "shown"),
    [
        ((0.021, 0.084), "[0.021, 0.084]"),
        ((0.2046, 0.3320), "[0.20, 0.33]"),
        ((0.3, 0.301), "[0.30, 0.30]"),
        ((0, 0.0037), "[0, 0.0037]"),
        ((9.29, 26.11), "[9.3, 26.1]"),
        ((-0.0475, 0.1), "[-0.048, 0.100]"),
        ((-math.inf, 3.0), "[-∞, 3.0]"),
        ((1e-7, 0.5), "[1.0·10⁻⁷, 0.5000]"),
    ],
)
def test_intervals(ends, shown):
    """Both ends end at the same place."""
    assert interval(*ends) == shown


def test_bad_numbers():
    """Crossed ends and no digits are slips."""
    with pytest.raises(ValueError, match="before it begins"):
        interval(0.2, 0.1)
    with pytest.raises(ValueError, match="at least one digit"):
        number(1.0, 0)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("dnn_2", "MLP 200"),
        ("as it is", "as it is"),
        (True, "yes"),
        (np.bool_(False), "no"),
        (None, "–"),
        (pd.NA, "–"),
        (pd.NaT, "–"),
        (float("nan"), "–"),
        (torch.tensor(0.25), "0.25"),
        (np.float32(0.1), "0.10"),
        (torch.tensor(3), "3"),
        (ErrorRate(9, 200), "0.045 [0.021, 0.084]"),
        (ErrorRate(0, 10), "0 [0, 0.31]"),
        ((1, 2), "(1, 2)"),
    ],
)
def test_cells(value, shown):
    """One text for each kind of value."""
    assert text(value) == shown


SHAPES = {
    "rows of columns": {"dnn_2": {"a": 1, "b": 0.5}, "linear": {"a": 2, "b": 0.25}},
    "frame": pd.DataFrame({"a": [1, 2], "b": [0.5, 0.25]}, index=["dnn_2", "linear"]),
    "a mapping a row": [
        {"net": "dnn_2", "a": 1, "b": 0.5},
        {"net": "linear", "a": 2, "b": 0.25},
    ],
}


@pytest.mark.parametrize("kind", SHAPES)
def test_one_table_from_every_shape(kind):
    """Names by LABELS, integers whole, the corner named."""
    shown = table(SHAPES[kind], "net")
    assert repr(shown).splitlines() == [
        "net           a     b",
        "MLP 200       1  0.50",
        "linear model  2  0.25",
    ]


def test_series_and_values():
    """One column, called as the series is."""
    assert repr(table(pd.Series({"pgd": 0.25}, name="error"), "attack")) == (
        "attack  error\nPGD      0.25"
    )
    assert repr(table({"pgd": 1})).split() == ["value", "PGD", "1"]


def test_gaps_and_integers():
    """A gap is a dash and makes no integer beside it a float."""
    shown = table({"x": {"a": 1}, "y": {"b": None, "a": 10_000}, "z": {"b": 3}})
    assert repr(shown).split() == "a b x 1 – y 10000 – z – 3".split()


def test_columns_are_chosen_ordered_and_renamed():
    """Also a name of several levels."""
    rows = {("pgd", "dnn_2"): {"a": 1, "b": 2}, ("pgd", "cnn"): {"a": 3, "b": 4}}
    shown = table(rows, "attack, network", columns={"b": "second", "a": "a"})
    assert list(shown.frame.columns) == ["second", "a"]
    assert list(shown.frame.index) == ["PGD, MLP 200", "PGD, CNN, 4 convolutions"]
    with pytest.raises(ValueError, match=r"no column \['c'\]: there are \['a', 'b'\]"):
        table(rows, columns=["c"])


def test_what_is_no_table():
    """Nothing to show, and names that could not be told apart."""
    for nothing in ({}, [], pd.DataFrame(), pd.DataFrame(index=["a"])):
        with pytest.raises(ValueError, match="needs a row and a column"):
            table(nothing)
    with pytest.raises(ValueError, match=r"two rows are both called \['PGD'\]"):
        table({"pgd": {"a": 1}, "PGD": {"a": 2}})
    with pytest.raises(ValueError, match="two columns are both called"):
        table({"x": {"pgd": 1, "pgd_linf": 2}})


def test_html():
    """One row of headers with the corner in it; no interval breaks; text is text."""
    rows = {"<b>": {"error": ErrorRate(9, 200), "said": "more than four words here"}}
    page = table(rows, "network")._repr_html_()
    assert page.count("<tr") == 2
    assert "<th>network</th>" in page
    assert "<th></th>" not in page
    assert "0.045\N{NO-BREAK SPACE}[0.021,\N{NO-BREAK SPACE}0.084]" in page
    assert "more than four words here" in page
    assert "&lt;b&gt;" in page


def test_labels_name_every_network_once():
    """Each committed network has a name, and no two things share one."""
    assert set(zoo.RECIPES) <= set(LABELS)
    same = {"pgd", "pgd_linf"}
    names = [name for key, name in LABELS.items() if key not in same]
    assert len(names) == len(set(names))
    assert plot.LABELS is LABELS
    assert plot.table is table
