"""Records of long experiments: written whole, read only if whole."""

import json
import re

import numpy as np
import pytest

from advlib import results

ABSOLUTE = re.compile(r"""["'\s(=:]/[a-z]+/""")  # a path of one machine
FACTS = {
    "command": "python -m benchmarks",
    "seeds": [0, 1],
    "dataset": "mnist: 1000 test images",
    "seconds": 12.34,
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder of results that is yet to be made."""
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    return tmp_path / "results"


@pytest.fixture
def saved(folder):
    """The file of one record."""
    return results.save("gap", {"eps": [0.1, 0.2], "error": [3, 4]}, **FACTS)


def test_what_is_saved_is_loaded(saved, folder):
    """Data and provenance; versions are those of this process, without a build tag."""
    assert saved == folder / "gap.json"
    record = results.load("gap")
    assert record["data"] == {"eps": [0.1, 0.2], "error": [3, 4]}
    assert record["seconds"] == 12.3
    assert {k: record[k] for k in ("command", "seeds", "dataset")} == {
        k: FACTS[k] for k in ("command", "seeds", "dataset")
    }
    assert {"python", "torch", "numpy"} <= set(record["versions"])
    assert "+" not in record["versions"]["torch"]


def test_tuples_come_back_as_lists_and_absent_packages_are_left_out(folder):
    """The digest is of what JSON holds; a version is given only for what is there."""
    results.save("t", [(1, 2), "a"], **FACTS, packages=("numpy", "no-such-package"))
    record = results.load("t")
    assert record["data"] == [[1, 2], "a"]
    assert set(record["versions"]) == {"python", "numpy"}


def test_innermost_lists_take_one_line(folder):
    """Brackets and line breaks inside strings stay as they are."""
    data = {"rows": [[1, 2], {"a": 3, "b": "x] [y\n  z {"}], "empty": []}
    path = results.save("t", data, **FACTS)
    assert results.load("t")["data"] == data
    assert "  [ 1, 2 ],\n" in path.read_text()


def test_saving_again_replaces(saved):
    """One file for each experiment: the last run."""
    results.save("gap", [1], **FACTS)
    assert results.load("gap")["data"] == [1]


def test_missing(saved):
    """FileNotFoundError names what there is."""
    with pytest.raises(FileNotFoundError, match=r"no results 'speed'.*\['gap'\]"):
        results.load("speed")


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}", '{"data": 1}'])
def test_no_record(saved, content):
    """Truncated JSON, other JSON, a record without a digest."""
    saved.write_text(content)
    with pytest.raises(ValueError, match=r"gap\.json is truncated or no record"):
        results.load("gap")


@pytest.mark.parametrize("key", results.KEYS)
@pytest.mark.parametrize("change", ["removed", "wrong"])
def test_entries_are_checked(saved, key, change):
    """Each must be there and of its type, else the error names it."""
    record = json.loads(saved.read_text())
    record.pop(key)
    if change == "wrong":
        record[key] = None
    saved.write_text(json.dumps(record))
    with pytest.raises(ValueError, match=rf"lacks or adds entries.*'{key}'"):
        results.load("gap")


def test_an_added_entry_is_refused(saved):
    """A record has these entries and no others."""
    record = json.loads(saved.read_text())
    saved.write_text(json.dumps(record | {"note": "x"}))
    with pytest.raises(ValueError, match="lacks or adds entries"):
        results.load("gap")


def test_one_digit_changed_by_hand_is_noticed(saved):
    """The error says how to remake the file."""
    saved.write_text(saved.read_text().replace("0.2", "0.3"))
    with pytest.raises(ValueError, match=r"altered; remake it: python -m benchmarks"):
        results.load("gap")


@pytest.mark.parametrize("name", ["", "../x", "a/b", "a b", "a.json"])
def test_names_are_plain(folder, name):
    """A name never leaves the folder."""
    for call in (lambda: results.load(name), lambda: results.save(name, [], **FACTS)):
        with pytest.raises(ValueError, match="letters, digits"):
            call()
    assert not folder.exists()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_and_infinity_are_refused(folder, bad):
    """JSON has no word for them; nothing is written."""
    with pytest.raises(ValueError, match="JSON"):
        results.save("gap", [bad], **FACTS)
    assert not folder.exists()


def test_what_json_cannot_hold(folder):
    """TypeError, and no half-written file."""
    with pytest.raises(TypeError, match="serializable"):
        results.save("gap", [object()], **FACTS)
    assert not folder.exists()


def test_every_committed_record_loads():
    """Whole, altered by nobody, and free of a machine's paths."""
    for path in results.RESULTS.glob("*.json"):
        record = json.dumps(results.load(path.stem))
        assert not ABSOLUTE.findall(record), path.stem


@pytest.mark.parametrize("text", ["python /tmp/a.py", "--cache=/home/me", "/mnt/x"])
def test_absolute_paths_are_seen(text):
    """In a command as in an option; a path inside the project is none."""
    assert ABSOLUTE.search(json.dumps(text))
    assert not ABSOLUTE.search(json.dumps("python tools/experiments/words.py 8/255"))


def test_weights_and_records_stay_small():
    """Together they travel with every install: at most 40 MB."""
    folders = results.RESULTS, results.RESULTS.parent / "weights"
    sizes = [path.stat().st_size for folder in folders for path in folder.iterdir()]
    assert sum(sizes) <= 40_000_000


@pytest.mark.parametrize("kind", results.PACKED)
@pytest.mark.parametrize("shape", [(), (0,), (5,), (3, 4), (2, 3, 4)])
def test_packed_arrays_come_back(kind, shape):
    """Bit for bit, of every shape; the text is one that JSON holds as it is."""
    drawn = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    array = np.asarray(drawn > 127 if kind == "bool" else drawn.view(kind))
    text = results.pack(array)
    assert json.loads(json.dumps(text)) == text
    again = results.unpack(text)
    assert again.dtype == array.dtype
    assert again.shape == array.shape
    assert (again == array).all()
    again[...] = 1  # the reader may write into it


def test_a_sparse_mask_packs_small():
    """Three errors of ten thousand images are no ten thousand letters."""
    mask = np.zeros(10_000, dtype=bool)
    mask[[3, 500, 9000]] = True
    assert len(results.pack(mask)) < 120


@pytest.mark.parametrize("kind", ["float32", "int64", "<U3"])
def test_only_small_kinds_are_packed(kind):
    """Neither numbers with a point nor what a list would hold better."""
    with pytest.raises(ValueError, match="pack takes bool, int8, uint8"):
        results.pack(np.zeros(3, dtype=kind))


@pytest.mark.parametrize(
    "text",
    ["", "bool 3", "bool 3 !!", "bool 3 AAAA", "float32 1 eJxjAAAAAQAB", "a b c"],
)
def test_what_is_no_packed_array(text):
    """One error for all of it."""
    with pytest.raises(ValueError, match="no packed array"):
        results.unpack(text)


def test_a_packed_array_of_the_wrong_size():
    """Bytes that do not fill the shape are refused."""
    kind, _, content = results.pack(np.zeros(4, dtype=np.int8)).split(" ")
    with pytest.raises(ValueError, match="no packed array"):
        results.unpack(f"{kind} 5 {content}")
