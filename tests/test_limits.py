"""Records of programs with a limit: one that was stopped got what its limit says."""

import pytest

from advlib import results

RECORDS = ["both_sides", "exact_error", "exact_scaling", "exact_targets"]
RECORDS += ["exact_tightness"]
CLOSE = 0.95  # of HiGHS's limit, which is the clock's: some of it may go to others
STOPPED = {"u", "time_limit", "unknown"}


def starved(part: dict) -> list[int]:
    """Which programs of a part were stopped with less than the limit.

    ``part`` has the ``limit``, {"max_nodes": n} or {"time_limit": CPU seconds}, and
    the ``status``, ``seconds`` and ``nodes`` of one program, or one entry for each.
    """
    one = not isinstance(part["seconds"], list)
    status, spent = ([part[k]] if one else part[k] for k in ("status", "seconds"))
    ((kind, limit),) = part["limit"].items()
    got = part["nodes"] if kind == "max_nodes" else [s / CLOSE for s in spent]
    pairs = zip(status, got, strict=True)
    return [i for i, (s, work) in enumerate(pairs) if s in STOPPED and work < limit]


def rows_of(name: str) -> list[dict]:
    """The rows of a record, each with its load and its programs."""
    content = results.load(name)["data"]
    return content if isinstance(content, list) else content["runs"]


def parts_of(row: dict) -> list[dict]:
    """The programs of a row: its own, or those of its searches."""
    if "search" not in row:
        return [row]
    return [row["search"], row["alone"]["search"]]


@pytest.mark.parametrize("name", RECORDS)
def test_no_program_of_a_record_was_starved(name):
    """Each row states its limit, and what was stopped has spent it."""
    parts = [part for row in rows_of(name) for part in parts_of(row)]
    assert parts
    assert [starved(part) for part in parts] == [[]] * len(parts)


@pytest.mark.parametrize("name", RECORDS)
def test_the_load_is_stated(name):
    """And with a limit of seconds the machine was as good as idle but for its jobs."""
    content = results.load(name)["data"]
    jobs = content["jobs"] if isinstance(content, dict) else 1
    for row in rows_of(name):
        assert len(row["load"]) == 2
        if "time_limit" in parts_of(row)[0]["limit"]:
            assert row["load"][1] < jobs + 0.6


def test_starved_programs_are_found():
    """Stopped before the limit, in seconds or in subproblems; what ended is let be."""
    few = {"limit": {"time_limit": 30.0}, "status": "cua", "seconds": [1.0, 7.5, 31.0]}
    assert starved(few) == [1]
    assert starved(few | {"seconds": [1.0, 29.0, 2.0]}) == []
    nodes = {"limit": {"max_nodes": 100}, "status": "uu", "seconds": [9.0, 9.0]}
    assert starved(nodes | {"nodes": [99, 100]}) == [0]
    one = {"limit": {"time_limit": 120.0}, "status": "time_limit", "seconds": 18.9}
    assert starved(one) == [0]
    assert starved(one | {"status": "optimal"}) == []
