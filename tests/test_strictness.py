"""The tests of the notebooks can fail: a wrong number is found, on MNIST alone."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = "from advlib import data\ndataset = data.default()\nprint(6 * 7)"


@pytest.fixture
def book(tmp_path) -> Path:
    """A book of one notebook, with the real conftest, whose output is wrong."""
    shutil.copy(ROOT / "conftest.py", tmp_path)
    stored = nbformat.v4.new_output("stream", name="stdout", text="41\n")
    cell = nbformat.v4.new_code_cell(SOURCE, execution_count=1, outputs=[stored])
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "wrong.ipynb")
    return tmp_path


def _nbval(book: Path, **extra: str) -> subprocess.CompletedProcess:
    drop = [k for k in os.environ if k.startswith(("ADVLIB", "PYTEST", "COV"))]
    env = {k: v for k, v in os.environ.items() if k not in drop} | extra
    command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "-q"]
    command += ["-p", "no:cacheprovider", "wrong.ipynb"]
    return subprocess.run(command, cwd=book, env=env, capture_output=True, text=True)


@pytest.mark.skipif(
    os.environ["ADVLIB_DATASET"] != "mnist", reason="MNIST is not to be had here"
)
def test_wrong_number_fails_on_mnist(book):
    """The committed 41 against the true 42 is an error where outputs are compared."""
    known = {k: os.environ[k] for k in ["ADVLIB_DATA"] if k in os.environ}
    done = _nbval(book, ADVLIB_DATASET="mnist", **known)
    assert done.returncode == 1, done.stdout
    assert "outputs: compared" in done.stdout or "mismatch" in done.stdout


def test_wrong_number_passes_on_digits(book):
    """On another data set the cells run, and outputs are not compared."""
    done = _nbval(book, ADVLIB_DATASET="digits")
    assert done.returncode == 0, done.stdout


def test_no_network_means_digits(book, tmp_path):
    """With no data and every download refused, the session settles on digits."""
    refused = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    done = _nbval(book, XDG_CACHE_HOME=str(tmp_path / "empty"), **refused)
    assert done.returncode == 0, done.stdout + done.stderr
    command = "from advlib import data; print(data.default())"
    drop = [k for k in os.environ if k.startswith("ADVLIB")]
    env = {k: v for k, v in os.environ.items() if k not in drop} | refused
    env["XDG_CACHE_HOME"] = str(tmp_path / "empty")
    said = subprocess.check_output([sys.executable, "-c", command], env=env, text=True)
    assert "digits" in said
    assert "MNIST is neither on disk nor downloadable" in said
