"""Tables as a reader wants them: human names, no ``2e+01``, no ``NaN``, whole cells.

``table(rows)`` takes what an experiment has at hand and returns a ``Table``, which a
notebook shows as HTML and a terminal as text. ``LABELS`` has one name for each network
and method of the book.
"""

import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real

import pandas as pd

# one name a network and method; what is not here is shown as it is
LABELS = {
    "linear": "linear model",
    "small": "MLP 50-20",
    "small_pgd": "MLP 50-20, PGD-trained",
    "small_ibp": "MLP 50-20, IBP-trained",
    "mlp_256": "MLP 256-256",
    "mlp_256_pgd": "MLP 256-256, PGD-trained",
    "mlp_256_ibp": "MLP 256-256, IBP-trained",
    "dnn_2": "MLP 200",
    "dnn_2_pgd": "MLP 200, PGD-trained",
    "dnn_4": "MLP 200-100-100",
    "cnn": "CNN, 4 convolutions",
    "cnn_small": "CNN, 2 convolutions",
    "cnn_small_fgsm": "CNN, FGSM-trained",
    **{f"cnn_small_pgd_{s}": f"CNN, PGD-trained, seed {s}" for s in range(3)},
    **{f"cnn_shallow_{s}": f"shallow CNN, seed {s}" for s in range(3)},
    **{f"cnn_deep_{s}": f"deep CNN, seed {s}" for s in range(3)},
    "fc10_1e-4": "FC10, decay 1e-4",
    "fc10_1e-2": "FC10, decay 1e-2",
    "fc10_1": "FC10, decay 1",
    "fc_100_100": "FC 100-100",
    "fc_200_200": "FC 200-200",
    "ae_400": "AE 400",
    "fc_100_100_p1": "FC 100-100, first half",
    "fc_123_456_p1": "FC 123-456, first half",
    "fc_100_100_p2": "FC 100-100, second half",
    "fgsm": "FGSM",
    "pgd": "PGD",
    "pgd_linf": "PGD",
    "pgd_l2": "PGD, l2",
    "apgd": "APGD",
    "strong": "strong ensemble",
    "cross_entropy": "cross-entropy",
    "margin_loss": "margin loss",
    "dlr_loss": "DLR loss",
    "exact": "exact",
    "interval": "intervals",
    "dual": "Wong-Kolter",
    "crown": "CROWN",
    "alpha": "optimised slopes",
    "lp": "linear program",
    "sdp": "SDP",
    "ibp": "IBP",
    "crown_ibp": "CROWN-IBP",
    "trades": "TRADES",
    "relu": "ReLU",
    "leaky_relu": "LeakyReLU",
    "silu": "SiLU",
    "gelu": "GELU",
    "elu": "ELU",
    "celu": "CELU",
    "softplus": "Softplus",
    "smooth_relu": "SmoothReLU",
    "parametric_softplus": "Parametric Softplus 10",
    "parametric_softplus_100": "Parametric Softplus 100",
    "cbow": "CBOW",
    "sg": "skip-gram",
}
MISSING = "–"
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float, digits: int = 2) -> str:
    """Return ``value`` with ``digits`` significant ones: 20, 0.045, 1.2·10⁻⁹, ∞.

    Integers stay whole. Powers of ten from a million on and below a ten-thousandth;
    never an exponent between. Not a number is a dash. Raises ``ValueError`` for fewer
    than one digit.
    """
    if digits < 1:
        raise ValueError(f"a number has at least one digit, not {digits}")
    if isinstance(value, Integral):
        return str(int(value))
    value = float(value)
    if math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if value == 0:
        return "0"
    factor, exponent = f"{value:.{digits - 1}e}".split("e")
    power = int(exponent)
    if -4 <= power < 6:
        rounded = float(f"{factor}e{power}")
        return f"{rounded:.{max(digits - 1 - power, 0)}f}"
    return f"{factor}·10{str(power).translate(SUPERSCRIPT)}"


def interval(low: float, high: float, digits: int = 2) -> str:
    """Return ``[low, high]``, both ends to the same place, at least ``digits`` each.

    The place is that of the finer end, so that an estimate never stands on the edge of
    its interval by rounding alone. Raises ``ValueError`` for ends that are crossed.
    """
    if low > high:
        raise ValueError(f"the interval [{low}, {high}] ends before it begins")
    places = max(_places(low, digits), _places(high, digits))
    ends = (
        f"{end:.{places}f}" if 1e-4 <= abs(end) < 1e6 else number(end, digits)
        for end in (low, high)
    )
    return f"[{', '.join(ends)}]"


def _places(value: float, digits: int) -> int:
    """Places after the point that show ``digits`` of ``value``, at most 4."""
    if not math.isfinite(value) or value == 0:
        return 0
    return min(max(digits - 1 - math.floor(math.log10(abs(value))), 0), 4)


def text(value: object, digits: int = 2) -> str:
    """Return one cell of a table for ``value``, numbers with ``digits``.

    Yes or no for a truth value, a dash for what is missing, ``number`` for a number;
    rate and interval, without n, for what has both (an ``ErrorRate``); ``LABELS`` for
    a name that is there; else ``str``.
    """
    if isinstance(value, str):
        return LABELS.get(value, value)
    if hasattr(value, "rate") and hasattr(value, "interval"):
        return f"{number(value.rate, digits)} {interval(*value.interval, digits)}"
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        value = value.item()  # a scalar of torch or numpy
    if value is None or value is pd.NA or value is pd.NaT:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number(value, digits) if isinstance(value, Real) else str(value)


class Table:
    """What ``table`` returns: a ``frame`` of texts, shown as HTML or as plain text."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.frame = frame

    def __repr__(self) -> str:
        lines = [list(row) for row in self.frame.itertuples()]
        lines.insert(0, [self.frame.index.name or "", *self.frame.columns])
        wide = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join(
                cell.rjust(width) if k else cell.ljust(width)
                for k, (cell, width) in enumerate(zip(line, wide, strict=True))
            ).rstrip()
            for line in lines
        )

    def _repr_html_(self) -> str:
        """One row of headers, the corner named; no cell breaks inside an interval."""
        frame = self.frame.map(_unbroken)
        corner = self.frame.index.name
        frame.index = pd.Index([str(name) for name in self.frame.index], name=None)
        frame.columns = pd.Index(self.frame.columns, name=corner)
        return frame.to_html(border=0, classes="advlib", justify="right")


def _unbroken(cell: str) -> str:
    """Figures and brackets stay on one line; words may break."""
    figures = any(letter.isdigit() for letter in cell) and len(cell) <= 30
    return cell.replace(" ", "\N{NO-BREAK SPACE}") if figures else cell


def table(
    rows: pd.DataFrame | pd.Series | Mapping | Sequence[Mapping],
    corner: str = "",
    *,
    columns: Mapping[str, str] | Sequence[str] = (),
    digits: int = 2,
) -> Table:
    """Return ``rows`` as a ``Table``; ``corner`` says what the first column names.

    ``rows``: a frame, a series, ``{row: {column: value}}``, ``{row: value}``, or one
    mapping a row, whose first entry names it (and its column the corner). ``columns``
    chooses and orders the columns and, as a mapping, renames them. Values as ``text``
    shows them, with ``digits``; names of rows and columns by ``LABELS``, several levels
    joined by commas. Raises ``ValueError`` for no rows, a column that does not exist,
    or two rows or two columns of one name.
    """
    frame = _frame(rows)
    if frame.empty:
        raise ValueError("a table needs a row and a column")
    if columns:
        missing = [name for name in columns if name not in frame.columns]
        if missing:
            raise ValueError(f"no column {missing}: there are {list(frame.columns)}")
        frame = frame[list(columns)]
    named = columns if isinstance(columns, Mapping) else {}
    shown = frame.map(lambda value: text(value, digits)).astype(object)
    shown.columns = [named.get(name, _name(name)) for name in frame.columns]
    shown.index = pd.Index(
        [_name(name) for name in frame.index],
        name=corner or ", ".join(str(n) for n in frame.index.names if n is not None),
    )
    for names, kind in ((shown.index, "rows"), (shown.columns, "columns")):
        if names.has_duplicates:
            twice = sorted(set(names[names.duplicated()]))
            raise ValueError(f"two {kind} are both called {twice}")
    return Table(shown)


def _frame(
    rows: pd.DataFrame | pd.Series | Mapping | Sequence[Mapping],
) -> pd.DataFrame:
    """``rows`` as a frame of objects: integers beside gaps stay integers."""
    if isinstance(rows, pd.DataFrame):
        return rows.astype(object)
    if isinstance(rows, pd.Series):
        return rows.astype(object).to_frame(rows.name or "value")
    if not isinstance(rows, Mapping):
        frame = pd.DataFrame(list(rows), dtype=object)
        return frame if frame.empty else frame.set_index(frame.columns[0])
    if not any(isinstance(row, Mapping) for row in rows.values()):
        return pd.Series(dict(rows), dtype=object).to_frame("value")
    found = dict.fromkeys(name for row in rows.values() for name in row)
    cells = [[row.get(name) for name in found] for row in rows.values()]
    keys = list(rows)
    index = pd.MultiIndex.from_tuples(keys) if isinstance(keys[0], tuple) else keys
    return pd.DataFrame(cells, index=index, columns=list(found), dtype=object)


def _name(name: object) -> str:
    """The words for a row's or a column's ``name``."""
    if isinstance(name, tuple):
        return ", ".join(_name(part) for part in name if part != "")
    return text(name)
