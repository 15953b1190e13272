"""The built site in Chromium: every page, light and dark, desktop and phone.

Skipped, with the reason, where no browser or no built site is found.
"""

import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

BROWSERS = ("chromium", "google-chrome", "chromium-browser")
FLAGS = ["--no-sandbox", "--disable-background-networking", "--disable-sync"]
FLAGS += ["--disable-component-update", "--no-first-run"]
FLAGS += ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]  # stay local
WIDTHS = {"desktop": 1440, "phone": 390}
VARIANTS = [(mode, size) for mode in ("light", "dark") for size in WIDTHS]
AXE = Path(__file__).parent / "vendor" / "axe.min.js"
# One rule on two buttons of the theme's templates, which stand on every page: the rest
# of axe still holds for them, and this rule for everything else.
EXCEPTIONS = {
    (".search-button-field", "label-content-name-mismatch"): "shows 'Search Ctrl+K', "
    "is named 'Search'",
    (".theme-switch-button", "label-content-name-mismatch"): "the theme names it "
    "'Color mode', its icon 'Light', 'Dark' or 'System Settings'",
}
# What a reader can open is part of the page. After 300 ms without a change the theme
# gives boxes that scroll their tab stops.
UNFOLD = """async () => {
  document.querySelectorAll('details').forEach(d => d.open = true);
  document.querySelectorAll('.toggle-hidden').forEach(
    e => e.classList.remove('toggle-hidden'));
  await window.MathJax?.startup?.promise;
  await document.fonts.ready;
  await new Promise(done => setTimeout(done, 400));
}"""
WIDER = "Math.max(0, document.documentElement.scrollWidth - innerWidth)"
MATH = """() => {
  const all = [...document.querySelectorAll('article .math')];
  const drawn = 'mjx-container';
  const red = 'mjx-merror, [data-mjx-error], mjx-container [style*="color: red"]';
  return [...all.filter(e => !e.querySelector(drawn)),
          ...document.querySelectorAll(red)].map(e => e.outerHTML.slice(0, 200));
}"""
SQUEEZED = """() => [...document.querySelectorAll('div.cell_output img')].map(e => {
  const style = getComputedStyle(e);
  const inner = side => parseFloat(style['padding' + side]);
  const width = e.clientWidth - inner('Left') - inner('Right');
  const height = e.clientHeight - inner('Top') - inner('Bottom');
  const right = width * e.naturalHeight / e.naturalWidth;
  return [e.alt.slice(0, 60), width, right - height];
}).filter(([, width, off]) => width <= 0 || Math.abs(off) > 2)"""
RUN_AXE = """async exceptions => {
  const {violations} = await axe.run(document, {resultTypes: ['violations']});
  const excepted = (rule, node) => exceptions.some(
    ([selector, id]) => id === rule && document.querySelector(node.target[0])
      ?.matches(selector));
  return violations.filter(v => ['serious', 'critical'].includes(v.impact))
    .flatMap(v => v.nodes.filter(n => !excepted(v.id, n)).map(
      n => `${v.id}: ${n.target}: ${n.any[0]?.message ?? v.help}`));
}"""


class Quiet(SimpleHTTPRequestHandler):
    """A file server that keeps its log to itself."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def base(site: Path) -> Iterator[str]:
    """Serve the site on this machine; yield its address."""
    handler = partial(Quiet, directory=site)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser(site: Path) -> Iterator[Browser]:
    """Start one browser for all tests, or skip."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def readers(browser: Browser) -> dict[tuple[str, str], BrowserContext]:
    """Return a reader for each variant, who has chosen the colour mode before."""
    contexts = {}
    for mode, size in VARIANTS:
        view = {"width": WIDTHS[size], "height": 900}
        context = browser.new_context(viewport=view, color_scheme=mode)
        context.add_init_script(f"localStorage.mode = localStorage.theme = '{mode}'")
        contexts[mode, size] = context
    return contexts


def visit(context: BrowserContext, url: str) -> tuple[Page, list[str]]:
    """Open ``url``, wait for the mathematics; return the page and its complaints."""
    page, said = context.new_page(), []
    home = ("http://127.0.0.1", "file://", "data:", "blob:")
    notes = {
        "console": lambda m: m.type == "error" and f"console error: {m.text}",
        "pageerror": lambda error: f"page error: {error}",
        "requestfailed": lambda r: f"request failed: {r.url}",
        "request": lambda r: not r.url.startswith(home) and f"other host: {r.url}",
    }
    for event, note in notes.items():
        page.on(event, lambda e, note=note: note(e) and said.append(note(e)))
    page.goto(url)
    page.evaluate(UNFOLD)
    return page, said


@pytest.mark.parametrize(("mode", "size"), VARIANTS)
def test_page(readers: dict, base: str, name: str, mode: str, size: str) -> None:
    """No complaint, no sideways scroll, all mathematics drawn, no picture squeezed, axe
    finds nothing."""
    page, said = visit(readers[mode, size], f"{base}/{name}.html")
    assert page.evaluate("document.documentElement.dataset.theme") == mode
    found = {
        "said": said,
        "px wider than the window": page.evaluate(WIDER),
        "math": page.evaluate(MATH),
        "squeezed": page.evaluate(SQUEEZED),
    }
    page.evaluate(AXE.read_text(encoding="utf8"))
    found["axe"] = page.evaluate(RUN_AXE, [list(pair) for pair in EXCEPTIONS])
    page.close()
    assert {what: value for what, value in found.items() if value} == {}


def test_first_visit(browser: Browser, base: str, name: str) -> None:
    """A reader with an empty localStorage gets no error, and the system's mode."""
    with browser.new_context(color_scheme="dark") as context:
        page, said = visit(context, f"{base}/{name}.html")
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"
        assert said == []


def test_opens_as_a_file(browser: Browser, site: Path) -> None:
    """Without a server: index.html leads to the first page, and nothing breaks."""
    with browser.new_context() as context:
        page, errors = context.new_page(), []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto((site / "index.html").as_uri())
        page.wait_for_selector("article h1")  # on the page that index.html leads to
        page.wait_for_load_state("load")
        assert errors == []
