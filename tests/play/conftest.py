"""One browser for the figures that the reader plays with, and the engine in a page."""

import shutil
from collections.abc import Iterator

import check_play
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from advlib import data

BROWSERS = ("chromium", "google-chrome", "chromium-browser")
FLAGS = ["--no-sandbox", "--disable-background-networking", "--disable-sync"]
FLAGS += ["--disable-component-update", "--no-first-run"]
FLAGS += ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]  # stay local


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Start one browser for all tests, or skip."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


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
