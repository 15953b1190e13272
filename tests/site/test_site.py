"""The built site in Chromium: pages, light and dark, phone, tablet and desktop.

Skipped, with the reason, where no browser or no built site is found. ``make test``
looks at a sample of the pages, others each day; ``ADVLIB_ALL_PAGES=1`` at all of them.
"""

from pathlib import Path

import pytest
import weigh
from playwright.sync_api import Browser, BrowserContext, Page
from shots import ALL

WIDTHS = {"desktop": 1440, "tablet": 768, "phone": 390}
VARIANTS = [(mode, size) for mode in ("light", "dark") for size in WIDTHS]
AXE = Path(__file__).parent / "vendor" / "axe.min.js"
# What a reader can open is part of the page; what comes near is made ready then.
UNFOLD = """async () => {
  document.querySelectorAll('details').forEach(d => d.open = true);
  await document.fonts.ready;
  for (let y = 0; y < document.documentElement.scrollHeight; y += 800) {
    scrollTo(0, y);
    await new Promise(done => requestAnimationFrame(() => setTimeout(done)));
  }
  scrollTo(0, 0);
  await new Promise(done => setTimeout(done, 200));
}"""
WIDER = "Math.max(0, document.documentElement.scrollWidth - innerWidth)"
MATH = """() => [...document.querySelectorAll('.math, math')].filter(e => {
  const math = e.matches('math') ? e : e.querySelector('math');
  return !math || math.querySelector('merror, .temml-error')
    || /\\\\[a-z]/i.test(math.textContent) || !math.getClientRects().length;
}).map(e => e.outerHTML.slice(0, 200))"""
SQUEEZED = """() => [...document.querySelectorAll('article img')].filter(
  e => e.clientWidth).map(e => {
  const style = getComputedStyle(e);
  const inner = side => parseFloat(style['padding' + side]);
  const width = e.clientWidth - inner('Left') - inner('Right');
  const height = e.clientHeight - inner('Top') - inner('Bottom');
  const right = width * e.naturalHeight / e.naturalWidth;
  return [e.alt.slice(0, 60), width, right - height];
}).filter(([, width, off]) => width <= 0 || Math.abs(off) > 2)"""
# nothing is cut: what is wider than its box scrolls there, and shows that it does
CUT = """() => {
  const boxes = '.scroll, div.math, pre, .here, .contents, .finder, .card';
  const cut = [...document.querySelectorAll('article *')].filter(e => {
    const {right, width} = e.getBoundingClientRect();
    return width && right > innerWidth + 1 && !e.closest(boxes);
  });
  const mute = [...document.querySelectorAll('article :is(.scroll, div.math, pre)')]
    .filter(e => e.scrollWidth > e.clientWidth + 1 && !e.matches('.scrolls'));
  const code = innerWidth > 400 ? [] : [...document.querySelectorAll('article pre')]
    .filter(e => e.scrollWidth > e.clientWidth + 1);
  return [...cut, ...mute, ...code].map(e => e.outerHTML.slice(0, 160));
}"""
FOCUS = """() => {
  const stops = 'a[href], button, summary, input, [tabindex="0"]';
  return [...document.querySelectorAll(stops)].filter(e => {
    if (!e.checkVisibility()) return false;
    e.focus({focusVisible: true, preventScroll: true});
    const {outlineStyle, outlineWidth} = getComputedStyle(e);
    return document.activeElement === e
      && (outlineStyle === 'none' || parseFloat(outlineWidth) < 2);
  }).map(e => e.outerHTML.slice(0, 160));
}"""
RUN_AXE = """async () => {
  const {violations} = await axe.run(document, {resultTypes: ['violations']});
  return violations.flatMap(v => v.nodes.map(
    n => `${v.impact} ${v.id}: ${n.target}: ${n.any[0]?.message ?? v.help}`));
}"""
# what a reader asks for, and where the answer stands
ASKED = {
    "PGD": "chapters/04a_lower_bounds.html#pgd-many-steps-projected",
    "CROWN": "chapters/06a_upper_bounds.html#crown-two-lines-per-relu",
    "certificate": "chapters/07b_trust.html#a-certificate-and-its-check",
    "softplus": "chapters/11a_smooth_activations.html#nine-activations",
    "word2vec": "chapters/09b_words.html#from-scratch-the-four-tables",
    "branch and bound": "chapters/06c_branch_and_bound",
    "autoattack": "chapters/04b_stronger_attacks",
    "danskin": "chapters/01_introduction",
    "integer program": "chapters/05_integer_programs",
}


@pytest.fixture(scope="module")
def readers(browser: Browser) -> dict[tuple[str, str], BrowserContext]:
    """Return a reader for each variant, who has chosen the colour mode before."""
    contexts = {}
    for mode, size in VARIANTS:
        view = {"width": WIDTHS[size], "height": 900}
        context = browser.new_context(viewport=view, color_scheme=mode)
        context.add_init_script(f"localStorage.mode = '{mode}'")
        contexts[mode, size] = context
    return contexts


def visit(context: BrowserContext, url: str) -> tuple[Page, list[str]]:
    """Open ``url`` and all its folds; return the page and its complaints."""
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


@pytest.mark.usefixtures("sampled")
@pytest.mark.parametrize(("mode", "size"), VARIANTS)
def test_page(readers: dict, base: str, name: str, mode: str, size: str) -> None:
    """No complaint, no sideways scroll, nothing cut, all mathematics drawn, no picture
    squeezed, a visible focus at every stop; axe finds nothing at any level."""
    page, said = visit(readers[mode, size], f"{base}/{name}.html")
    assert page.evaluate("document.documentElement.dataset.theme") == mode
    found = {
        "px wider than the window": page.evaluate(WIDER),
        "math": page.evaluate(MATH),
        "squeezed": page.evaluate(SQUEEZED),
        "cut": page.evaluate(CUT),
        "no focus ring": page.evaluate(FOCUS),
        "said": said,
    }
    page.add_style_tag(content=ALL)  # axe looks at what is far away, too
    page.evaluate(AXE.read_text(encoding="utf8"))
    found["axe"] = page.evaluate(RUN_AXE)
    page.close()
    assert {what: value for what, value in found.items() if value} == {}


@pytest.mark.usefixtures("sampled")
def test_first_visit(browser: Browser, base: str, name: str) -> None:
    """A reader with an empty localStorage gets no error, and the system's mode."""
    with browser.new_context(color_scheme="dark") as context:
        page, said = visit(context, f"{base}/{name}.html")
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"
        assert said == []


def test_opens_as_a_file(browser: Browser, site: Path) -> None:
    """Without a server: index.html leads to the first page, search works, all quiet."""
    with browser.new_context() as context:
        page = context.new_page()
        page.goto((site / "index.html").as_uri())
        page.wait_for_url("**/intro.html")  # the page that index.html leads to
        page.close()
        page, said = visit(context, (site / "intro.html").as_uri())
        page.keyboard.press("Control+k")
        page.keyboard.type("CROWN")
        page.wait_for_selector(".found a")
        assert said == []


def test_modes_turn(browser: Browser, base: str) -> None:
    """The button goes round: as the system is, the other mode, the system's, ..."""
    with browser.new_context(color_scheme="light") as context:
        page = context.new_page()
        page.goto(f"{base}/intro.html")
        seen = []
        for _ in range(4):
            seen.append(page.evaluate("document.documentElement.dataset.theme"))
            page.click(".mode")
        assert seen == ["light", "dark", "light", "light"]
        page.evaluate("localStorage.mode = 'dark'")
        page.reload()
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_works_without_javascript(browser: Browser, base: str) -> None:
    """Text, formulas, pictures and links are there for a reader without scripts."""
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(f"{base}/chapters/06a_upper_bounds.html")
        assert page.locator("math").count() > 50
        assert page.locator("nav.turn a").count() == 2
        assert page.locator("figure img").first.is_visible()


@pytest.mark.parametrize("query", ASKED)
def test_search(browser: Browser, base: str, query: str) -> None:
    """As one types, the right section is first; no raw TeX; Enter goes there."""
    with browser.new_context(viewport={"width": 390, "height": 844}) as context:
        page, said = visit(context, f"{base}/notation.html")
        page.keyboard.press("Control+k")
        page.keyboard.type(query)
        page.wait_for_selector(".found a")
        first = page.locator(".found a").first
        assert ASKED[query] in first.get_attribute("href")
        assert "\\" not in page.locator(".found").inner_text()
        page.keyboard.press("Enter")
        page.wait_for_url(f"**/{ASKED[query]}*")
        assert said == []


def test_search_page(browser: Browser, base: str) -> None:
    """The page for searching answers the question in its address."""
    with browser.new_context() as context:
        page, said = visit(context, f"{base}/search.html?q=Danskin")
        page.wait_for_selector(".found a")
        assert "01_introduction" in page.locator(".found a").first.get_attribute("href")
        page.fill("input[type=search]", "zzzzzz")
        page.wait_for_function("document.querySelector('.said').textContent != ''")
        page.wait_for_function("!document.querySelector('.found a')")
        assert said == []


def test_cards(browser: Browser, base: str) -> None:
    """A citation, pointed at, shows its entry; the key Escape hides it."""
    with browser.new_context() as context:
        page, said = visit(context, f"{base}/chapters/08a_adversarial_training.html")
        link = page.locator("a.cite").first
        link.scroll_into_view_if_needed()
        link.hover()
        page.wait_for_selector(".card")
        assert len(page.locator(".card").inner_text()) > 40
        page.keyboard.press("Escape")
        assert page.locator(".card").count() == 0
        assert said == []


BUDGETS = {"intro": 120, "chapters/": 450, "": 220}  # kB of a first visit, compressed


@pytest.mark.usefixtures("sampled")
def test_weight(browser: Browser, site: Path, name: str) -> None:
    """A first visit, scrolled to the end, transfers no more than the budget."""
    budget = next(kb for part, kb in BUDGETS.items() if name.startswith(part))
    with weigh.served(site) as address:
        cost = weigh.measure(browser, f"{address}/{name}.html", slow=False)
    assert 20 < cost["kB"] <= budget
