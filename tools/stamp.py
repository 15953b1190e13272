"""Write the repository's address and the version where they must stand.

One source each: ``repository.url`` of _config.yml and ``version`` of pyproject.toml.
From them: the README's links, CITATION.cff, advlib's ``__version__``, the site's
address in _config.yml, and every chapter's install cell. ``--check`` writes nothing
and exits with 1 if a file would change.
"""

import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import nbformat
import yaml

from advlib.files import atomic_write

sys.path.insert(0, str(Path(__file__).parent))
import refresh

ROOT = Path(__file__).resolve().parent.parent
CELL = """\
# Setup: on Colab this installs the small helper package; elsewhere it does nothing.
import importlib.util, os, subprocess, sys
source = "advlib @ git+{url}@v{version}"
if "COLAB_RELEASE_TAG" in os.environ and importlib.util.find_spec("advlib") is None:
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps"]
    subprocess.check_call([*pip, os.environ.get("ADVLIB_PIP", source)])"""


def facts(root: Path) -> tuple[str, str]:
    """Return the repository's address and the version."""
    config = yaml.safe_load((root / "_config.yml").read_text())
    project = tomllib.loads((root / "pyproject.toml").read_text())
    return config["repository"]["url"].rstrip("/"), project["project"]["version"]


def _texts(url: str, version: str) -> dict[str, Callable[[str], str]]:
    """Return how each text file is rewritten."""
    slug = "/".join(url.split("/")[-2:])
    org, repo = slug.split("/")
    site = f"https://{org}.github.io/{repo}/"
    hosts = (
        r"(https://(?:github\.com|colab\.research\.google\.com/github)/)[\w.-]+/[\w.-]+"
    )

    def home(text: str) -> str:
        return re.sub(r"https://[\w-]+\.github\.io/[\w.-]+/", site, text)

    def links(text: str) -> str:
        text = re.sub(hosts + r"(?=[/)\s\"']|$)", rf"\g<1>{slug}", text, flags=re.M)
        return home(text)

    return {
        "README.md": links,
        "_config.yml": home,
        "CITATION.cff": lambda t: re.sub(
            r"(?m)^version: .*$", f"version: {version}", links(t)
        ),
        "advlib/__init__.py": lambda t: re.sub(
            r'__version__ = ".*"', f'__version__ = "{version}"', t
        ),
    }


def stamp(root: Path = ROOT, *, check: bool = False) -> list[str]:
    """Rewrite the files under ``root``; return those that differed."""
    url, version = facts(root)
    changed = []
    for name, rewrite in _texts(url, version).items():
        old = (root / name).read_text(encoding="utf8")
        if rewrite(old) != old:
            changed.append(name)
            if not check:
                atomic_write(root / name, rewrite(old).encode())
    cell = CELL.format(url=url, version=version)
    for path in sorted((root / "chapters").glob("*.ipynb")):
        nb = nbformat.read(path, 4)
        setup = next(c for c in nb.cells if c.cell_type == "code")
        if setup.source != cell:
            changed.append(path.name)
            setup.source = cell
            if not check:
                refresh.write(nb, path)
    return changed


if __name__ == "__main__":
    found = stamp(check="--check" in sys.argv)
    print("\n".join(found) or "nothing to change")
    sys.exit(bool(found) and "--check" in sys.argv)
