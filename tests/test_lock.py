"""pyproject, requirements.lock, environment.yml and what is installed agree."""

import importlib.metadata as metadata
import re
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
LINES = (ROOT / "requirements.lock").read_text().split()
LOCK = {canonicalize_name(n): v for n, v in (line.split("==") for line in LINES)}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
NAMED = ["jupyter-book", "torch", "torchvision", "matplotlib", "nbval", "cvxpy"]


def _requirements() -> list[Requirement]:
    project = PROJECT["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    groups.append(PROJECT["build-system"]["requires"])
    return [Requirement(text) for group in groups for text in group]


def _closure() -> set[str]:
    """Return the names of all that pyproject needs, as installed here."""
    pending = [(r.name, r.extras) for r in _requirements()] + [("editables", set())]
    found: set[tuple[str, str]] = set()
    while pending:
        name, extras = pending.pop()
        for extra in {"", *extras}:
            key = (canonicalize_name(name), extra)
            if key in found:
                continue
            found.add(key)
            for text in metadata.requires(name) or []:
                need = Requirement(text)
                if need.marker is None or need.marker.evaluate({"extra": extra}):
                    pending.append((need.name, need.extras))
    return {name for name, _ in found}


def test_exact_and_portable():
    """No local version (torch==2.13.0+cpu is on no index) and no CUDA wheel."""
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in LINES)
    assert not [n for n in LOCK if n.startswith(("nvidia", "triton", "cuda"))]


def test_lock_satisfies_every_range():
    """Each requirement of pyproject allows the locked version."""
    for need in _requirements():
        assert LOCK[canonicalize_name(need.name)] in need.specifier, need


def test_lock_is_closed():
    """The lock holds what pyproject needs, directly or not, and nothing else."""
    needed = {n for n in _closure() if not n.startswith(("nvidia", "triton", "cuda"))}
    assert needed == set(LOCK)


def test_installed_is_the_lock():
    """What runs here is what the lock says, local versions aside."""
    wrong = {
        name: (version, metadata.version(name))
        for name, version in LOCK.items()
        if metadata.version(name).split("+")[0] != version
    }
    assert wrong == {}


def test_environment_yml():
    """Conda's file names the six packages at the lock's versions, then the lock."""
    parsed = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, pip = parsed["dependencies"]
    python = next(line for line in conda if line.startswith("python="))
    assert python.split("=")[1] in SpecifierSet(PROJECT["project"]["requires-python"])
    pins = [line for line in pip["pip"] if "==" in line]
    assert pins == [f"{name}=={LOCK[name]}" for name in NAMED]
    assert pip["pip"][len(pins) :] == ["-r requirements.lock", "-e ."]


def test_jupyter_book_1():
    """_config.yml and _toc.yml mean Jupyter Book 1; the newest release is another."""
    book = next(r for r in _requirements() if r.name == "jupyter-book")
    assert "2.0.0" not in book.specifier
    assert LOCK["jupyter-book"].startswith("1.")
