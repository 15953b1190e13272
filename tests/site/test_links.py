"""The built pages without a browser: links, resources, alt texts, leftovers."""

import re
from dataclasses import dataclass, field
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml

LOADS = {"script", "img", "iframe", "source", "video", "audio", "embed"}
LOADED_RELS = {"stylesheet", "icon", "preload", "modulepreload"}
MUTE = {
    "script",
    "style",
    "pre",
    "code",
    "title",
    "template",
    "math",
}  # text that may hold TeX
VOID = {"img", "br", "hr", "meta", "link", "input", "source", "wbr", "col", "embed"}
LEFTOVER = re.compile(
    r"\{(?:cite|eq|ref|numref|figure|doc|glue|prf|math|term|admonition)\b[^}]*\}"
    r"|:::|```|\]\(|\$|\\[a-zA-Z]+|(?<!\w)\*\*\w"
)
FILE_NAME = re.compile(r"\.(?:png|jpe?g|gif|svg|webp)$|^_images/|[0-9a-f]{32}", re.I)


@dataclass
class Html(HTMLParser):
    """What one page links to, loads, shows and says."""

    path: Path
    ids: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)
    alts: list[str | None] = field(default_factory=list)  # of the article's images
    text: list[str] = field(default_factory=list)  # of the article, outside code
    stack: list[tuple[str, bool, bool]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.path.read_text(encoding="utf8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the element; keep for its text whether it is content, and mute."""
        a = dict(attrs)
        self.ids |= {a[key] for key in ("id", "name") if a.get(key)}
        content, mute = self.stack[-1][1:] if self.stack else (False, False)
        content |= tag == "article"
        mute |= tag in MUTE
        if tag not in VOID:
            self.stack.append((tag, content, mute))
        if tag == "a" and a.get("href"):
            self.links.append(a["href"])
        if tag in LOADS and a.get("src"):
            self.loads.append(a["src"])
        if tag == "link" and a.get("href"):
            loaded = LOADED_RELS & set((a.get("rel") or "").split())
            (self.loads if loaded else self.links).append(a["href"])
        if tag == "img" and content:
            self.alts.append(a.get("alt"))

    def handle_endtag(self, tag: str) -> None:
        """Leave the element, and what was not closed inside it."""
        if tag in (open_tags := [t for t, _, _ in self.stack]):
            del self.stack[len(open_tags) - 1 - open_tags[::-1].index(tag) :]

    def handle_data(self, data: str) -> None:
        """Keep what a reader sees as prose."""
        if self.stack and self.stack[-1][1] and not self.stack[-1][2]:
            self.text.append(data)


@cache
def parsed(path: Path) -> Html:
    """Return the page, parsed once."""
    return Html(path)


def every_page(site: Path) -> list[Html]:
    """Return all pages; ``*macros.html`` are the theme's templates, not pages."""
    files = (p for p in site.rglob("*.html") if not p.match("_static/*macros.html"))
    return [parsed(p) for p in sorted(files)]


def problem(page: Html, url: str) -> str | None:
    """Return what is wrong with ``url`` on ``page``, None for what is elsewhere."""
    parts = urlsplit(url)
    if parts.scheme or parts.netloc:
        return None
    target = page.path
    if parts.path:
        target = (page.path.parent / unquote(parts.path)).resolve()
    if not target.is_file():
        return f"{page.path.name}: {url}: no such file"
    fragment = unquote(parts.fragment)
    if fragment and target.suffix == ".html" and fragment not in parsed(target).ids:
        return f"{page.path.name}: {url}: no such place"
    return None


def test_links_arrive(site: Path) -> None:
    """Every internal link's file and fragment exists, every local resource too."""
    pages = every_page(site)
    assert sum(len(page.links) for page in pages) > 0
    found = [problem(page, url) for page in pages for url in page.links + page.loads]
    assert [text for text in found if text] == []


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    """No script, style sheet, image or frame of another host."""
    urls = [(p.path.name, url) for p in every_page(site) for url in p.loads]
    assert urls
    assert [(n, u) for n, u in urls if re.match(r"(?:https?:)?//", u)] == []


def test_page_of_the_toc_exists(site: Path, name: str) -> None:
    """The page was built, and says something."""
    page = parsed(site / f"{name}.html")
    assert "".join(page.text).strip()


def test_images_are_described(site: Path, name: str) -> None:
    """Each image of the text has words for alt text: no file name, no TeX."""
    alts = parsed(site / f"{name}.html").alts
    poor = [a for a in alts if not (a or "").strip() or FILE_NAME.search(a.strip())]
    tex = [a for a in alts if a and re.search(r"\$|\\[a-zA-Z]", a)]
    assert (poor, tex) == ([], [])


def test_no_raw_markup(site: Path, name: str) -> None:
    """No role, directive, fence, Markdown link or TeX stayed as plain text."""
    text = parsed(site / f"{name}.html").text
    assert [t.strip()[:90] for t in text if LEFTOVER.search(t)] == []


def test_address(site: Path, book: Path, notebook: str) -> None:
    """Each chapter's button opens that chapter on Colab, from this repository; while
    the address is not known there is none, and nothing leads to a repository."""
    config = yaml.safe_load((book / "_config.yml").read_text())["repository"]
    slug = "/".join(config["url"].rstrip("/").split("/")[-2:])
    links = parsed(site / f"{notebook}.html").links
    if slug == "ORG/REPO":
        assert [url for url in links if "ORG" in url or "colab" in url] == []
        return
    where = f"https://colab.research.google.com/github/{slug}/blob/{config['branch']}"
    assert f"{where}/{notebook}.ipynb" in links
    assert config["url"].rstrip("/") in links


def test_several_exercises_at_once(site: Path) -> None:
    """Of "Exercises 1.1, 1.2 and 2a.3" each number is a link to its box."""
    text = (site / "course.html").read_text(encoding="utf8")
    wanted = r'<a class="[^"]*" href="chapters/([^"#]+)#exercise-([^"]+)">([^<]+)</a>'
    links = re.findall(wanted, text)
    single = [words for *_, words in links if re.fullmatch(r"\d+[a-c]?\.\d+", words)]
    assert len(single) > 100
    for page, anchor, words in links:
        assert words.split("\u00a0")[-1].replace(".", "-") == anchor
        assert f'id="exercise-{anchor}"' in (site / "chapters" / page).read_text("utf8")
    rest = re.sub(r"<[^>]+>", "", re.sub(wanted, "", text))
    assert not re.search(r"Exercises?[ \u00a0]\d", rest)
