"""The figures in Chromium, from file://: hands, words, colours, weights."""

import base64
import json
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser

from advlib import play, plot

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "_ext"))

import pictures  # noqa: E402
import play as places  # noqa: E402
from hands import SMALL, WIDER, packed, stage, verdict  # noqa: E402


def test_sliding_and_switching(opened) -> None:
    """By keys and mouse: safe at 0, fooled at the end; intervals close the band."""
    page = opened("squeeze")
    slider = page.get_by_role("slider")
    slider.focus()
    page.keyboard.press("Home")
    assert verdict(page) == "safe"
    page.keyboard.press("ArrowRight")
    assert stage(page, "s.get().eps") == 0.005
    page.keyboard.press("End")
    assert verdict(page) == "fooled"
    words = page.locator(".sides [role=status]")
    page.wait_for_timeout(600)  # it waits until the reader pauses
    before = words.inner_text()
    slider.fill("0.1")
    assert verdict(page) == "fooled"
    page.get_by_role("radio", name="intervals").click()
    assert verdict(page) == "safe"
    ends = stage(page, "Sides.ends(s.found())")
    assert ends["lower"] > 0
    page.wait_for_timeout(600)
    assert words.inner_text() != before
    assert "safe" in words.inner_text()
    assert "between" in page.locator(".sides svg").last.get_attribute("aria-label")


@pytest.mark.parametrize("name", [*play.names(), "playground"])
@pytest.mark.parametrize(("width", "mode"), [(320, "light"), (390, "dark")])
def test_narrow_pages(opened, name: str, width: int, mode: str) -> None:
    """Nothing is wider than the window, everything can be tapped, words tell it."""
    if width == 390 and name not in ("squeeze", "playground"):
        pytest.skip("each figure has tests of its own")
    page = opened(name, width=width, mode=mode)
    assert page.evaluate(WIDER) == []
    assert page.evaluate(SMALL) == []
    page.wait_for_function(
        "document.querySelector('.sides [role=status]').textContent.length > 20"
    )


def test_colours_are_those_of_the_printed_figures(opened) -> None:
    """Light as in ``plot``, dark as the build turns them."""
    look = opened("squeeze").evaluate("Sides.look")
    for name, light in look["light"].items():
        color = (plot.COLORS | plot.METHODS)[name]
        rgb = np.array([[int(color[k : k + 2], 16) for k in (1, 3, 5)]], float)
        turned = pictures.in_the_dark(rgb)[0].astype(int)
        assert light == color
        assert look["dark"][name] == "#{:02X}{:02X}{:02X}".format(*turned)


CHAPTERS = sorted((ROOT / "chapters").glob("*.ipynb"))
LABELS = "all => all.map(e => e.getAttribute('aria-label'))"
STOPS = ".sides :is(input, button, [tabindex='0'], select):not(:disabled)"


def parts(name: str) -> set[str]:
    """Return the files that a page with the figure ``name`` loads at once."""
    figure = import_module(f"advlib.play.figures.{name}")
    scripts = {"start", "look", "stage", "draw", *figure.USES, f"figures/{name}"}
    later = {"pgd", "ibp"} if name == "squeeze" else set()  # when they are chosen
    data = {f"data/{part}" for part in figure.NEEDS if part not in later}
    return {f"{part}.js" for part in scripts | data}


def test_the_weight_of_the_squeeze() -> None:
    """Even with its three networks."""
    nets = {f"data/{net}.js" for net in ("pgd", "ibp")}
    texts = [places.files()[part] for part in parts("squeeze") | nets]
    assert 20 < packed(texts) <= 65


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_the_weight_of_a_chapter(path: Path) -> None:
    """All its figures that play, and what they build on: at most 60 kB."""
    cells = json.loads(path.read_text(encoding="utf8"))["cells"]
    code = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    names = places.CALL.findall(code)
    loaded = set().union(*(parts(name) for name in names))
    assert packed([places.files()[part] for part in loaded]) <= 60


def test_the_weight_of_the_playground() -> None:
    """With all that it may load."""
    files = places.files()
    own = {part for name in play.names() for part in (f"figures/{name}.js",)}
    nets = {"cnn", "digits", "ibp", "pgd", "standard"}
    data = {name for name in files if name.startswith("data/")}
    own |= data - {f"data/{name}.js" for name in nets}
    assert 50 < packed([text for name, text in files.items() if name not in own]) <= 400


def test_the_page_answers_at_once(engine) -> None:
    """Forty steps, intervals and CROWN within 50 ms, the least of ten runs."""
    least = engine.evaluate("""() => Math.min(...Array.from({length: 10}, (_, k) => {
      const x = Float64Array.from({length: 784}, (_, i) => (i * 37 + k) % 11 / 10);
      const begin = performance.now();
      Sides.quick(net('standard'), x, 3, .1);
      Sides.linear(net('standard'), x, 3, .1);
      return performance.now() - begin;
    }))""")
    assert least <= 50


def test_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """Static: the picture alone; else the figure, too. An unknown name is refused."""
    assert "squeeze" in play.names()
    monkeypatch.setenv("ADVLIB_PLAY", "static")
    data, size = play.show("squeeze")._repr_mimebundle_()
    assert set(data) == {"image/png", "text/plain"}
    png = base64.b64decode(data["image/png"])
    assert png.startswith(b"\x89PNG")
    dots = int.from_bytes(png[16:20], "big") / size["image/png"]["width"]
    assert abs(dots - 2) < 0.01
    monkeypatch.delenv("ADVLIB_PLAY")
    data, _ = play.show("squeeze")._repr_mimebundle_()
    assert data["text/html"].count("<script>") == data["text/html"].count("</script>")
    with pytest.raises(ValueError, match="squeeze"):
        play.show("other")
    with pytest.raises(ValueError, match="digits"):
        play.stored("other")


def test_a_notebook_shows_it_alive(browser: Browser, tmp_path: Path) -> None:
    """The output of a cell alone, twice on one page, loads nothing and works."""
    from advlib.play.shown import html

    file = tmp_path / "cells.html"
    cells = html("squeeze") + html("squeeze")
    file.write_text(f"<!DOCTYPE html><meta charset=utf-8>{cells}", encoding="utf8")
    page, asked, said = browser.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(file.as_uri())
    page.wait_for_function("document.querySelectorAll('[data-verdict]').length === 2")
    page.close()
    assert [url for url in asked if not url.startswith("blob:")] == [file.as_uri()]
    assert said == []


@pytest.mark.parametrize("name", play.names())
def test_every_figure_has_both_halves_and_moves_by_keys(opened, name: str) -> None:
    """It asks for what Python gives; every stop of the keyboard leads on, in words.

    The reader has asked for less motion, so nothing may be under way afterwards.
    """
    page, figure = (
        opened(name, reduced_motion="reduce"),
        import_module(f"advlib.play.figures.{name}"),
    )
    asked = page.evaluate(f"Sides.figures.{name}")
    assert set(asked.get("needs", [])) <= set(figure.NEEDS)
    assert tuple(asked.get("uses", [])) == tuple(figure.USES)
    assert stage(page, "s.still")
    words = page.locator(".sides [role=status]")
    pictures = page.locator(".sides [role=img]")
    page.wait_for_function(
        "document.querySelector('.sides [role=status]').textContent.length > 20"
    )
    before = words.text_content(), pictures.evaluate_all(LABELS)
    stops, seen = page.locator(STOPS), []
    for place in range(6):
        if place >= stops.count() or not stops.nth(place).is_visible():
            continue  # an earlier stop took it away
        stop = stops.nth(place)
        stop.focus()
        kind = stop.get_attribute("type")
        keys = {"range": ("ArrowLeft", "ArrowLeft"), "radio": ("Space",)}
        for key in keys.get(kind, ("ArrowRight", "Space")):
            page.keyboard.press(key)
            page.wait_for_timeout(60)
            seen.append(pictures.evaluate_all(LABELS))
    page.wait_for_function(  # it is said when the reader pauses
        "old => document.querySelector('.sides [role=status]').textContent !== old",
        arg=before[0],
    )
    assert pictures.count() == 0 or any(labels != before[1] for labels in seen)
    assert page.evaluate("document.getAnimations().length") == 0


def test_keys_stay_with_the_figure(opened) -> None:
    """JupyterLab listens in the document, and would take the arrows from a slider."""
    page = opened("squeeze")
    page.evaluate(
        "document.addEventListener('keydown', event => {"
        " (window.heard ??= []).push(event.key); event.preventDefault(); })"
    )
    slider = page.get_by_role("slider")
    before = slider.input_value()
    slider.press("ArrowRight")
    assert float(slider.input_value()) > float(before)
    slider.press("Escape")
    assert page.evaluate("window.heard") == ["Escape"]


def test_no_figure_is_half() -> None:
    """Each that moves has a static one; the playground has its page."""
    moving = {Path(name).stem for name in places.files() if "figures/" in name}
    assert moving == {*play.names(), "playground"}


def test_places_in_pages() -> None:
    """A call in a cell is found, with either quote; an unknown figure stops."""
    assert places.CALL.findall("play.show('squeeze')\nplay.show( \"a-b\" )") == [
        "squeeze", "a-b",
    ]  # fmt: skip
    assert json.dumps("squeeze") in places.place("squeeze", "abc")
    with pytest.raises(Exception, match="no figure 'other'"):
        places.place("other", "abc")


def test_a_chapter_gets_its_place(tmp_path: Path) -> None:
    """A cell with a stored picture: a place after it, on the web page alone."""
    import nbformat
    from sphinx.application import Sphinx

    picture = ROOT / "_ext" / "book_theme" / "static" / "landing" / "image.png"
    png = base64.b64encode(picture.read_bytes()).decode()
    output = nbformat.v4.new_output(
        "execute_result", {"image/png": png}, execution_count=1
    )
    code = "from advlib import play\nplay.show('squeeze')"
    mystnb = {"figure": {"name": "squeeze", "caption": "A caption."}}
    cell = nbformat.v4.new_code_cell(code, outputs=[output], execution_count=1)
    cell.metadata = {"tags": ["hide-input"], "mystnb": mystnb}
    title = nbformat.v4.new_markdown_cell("# A chapter")
    notebook = nbformat.v4.new_notebook(cells=[title, cell])
    nbformat.write(notebook, tmp_path / "index.ipynb")
    settings = {"extensions": ["myst_nb", "play"], "nb_execution_mode": "off"}
    for builder in ("html", "text"):
        out = tmp_path / builder
        app = Sphinx(tmp_path, None, out, tmp_path / "trees", builder, settings,
                     status=None, warning=None, freshenv=True)  # fmt: skip
        app.build()
    assert "data-play" not in (tmp_path / "text" / "index.txt").read_text()
    made = (tmp_path / "html" / "index.html").read_text()
    assert made.count('data-play="squeeze"') == 1
    assert made.index("<figure") < made.index('data-play="squeeze"')
    assert (tmp_path / "html" / "_static" / "play" / "start.js").is_file()


def test_it_stands_where_the_printed_one_does(browser: Browser, folder: Path) -> None:
    """On the screen in place of the picture, with its caption; on paper the picture."""
    plain = (folder / "squeeze-light.html").read_text(encoding="utf8")
    figure = '<figure><div class="scroll picture"><img alt="a" width="9"></div>'
    figure += "<figcaption>caption</figcaption></figure><div data-play"
    file = folder / "chapter.html"
    file.write_text(plain.replace("<div data-play", figure), encoding="utf8")
    page = browser.new_page()
    page.goto(file.as_uri())
    page.wait_for_selector("figure > .sides + figcaption")
    assert not page.locator(".picture").is_visible()
    page.emulate_media(media="print")
    assert page.locator(".picture").is_visible()
    assert not page.locator(".sides").is_visible()
    page.close()
