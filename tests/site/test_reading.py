"""What a reader meets beside the text: measure, taps, paper, cards, lost pages."""

import re
from pathlib import Path
from statistics import median

import pytest
from PIL import Image
from playwright.sync_api import Browser
from shots import ALL

PHONE = {"width": 390, "height": 844}
# characters in each full line of each paragraph that is text alone
LINES = """() => {
  const counts = [], range = document.createRange();
  const aside = 'li, figcaption, table, .box, dd, .foot, .buttons';
  for (const p of document.querySelectorAll('article p')) {
    if (p.closest(aside) || p.querySelector('math, img, code')) continue;
    const walker = document.createTreeWalker(p, NodeFilter.SHOW_TEXT), lines = {};
    for (let node; (node = walker.nextNode());)
      for (let i = 0; i < node.length; i++) {
        range.setStart(node, i);
        range.setEnd(node, i + 1);
        const line = Math.round(range.getBoundingClientRect().bottom / 8);
        lines[line] = (lines[line] || 0) + 1;
      }
    counts.push(...Object.values(lines).slice(0, -1));
  }
  return counts;
}"""
# links within the text are exempt (WCAG 2.5.8)
SMALL = """() => [...document.querySelectorAll('a, button, summary, input')]
  .filter(e => e.checkVisibility() && getComputedStyle(e).display !== 'inline')
  .filter(e => {
    const {width, height} = e.getBoundingClientRect();
    return width && (width < 24 || height < 24);
  }).map(e => e.outerHTML.slice(0, 120))"""
PAPER = """() => {
  const right = document.querySelector('article').getBoundingClientRect().right;
  return [...document.querySelectorAll('article *:not(section)')].filter(e => {
    const box = e.getBoundingClientRect();
    return box.width && !e.closest('math') && box.right > right + 1;
  }).map(e => e.outerHTML.slice(0, 120));
}"""
HIDDEN = """[...document.querySelectorAll('article details:not(.hint) > :not(summary)')]
  .filter(e => !e.checkVisibility({contentVisibilityAuto: true})).length"""
READ = ["chapters/06a_upper_bounds", "chapters/08a_adversarial_training"]


@pytest.mark.parametrize("long", READ)
@pytest.mark.parametrize("width", [1440, 768])
def test_measure(browser: Browser, base: str, long: str, width: int) -> None:
    """A line of text has 60 to 70 characters."""
    with browser.new_context(viewport={"width": width, "height": 900}) as context:
        page = context.new_page()
        page.goto(f"{base}/{long}.html")
        page.add_style_tag(content=ALL)
        counts = page.evaluate(LINES)
    assert len(counts) > 20
    assert 60 <= median(counts) <= 70


@pytest.mark.parametrize("short", ["intro", "references", "genindex", *READ])
def test_taps(browser: Browser, base: str, short: str) -> None:
    """On a phone, what is not a link within text is at least 24 px wide and high."""
    with browser.new_context(viewport=PHONE, has_touch=True) as context:
        page = context.new_page()
        page.goto(f"{base}/{short}.html")
        assert page.evaluate(SMALL) == []


def test_one_tap_to_the_first_chapter(browser: Browser, base: str) -> None:
    """On a phone a button above the fold of the landing page opens Chapter 1."""
    with browser.new_context(viewport=PHONE, has_touch=True) as context:
        page = context.new_page()
        page.goto(f"{base}/")
        start = page.locator(".buttons a").first
        box = start.bounding_box()
        assert box["y"] + box["height"] < PHONE["height"]
        start.tap()
        page.wait_for_url("**/chapters/01_introduction.html")
        assert page.locator("h1").inner_text().startswith("1.")


def test_a_lost_page_leads_home(browser: Browser, base: str, site: Path) -> None:
    """404.html says so, offers the search, and every link of it lives."""
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{base}/404.html")
        assert page.locator("h1").count() == 1
        assert page.locator("input[type=search], [data-search]").count() >= 1
        links = page.evaluate("[...document.links].map(a => a.href)")
    inside = {
        link.removeprefix(f"{base}/").split("#")[0] or "index.html"
        for link in links
        if link.startswith(base)
    }
    assert len(inside) > 20
    assert [link for link in inside if not (site / link).is_file()] == []


def test_index_is_filled(site: Path) -> None:
    """The index has the glossary's terms and the library's names, in letters."""
    text = (site / "genindex.html").read_text(encoding="utf8")
    entries = re.findall(r'<a href="([^"]+#[^"]+)"', text)
    assert len(entries) > 250
    for what in ("threat model", "certificate", "CROWN", "pgd_linf (attacks)"):
        assert what in text, what


@pytest.mark.usefixtures("sampled")
def test_print(browser: Browser, base: str, name: str) -> None:
    """On A4 nothing is wider than the text, all solutions are open, no bar is left."""
    with browser.new_context(viewport={"width": 628, "height": 960}) as context:
        page = context.new_page()
        page.goto(f"{base}/{name}.html")
        page.emulate_media(media="print")
        page.add_style_tag(content=ALL)
        assert page.evaluate(PAPER) == []
        assert not page.locator(".bar").is_visible()
        assert page.evaluate(HIDDEN) == 0


def test_social_card(site: Path, notebook: str) -> None:
    """Each chapter names a card of 1200 x 630 pixels that is there and not empty."""
    head = (site / f"{notebook}.html").read_text(encoding="utf8").split("</head>")[0]
    said = dict(
        re.findall(r'<meta (?:property|name)="([^"]+)" content="([^"]*)"', head)
    )
    assert said["twitter:card"] == "summary_large_image"
    card = site / "_static" / said["og:image"].split("/_static/")[1]
    picture = Image.open(card)
    assert picture.size == (1200, 630)
    assert len(picture.convert("RGB").getcolors(10**6)) > 8
    assert card.stat().st_size < 150_000
