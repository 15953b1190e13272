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

import book_page  # noqa: E402
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
    pages = [ROOT / "notation.md", ROOT / "course.md"]
    pages += [ROOT / "advlib" / "exercises" / "catalogue.toml"]
    for path in [*sorted((ROOT / "chapters").glob("*.ipynb")), *pages]:
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


def test_a_long_display_has_rows(setter: mathematics.Setter) -> None:
    """Rows begin at a quad and outside of brackets; tables stay whole."""
    ball = r"\lVert\delta\rVert \le \epsilon,\ 0 \le x + \delta \le 1"
    set_ = rf"\Delta(x) = \{{\delta : {ball}\}}"
    made = setter(
        rf"m_j = \min_\delta (z_y - z_j)(x + \delta) > 0, \qquad {set_}", True
    )
    assert made.count('<span class="gap"> </span>') == 1
    rows = re.findall(r"<math.*?</math>", made)
    assert len(rows) == 3  # the set's own name, and then its braces in one piece
    assert "{" in rows[2]
    assert "}" in rows[2]
    assert "<div" not in setter("a = b", True)
    table = r"\begin{aligned} a &= b \quad c \\ d &= e \end{aligned}"
    assert "<div" not in setter(table, True)


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


def test_primes_are_raised_once_and_dots_stand_close(
    setter: mathematics.Setter,
) -> None:
    """The font raises a prime itself; dots between commas add no space."""
    made = setter("f'(x) + v''", False)
    assert "<msup>" not in made
    assert made.count("\u2032") + made.count("\u2033") >= 2
    assert "<msup>" in setter("x^2", False)
    assert '<mo lspace="0" rspace="0">\u2026</mo>' in setter("(1, \\dots, 1)", False)


def test_every_root_sign_is_as_wide_as_the_least() -> None:
    """A browser leaves room after a root for the widest sign of the font."""
    from fontTools.ttLib import TTFont

    font = TTFont(THEME / "static" / "fonts" / "math.woff2")
    table = font["MATH"].table.MathVariants
    place = table.VertGlyphCoverage.glyphs.index(font.getBestCmap()[0x221A])
    signs = table.VertGlyphConstruction[place]
    assert len(signs.MathGlyphVariantRecord) == 4
    widths = {font["hmtx"][v.VariantGlyph][0] for v in signs.MathGlyphVariantRecord}
    assert len(widths) == 1
    assert signs.GlyphAssembly is None


def test_code_keeps_its_text_and_knows_its_indent() -> None:
    """What a reader copies is what stands in the notebook; options do not break."""
    code = '<pre>if x:\n        run(<span class="s">"--num-nodes"</span>, 1e-9)\n</pre>'
    made = re.sub(r"<pre>(.*?)</pre>", book_page.hanging, code, flags=re.S)
    bare = re.compile(r"<[^>]*>")
    assert bare.sub("", made).strip() == bare.sub("", code).strip()
    assert '--n:8"><span class="lead">        </span>' in made
    for word in ("--num-nodes", "1e-9"):
        assert f'<span class="nobr">{word}</span>' in made


def test_columns_of_words_are_told_from_numbers() -> None:
    """Only a column without a number stands at the left; empty cells do not count."""
    rows = [("a", "yes", "1.5", ""), ("b", "no", "\u22122 [\u22123, 1]", "0.1")]
    body = "".join(
        f"<tr><th>{r}</th>{''.join(f'<td>{c}</td>' for c in rest)}</tr>"
        for r, *rest in rows
    )
    head = "<tr><th>name</th><th>said</th><th>x</th><th>y</th></tr>"
    table = f'<table class="dataframe advlib">{head}{body}</table>'
    made = re.sub(r"<table.*?</table>", book_page.columns, table, flags=re.S)
    assert re.findall(r'<t. class="words">(\w+)<', made.replace("</t", "<")) == [
        "said",
        "yes",
        "no",
    ]
    assert book_page.columns(re.match(".*", "<table><tr><td>a</td></tr></table>"))


def test_minus_and_exponents_in_tables() -> None:
    """A minus is no hyphen, a name keeps its hyphens, an exponent has one type face."""
    for cell, shown in {
        "<td>-0.5 [-1, .2]</td>": "<td>\u22120.5 [\u22121,\u00a0.2]</td>",
        "<th>MLP 50-20, eps = 0.1</th>": "<th>MLP 50-20, eps\u00a0=\u00a00.1</th>",
        "<td>784-50-20</td>": "<td>784-50-20</td>",
        "<td>6.8·10⁻¹⁰</td>": "<td>6.8·10<sup>\u221210</sup></td>",
    }.items():
        assert book_page.CELL.sub(book_page.cell, cell) == shown


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        ("from 0.38 to -0.21", "from 0.38 to \u22120.21"),
        ("784-50-20-10, CIFAR-10, top-8", "784-50-20-10, CIFAR-10, top-8"),
        ("in [-1, 1.5]", "in [\u22121,\u00a01.5]"),
        ("Exercises 4a.3", "Exercises\u00a04a.3"),
    ],
)
def test_minus_signs_and_intervals_in_prose(words: str, kept: str) -> None:
    """Hyphens of names stay, minus signs are minus signs, intervals stay together."""
    assert links.keep(words) == kept


def test_places_take_the_bracket_only_with_its_partner() -> None:
    """In "(Rice et al. 2020)" the closing bracket is not the link's."""
    assert links.PLACES.search("(Rice et al. 2020),")[0] == "Rice et al. 2020"
    assert links.PLACES.search("Rice et al. (2020),")[0] == "Rice et al. (2020)"
    assert links.PLACES.search("by de Jorge et al. (2022)")[0].startswith("de Jorge")


def test_a_work_has_its_names() -> None:
    """Accents may be left out; a preprint's year counts if no entry has it."""
    from types import SimpleNamespace as Known

    from pybtex.database import parse_string

    text = r"""
    @article{a, author = {Tom\'a\v{s}ek, V\'aclav and Hein, Matthias}, year = {2023}}
    @article{b, author = {De Palma, A. and B, B. and C, C.}, year = {2014},
             eprint = {1312.6199}}
    @article{c, author = {{de Jorge}, P. and B, B. and C, C.}, year = {2014}}
    @article{d, author = {Berg, A. and Holm, B.}, title = {Two}, year = {2020}}
    @article{e, author = {Berg, A. and Holm, B.}, title = {{O}ne}, year = {2020}}
    """
    entries = parse_string(text, "bibtex").entries
    citations = [
        Known(bibliography_key=Known(docname="refs"), citation_id=key, key=key, entry=e)
        for key, e in entries.items()
    ]
    env = Known(get_domain=lambda name: Known(citations=citations))
    found = links.works(env)
    for way, key in {
        "Tom\u00e1\u0161ek and Hein 2023": "a",
        "Tomasek and Hein 2023": "a",
        "De Palma et al. 2014": "b",
        "De Palma et al. 2013": "b",
        "de Jorge et al. 2014": "c",
        "Berg and Holm 2020a": "e",
        "Berg and Holm 2020b": "d",
    }.items():
        assert found[way] == {key: ("refs", key)}


def test_terms_that_mean_something_else_are_terms() -> None:
    """What is not linked in one chapter is in the glossary, and the chapter exists."""
    terms = re.findall(r"^(\S.*)\n  \*", (ROOT / "glossary.md").read_text(), re.M)
    for chapter, words in links.ELSEWHERE.items():
        assert len(list((ROOT / "chapters").glob(f"{chapter}_*.ipynb"))) == 1
        for word in words:
            assert word in terms, word


def test_breaks_are_xhtml(site: Path) -> None:
    """A page of the ePub with an open <wbr> is refused whole by its reader."""
    text = (site / "notation.html").read_text(encoding="utf8")
    assert "<wbr/>" in text
    for page in site.rglob("*.html"):
        assert "<wbr>" not in page.read_text(encoding="utf8"), page
