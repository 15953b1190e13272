"""The round of five networks: what it shows is the record's, and it can be played."""

from collections import Counter

import pytest
from hands import SMALL, WIDER, stage

from advlib import play, results

RECORD = results.load("masking")["data"]
ROWS = {(one["dataset"], one["base"], one["mask"]): one for one in RECORD["networks"]}
SET = """async state => {
  document.querySelector('.sides').stage.set(state);
  for (let k = 0; k < 2; k++) await new Promise(requestAnimationFrame);
}"""


def kind(row: dict) -> str:
    """Return what a network of the record is, by this test's own rule."""
    if row["mask"]:
        return "masked"
    return "robust" if row["pgd_wrong"] <= 300 else "weak"


def test_data_are_the_record() -> None:
    """Each network of the figure is one of the record, number by number."""
    data = play.stored("cheats")
    names = [name for name, *_ in data["checks"]]
    assert {name: t for name, t, _ in data["checks"]} == RECORD["thresholds"]
    photographs = sum(one["dataset"] != "mnist" for one in RECORD["networks"])
    honest = RECORD["honest_networks"] - photographs
    masked = [one["mask"] for one in data["networks"] if one["mask"]]
    assert (len(data["networks"]) - len(masked), len(masked)) == (honest, 8)
    for one in data["networks"]:
        row = ROWS["mnist", one["base"], one["mask"]]
        assert (row["role"], row["eps"]) == ("test", one["eps"])
        ways = ("clean", "pgd", "adaptive")
        assert one["wrong"] == [row[f"{way}_wrong"] for way in ways]
        for name, value, fired in zip(names, one["shown"], one["fired"], strict=True):
            assert value == row["checks"][name]["value"]
            assert fired == row["checks"][name]["fired"]
        if one["mask"]:  # two checks suffice, as the score says; more is hidden
            two = [
                one["fired"][names.index(name)] for name in ("search", "dead pixels")
            ]
            assert any(two)
            assert one["wrong"][2] > 1.9 * one["wrong"][1]
        else:
            assert not one["fired"][names.index("search")]
            assert not one["fired"][names.index("dead pixels")]
            assert one["wrong"][2] == one["wrong"][1]


def test_rounds(opened) -> None:
    """Five different networks, each kind among them in the end, the order shuffled."""
    page = opened("cheats")
    seen, first = Counter(), Counter()
    for seed in range(1, 60):
        page.evaluate(SET, {"seed": seed})
        drawn = stage(page, "s.round().map(n => [n.base, n.mask, n.kind])")
        assert len({(base, mask) for base, mask, _ in drawn}) == 5
        for base, mask, said in drawn:
            assert said == kind(ROWS["mnist", base, mask])
            seen[said] += 1
        first[drawn[0][2]] += 1
        assert {"masked", "robust"} <= {said for *_, said in drawn}
    assert set(seen) == {"masked", "robust", "weak"} == set(first)
    page.reload()
    page.wait_for_function("document.querySelector('.sides')?.dataset.ready === ''")
    seeds = [stage(page, "s.get().seed"), stage(opened("cheats"), "s.get().seed")]
    assert len(set(seeds)) == 2


@pytest.mark.parametrize(("width", "mode"), [(1440, "light"), (390, "dark")])
def test_a_round_by_keys(opened, width: int, mode: str) -> None:
    """Ask, answer rightly and wrongly, see why, and the score."""
    page = opened("cheats", width=width, mode=mode)
    page.evaluate(SET, {"seed": 4})
    truth = stage(page, "s.round()")
    said = page.locator(".sides [role=status]")
    for number, one in enumerate(truth):
        row = ROWS["mnist", one["base"], one["mask"]]
        assert f"{row['pgd_wrong'] / 10:.1f} %" in page.locator(".sides").inner_text()
        page.get_by_role("button", name="ask search").press("Enter")
        page.get_by_role("button", name="search:").press("Enter")  # once is enough
        check = row["checks"]["search"]
        fires = "fires" if check["fired"] else "silent"
        bar = page.get_by_role("button", name="search:")
        shown = f"search: {100 * check['value']:.1f} %, {fires}"
        assert bar.get_attribute("aria-label") == shown
        assert page.evaluate(WIDER) == page.evaluate(SMALL) == []
        names = ("robust", "weak", "masked")
        wrong = next(name for name in names if name != one["kind"])
        answer = wrong if number == 2 else one["kind"]
        page.get_by_role("button", name=answer, exact=True).press("Space")
        page.wait_for_timeout(60)
        badge = page.locator(".sides .verdict b").inner_text()
        assert badge == (f"no: {one['kind']}" if number == 2 else "right")
        reason = page.locator(".sides .verdict span").inner_text()
        assert one["name"] in reason
        if one["mask"]:
            assert f"finds {row['adaptive_wrong'] / 10:.1f} %" in reason
        page.wait_for_timeout(600)
        assert reason in said.inner_text()
        page.locator(".sides .row button:visible").last.press("Enter")
        page.wait_for_timeout(60)
    assert page.locator(".sides .verdict b").inner_text() == "4 of 5"
    assert "with 5 checks asked" in page.locator(".sides .verdict span").inner_text()
    page.get_by_role("button", name="Play again").press("Enter")
    page.wait_for_timeout(60)
    assert stage(page, "s.get().seed") != 4
    assert stage(page, "s.get().answers.length") == 0
    assert "Network A" in page.locator(".sides").inner_text()


def test_bars_are_as_long_as_their_numbers(opened) -> None:
    """A full share fills its track, a threshold stands at its place."""
    page = opened("cheats")
    page.evaluate(SET, {"seed": 4, "asked": [list(range(10))] * 5})
    shares = stage(page, "s.round()[0].shown")
    found = page.evaluate("""() => [...document.querySelectorAll('.sides button')]
      .filter(b => b.title).map(b => {
        const track = b.parentElement.lastElementChild.firstElementChild;
        const [fill, tick] = track.children;
        const whole = track.getBoundingClientRect();
        return [fill.getBoundingClientRect().width / whole.width,
                (tick.getBoundingClientRect().left - whole.left) / whole.width];
      })""")
    for (width, tick), share, name in zip(
        found, shares, RECORD["thresholds"], strict=True
    ):
        assert width == pytest.approx(share, abs=0.01)
        assert tick == pytest.approx(RECORD["thresholds"][name], abs=0.005)
