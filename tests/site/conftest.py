"""Which built site is tested: ``_build/html``, or the folder that ADVLIB_SITE names."""

import datetime
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import weigh
import yaml

DEFAULT = Path(__file__).resolve().parents[2] / "_build" / "html"
SITE = Path(os.environ.get("ADVLIB_SITE", DEFAULT)).resolve()
BOOK = SITE.parents[1]  # the folder with _config.yml and _toc.yml

TURNS = 7  # in a week every page has been in the sample


def _toc() -> list[str]:
    """Return the name of every page in the book's order, as ``chapters/01_x``."""
    toc = yaml.safe_load((BOOK / "_toc.yml").read_text())
    groups = [toc, *toc.get("parts", [])]
    pages = [c for group in groups for c in group.get("chapters", [])]
    files = [p["file"] for c in pages for p in (c, *c.get("sections", []))]
    return [toc["root"], *files]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for a ``name`` on every page, a ``notebook`` on those."""
    notebooks = [name for name in _toc() if (BOOK / f"{name}.ipynb").is_file()]
    for argument, values in (("name", _toc()), ("notebook", notebooks)):
        if argument in metafunc.fixturenames:
            metafunc.parametrize(argument, values)


@pytest.fixture(scope="session")
def book() -> Path:
    """Return the folder of the book's sources."""
    return BOOK


@pytest.fixture(scope="session")
def site() -> Path:
    """Return the folder of the built site, or skip."""
    if not (SITE / "index.html").is_file():
        pytest.skip(f"no site in {SITE}: run `make book` first")
    return SITE


@pytest.fixture(scope="session")
def order() -> list[str]:
    """Return the names of all pages, in the book's order."""
    return _toc()


@pytest.fixture(scope="session")
def base(site: Path) -> Iterator[str]:
    """Serve the site on this machine; yield its address."""
    with weigh.served(site) as address:
        yield address


@pytest.fixture
def sampled(name: str, order: list[str]) -> None:
    """Skip a page that is not looked at today: the first always is, others by turns."""
    today = datetime.date.today().toordinal()
    due = name == order[0] or (order.index(name) + today) % TURNS == 0
    if not due and not os.environ.get("ADVLIB_ALL_PAGES"):
        pytest.skip("not in today's sample: ADVLIB_ALL_PAGES=1 looks at all pages")
