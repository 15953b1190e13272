"""Make the book's fonts from the published ones; to be run when those change.

``python tools/make_fonts.py FOLDER``: FOLDER holds the packages
``@fontsource-variable/stix-two-text``, ``@fontsource-variable/source-sans-3`` and
``@fontsource/stix-two-math`` (all under the SIL Open Font License), unpacked side by
side. Written are the site's web fonts, weights 400 to 700, mathematics cut to the
characters that a formula may hold; and for the figures two TrueType files inside
``advlib``.
"""

import io
import sys
from pathlib import Path

from fontTools.pens.transformPen import TransformPen
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.subset import Options, Subsetter
from fontTools.ttLib import TTFont
from fontTools.varLib.instancer import instantiateVariableFont

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "_ext" / "book_theme" / "static" / "fonts"
FIGURES = ROOT / "advlib" / "fonts"
WEIGHTS = (400, 700)
# the alphabets of mathematics that the book's formulas may use, and their signs
MATHEMATICS = [
    *range(0x20, 0x7F),
    *range(0xA0, 0x100),
    *map(ord, "\u0131\u0237\u02c6\u02c7\u02d8\u02d9\u02dc\u0302\u0303\u0304"),
    *map(ord, "\u0305\u0307\u0308\u20d7"),
    *range(0x391, 0x3F7),  # Greek
    *range(0x2010, 0x2028),
    *map(ord, "\u2032\u2033\u2034\u203e\u2044\u2061\u2062\u2063\u2064"),
    *map(ord, "ℂℋℒℓℕℙℚℛℝℤℬℰℱℳ←↑→↓↔↦⇐⇒⇔"),
    *map(ord, "∀∂∃∅∆∇∈∉∋∏∐∑−∓∕∖∗∘∙√∝∞∠∣∤∥∦∧∨∩∪∫∼≃≅≈≔≕≜≝≠≡≤≥≪≫≺≻"),
    *map(ord, "⪰⪯□ℎ⊂⊃⊄⊆⊇⊊⊕⊖⊗⊘⊙⊤⊥⊨⋀⋁⋂⋃⋄⋅⋆⋮⋯⋱⌈⌉⌊⌋⟨⟩⩽⩾⎵⏞⏟"),
    *range(0x1D400, 0x1D450),  # bold, and italic capitals and the first letters
    *range(0x1D450, 0x1D468),
    *range(0x1D49C, 0x1D4B6),  # script capitals
    *range(0x1D538, 0x1D552),  # double-struck capitals
    *range(0x1D6FC, 0x1D71C),  # Greek italic
    *range(0x1D7CE, 0x1D7D8),  # bold digits
    0x1D7D9,  # the indicator
]
TEXT = [  # what the web font of the text leaves out, and the text uses
    *range(0x20, 0x7F),
    *range(0xA0, 0x100),
    *range(0x2010, 0x2028),
    0x202F,
    0x2030,
    0x2039,
    0x203A,
    0x2044,
    0x20AC,
    0x2122,
    0x2190,
    0x2191,
    0x2192,
    0x2193,
    0x2212,
    0x2215,
]

MORE = [*range(0x100, 0x180), 0x218, 0x219, 0x21A, 0x21B]  # names: loaded where used


def opened(path: Path, **limits: tuple[float, float] | float) -> TTFont:
    """Return the font in ``path``, its axes pinned or limited as ``limits`` says."""
    font = TTFont(path)
    if not limits:
        return font
    stored = io.BytesIO()
    instantiateVariableFont(font, limits).save(stored)
    stored.seek(0)
    return TTFont(stored)


def cut(font: TTFont, characters: list[int], flavor: str | None) -> bytes:
    """Return ``font`` with no more than ``characters``, as woff2 or TrueType."""
    options = Options()
    options.layout_features = ["kern", "liga", "tnum"]
    options.layout_features += ["mark", "mkmk", "ccmp", "ssty", "dtls", "flac"]
    options.hinting = False
    options.name_IDs = [0, 1, 2, 3, 4, 5, 6, 13, 14]
    subsetter = Subsetter(options)
    subsetter.populate(unicodes=characters)
    subsetter.subset(font)
    font.flavor = flavor
    stored = io.BytesIO()
    font.save(stored)
    return stored.getvalue()


def narrow_roots(font: TTFont) -> None:
    """Make the tall root signs as wide as the low one, and no taller one of parts.

    A browser leaves room for the widest of them after every root.
    """
    sign, glyphs = font.getBestCmap()[0x221A], font.getGlyphSet()
    width, table = font["hmtx"][sign][0], font["MATH"].table.MathVariants
    place = table.VertGlyphCoverage.glyphs.index(sign)
    table.VertGlyphConstruction[place].GlyphAssembly = None
    for variant in table.VertGlyphConstruction[place].MathGlyphVariantRecord:
        name = variant.VariantGlyph
        scale = width / font["hmtx"][name][0]
        if scale == 1:
            continue
        pen = TTGlyphPen(glyphs)
        glyphs[name].draw(TransformPen(pen, (scale, 0, 0, 1, 0, 0)))
        font["hmtx"][name] = (width, round(scale * font["hmtx"][name][1]))
        font["glyf"][name] = pen.glyph()


def rename(font: TTFont, style: str) -> None:
    """Call a font cut from Source Sans "Book Sans": the first name is reserved."""
    names = {1: "Book Sans", 2: style, 3: f"Book Sans {style}", 4: f"Book Sans {style}"}
    names |= {6: f"BookSans-{style}", 16: None, 17: None, 25: None}
    for number, name in names.items():
        font["name"].removeNames(nameID=number)
        if name:
            font["name"].setName(name, number, 3, 1, 0x409)
    if "fvar" not in font:
        font["OS/2"].usWeightClass = 700 if style == "Bold" else 400
        font["head"].macStyle = int(style == "Bold")


def main(arguments: list[str]) -> None:
    """Write all fonts and say how large they are."""
    if len(arguments) != 1:
        sys.exit(__doc__)
    packages = Path(arguments[0])
    text = packages / "@fontsource-variable/stix-two-text/files/stix-two-text-latin"
    sans = packages / "@fontsource-variable/source-sans-3/files/source-sans-3-latin"
    math = packages / "@fontsource/stix-two-math/files/stix-two-math-latin-400-normal"
    more = f"{text}-ext"
    weights = {"wght": WEIGHTS}
    made = {
        SITE / "text.woff2": (f"{text}-wght-normal.woff2", weights, TEXT),
        SITE / "text-italic.woff2": (f"{text}-wght-italic.woff2", weights, TEXT),
        SITE / "text-more.woff2": (f"{more}-wght-normal.woff2", weights, MORE),
        SITE / "sans.woff2": (f"{sans}-wght-normal.woff2", weights, TEXT),
        SITE / "math.woff2": (f"{math}.woff2", {}, MATHEMATICS),
        FIGURES / "BookSans-Regular.ttf": (
            f"{sans}-wght-normal.woff2",
            {"wght": 400},
            TEXT,
        ),
        FIGURES / "BookSans-Bold.ttf": (
            f"{sans}-wght-normal.woff2",
            {"wght": 700},
            TEXT,
        ),
    }
    for path, (source, limits, characters) in made.items():
        font = opened(Path(source), **limits)
        if path.stem == "math":
            narrow_roots(font)
        if "sans" in path.stem.lower():
            rename(font, "Bold" if "Bold" in path.stem else "Regular")
        flavor = path.suffix[1:] if path.suffix == ".woff2" else None
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cut(font, characters, flavor))
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
