"""Big M by hand: every number is a linear program's, the trap is a trap."""

import numpy as np
import pytest
from hands import stage
from scipy.optimize import linprog

FOUND = "JSON.parse(JSON.stringify(s.found()))"
REACH = (-1, 2)
STATES = [(-3, 4, 0.5), (-1, 2, 0), (-1, 1.2, 1.5), (-0.4, 5, -0.7), (-4, 2, 2),
          (-0.1, 0.1, 0)]  # fmt: skip


def rows(low: float, high: float) -> tuple[list, list]:
    """Return the chapter's four constraints on (z, a, b) as A v <= c."""
    matrix = [[1, -1, 0], [0, -1, 0], [0, 1, -high], [-1, 1, -low]]
    return matrix, [0, 0, 0, -low]


def largest(cost: list, low: float, high: float, z: tuple, b: tuple) -> float | None:
    """Return the least ``cost`` @ (z, a, b), None where nothing is allowed."""
    found = linprog(cost, *rows(low, high), bounds=[z, (None, None), b])
    assert found.status in (0, 2)
    return found.fun if found.status == 0 else None


def moved(page, **values) -> dict:
    """Return the figure's numbers after ``values`` are set."""
    page.evaluate("""async values => {
      document.querySelector('.sides').stage.set(values);
      for (let k = 0; k < 2; k++) await new Promise(requestAnimationFrame);
    }""", values)  # fmt: skip
    return stage(page, FOUND)


def test_the_numbers_are_those_of_linear_programs(opened) -> None:
    """Claims with b free and in both branches, and the gap at an input."""
    page = opened("bigm")
    for low, high, z in STATES:
        found = moved(page, l=low, u=high, z=z)
        for name, b in (("free", (0, 1)), ("off", (0, 0)), ("on", (1, 1))):
            expected = 1.25 + largest([0.5, -1, 0], low, high, REACH, b)
            assert found[name] == pytest.approx(expected, abs=1e-9)
        top = largest([0, -1, 0], low, high, (z, z), (0, 1))
        if top is None:
            assert found["peak"] is None
        else:
            assert found["gap"] == pytest.approx(-top - max(z, 0), abs=1e-9)
            assert found["peak"]["a"] == pytest.approx(-top, abs=1e-9)
        t = np.linspace(*REACH, 301)
        truth = (1.25 + t / 2 - np.maximum(t, 0)).min()
        assert found["truth"] == pytest.approx(truth)
        sound = low <= REACH[0] and high >= REACH[1]
        assert found["cut"] != sound
        if sound:  # a relaxation is below, the branches together exact
            assert found["free"] <= found["truth"] + 1e-9
            assert min(found["off"], found["on"]) == pytest.approx(found["truth"])


def test_the_region_is_what_the_program_allows(opened) -> None:
    """The drawn polygon's reach in 16 directions, against the program's."""
    page = opened("bigm")
    moved(page, l=-2.5, u=3)
    corners = page.evaluate("""() => {
      const shown = document.querySelector('.sides polygon.allowed');
      const ticks = [...document.querySelectorAll('.sides svg')][0];
      return [...shown.points].map(p => [p.x, p.y])
        .concat([[ticks.viewBox.baseVal.width, ticks.viewBox.baseVal.height]]);
    }""")
    width, height = corners.pop()
    # the axes: 40 left, 8 right, 10 above, 34 below; z -4.3 to 5.3, a -0.4 to 5.3
    points = np.array(corners)
    z = -4.3 + (points[:, 0] - 40) / (width - 48) * 9.6
    a = -0.4 + (height - 34 - points[:, 1]) / (height - 44) * 5.7
    for angle in np.linspace(0, 2 * np.pi, 16, endpoint=False):
        cost = [np.cos(angle), np.sin(angle), 0]
        expected = largest(cost, -2.5, 3, REACH, (0, 1))
        assert (cost[0] * z + cost[1] * a).min() == pytest.approx(expected, abs=1e-3)


def test_by_keyboard_from_loose_to_tight_to_false(opened) -> None:
    """Sliders move l and u; the words follow, and a branch closes the gap."""
    page = opened("bigm")
    badge = page.locator(".sides .verdict b")
    assert badge.inner_text() == "branch"
    free = page.locator("[data-row=free]")
    assert free.inner_text() == "−0.61"
    assert page.locator("[data-row=branches]").inner_text() == "0.75, 0.25"
    for label, key, times in (("lower bound", "ArrowRight", 20),
                              ("upper bound", "ArrowLeft", 20)):  # fmt: skip
        page.get_by_label(label).focus()
        for _ in range(times):
            page.keyboard.press(key)
    page.wait_for_timeout(60)
    assert (badge.inner_text(), free.inner_text()) == ("certified", "0.25")
    for _ in range(8):
        page.keyboard.press("ArrowLeft")
    page.wait_for_function("document.querySelector('.sides [role=status]').textContent"
                           ".includes('false bound')")  # fmt: skip
    assert free.inner_text() == "0.65"
    moved(page, l=-0.5, u=2)  # a true claim from bounds that are none
    assert (badge.inner_text(), free.inner_text()) == ("no proof", "0.25")
    page.get_by_label("branch: 1").check()
    page.wait_for_timeout(60)
    assert page.locator(".sides polygon.allowed").count() == 0


def test_handles_are_dragged(opened) -> None:
    """On a phone: the nearest of l, u and the input follows the finger."""
    page = opened("bigm", width=390)
    main = page.locator(".sides .draggable")
    main.scroll_into_view_if_needed()
    box = main.bounding_box()

    def at(z: float, a: float) -> tuple[float, float]:  # as the axes have them
        x = 40 + (z + 4.3) / 9.6 * (box["width"] - 48)
        y = box["height"] - 34 - (a + 0.4) / 5.7 * (box["height"] - 44)
        return box["x"] + x, box["y"] + y

    for start, end in (((-3, 0), (-1, 0.3)), ((4, 4), (2, 2)), ((0.5, 0.5), (1.5, 1))):
        page.mouse.move(*at(*start))
        page.mouse.down()
        page.mouse.move(*at(*end), steps=5)
        page.mouse.up()
    state = stage(page, "s.get()")
    assert [state[key] for key in "luz"] == pytest.approx([-1, 2, 1.5], abs=0.11)
