"""Dual norms: the page's worst change is advlib's, and attains the dual norm."""

import json
import math

import numpy as np
import pytest
import torch
from hands import stage

from advlib import linear

NAMES = {1: "l1", 2: "l2", math.inf: "linf"}


def states(count: int) -> list[tuple[list[float], list[float], float]]:
    """Return weights, points and radii; some weights and rooms are 0, some equal."""
    rng = np.random.default_rng(4)
    made = [([2, 0], [0.5, 0], 0.3), ([1, -1], [0.1, 1], 0.5), ([0, 0], [0, 1], 0.2)]
    for _ in range(count - len(made)):
        w, x = rng.uniform(-2, 2, 2), rng.uniform(0, 1, 2).round(1)
        made.append((w.tolist(), x.tolist(), float(rng.uniform(0.05, 1))))
    return made


def least(page, p: float, *, box: bool, count: int = 40) -> np.ndarray:
    """Return the page's least w . delta for each state."""
    order = "Infinity" if math.isinf(p) else p
    calls = f"([w, x, eps]) => s.least(w, x, eps, {order}, {str(box).lower()})"
    return np.array(stage(page, f"{json.dumps(states(count))}.map({calls})"))


@pytest.mark.parametrize("p", NAMES)
def test_the_least_product_is_advlibs(opened, p: float) -> None:
    """In three norms, with the box and without; the box never helps the opponent."""
    page = opened("dual")
    for box in (True, False):
        expected = [
            linear.min_product(
                torch.tensor(w, dtype=torch.float64),
                torch.tensor(x, dtype=torch.float64),
                eps, norm=NAMES[p], box=box,
            ).item()
            for w, x, eps in states(40)
        ]  # fmt: skip
        assert least(page, p, box=box) == pytest.approx(np.array(expected), abs=1e-9)


@pytest.mark.parametrize("p", [1.1, 1.5, 3, 10])
def test_other_norms(opened, p: float) -> None:
    """Without the box the dual norm; with it, no point of a fine ring does better."""
    page, q = opened("dual"), p / (p - 1)
    free, kept = (least(page, p, box=box) for box in (False, True))
    dual = [eps * np.linalg.norm(w, q) for w, _, eps in states(40)]
    assert -free == pytest.approx(np.array(dual), abs=1e-9)
    angle = np.linspace(0, 2 * np.pi, 20_001)
    ring = np.stack([np.cos(angle), np.sin(angle)], 1)
    ring /= np.linalg.norm(ring, p, axis=1, keepdims=True)
    for (w, x, eps), found in zip(states(40), kept, strict=True):
        # the ball's edge, and the box's edges as far as they lie in the ball
        edge = np.linspace(0, 1, 2001)
        sides = [np.stack([np.full(2001, v), edge], 1) for v in (0.0, 1.0)]
        sides += [side[:, ::-1] for side in sides]
        delta = np.concatenate([eps * ring, *(side - x for side in sides), [[0, 0]]])
        inside = ((x + delta >= -1e-12) & (x + delta <= 1 + 1e-12)).all(1)
        inside &= np.linalg.norm(delta, p, axis=1) <= eps * (1 + 1e-9)
        grid = (delta[inside] @ w).min()
        assert found <= grid + 1e-9
        assert found >= grid - 5e-3


def test_hands_keys_and_words(opened) -> None:
    """The mouse takes what is near; keys move what is chosen; the box is said."""
    page = opened("dual")
    board, said = page.locator(".draggable"), page.locator("[role=status]")
    box = board.bounding_box()

    def place(v: list[float]) -> tuple[float, float]:
        share = [(a + 0.35) / 1.7 for a in v]
        return (box["x"] + share[0] * box["width"],
                box["y"] + (1 - share[1]) * box["height"])  # fmt: skip

    page.mouse.move(*place([0.2 + 0.34, 0.7 + 0.17]))  # the tip of w
    page.mouse.down()
    page.mouse.move(*place([0.2 - 0.17, 0.7]), steps=3)
    page.mouse.up()
    now = stage(page, "s.get()")
    assert now["w"] == pytest.approx([-1, 0], abs=0.06)
    assert now["held"] == "w"
    page.mouse.move(*place([0.2, 0.7]))
    page.mouse.down()
    page.mouse.move(*place([0.5, 0.5]), steps=3)
    page.mouse.up()
    assert stage(page, "s.get().x") == pytest.approx([0.5, 0.5], abs=0.01)
    stage(page, "s.set({w: [1, .5], x: [.1, .5], held: 'x'})")
    board.focus()
    page.keyboard.press("Shift+ArrowLeft")
    assert stage(page, "s.get().x[0]") == 0
    page.get_by_role("radio", name="kept").check()
    words = page.locator(".verdict")
    page.wait_for_timeout(60)
    assert "0.30 × 1.50 = 0.45. Of that the box leaves 33 %" in words.inner_text()
    page.wait_for_timeout(600)
    assert "p = ∞, w = (1.00, 0.50), box kept" in said.inner_text()
    page.get_by_role("slider", name="norm").fill("0")
    page.wait_for_timeout(700)
    assert "p = 1," in said.inner_text()
    assert "ϵ‖w‖∞: 0.30 × 1.00 = 0.30" in words.inner_text()
