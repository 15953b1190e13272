"""The frame of every page: the book's own theme, and what its templates ask for.

While ``repository: url`` in the configuration names ORG/REPO, nothing on a page leads
to a repository or to Colab, and the build says so.
"""

import hashlib
import itertools
import re
import shutil
import sys
import tomllib
from pathlib import Path
from urllib.parse import urlencode

from docutils import nodes
from links import keep
from pygments.formatters import HtmlFormatter
from sphinx import addnodes
from sphinx.util import logging

HERE = Path(__file__).resolve().parent
THEME = HERE / "book_theme"
UNKNOWN = "ORG/REPO"
MODE = (
    "(()=>{let m=null;try{m=localStorage.getItem('mode')}catch{}"
    "document.documentElement.dataset.theme=m==='light'||m==='dark'?m:"
    "matchMedia('(prefers-color-scheme: dark)').matches?'dark':'light'})()"
)
# of the files that Sphinx and extensions put beside the pages, those that a page uses
USED = ("book.css", "book.js", "cards.js", "search-data.js", "fonts/", "favicon.svg")
USED += ("questions.js", "touch-icon.png", "social/", "landing/", "play/")
MENDS = [
    # docutils: role=list whose children are no list items (axe: aria-required-children)
    ('<div role="list" class="citation-list">', '<div class="citation-list">'),
    # deprecated in ARIA 1.2 (axe: aria-deprecated-role)
    (' role="doc-biblioentry"', ""),
    # myst-nb: the name hides the visible words (axe: label-content-name-mismatch)
    ('<summary aria-label="Toggle hidden content">', "<summary>"),
]
BETWEEN = re.compile(r"[^<>]+(?=<|$)")  # what is no tag
# an option, a number with an exponent, "n = 200", an interval
UNBROKEN = re.compile(
    r"(?<![\w-])--[a-z][\w-]*|\d(?:\.\d+)?e-\d+|\bn = \d+|\[-?[\d.]+, -?[\d.]+\]"
)
OPTION = re.compile(r'<span class="pre">(?=--[a-z][\w-]+<)')  # in a sentence
NUMBER = re.compile(r"[\u2212+(<>\u2264]?[.\d]|\u2013?$")  # or nothing
NOBR = r'<span class="nobr">\g<0></span>'
CELL = re.compile(r"<t[dh]\b[^>]*>[^<]*</t[dh]>")
EXPONENT = re.compile(r"(?<=10)[\u207b\u2070\u00b9\u00b2\u00b3\u2074-\u2079]+")
LOWERED = str.maketrans(
    "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079",
    "\u22120123456789",
)
# code in a sentence: a word may go on in the next line at a dot, a stroke, a bracket
WORD = re.compile(r'(?<=<span class="pre">)[^<]{12,}(?=</span>)')
EMPTY = re.compile(
    r"<th\b([^>]*)>\s*(?:<p>\s*</p>)?\s*</th>"
)  # axe: empty-table-header
logger = logging.getLogger(__name__)


def stamp(path: Path) -> str:
    """Return a short name of what is in ``path``, for its address."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:10]


def address(app) -> str:
    """Return the repository's address, "" while it is not known."""
    url = app.config.html_theme_options.get("repository_url", "").rstrip("/")
    return "" if UNKNOWN in url else url


def slug(url: str) -> str:
    """Return owner and name of the repository at ``url``."""
    return "/".join(url.split("/")[-2:])


def contents(app, pagename: str) -> str:
    """Return the book's table of contents as HTML, the page itself marked."""
    env, builder = app.env, app.builder
    parts = []
    for toctree in env.get_doctree(app.config.root_doc).findall(addnodes.toctree):
        if caption := toctree.get("caption"):
            parts.append(f'<p class="caption">{caption}</p>')
        items = []
        for title, document in toctree["entries"]:
            text = title or env.titles[document].astext()
            now = ' aria-current="page"' if document == pagename else ""
            link = builder.get_relative_uri(pagename, document) or "#"
            items.append(f'<li><a href="{link}"{now}>{nodes.Text(text)}</a></li>')
        parts.append(f"<ul>{''.join(items)}</ul>")
    return "\n".join(parts)


def on_this_page(toc: str) -> str:
    """Return the list of the page's sections below its title, "" if there is none."""
    match = re.search(r"<li>.*?</a>\s*(<ul>.*</ul>)\s*</li>\s*</ul>", toc or "", re.S)
    return re.sub(r' class="reference internal"', "", match[1]) if match else ""


def hanging(match: re.Match[str]) -> str:
    """Return a block of code whose lines know their indent, for narrow screens."""
    lines = match[1].rstrip("\n").split("\n")
    made = []
    for line in lines:
        bare = re.sub(r"<[^>]*>", "", line)
        indent = len(bare) - len(bare.lstrip(" "))
        style = f' style="--n:{indent}"' if indent else ""
        line = re.sub(r"^((?:<[^>]*>)*)( +)", r'\1<span class="lead">\2</span>', line)
        line = BETWEEN.sub(lambda m: UNBROKEN.sub(NOBR, m[0]), line)
        made.append(f'<span class="row"{style}>{line}\n</span>')
    return f"<pre>{''.join(made)}</pre>"


def cell(match: re.Match[str]) -> str:
    """Return a cell of a table as prose is set, and exponents in one type."""
    text = keep(match[0])
    return EXPONENT.sub(lambda m: f"<sup>{m[0].translate(LOWERED)}</sup>", text)


def columns(match: re.Match[str]) -> str:
    """Return a table whose columns of words are marked, to stand at the left."""
    table = match[0]
    rows = [re.findall(r"<td\b[^>]*>(.*?)</td>", row, re.S)
            for row in re.findall(r"<tr\b.*?</tr>", table, re.S)]  # fmt: skip
    rows = [row for row in rows if row]
    if 'class="dataframe' not in table or len({len(row) for row in rows}) != 1:
        return table
    words = {
        place
        for place, column in enumerate(zip(*rows, strict=True))
        if any(text.strip() for text in column)
        and not any(NUMBER.match(text.strip()) for text in column)
    }

    def mark(row: re.Match[str]) -> str:
        count = itertools.count(-1 if "<th" in row[0] and "<td" not in row[0] else 0)
        kind = "th" if "<td" not in row[0] else "td"
        return re.sub(
            rf"<{kind}(?=[ >])",
            lambda m: f'<{kind} class="words"' if next(count) in words else m[0],
            row[0],
        )

    return re.sub(r"<tr\b.*?</tr>", mark, table, flags=re.S) if words else table


def prepare(app, pagename, templatename, context, doctree):
    """Hand the templates what they ask for, and mend the body."""
    url, config = address(app), app.config
    options = config.html_theme_options
    notebook = str(context.get("page_source_suffix", "")) == ".ipynb"
    book = {
        "theme_script": MODE,
        "canonical": url,
        "css": app.builder.book_stamps["book.css"],
        "js": app.builder.book_stamps["book.js"],
        "contents": contents(app, pagename),
        "on_this_page": on_this_page(context.get("toc", "")),
        "notebook": notebook,
        "colab": "",
        "repository": url if options.get("use_repository_button") else "",
        "issue": "",
        "downloads": app.builder.book_downloads,
        "version": config.version,
        "authors": config.author,
        "kind": "chapter" if notebook else "page",
        "root": re.sub(r"^https?://[^/]+", "", config.html_baseurl) if url else "/",
    }
    if pagename == config.root_doc:
        book["kind"], book["on_this_page"] = "landing", ""
    if url:
        branch = options.get("repository_branch", "main")
        where = f"https://colab.research.google.com/github/{slug(url)}/blob/{branch}"
        book["colab"] = f"{where}/{pagename}.ipynb" if notebook else ""
        if options.get("use_issues_button"):
            asked = urlencode({"title": "Mistake", "body": f"Where: {pagename}"})
            book["issue"] = f"{url}/issues/new?{asked}"
    context["book"] = book
    body = context.get("body", "")
    body = re.sub(EMPTY, r"<td\1></td>", body)
    for old, new in MENDS:
        body = body.replace(old, new)
    body = CELL.sub(cell, body)
    body = re.sub(r"<table\b.*?</table>", columns, body, flags=re.S)
    body = OPTION.sub('<span class="pre nobr">', body)
    body = WORD.sub(
        lambda m: re.sub(r"(?<=[a-z])[._/(,]+(?=[a-zA-Z])", r"\g<0><wbr/>", m[0]), body
    )
    body = re.sub(
        r"<table\b.*?</table>", r'<div class="scroll">\g<0></div>', body, flags=re.S
    )
    context["body"] = re.sub(r"<pre>(.*?)</pre>", hanging, body, flags=re.S)


def begin(app):
    """Read the version, name the assets; say so while the address is not known."""
    builder = app.builder
    static = THEME / "static"
    builder.book_stamps = {n: stamp(static / n) for n in ("book.css", "book.js")}
    made = Path(app.outdir).parent  # `make pdf`, `make epub` leave their files there
    kinds = {"PDF": "book.pdf", "ePub": "book.epub"}
    found = {kind: name for kind, name in kinds.items() if (made / name).is_file()}
    builder.book_downloads = list(found.items()) if builder.name == "html" else []
    if hasattr(builder, "search"):
        builder.search = False  # search_data.py makes a better one
    if builder.format == "html" and not address(app):
        sys.stdout.write(
            f"\nNote: the address is still {UNKNOWN} (_config.yml), so that no button "
            "leads to Colab or to the repository. `make stamp` writes the right one.\n"
        )


def more_pages(app):
    """Add the search page and the page for addresses that lead nowhere."""
    if app.builder.name == "html":
        yield "search", {"title": "Search"}, "find.html"
        yield "404", {"title": "No such page"}, "lost.html"


def sweep(app, exception):
    """Remove the files that extensions put beside the pages and no page uses."""
    if exception is not None or app.builder.name != "html":
        return
    for _, name in app.builder.book_downloads:
        shutil.copy(Path(app.outdir).parent / name, app.outdir)
    static = Path(app.outdir) / "_static"
    for path in sorted(static.rglob("*"), reverse=True):
        name = path.relative_to(static).as_posix()
        if path.is_file() and not name.startswith(USED):
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def colours(app, exception):
    """Write the colours of the code, light and dark, at the end of the style sheet."""
    if exception is not None or app.builder.name != "html":
        return

    def rules(style: str, scope: str) -> str:
        formatter = HtmlFormatter(style=style)
        lines = formatter.get_style_defs(f"{scope}.highlight").splitlines()
        return "\n".join(
            re.sub(r"\s*/\*.*?\*/", "", line)
            for line in lines
            if re.search(r"\.highlight \.\w", line)
        )

    sheet = Path(app.outdir) / "_static" / "book.css"
    text = sheet.read_text(encoding="utf8")
    text += rules("a11y-high-contrast-light", "")
    dark = rules("a11y-high-contrast-dark", 'html[data-theme="dark"] ')
    text += f"\n@media screen {{\n{dark}\n}}\n"
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    text = re.sub(r"\n\s*", "\n", text)
    sheet.write_text(text, encoding="utf8")


def version(app, config):
    """Take the version from the package."""
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text())
    config.version = config.release = project["project"]["version"]


def setup(app):
    """Register theme, options and handlers."""
    app.add_html_theme("book_theme", str(THEME))
    app.add_config_value("comments_config", {}, "")  # Jupyter Book sets it, unused
    app.connect("config-inited", version)
    app.connect("builder-inited", begin)
    app.connect("html-collect-pages", more_pages)
    app.connect("html-page-context", prepare, priority=950)
    app.connect("build-finished", sweep, priority=700)
    app.connect("build-finished", colours, priority=710)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
