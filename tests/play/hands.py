"""What hands and eyes do in a page with a figure."""

import gzip

from playwright.sync_api import Page

SMALL = """() => [...document.querySelectorAll('.sides :is(button, input)')]
.filter(e => {
  const {width, height} = e.getBoundingClientRect();
  return e.checkVisibility() && Math.min(width, height) < 24;
}).map(e => e.outerHTML)"""
WIDER = """() => [...document.querySelectorAll('.sides, .sides *')].filter(e =>
  e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML)"""


def stage(page: Page, script: str):
    """Return what ``script`` says of the figure's stage, ``s``."""
    return page.evaluate(f"() => {{ const s = document.querySelector('.sides').stage;"
                         f" return {script}; }}")  # fmt: skip


def verdict(page: Page) -> str:
    """Return the verdict when everything has been computed."""
    quiet = "document.querySelector('.sides').dataset.busy === 'false'"
    page.wait_for_timeout(60)  # a change is drawn in the next frame
    page.wait_for_function(quiet, timeout=20_000)
    return page.locator(".sides .verdict b").inner_text()


def packed(texts: list[str]) -> float:
    """Return the kB of ``texts``, each compressed as a server does."""
    return sum(len(gzip.compress(text.encode(), 6)) for text in texts) / 1000
