"""What the landing page shows: one misread digit, the parts of the book, three routes.

Titles and order come from the table of contents; the questions stand in ``intro.md``.
"""

import json
import re
from html import escape
from pathlib import Path

from book_page import address, slug
from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx import addnodes
from sphinx.errors import ExtensionError

THEME = Path(__file__).resolve().parent / "book_theme"
SPOKEN = {0: "zero", 1: "one", 2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}
SPOKEN |= {7: "seven", 8: "eight", 9: "nine"}
ROUTES = {  # a route's name, its colour, and the chapters where it stops
    "attack only": ("attack", "1 3 4a 4b 8b"),
    "verification": ("bound", "1 2a 2b 3 5 6a 6b 6c 7a 7b"),
    "training": ("exact", "1 4a 6a 8a 8b 8c 11a 11b"),
}
WORDS_A_MINUTE = 180


class placeholder(nodes.General, nodes.Element):  # noqa: N801 (docutils names nodes so)
    """A place that is filled when the whole book is known."""


def parts(app) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the book's parts: caption, and (page, title) of each chapter."""
    found = []
    for toctree in app.env.get_doctree(app.config.root_doc).findall(addnodes.toctree):
        pages = [page for _, page in toctree["entries"]]
        titles = [(page, app.env.titles[page].astext()) for page in pages]
        found.append((toctree.get("caption", ""), titles))
    return found


def chapters(app) -> list[tuple[str, str, str]]:
    """Return (label, page, title) of each chapter, in order."""
    found = []
    for _, pages in parts(app):
        for page, title in pages:
            if match := re.match(r"(\d+[a-c]?)\. ", title):
                found.append((match[1], page, title))
    return found


def hours(app) -> int:
    """Return how long the chapters take to read, in hours, without exercises."""
    words = 0
    for _, page, _ in chapters(app):
        for paragraph in app.env.get_doctree(page).findall(nodes.paragraph):
            words += len(paragraph.astext().split())
    return round(words / WORDS_A_MINUTE / 60)


def misread(link) -> str:
    """Return the digit, its change, and the same digit, taken for another."""
    note = json.loads((THEME / "landing.json").read_text())
    before, after = note["before"], note["after"]
    said = [
        (
            "image",
            f"The network says {before[0]}.",
            f"A handwritten {SPOKEN[before[0]]}",
        ),
        (
            "change",
            "A change of at most a tenth of the grey scale.",
            "Red and blue blotches",
        ),
        (
            "changed",
            f"Now it says {after[0]}.",
            f"The same {SPOKEN[before[0]]}, a little blotchy",
        ),
    ]
    panels = "".join(
        f'<figure><img src="{link}landing/{name}.png" alt="{alt}" width="140" '
        f'height="140"><figcaption>{words}</figcaption></figure>'
        for name, words, alt in said
    )
    sure = f"It is {before[1]} % sure before, and {after[1]} % sure after."
    return f'<div class="misread" title="{sure}">{panels}</div>'


def hero(app, uri) -> str:
    """Return the top of the page: picture and buttons."""
    first = chapters(app)[0][1]
    url = address(app)
    buttons = [(uri(first), "Start reading", "first"), ("#map", "The map", "")]
    if url:
        branch = app.config.html_theme_options.get("repository_branch", "main")
        colab = "https://colab.research.google.com/github"
        to = f"{colab}/{slug(url)}/blob/{branch}/{first}.ipynb"
        buttons.insert(1, (to, "Open on Colab", ""))
    row = "".join(f'<a class="button {c}" href="{to}">{t}</a>' for to, t, c in buttons)
    count = len(chapters(app))
    needs = (
        f"You need PyTorch and a little optimisation. {count} chapters, about "
        f"{hours(app)} hours to read; each runs in about two minutes on a laptop, "
        "without a GPU."
    )
    return (
        f'{misread("_static/")}<p class="buttons">{row}</p><p class="needs">{needs}</p>'
    )


def cards(app, uri, questions: dict[str, str]) -> str:
    """Return a card for each part, with its chapters and the questions they answer."""
    made = []
    for caption, pages in parts(app):
        rows = [
            f'<dt><a href="{uri(page)}">{escape(title)}</a></dt>'
            f"<dd>{escape(questions.pop(page))}</dd>"
            for page, title in pages
            if page in questions
        ]
        if rows:
            head = f"<h3>{escape(caption)}</h3>"
            made.append(
                f'<section class="part">{head}<dl>{"".join(rows)}</dl></section>'
            )
    if questions:
        raise ExtensionError(f"intro.md: no such chapters: {sorted(questions)}")
    return f'<div class="parts">{"".join(made)}</div>'


def routes(app, uri) -> str:
    """Return the reading map: a line for each route, a stop for each chapter."""
    stops = chapters(app)
    step, top, left, gap = 27, 64, 14, 26
    height = top + step * len(stops)
    drawn = []
    row = {label: top + step * k for k, (label, _, _) in enumerate(stops)}
    for k, (name, (color, labels)) in enumerate(ROUTES.items()):
        x = left + gap * k
        ends = [row[label] for label in labels.split()]
        dots = "".join(f'<circle cx="{x}" cy="{y}" r="5.5"/>' for y in ends)
        turn = f'<text x="{x}" y="{ends[0] - 14 - 15 * (2 - k)}">{name}</text>'
        line = f'<path d="M{x} {ends[0] - 10 - 15 * (2 - k)}V{ends[-1]}"/>'
        drawn.append(
            f'<g class="route" style="--c:var(--{color})">{line}{dots}{turn}</g>'
        )
    names = "".join(
        f'<a href="{uri(page)}"><text x="{left + gap * 3}" y="{row[label] + 5}">'
        f"{escape(title)}</text></a>"
        for label, page, title in stops
    )
    return (
        f'<svg class="routes" viewBox="0 0 430 {height}" role="group" '
        'aria-label="Reading map: three routes through the chapters">'
        f"{names}{''.join(drawn)}</svg>"
    )


def drawing() -> str:
    """Return the map of both sides, in the page's own colours."""
    svg = (THEME / "both-sides.svg").read_text()
    svg = svg.replace("<svg ", '<svg class="both-sides" aria-hidden="true" ', 1)
    return f'<div class="scroll drawing">{svg}</div>'


class Piece(Directive):
    """``{piece} hero``, ``cards``, ``routes`` or ``drawing``."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        """Leave a place; the content, if any, is "page: question" lines."""
        pairs = [line.split(": ", 1) for line in self.content if line.strip()]
        return [placeholder("", what=self.arguments[0], questions=dict(pairs))]


def fill(app, doctree, page: str) -> None:
    """Fill the places of one page; what is no web page gets nothing there."""
    for place in list(doctree.findall(placeholder)):
        if app.builder.name != "html":
            place.parent.remove(place)
            continue

        def uri(to: str) -> str:
            return app.builder.get_relative_uri(page, to)

        made = {
            "hero": lambda: hero(app, uri),
            "cards": lambda place=place: cards(app, uri, dict(place["questions"])),
            "routes": lambda: routes(app, uri),
            "drawing": drawing,
        }[place["what"]]()
        place.replace_self(nodes.raw("", made, format="html"))


def setup(app):
    """Register directive and filling."""
    app.add_node(placeholder)
    app.add_directive("piece", Piece)
    app.connect("doctree-resolved", fill)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
