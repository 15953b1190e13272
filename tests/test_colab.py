"""As on Colab: a fresh environment, the notebook alone in an empty folder, the wheel.

Colab has torch and the rest installed, and not this package; the chapter's hidden first
cell installs it. Here the other packages come from the environment of the tests, by a
path file, which brings no editable install with it. The first chapter runs on MNIST
every day, a third of the others by turns, on the digits (quick);
``ADVLIB_ALL_CHAPTERS=1`` runs them all, as the weekly workflow does.
"""

import datetime
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = sorted((ROOT / "chapters").glob("*.ipynb"))
TURNS = 3
RUN = """
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], 4)
last = nbformat.v4.new_code_cell("import advlib; print(advlib.__file__)")
notebook.cells.append(last)
NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
print(notebook.cells[-1].outputs[0].text)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Build the wheel from this tree."""
    out = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps"]
    subprocess.run([*pip, "--no-build-isolation", "-w", out, ROOT], check=True)
    return next(out.glob("advlib-*.whl"))


@pytest.fixture(scope="module")
def colab(tmp_path_factory) -> Path:
    """Make an environment with all packages but ours; return its folder."""
    place = tmp_path_factory.mktemp("colab") / "env"
    subprocess.run([sys.executable, "-m", "venv", place], check=True)
    base = next(p for p in sys.path if p.endswith("site-packages"))
    site = next(place.glob("lib/python*/site-packages"))
    (site / "_base.pth").write_text(base + "\n")
    return place


def _installed(colab: Path) -> set[str]:
    site = next(colab.glob("lib/python*/site-packages"))
    return {p.name for p in site.glob("*.dist-info")}


def test_wheel_holds_what_chapters_need(wheel):
    """On Colab only the wheel travels: weights, checksums and results are inside."""
    inside = set(zipfile.ZipFile(wheel).namelist())
    needed = [*(ROOT / "advlib").rglob("*.py")]
    needed += [
        p for kind in ("weights", "results") for p in ROOT.glob(f"advlib/{kind}/*")
    ]
    assert {str(p.relative_to(ROOT)) for p in needed} <= inside


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda p: p.stem)
def test_chapter(chapter, wheel, colab, tmp_path):
    """The notebook alone installs advlib, nothing else, and runs to its end."""
    turn = CHAPTERS.index(chapter) + datetime.date.today().toordinal()
    due = chapter == CHAPTERS[0] or turn % TURNS == 0
    if not due and not os.environ.get("ADVLIB_ALL_CHAPTERS"):
        pytest.skip("not today's turn: ADVLIB_ALL_CHAPTERS=1 runs all chapters")
    (tmp_path / chapter.name).write_bytes(chapter.read_bytes())
    site = next(colab.glob("lib/python*/site-packages"))
    python = colab / "bin" / "python"
    uninstall = [python, "-m", "pip", "uninstall", "-qy", "advlib"]
    subprocess.run(uninstall, check=True, capture_output=True)
    before = _installed(colab)
    drop = ("PYTHONPATH", "VIRTUAL_ENV", "MPLBACKEND")
    env = {k: v for k, v in os.environ.items() if k not in drop}
    env |= {"COLAB_RELEASE_TAG": "test", "ADVLIB_PIP": str(wheel)}
    if not chapter.stem.startswith("01"):  # the first on MNIST is enough; quick
        env["ADVLIB_DATASET"] = "digits"
    done = subprocess.run(
        [python, "-c", RUN, chapter.name],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert Path(done.stdout.split()[-1]).is_relative_to(site)
    assert {name.split("-")[0] for name in _installed(colab) - before} == {"advlib"}
