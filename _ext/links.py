"""Links that the build makes, so that the notebooks hold plain words.

"Chapter 6a", "Figure 6a.2", "Theorem 6a.1", "Exercises 6a.3 and 6a.4" and "Latorre et
al. (2023)" lead where they say; figures and equations are numbered by chapter; a term
of the glossary is linked where a chapter first uses it; and what belongs together, such
as "n = 200", stays on one line. A mention that leads nowhere stops the build.
"""

import codecs
import re
import unicodedata
from collections.abc import Iterator
from string import ascii_lowercase

import latexcodec  # noqa: F401 (the codec "ulatex")
from boxes import box
from docutils import nodes
from sphinx import addnodes
from sphinx.util import logging

GLOSSARY = "glossary"
NBSP = "\u00a0"
CHAPTER = re.compile(r"(\d+[a-c]?)\. ")
FIRST = {"2": "2a", "4": "4a", "6": "6a", "7": "7a", "8": "8a"}
FIRST |= {"9": "9a", "10": "10a", "11": "11a"}
# what a term of the glossary does not mean in one chapter
ELSEWHERE = {
    "02a": {"dual"},
    "02b": {"triangle"},
    "04a": {"dual"},
    "04b": {"blind spot"},
}
SKIPPED = (nodes.reference, nodes.literal, nodes.literal_block, nodes.title, nodes.raw)
SKIPPED += (nodes.math, nodes.math_block, addnodes.pending_xref, nodes.citation)
SKIPPED += (nodes.rubric, nodes.image, addnodes.toctree, nodes.term)
NAME = r"(?:(?:[Dd]e|[Vv]an|[Vv]on) )?[A-Z][\w’'\-]+"
PLACES = re.compile(
    rf"(?P<chapters>\bChapters?[ {NBSP}](?:\d+[a-c]?(?:, | and |, and | to )?)+)"
    rf"|(?P<exercises>\bExercises[ {NBSP}](?:\d+[a-c]?\.\d+(?:, | and )?)+)"
    rf"|\b(?P<kind>Exercise|Figure|Theorem|Table|Proposition|Lemma|Corollary|Definition)"
    rf"[ {NBSP}](?P<number>\d+[a-c]?\.\d+)"
    rf"|(?P<work>\b{NAME}(?:(?:, {NAME})* and {NAME}| et al\.)?,?[ {NBSP}]"
    rf"(?:\((?:19|20)\d\d[a-c]?\)|(?:19|20)\d\d[a-c]?))"
)
TOGETHER = [
    (
        re.compile(r"\b([nNkdKrTp]|eps|eta|beta|alpha) ([=<>]) (?=[\d.])"),
        rf"\1{NBSP}\2{NBSP}",
    ),
    (re.compile(r"(?<=\d) (?=\d{3}\b)"), NBSP),
    (re.compile(r"(?<=\d) (?=(?:%|px|MB|KB|GB|kB|ms|s|min|h)\b|%)"), NBSP),
    (
        re.compile(r"\b(Chapter|Figure|Exercises?|Theorem|Table|Section) (?=\d)"),
        rf"\1{NBSP}",
    ),
    (re.compile(r"(?<=\d) x (?=\d)"), f"{NBSP}×{NBSP}"),
    (re.compile(r"\[(-?[\d.]+), (-?[\d.]+)\]"), rf"[\1,{NBSP}\2]"),
    (re.compile(r"(?<=\d) : (?=\d)"), f"{NBSP}:{NBSP}"),
    (re.compile(r"(?<![\w.\-/])-(?=\.?\d)"), "\u2212"),  # no hyphen of a name
]
logger = logging.getLogger(__name__)


def labels(env) -> dict[str, str]:
    """Return the label of each chapter ("6a") and the page that holds it."""
    found = {}
    for page, title in env.titles.items():
        if match := CHAPTER.match(title.astext()):
            found[match[1]] = page
    return found


def number(app, env) -> list[str]:
    """Number figures, tables and equations by chapter: 6a.1, 6a.2, ..."""
    pages = {page: label for label, page in labels(env).items()}
    for page, kinds in env.toc_fignumbers.items():
        for numbers in kinds.values():
            order = sorted(numbers, key=lambda key: numbers[key])
            for place, key in enumerate(order, 1):
                head = (pages[page],) if page in pages else ()
                numbers[key] = (*head, place)
    return []


def texts(doctree: nodes.document) -> Iterator[nodes.Text]:
    """Yield what a reader sees as prose, outside links, code and titles."""
    for text in list(doctree.findall(nodes.Text)):
        parent = text.parent
        while parent is not None and not isinstance(parent, SKIPPED):
            parent = parent.parent
        if parent is None:
            yield text


def plain(name: str) -> str:
    """Return ``name`` without accents, as docstrings write it."""
    parted = unicodedata.normalize("NFD", name)
    return "".join(sign for sign in parted if not unicodedata.combining(sign))


def works(env) -> dict[str, dict[str, tuple[str, str]]]:
    """Return for each way to name a work the entries that it may mean.

    An entry is its key with the page and anchor where it stands. The year is that of
    the entry, or, where no entry has that, of its preprint; of several works of one
    year a letter after it tells which, in the order of their titles: 2020a, 2020b.
    """
    found: dict[str, dict[str, tuple[str, str]]] = {}
    early: dict[str, dict[str, tuple[str, str]]] = {}
    for citation in env.get_domain("cite").citations:
        entry = citation.entry
        people = entry.persons.get("author") or entry.persons.get("editor") or []
        names = [
            " ".join(person.prelast_names + person.last_names) for person in people
        ]
        names = [re.sub(r"[{}]", "", codecs.decode(n, "ulatex")) for n in names]
        if not names:
            continue
        ways = {f"{names[0]} et al."} if len(names) > 2 else set()
        if len(names) < 3:
            ways = {" and ".join(names)}
        if len(names) == 3:
            ways |= {f"{names[0]}, {names[1]} and {names[2]}"}
        place = (citation.bibliography_key.docname, citation.citation_id)
        preprint = re.match(r"(\d\d)\d\d\.\d", entry.fields.get("eprint", ""))
        for way in ways | set(map(plain, ways)):
            year = entry.fields.get("year", "")
            found.setdefault(f"{way} {year}", {})[citation.key] = place
            if preprint:
                way = f"{way} 20{preprint[1]}"
                early.setdefault(way, {})[citation.key] = place
    titles = {
        citation.key: re.sub("[{}]", "", citation.entry.fields.get("title", "")).lower()
        for citation in env.get_domain("cite").citations
    }
    lettered = {
        f"{way}{letter}": {key: places[key]}
        for way, places in found.items()
        if len(places) > 1
        for letter, key in zip(
            ascii_lowercase, sorted(places, key=titles.get), strict=False
        )
    }
    return early | found | lettered


class Linker:
    """Finds where the words of one page lead."""

    def __init__(self, app, page: str) -> None:
        self.app, self.env, self.page = app, app.env, page
        if not hasattr(app, "book_places"):
            app.book_places = self.places()
        self.chapters, self.boxes, self.works, self.figures, terms = app.book_places
        references = app.env.get_domain("cite").citation_refs
        self.cited = {t.key for r in references if r.docname == page for t in r.targets}
        self.terms = dict(terms) if page.startswith("chapters/") else {}
        self.linked = set(ELSEWHERE.get(page.split("/")[-1].split("_")[0], ()))

    def places(self):
        """Return all that can be linked, for the whole book."""
        boxes = {}
        for page in self.env.found_docs:
            for found in self.env.get_doctree(page).findall(box):
                boxes[found["ids"][0]] = page
        figures = {}
        for page, kinds in self.env.toc_fignumbers.items():
            for anchor, numbers in kinds.get("figure", {}).items():
                figures[".".join(map(str, numbers))] = (page, anchor)
        return labels(self.env), boxes, works(self.env), figures, self.glossary()

    def glossary(self) -> dict[str, str]:
        """Return for each term of the glossary the anchor of its entry."""
        if GLOSSARY not in self.env.found_docs:
            return {}
        terms = self.env.get_doctree(GLOSSARY).findall(nodes.term)
        return {term.astext(): term["ids"][0] for term in terms}

    def link(
        self, words: str, page: str, anchor: str = "", kind: str = ""
    ) -> nodes.Node:
        """Return ``words`` as a link to another page, or to a place."""
        uri = self.app.builder.get_relative_uri(self.page, page)
        uri = f"{uri}#{anchor}" if anchor else uri
        if page == self.page:
            uri = f"#{anchor}"
        made = nodes.reference("", "", internal=True, refuri=uri)
        made["classes"] += [kind] if kind else []
        made += nodes.Text(words)
        return made

    def lost(self, words: str) -> nodes.Node:
        """Complain of a mention that leads nowhere."""
        logger.warning(f"{words!r} leads nowhere", location=self.page)
        return nodes.Text(words)

    def chapter_links(self, words: str) -> Iterator[nodes.Node]:
        """Yield "Chapters 5, 6c and 7a" with a link for each."""
        parts = re.split(r"((?<![\d.])\d+[a-c]?)", words)
        single = len(parts) == 3
        for place, part in enumerate(parts):
            if place % 2 == 0:
                if part and not (single and place == 0):
                    yield nodes.Text(part)
                continue
            page = self.chapters.get(FIRST.get(part, part))
            shown = parts[0] + part if single else part
            if page is None:
                yield self.lost(f"Chapter {part}")
            elif page == self.page:
                yield nodes.Text(shown)
            else:
                yield self.link(shown, page)

    def exercise_links(self, words: str) -> Iterator[nodes.Node]:
        """Yield "Exercises 6a.1, 6a.2 and 6b.4" with a link for each."""
        for place, part in enumerate(re.split(r"(\d+[a-c]?\.\d+)", words)):
            anchor = f"exercise-{part}".replace(".", "-")
            if place % 2 == 0:
                yield nodes.Text(part)
            elif anchor in self.boxes:
                yield self.link(part, self.boxes[anchor], anchor)
            else:
                yield self.lost(f"Exercise {part}")

    def place(self, match: re.Match[str]) -> Iterator[nodes.Node]:
        """Yield what stands for one mention."""
        words = match[0]
        if match["chapters"]:
            yield from self.chapter_links(words)
        elif match["exercises"]:
            yield from self.exercise_links(words)
        elif match["number"]:
            anchor = f"{match['kind']}-{match['number']}".lower().replace(".", "-")
            if match["kind"] == "Figure" and match["number"] in self.figures:
                yield self.link(words, *self.figures[match["number"]], "fig")
            elif anchor in self.boxes:
                kind = "" if match["kind"] == "Exercise" else "thm"
                yield self.link(words, self.boxes[anchor], anchor, kind)
            else:
                yield self.lost(words)
        else:
            work = words.replace(NBSP, " ").replace("(", "").replace(")", "")
            work = re.sub(r",? ((?:19|20)\d\d[a-z]?)$", r" \1", work)
            meant = self.works.get(work, {})
            if len(meant) > 1:  # the one that this page's notes cite
                meant = {key: meant[key] for key in meant if key in self.cited}
            if len(meant) == 1:
                yield self.link(words, *next(iter(meant.values())), "cite")
            else:
                yield nodes.Text(words)

    def term_links(self, words: str) -> Iterator[nodes.Node]:
        """Yield prose in which the first use of each term in the chapter is a link."""
        spots: list[tuple[int, int, str]] = []
        for term in sorted(self.terms, key=len, reverse=True):
            head = re.escape(term).replace(r"\ ", f"[ {NBSP}]").replace("'", "['’]")
            case = "" if term[1:] != term[1:].lower() else "(?i)"
            for found in re.finditer(
                rf"{case}(?<![\w-]){head}(?:s|es)?(?![\w-])", words
            ):
                if any(a < found.end() and found.start() < b for a, b, _ in spots):
                    continue  # a part of a longer term
                spots.append((*found.span(), term))
        done = 0
        for begin, end, term in sorted(spots):
            if term in self.linked:
                continue
            self.linked.add(term)
            yield nodes.Text(words[done:begin])
            yield self.link(words[begin:end], GLOSSARY, self.terms[term], "term")
            done = end
        yield nodes.Text(words[done:])

    def replace(self, text: nodes.Text) -> None:
        """Put links into one piece of prose."""
        words, done, made = text.astext(), 0, []
        prose = isinstance(text.parent, nodes.paragraph)
        for match in PLACES.finditer(words):
            before = words[done : match.start()]
            made += self.term_links(before) if prose else [nodes.Text(before)]
            made += self.place(match)
            done = match.end()
        made += self.term_links(words[done:]) if prose else [nodes.Text(words[done:])]
        if len(made) > 1:
            text.parent.replace(text, [node for node in made if node.astext()])


def keep(words: str) -> str:
    """Return ``words`` with no-break spaces where a line must not end."""
    for pattern, instead in TOGETHER:
        words = pattern.sub(instead, words)
    return words


def resolve(app, doctree: nodes.document, page: str) -> None:
    """Make the links of one page, and keep together what belongs together."""
    linker = Linker(app, page)
    for link in doctree.findall(nodes.reference):  # made in the text itself
        for text in list(link.findall(nodes.Text)):
            if not isinstance(text.parent, nodes.literal):
                text.parent.replace(text, nodes.Text(keep(text.astext())))
    for text in texts(doctree):
        if (kept := keep(text.astext())) != text.astext():
            new = nodes.Text(kept)
            text.parent.replace(text, new)
            text = new
        linker.replace(text)
    for reference in doctree.findall(nodes.reference):
        uri = reference.get("refuri", "") or "#" + reference.get("refid", "")
        if "references" in uri and "#" in uri and "cite" not in reference["classes"]:
            reference["classes"].append("cite")
        if "glossary" in uri and "#term" in uri:
            reference["classes"].append("term")


def setup(app):
    """Register the numbering and the links."""
    app.connect("env-get-updated", number, priority=900)
    app.connect("doctree-resolved", resolve, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": False}
