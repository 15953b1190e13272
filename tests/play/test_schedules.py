"""Schedules of the step: margins and steps of the page are Python's."""

from functools import partial
from itertools import pairwise

import pytest
import torch
from hands import SMALL, WIDER, stage

from advlib import attacks, play
from advlib.play.figures import schedules

SET = """async state => {
  document.querySelector('.sides').stage.set(state);
  for (let k = 0; k < 2; k++) await new Promise(requestAnimationFrame);
  const runs = document.querySelector('.sides').stage.runs();
  return Object.fromEntries(Object.entries(runs).map(([name, run]) =>
    [name, {...run, delta: [...run.delta]}]));
}"""
STATES = [  # digit, first step in radii, number of steps, momentum
    (3, 1.0, 20, "without"),
    (9, 0.25, 13, "with"),
    (7, 2.0, 40, "with"),
    (0, 0.05, 2, "without"),
]


def at(digit: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the image of a ``digit`` and its label, for attacks."""
    return play.images("digits")[digit : digit + 1], torch.tensor([digit])


def test_fixed_schedules(opened) -> None:
    """Four rules, with and without momentum: each margin and each length."""
    page, model = opened("schedules"), play.from_note(play.stored("standard"))
    for digit, first, steps, momentum in STATES:
        state = {"digit": digit, "first": first, "steps": steps, "momentum": momentum}
        found = page.evaluate(SET, state)
        x, _ = at(digit)
        for name, rule in schedules.RULES.items():
            size = first * schedules.EPS
            expected = schedules.margins(
                model, x, digit, rule, size, steps, momentum=momentum == "with"
            )
            assert found[name]["margins"] == pytest.approx(expected, abs=1e-6)
            lengths = [rule(size, k, steps) for k in range(steps)]
            assert found[name]["lengths"] == pytest.approx(lengths, abs=1e-12)


def test_apgd_is_the_library_s(opened) -> None:
    """From twice the radius, as the algorithm has it: the same points found."""
    page, model = opened("schedules"), play.from_note(play.stored("standard"))
    for digit, steps in ((3, 20), (5, 40), (1, 7), (8, 33), (0, 25)):
        found = page.evaluate(SET, {"digit": digit, "first": 2, "steps": steps})["APGD"]
        x, y = at(digit)
        delta = attacks.apgd(model, x, y, schedules.EPS, num_steps=steps)
        page_delta = torch.tensor(found["delta"]).double().view_as(delta)
        torch.testing.assert_close(page_delta, delta, rtol=0, atol=1e-6)
        ratios = [b / a for a, b in pairwise(found["lengths"])]
        assert set(ratios) <= {1, 0.5}
    assert 0.5 in ratios


def test_apgd_is_close_to_the_best(opened) -> None:
    """On each of the ten digits, from two radii, in 20 steps: what the text says."""
    page = opened("schedules")
    for digit in range(10):
        state = {"digit": digit, "first": 2, "steps": 20, "momentum": "without"}
        least = {
            name: min(run["margins"]) for name, run in page.evaluate(SET, state).items()
        }
        assert least.pop("APGD") <= min(least.values()) + 0.05


def test_the_constant_one_is_pgd() -> None:
    """The rules of the printed figure, at the ends: the library's attack."""
    model, (x, y) = play.from_note(play.stored("standard")), at(3)
    pgd = partial(attacks.pgd_linf, model, x, y, schedules.EPS, alpha=0.03)
    for steps in (1, 5):
        z = model(x + pgd(num_steps=steps))[0]
        rival = z[torch.arange(10) != 3].max()
        path = schedules.margins(model, x, 3, schedules.RULES["constant"], 0.03, 5)
        assert path[steps] == pytest.approx(float(z[3] - rival))


@pytest.mark.parametrize(("width", "mode"), [(1440, "light"), (390, "dark")])
def test_keys_and_words(opened, width: int, mode: str) -> None:
    """A short first step cannot arrive by the geometric rule; the words say so."""
    page = opened("schedules", width=width, mode=mode)
    assert page.evaluate(WIDER) == page.evaluate(SMALL) == []
    sizes = page.locator(".sides svg").evaluate_all(
        "all => all.map(e => e.getBoundingClientRect().width / e.viewBox.baseVal.width)"
    )
    assert sizes == pytest.approx([1, 1], abs=0.02)  # letters keep their size
    said, charts = page.locator(".sides [role=status]"), page.get_by_role("img")
    page.get_by_role("slider", name="first step").press("Home")
    page.get_by_role("radio", name="geometric").check()
    page.wait_for_timeout(650)
    assert stage(page, "[s.get().first, s.get().rule]") == [0.05, "geometric"]
    assert "cannot reach the edge" in said.inner_text()
    assert "geometric schedule" in charts.first.get_attribute("aria-label")
    page.get_by_role("slider", name="first step").press("End")
    page.wait_for_timeout(650)
    assert "cannot reach" not in said.inner_text()
    assert "geometric 0.0" in charts.last.get_attribute("aria-label")
    page.get_by_role("slider", name="steps").press("ArrowRight")
    page.wait_for_timeout(650)
    assert "after 21 steps" in said.inner_text()
