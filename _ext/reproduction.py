"""The tables of ``reproduction.md``, drawn in the build, and an address for each cell.

The page has marks, ``<!-- reproduction: tables -->``, where ``reproduced`` fills in
what ``reproduction.toml``, the records and the stored outputs say, so that it cannot go
stale; ``<!-- printed: CHAPTER | CELL | LINE | COLUMN -->`` is one entry of a printed
table. Any page may link to a code cell: ``chapters/NAME.ipynb#cell-ID``.
"""

import json
import math
import re
import subprocess
from collections import Counter
from functools import cache
from pathlib import Path

import reproduced
from docutils import nodes
from reproduced import Experiment, Row, Value
from sphinx.errors import ExtensionError

from advlib import results

PAGE = "reproduction"
MARK = re.compile(r"<!-- reproduction: ([\w ]+) -->")
PRINTED = re.compile(r"<!-- printed: (\w+) \| ([\w-]+) \| (.+?) \| (.+?) -->")
NAMED = ("python", "torch", "numpy", "cvxpy", "highspy", "scipy", "gensim")


def label(chapter: str) -> str:
    """Return the number by which the book calls a chapter, "4b"."""
    return chapter.split("_")[0].lstrip("0")


@cache
def title(chapter: str) -> str:
    """Return the title of a chapter's notebook, "4b. Lower bounds: ..."."""
    for cell in reproduced.notebook(chapter).values():
        if found := re.match(r"# (.+)", "".join(cell["source"])):
            return found[1]
    raise ValueError(f"{chapter} has no title")


@cache
def committed(name: str) -> str:
    """Return the day on which a record was last committed, "" where git cannot say."""
    path = results.RESULTS / f"{name}.json"
    git = ["git", "-C", str(reproduced.ROOT)]
    try:
        asked = [*git, "rev-parse", "--is-shallow-repository"]
        if subprocess.run(asked, capture_output=True, text=True).stdout != "false\n":
            return ""
        asked = [*git, "log", "-1", "--format=%cs", "--", str(path)]
        return subprocess.run(asked, capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it."""
    for size, unit in ((3600, "hours"), (60, "minutes")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f}".removesuffix(".0") + f" {unit}"
    return f"{seconds:.0f} seconds"


def provenance(experiment: Experiment) -> str:
    """Return how our numbers were made: command, seeds, versions, time, day."""
    if not experiment.record:
        return (
            f"Made by `{experiment.made_by}`, which runs the chapter in the locked "
            "environment and stores what it prints."
        )
    record = reproduced.record(experiment.record)
    seeds = ", ".join(map(str, record["seeds"])) or "none"
    kept = {k: v for k, v in record["versions"].items() if k in NAMED}
    versions = [f"{k.replace('python', 'Python')} {v}" for k, v in kept.items()]
    day = committed(experiment.record)
    return (
        f"Made by `{experiment.made_by}` in {duration(record['seconds'])}"
        f"{f', committed on {day}' if day else ''}; seeds: {seeds}; "
        f"{', '.join(versions)}. Record: `{experiment.record}.json`."
    )


def places(value: Value, theirs: str) -> int:
    """Return how many decimals show two digits of all, and as many as theirs has."""
    numbers = [abs(v) for v in (value.value, value.low, value.high) if v]
    needed = [1 - math.floor(math.log10(v)) for v in numbers]
    decimals = [len(found.partition(".")[2]) for found in re.findall(r"[\d.]+", theirs)]
    return min(max(0, *needed, *decimals), 4)


def shown(value: Value, theirs: str) -> str:
    """Return our value with its interval, and of how many runs it is the mean."""
    if value.text:
        return value.text
    digits = places(value, theirs)
    middle, low, high = (
        f"{v:.{digits}f}" for v in (value.value, value.low, value.high)
    )
    interval = "" if low == high else f" [{low}, {high}]"
    return middle + interval + (f", {value.runs} runs" if value.runs > 1 else "")


def line(experiment: Experiment, row: Row) -> str:
    """Return one line of a table."""
    ours = shown(reproduced.ours(experiment, row), row.theirs)
    verdict = reproduced.verdict(experiment, row)
    return f"| {row.item} | {row.theirs} | {ours} | {verdict} |"


def section(experiment: Experiment) -> str:
    """Return one experiment: who, under which settings, the numbers, how made."""
    unit = ", %" if experiment.unit == "%" else ""
    link = f"chapters/{experiment.chapter}.ipynb#cell-{experiment.cell}"
    reason = experiment.not_comparable
    return "\n".join(
        [
            f"### {experiment.title}",
            "",
            f"{{cite:t}}`{experiment.source}`, {experiment.where}; "
            f"{reproduced.SURE[experiment.sure]}.",
            "",
            f"- *Theirs*: {experiment.their_setting}.",
            f"- *Ours* ([the cell in {label(experiment.chapter)}]({link})): "
            f"{experiment.our_setting}.",
            *([f"- *Not comparable*: {reason}."] if reason else []),
            "",
            f"| number | theirs{unit} | ours{unit} | verdict |",
            "|:--|--:|--:|:--|",
            *(line(experiment, row) for row in experiment.rows),
            "",
            provenance(experiment),
            "",
        ]
    )


def by_chapter(experiments: list[Experiment]) -> dict[str, list[Experiment]]:
    """Return the experiments of each chapter, in the order of the book."""
    chapters = sorted({e.chapter for e in experiments})
    return {c: [e for e in experiments if e.chapter == c] for c in chapters}


def all_tables(experiments: list[Experiment]) -> str:
    """Return the sections of all chapters."""
    parts = []
    for chapter, group in by_chapter(experiments).items():
        parts += [f"## {title(chapter)}", "", *map(section, group)]
    return "\n".join(parts)


def summary(experiments: list[Experiment]) -> str:
    """Return how many numbers of each chapter have which verdict."""
    rows, total = [], Counter()
    for chapter, group in by_chapter(experiments).items():
        found = Counter(reproduced.verdict(e, row) for e in group for row in e.rows)
        total += found
        counts = " | ".join(str(found[v]) for v in reproduced.VERDICTS)
        rows.append(f"| [{label(chapter)}](chapters/{chapter}.ipynb) | {counts} |")
    counts = " | ".join(str(total[v]) for v in reproduced.VERDICTS)
    head = "| chapter | reproduced | direction | not | not comparable |"
    rule = "|:--" + "|--:" * len(reproduced.VERDICTS) + "|"
    return "\n".join([head, rule, *rows, f"| all | {counts} |"])


DRAWN = {"summary": summary, "tables": all_tables}


def fill(text: str) -> str:
    """Return the page's Markdown with its marks filled in."""
    experiments = reproduced.load()
    if unknown := set(MARK.findall(text)) - set(DRAWN):
        raise ValueError(f"{PAGE}.md: unknown marks {sorted(unknown)}")
    text = PRINTED.sub(lambda m: quoted(*m.groups()), text)
    return MARK.sub(lambda m: DRAWN[m[1]](experiments), text)


def quoted(chapter: str, cell: str, line: str, column: str) -> str:
    """Return one entry of a table that a cell of the book prints."""
    texts = reproduced.printed(chapter, cell)
    return reproduced.table_entry(texts, line, column)


def read(app, docname, source):
    """Fill the page in as it is read; note what it depends on."""
    if docname != PAGE:
        return
    try:
        source[0] = fill(source[0])
    except (KeyError, ValueError, FileNotFoundError) as error:
        raise ExtensionError(f"{PAGE}: {error}") from error
    app.env.note_dependency(str(reproduced.SOURCE))
    for experiment in reproduced.load():
        used = Path("chapters") / f"{experiment.chapter}.ipynb"
        app.env.note_dependency(str(reproduced.ROOT / used))


def address_cells(app, doctree):
    """Give each code cell of a notebook the address ``cell-ID``."""
    docname = app.env.docname
    path = Path(app.env.doc2path(docname))
    if path.suffix != ".ipynb":
        return
    cells = json.loads(path.read_text(encoding="utf8"))["cells"]
    slugs = app.env.metadata[docname].setdefault("myst_slugs", {})
    for node in doctree.findall(nodes.container):
        if node.get("nb_element") == "cell_code":
            name = f"cell-{cells[node['cell_index']]['id']}"
            node["ids"].append(name)
            slugs[name] = (node.line or 0, name, name)


def setup(app):
    """Register the page's filling and the cells' addresses."""
    app.connect("source-read", read)
    app.connect("doctree-read", address_cells)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
