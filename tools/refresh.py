"""Re-run chapters in a clean kernel, normalise them, and write them back.

The kernel gets the environment that the tests use. A chapter that fails is not
written.
"""

import hashlib
import json
import os
import re
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from advlib import data

os.environ.update(OMP_NUM_THREADS="1", PYTHONHASHSEED="0")
os.environ.pop("ADVLIB_IMAGENET", None)
if "ADVLIB_DATA" in os.environ:
    os.environ["ADVLIB_DATA"] = os.path.abspath(os.environ["ADVLIB_DATA"])

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
RANDOM_ID = re.compile(r"^[0-9a-f]{8}(-[0-9a-f-]+)?$")


def _stable_id(cell: nbformat.NotebookNode, taken: set[str]) -> str:
    """Keep an id that a person chose; name a new cell after its first text."""
    current = cell.get("id", "")
    if current and current not in taken and not RANDOM_ID.match(current):
        return current
    words = re.findall(r"[a-z0-9]+", cell.source.lower())[:4] or ["cell"]
    base = "-".join(words)[:40]
    if base in taken:
        base += "-" + hashlib.sha256(cell.source.encode()).hexdigest()[:6]
    return base


def normalise(nb: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Stable ids, one kernel name, no time stamps, no widget state, no paths."""
    nb.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    nb.nbformat_minor = 5
    taken: set[str] = set()
    for cell in nb.cells:
        cell.id = _stable_id(cell, taken)
        taken.add(cell.id)
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            output.get("metadata", {}).clear()
            if output.output_type == "error":  # the frames hold paths of this machine
                output.traceback = [f"{output.ename}: {output.evalue}"]
    return nb


def write(nb: nbformat.NotebookNode, path: Path) -> None:
    """Write the same bytes for the same content."""
    nbformat.validate(nb)
    text = json.dumps(nb, indent=1, ensure_ascii=False, sort_keys=True)
    path.write_text(text + "\n", encoding="utf8")


def main(arguments: list[str]) -> None:
    """Refresh each notebook named in ``arguments``."""
    if not arguments:
        sys.exit("which chapter? make refresh CH=02")
    found = data.default()
    if found.name != "mnist":
        sys.exit(f"the committed outputs are MNIST's, and here is {found}")
    for path in map(Path, arguments):
        nb = nbformat.read(path, 4)
        began = time.perf_counter()
        where = {"metadata": {"path": str(path.parent)}}
        client = NotebookClient(nb, timeout=600, kernel_name="python3", resources=where)
        client.execute()
        write(normalise(nb), path)
        print(f"{path}: {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
