"""The page of reproductions: every number of ours is read, every command is there."""

import json
import os
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from advlib import results
from advlib.evaluation import ErrorRate

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "_ext"))

import reproduced  # noqa: E402
import reproduction  # noqa: E402

PAGE = (ROOT / "reproduction.md").read_text(encoding="utf8")
EXPERIMENTS = reproduced.load()
ROWS = [(e, row) for e in EXPERIMENTS for row in e.rows]
NETWORKS = ("MLP 200", "MLP 200-100-100", "CNN, 4 convolutions")
SIX = ("FC10, decay 1e-4", "FC10, decay 1e-2", "FC10, decay 1")
SIX += ("FC 100-100", "FC 200-200", "AE 400")
RIVALS = (0, 1, 2, 3, 4, 5, 6, 8, 9)
TUTORIAL, PROPERTIES = "kolter2018adversarial", "szegedy2013intriguing"
SMOOTH = "xie2020smooth"
# what chapters set beside a source's number: it must have a row
CLAIMED = {
    TUTORIAL: [
        *(f"{who}, {what}" for who in ("standard", "robust")
          for what in ("clean error", "worst-case error")),
        *(f"{attack}, {name}" for name in NETWORKS
          for attack in ("FGSM", "PGD", r"PGD $\ell_2$")),
        "PGD × 10, CNN, 4 convolutions",
        *(rf"$\epsilon = {eps}$, margin over {t}" for eps in (0.05, 0.1)
          for t in RIVALS),
        *(f"{bound}, over {t}" for bound in ("intervals", "linear program")
          for t in RIVALS),
        "PGD training, PGD",
        *(f"interval training, {what}" for what in ("clean", "PGD", "certified")),
    ],
    PROPERTIES: [
        *(f"{name}, {what}" for name in SIX
          for what in ("train error", "test error", "RMS", "found, %")),
        *(f"{s} → {t}" for s in SIX[:5] for t in (SIX[0], SIX[3], SIX[5]) if s != t),
        *(f"noise {sd} → {t}" for sd in (0.1, 0.3) for t in (SIX[0], SIX[3], SIX[5])),
        *(f"to the other {which}, {how}" for which in ("shape", "half")
          for how in ("as found", "enlarged")),
        "noise 0.1", "weight decay only", "dropout", "pool",
    ],
    "goodfellow2014explaining": ["error under FGSM"],
    "schakel2015measuring": ["skip-gram, count at the turn"],
    SMOOTH: [
        *(f"{name}, {what}" for name in ("SiLU", "GELU", "ELU", "SmoothReLU")
          for what in ("clean", "attacked")),
        "for both, attacked",
    ],
}  # fmt: skip
# commands end in one of these; an argument that must be one of its script's choices
START = re.compile(r"^(?:[A-Z_]+=\S+ )*(?:make|python|torchrun|jupyter) ")


def commands() -> list[str]:
    """Return the commands of the rows and those that stand on the page."""
    written = [code for code in re.findall(r"`([^`]+)`", PAGE) if START.match(code)]
    return sorted({e.made_by for e in EXPERIMENTS} | set(written))


@pytest.mark.parametrize(
    ("experiment", "row"),
    ROWS,
    ids=lambda x: x.title if hasattr(x, "title") else x.item,
)
def test_a_row_resolves(experiment, row):
    """Our value is finite, lies in its interval, and its verdict follows."""
    value = reproduced.ours(experiment, row)
    assert value.low <= value.value <= value.high
    assert value.high < 1e9
    assert reproduced.verdict(experiment, row) in reproduced.VERDICTS


def test_the_page_shows_what_the_rows_hold():
    """Each row has one line in its table, with our value to the digits shown."""
    filled = reproduction.fill(PAGE)
    assert "<!--" not in filled
    for experiment, row in ROWS:
        part = filled.split(f"### {experiment.title}\n")[1].split("\n##")[0]
        (line,) = [
            one for one in part.splitlines() if one.startswith(f"| {row.item} |")
        ]
        item, theirs, ours, verdict = (x.strip() for x in line.strip("|").split(" | "))
        assert (item, theirs) == (row.item, row.theirs)
        value = reproduced.ours(experiment, row)
        shown = float(re.match(r"[+-]?[\d.]+", ours)[0])
        decimals = len(ours.split(" ")[0].partition(".")[2])
        assert shown == pytest.approx(value.value, abs=0.51 * 10.0**-decimals)
        assert verdict == reproduced.verdict(experiment, row)


def test_every_claimed_number_has_a_row():
    """And no source has a row that is not on this list."""
    there = {(e.source, row.item) for e, row in ROWS}
    asked = {(source, item) for source, items in CLAIMED.items() for item in items}
    assert asked - there == set()
    assert {source for source, _ in there} == set(CLAIMED)


def test_some_numbers_by_hand():
    """Three values from the records, without this module's paths."""
    by = {(e.title, row.item): (e, row) for e, row in ROWS}
    rows = results.load("tutorial_attacks")["data"]["rows"]
    runs = [r for r in rows if r["network"] == "dnn_2" and r["attack"] == "FGSM"]
    rates = [ErrorRate(r["wrong"], r["n"]) for r in runs if not r["box"]]
    value = reproduced.ours(*by["Attacks on three standard networks", "FGSM, MLP 200"])
    assert value.runs == len(rates) == 3
    assert value.value == pytest.approx(100 * sum(r.rate for r in rates) / 3)
    assert value.low == pytest.approx(100 * min(r.interval[0] for r in rates))
    assert value.high == pytest.approx(100 * max(r.interval[1] for r in rates))
    data = results.load("blind_spots")["data"]
    count = data["whole"]["transfer_cross_entropy"]["native"]["fc10_1"]["ae_400"]
    value = reproduced.ours(*by["Table 2: who fools whom", "FC10, decay 1 → AE 400"])
    assert value.value == pytest.approx(100 * count / 200)
    runs = results.load("price_of_robustness")["data"]["runs"]
    masks = [results.unpack(r["wrong"]["clean"]) for r in runs
             if r["recipe"] == "published"]  # fmt: skip
    value = reproduced.ours(
        *by["Zeros against ones, a linear model", "standard, clean error"]
    )
    assert value.value == pytest.approx(100 * sum(m.mean() for m in masks) / 3)


def test_the_bibliography_has_the_sources():
    """Of the rows and of the page's own citations."""
    keys = set(
        re.findall(r"^@\w+\{([^,]+),", (ROOT / "references.bib").read_text(), re.M)
    )
    cited = set(re.findall(r"\{cite:\w+\}`([^`]+)`", PAGE))
    assert {e.source for e in EXPERIMENTS} | cited <= keys


def test_links_lead_to_cells_and_headings():
    """Each cell is a code cell with a stored output, each heading stands there."""
    links = re.findall(r"\(chapters/(\w+)\.ipynb#([\w-]+)\)", reproduction.fill(PAGE))
    assert len(links) > 50
    for chapter, place in links:
        cells = reproduced.notebook(chapter)
        if place.startswith("cell-"):
            assert cells[place[5:]]["cell_type"] == "code", (chapter, place)
        else:
            text = "\n".join("".join(c["source"]) for c in cells.values())
            heads = re.findall(r"^#+ (.+)$", text, re.M)
            slugs = {
                re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in heads
            }
            assert place in slugs, (chapter, place)


@cache
def helped(*words: str) -> str:
    """Return what a program of this repository says when asked for help."""
    process = subprocess.run(
        [sys.executable, *words, "--help"], cwd=ROOT, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=300,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr[-500:]
    return process.stdout


@pytest.mark.parametrize("command", commands())
def test_a_command_is_there(command):
    """Its script exists, answers --help, and knows every option and choice."""
    words = [w for w in shlex.split(command) if not re.match(r"[A-Z_]+=", w)]
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.M)
        assert re.search(r"usage", helped("tools/refresh.py"))
        assert list((ROOT / "chapters").glob(f"{command.split('CH=')[1]}*.ipynb"))
        return
    if words[0] == "jupyter":
        assert (ROOT / words[2]).is_file()
        assert "--output=" in helped("-m", "jupyter", words[1])
        return
    at = next(k for k, w in enumerate(words) if w == "-m" or w.endswith(".py"))
    program = words[at : at + 2] if words[at] == "-m" else words[at : at + 1]
    said = helped(*program)
    for word in words[at + len(program) :]:
        if word.startswith("--"):
            assert word in said, (command, word)
        elif not word.isdigit() and "recipe" not in command:
            assert re.search(rf"\b{re.escape(word)}\b", said), (command, word)
    if "--recipe" in words:
        recipe = words[words.index("--recipe") + 1]
        assert (ROOT / "advlib" / "recipes" / f"{recipe}.toml").is_file()


DATA = {
    "rows": [{"a": 1, "wrong": 3, "n": 10}, {"a": 2, "wrong": 4, "n": 10}],
    "deep key": {"x.y": [5, 6]},
}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("rows[a=1].wrong", [3]),
        ("rows[n=10].wrong", [3, 4]),
        ("rows[a=2, n=10].a", [2]),
        ('"deep key"."x.y"[1]', [6]),
        ("rows[0].n", [10]),
    ],
)
def test_paths(path, found):
    """Keys, quoted keys, places and filters."""
    assert reproduced.select(DATA, path) == found


@pytest.mark.parametrize("path", ["rows[a=3]", "nothing", 'rows[0]."x"', "rows[a=1"])
def test_paths_that_find_nothing(path):
    """An error, not an empty row."""
    with pytest.raises(KeyError):
        reproduced.select(DATA, path)


@pytest.mark.parametrize(
    ("text", "ends"),
    [("92.59", (92.59, 92.59)), ("2.6 to 2.8", (2.6, 2.8)), ("-3.9", (-3.9, -3.9)),
     ("about 30", (30, 30)), ("< 1.2", (-float("inf"), 1.2))],
)  # fmt: skip
def test_what_a_source_prints(text, ends):
    """One number, a range, or a bound from above."""
    assert reproduced.theirs(text) == ends


@pytest.mark.parametrize("text", ["", "many", "1 2 3"])
def test_what_is_no_number(text):
    """Refused, so that no verdict rests on it."""
    with pytest.raises(ValueError, match="neither one number"):
        reproduced.theirs(text)


def made(monkeypatch, values, rows, **more):
    """Return an experiment whose values are ``values`` by item."""
    monkeypatch.setattr(reproduced, "ours", lambda e, row: values[row.item])
    facts = dict.fromkeys(("title", "source", "where", "chapter", "cell"), "x")
    facts |= {"their_setting": "", "our_setting": "", "sure": "notebook"}
    facts |= {"command": "c"} | more
    given = [reproduced.Row(*row[:2], against=row[2]) for row in rows]
    return reproduced.Experiment(rows=given, **facts)


@pytest.mark.parametrize(
    ("said", "found", "base", "verdict"),
    [
        ("5", (4, 3, 6), (1, 0, 2), reproduced.REPRODUCED),
        ("9", (4, 3, 6), (1, 0, 2), reproduced.DIRECTION),
        ("9", (4, 2, 6), (1, 0, 2), reproduced.NOT_REPRODUCED),  # ours are not apart
        ("9", (0.5, 0.4, 0.6), (1, 0.9, 2), reproduced.NOT_REPRODUCED),  # other side
        ("< 0.5", (4, 3, 6), (1, 0, 2), reproduced.NOT_REPRODUCED),
        ("< 5", (4, 3, 6), (1, 0, 2), reproduced.REPRODUCED),
    ],
)
def test_the_rule(monkeypatch, said, found, base, verdict):
    """Against another row, whose number in the source is 1."""
    values = {"it": reproduced.Value(*found), "base": reproduced.Value(*base)}
    rows = [("it", said, "base"), ("base", "1", None)]
    experiment = made(monkeypatch, values, rows)
    assert reproduced.verdict(experiment, experiment.rows[0]) == verdict
    experiment.not_comparable = "other data"
    assert reproduced.verdict(experiment, experiment.rows[0]) == "not comparable"


def test_other_data_reproduce_no_size(monkeypatch):
    """There the best verdict is the direction."""
    values = {"gain": reproduced.Value(-2, -3, -1)}
    experiment = made(monkeypatch, values, [("gain", "-2", 0)], only_direction=True)
    assert reproduced.verdict(experiment, experiment.rows[0]) == reproduced.DIRECTION
    experiment.only_direction = False
    assert reproduced.verdict(experiment, experiment.rows[0]) == reproduced.REPRODUCED


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ('sure = "notebook"|sure = "rumour"', "'rumour' is none of"),
        (
            'item = "standard, worst-case error"|item = "standard, clean error"',
            "one name",
        ),
        ("their_setting = |his_setting = ", r"unknown \['his_setting'\]"),
        ('against = "standard, clean error"|against = "x"', "against names no row"),
        ('record = "price_of_robustness"|', "no record and no command"),
    ],
)
def test_slips_in_the_source_are_named(tmp_path, change, error):
    """Each stops the build with its name."""
    old, new = change.split("|")
    text = reproduced.SOURCE.read_text(encoding="utf8")
    assert old in text
    (tmp_path / "r.toml").write_text(text.replace(old, new, 1), encoding="utf8")
    with pytest.raises(ValueError, match=error):
        reproduced.load(tmp_path / "r.toml")


def test_tables_in_outputs():
    """The entry of a line and a column; what is not there is an error."""
    text = "network  clean  attacked\nMLP, small  0.01  0.5 [0.4, 0.6]\nCNN  2  –"
    assert reproduced.table_entry([text], "MLP, small", "attacked") == "0.5 [0.4, 0.6]"
    for line, column in (("MLP", "clean"), ("CNN", "other")):
        with pytest.raises(KeyError, match="no table with"):
            reproduced.table_entry(["", text], line, column)


def test_unknown_marks_stop():
    """A misspelt mark, or an entry that no cell prints, is no silent gap."""
    place = "02a_linear_models | worst-error | {} | clean"
    shown = reproduction.fill(f"<!-- printed: {place.format('robust, box')} -->")
    assert float(shown) < 0.01
    with pytest.raises(KeyError, match="no table with"):
        reproduction.fill(f"<!-- printed: {place.format('nobody')} -->")
    with pytest.raises(ValueError, match="unknown marks"):
        reproduction.fill("<!-- reproduction: sections -->")


def test_code_cells_have_unique_addresses():
    """Ids of cells are what links rest on."""
    for path in (ROOT / "chapters").glob("*.ipynb"):
        ids = [cell["id"] for cell in json.loads(path.read_text())["cells"]]
        assert len(set(ids)) == len(ids), path.name
