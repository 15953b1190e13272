"""Figures that the reader can play with: places for them, and the files they load.

A code cell that calls ``play.show("NAME")`` gets a place after its figure, and the
directive ``{play} NAME`` is one. The site's script fills a place when one comes near,
with the files of ``advlib/play`` under ``_static/play``; on paper, in the ePub and
without JavaScript there is only the figure that the notebook stores.
"""

import hashlib
import re
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.errors import ExtensionError

SOURCE = Path(__file__).resolve().parent.parent / "advlib" / "play"
CALL = re.compile(r"""\bplay\.show\(\s*["']([\w-]+)["']\s*\)""")
INDENT = re.compile(r"^ +", re.M)
COMMENT = re.compile(r"/\*.*?\*/\s*|^[ ]*// [^\n]*\n", re.S | re.M)


class stage(nodes.General, nodes.Element):  # noqa: N801 (docutils names nodes so)
    """A place for the figure ``name``; its children are words that need it."""


def files() -> dict[str, str]:
    """Return what the pages load: place under ``_static/play``, and text."""
    found = {}
    for folder, pattern in (("js", "**/*.js"), ("data", "*.js")):
        for path in sorted((SOURCE / folder).glob(pattern)):
            name = path.relative_to(SOURCE / folder).as_posix()
            text = path.read_text(encoding="utf8")
            if folder == "js":
                text = INDENT.sub("", COMMENT.sub("", text))
            found[name if folder == "js" else f"data/{name}"] = text
    return found


def version(texts: dict[str, str]) -> str:
    """Return a short name of all the ``texts``, for their addresses."""
    every = "\0".join(f"{name}\0{text}" for name, text in sorted(texts.items()))
    return hashlib.sha256(every.encode()).hexdigest()[:10]


def place(name: str, stamp: str) -> str:
    """Return the HTML of a place; refuse a figure that there is not."""
    if not (SOURCE / "js" / "figures" / f"{name}.js").is_file():
        raise ExtensionError(f"play: there is no figure {name!r}")
    return f'<div class="play" data-play="{name}" data-version="{stamp}"></div>'


class Play(Directive):
    """``{play} NAME``: a place for a figure, with the words that need it as content."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        """Leave a place, to be filled for web pages only."""
        words = nodes.container("", classes=["needs-script"])
        self.state.nested_parse(self.content, self.content_offset, words)
        return [stage("", words, name=self.arguments[0])]


def shown(doctree) -> None:
    """Put a place after the output of each cell that calls ``play.show``."""
    for cell in list(doctree.findall(nodes.container)):
        if cell.get("nb_element") != "cell_code":
            continue
        code = "\n".join(block.astext() for block in cell.findall(nodes.literal_block))
        for match in CALL.finditer(code):
            outputs = [
                part
                for part in cell.findall(nodes.container)
                if part.get("nb_element") == "cell_code_output"
            ]
            (outputs[-1] if outputs else cell).append(stage("", name=match[1]))


def fill(app, doctree, _):
    """Make places for the web; take them away elsewhere."""
    shown(doctree)
    for node in list(doctree.findall(stage)):
        if app.builder.name != "html":
            node.parent.remove(node)
            continue
        made = place(node["name"], app.builder.book_play)
        node.replace_self([*node.children, nodes.raw("", made, format="html")])


def begin(app):
    """Name the version of the files."""
    app.builder.book_play = version(files())


def write(app, exception):
    """Write the files beside the pages."""
    if exception is not None or app.builder.name != "html":
        return
    for name, text in files().items():
        path = Path(app.outdir) / "_static" / "play" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf8")


def setup(app):
    """Register node, directive and steps."""
    app.add_node(stage)
    app.add_directive("play", Play)
    app.connect("builder-inited", begin)
    app.connect("doctree-resolved", fill)
    app.connect("build-finished", write, priority=600)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
