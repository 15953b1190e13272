"""A card for each page that has a figure: what a chat shows when the address is pasted.

1200 x 630 pixels: the title, the question, the page's first figure, the book's name.
The landing page has the digit that the network misreads. ``sphinxext.opengraph`` writes
the other lines of the head.
"""

from html import escape
from pathlib import Path

from docutils import nodes
from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).resolve().parent.parent
FONTS = ROOT / "advlib" / "fonts"
DIGITS = ROOT / "_ext" / "book_theme" / "static" / "landing"
SIZE, EDGE, GAP = (1200, 630), 60, 40
PAPER, INK, QUIET, SIDES = "#ffffff", "#1a1a1a", "#555555", ("#d55e00", "#009e73")
FOLDER = "_static/social"


def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Return the book's sans, ``size`` pixels high."""
    name = "BookSans-Bold.ttf" if bold else "BookSans-Regular.ttf"
    return ImageFont.truetype(str(FONTS / name), size)


def lines(text: str, face: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """Return ``text`` in lines of at most ``width`` pixels; no word is parted."""
    made = [""]
    for word in text.split():
        longer = f"{made[-1]} {word}".strip()
        if made[-1] and face.getlength(longer) > width:
            made.append(word)
        else:
            made[-1] = longer
    return made


def write(draw: ImageDraw.ImageDraw, text: str, face, top: float, width: float, ink):
    """Write ``text`` in lines from ``top`` on; return where the next text may start."""
    for line in lines(text, face, width):
        draw.text((EDGE, top), line, font=face, fill=ink)
        top += 1.25 * face.size
    return top


def card(title: str, question: str, book: str, figure: Image.Image) -> Image.Image:
    """Return the card of a page; ``figure`` is made smaller until it fits."""
    page = Image.new("RGB", SIZE, PAPER)
    draw = ImageDraw.Draw(page)
    broad = figure.width > 1.6 * figure.height  # then it stands below the words
    right = SIZE[0] - 2 * EDGE
    words = right if broad else 520
    top = write(draw, title, font(50, bold=True), 46, words, INK)
    if not broad:
        top = write(draw, question, font(28), top + 14, words, QUIET)
    foot = SIZE[1] - 62
    room = (
        (right, foot - top - GAP) if broad else (right - words - GAP, foot - 46 - GAP)
    )
    scale = min(room[0] / figure.width, room[1] / figure.height)
    wanted = (round(figure.width * scale), round(figure.height * scale))
    way = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST
    shown = figure.convert("RGB").resize(wanted, way)
    left = EDGE if broad else SIZE[0] - EDGE - wanted[0]
    above = top + GAP / 2 if broad else 46
    page.paste(shown, (left, round(above + (room[1] - wanted[1]) / 2)))
    draw.text((EDGE, foot), book, font=font(26), fill=QUIET)
    for k, colour in enumerate(SIDES):
        draw.rectangle((600 * k, SIZE[1] - 10, 600 * (k + 1), SIZE[1]), fill=colour)
    return page


def digits() -> Image.Image:
    """Return the landing page's three small pictures side by side."""
    found = [Image.open(DIGITS / f"{n}.png").convert("RGB") for n in (
        "image", "change", "changed")]  # fmt: skip
    strip = Image.new("RGB", (28 * 3 + 6 * 2, 28), PAPER)
    for k, picture in enumerate(found):
        strip.paste(picture, (34 * k, 0))
    return strip


def name(pagename: str) -> str:
    """Return the file of a page's card."""
    return f"{FOLDER}/{pagename.replace('/', '-')}.png"


def note(app, pagename, templatename, context, doctree):
    """Remember what stands on a page's card, and name it in the head."""
    if app.builder.name != "html" or doctree is None:
        return
    notes = app.builder.book_cards_to_draw = getattr(
        app.builder, "book_cards_to_draw", {}
    )
    title = app.env.titles[pagename].astext()
    first = next(iter(doctree.findall(nodes.image)), None)
    question = next(iter(doctree.findall(nodes.paragraph)), None)
    said = question.astext().split("? ")[0] if question is not None else ""
    if pagename == app.config.root_doc:
        said, figure = "", None
    elif first is None:
        return
    else:
        figure = Path(app.outdir) / "_images" / Path(first["uri"]).name
    notes[pagename] = (title, f"{said}?" if said else "", figure)
    where = f"{app.config.html_baseurl.rstrip('/')}/{name(pagename)}"
    alt = escape(f"{title}: its first figure" if figure else title)
    context["metatags"] = context.get("metatags", "") + "".join(
        f"\n<meta {kind}>"
        for kind in (
            f'property="og:image" content="{escape(where)}"',
            'property="og:image:width" content="1200"',
            'property="og:image:height" content="630"',
            f'property="og:image:alt" content="{alt}"',
            'name="twitter:card" content="summary_large_image"',
        )
    )


def finish(app, exception):
    """Draw the cards."""
    if exception is not None or app.builder.name != "html":
        return
    folder = Path(app.outdir) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for pagename, (title, question, figure) in app.builder.book_cards_to_draw.items():
        picture = Image.open(figure) if figure else digits()
        made = card(title, question, app.config.project, picture)
        few = made.quantize(256, dither=Image.Dither.NONE)
        few.save(Path(app.outdir) / name(pagename), optimize=True)


def setup(app):
    """Register both steps; the lines of the head come after those of opengraph."""
    app.connect("html-page-context", note, priority=900)
    app.connect("build-finished", finish, priority=500)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
