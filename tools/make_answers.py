"""All exercises with their solutions as one booklet, for those who teach.

``python tools/make_answers.py`` (``make answers``) takes the boxes of the exercises out
of the built site, chapter by chapter, solutions open, and writes one HTML file that
needs no other, ``_build/answers.html``; Chromium prints it to ``_build/answers.pdf``.
"""

import argparse
import base64
import io
import mimetypes
import re
from html import escape
from pathlib import Path

import pikepdf
from make_pdf import SHEET, printed, quoted, title
from playwright.sync_api import sync_playwright
from shots import FLAGS, chromium
from weigh import pages, served

from advlib.exercises import catalogue

ROOT = Path(__file__).resolve().parent.parent
BOOK = "Adversarial Robustness from Both Sides"
BOX = re.compile(r'<section class="box exercise"')
SECTION = re.compile(r"<(/?)section\b[^>]*>")
STYLE = """
body { max-width: 46rem; margin: 0 auto; padding: 1rem; }
.sum { color: var(--quiet); } .chapter { margin-top: 3rem; }
.sums { width: 100%; }
.sums :is(th, td):not(:first-child) { text-align: right; }
@media print {
  body { max-width: none; padding: 0; } .chapter { break-before: page; }
  .box > .name, summary { break-after: avoid; }
}
"""


def boxes(text: str) -> list[str]:
    """Return the boxes of exercises of one page, in order; ValueError."""
    found = []
    for start in BOX.finditer(text):
        depth = 0
        for tag in SECTION.finditer(text, start.start()):
            depth += -1 if tag[1] else 1
            if depth == 0:
                found.append(text[start.start() : tag.end()])
                break
        else:
            raise ValueError("a box of an exercise does not end")
    return found


def inlined(path: Path) -> str:
    """Return the file ``path`` as an address that holds its bytes."""
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def alone(box: str, folder: Path) -> str:
    """Return a box that needs no other file, all folds open and no form in it.

    ``folder`` holds its page. Links that lead out of the booklet become plain words.
    """
    box = re.sub(r'<form class="question".*?</form>', "", box, flags=re.S)
    box = re.sub(r'<img class="only-dark"[^>]*>', "", box)
    box = re.sub(r'<a class="headerlink"[^>]*>.*?</a>', "", box)
    box = re.sub(r"<details(?! open)", "<details open", box)
    box = box.replace(' loading="lazy"', "")
    box = re.sub(r' id="(?!exercise-)[^"]*"', "", box)

    def link(match: re.Match[str]) -> str:
        place = re.search(r'href="[^"]*#(exercise-[^"]+)"', match[1])
        return f'<a href="#{place[1]}">{match[2]}</a>' if place else match[2]

    def source(match: re.Match[str]) -> str:
        return f'src="{inlined((folder / match[1]).resolve())}"'

    box = re.sub(r"<a\b([^>]*)>(.*?)</a>", link, box, flags=re.S)
    return re.sub(r'src="(?!data:)([^"]+)"', source, box)


def sheet(site: Path) -> str:
    """Return the style sheet of the book with its fonts inside."""
    static = site / "_static"

    def source(match: re.Match[str]) -> str:
        path = static / match[1].split("?")[0]
        return f'url("{inlined(path)}")'

    text = (static / "book.css").read_text(encoding="utf8")
    return re.sub(r"""url\(["']?(?!data:)([^)"']+)["']?\)""", source, text)


def hours(minutes: int) -> str:
    """Return a time as it is said: "1 h 05 min"."""
    whole, rest = divmod(minutes, 60)
    return f"{whole} h {rest:02d} min" if whole else f"{rest} min"


def booklet(site: Path, names: list[str]) -> str:
    """Return the booklet of the pages ``names`` as HTML; pages without exercises count
    not.

    Raises ``ValueError`` if a page does not have the exercises of the catalogue.
    """
    known = catalogue.load()
    rows, chapters, every = [], [], []
    for name in names:
        path = site / f"{name}.html"
        found = boxes(path.read_text(encoding="utf8"))
        numbers = [
            re.search(r'id="exercise-([^"]+)-(\d+)"', box).group(1, 2) for box in found
        ]
        if not numbers:
            continue
        asked = [".".join(number) for number in numbers]
        chapter = asked[0].split(".")[0]
        if asked != [e.number for e in known.values() if e.chapter == chapter]:
            raise ValueError(f"{name}: its exercises are not those of the catalogue")
        time = sum(known[number].minutes for number in asked)
        every += asked
        head = title(site, name)
        link = f'<a href="#chapter-{chapter}">{head}</a>'
        rows.append(
            f"<tr><td>{link}</td><td>{len(asked)}</td><td>{hours(time)}</td></tr>"
        )
        inside = "\n".join(alone(box, path.parent) for box in found)
        chapters.append(
            f'<section class="chapter" id="chapter-{chapter}"><h2>{head}</h2>'
            f'<p class="sum">{len(asked)} exercises, {hours(time)}.</p>'
            f"{inside}</section>"
        )
    if not every:
        raise ValueError("no page has exercises")
    total, top = hours(catalogue.minutes(every)), quoted(f"{BOOK}: answers")
    head = "<tr><th>Chapter</th><th>Exercises</th><th>Time</th></tr>"
    return (
        '<!DOCTYPE html><html lang="en" data-theme="light"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(BOOK)}: answers</title><style>{sheet(site)}{SHEET}"
        f'@page {{ @top-left {{ content: {top}; font: 9pt "Book Sans"; }} }}'
        f"{STYLE}</style></head><body><main><article><h1>{escape(BOOK)}: answers</h1>"
        f"<p>All {len(every)} exercises with their solutions: kind, difficulty (from "
        "one dot to three) and minutes for a student who has read the chapter. "
        f"Together {total}.</p>"
        f'<table class="sums"><thead>{head}</thead><tbody>{"".join(rows)}</tbody>'
        f"</table>{''.join(chapters)}</article></main></body></html>"
    )


def main() -> None:
    """Write the booklet and say how large it is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--site", type=Path, default=ROOT / "_build" / "html")
    parser.add_argument("--pages", default="", help="only names that contain this")
    parser.add_argument("--to", type=Path, default=ROOT / "_build" / "answers.html")
    options = parser.parse_args()
    site, target = options.site.resolve(), options.to
    names = [n for n in pages(ROOT / "_toc.yml") if options.pages in n]
    text = booklet(site, names)
    target.write_text(text, encoding="utf8")
    with sync_playwright() as p, served(site) as address:
        browser = p.chromium.launch(executable_path=chromium(), args=FLAGS)
        pdf = printed(browser, address, site, text)
        browser.close()
    with pikepdf.open(io.BytesIO(pdf)) as book:
        book.docinfo["/Title"] = f"{BOOK}: answers"
        count = len(book.pages)
        book.save(
            target.with_suffix(".pdf"),
            object_stream_mode=pikepdf.ObjectStreamMode.generate,
            recompress_flate=True,
        )
    size = target.stat().st_size / 1e6
    print(f"{target}: {size:.1f} MB; {target.with_suffix('.pdf').name}: {count} pages")


if __name__ == "__main__":
    main()
