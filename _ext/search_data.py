"""What the search and the hover cards know: two scripts, loaded when first used.

``search-data.js`` has every section of the book: title, words, place; formulas as they
are read, no TeX and no code. A term of the glossary has homes: the sections that its
entry links, which a search for it finds first. ``cards.js`` has what a link to a
citation, a term, a figure, a theorem or an equation on another page shows.
"""

import json
import re
from html import unescape
from pathlib import Path

from boxes import box
from docutils import nodes
from mathematics import Setter
from pictures import IMG, element
from questions import question
from sphinx import addnodes

SILENT = (
    nodes.literal_block,
    nodes.raw,
    nodes.math_block,
    nodes.citation,
    nodes.comment,
)
SILENT += (addnodes.toctree, addnodes.index, nodes.image, nodes.substitution_definition)
SILENT += (question,)
TAG = re.compile(r"<[^>]+>")
# the prose of a chapter counts in full; its exercises and sources less
WEIGHTS = {"Exercises": 0.5, "Notes and sources": 0.5, "Summary": 0.7}
WEIGHTS |= {"In this chapter": 0.6, "What goes wrong": 0.8}


def plain(node: nodes.Node, setter: Setter) -> str:
    """Return what ``node`` says, in words: no code, formulas as they look."""
    if isinstance(node, nodes.Text):
        return node.astext()
    if isinstance(node, SILENT) or "cell_input" in getattr(node, "attributes", {}).get(
        "classes", []
    ):
        return ""
    if isinstance(node, nodes.math):
        return unescape(TAG.sub("", setter(node.astext(), False)))
    inner = "".join(plain(child, setter) for child in node.children)
    inline = isinstance(node, nodes.Inline | nodes.TextElement) and not isinstance(
        node, nodes.paragraph | nodes.title | nodes.term | nodes.caption
    )
    return inner if inline else f"{inner} "


def clean(text: str) -> str:
    """Return ``text`` with single spaces and no invisible signs."""
    text = re.sub("[\u2061-\u2064\u200b]", "", text)
    return re.sub(r"\s+", " ", text.replace("\u00a0", " ")).strip()


def sections(app, page: str, doctree: nodes.document):
    """Yield (anchor, title, text, weight) for each section of a page."""
    setter = app.builder.mathematics
    for section in doctree.findall(nodes.section):
        title = clean(plain(section[0], setter)) if len(section) else ""
        inside = [c for c in section[1:] if not isinstance(c, nodes.section)]
        boxes = [c for c in inside if isinstance(c, box)]
        text = clean("".join(plain(c, setter) for c in inside if c not in boxes))
        weight = WEIGHTS.get(title, 1.0)
        yield section["ids"][0], title, text, weight
        for found in boxes:
            inner = found.children if found["name"] else found.children[1:]
            words = clean("".join(plain(c, setter) for c in inner))
            name = found["name"] or clean(plain(found[0], setter))
            yield found["ids"][0], name, words, 0.6 * weight if "Ex" in name else weight


def note(app, page: str, template, context, doctree) -> None:
    """Collect one page's sections and cards, when it is written."""
    if doctree is None or app.builder.name != "html":
        return
    if not hasattr(app.builder, "mathematics"):
        app.builder.mathematics = Setter()
    store = app.builder.book_found = getattr(app.builder, "book_found", [])
    uri = app.builder.get_target_uri(page)
    page_title = clean(app.env.titles[page].astext())
    top = True
    for anchor, title, text, weight in sections(app, page, doctree):
        url = uri if top else f"{uri}#{anchor}"
        store.append(
            {
                "id": f"{page}#{anchor}",
                "url": url,
                "title": title,
                "page": "" if top else page_title,
                "text": text,
                "weight": weight,
            }
        )
        top = False
    cards = app.builder.book_cards = getattr(app.builder, "book_cards", {})
    cards.update(found_cards(context["body"], uri.rsplit("/", 1)[-1], page))
    homes = app.builder.book_homes = getattr(app.builder, "book_homes", {})
    for item in doctree.findall(nodes.definition_list_item):
        terms = [
            t
            for t in item.findall(nodes.term)
            if any(i.startswith("term-") for i in t["ids"])
        ]
        for term in terms:
            name = clean(term.astext()).lower()
            for link in item.findall(nodes.reference):
                target = link.get("refuri", "")
                if "#" in target:
                    place, anchor = target.split("#")
                    place = place.removesuffix(".html").removeprefix("../")
                    homes.setdefault(name, []).append(f"{place}#{anchor}")


CARDS = [
    re.compile(r'<figure\b[^>]*\bid="([^"]+)".*?</figure>', re.S),
    re.compile(r'<section class="box theorem[^"]*" id="([^"]+)".*?</section>', re.S),
    re.compile(r'<div class="math" id="([^"]+)">.*?</div>', re.S),
    re.compile(r'<div class="citation" id="([^"]+)".*?</div>', re.S),
]
DEFINITION = re.compile(r'<dt id="(term-[^"]+)">.*?</dt>\s*<dd>(.*?)</dd>', re.S)


def found_cards(body: str, file: str, page: str):
    """Yield (file#anchor, HTML) for all that a link may lead to on this page."""
    up = "@root/" + "/".join(page.split("/")[:-1]) + ("/" if "/" in page else "")
    for pattern in CARDS:
        for match in pattern.finditer(body):
            inner = re.sub(r' id="[^"]*"', "", match[0])
            inner = re.sub(r'<a class="headerlink".*?</a>', "", inner, flags=re.S)
            inner = inner.replace('src="../', 'src="@root/')
            inner = re.sub(r'href="(?!https?:|#)', f'href="{up}', inner)
            yield f"{file}#{match[1]}", inner
    for match in DEFINITION.finditer(body):
        yield f"{file}#{match[1]}", match[2]


def write(app, exception) -> None:
    """Write both scripts."""
    if exception is not None or app.builder.name != "html":
        return
    static = Path(app.outdir) / "_static"
    builder = app.builder
    homes: dict[str, list[str]] = {}
    for name, places in builder.book_homes.items():
        words = re.findall(r"[^\W_]+", name)
        stem = " ".join(
            re.sub(r"(?<!s)s$", "", re.sub(r"ies$", "y", w)) if len(w) > 3 else w
            for w in words
        )
        homes.setdefault(stem, []).extend(places)
    data = {"sections": builder.book_found, "homes": homes}
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    (static / "search-data.js").write_text(f"window.BOOK_SEARCH={text};\n", "utf8")
    made = getattr(app, "book_pictures", {})

    def picture(match: re.Match[str]) -> str:
        folder, name = match[1].rsplit("/", 1)
        return element(match[0], f"{folder}/", made[name], lazy=True)

    cards = {k: IMG.sub(picture, v) for k, v in builder.book_cards.items()}
    text = json.dumps(cards, ensure_ascii=False, separators=(",", ":"))
    (static / "cards.js").write_text(f"window.BOOK_CARDS={text};\n", "utf8")


def setup(app):
    """Register collecting and writing."""
    app.connect("html-page-context", note, priority=970)
    app.connect("build-finished", write, priority=750)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": False}
