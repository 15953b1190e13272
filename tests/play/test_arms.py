"""Arms minus ReLU in a page: the same means, spread and widths as in Python."""

import math

import numpy as np
import pytest
from hands import stage
from scipy import stats

from advlib.play.figures import arms

SUBSETS = ([0, 1], [0, 1, 2], [1, 4, 6], [0, 2, 3, 5, 7], list(range(8)))


def test_the_page_computes_what_python_computes(opened) -> None:
    """For both errors and several sets of seeds, every mean and half width."""
    page, found = opened("arms"), arms.errors()
    for which in (0, 1):
        for seeds in SUBSETS:
            sd, free = arms.spread(kept(found, seeds), which, set(seeds))
            told = page.evaluate(
                "([w, s]) => Sides.arms.compare(Sides.records.arms, w, s)",
                [which, seeds],
            )
            assert told["free"] == free
            assert told["sd"] == pytest.approx(sd, abs=1e-9)
            for row in told["rows"]:
                runs = found[row["arm"]["key"]]
                gaps = [runs[s][which] - found["relu"][s][which]
                        for s in seeds if s in runs]  # fmt: skip
                half = stats.t.ppf(0.975, free) * sd / math.sqrt(len(gaps))
                assert row["mean"] == pytest.approx(np.mean(gaps), abs=1e-9)
                assert row["half"] == pytest.approx(half, abs=1e-4)
                assert row["seen"] > row["half"]


def kept(found: arms.Errors, seeds: list[int]) -> arms.Errors:
    """Return the arms with two runs at least: fewer have no interval."""
    return {a: runs for a, runs in found.items() if len(set(runs) & set(seeds)) > 1}


def test_seeds_by_keyboard(opened) -> None:
    """Fewer seeds, wider intervals; other seeds, other words."""
    page = opened("arms")
    slider, words = page.locator("input[type=range]"), page.locator(".sides [role=img]")
    other = page.get_by_role("button", name="Other seeds")
    assert other.is_disabled()
    before = stage(page, "s.found.rows[0].half")
    slider.focus()
    for _ in range(5):
        page.keyboard.press("ArrowLeft")
    page.wait_for_function(
        "document.querySelector('.sides').stage.found.rows[0].dots.length === 3"
    )
    assert stage(page, "s.found.rows[0].half") > 1.3 * before
    said = words.get_attribute("aria-label")
    assert "Seeds 0, 1, 2." in said
    other.focus()
    page.keyboard.press("Enter")
    page.wait_for_timeout(100)
    assert words.get_attribute("aria-label") != said
    page.get_by_role("radio", name="clean").check()
    page.wait_for_timeout(100)
    assert "clean error minus ReLU" in page.locator(".sides svg").text_content()
