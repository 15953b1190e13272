"""The engine in a page, for the figures that the reader plays with."""

from collections.abc import Iterator

import check_play
import pytest
from playwright.sync_api import Browser, Page

from advlib import data


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
