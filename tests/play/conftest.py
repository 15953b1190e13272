"""The engine in a page, and pages with a figure each, for those who play."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import check_play
import pytest
from playwright.sync_api import Browser, Page

from advlib import data, play

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "_ext"), str(Path(__file__).parent)]

import play as places  # noqa: E402

PAGE = """<!DOCTYPE html><html lang="en" data-theme="{mode}"><head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>play</title><link rel="stylesheet" href="book.css"></head><body><main><article>
<h1>play</h1><div data-play="{name}"></div></article></main>
<script src="start.js?v=1"></script>
<script>Sides.start(document.querySelector("[data-play]"));</script></body></html>"""
READY = "document.querySelector('.sides')?.dataset.ready !== undefined"


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with what the build writes, and a page for each figure."""
    where = tmp_path_factory.mktemp("play")
    for name, text in places.files().items():
        path = where / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf8")
    static = ROOT / "_ext" / "book_theme" / "static"
    shutil.copy(static / "book.css", where)
    shutil.copytree(static / "fonts", where / "fonts")
    for name in (*play.names(), "playground"):
        for mode in ("light", "dark"):
            page = PAGE.format(name=name, mode=mode)
            (where / f"{name}-{mode}.html").write_text(page, encoding="utf8")
    return where


@pytest.fixture
def opened(browser: Browser, folder: Path) -> Iterator:
    """Return a function that opens a figure; afterwards nothing has complained."""
    said, contexts = [], []

    def open_page(name: str, *, width=1440, mode="light", hash="", **more) -> Page:
        view = {"width": width, "height": 900}
        context = browser.new_context(viewport=view, **more)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda m: m.type == "error" and said.append(m.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("requestfailed", lambda request: said.append(request.url))
        home = ("file://", "blob:", "data:")
        page.on("request", lambda r: r.url.startswith(home) or said.append(r.url))
        page.goto((folder / f"{name}-{mode}.html").as_uri() + hash)
        page.wait_for_function(READY)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []


@pytest.fixture(scope="session")
def engine(browser: Browser) -> Iterator[Page]:
    """Return a page with engine and networks."""
    with check_play.engine(browser) as page:
        yield page


@pytest.fixture(scope="session")
def mnist() -> None:
    """Skip where there is no MNIST."""
    if data.default().name != "mnist":
        pytest.skip("the pages show MNIST")
