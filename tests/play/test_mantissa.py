"""Arithmetic of m bits in the page: against NumPy's floats and against fractions."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hands import stage
from playwright.sync_api import Page

from advlib.play.figures import mantissa

KINDS = {11: np.float16, 24: np.float32, 53: np.float64}


def some(seed: int, count: int) -> list[float]:
    """Return numbers of all kinds: random, near powers of two, and ties."""
    rng = np.random.default_rng(seed)
    sign = rng.choice([-1, 1], count)
    plain = rng.uniform(0, 8, count) * 2.0 ** rng.integers(-8, 9, count)
    ties = (rng.integers(1024, 2048, count) + 0.5) * 2.0 ** rng.integers(-12, 3, count)
    edges = 2.0 ** rng.integers(-10, 11, count) * (1 + rng.integers(-3, 4) * 2.0**-24)
    return [*map(float, sign * np.where(rng.random(count) < 0.5, plain, ties)),
            *map(float, sign * edges), 0.0]  # fmt: skip


def rounded(page: Page, values: list[float], bits: int, way: str) -> list[float]:
    """Return what the page makes of ``values``."""
    script = """([values, bits, way]) => values.map(v =>
      Sides.rounded.value(Sides.rounded.round(Sides.rounded.of(v), bits, way)))"""
    return page.evaluate(script, [values, bits, way])


def test_rounding_is_numpys_and_the_fractions(opened) -> None:
    """To nearest as float16 and float32, ties to even; every way as the fractions."""
    page, values = opened("mantissa"), some(1, 200)
    for bits in (11, 24):
        with np.errstate(under="ignore"):
            expected = [float(KINDS[bits](v)) for v in values]
        assert rounded(page, values, bits, "nearest") == expected
        exact = [float(mantissa.rounded(Fraction(v), bits)) for v in values]
        assert exact == expected
    for bits in (1, 4, 17, 40, 53):
        for way in ("nearest", "down", "up"):
            found = rounded(page, values, bits, way)
            assert found == [float(mantissa.rounded(Fraction(v), bits, way))
                             for v in values], (bits, way)  # fmt: skip
    assert rounded(page, values, 60, "nearest") == values


@pytest.mark.parametrize("bits", KINDS)
def test_sums_and_products_are_numpys(opened, bits: int) -> None:
    """One operation on numbers of so many bits, rounded once."""
    kind, rng = KINDS[bits], np.random.default_rng(bits)
    pairs = rng.normal(size=(200, 2)) * 2.0 ** rng.integers(-3, 4, (200, 2))
    pairs = pairs.astype(kind)
    script = """([pairs, bits]) => pairs.map(pair => {
      const {of, add, times, round, value} = Sides.rounded, [a, b] = pair.map(of);
      return [add(a, b), times(a, b)].map(v => value(round(v, bits)));
    })"""
    found = opened("mantissa").evaluate(script, [pairs.astype(float).tolist(), bits])
    for (a, b), (total, product) in zip(pairs, found, strict=True):
        assert (total, product) == (float(a + b), float(a * b))


def floats(layers, low, high, kind) -> float:
    """Return the lower end of intervals, to nearest, in NumPy's own arithmetic."""
    low, high = (np.array(end, dtype=kind) for end in (low, high))
    for k, (weight, bias) in enumerate(layers):
        if k:
            low, high = low.clip(0), high.clip(0)
        least = most = np.array(bias, dtype=kind)
        for i, column in enumerate(np.array(weight, dtype=kind).T):
            ends = column * low[i], column * high[i]
            least, most = least + np.minimum(*ends), most + np.maximum(*ends)
        low, high = least, most
    return float(low[0])


def test_the_trap_is_numpys(opened) -> None:
    """The bound over the ball, at every weight, in three kinds of floats."""
    script = """([bits, powers]) => powers.map(power =>
      document.querySelector('.sides').stage.found(
        {bits, power, x: .75, outward: false}).bound)"""
    page = opened("mantissa")
    for bits, kind in KINDS.items():
        powers = list(range(4, 15 if bits == 11 else 61))
        found = page.evaluate(script, [bits, powers])
        assert found == [floats(mantissa.trap(p), [0.75, 0.25], [1, 0.75], kind)
                         for p in powers]  # fmt: skip
        false = sum(v > 0 for v in found)
        assert false == {11: 4, 24: 37, 53: 8}[bits]  # as the chapter counts them


def test_networks_by_fractions_and_outward_holds(opened) -> None:
    """Random networks: both ends as Python's; outward keeps every real value."""
    page, rng = opened("mantissa"), np.random.default_rng(4)
    script = """([layers, low, high, bits, outward]) =>
      Sides.rounded.interval(layers, low, high, {bits: bits ?? Infinity, outward})"""
    wide = 0
    for _ in range(8):
        sizes = [3, 4, 2]
        layers = [(rng.normal(size=(o, i)).tolist(), rng.normal(size=o).tolist())
                  for i, o in pairwise(sizes)]  # fmt: skip
        low = rng.uniform(0, 1, 3)
        high = (low + rng.uniform(0, 0.2)).tolist()
        low, bits = low.tolist(), int(rng.integers(3, 30))
        for outward in (False, True):
            found = page.evaluate(script, [layers, low, high, bits, outward])
            ends = mantissa.interval(layers, low, high, bits=bits, outward=outward)
            assert found["lower"] == [float(v) for v in ends[0]]
            assert found["upper"] == [float(v) for v in ends[1]]
        real = mantissa.interval(layers, low, high, bits=None, outward=False)
        assert all(a <= b for a, b in zip(ends[0], real[0], strict=True))
        assert all(a >= b for a, b in zip(ends[1], real[1], strict=True))
        wide += ends != real
    assert wide == 8


def test_refusals() -> None:
    """Another way of rounding, and no bits."""
    for bits, way in ((8, "away"), (0, "up")):
        with pytest.raises(ValueError, match="cannot round"):
            mantissa.rounded(Fraction(1, 3), bits, way)


def test_the_trap_is_seen(opened) -> None:
    """By keys and by hand: false with 24 bits, gone with more, never outward."""
    page = opened("mantissa")
    badge, words = page.locator(".verdict b"), page.locator("[role=status]")
    bits, weight, _ = page.get_by_role("slider").all()
    assert badge.inner_text() == "false certificate"
    page.wait_for_timeout(600)
    before = words.inner_text()
    assert "wrong sign" in before
    bits.focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    page.wait_for_timeout(60)
    assert stage(page, "s.get().bits") == 28
    assert badge.inner_text() == "not certified"
    weight.fill("60")
    page.wait_for_timeout(60)
    assert badge.inner_text() == "false certificate"
    page.get_by_role("radio", name="outward").check()
    for power in ("60", "24", "4"):
        weight.fill(power)
        for value in ("4", "24", "53"):
            bits.fill(value)
            page.wait_for_timeout(40)
            found = stage(page, "s.found()")
            assert found["lower"] <= found["real"] <= found["upper"]
            assert found["bound"] <= found["least"]
            assert badge.inner_text() == "not certified"
    page.wait_for_timeout(600)
    assert words.inner_text() != before
    assert "lies in" in page.locator(".sides .draggable svg").get_attribute(
        "aria-label"
    )


@pytest.mark.parametrize(("width", "mode"), [(1440, "light"), (390, "dark")])
def test_the_pixel_is_dragged(opened, width: int, mode: str) -> None:
    """The line follows the hand; at the ends it stops; the chart stays in place."""
    page = opened("mantissa", width=width, mode=mode)
    box = page.locator(".sides .draggable").bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 0.8, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + 40 + (box["width"] - 48) * 0.3, middle, steps=4)
    page.wait_for_timeout(60)
    assert stage(page, "s.get().x") == pytest.approx(0.4, abs=0.0051)
    page.mouse.move(box["x"] - 5, middle)
    page.mouse.up()
    page.wait_for_timeout(60)
    assert stage(page, "s.get().x") == 0.25
    assert page.locator(".sides .draggable").bounding_box() == box


def test_it_answers_at_once(opened) -> None:
    """A whole redraw, outward, within 50 ms, the least of ten."""
    least = opened("mantissa").evaluate("""async () => {
      const {stage} = document.querySelector('.sides'), times = [];
      for (let k = 0; k < 10; k++) {
        const begin = performance.now(), layers = [[[[2 ** 24, 1]], [0]], [[[1]],
          [-(2 ** 24)]], [[[-1]], [.6]]];
        for (let i = 0; i < 135; i++) Sides.rounded.interval(layers, [1, .25 + i / 300],
          [1, .25 + i / 300], {bits: 20 + k, outward: true});
        times.push(performance.now() - begin);
      }
      return Math.min(...times);
    }""")
    assert least <= 50
