"""What a reader may expect of every chapter, checked without running it."""

import base64
import copy
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
import yaml
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = sorted((ROOT / "chapters").glob("*.ipynb"))
TAGS = {
    "remove-cell",
    "nbval-skip",
    "hide-input",
    "hide-cell",
    "nbval-ignore-output",
    "raises-exception",
}
HEADINGS = ["In this chapter", "What goes wrong", "Summary", "Exercises"]
HEADINGS.append("Notes and sources")
TAIL = """torch.manual_seed(0)
plot.use_style()
dataset = data.default()
print(dataset)"""
each_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)


def _read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, 4)


def _code(nb: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in nb.cells if cell.cell_type == "code"]


def _text(nb: nbformat.NotebookNode) -> str:
    return "\n\n".join(c.source for c in nb.cells if c.cell_type == "markdown")


def test_every_chapter_is_in_the_toc():
    """A notebook that the site does not show would be tested and never read."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    listed = [c["file"] for part in toc["parts"] for c in part["chapters"]]
    assert [f"chapters/{p.stem}" for p in CHAPTERS] == [
        name for name in listed if name.startswith("chapters/")
    ]


@each_chapter
def test_clean_run(path):
    """Counts 1..n, no stderr, no stored error but the announced ones, no paths."""
    cells = _code(_read(path))
    run = [c for c in cells if "nbval-skip" not in c.metadata.get("tags", [])]
    first = run[0].execution_count
    assert [c.execution_count for c in run] == list(range(first, first + len(run)))
    for cell in cells:
        for output in cell.outputs:
            assert output.get("name") != "stderr", cell.id
            announced = "raises-exception" in cell.metadata.get("tags", [])
            assert output.output_type != "error" or announced, cell.id
            if output.output_type == "error":
                assert len(output.traceback) == 1, "frames hold machine paths"
        stored = json.dumps(list(cell.outputs), default=str)
        stored = re.sub(r"[A-Za-z0-9+/=\\n]{200,}", "", stored)
        assert not re.search(r"/(home|root|Users|tmp|work|content)/", stored), cell.id


@each_chapter
def test_metadata(path):
    """One kernel name, readable unique ids, allowed tags only, no time stamps."""
    nb = _read(path)
    assert set(nb.metadata) == {"kernelspec", "language_info"}
    assert nb.metadata.kernelspec.name == "python3"
    ids = [cell.id for cell in nb.cells]
    assert len(ids) == len(set(ids))
    assert not [i for i in ids if re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f-]+)?", i)]
    for cell in nb.cells:
        assert set(cell.metadata) <= {"tags", "mystnb"}, cell.id
        assert set(cell.metadata.get("tags", [])) <= TAGS, cell.id


@each_chapter
def test_first_cells(path):
    """The Colab cell comes first; after the imports all first cells are equal."""
    setup, first = _code(_read(path))[:2]
    assert setup.metadata.tags == ["remove-cell", "nbval-skip"]
    assert setup.outputs == []
    assert "hide-input" in first.metadata.tags
    imports, tail = first.source.split("\n\n")
    assert tail == TAIL
    assert len(imports.splitlines()) <= 12
    assert all(re.match(r"(import|from) ", line) for line in imports.splitlines())


def _parts(
    nb: nbformat.NotebookNode,
) -> tuple[nbformat.NotebookNode, nbformat.NotebookNode]:
    """The chapter without its exercises, and the exercises."""
    book, exercises = copy.deepcopy(nb), copy.deepcopy(nb)
    book.cells, exercises.cells = [], []
    inside = False
    for cell in nb.cells:
        if cell.cell_type == "markdown" and cell.source.startswith("## "):
            inside = cell.source.startswith("## Exercises")
        (exercises if inside else book).cells.append(cell)
    return book, exercises


def _counted(nb: nbformat.NotebookNode) -> list[list[str]]:
    """The lines of each code cell that a reader meets: those unfolded are."""
    cells = [c for c in _code(nb) if "remove-cell" not in c.metadata.get("tags", [])]
    shown = [c for c in cells if "hide-input" not in c.metadata.get("tags", [])]
    return [[i for i in c.source.splitlines() if i.strip()] for c in shown]


@each_chapter
def test_budgets(path):
    """Words, cells, lines, columns and bytes stay within what can be read at ease."""
    nb = _read(path)
    text, exercises = _parts(nb)
    assert 1500 <= len(_text(text).split()) <= 3500
    assert len(_text(exercises).split()) <= 1200
    assert len(_code(exercises)) <= 15
    cells = _counted(text)
    assert 15 <= len(_code(text)) - 2
    assert len(cells) <= 35
    assert 3 <= sorted(map(len, cells))[len(cells) // 2] <= 7
    lines = [[i for i in c.source.splitlines() if i.strip()] for c in _code(nb)]
    assert max(map(len, lines)) <= 25
    assert [line for cell in lines[1:] for line in cell if len(line) > 79] == []
    assert path.stat().st_size <= 600 * 1024


@each_chapter
def test_drawings_are_folded(path):
    """A reader meets the figure, not the twenty lines that draw it; nor imports."""
    for cell in _code(_read(path)):
        draws = cell.source.rstrip().endswith("plt.show()")
        folded = {"hide-input", "hide-cell"} & set(cell.metadata.get("tags", []))
        assert folded or not draws, cell.id


@each_chapter
def test_template(path):
    """Every chapter has the parts of the template, in order, and 5 to 10 exercises."""
    text = _text(_read(path))
    places = [text.find(f"\n## {heading}") for heading in HEADINGS]
    assert -1 not in places
    assert places == sorted(places)
    assert text.startswith("# ")
    exercises = re.findall(r"\*\*Exercise [\d.abc]+ \((\w+)\)", text)
    assert 5 <= len(exercises) <= 10
    assert {"recall", "pencil", "code", "open"} <= set(exercises)
    assert set(exercises) <= {"recall", "pencil", "code", "open", "predict"}
    folded = text.count("<details><summary>Solution</summary>")
    hidden = [
        c for c in _code(_read(path)) if "hide-cell" in c.metadata.get("tags", [])
    ]
    assert folded + len(hidden) >= len(exercises)


@each_chapter
def test_sentence_cell_sentence(path):
    """Each code cell stands between sentences: text before it and text after it."""
    cells = _read(path).cells
    for before, cell, after in zip(cells, cells[1:], cells[2:], strict=False):
        if cell.cell_type == "code" and cell.outputs:
            assert before.cell_type == "markdown" or cell.id == "first-cell", cell.id
            assert after.cell_type == "markdown", cell.id


@each_chapter
def test_figures(path):
    """Each figure has a name, a caption with its n, and an alternative text."""
    for cell in _code(_read(path)):
        if not any("image/png" in o.get("data", {}) for o in cell.outputs):
            continue
        meta = cell.metadata.mystnb
        assert meta.figure.name.startswith("fig-"), cell.id
        assert len(meta.figure.caption) > 40, cell.id
        assert len(meta.image.alt) > 40, cell.id
        said = re.search(r"\bn = |\d+|[Nn]o data|drawing", meta.figure.caption)
        assert said, f"{cell.id}: the caption says neither n nor that there is none"


def test_figure_names_are_unique():
    """They are labels of the whole book."""
    cells = [cell for path in CHAPTERS for cell in _code(_read(path))]
    figures = [c.metadata.get("mystnb", {}).get("figure", {}) for c in cells]
    names = [figure["name"] for figure in figures if figure]
    assert sorted(names) == sorted(set(names))


@each_chapter
def test_helpers_are_imported(path):
    """Chapters import advlib and never need what Colab lacks."""
    code = "\n".join(c.source for c in _code(_read(path)))
    assert re.search(r"^from advlib import", code, flags=re.M)
    assert not re.search(r"myst_nb|torchvision|import nbval|\.cuda\(", code)


def test_stamp_is_current(tmp_path):
    """Address and version stand where they must; a drift is found and mended."""
    import stamp

    assert stamp.stamp(check=True) == []
    for name in ["README.md", "_config.yml", "CITATION.cff", "pyproject.toml"]:
        shutil.copy(ROOT / name, tmp_path)
    for name in ["advlib", "chapters"]:
        (tmp_path / name).mkdir()
    shutil.copy(ROOT / "advlib/__init__.py", tmp_path / "advlib")
    shutil.copy(CHAPTERS[0], tmp_path / "chapters")
    config = (tmp_path / "_config.yml").read_text()
    old, _ = stamp.facts(ROOT)
    moved = config.replace(old, "https://github.com/someone/a-book")
    (tmp_path / "_config.yml").write_text(moved)
    expected = {"README.md", "_config.yml", "CITATION.cff", CHAPTERS[0].name}
    assert set(stamp.stamp(tmp_path, check=True)) == expected
    stamp.stamp(tmp_path)
    assert stamp.stamp(tmp_path, check=True) == []
    assert (
        "github.com/someone/a-book@v"
        in (tmp_path / "chapters" / CHAPTERS[0].name).read_text()
    )
    assert "ORG/REPO" not in (tmp_path / "README.md").read_text()


def _refreshed(nb: nbformat.NotebookNode, folder: Path) -> bytes:
    """What ``make refresh`` writes for ``nb``, which is left alone."""
    import refresh  # sets the environment of its kernels, so not before it is needed

    path = folder / "refreshed.ipynb"
    refresh.write(refresh.normalise(copy.deepcopy(nb)), path)
    return path.read_bytes()


@each_chapter
def test_refresh_leaves_a_committed_chapter_alone(path, tmp_path):
    """Byte for byte: what a rerun changes is then what its outputs changed."""
    assert _refreshed(_read(path), tmp_path) == path.read_bytes()


def _cells(*sources: str, name: str | None = None) -> nbformat.NotebookNode:
    """A notebook of code cells, with random ids or all with the id ``name``."""
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in sources]
    for cell in notebook.cells:
        cell.id = name or cell.id
    return notebook


def test_old_addresses_lead_on():
    """A chapter that moved is named with the chapter that it is now."""
    moved = yaml.safe_load((ROOT / "_config.yml").read_text())["sphinx"]["config"]
    assert "chapters/05a_integer_programs" in moved["moved_pages"]
    for old, new in moved["moved_pages"].items():
        assert (ROOT / f"{new}.ipynb").is_file()
        assert not (ROOT / f"{old}.ipynb").exists()


@pytest.mark.parametrize(
    ("notebook", "ids"),
    [
        (_cells(*["plt.show()"] * 4), ["plt-show", *3 * ["plt-show-add2b7"]]),
        (_cells(*["a = 1"] * 4, name="intro"), ["intro", "a-1", *2 * ["a-1-"]]),
        (_cells("deadbeef", "12345678"), ["cell-deadbeef", "cell-12345678"]),
        (_cells(*["0badcafe-1"] * 3), ["cell-0badcafe-1"] * 3),
        (_cells("", "", ""), ["cell"] * 3),
        (_cells("a", "b", name="not an id"), ["a", "b"]),
    ],
    ids=["equal", "pasted", "hex", "equal hex", "empty", "invalid"],
)
def test_refreshed_ids_are_unique_stable_and_readable(notebook, ids, tmp_path):
    """As expected, to a number at the end; a second refresh writes the same bytes."""
    first = _refreshed(notebook, tmp_path)
    assert first == _refreshed(notebook, tmp_path)
    again = nbformat.reads(first.decode(), 4)
    assert first == _refreshed(again, tmp_path)
    found = [cell.id for cell in again.cells]
    assert len(set(found)) == len(found)
    assert all(i.startswith(want) for i, want in zip(found, ids, strict=True))
    assert not [i for i in found if re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f-]+)?", i)]


def test_a_new_cell_takes_no_name_of_a_later_one(tmp_path):
    """A copy put before its original: the original keeps its id."""
    notebook = _cells("plt.show()", "plt.show()")
    notebook.cells[1].id = "plt-show"
    kept = nbformat.reads(_refreshed(notebook, tmp_path).decode(), 4)
    assert [cell.id for cell in kept.cells] == ["plt-show-add2b7", "plt-show"]


def test_refresh_drops_what_editors_leave(tmp_path):
    """Time stamps, view states, another kernel; tags and captions stay."""
    notebook = _cells("a = 1")
    mine = {"tags": ["hide-input"], "mystnb": {"figure": {"name": "fig-a"}}}
    notebook.cells[0].metadata.update(
        mine,
        ExecuteTime={"start_time": "2024-01-01T00:00:00", "end_time": "2024"},
        execution={"iopub.status.busy": "2024"},
        vscode={"languageId": "python"},
        jupyter={"source_hidden": True},
        collapsed=True,
        scrolled=True,
        trusted=True,
        id="AbC123",
        colab={"base_uri": "https://localhost:8080/"},
    )
    notebook.metadata.update(
        kernelspec={"name": "other", "display_name": "other"},
        widgets={"application/vnd.jupyter.widget-state+json": {}},
        colab={"provenance": []},
        toc={},
    )
    kept = json.loads(_refreshed(notebook, tmp_path))
    assert kept["cells"][0]["metadata"] == mine
    assert set(kept["metadata"]) == {"kernelspec", "language_info"}
    assert kept["metadata"]["kernelspec"]["name"] == "python3"


def test_figures_are_stored_small_and_whole(tmp_path):
    """At most 256 colours, white where nothing is drawn, the size on the page kept."""
    import refresh

    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 4), dtype=np.uint8)
    noise[:20, :, 3] = 0  # seen through: the page is white there
    noise[20:, :, 3] = 255
    raw = io.BytesIO()
    Image.fromarray(noise).save(raw, "PNG")
    notebook = _cells("plt.show()")
    size = {"image/png": {"width": 30, "height": 20, "other": 1}}
    data = {"image/png": base64.b64encode(raw.getvalue()).decode()}
    drawn = nbformat.v4.new_output("display_data", data=data, metadata=size)
    notebook.cells[0].outputs = [drawn]
    first = _refreshed(notebook, tmp_path)
    (kept,) = json.loads(first)["cells"][0]["outputs"]
    assert kept["metadata"] == {"image/png": {"width": 30, "height": 20}}
    stored = Image.open(io.BytesIO(base64.b64decode(kept["data"]["image/png"])))
    assert stored.size == (60, 40)
    assert len(stored.getcolors()) <= refresh.COLOURS
    pixels = np.asarray(stored.convert("RGB"), dtype=float)
    assert (pixels[:20] == 255).all()
    assert abs(pixels[20:] - noise[20:, :, :3]).mean() < 25  # 256 colours of noise
    assert first == _refreshed(nbformat.reads(first.decode(), 4), tmp_path)


def test_lint():
    """ruff (notebooks included) and codespell have nothing to say."""
    tools = [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["codespell"]]
    for tool in tools:
        command = [str(Path(sys.executable).parent / tool[0]), *tool[1:]]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
