"""With an address in the configuration, every page leads to it; without, none does."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PAGES = ["intro", "chapters/01_introduction", "notation"]
MADE_UP = "somebody/some-book"
BUILD = """
import sys
from jupyter_book.sphinx import build_sphinx
source, out, config, doctrees, *files = sys.argv[1:]
said = build_sphinx(source, out, path_config=config, noconfig=True, quiet=True,
                    confoverrides={"latex_individualpages": False},
                    doctreedir=doctrees, filenames=files, force_all=False)
sys.exit(0 if said == 0 else repr(said))
"""


@pytest.fixture(scope="module")
def stamped(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write three pages anew, with a made-up address; return their folder."""
    doctrees = site.parent / ".doctrees"
    if site.parent.parent != ROOT or not doctrees.is_dir():
        pytest.skip("the site was not built here")
    folder = tmp_path_factory.mktemp("stamped")
    shutil.copytree(doctrees, folder / "doctrees")
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    owner, name = MADE_UP.split("/")
    config["repository"]["url"] = f"https://github.com/{MADE_UP}"
    config["html"]["baseurl"] = f"https://{owner}.github.io/{name}/"
    places = config["sphinx"]["local_extensions"]
    config["sphinx"]["local_extensions"] = {k: str(ROOT / "_ext") for k in places}
    path = folder / "_config.yml"
    path.write_text(yaml.safe_dump(config))
    suffixes = [next(ROOT.glob(f"{page}.*")) for page in PAGES]
    folders = [folder / "html", path, folder / "doctrees", *suffixes]
    command = [sys.executable, "-c", BUILD, ROOT, *folders]  # its warnings are its own
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    return folder / "html"


def test_every_page_leads_to_the_address(stamped: Path) -> None:
    """Repository, mistakes, and on a chapter Colab; the address of the page itself."""
    owner, name = MADE_UP.split("/")
    for page in PAGES:
        text = (stamped / f"{page}.html").read_text(encoding="utf8")
        assert f'href="https://github.com/{MADE_UP}"' in text
        assert f'href="https://github.com/{MADE_UP}/issues/new?' in text
        assert f'<link rel="canonical" href="https://{owner}.github.io/{name}/' in text
        colab = f"https://colab.research.google.com/github/{MADE_UP}/blob/main/"
        if page != "notation":  # the landing page's button opens the first chapter
            assert f'href="{colab}chapters/01_introduction.ipynb"' in text
        assert not re.search(r"href=\"[^\"]*ORG", text)


def test_landing_has_three_buttons(stamped: Path, site: Path) -> None:
    """Start, Colab, map; without an address the second is not drawn."""
    button = re.compile(r'<a class="button [^>]*>([^<]*)</a>')
    text = (stamped / "intro.html").read_text(encoding="utf8")
    assert button.findall(text) == ["Start reading", "Open on Colab", "The map"]
    if "ORG/REPO" in (ROOT / "_config.yml").read_text():
        text = (site / "intro.html").read_text(encoding="utf8")
        assert button.findall(text) == ["Start reading", "The map"]
