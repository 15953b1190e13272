"""The booklet of exercises and solutions: whole, self-contained, printable."""

import io
import re
from pathlib import Path

import make_answers
import make_pdf
import pikepdf
import pytest
from playwright.sync_api import Browser

from advlib.exercises import catalogue

EXERCISES = catalogue.load()
BOX = re.compile(r'<section class="box exercise" id="exercise-([^"]+)-(\d+)">')


@pytest.fixture(scope="module")
def booklet(site: Path, order: list[str]) -> str:
    """The booklet of the built site."""
    return make_answers.booklet(site, order)


def test_every_exercise_with_its_solution(booklet: str) -> None:
    """In the book's order, each with one open solution that says something."""
    places = list(BOX.finditer(booklet))
    assert [".".join(p.groups()) for p in places] == list(EXERCISES)
    ends = [p.start() for p in places[1:]] + [len(booklet)]
    for place, end in zip(places, ends, strict=True):
        box = booklet[place.start() : end]
        exercise = EXERCISES[".".join(place.groups())]
        assert box.count('<details open class="solution">') == 1, exercise.number
        answer = re.sub(r"<[^>]+>", "", box.split("</summary>", 1)[1])
        assert len(answer.split()) > 5, exercise.number
        assert f'aria-label="difficulty {exercise.difficulty} of 3"' in box
        assert f"{exercise.minutes}\u00a0min" in box
        assert f'<span class="kind">{exercise.kind}</span>' in box
    assert "<details" not in re.sub("<details open", "", booklet)


def test_solutions_have_code_outputs_and_mathematics(booklet: str) -> None:
    """A printed line, a table, a figure, formulas; no form and no TeX is left."""
    assert "72% of the wrong images are mended" in booklet
    assert booklet.count("<table") > 20
    assert booklet.count("<math") > 300
    assert "<img" in booklet
    assert "<form" not in booklet
    assert not re.search(r"\\(?:epsilon|delta|lVert)", booklet)


def test_it_needs_no_other_file(booklet: str, browser: Browser, tmp_path: Path) -> None:
    """Nothing is asked for, every link within leads somewhere, nothing is wider."""
    path, asked = tmp_path / "answers.html", []
    path.write_text(booklet, encoding="utf8")
    with browser.new_context(viewport={"width": 1000, "height": 900}) as context:
        page = context.new_page()
        page.on("request", lambda r: asked.append(r.url[:60]))
        page.goto(path.as_uri())
        page.evaluate("document.fonts.ready")
        broken = "[...document.images].filter(i => !i.naturalWidth).length"
        assert page.evaluate(broken) == 0
        lost = """[...document.links].map(a => a.getAttribute('href'))
          .filter(h => !h.startsWith('#') || !document.getElementById(h.slice(1)))"""
        assert page.evaluate(lost) == []
        wider = "document.documentElement.scrollWidth - innerWidth"
        assert page.evaluate(wider) <= 0
    outside = [url for url in asked if not url.startswith(("file:", "data:"))]
    assert outside == []
    assert sum(url.startswith("file:") for url in asked) == 1


def test_sums_are_those_of_the_catalogue(booklet: str) -> None:
    """Number and time of each chapter's exercises, and of all."""
    chapters = list(dict.fromkeys(e.chapter for e in EXERCISES.values()))
    for chapter in chapters:
        numbers = [e.number for e in EXERCISES.values() if e.chapter == chapter]
        time = make_answers.hours(catalogue.minutes(numbers))
        assert f"{len(numbers)} exercises, {time}." in booklet
    assert f"Together {make_answers.hours(catalogue.minutes(EXERCISES))}." in booklet
    assert make_answers.hours(65) == "1 h 05 min"
    assert make_answers.hours(40) == "40 min"


def test_a_chapter_prints(site: Path, base: str, browser: Browser) -> None:
    """One chapter alone: a few pages of A4 with a title."""
    text = make_answers.booklet(site, ["chapters/01_introduction"])
    assert len(BOX.findall(text)) == 8
    with pikepdf.open(
        io.BytesIO(make_pdf.printed(browser, base, site, text))
    ) as printed:
        assert 3 <= len(printed.pages) <= 12
        width, height = (float(v) for v in printed.pages[0].mediabox[2:])
        assert (round(width), round(height)) == (595, 842)


def test_what_is_not_there_is_said(site: Path, tmp_path: Path) -> None:
    """A page without exercises alone, an exercise too few, a box without an end."""
    with pytest.raises(ValueError, match="no page has exercises"):
        make_answers.booklet(site, ["notation"])
    text = (site / "chapters/01_introduction.html").read_text(encoding="utf8")
    (tmp_path / "one.html").write_text(text.replace("exercise-1-8", "exercise-1-9"))
    (tmp_path / "_static").mkdir()
    with pytest.raises(ValueError, match="not those of the catalogue"):
        make_answers.booklet(tmp_path, ["one"])
    with pytest.raises(ValueError, match="does not end"):
        make_answers.boxes('<section class="box exercise" id="exercise-1-1">')
