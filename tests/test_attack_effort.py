"""The experiment of chapter 4b: what an effort is, and what its record must satisfy."""

from itertools import pairwise

import attack_effort
import pytest

from advlib import data, evaluation, results, zoo

ARMS = (*attack_effort.PAIRED, *attack_effort.AFTER, *attack_effort.OTHERS)
N = 20


def test_the_effort_is_what_an_image_pays_that_is_never_fooled(tmp_path):
    """At radius 0 nothing is fooled: what is counted is the effort, for every arm."""
    dataset = data.load("digits")
    model, (x, y) = zoo.load("small", dataset), (part[:N] for part in dataset.test)
    right = N - evaluation.clean_error(model, x, y).wrong
    task = ("small", 0.0, (0,), ARMS)
    rows = attack_effort.sweep(tmp_path, dataset, N, (task,))
    assert sorted(row["arm"] for row in rows) == sorted(ARMS)
    for row in rows:
        begun = 480 if row["arm"] in attack_effort.AFTER else 0
        assert set(row["fooled"]) == {row["start"]} == {N - right}
        gradients = row["gradients_an_image"] * N / right
        effort = gradients + row["queries_an_image"] * N / right / 2
        if row["arm"] == "strong_search":
            assert gradients == 0
            # a quarter and a half of the images are rounded up
            assert row["effort"][-1] - begun <= effort <= 1.2 * 480
        else:
            assert gradients == pytest.approx(row["effort"][-1] - begun, abs=0.2)


def test_a_stopped_run_goes_on(tmp_path):
    """What is in the cache is not measured again, and what is not is as before."""
    dataset = data.load("digits")
    task = ("small", 0.05, (0,), ("strong", "strong_again", "fgsm"))
    first = attack_effort.sweep(tmp_path, dataset, N, (task,))
    for path in tmp_path.glob("*strong_again.json"):
        path.unlink()
    (kept,) = tmp_path.glob("*fgsm.json")
    kept.write_text(kept.read_text().replace('"n": 20', '"n": 7'))
    again = attack_effort.sweep(tmp_path, dataset, N, (task,))
    assert [row["n"] for row in again] == [7, N, N]
    assert again[2]["masks"] == first[2]["masks"]


def test_the_record():
    """All arms and seeds; counts never fall and are those of the masks."""
    stored = results.load("attack_effort")["data"]
    rows = {(r["network"], r["arm"], r["seed"]): r for r in stored["rows"]}
    wanted = {
        (name, arm, seed)
        for name, _, seeds, arms in attack_effort.TASKS
        for seed in seeds
        for arm in arms
    }
    assert set(rows) == wanted
    for (name, arm, seed), row in rows.items():
        assert row["n"] == stored["images"] == 1000
        assert all(a <= b for a, b in pairwise([row["start"], *row["fooled"]]))
        for effort, digits in row["masks"].items():
            mask = attack_effort.unpacked(digits, row["n"])
            assert int(mask.sum()) == row["fooled"][row["effort"].index(int(effort))]
        if arm in attack_effort.AFTER:
            before = rows[name, attack_effort.AFTER[arm], seed]
            start = attack_effort.unpacked(before["masks"]["480"], row["n"])
            end = attack_effort.unpacked(row["masks"]["960"], row["n"])
            assert not (start & ~end).any()
            assert row["start"] == before["fooled"][-1]
