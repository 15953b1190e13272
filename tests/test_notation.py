"""Notation: one meaning a symbol, and every Greek letter of the chapters has one."""

import json
import re
from collections import defaultdict
from pathlib import Path

import pytest

import advlib

ROOT = Path(__file__).parent.parent
CHAPTERS = sorted((ROOT / "chapters").glob("*.ipynb"))
GREEK = re.compile(
    r"\\(alpha|beta|gamma|delta|epsilon|zeta|eta|theta|kappa|lambda|mu|nu|xi|pi|rho|"
    r"sigma|tau|phi|varphi|chi|psi|omega|Gamma|Delta|Theta|Lambda|Xi|Pi|Sigma|Phi|Psi|"
    r"Omega)(?![a-zA-Z])"
)
MATHS = re.compile(r"\$\$.*?\$\$|\$[^$]+\$", re.DOTALL)


def tables() -> list[list[list[str]]]:
    """The tables of notation.md, each a list of rows of cells, without headers."""
    text = (ROOT / "notation.md").read_text()
    text = re.sub(r"\\[|]", "", text)
    found = []
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        lines = [line.strip("| \n") for line in block.splitlines()[2:]]
        found.append([re.split(r"\s*\|\s*", line) for line in lines])
    return found


def symbols(cell: str) -> list[str]:
    """The symbols of one cell, without spaces: ``$l, u$`` has two."""
    inside = ",".join(maths.strip("$") for maths in MATHS.findall(cell))
    parts = re.split(r"[,;](?![^{(]*[})])", inside)
    return [re.sub(r"\s|\\in.*", "", part) for part in parts if part.strip()]


def number(path: Path) -> str:
    """The number of a chapter: 5 or 6a."""
    return path.name.split("_")[0].lstrip("0")


def maths_of(path: Path) -> str:
    """All formulas of a chapter's text."""
    cells = json.loads(path.read_text())["cells"]
    texts = ["".join(c["source"]) for c in cells if c["cell_type"] == "markdown"]
    return "\n".join(maths for text in texts for maths in MATHS.findall(text))


def test_no_symbol_has_two_rows():
    """In the first table each symbol stands once."""
    main = tables()[0]
    rows = defaultdict(list)
    for k, row in enumerate(main):
        for symbol in symbols(row[0]):
            rows[symbol].append(k)
    assert {s: where for s, where in rows.items() if len(where) > 1} == {}


def test_a_letter_of_one_section_has_one_row_a_chapter():
    """In the second table no letter has two meanings in one chapter."""
    seen = [
        (letter, chapter)
        for cell, chapters, _ in tables()[1]
        for letter in GREEK.findall(cell)
        for chapter in chapters.split(", ")
    ]
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize("path", CHAPTERS, ids=number)
def test_every_greek_letter_is_listed(path):
    """For the whole book, or for this chapter."""
    main, local = tables()[:2]
    known = {letter for row in main for letter in GREEK.findall(row[0])}
    known |= {
        letter
        for cell, chapters, _ in local
        for letter in GREEK.findall(cell)
        if number(path) in chapters.split(", ")
    }
    assert set(GREEK.findall(maths_of(path))) - known == set()


def test_what_is_listed_is_used():
    """No row for a letter that no chapter has, nor for a chapter without it."""
    used = {number(path): set(GREEK.findall(maths_of(path))) for path in CHAPTERS}
    for row in tables()[0]:
        for letter in GREEK.findall(row[0]):
            assert any(letter in letters for letters in used.values()), letter
    for cell, chapters, _ in tables()[1]:
        for chapter in chapters.split(", "):
            assert used[chapter] & set(GREEK.findall(cell)), (cell, chapter)


def test_the_names_in_code_exist():
    """A dotted name of the last column is there in advlib."""
    for row in tables()[0]:
        for name in re.findall(r"`([a-z_]+)\.([A-Za-z_]+)", row[2] if row[2:] else ""):
            if name[0] in advlib.MODULES:
                assert hasattr(getattr(advlib, name[0]), name[1]), name


def test_redefinitions_are_found():
    """Where a text gives a symbol of the table in words, no other words are known."""
    defined = {
        r"\hat z": ("enters", "pre-activation"),
        "a": ("leaves", "after"),
        r"\nu": ("price", "multiplier"),
        r"\tau": ("deviation", "noise", "threshold", "instead"),
    }
    pattern = re.compile(
        r"(?:[Ww]rite|[Ll]et|[Ww]ith) \$([^$]+)\$ (?:be|for) ([^.,;$]+)"
    )
    for path in CHAPTERS:
        for c in json.loads(path.read_text())["cells"]:
            if c["cell_type"] == "markdown":
                for symbol, words in pattern.findall("".join(c["source"])):
                    if symbol in defined:
                        assert any(w in words for w in defined[symbol]), (path, words)
