"""Re-run chapters in a clean kernel, normalise them, and write them back.

The kernel gets the environment that the tests use. A chapter that fails is not
written. Figures are stored with a palette of at most 256 colours, and say where in
them pictures stand (``where_pictures.py``), which the site's dark version leaves alone.
"""

import argparse
import base64
import hashlib
import io
import itertools
import json
import os
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from advlib import data
from advlib.files import atomic_write

os.environ.update(OMP_NUM_THREADS="1", PYTHONHASHSEED="0", ADVLIB_PLAY="static")
os.environ.pop("ADVLIB_IMAGENET_FOLDER", None)
if "ADVLIB_DATA" in os.environ:
    os.environ["ADVLIB_DATA"] = os.path.abspath(os.environ["ADVLIB_DATA"])

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
RANDOM_ID = re.compile(r"^[0-9a-f]{8}(-[0-9a-f-]+)?$")
VALID_ID = re.compile(r"^[A-Za-z0-9_-]{1,64}$")
COLOURS = 256
PICTURES = "Pictures"  # the text chunk that where_pictures.py writes
KEPT = ("tags", "mystnb")  # all else in a cell's metadata is an editor's: time, view


def _new_id(source: str, taken: set[str]) -> str:
    """Name a cell after its first text; cells of the same text are numbered."""
    words = re.findall(r"[a-z0-9]+", source.lower())[:4] or ["cell"]
    base = "-".join(words)[:40]
    if RANDOM_ID.match(base):  # a text such as "deadbeef" would be renamed again
        base = f"cell-{base}"
    longer = f"{base}-{hashlib.sha256(source.encode()).hexdigest()[:6]}"
    names = (f"{longer}-{number}" for number in itertools.count(2))
    return next(n for n in itertools.chain([base, longer], names) if n not in taken)


def _name_cells(cells: list[nbformat.NotebookNode]) -> None:
    """Keep the ids that a person chose, each where it occurs first; name the rest.

    The names that are kept come first: a new cell never takes that of a later one.
    """
    kept, new = set(), []
    for cell in cells:
        current = cell.get("id", "")
        chosen = VALID_ID.match(current) and not RANDOM_ID.match(current)
        if chosen and current not in kept:
            kept.add(current)
        else:
            new.append(cell)
    for cell in new:
        cell.id = _new_id(cell.source, kept)
        kept.add(cell.id)


def palette(png: bytes) -> bytes:
    """Return the picture ``png`` on white, with at most ``COLOURS`` colours.

    A picture that has so few already, and no transparency, comes back as it is.
    """
    picture = Image.open(io.BytesIO(png))
    if picture.mode == "P" and "transparency" not in picture.info:
        return png
    page = Image.new("RGBA", picture.size, "white")
    page.alpha_composite(picture.convert("RGBA"))
    few = page.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    stored, note = io.BytesIO(), PngInfo()
    if PICTURES in picture.info:
        note.add_text(PICTURES, picture.info[PICTURES])
    few.save(stored, "PNG", optimize=True, pnginfo=note)
    return stored.getvalue()


def _store_figure(output: nbformat.NotebookNode) -> None:
    """Give a figure its palette; of the metadata only its size on the page stays."""
    size = output.get("metadata", {}).get("image/png", {})
    output.get("metadata", {}).clear()
    if "image/png" in output.get("data", {}):
        stored = palette(base64.b64decode(output.data["image/png"]))
        output.data["image/png"] = base64.b64encode(stored).decode()
        if size:
            output.metadata["image/png"] = {k: size[k] for k in ("width", "height")}


def normalise(nb: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Stable ids, one kernel name, no time stamps, no widget state, no paths."""
    nb.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    nb.nbformat_minor = 5
    _name_cells(nb.cells)
    for cell in nb.cells:
        cell.metadata = {k: v for k, v in cell.metadata.items() if k in KEPT}
        for output in cell.get("outputs", []):
            _store_figure(output)
            if output.output_type == "error":  # the frames hold paths of this machine
                output.traceback = [f"{output.ename}: {output.evalue}"]
    return nb


def write(nb: nbformat.NotebookNode, path: Path) -> None:
    """Write the same bytes for the same content."""
    nbformat.validate(nb)
    text = json.dumps(nb, indent=1, ensure_ascii=False, sort_keys=True)
    atomic_write(path, f"{text}\n".encode())


def main(arguments: list[str]) -> None:
    """Refresh each notebook named in ``arguments``."""
    parser = argparse.ArgumentParser(prog="tools/refresh.py", description=__doc__)
    parser.add_argument("notebook", nargs="*", type=Path)
    notebooks = parser.parse_args(arguments).notebook
    if not notebooks:
        sys.exit("which chapter? make refresh CH=02")
    found = data.default()
    if found.name != "mnist":
        sys.exit(f"the committed outputs are MNIST's, and here is {found}")
    for path in notebooks:
        nb = nbformat.read(path, 4)
        began = time.perf_counter()
        where = {"metadata": {"path": str(path.parent)}}
        client = NotebookClient(
            nb,
            timeout=600,
            kernel_name="python3",
            resources=where,
            coalesce_streams=True,  # else the pieces differ with the machine's load
        )
        with tempfile.TemporaryDirectory() as folder:
            startup = Path(folder) / "profile_default" / "startup"
            startup.mkdir(parents=True)
            shutil.copy(Path(__file__).with_name("where_pictures.py"), folder)
            # as a module, so that no name of it stands among the notebook's own
            load = "import sys; sys.path.insert(0, {0!r}); import where_pictures; "
            load += "sys.path.remove({0!r}); del sys\n"
            (startup / "load.py").write_text(load.format(folder))
            os.environ["IPYTHONDIR"] = folder
            client.execute()
        shown = [o for c in nb.cells for o in c.get("outputs", []) if "ename" in o]
        meant = sum("raises-exception" in c.metadata.get("tags", []) for c in nb.cells)
        if len(shown) > meant:
            said = "; ".join(output.evalue for output in shown)
            sys.exit(f"{path}: {len(shown)} errors, {meant} are meant: {said}")
        write(normalise(nb), path)
        print(f"{path}: {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
