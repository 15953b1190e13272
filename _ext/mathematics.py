"""Formulas are set in the build: TeX becomes MathML, and no formula engine is sent.

Temml (vendor/temml.min.js, MIT) runs inside ``mini-racer``, so that the build needs
Python alone. A formula that it cannot read stops the build.
"""

import re
from html import escape
from pathlib import Path

from docutils import nodes
from py_mini_racer import MiniRacer
from sphinx.errors import ExtensionError
from sphinx.util.math import get_node_equation_number

TEMML = Path(__file__).parent / "vendor" / "temml.min.js"
PRIMES = r'(?:<mo [^>]*class="tml-prime[^>]*>[\u2032-\u2034]</mo>)+'
PRIME = re.compile(rf"(<mrow[^>]*>)?{PRIMES}(?(1)</mrow>)")  # one sign, or several
DOTS = re.compile("<mo>([\u2026\u22ef])</mo>")
SCRIPTS = r"m(?:sub|sup|subsup|under|over|underover)"
NEAR = re.compile(r"([(\[“‘]*)(<math\b.*?</math>)([,.;:!?)\]’”]*(?:-\w+)?)", re.DOTALL)
TAGS = re.compile(r"<[^>]+>")
RELATION = re.compile(r"<mo[^>]*>(?:=|≤|≥|&lt;|&gt;|<|>|∈|≈|∼|→|≠|≔)</mo>")
LONG = 20  # signs; a longer inline formula may end a line at a relation
ROOM = 34  # signs; a longer formula of its own may go on in a second row on a phone
GAP = re.compile(r'<mspace width="[12]em"[^>]*>(?:</mspace>)?')  # a quad or two
OPEN, CLOSE = re.compile(r"<mo[^>]*>[({\[⟨]</mo>"), re.compile(r"<mo[^>]*>[)}\]⟩]</mo>")
TURN = re.compile(r"<mo[^>]*>(?:=|≤|≥|≔)</mo>")  # where a row may begin
SIGN = re.compile(r"<mo[^>]*>[+−]</mo>")
PIECE = re.compile(r"<(/?)(\w+)[^>]*?(/?)>|[^<]+")


class Setter:
    """Turn TeX into MathML; one engine for the whole build."""

    def __init__(self) -> None:
        self.engine = MiniRacer()
        source = TEMML.read_text(encoding="utf8")
        self.engine.eval(f"var self = this, window = this; {source}")
        self.known: dict[tuple[str, bool], str] = {}

    def __call__(self, tex: str, display: bool) -> str:
        """Return ``tex`` as one ``math`` element; ValueError says what is wrong."""
        key = (tex.strip(), display)
        if key not in self.known:
            options = {"displayMode": display, "throwOnError": True, "xml": True}
            try:
                made = self.engine.call("temml.renderToString", key[0], options)
            except Exception as error:
                said = str(error).split("\n")[0]
                raise ValueError(f"cannot set {tex!r}: {said}") from error
            self.known[key] = (in_rows if display else breakable)(tight(made))
        return self.known[key]


def children(xml: str) -> list[str]:
    """Return the elements of which ``xml`` consists, in order."""
    found, depth, begin = [], 0, 0
    for piece in PIECE.finditer(xml):
        closing, name, alone = piece.group(1, 2, 3)
        if not name:
            continue
        depth += 0 if alone else (-1 if closing else 1)
        if depth == 0:
            found.append(xml[begin : piece.end()])
            begin = piece.end()
    return found


def tight(mathml: str) -> str:
    """Return ``mathml`` with no space around operators in sub- and superscripts.

    TeX sets none there; a browser's operator dictionary does not know of scripts.
    """

    def shrink(script: str) -> str:
        return re.sub(r"<mo(?=[ >])(?![^>]*space)", '<mo lspace="0" rspace="0"', script)

    def mend(element: str) -> str:
        match = re.match(r"(<(\w+)[^>]*>)(.*)(</\2>)$", element, re.DOTALL)
        if not match:
            return element
        head, name, inner, tail = match.groups()
        parts = children(inner)
        if not parts:
            return element
        if name == "msup" and PRIME.fullmatch(parts[-1]):  # raised in itself
            return f"<mrow>{mend(parts[0])}{parts[1]}</mrow>"
        if re.fullmatch(SCRIPTS, name):
            base, *scripts = parts
            parts = [mend(base), *map(shrink, scripts)]
        else:
            parts = list(map(mend, parts))
        return head + "".join(parts) + tail

    return DOTS.sub(r'<mo lspace="0" rspace="0">\1</mo>', mend(mathml))


def breakable(mathml: str) -> str:
    """Return a long inline formula as several, so that lines can end between them.

    TeX lets a line end after a relation; a browser keeps a formula on one line. Each
    further piece begins with the relation that it had.
    """
    if len(TAGS.sub("", mathml)) <= LONG:
        return mathml
    head = re.match(r"<math[^>]*>", mathml)[0]
    parts = children(mathml[len(head) : -len("</math>")])
    while len(parts) == 1 and re.match(r"<mrow>", parts[0]):
        parts = children(parts[0][len("<mrow>") : -len("</mrow>")])
    pieces: list[list[str]] = [[]]
    for part in parts:
        if RELATION.fullmatch(part) and len(TAGS.sub("", "".join(pieces[-1]))) >= 6:
            part = re.sub(r' lspace="[^"]*"', "", part, count=1)
            part = part.replace("<mo", '<mo form="infix" lspace="0"', 1)
            pieces.append([])
        pieces[-1].append(part)
    return " ".join(f"{head}<mrow>{''.join(p)}</mrow></math>" for p in pieces)


def in_rows(mathml: str) -> str:
    """Return a long displayed formula as several that stand in one row if it has room.

    A new row may begin where two statements are set apart (a quad or two) and, outside
    of brackets, at an equals sign or the like, or at a sum's sign if much stands before
    it; tables (aligned rows, cases) stay.
    """
    long = len(TAGS.sub("", mathml)) > ROOM
    if "<mtable" in mathml or not (long or GAP.search(mathml)):
        return mathml
    head = re.match(r"<math[^>]*>", mathml)[0]
    parts = children(mathml[len(head) : -len("</math>")])
    while len(parts) == 1 and re.match(r"<mrow>", parts[0]):
        parts = children(parts[0][len("<mrow>") : -len("</mrow>")])
    pieces: list[list[str]] = [[]]
    apart, depth = set(), 0
    for part in parts:
        depth += bool(OPEN.fullmatch(part)) - bool(CLOSE.fullmatch(part))
        if GAP.fullmatch(part) and depth == 0:
            apart.add(len(pieces))
            pieces.append([])
            continue
        before = len(TAGS.sub("", "".join(pieces[-1])))
        least = 4 if TURN.fullmatch(part) else 12 if SIGN.fullmatch(part) else 1e9
        if long and depth == 0 and before >= least:
            part = re.sub(r' lspace="[^"]*"', "", part, count=1)
            part = part.replace("<mo", '<mo form="infix" lspace="0"', 1)
            pieces.append([])
        pieces[-1].append(part)
    if len(pieces) == 1:
        return mathml
    begin = re.sub(r' (?:display|class|style)="[^"]*"', "", head)
    begin = begin.replace("<math", '<math displaystyle="true"', 1)
    made = ""
    for k, piece in enumerate(pieces):
        made += '<span class="gap"> </span>' if k in apart else " " if k else ""
        made += f"{begin}<mrow>{''.join(piece)}</mrow></math>"
    return f'<div class="rows">{made}</div>'


def keep_together(html: str) -> str:
    """Return ``html`` with each formula and the marks that touch it on one line."""

    def bind(match: re.Match[str]) -> str:
        before, formula, after = match.groups()
        if 'display="block"' in formula or not before + after:
            return match[0]
        return f'<span class="nobr">{match[0]}</span>'

    return NEAR.sub(bind, html)


def visit_inline(self, node: nodes.math) -> None:
    """Write an inline formula."""
    self.body.append(_set(self, node, display=False))
    raise nodes.SkipNode


def visit_block(self, node: nodes.math_block) -> None:
    """Write a displayed formula, with number and anchor if it has a label."""
    names = "".join(f' id="{name}"' for name in node["ids"][:1])
    self.body.append(f'<div class="math"{names}>')
    self.body.append(_set(self, node, display=True))
    if node["number"]:
        number = escape(get_node_equation_number(self, node))
        link = f"#{node['ids'][0]}" if node["ids"] else "#"
        self.body.append(f'<a class="eqno" href="{link}">({number})</a>')
    self.body.append("</div>\n")
    raise nodes.SkipNode


def _set(self, node, display: bool) -> str:
    builder = self.builder
    if not hasattr(builder, "mathematics"):
        builder.mathematics = Setter()
    try:
        return builder.mathematics(node.astext(), display)
    except ValueError as error:
        raise ExtensionError(f"{builder.current_docname}: {error}") from error


def finish(app, pagename, templatename, context, doctree):
    """Bind marks to the formulas that they touch."""
    if context.get("body"):
        context["body"] = keep_together(context["body"])


def setup(app):
    """Register the way to set formulas: ``html_math_renderer = "mathml"``."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    app.connect("html-page-context", finish, priority=960)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
