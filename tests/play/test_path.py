"""PGD on two patches: its points are the library's, and a hand moves its start."""

import pytest
import torch
from hands import SMALL, WIDER, stage
from torch.testing import assert_close

from advlib import attacks, play
from advlib.play.figures import path

ATTACKS = {"linf": attacks.pgd_linf, "l2": attacks.pgd_l2, "l1": attacks.pgd_l1}
SET = """async state => {
  document.querySelector('.sides').stage.set(state);
  for (let k = 0; k < 2; k++) await new Promise(requestAnimationFrame);
}"""
X, Y = torch.tensor([path.IMAGE]).double(), torch.tensor([path.DIGIT])


def walked(page, **state) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the points (K, 2) of the page in this ``state``, and their losses (K,)."""
    state = {"step": "steepest", "clamp": "after"} | state
    page.evaluate(SET, state)
    points = stage(page, "s.points().map(p => [...p.u, p.loss])")
    found = torch.tensor(points).double()
    return found[:, :2], found[:, 2]


def test_two_patches_of_the_real_network() -> None:
    """The small network is the whole one, seen through two numbers."""
    model, whole = path.network(), play.from_note(play.stored("standard"))
    image = play.images("digits")[path.DIGIT : path.DIGIT + 1]
    for pair in ((0.0, 0.0), (0.2, 0.9), (1.0, 0.4)):
        shown = image.clone()
        for value, (row, column) in zip(pair, path.CORNERS, strict=True):
            shown[..., row : row + path.SIDE, column : column + path.SIDE] = value
        assert_close(model(torch.tensor([pair]).double()), whole(shown))


def test_points_are_those_of_the_library(opened) -> None:
    """Three norms, from the image and from random starts; every tenth step."""
    page, model = opened("path"), path.network()
    for number, (norm, attack) in enumerate(ATTACKS.items()):
        for seed, alpha in ((None, -1.3), (number, -0.7), (number + 5, 0.2)):

            def points(k, attack=attack, seed=seed, alpha=alpha):
                g = None if seed is None else torch.Generator().manual_seed(seed)
                return X + attack(model, X, Y, path.EPS, alpha=10**alpha, num_steps=k,
                                  generator=g)  # fmt: skip

            start = (points(0) - X)[0].tolist()
            found, loss = walked(page, norm=norm, start=start, alpha=alpha, steps=21)
            for k in (0, 1, 2, 7, 21):
                assert_close(found[k : k + 1], points(k), rtol=0, atol=1e-6)
                expected = attacks.cross_entropy(model(points(k)), Y)[0]
                assert loss[k].item() == pytest.approx(float(expected), abs=1e-6)


def test_raw_steps_and_the_trap(opened) -> None:
    """The gradient itself, and the clamp inside the graph, as autograd has them."""
    page, model = opened("path"), path.network()
    found, _ = walked(
        page, norm="linf", step="raw", start=[0.0, 0.1], alpha=0.3, steps=9
    )
    low, high = (-X).clamp(min=-path.EPS), (1 - X).clamp(max=path.EPS)
    delta = torch.tensor([[0.0, 0.1]]).double()
    for _ in range(9):
        gradient = attacks.input_gradient(model, X + delta, Y)
        delta = (delta + 10**0.3 * gradient).clamp(low, high)
    assert_close(found[-1:], X + delta, rtol=0, atol=1e-6)
    for start in ((-0.4, 0.2), (-0.45, -0.35), (0.1, -0.3)):
        found, _ = walked(
            page, norm="linf", clamp="inside", start=start, alpha=-1, steps=12
        )
        expected = torch.cat(path.trapped(model, torch.tensor([start]), 0.1, 12))
        assert_close(found, expected, rtol=0, atol=1e-6)
        stuck = (X + torch.tensor(start) < 0)[0]
        assert (found[0] == found[-1]).equal(stuck)
        words = page.locator(".sides .verdict span").inner_text()
        assert ("does not move" in words) == (stuck.sum() == 1)
        assert ("do not move" in words) == (stuck.sum() == 2)


@pytest.mark.parametrize(("width", "mode"), [(1440, "light"), (390, "dark")])
def test_hands(opened, width: int, mode: str) -> None:
    """Mouse and arrows move the start; another start, another verdict, said aloud."""
    page = opened("path", width=width, mode=mode)
    assert page.evaluate(WIDER) == page.evaluate(SMALL) == []
    badge, plane = page.locator(".sides .verdict b"), page.get_by_role("application")
    assert badge.inner_text() == "not fooled"
    box = plane.bounding_box()

    def at(u: float, v: float) -> tuple[float, float]:
        low, high = path.VIEW
        scale = (box["width"] - 42) / (high - low)
        return (box["x"] + 34 + scale * (u - low),
                box["y"] + box["height"] - 34 - scale * (v - low))  # fmt: skip

    page.mouse.move(*at(*path.IMAGE))
    page.mouse.down()
    page.mouse.move(*at(-0.1, 0.45), steps=4)
    page.mouse.up()
    page.wait_for_timeout(60)
    assert stage(page, "s.get().start") == pytest.approx([-0.3, 0.35], abs=0.02)
    assert badge.inner_text() == "fooled"
    page.mouse.click(*at(-0.5, 0.1))  # outside the ball: its edge
    assert stage(page, "s.get().start[0]") == -path.EPS
    page.mouse.click(*at(*path.IMAGE))
    before = stage(page, "s.get().start")
    for key in ("ArrowRight", "ArrowRight", "Shift+ArrowDown"):
        page.keyboard.press(key)
    moved = [before[0] + 0.04, before[1] - 0.2]
    assert stage(page, "s.get().start") == pytest.approx(moved, abs=2e-3)
    page.wait_for_timeout(600)
    said = page.locator(".sides [role=status]")
    assert "right patch −0.10. fooled" in said.inner_text()
    page.get_by_role("radio", name="inside the graph").check()
    page.wait_for_timeout(600)
    assert "does not move" in said.inner_text()
    page.get_by_role("slider", name="steps").press("Home")
    page.wait_for_timeout(60)
    assert stage(page, "s.points().length") == 1
