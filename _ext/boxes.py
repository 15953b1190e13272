"""Boxes, made from the Markdown that stands in the notebook.

A directive shows as raw text on Colab, so the notebooks use what every reader draws:

- ``**Exercise 6a.3 (code).** ...``, up to the next one; what follows a hidden code
  cell, or stands in ``<details>``, is the solution;
- ``> **Theorem 6a.1 (name).** ...``, a quotation;
- ``**What it is about.** ...`` in the section "What goes wrong", up to the next one;
- ``> **Threat model.** ...``, a quotation of one line.

Each becomes a box with a name, a number and an anchor.
"""

import re

from docutils import nodes

EXERCISE = re.compile(r"Exercise (\d+[a-z]?)\.(\d+) \((\w+)\)\.?")
CLAIM = re.compile(
    r"(Theorem|Proposition|Lemma|Corollary|Definition) (\d+[a-z]?)\.(\d+)(?: \((.+)\))?"
)
# whose side a claim is on: the colour of its edge
SIDES = {"6": "bound", "4": "attack"}


class box(nodes.General, nodes.Element):  # noqa: N801 (docutils names nodes so)
    """A named box: ``name`` stands on top of it, or its first paragraph does."""


class solution(nodes.General, nodes.Element):  # noqa: N801
    """What a reader opens after having tried."""


class chip(nodes.General, nodes.TextElement):  # noqa: N801
    """One line beside the text: the threat model of what follows."""


def lead(node: nodes.Node) -> nodes.strong | None:
    """Return the bold words with which the paragraph ``node`` begins, if it does."""
    if not isinstance(node, nodes.paragraph):
        return None
    for child in node.children:
        if isinstance(child, nodes.strong):
            return child
        if child.astext().strip():
            return None
    return None


def without(paragraph: nodes.paragraph, words: nodes.strong) -> None:
    """Take the bold words away, and the space after them."""
    place = paragraph.index(words)
    del paragraph[: place + 1]
    if paragraph.children and isinstance(paragraph[0], nodes.Text):
        paragraph[0] = nodes.Text(paragraph[0].astext().lstrip(" .:"))


def named(classes: str, name: str, anchor: str, **more: str) -> box:
    """Return an empty box that can be linked."""
    return box("", classes=["box", *classes.split()], name=name, ids=[anchor], **more)


def groups(section: nodes.section, starts) -> None:
    """Move what stands in ``section`` into boxes.

    ``starts(node)`` returns a box where one begins, else None; a box ends at the next
    one or at a subsection.
    """
    current: box | None = None
    kept: list[nodes.Node] = []
    for child in list(section.children):
        new = starts(child)
        if new is not None:
            current = new
            kept.append(new)
        elif isinstance(child, nodes.section):
            current = None
        if current is None:
            kept.append(child)
        else:
            child.parent = None
            current += child
    section.children = []
    section.extend(kept)


def fold(exercise: box) -> None:
    """Put what answers the exercise into one fold."""
    children = list(exercise.children)
    for place, child in enumerate(children):
        raw = child.astext().strip() if isinstance(child, nodes.raw) else ""
        hidden = isinstance(child, nodes.Element) and child.get("hide_mode") == "all"
        if raw.startswith("<details") or hidden:
            inside = solution()
            for answer in children[place:]:
                text = answer.astext().strip() if isinstance(answer, nodes.raw) else ""
                if text.startswith("<details") or text == "</details>":
                    continue
                if isinstance(answer, nodes.Element) and answer.get("hide_mode"):
                    if answer["hide_mode"] == "all":
                        del answer["hide_mode"]
                answer.parent = None
                inside += answer
            exercise.children = children[:place]
            exercise += inside
            return


def exercise_starts(node: nodes.Node) -> box | None:
    """Return the box of the exercise that begins with ``node``."""
    words = lead(node)
    match = EXERCISE.fullmatch(words.astext().strip()) if words else None
    if not match:
        return None
    chapter, number, kind = match.groups()
    without(node, words)
    anchor = f"exercise-{chapter}-{number}"
    name = f"Exercise {chapter}.{number}"
    return named("exercise", name, anchor, kind=kind, number=f"{chapter}.{number}")


def fault_starts(node: nodes.Node) -> box | None:
    """Return the box of the fault that begins with ``node``."""
    words = lead(node)
    if words is None:
        return None
    name = words.astext().strip().rstrip(".")
    without(node, words)
    made = named("fault", "", f"wrong-{nodes.make_id(name)}")
    last = words.children[-1]
    if isinstance(last, nodes.Text):
        words[-1] = nodes.Text(last.astext().rstrip(". "))
    made += nodes.paragraph("", "", *words.children, classes=["name"])
    return made


def claim(quote: nodes.block_quote) -> box | None:
    """Return the box of a theorem that stands as a quotation, None for others."""
    words = lead(quote[0]) if len(quote) else None
    match = CLAIM.match(words.astext().strip().rstrip(".")) if words else None
    if not match:
        return None
    what, chapter, number, title = match.groups()
    side = SIDES.get(chapter[0], "")
    name = f"{what} {chapter}.{number}" + (f": {title}" if title else "")
    anchor = f"{what.lower()}-{chapter}-{number}"
    found = named(f"theorem {side}".strip(), name, anchor)
    without(quote[0], words)
    for child in list(quote.children):
        child.parent = None
        found += child
    return found


def threat(quote: nodes.block_quote) -> chip | None:
    """Return the chip of a threat model that stands as a quotation of one line."""
    words = lead(quote[0]) if len(quote) == 1 else None
    if words is None or words.astext().strip() != "Threat model.":
        return None
    without(quote[0], words)
    return chip("", "", *quote[0].children)


def make_boxes(app, doctree: nodes.document) -> None:
    """Turn the conventions above into boxes."""
    for quote in list(doctree.findall(nodes.block_quote)):
        made = claim(quote) or threat(quote)
        if made is not None:
            quote.replace_self(made)
    for section in list(doctree.findall(nodes.section)):
        title = section[0].astext() if len(section) else ""
        if title == "Exercises":
            groups(section, exercise_starts)
        elif title == "What goes wrong":
            groups(section, fault_starts)
    for found in list(doctree.findall(box)):
        for anchor in found["ids"]:
            doctree.ids.setdefault(anchor, found)
        if "exercise" in found["classes"]:
            fold(found)


def takes(node: box, dots: bool) -> str:
    """Return what an exercise takes: difficulty, in dots or in words, and minutes."""
    level, minutes = node["difficulty"], f"{node['minutes']}\u00a0min"
    said = f"difficulty {level} of 3"
    if not dots:
        return f' <span class="kind">{said}, {minutes}</span>'
    drawn = "".join(f"<i{' class=on' * (k < level)}></i>" for k in range(3))
    return (
        f' <span class="level" role="img" aria-label="{said}" title="{said}">{drawn}'
        f'</span> <span class="minutes">{minutes}</span>'
    )


def visit_box(self, node: box) -> None:
    """Open the box and write its name."""
    kind = node.get("kind")
    badge = f' <span class="kind">{kind}</span>' if kind else ""
    if "minutes" in node:
        badge += takes(node, dots=self.builder.name != "epub")
    anchor = node["ids"][0]
    self.body.append(self.starttag(node, "section"))
    if not node["name"]:  # it stands as the first paragraph
        return
    self.body.append(
        f'<p class="name">{self.encode(node["name"])}{badge}<a class="headerlink" '
        f'href="#{anchor}" title="Link to this place">#</a></p>\n'
    )


def depart_box(self, node: box) -> None:
    """Close the box."""
    self.body.append("</section>\n")


def visit_solution(self, node: solution) -> None:
    """Open the fold."""
    self.body.append('<details class="solution"><summary>Solution</summary>\n')


def depart_solution(self, node: solution) -> None:
    """Close the fold."""
    self.body.append("</details>\n")


def visit_chip(self, node: chip) -> None:
    """Begin the line."""
    self.body.append('<p class="chip"><strong>Threat model</strong> ')


def depart_chip(self, node: chip) -> None:
    """End the line."""
    self.body.append("</p>\n")


def setup(app):
    """Register the nodes, and the step after a page has been read."""
    app.add_node(box, html=(visit_box, depart_box))
    app.add_node(solution, html=(visit_solution, depart_solution))
    app.add_node(chip, html=(visit_chip, depart_chip))
    app.connect("doctree-read", make_boxes)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
