"""The whole book as one PDF: table of contents, page numbers, running heads, links.

``python tools/make_pdf.py`` (``make pdf``) reads the built site, joins the pages in the
book's order, and lets Chromium print them; solutions and folded code are open. Printed
twice: the first time shows on which page each chapter begins.
"""

import argparse
import io
import re
from html import escape
from pathlib import Path

import pikepdf
import yaml
from playwright.sync_api import Browser, sync_playwright
from shots import FLAGS, chromium
from weigh import pages, served

ROOT = Path(__file__).resolve().parent.parent
ARTICLE = re.compile(r"<article[^>]*>(.*)</article>", re.S)
SHEET = """
@page { @bottom-center { content: counter(page); font: 9pt "Book Sans"; color: #444; } }
@page cover { @bottom-center { content: none; } }
.cover { page: cover; padding-top: 30mm; }
.cover h1 { font-size: 30pt; border: 0; }
.cover .misread { max-width: 110mm; margin: 12mm 0; }
.toc { break-before: page; }
.toc p { display: flex; max-width: none; margin: 1.5mm 0; font-family: var(--sans); }
.toc p.part { font-weight: 700; margin-top: 5mm; }
.toc a { flex: 1; } .toc span { font-variant-numeric: tabular-nums; }
.page { break-before: page; }
h2 { border: 0; padding: 0; }
"""


def joined(site: Path, names: list[str]) -> str:
    """Return the articles of all pages, every anchor and link made unique."""
    known = {f"{name}.html": name for name in names}
    parts = []
    for name in names:
        body = ARTICLE.search((site / f"{name}.html").read_text(encoding="utf8"))[1]
        folder = name.rsplit("/", 1)[0] + "/" if "/" in name else ""

        def target(match: re.Match[str], folder=folder, name=name) -> str:
            url = match[1]
            if url.startswith("#"):
                return f'href="#{name}--{url[1:]}"'
            if re.match(r"\w+:", url):
                return match[0]
            path, _, place = url.partition("#")
            pieces: list[str] = []
            for piece in (folder + path).split("/"):
                pieces = pieces[:-1] if piece == ".." else [*pieces, piece]
            to = known.get("/".join(pieces))
            return f'href="#{to}--{place}"' if to else ""

        body = re.sub(r'href="([^"]*)"', target, body)
        body = re.sub(r'\bid="([^"]*)"', rf'id="{name}--\1"', body)
        body = re.sub(r'src="(?:\.\./)*', 'src="/', body)
        body = re.sub(r'<img class="only-dark"[^>]*>', "", body)
        body = re.sub(r"<details(?! open)", "<details open", body)
        body = body.replace('loading="lazy"', "")
        kind = "chapter" if name.startswith("chapters/") else "page"
        parts.append(
            f'<div class="page {page_name(name)}" id="{name}--">'
            f'<article class="{kind}">{body}</article></div>'
        )
    return "\n".join(parts)


def page_name(name: str) -> str:
    """Return a name for the paper of one page, as CSS wants it."""
    return "p-" + re.sub(r"\W", "-", name)


def title(site: Path, name: str) -> str:
    """Return the title of a page."""
    text = (site / f"{name}.html").read_text(encoding="utf8")
    words = re.search(r"<h1>(.*?)<a class=\"headerlink\"", text, re.S)[1]
    return re.sub(r"<[^>]+>", "", words)


def contents(site: Path, tree: dict, numbers: dict[str, int]) -> str:
    """Return the table of contents, with page numbers where they are known."""
    rows = []
    for part in tree["parts"]:
        rows.append(f'<p class="part">{escape(part["caption"])}</p>')
        for chapter in part["chapters"]:
            name = chapter["file"]
            number = numbers.get(name, "")
            link = f'<a href="#{name}--">{title(site, name)}</a>'
            rows.append(f"<p>{link}<span>{number}</span></p>")
    return f'<div class="toc"><h2>Contents</h2>{"".join(rows)}</div>'


def whole(site: Path, tree: dict, names: list[str], numbers: dict[str, int]) -> str:
    """Return the book as one page."""
    landing = (site / f"{tree['root']}.html").read_text(encoding="utf8")
    head = re.search(r"<h1>(.*?)<a", landing, re.S)[1]
    promise = re.search(r"</h1>\s*(<p>.*?</p>)", landing, re.S)[1]
    picture = re.search(r'<div class="misread".*?</div>', landing, re.S)[0]
    foot = re.search(r'<footer class="foot">(.*?)</footer>', landing, re.S)[1]
    foot = re.sub(r"<a [^>]*>(.*?)</a>", r"\1", foot)
    picture = picture.replace('src="_static', 'src="/_static')
    heads = "\n".join(
        f"@page {page_name(n)} {{ @top-left {{ content: {quoted(title(site, n))}; "
        'font: 9pt "Book Sans"; color: #444; } } '
        f".{page_name(n)} {{ page: {page_name(n)}; }}"
        for n in names
    )
    cover = f'<div class="cover"><h1>{head}</h1>{promise}{picture}{foot}</div>'
    return (
        '<!DOCTYPE html><html lang="en" data-theme="light"><head><meta charset="utf-8">'
        f"<title>{head}</title>"
        '<link rel="stylesheet" href="/_static/book.css">'
        f"<style>{SHEET}{heads}</style></head><body>{cover}"
        f"{contents(site, tree, numbers)}{joined(site, names)}</body></html>"
    )


def quoted(text: str) -> str:
    """Return ``text`` as a CSS string."""
    return '"' + text.replace("\\", "").replace('"', "'") + '"'


def printed(browser: Browser, address: str, site: Path, text: str) -> bytes:
    """Return ``text``, a page of the site, as PDF."""
    path = site / "whole-book.html"
    path.write_text(text, encoding="utf8")
    try:
        page = browser.new_page()
        page.set_default_timeout(300_000)
        page.goto(f"{address}/{path.name}", wait_until="load")
        page.evaluate("document.fonts.ready")
        made = page.pdf(
            prefer_css_page_size=True, outline=True, tagged=True, print_background=True
        )
        page.close()
    finally:
        path.unlink()
    return made


def first_pages(pdf: bytes, names: list[str]) -> dict[str, int]:
    """Return on which page each part of the book begins, counted from 1."""
    found = {}
    with pikepdf.open(io.BytesIO(pdf)) as book:
        at = {page.objgen: number for number, page in enumerate(book.pages, 1)}
        for key, place in book.Root.Dests.items():
            name = key.lstrip("/").removesuffix("--")
            if name in names:
                found[name] = at[place[0].objgen]
    return found


def main() -> None:
    """Write the PDF and say how large it is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--site", type=Path, default=ROOT / "_build" / "html")
    parser.add_argument("--pages", default="", help="only names that contain this")
    parser.add_argument("--to", type=Path, default=ROOT / "_build" / "book.pdf")
    options = parser.parse_args()
    site = options.site.resolve()
    tree = yaml.safe_load((ROOT / "_toc.yml").read_text())
    names = [n for n in pages(ROOT / "_toc.yml")[1:] if options.pages in n]
    with sync_playwright() as p, served(site) as address:
        browser = p.chromium.launch(executable_path=chromium(), args=FLAGS)
        numbers: dict[str, int] = {}
        for _ in range(2):
            text = whole(site, tree, names, numbers)
            pdf = printed(browser, address, site, text)
            numbers = first_pages(pdf, names)
        browser.close()
    with pikepdf.open(io.BytesIO(pdf)) as book:
        book.docinfo["/Title"] = "Adversarial Robustness from Both Sides"
        with book.open_outline() as outline:  # a title that wraps loses a space there
            outline.root[0].title = str(book.docinfo["/Title"])
        count = len(book.pages)
        book.save(  # the tags that a screen reader needs are small objects: packed
            options.to,
            object_stream_mode=pikepdf.ObjectStreamMode.generate,
            recompress_flate=True,
        )
    size = options.to.stat().st_size / 1e6
    print(f"{options.to}: {count} pages, {size:.1f} MB")
    print(numbers)


if __name__ == "__main__":
    main()
