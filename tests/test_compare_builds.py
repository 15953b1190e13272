"""Is a build slower? The rule, on made-up times, and who takes turns with whom."""

from pathlib import Path

import compare_builds
import pytest


@pytest.mark.parametrize(
    ("factor", "again", "slower"),
    [(1.0, 1.0, False), (1.04, 1.0, False), (1.07, 1.0, True), (1.07, 1.04, False)],
)
def test_slower_is_beyond_a_twentieth_and_the_spread(
    factor: float, again: float, slower: bool
) -> None:
    noise = (1.0, 3.0, 1.0)  # a slow minute meets all contenders
    scales = {"first": 1.0, "second": factor, "first again": again}
    turns = {
        name: [{"call": scale * n} for n in noise] for name, scale in scales.items()
    }
    (row,) = compare_builds.judge(turns)
    assert row["ratio"] == pytest.approx(factor)
    assert row["slower"] is slower


def test_every_contender_has_every_place(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def child(build: Path, groups: list[str]) -> dict[str, float]:
        seen.append(build.name)
        return dict.fromkeys(groups, float(len(seen)))

    monkeypatch.setattr(compare_builds, "_child", child)
    turns = compare_builds.collect(Path("old"), Path("new"), ["pgd"], 3)
    assert [seen[i : i + 3].index("new") for i in (0, 3, 6)] == [1, 0, 2]
    assert turns["second"] == [{"pgd": 2.0}, {"pgd": 4.0}, {"pgd": 9.0}]


def test_two_builds_are_needed() -> None:
    with pytest.raises(SystemExit):
        compare_builds.main(["."])
