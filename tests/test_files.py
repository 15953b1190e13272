"""Files are there whole or not at all, and only one function writes them."""

import ast
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load
from torch import nn

import advlib
from advlib import files

# what puts bytes into a file, by the last part of its name
WRITERS = {"write_text", "write_bytes", "save_file", "dump", "savez", "savefig"}
NOT_YET = set()  # modules that still write their own file in place
MODULES = sorted(Path(advlib.__file__).parent.rglob("*.py"))


def test_new_and_replaced(tmp_path):
    """The content, the path as it was given, and no other file."""
    path = tmp_path / "a.json"
    for content in (b"one", b"the second is longer", b""):
        assert files.atomic_write(path, content) == path
        assert path.read_bytes() == content
    assert files.atomic_write(str(path), b"by name") == path
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
@pytest.mark.parametrize("old", [b"old", None])
def test_an_error_leaves_the_old_file(tmp_path, monkeypatch, call, error, old):
    """Whatever goes wrong before the last step; no draft stays."""
    path = tmp_path / "a.json"
    if old is not None:
        path.write_bytes(old)

    def fail(*arguments):
        raise error

    monkeypatch.setattr(files.os, call, fail)
    with pytest.raises(type(error)):
        files.atomic_write(path, b"new")
    kept = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert kept == ({} if old is None else {"a.json": old})


def test_a_killed_process_leaves_the_old_file(tmp_path):
    """SIGKILL when half of the bytes are on the disk."""
    path = tmp_path / "a.json"
    path.write_bytes(b"old")
    program = (
        "import os, signal\nfrom advlib import files\n"
        "files.os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"files.atomic_write({str(path)!r}, bytes(10**6))\n"
    )
    done = subprocess.run([sys.executable, "-c", program])
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    files.atomic_write(path, b"new")  # a draft that was left is in nobody's way
    assert path.read_bytes() == b"new"


def test_links_and_permissions_are_kept(tmp_path):
    """The file behind a link is replaced, not the link; its mode stays."""
    path, link = tmp_path / "a.json", tmp_path / "link.json"
    path.write_bytes(b"old")
    path.chmod(0o640)
    link.symlink_to(path)
    files.atomic_write(link, b"new")
    assert link.is_symlink()
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o640
    mask = os.umask(0o022)
    try:
        files.atomic_write(tmp_path / "b.json", b"as any new file")
    finally:
        os.umask(mask)
    assert (tmp_path / "b.json").stat().st_mode & 0o777 == 0o644


def test_no_folder(tmp_path):
    """Is an error, as for any file; none is made."""
    with pytest.raises(FileNotFoundError):
        files.atomic_write(tmp_path / "no" / "a.json", b"")
    assert list(tmp_path.iterdir()) == []


def test_tied_and_strided_tensors():
    """Each under its name, equal; safetensors itself refuses both."""
    layer = nn.Linear(3, 3)
    model = nn.Sequential(layer, nn.ReLU(), layer)
    model.register_buffer("view", torch.arange(6.0).view(2, 3).T)
    model.register_buffer("spread", torch.ones(1).expand(4))
    found = load(files.tensor_bytes(model.state_dict(), {"a": "b"}))
    assert found.keys() == model.state_dict().keys()
    assert all(torch.equal(found[k], v) for k, v in model.state_dict().items())


def test_nothing_else_in_advlib_writes_a_file():
    """A file written in place is lost if the process dies: all go through one door."""
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call) or path == Path(files.__file__):
                continue
            name = ast.unparse(node.func).split(".")[-1]
            if path.stem not in NOT_YET:
                assert name not in WRITERS, f"{path.name}:{node.lineno}"
            modes = [a for a in node.args if isinstance(a, ast.Constant)]
            writes = any(str(a.value) in ("w", "wb", "a", "x") for a in modes)
            assert name != "open" or not writes, f"{path.name}:{node.lineno}"
