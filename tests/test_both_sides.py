"""The experiment of chapter 7: its sweep, and what its record must satisfy."""

from itertools import pairwise

import both_sides
import numpy as np
import pytest

from advlib import results

ORDER = ["clean", "fgsm", "pgd", "strong", "exact", "open"]
ORDER += ["lp", "alpha", "crown", "interval"]
SMALL = {"networks": ["small"], "radii": [0.01, 0.05], "images": 20, "alone": 5}
SMALL |= {"limit": {"max_nodes": 2000}}


def mask(digits: str, n: int) -> np.ndarray:
    """The mask that was written as hexadecimal digits."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(digits), np.uint8))[:n].astype(
        bool
    )


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_two_workers_give_what_one_gives(tmp_path):
    """Masks and numbers of images are equal; only the seconds may differ."""
    kinds = [
        both_sides.sweep(tmp_path / str(jobs), jobs=jobs, dataset="digits", **SMALL)
        for jobs in (1, 2)
    ]
    for one, two in zip(*kinds, strict=True):
        for part in (one, two, one["alone"], two["alone"]):
            del part["seconds"], part["search"]["seconds"]
            part.pop("load", None)
            part.pop("cpu", None)
        assert one == two


def test_a_stopped_run_goes_on(tmp_path):
    """What is in the cache is not computed again."""
    options = {**SMALL, "radii": [0.02], "dataset": "digits"}
    first = both_sides.sweep(tmp_path, **options)
    (kept,) = tmp_path.glob("*.json")
    kept.write_text(kept.read_text().replace('"eps": 0.02', '"eps": 7'))
    assert both_sides.sweep(tmp_path, **options)[0]["eps"] == 7
    assert first[0]["eps"] == 0.02


def test_the_record():
    """All networks and radii; nested masks, counts that never fall; alone agrees."""
    data = results.load("both_sides")["data"]
    assert len(data["runs"]) == 3 * len(data["eps"]) + 3 * len(data["wide_eps"])
    for run in data["runs"]:
        wide = run["network"].startswith("mlp")
        assert run["n"] >= (100 if wide else 500)
        assert run["alone"]["n"] >= (25 if wide else 50)
        names = [m for m in ORDER if m != "lp" or not wide]
        assert list(run["errors"]) == names
        masks = [mask(run["errors"][m], run["n"]) for m in names]
        assert [int(m.sum()) for m in masks] == [run["counts"][m] for m in names]
        for low, high in pairwise(masks):
            assert not (low & ~high).any()
        alone = {m: mask(run["alone"]["errors"][m], run["alone"]["n"]) for m in names}
        attacks, above = ORDER[1:4], names[5:]
        for high in above:
            for low in [*attacks, "exact"]:
                assert not (alone[low] & ~alone[high]).any()


def test_what_the_search_spent():
    """One status for each image that reached it; a stopped one had its minute."""
    for run in results.load("both_sides")["data"]["runs"]:
        search, counts = run["search"], run["counts"]
        assert len(search["status"]) == run["images"]["exact"]
        assert search["status"].count("u") == counts["open"] - counts["exact"]
        assert search["status"].count("a") == counts["exact"] - counts["strong"]
        if run["network"].startswith("mlp"):
            stopped = zip(search["status"], search["seconds"], strict=True)
            assert all(spent >= 60 for status, spent in stopped if status == "u")
