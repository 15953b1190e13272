"""The polytope by hand: every number is advlib's, and no region loses the image."""

import numpy as np
import pytest
import torch
from hands import stage
from scipy.optimize import linprog

from advlib import bounds
from advlib.play.figures import polytope

BALLS = [(0.5, 0.5, 0.5), (0.3, 0.8, 0.2), (0.1, 0.9, 0.34), (0.62, 0.41, 0.05)]
FOUND = "JSON.parse(JSON.stringify(s.found()))"


def moved(page, **values) -> dict:
    """Return the figure's numbers after ``values`` are set."""
    page.evaluate("""async values => {
      document.querySelector('.sides').stage.set(values);
      for (let k = 0; k < 2; k++) await new Promise(requestAnimationFrame);
    }""", values)  # fmt: skip
    return stage(page, FOUND)


def rows() -> torch.Tensor:
    """Return the figure's 64 directions and the margin's, (65, 2)."""
    angles = 2 * torch.pi / 64 * torch.arange(64).double()
    around = torch.stack([angles.cos(), angles.sin()], 1)
    return torch.cat([around, torch.tensor([[1.0, -1.0]]).double()])


def test_the_page_has_the_bounds_of_advlib(opened) -> None:
    """Margins and regions of four methods, and the walk with slopes of one's own."""
    toy, page = polytope.network(), opened("polytope")
    for cx, cy, eps in BALLS:
        mine = {"s1": 0.65, "s2": 0.2}
        found = moved(page, cx=cx, cy=cy, eps=eps, **mine)
        x = torch.tensor([cx, cy], dtype=torch.float64).view(1, 1, 1, 2)
        box = bounds.input_box(x, eps)
        pre = bounds.relu_bounds(toy, *box)
        for (low, high), pair in zip(pre, found["pre"], strict=True):
            np.testing.assert_allclose(torch.stack([low[0], high[0]]), pair, atol=1e-9)
        expected = polytope.supports(toy, x, eps, rows())
        for name, bound in expected.items():
            assert found["least"][name] == pytest.approx(float(bound[-1]), abs=1e-6)
            corners = np.array(found["regions"][name])
            reach = (corners @ rows().numpy()[:-1].T).min(0)
            # a polygon reaches each half-plane's edge or lies deeper inside
            assert (reach >= bound[:-1].numpy() - 1e-6).all()
        reach = (np.array(found["regions"]["lp"]) @ rows().numpy()[:-1].T).min(0)
        np.testing.assert_allclose(reach, expected["lp"][:-1], atol=1e-6)
        below = [bounds.relaxation(*pair).lower for pair in pre]
        slopes = [given.clone() for given in below]
        for slope, (low, high), s in zip(slopes, pre, mine.values(), strict=True):
            if low[0, 0] < 0 < high[0, 0]:
                slope[0, 0] = s
        own = bounds.linear_lower(toy, rows()[None, -1:], *box, pre, slopes=slopes)
        assert found["least"]["alpha"] == pytest.approx(float(own), abs=1e-9)


def test_every_region_holds_the_image(opened) -> None:
    """The corners of the exact image obey all half-planes, and sampled points, too;
    the least margin is that of a fine grid, from below."""
    toy, page = polytope.network(), opened("polytope")
    for cx, cy, eps in BALLS:
        found = moved(page, cx=cx, cy=cy, eps=eps)
        x = torch.tensor([cx, cy], dtype=torch.float64).view(1, 1, 1, 2)
        low, high = (end.flatten() for end in bounds.input_box(x, eps))
        share = torch.cartesian_prod(*[torch.linspace(0, 1, 81).double()] * 2)
        cloud = toy((low + share * (high - low)).view(-1, 1, 1, 2)).numpy()
        ends = np.array(found["ends"])
        for bound in polytope.supports(toy, x, eps, rows()).values():
            assert ((ends @ rows().numpy().T).min(0) >= bound.numpy() - 1e-9).all()
        # hull of the exact corners: holds the grid, and reaches no further than it
        directions = rows().numpy()
        exact, grid = ((points @ directions.T).min(0) for points in (ends, cloud))
        assert (exact <= grid + 1e-9).all()
        assert (exact >= grid - 0.1).all()
        assert found["least"]["exact"] == pytest.approx(exact[-1], abs=1e-9)


def test_the_simplex_method_against_highs(opened) -> None:
    """Random programs in four variables with a point that obeys all rows."""
    page, generator = opened("polytope"), np.random.default_rng(0)
    for _ in range(20):
        matrix, cost = generator.normal(size=(9, 4)), generator.normal(size=4)
        start = generator.normal(size=4)
        sides = matrix @ start + generator.integers(0, 2, 9)  # some rows are tight
        matrix = np.vstack([matrix, np.eye(4), -np.eye(4)])
        sides = np.concatenate([sides, start + 2, 2 - start])
        ours = page.evaluate("""([cost, rows, sides, start]) => Sides.toys.minimise(
            cost, rows, sides, start).value""",
            [v.tolist() for v in (cost, matrix, sides, start)])  # fmt: skip
        theirs = linprog(cost, matrix, sides, bounds=(None, None)).fun
        assert ours == pytest.approx(theirs, abs=1e-9)


def test_by_hand_and_by_ascent_to_the_linear_program(opened) -> None:
    """Keys tilt the line: 0.7 attains 0.375; so does the button, with no motion."""
    page = opened("polytope", reduced_motion="reduce")
    assert stage(page, FOUND)["least"]["alpha"] == pytest.approx(-0.5)
    slider = page.get_by_label("slope, layer 1")
    slider.focus()
    for _ in range(70):
        page.keyboard.press("ArrowRight")
    page.wait_for_timeout(60)
    found = stage(page, FOUND)["least"]
    assert found["alpha"] == pytest.approx(0.375) == pytest.approx(found["lp"])
    assert page.locator("[data-least=alpha]").inner_text() == "> 0.375"
    page.wait_for_function("document.querySelector('.sides [role=status]').textContent"
                           ".includes('Certified by your slopes')")  # fmt: skip
    page.get_by_role("button", name="CROWN's slopes").click()
    page.wait_for_timeout(60)
    assert stage(page, "s.get()")["s1"] == 0
    page.get_by_role("button", name="one step up").click()
    page.wait_for_timeout(60)
    assert stage(page, "s.get()")["s1"] == pytest.approx(0.125)  # 0.1 * 1.25
    page.get_by_role("button", name="ascend").click()
    page.wait_for_timeout(60)
    assert stage(page, FOUND)["least"]["alpha"] == pytest.approx(0.375, abs=1e-3)


def test_the_ball_is_dragged(opened) -> None:
    """Its corner sets the radius, any other place the centre; arrow keys, too."""
    page = opened("polytope", width=390)
    square = page.get_by_role("application")
    square.scroll_into_view_if_needed()
    box = square.bounding_box()

    def at(u: float, v: float) -> tuple[float, float]:  # as the axes have them
        wide, high = box["width"] - 48, box["height"] - 44
        return box["x"] + 40 + u * wide, box["y"] + 10 + (1 - v / 1.1) * high

    page.mouse.move(*at(1, 1))
    page.mouse.down()
    page.mouse.move(*at(0.7, 0.7), steps=4)
    page.mouse.up()
    page.mouse.move(*at(0.5, 0.5))
    page.mouse.down()
    page.mouse.move(*at(0.3, 0.6), steps=4)
    page.mouse.up()
    state = stage(page, "s.get()")
    assert state["eps"] == pytest.approx(0.2, abs=0.02)
    assert (state["cx"], state["cy"]) == pytest.approx((0.3, 0.6), abs=0.02)
    square.focus()
    page.keyboard.press("ArrowUp")
    assert stage(page, "s.get()")["cy"] == pytest.approx(state["cy"] + 0.02)
