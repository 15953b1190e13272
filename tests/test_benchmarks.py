"""The harness of the benchmarks on a tiny setting, without any peer."""

import dataclasses
import json
import statistics

import pytest
import torch

from advlib import bounds, data, results, zoo
from benchmarks import __main__ as command
from benchmarks import attack_rows, bound_rows, exact_rows, peers
from benchmarks.config import Config
from benchmarks.timing import Row, cpu_seconds, interleaved, ratio

DIGITS = data.load("digits")
COLUMNS = {"group", "setting", "measure", "value", "goal", "note", "verdict"}


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Ten digits, one small network, no peer installed."""

    def absent(name):
        raise ImportError(f"no module named {name}")

    monkeypatch.setattr(peers, "find", absent)
    monkeypatch.setitem(zoo.RECIPES, "small", zoo.Recipe("small", 1, min_steps=200))
    return Config(
        DIGITS,
        robust=(("small", 0.1),),
        plain=(("small", 0.3),),
        strong=("small",),
        strong_eps=0.1,
        images=10,
        bounds=(("small", 0.01, 10),),
        slopes=(("small", 0.01, 2),),
        exact=(("small", 0.05, 1, 1),),
        steps=3,
        batch=10,
        repeats=1,
        seeds=(0,),
        folder=tmp_path,
    )


@pytest.mark.parametrize(
    ("goal", "value", "verdict"),
    [
        ("", 7.0, ""),
        ("", None, ""),
        ("<= 1.05", 1.05, "met"),
        ("<= 1.05", 1.06, "MISSED"),
        (">= 1.5", 1.5, "met"),
        (">= 1.5", 1.4, "MISSED"),
        (">= 1.5", float("nan"), "MISSED"),
        ("<= 1.5", float("nan"), "MISSED"),
        (">= 1.5", None, "not measured"),
    ],
)
def test_verdict(goal, value, verdict):
    """Met at the bound itself, missed beyond it; NaN meets nothing."""
    assert Row("g", "s", "m", value, goal).verdict == verdict


def test_interleaved_runs_each_once_to_warm_up_and_then_in_rotating_rounds():
    """Three contenders, two rounds: the order moves by one."""
    log = []
    calls = {name: lambda name=name: log.append(name) for name in "abc"}
    times = interleaved(calls, 2)
    assert "".join(log) == "abc" + "abc" + "bca"
    assert {name: len(found) for name, found in times.items()} == dict.fromkeys(
        "abc", 2
    )
    assert all(t >= 0 for found in times.values() for t in found)


def test_ratio_is_of_medians():
    """One slow round changes nothing."""
    times = {"a": [3.0, 2.0, 90.0], "b": [1.0, 1.5, 1.0]}
    assert ratio(times, "a", "b") == statistics.median([2, 3, 90]) / 1.0


def test_cpu_seconds_counts_work():
    """Work takes longer than none; the value is handed on."""
    idle, value = cpu_seconds(lambda: 5)
    busy, _ = cpu_seconds(lambda: sum(range(2_000_000)))
    assert value == 5
    assert 0 <= idle < busy


def test_checkpoints_are_made_once(tiny):
    """The second call reads the file."""
    calls = []
    for _ in range(2):
        found = tiny.checkpoint("x", lambda: calls.append(1) or {"a": 1})
        assert found == {"a": 1}
    assert calls == [1]


def test_right_images_are_right(tiny):
    """Only images that the network classifies correctly, as many as asked for."""
    x, y = tiny.right("small", 7)
    assert len(y) == 7
    assert torch.equal(tiny.network("small")(x).argmax(1), y)
    assert not any(p.requires_grad for p in tiny.network("small").parameters())


def test_the_floor_is_forward_and_backward_only(tiny):
    """As many forward passes as steps."""
    model, (x, y) = tiny.network("small"), tiny.first(4)
    seen = []
    handle = model.register_forward_hook(lambda *a: seen.append(1))
    attack_rows.floor(model, x, y, 3)()
    handle.remove()
    assert len(seen) == 3


def test_the_spec_leaves_out_the_label(tiny):
    """Row order is that of the other classes: spec @ logits = margins."""
    model, (x, y) = tiny.network("small"), tiny.first(4)
    logits = model(x)
    spec = bound_rows.others(y, 10)
    found = (spec @ logits[..., None])[..., 0]
    exact = bounds.interval_margins(model, x, y, 0.0)
    for n in range(4):
        kept = [j for j in range(10) if j != y[n]]
        assert torch.allclose(found[n], exact[n, kept], atol=1e-5)


@pytest.mark.parametrize(
    "group", [attack_rows.pgd, bound_rows.compare, bound_rows.slopes]
)
def test_absent_peers_are_lines(tiny, group):
    """No crash: a row says why there is no number."""
    rows = group(tiny)
    absent = [row for row in rows if row.value is None]
    assert absent
    assert all("no module named" in row.note for row in absent)


def test_pgd_rows(tiny):
    """Our own rows are there, with a positive ratio to the floor."""
    rows = {r.measure: r for r in attack_rows.pgd(tiny) if r.value is not None}
    assert set(rows) == {"advlib / floor", "advlib, fooled images dropped / floor"}
    assert all(row.value > 0 for row in rows.values())


def test_strong_without_autoattack(tiny):
    """Ours is measured and kept; the table says what is missing."""
    rows = attack_rows.strong(tiny)
    assert [row.value is None for row in rows] == [True, False, False]
    found = json.loads((tiny.folder / "strong-small-search-0.json").read_text())
    assert 0 <= found["standing"] <= 10


def test_strong_beside_autoattack(tiny):
    """More images standing and the share of its time, against the goals."""
    folder = {"autoattack-small-0": (4, 10.0), "strong-small-search-0": (5, 2.0)}
    for key, (standing, seconds) in folder.items():
        tiny.checkpoint(
            key, lambda s=standing, t=seconds: {"standing": s, "seconds": t}
        )
    kept = dataclasses.replace(tiny, start_runs=False)
    rows = attack_rows.strong(kept)
    assert [row.value for row in rows] == [1, 0.2, None]
    assert [row.verdict for row in rows] == ["met", "met", ""]
    assert "not run yet" in rows[2].note


def test_every_network_is_attacked_with_every_seed(tiny):
    """Two networks, two seeds: eight runs, and the spread of each network."""
    plan = dataclasses.replace(
        tiny, strong=("small", "dnn_2"), seeds=(0, 1), start_runs=False
    )
    for name in plan.strong:
        for seed in plan.seeds:
            keys = [f"autoattack-{name}-{seed}", f"strong-{name}-search-{seed}"]
            for key in [*keys, f"strong-{name}-fast-{seed}"]:
                tiny.checkpoint(key, lambda s=seed: {"standing": 3 + s, "seconds": 1})
    rows = attack_rows.strong(plan)
    assert all(row.value is not None for row in rows)
    spreads = [row for row in rows if "spread" in row.measure]
    assert [(row.setting, row.value) for row in spreads] == [("small", 1), ("dnn_2", 1)]
    assert len(rows) == 2 * 2 * 4 + 2


def test_nothing_is_started_where_nothing_may_be(tiny):
    """A line says what was not run; no checkpoint is written for the group."""
    kept = dataclasses.replace(tiny, start_runs=False)
    found = command.measure(kept, "memory")
    (row,) = found["rows"]
    assert row["verdict"] == "not measured"
    assert not list(tiny.folder.glob("*.json"))


def test_exact_rows(tiny):
    """All methods answer, and none contradicts another."""
    rows = exact_rows.exact_answers(tiny)
    (row,) = [r for r in rows if "disagree" in r.measure]
    assert row.value == 0


def test_the_table_has_one_line_per_row(tiny):
    """And a dash where there is no number."""
    rows = [Row("g", "s", "m", 0.5, "<= 1").record(), Row("g", "s", "p", None).record()]
    lines = command.table(rows).splitlines()
    assert lines[2] == "| s | m | 0.5 | <= 1 | met |  |"
    assert lines[3] == "| s | p | - |  |  |  |"


def test_command(tiny, monkeypatch, capsys, tmp_path):
    """It prints each group, keeps the whole, resumes, and --fresh measures again."""
    calls = []

    def group(config):
        calls.append(1)
        return [Row("toy", "setting", "measure", len(calls), "<= 1")]

    monkeypatch.setattr(command, "GROUPS", {"toy": group})
    monkeypatch.setattr(command, "Config", lambda dataset, **options: tiny)
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(tiny.dataset.__class__, "__str__", lambda self: "ten digits")
    monkeypatch.setenv("ADVLIB_DATASET", "digits")
    threads = torch.get_num_threads()
    try:
        command.main([])
        command.main([])
        assert calls == [1]
        command.main(["--fresh", "toy"])
    finally:
        torch.set_num_threads(threads)
    out = capsys.readouterr().out
    assert "| setting | measure | 1 | <= 1 | met |  |" in out
    assert "| setting | measure | 2 | <= 1 | MISSED |  |" in out
    path = command.save(tiny, {"toy": command.measure(tiny, "toy")})
    record = results.load(path.stem)
    assert set(record["data"]["rows"][0]) == COLUMNS
    assert set(record["data"]["peers"].values()) == {"absent"}


def test_groups_that_were_not_measured_are_kept(tiny, monkeypatch, tmp_path):
    """What the record has of other groups is there as it was, with its seconds."""
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    assert command.stored() == {}
    rows = {name: [Row(name, "s", "m", 0.5, "").record()] for name in ("a", "b")}
    found = {name: {"rows": rows[name], "seconds": 7, "load": [0, 1]} for name in rows}
    found["b"] |= {"seconds": None, "load": None}  # not kept, so not made up
    path = command.save(tiny, found)
    assert command.stored() == found
    assert results.load(path.stem)["seconds"] == 7


def test_publish_replaces_the_last_run(tmp_path):
    """What stands before the heading stays; what follows is this table."""
    page = tmp_path / "README.md"
    page.write_text(f"how to run\n\n{command.LAST}old table\n")
    rows = [Row("g", "s", "m", 0.5, "<= 1").record()]
    for _ in range(2):
        command.publish({"toy": {"rows": rows, "seconds": 1}}, page)
    text = page.read_text()
    assert text == f"how to run\n\n{command.LAST}\n### toy\n\n{command.table(rows)}"


def test_readme_shows_the_kept_results():
    """Page and record were written by the same run."""
    path = results.RESULTS / "benchmarks.json"
    if not path.is_file():
        pytest.skip("no results are kept")
    text = command.README.read_text("utf-8").split(command.LAST)[1]
    rows = results.load("benchmarks")["data"]["rows"]
    assert text.count("\n| ") - text.count("| setting |") == len(rows)
    assert all(line in text for line in command.table(rows).splitlines()[2:])
