"""The experiment of chapter 2b: its sweep, and what its record must satisfy."""

import linear_both_sides
import numpy as np
import pytest

from advlib import data, results


@pytest.fixture
def tiny() -> data.Dataset:
    """A part of the digits, on which the sweep takes seconds."""
    digits = data.load("digits")
    cut = [tuple(part[:200] for part in digits.train), digits.validation, digits.test]
    return data.Dataset("digits", *cut)


def test_a_stopped_run_goes_on_and_errors_are_ordered(tmp_path, tiny):
    """The second run reads the first one's masks; clean is never above robust."""
    options = {"seeds": 2, "radii": (0.12,), "short": 2, "long": {"standard": 3}}
    first = linear_both_sides.sweep(tmp_path, tiny, **options)
    kept = sorted(tmp_path.glob("*.json"))
    times = [path.stat().st_mtime_ns for path in kept]
    assert linear_both_sides.sweep(tmp_path, tiny, **options) == first
    assert [path.stat().st_mtime_ns for path in kept] == times
    assert len(kept) == 2 * (4 + 1 + 1)
    for arm in first["arms"]:
        assert all(c <= r for c, r in zip(arm["clean"], arm["robust"], strict=True))


def test_summary_counts_and_spreads():
    """Two seeds on four images, by hand."""
    counts, spread = linear_both_sides.summary([[1, 0, 1, 0], [1, 0, 0, 0]])
    assert counts == [2, 1]
    assert spread == pytest.approx(np.std([1, 0, 0.5, 0], ddof=1), abs=1e-4)


def test_the_record():
    """All ways with their seeds; pairs are the differences of the arms."""
    record = results.load("linear_both_sides")["data"]
    arms = {(a["way"], a["eps"], a["epochs"]): a for a in record["arms"]}
    assert len(arms) == 4 + 2 + 3
    for arm in arms.values():
        assert len(arm["clean"]) == linear_both_sides.SEEDS
        assert all(c <= r for c, r in zip(arm["clean"], arm["robust"], strict=True))
    for pair in record["pairs"]:
        sides = [arms[(*pair[k], pair["epochs"])] for k in ("first", "second")]
        for kind in ("clean", "robust"):
            gaps = np.subtract(sides[0][kind], sides[1][kind])
            assert gaps.tolist() == pair[kind]
