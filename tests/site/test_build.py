"""The steps of the build that make the page: each held to what it must not change."""

import io
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from advlib import data, plot, zoo

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "_ext"))

import links  # noqa: E402
import mathematics  # noqa: E402
import pictures  # noqa: E402

THEME = ROOT / "_ext" / "book_theme"


@pytest.fixture(scope="module")
def setter() -> mathematics.Setter:
    """Return the engine that sets formulas."""
    return mathematics.Setter()


def formulas() -> list[tuple[str, bool]]:
    """Return every formula of the book: TeX, and whether it is displayed."""
    found = []
    for path in [*sorted((ROOT / "chapters").glob("*.ipynb")), ROOT / "notation.md"]:
        texts = [path.read_text()]
        if path.suffix == ".ipynb":
            cells = json.loads(texts[0])["cells"]
            texts = [
                "".join(c["source"]) for c in cells if c["cell_type"] == "markdown"
            ]
        for text in texts:
            prose = re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.S)
            matches = re.finditer(r"\$\$(.+?)\$\$|\$([^$\n]+?)\$", prose, re.S)
            found += [((m[1] or m[2]).strip(), bool(m[1])) for m in matches]
    return found


def test_every_formula_is_set(setter: mathematics.Setter) -> None:
    """No error, no TeX left over, well-formed, and every sign is in the book's font."""
    from xml.etree import ElementTree

    from fontTools.ttLib import TTFont

    known = set(TTFont(THEME / "static" / "fonts" / "math.woff2").getBestCmap())
    every = formulas()
    assert len(every) > 1500
    for tex, display in every:
        made = setter(tex, display)
        said = "".join(ElementTree.fromstring(f"<all>{made}</all>").itertext())
        assert "\\" not in said, tex
        assert "merror" not in made, tex
        assert {ord(c) for c in said if not c.isspace()} <= known | {0x2061, 0x200B}, (
            tex
        )


def test_an_unknown_command_stops(setter: mathematics.Setter) -> None:
    """A misspelt command is named, not printed in red."""
    with pytest.raises(ValueError, match=r"nomr"):
        setter(r"\nomr{x}", False)


def test_long_formulas_may_break(setter: mathematics.Setter) -> None:
    """A long inline formula is cut before relations, and loses nothing."""
    tex = r"|a + b + c + d + f| \le |a| + |b| + |c| + |d| = 12345678"
    whole, cut = setter(tex, True), setter(tex, False)
    assert cut.count("<math") == 3
    words = [re.sub(r"<[^>]+>|\s", "", made) for made in (whole, cut)]
    assert words[0] == words[1]
    assert cut.count('form="infix"') == 2


def test_marks_stay_with_their_formula() -> None:
    """A bracket before and a comma after cannot stand alone on a line."""
    made = mathematics.keep_together("so (<math><mi>v</mi></math>), and")
    assert made == 'so <span class="nobr">(<math><mi>v</mi></math>),</span> and'


def note(boxes: list | None) -> Image.Image:
    """Return a figure: white paper, a black line, a grey picture, perhaps noted."""
    pixels = np.full((40, 60, 3), 255, np.uint8)
    pixels[5] = 0
    pixels[10:30, 20:50] = np.arange(30, dtype=np.uint8)[None, :, None] * 8
    stored, info = io.BytesIO(), PngImagePlugin.PngInfo()
    if boxes is not None:
        info.add_text(pictures.PICTURES, json.dumps(boxes))
    Image.fromarray(pixels).save(stored, "PNG", pnginfo=info)
    stored.seek(0)
    return Image.open(stored)


def test_dark_figures_keep_their_pictures() -> None:
    """Paper becomes the page's colour and ink light; a picture's grey levels stay."""
    figure = note([[20, 10, 50, 30]])
    dark = np.asarray(pictures.dark(figure, [[20, 10, 50, 30]])).astype(int)
    plain = np.asarray(figure.convert("RGB")).astype(int)
    assert (dark[10:30, 20:50] == plain[10:30, 20:50]).all()
    page = [int(plot.PAGES[1][k : k + 2], 16) for k in (1, 3, 5)]
    assert np.abs(dark[0, 0] - page).max() <= 1
    assert dark[5, 0].min() > 200


@pytest.mark.parametrize("method", sorted(plot.COLORS | plot.METHODS))
def test_dark_colours_are_seen(method: str) -> None:
    """Each colour of the figures, as it is in the dark, has a contrast of 3 to 1."""
    color = (plot.COLORS | plot.METHODS)[method]
    rgb = np.array([[int(color[k : k + 2], 16) for k in (1, 3, 5)]], float)
    turned = "#{:02X}{:02X}{:02X}".format(*pictures.in_the_dark(rgb)[0].astype(int))
    assert plot.contrast(turned, plot.PAGES[1]) >= 3


def test_webp_is_the_figure(tmp_path: Path) -> None:
    """The light WebP has the PNG's pixels; without a note there is no dark one."""
    for boxes in ([], None):
        png = tmp_path / f"{boxes}.png"
        figure = note(boxes)
        info = PngImagePlugin.PngInfo()
        if boxes is not None:
            info.add_text(pictures.PICTURES, "[]")
        figure.save(png, pnginfo=info)
        made = pictures.convert(png, tmp_path)
        light = Image.open(tmp_path / made["light"]).convert("RGB")
        assert (np.asarray(light) == np.asarray(figure.convert("RGB"))).all()
        assert ("dark" in made) == (boxes is not None)


def test_every_figure_says_where_pictures_stand() -> None:
    """``make refresh`` noted it in each stored figure, inside the figure's bounds."""
    import base64

    missing = []
    for path in sorted((ROOT / "chapters").glob("*.ipynb")):
        for cell in json.loads(path.read_text())["cells"]:
            for output in cell.get("outputs", []):
                png = output.get("data", {}).get("image/png")
                if png is None:
                    continue
                figure = Image.open(io.BytesIO(base64.b64decode(png)))
                boxes = figure.info.get(pictures.PICTURES)
                if boxes is None:
                    missing.append((path.name, cell["id"]))
                    continue
                for left, top, right, bottom in json.loads(boxes):
                    assert -3 <= left < right <= figure.width + 3, cell["id"]
                    assert -3 <= top < bottom <= figure.height + 3, cell["id"]
    assert missing == []


def test_what_stays_on_one_line() -> None:
    """Numbers and their units, "n = 200", "Chapter 6a", thousands."""
    kept = links.keep("n = 200 of 10 000 in Chapter 6a, 95 %, 28 x 28")
    assert (
        kept.replace("\u00a0", "~") == "n~=~200 of 10~000 in Chapter~6a, 95~%, 28~×~28"
    )


def test_landing_tells_the_truth() -> None:
    """The network reads the committed seven as is said there; the change is small."""
    dataset = data.default()
    if dataset.name != "mnist":
        pytest.skip("the picture is one of MNIST's")
    import draw_landing
    import torch

    said = json.loads((THEME / "landing.json").read_text())
    folder = THEME / "static" / "landing"
    image, changed = (
        torch.tensor(np.asarray(Image.open(folder / f"{name}.png")) / 255)[None, None]
        for name in ("image", "changed")
    )
    assert (image - changed).abs().max() <= draw_landing.EPS + 1 / 255
    network = zoo.load("cnn", dataset)
    with torch.no_grad():
        sure = network(torch.cat([image, changed]).float()).softmax(1)
    assert sure.argmax(1).tolist() == [said["before"][0], said["after"][0]] == [7, 3]
    shown = [said["before"][1], said["after"][1]]
    assert (100 * sure.amax(1)).int().tolist() == pytest.approx(shown, abs=1)
    assert said["largest_change"] <= draw_landing.EPS + 1e-6
