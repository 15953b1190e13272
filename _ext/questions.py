"""Questions that a page answers at once: a form in the box of an exercise.

``advlib/exercises/catalogue.toml`` says what each exercise takes and, for what is to be
recalled or predicted, asks a question. The form is hidden until ``questions.js`` runs,
on paper and in the ePub it is left out: the solution is folded below in any case. An
exercise whose answer ``exercises.check`` judges shows its two hints here, too, folded.
"""

import re
import shutil
from collections.abc import Iterator
from html import escape
from pathlib import Path

from book_page import THEME, stamp
from boxes import box, solution
from docutils import nodes
from sphinx.util import logging

from advlib import exercises
from advlib.exercises import catalogue

SCRIPT = "questions.js"
PIECE = re.compile(r"\$([^$]+)\$|`([^`]+)`")
ALL = " Choose all that apply."
logger = logging.getLogger(__name__)


class question(nodes.General, nodes.Element):  # noqa: N801 (docutils names nodes so)
    """The form: its parts, and in ``form`` the attributes that the script reads."""


class part(nodes.General, nodes.TextElement):  # noqa: N801
    """Words of a form, with the HTML ``before`` and ``after`` them."""


class clue(nodes.General, nodes.TextElement):  # noqa: N801
    """A hint, folded under its ``name``."""


def hints(number: str) -> list[clue]:
    """Return the hints to the exercise ``number``: none where no answer is checked."""
    if number not in exercises.known():
        return []
    names = ("A hint", "A further hint")
    said = zip(names, exercises.about(number).hints, strict=True)
    made = [(name, f"{text[0].upper()}{text[1:]}.") for name, text in said]
    return [clue("", "", *inline(text), name=name) for name, text in made]


def inline(text: str) -> Iterator[nodes.Node]:
    """Yield ``text`` with its formulas and its code."""
    done = 0
    for match in PIECE.finditer(text):
        yield nodes.Text(text[done : match.start()])
        tex, code = match.groups()
        yield nodes.math("", tex) if tex else nodes.literal("", code)
        done = match.end()
    yield nodes.Text(text[done:])


def words(text: str, before: str, after: str) -> part:
    """Return ``text`` as a part of a form."""
    return part("", "", *inline(text), before=before, after=after)


def choice(name: str, asked: catalogue.Choice) -> question:
    """Return the form of a choice; ``name`` is unique on the page."""
    kind = "checkbox" if asked.several else "radio"
    legend = f"{ALL if asked.several else ''}</legend>"
    made = question("", form="")
    made += words(asked.ask, "<fieldset><legend>", legend)
    for option in asked.options:
        field = f'<label><input type="{kind}" name="{name}"> <span>'
        made += words(option.text, field, "</span></label>")
    made[-1]["after"] += closing()
    for option in asked.options:
        right = " data-right" if option.right else ""
        made += words(option.why, f"<p{right}>", "</p>")
    return made


def number(name: str, asked: catalogue.Number) -> question:
    """Return the form of a number."""
    ends = {"answer": asked.answer, "low": asked.low, "high": asked.high}
    form = "".join(f' data-{what}="{value:g}"' for what, value in ends.items())
    made = question("", form=form)
    field = (
        f'</legend><label>Your number <input type="text" name="{name}" '
        'inputmode="decimal" autocomplete="off" size="8"></label>'
    )
    made += words(asked.ask, "<fieldset><legend>", field + closing())
    for reply in (asked.inside, asked.below, asked.above, asked.after):
        made += words(reply, "<p>", "</p>")
    return made


def closing() -> str:
    """Return what stands between the fields and the replies."""
    return (
        '</fieldset><button type="submit">Check</button>'
        '<div class="reply" role="status" aria-live="polite"></div><template>'
    )


def add(app, doctree: nodes.document) -> None:
    """Tell each exercise what it takes, and put its question before its solution."""
    if not hasattr(app, "book_exercises"):
        app.book_exercises = catalogue.load()
    for found in doctree.findall(box):
        if "exercise" not in found["classes"]:
            continue
        exercise = app.book_exercises.get(found["number"])
        if exercise is None or exercise.kind != found["kind"]:
            said = f"exercise {found['number']} ({found['kind']}) is not so in"
            logger.warning(f"{said} {catalogue.FILE.name}", location=app.env.docname)
            continue
        found["difficulty"], found["minutes"] = exercise.difficulty, exercise.minutes
        folds = [place for place, c in enumerate(found) if isinstance(c, solution)]
        place = folds[0] if folds else len(found)
        for more in reversed(hints(exercise.number)):
            found.insert(place, more)
        if exercise.question is None:
            continue
        asks = isinstance(exercise.question, catalogue.Choice)
        made = (choice if asks else number)(f"q-{exercise.number}", exercise.question)
        made["number"] = exercise.number
        found.insert(place, made)


def visit_question(self, node: question) -> None:
    """Begin the form; an ePub has none, as a reading device may run no script."""
    if self.builder.name == "epub":
        raise nodes.SkipNode
    name = escape(node["number"])
    self.body.append(
        f'<form class="question" data-number="{name}"{node["form"]} hidden>'
    )


def depart_question(self, node: question) -> None:
    """End the form and its replies."""
    self.body.append("</template></form>\n")


def visit_part(self, node: part) -> None:
    """Write what stands before the words."""
    self.body.append(node["before"])


def depart_part(self, node: part) -> None:
    """Write what stands after the words."""
    self.body.append(node["after"])


def visit_clue(self, node: clue) -> None:
    """Begin the fold; in the ePub hints and solution would stand open: none there."""
    if self.builder.name == "epub":
        raise nodes.SkipNode
    name = escape(node["name"])
    self.body.append(f'<details class="hint"><summary>{name}</summary><p>')


def depart_clue(self, node: clue) -> None:
    """End the fold."""
    self.body.append("</p></details>\n")


def script(app, pagename, templatename, context, doctree) -> None:
    """Name the script in the head of a page that asks something."""
    if '<form class="question"' in context.get("body", ""):
        source = THEME / "static" / SCRIPT
        address = f"{context['pathto'](f'_static/{SCRIPT}', 1)}?v={stamp(source)}"
        tag = f'<script src="{address}" defer></script>'
        context["metatags"] = f"{context.get('metatags', '')}\n{tag}"


def shorten(app, exception) -> None:
    """Leave the comments of the script out of what is sent."""
    sent = Path(app.outdir) / "_static" / SCRIPT
    if exception is None and sent.is_file():
        shutil.copy(THEME / "static" / SCRIPT, sent)
        text = re.sub(r"/\*.*?\*/", "", sent.read_text(encoding="utf8"), flags=re.S)
        sent.write_text(re.sub(r"\n\s*", "\n", text).lstrip(), encoding="utf8")


def setup(app):
    """Register the nodes, the step after boxes are made, and the script."""
    app.add_node(question, html=(visit_question, depart_question))
    app.add_node(clue, html=(visit_clue, depart_clue))
    app.add_node(part, html=(visit_part, depart_part))
    app.connect("doctree-read", add, priority=600)
    app.connect("html-page-context", script, priority=970)
    app.connect("build-finished", shorten, priority=720)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
