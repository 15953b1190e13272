"""The numbers behind the page of reproductions: read, with interval and verdict.

``reproduction.toml`` says for each number of a source what the source reports and
where ours stands: in a record of ``advlib/results`` or in the stored output of a cell.
Nothing of ours is typed; an interval comes from counts where there are counts.
"""

import json
import math
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path

import numpy as np

from advlib import evaluation, results
from advlib.evaluation import ErrorRate

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "reproduction.toml"
SURE = {
    "notebook": "read in the authors' notebook",
    "abstract": "read in the abstract",
    "repository": "read in the authors' repository",
    "second hand": "at second hand, from others' accounts of the paper",
}
REPRODUCED = "reproduced"
DIRECTION = "same direction, other size"
NOT_REPRODUCED = "not reproduced"
NOT_COMPARABLE = "not comparable"
VERDICTS = (REPRODUCED, DIRECTION, NOT_REPRODUCED, NOT_COMPARABLE)
STEP = re.compile(r'\.?(?:"([^"]+)"|\[([^\]]*)\]|([^.\[\]"]+))')
NUMBER = re.compile(r"(?<![\d.])[+-]?\d*\.?\d+")
SHOWN = re.compile(r"([+-]?\d*\.?\d+)(?: \[([+-]?[\d.]+), ([+-]?[\d.]+)\])?")


@dataclass(frozen=True)
class Value:
    """One number of ours: value, ends of its interval, how many runs, as printed."""

    value: float
    low: float
    high: float
    runs: int = 1
    text: str = ""


@dataclass
class Row:
    """One number: what it is, what the source reports, and where ours stands.

    ``theirs`` as the source prints it: "92.59", "2.6 to 2.8", "< 1.2". Ours: ``at``, a
    path into the record, or ``line`` and ``column`` of the table that the cell prints,
    or a ``pattern`` with one group for its text. ``wrong`` and ``n`` name the counts
    where they are not the experiment's; ``found`` asks for the share of a list that is
    not null. ``against``: the row, or the number, that gives this one a direction.
    """

    item: str
    theirs: str
    at: str = ""
    line: str = ""
    column: str = ""
    pattern: str = ""
    wrong: str = ""
    n: str = ""
    found: bool = False
    against: str | float | None = None


@dataclass
class Experiment:
    """Rows of one source, one setting and one place in the book."""

    title: str
    source: str
    where: str
    sure: str
    chapter: str
    cell: str
    their_setting: str
    our_setting: str
    rows: list[Row]
    record: str = ""
    unit: str = ""
    wrong: str = "wrong"
    n: str = "n"
    scale: float = 1.0
    command: str = ""
    not_comparable: str = ""
    only_direction: bool = False
    by_item: dict[str, Row] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.by_item = {row.item: row for row in self.rows}
        against = [row.against for row in self.rows]
        problems = [
            (self.sure not in SURE, f"sure = {self.sure!r} is none of {list(SURE)}"),
            (len(self.by_item) < len(self.rows), "two rows have one name"),
            (not self.rows, "there are no rows"),
            (not self.record and not self.command, "no record and no command"),
            (
                not {a for a in against if isinstance(a, str)} <= set(self.by_item),
                "against names no row",
            ),
            (self.only_direction and None in against, "a row has no direction"),
        ]
        for wrong, text in problems:
            if wrong:
                raise ValueError(f"reproduction.toml, {self.title!r}: {text}")

    @property
    def made_by(self) -> str:
        """Return the command that makes our numbers."""
        return self.command or record(self.record)["command"]


@cache
def record(name: str) -> dict:
    """Return a record of ``advlib/results``, read and checked once."""
    return results.load(name)


def _made(kind: type, table: dict, **more: object) -> object:
    known = {f.name for f in fields(kind)} - {"by_item"}
    if unknown := sorted(set(table) - known):
        raise ValueError(
            f"reproduction.toml: unknown {unknown}; known: {sorted(known)}"
        )
    return kind(**(table | more))


def load(path: Path = SOURCE) -> list[Experiment]:
    """Return the experiments of ``path``, in its order; an unknown key is an error."""
    made = []
    for table in tomllib.loads(path.read_text(encoding="utf8"))["experiment"]:
        rows = [_made(Row, row) for row in table.get("rows", [])]
        made.append(_made(Experiment, table, rows=rows))
    return made


def select(data: object, path: str) -> list:
    """Return all that ``path`` finds: keys by dots, `"a key"`, [3], [key=value, ...].

    A filter keeps the objects of a list that hold all of its values, written as in
    JSON or as plain words. ``KeyError`` if nothing is found.
    """
    found, place = [data], 0
    while place < len(path):
        match = STEP.match(path, place)
        if match is None:
            raise KeyError(f"{path!r}: not understood from {path[place:]!r}")
        quoted, inside, plain = match.groups()
        key, place = quoted or plain, match.end()
        if key is not None:
            found = [one[key] for one in found]
        elif re.fullmatch(r"-?\d+", inside):
            found = [one[int(inside)] for one in found]
        else:
            asked = [part.split("=", 1) for part in inside.split(", ")]
            found = [one for many in found for one in many
                     if all(one.get(k) == _scalar(v) for k, v in asked)]  # fmt: skip
    if not found:
        raise KeyError(f"{path!r} finds nothing")
    return found


def _scalar(text: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _size(data: object, text: str) -> int:
    return math.prod(select(data, part)[0] for part in text.split(" * "))


def _count(one: object, data: object, wrong: str, n: str) -> tuple[int, int] | None:
    """Return (wrong, n) of what a path found, None if it is no count."""
    if isinstance(one, str):
        mask = results.unpack(one)
        return int(mask.sum()), mask.size
    if isinstance(one, dict):
        return select(one, wrong)[0], one[n] if n in one else _size(data, n)
    if isinstance(one, int):
        return one, _size(data, n)
    pair = isinstance(one, list) and len(one) == 2
    return tuple(one) if pair and all(isinstance(k, int) for k in one) else None


def from_record(experiment: Experiment, row: Row) -> Value:
    """Return the value at ``row.at`` of the experiment's record.

    Counts give a rate in the experiment's unit, the mean over the runs found; the
    interval reaches from the lowest to the highest end of the runs' 95 % intervals
    (Clopper-Pearson). An object with ``bound`` and ``margin`` is an exact value. A list
    of numbers, divided by ``scale``, gives its mean with a bootstrap interval.
    """
    data = record(experiment.record)["data"]
    found, unit = select(data, row.at), 100.0 if experiment.unit == "%" else 1.0
    if isinstance(found[0], dict) and {"bound", "margin"} <= set(found[0]):
        low, high = found[0]["bound"], found[0]["margin"]
        return Value(high, low, high)
    names = row.wrong or experiment.wrong, row.n or experiment.n
    counts = [_count(one, data, *names) for one in found]
    if row.found:
        unit = 100.0
        counts = [(sum(k is not None for k in one), len(one)) for one in found]
    if all(counts):
        rates = [ErrorRate(*pair) for pair in counts]
        ends = [rate.interval for rate in rates]
        mean = sum(wrong / n for wrong, n in counts) / len(counts)
        low, high = min(e[0] for e in ends), max(e[1] for e in ends)
        return Value(unit * mean, unit * low, unit * high, len(counts))
    if isinstance(found[0], list):
        array = np.array(found[0], dtype=float) / experiment.scale
        return Value(*evaluation.bootstrap_interval(array[np.isfinite(array)], np.mean))
    raise ValueError(f"{experiment.title}: {row.at!r} is neither counts nor numbers")


@cache
def notebook(chapter: str) -> dict[str, dict]:
    """Return the cells of a chapter by their ids."""
    text = (ROOT / "chapters" / f"{chapter}.ipynb").read_text(encoding="utf8")
    return {cell["id"]: cell for cell in json.loads(text)["cells"]}


def printed(chapter: str, cell: str) -> list[str]:
    """Return the texts of a cell's stored outputs; ``KeyError`` if there are none."""
    outputs = notebook(chapter)[cell].get("outputs", [])
    parts = [o.get("text") or o.get("data", {}).get("text/plain") for o in outputs]
    texts = ["".join(part) for part in parts if part]
    if not texts:
        raise KeyError(f"cell {cell!r} of {chapter} has no stored text")
    return texts


def table_entry(texts: Sequence[str], line: str, column: str) -> str:
    """Return the entry of a printed table, whose columns stand two spaces apart."""
    for text in texts:
        lines = text.splitlines() or [""]
        head, *rows = [re.split(r"  +", row.strip()) for row in lines]
        for row in rows:
            if row[0] == line and column in head[1:] and len(row) == len(head):
                return row[head.index(column)]
    raise KeyError(f"no table with a line {line!r} and a column {column!r}")


def from_cell(experiment: Experiment, row: Row) -> Value:
    """Return what the cell's stored output prints, with its interval if it has one."""
    texts = printed(experiment.chapter, experiment.cell)
    if row.pattern:
        found = [m for text in texts for m in re.findall(row.pattern, text)]
        if len(found) != 1:
            raise KeyError(f"{row.pattern!r} matches {len(found)} times, not once")
        text = found[0]
    else:
        text = table_entry(texts, row.line, row.column)
    match = SHOWN.match(text)
    if match is None:
        raise ValueError(f"{experiment.title}, {row.item}: {text!r} is no number")
    value = float(match[1])
    low, high = (float(end) if end else value for end in match.groups()[1:])
    text = match[0] if experiment.scale == 1 else ""
    return Value(*(end / experiment.scale for end in (value, low, high)), text=text)


def ours(experiment: Experiment, row: Row) -> Value:
    """Return our value for ``row``, from its record or its cell."""
    if row.at:
        return from_record(experiment, row)
    return from_cell(experiment, row)


def theirs(text: str) -> tuple[float, float]:
    """Return the ends of what a source prints; "< 1.2" has none below."""
    numbers = [float(found) for found in NUMBER.findall(text)]
    if not numbers or len(numbers) > 2:
        raise ValueError(f"{text!r} is neither one number nor a range")
    low, high = min(numbers), max(numbers)
    return (-math.inf, high) if text.startswith("<") else (low, high)


def verdict(experiment: Experiment, row: Row) -> str:
    """Return the verdict by the rule that the page states."""
    if experiment.not_comparable:
        return NOT_COMPARABLE
    value, (low, high) = ours(experiment, row), theirs(row.theirs)
    inside = value.low <= high and low <= value.high
    if inside and not experiment.only_direction:
        return REPRODUCED
    if row.against is None:
        return NOT_REPRODUCED
    if isinstance(row.against, str):
        other = experiment.by_item[row.against]
        base, (_, their_base) = ours(experiment, other), theirs(other.theirs)
    else:
        base, their_base = Value(*3 * [float(row.against)]), float(row.against)
    said = np.sign(high - their_base)
    found = 1 if value.low > base.high else -1 if value.high < base.low else 0
    return DIRECTION if said and said == found else NOT_REPRODUCED
