"""Rows of words to sort: the rows are the vectors', the chance is exact."""

from itertools import combinations

import numpy as np
import pytest
from hands import SMALL, WIDER, stage
from scipy import stats

from advlib import play, words

SORT = """right => {
  const s = document.querySelector('.sides').stage, state = s.get();
  const rows = Sides.figures.guess.dealt(state.form, state.seed, state.round);
  rows.forEach(({ kind }, k) => {
    const other = { dimensions: 'random', random: 'dimensions' }[kind];
    s.set({ [`row${k}`]: k < right ? kind : other });
  });
  return rows;
}"""


def test_the_rows_are_those_of_the_vectors() -> None:
    """Words on top, found again by sorting; none that the chapter prints."""
    record, vectors = play.stored("guess"), words.load("imdb8")
    assert record["first"] == 9
    for form, matrix in zip(("raw", "unit"), words.both(vectors.matrix), strict=True):
        for k in (8, 25, 43):
            best = np.argsort(-matrix[:, k].double().numpy(), kind="stable")[:8]
            on_top = " ".join(vectors.words[i] for i in best)
            assert record[form]["dimensions"][k - 8] == on_top
        assert len(set(record[form]["dimensions"] + record[form]["random"])) == 72


def test_chance_is_exact(opened) -> None:
    """All 70 ways to sort counted, other numbers of marks, several rounds added."""
    page = opened("guess")

    def chance(*marked: int) -> np.ndarray:
        return np.array(page.evaluate("m => Sides.figures.guess.chance(m)", marked))

    counted = np.zeros(9)
    for truth in combinations(range(8), 4):
        counted[8 - 2 * len({0, 1, 2, 3} - set(truth))] += 1 / 70
    np.testing.assert_allclose(chance(4), counted, atol=1e-12)
    for m in range(9):
        right = 4 - m + 2 * np.arange(5)
        expected = np.zeros(9)
        for r, p in zip(right, stats.hypergeom(8, 4, m).pmf(np.arange(5)), strict=True):
            if p:
                expected[r] += p
        np.testing.assert_allclose(chance(m), expected, atol=1e-12)
    many = np.convolve(np.convolve(chance(3), chance(8)), chance(5))
    np.testing.assert_allclose(chance(3, 8, 5), many, atol=1e-12)
    assert chance(*[4] * 9).sum() == pytest.approx(1)


def test_rounds_do_not_repeat_rows(opened) -> None:
    """Four of each kind in each of 9 rounds, all rows once."""
    page = opened("guess")
    rows = page.evaluate("""() => Array.from({length: 9},
      (_, k) => Sides.figures.guess.dealt('unit', 5, k))""")
    for eight in rows:
        assert [row["kind"] for row in eight].count("random") == 4
    assert len({row["name"] for eight in rows for row in eight}) == 72
    first = [[row["kind"] for row in eight] for eight in rows]
    assert len({tuple(kinds) for kinds in first}) > 6
    lists = play.stored("guess")["unit"]
    for row in rows[7]:
        at = int(row["name"][1:]) - 9
        assert lists[row["kind"]][at] == row["words"]


def test_hands(opened) -> None:
    """Sorted by keys on a phone, scored, revealed; the next eight are added."""
    page = opened("guess", width=390, mode="dark")
    score = page.get_by_role("button", name="Score me")
    assert score.is_disabled()
    for k in range(8):
        row = page.locator(".sides .rows fieldset").nth(k)
        row.get_by_role("radio", name="dimension").focus()
        page.keyboard.press("Space")
        if k % 2:
            page.keyboard.press("ArrowRight")
    page.wait_for_timeout(60)
    kinds = stage(page, "[0,1,2,3,4,5,6,7].map(k => s.get()['row' + k])")
    assert kinds == ["dimensions", "random"] * 4
    assert "✓" not in page.locator(".sides").inner_text()
    page.evaluate(SORT, 6)
    page.wait_for_timeout(60)
    score.focus()
    page.keyboard.press("Enter")
    page.wait_for_timeout(60)
    assert stage(page, "s.seen.got") == 6
    text = page.locator(".sides").inner_text()
    assert (text.count("✓"), text.count("✗")) == (6, 2)
    assert score.is_disabled()
    page.wait_for_timeout(600)
    words = page.locator(".sides [role=status]")
    assert "6 of 8 right" in words.inner_text()
    assert page.evaluate(WIDER) == page.evaluate(SMALL) == []
    page.get_by_role("button", name="Another eight").click()
    page.wait_for_timeout(60)
    page.evaluate(SORT, 0)
    page.wait_for_timeout(60)
    score.click()
    page.wait_for_timeout(60)
    assert stage(page, "s.seen.got") == 6
    assert "6 of 16 right in 2 rounds" in page.locator(".sides").inner_text()
    assert stage(page, "s.seen.better") > 0.5
    before = page.locator(".sides .rows").inner_text()
    page.get_by_role("radio", name="of length one").check(force=True)
    page.wait_for_timeout(60)
    assert page.locator(".sides .rows").inner_text() != before
    assert score.is_disabled()
