"""Randomised smoothing in the page: SciPy's bounds, honest votes, a promise kept."""

import math

import numpy as np
import pytest
from hands import stage
from scipy import integrate, special, stats

from advlib.bounds import smoothing
from advlib.play.figures import votes


def test_chances_are_scipys(opened) -> None:
    """Normal distribution and quantile, incomplete beta function, the lower bound."""
    page, rng = opened("votes"), np.random.default_rng(0)
    x = [*rng.normal(size=60) * 3, 0.0, -9.0, 9.0, 5.0, -5.0]
    found = page.evaluate("x => x.map(Sides.chance.normal)", x)
    assert found == pytest.approx(list(stats.norm.cdf(x)), rel=1e-12, abs=1e-15)
    assert found[-4] == pytest.approx(stats.norm.cdf(-9), rel=1e-10)
    p = [*rng.uniform(0, 1, 40), 1e-9, 1e-4, 0.5, 1 - 1e-9, 0.001 ** (1 / 10_000)]
    found = page.evaluate("p => p.map(Sides.chance.quantile)", p)
    assert found == pytest.approx(list(stats.norm.ppf(p)), abs=1e-7)
    assert found[:40] == pytest.approx(list(stats.norm.ppf(p[:40])), abs=1e-11)
    triples = [(float(rng.uniform()), float(a), float(b))
               for a, b in 10 ** rng.uniform(0, 4, (60, 2))]  # fmt: skip
    found = page.evaluate("t => t.map(v => Sides.chance.beta(...v))", triples)
    assert found == pytest.approx([special.betainc(a, b, x) for x, a, b in triples],
                                  rel=1e-8, abs=1e-12)  # fmt: skip
    asked = [
        (k, n, eta)
        for n in (1, 10, 100, 1000, 10_000)
        for eta in (0.1, 0.001)
        for k in sorted({0, 1, n // 3, n // 2, n * 9 // 10, n - 1, n})
    ]
    found = page.evaluate("a => a.map(v => Sides.chance.lower(...v))", asked)
    expected = [smoothing.lower_confidence(*one) for one in asked]
    assert found == pytest.approx(expected, abs=1e-9)
    for (k, n, eta), low in zip(asked, found, strict=True):  # the definition
        if k:
            assert stats.binom.sf(k - 1, n, low) == pytest.approx(eta, rel=1e-5)


def test_a_throw_is_what_advlib_makes_of_it(opened) -> None:
    """True p by quadrature; votes counted again; bound and radius by ``smoothing``."""
    page = opened("votes")
    for k, (x, y, tau) in enumerate([(0, 0, 0.8), (-1.5, 1, 0.35), (1.4, -2, 1.5),
                                     (0, 0, 0.8)]):  # fmt: skip
        n, eta = (100, 10, 1000, 100)[k], (0.001, 0.1, 0.01, 0.001)[k]
        worst = k > 1
        state = {"x": x, "y": y, "tau": tau, "n": n, "eta": eta, "worst": worst}
        page.evaluate("v => document.querySelector('.sides').stage.set(v)", state)
        page.wait_for_timeout(60)
        found = stage(page, "s.found()")

        def inside(v: float, at=(x, y, tau)) -> float:
            wall = votes.edge(at[1] + at[2] * v)
            return stats.norm.pdf(v) * stats.norm.cdf((wall - at[0]) / at[2])

        p = integrate.quad(inside, -9, 9, limit=200, epsabs=1e-12)[0]
        assert found["p"] == pytest.approx(p, abs=1e-9)
        assert votes.chance(x, y, tau) == pytest.approx(p, abs=1e-9)
        wall = x + tau * stats.norm.ppf(p)
        dots = np.array([dot[:2] for dot in found["dots"]])
        right = dots[:, 0] < (wall if worst else votes.edge(dots[:, 1]))
        assert right.tolist() == [bool(dot[2]) for dot in found["dots"]]
        if n <= len(dots):
            assert right.sum() == found["k"]
        low = smoothing.lower_confidence(found["k"], n, eta)
        assert found["low"] == pytest.approx(low, abs=1e-9)
        radius = max(tau * stats.norm.ppf(low), 0)
        assert found["radius"] == pytest.approx(radius, abs=1e-7)
        most = max(tau * stats.norm.ppf(eta ** (1 / n)), 0)
        assert found["most"] == pytest.approx(most, abs=1e-7)
        assert found["radius"] <= found["most"] + 1e-12


def test_the_dice_are_fair(opened) -> None:
    """A hundred thousand throws: normal by mean, spread and quantiles; seeds differ."""
    draws = np.array(
        opened("votes").evaluate("""() => {
      const next = Sides.chance.dice(5);
      return Array.from({length: 100_000}, next);
    }""")
    )
    assert abs(draws.mean()) < 4 / math.sqrt(1e5)
    assert abs(draws.var() - 1) < 4 * math.sqrt(2 / 1e5)
    assert stats.kstest(draws, "norm").pvalue > 0.001
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 4 / math.sqrt(1e5)


def test_the_promise_is_kept(opened) -> None:
    """A thousand throws, chance of error 0.1: the bound is too high that rarely."""
    page = opened("votes", reduced_motion="reduce")
    page.evaluate("document.querySelector('.sides').stage.set({eta: .1})")
    button = page.get_by_role("button", name="Throw 100 times")
    for k in range(10):
        button.click()
        page.wait_for_function(
            "([k]) => document.querySelector('.sides').stage.found().thrown >= k",
            arg=[100 * (k + 1)],
        )
    found = stage(page, "s.found()")
    high = [k for k in range(101)
            if smoothing.lower_confidence(k, 100, 0.1) > found["p"]]  # fmt: skip
    rate = stats.binom.sf(high[0] - 1, 100, found["p"])  # exactly, and as promised
    assert rate <= 0.1
    few, many = stats.binom.ppf([1e-4, 1 - 1e-4], found["thrown"], rate)
    assert few <= found["wrong"] <= many
    assert f"too high: {found['wrong']}" in page.locator(".two").inner_text()


def test_a_throw_by_key_and_a_point_by_hand(opened) -> None:
    """Votes fill the bar and stop; keys and mouse move the point; words follow."""
    page = opened("votes")
    page.wait_for_timeout(600)
    words = page.locator("[role=status]")
    before, first = words.inner_text(), stage(page, "s.found().key")
    page.get_by_role("button", name="Throw", exact=True).focus()
    page.keyboard.press("Enter")
    page.wait_for_timeout(200)
    during = page.locator(".sides svg[role=img] text").first.inner_html()
    page.wait_for_timeout(1200)
    found = stage(page, "s.found()")
    after = page.locator(".sides svg[role=img] text").first.inner_html()
    assert after == f"votes for A: {found['k']} of 100" != during
    assert found["key"] != first
    plane = page.locator(".plane")
    plane.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowUp")
    page.wait_for_timeout(60)
    assert stage(page, "[s.get().x, s.get().y]") == [0.1, 1]
    box = plane.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"], box["y"] + box["height"] / 2, steps=3)
    page.mouse.up()
    page.wait_for_timeout(700)
    assert stage(page, "s.get().x") == pytest.approx(3, abs=0.05)
    assert page.locator(".verdict b").inner_text() == "abstains"
    assert words.inner_text() != before
    assert "no radius" in words.inner_text()


def test_less_motion_and_ten_votes(opened) -> None:
    """The end at once; ten votes with chance 0.001 prove nothing, as the book says."""
    page = opened("votes", width=390, mode="dark", reduced_motion="reduce",
                  has_touch=True, is_mobile=True)  # fmt: skip
    page.get_by_role("radio", name="10", exact=True).tap()
    page.get_by_role("button", name="Throw", exact=True).tap()
    page.wait_for_timeout(80)
    found = stage(page, "s.found()")
    shown = page.locator(".sides svg[role=img] text").first.inner_html()
    assert shown == f"votes for A: {found['k']} of 10"
    assert found["most"] == pytest.approx(0.8 * stats.norm.ppf(0.001**0.1), abs=1e-9)
    assert found["most"] < 0.01


def test_it_answers_at_once(opened) -> None:
    """Ten thousand votes and everything that follows within 50 ms."""
    least = opened("votes").evaluate("""async () => {
      const {stage} = document.querySelector('.sides'), times = [];
      for (let k = 0; k < 8; k++) {
        stage.set({n: 10000, x: k / 50});
        await new Promise(done => requestAnimationFrame(() => done()));
        const begin = performance.now();
        stage.set({x: k / 50 + .01});
        await new Promise(done => requestAnimationFrame(() => setTimeout(done)));
        times.push(performance.now() - begin - 16);
      }
      return Math.min(...times);
    }""")
    assert least <= 50
