"""Three classes in the plane: climbs are PGD's, the bound is advlib's."""

import json

import numpy as np
import pytest
import torch
from hands import stage

from advlib import attacks, linear, models
from advlib.play.figures import rivals


def states(count: int) -> list[dict]:
    """Return weights of two rivals, a start and a radius each."""
    rng = np.random.default_rng(6)
    made = [{"one": [-8, 2], "two": [6, 3], "start": [0.15, -0.3], "eps": 0.4}]
    for _ in range(count - 1):
        one, two = rng.uniform(-10, 10, (2, 2)).round(1).tolist()
        eps = float(rng.uniform(0.1, 0.5))
        start = rng.uniform(-eps, eps, 2).tolist()
        made.append({"one": one, "two": two, "start": start, "eps": eps})
    return made


def model(state: dict) -> torch.nn.Module:
    """Return the model of a state: three logits that are 0 at the middle (.5, .5)."""
    net = models.linear((1, 1, 2), 3).double().eval()
    rows = torch.tensor([[0, 0], state["one"], state["two"]], dtype=torch.float64)
    with torch.no_grad():
        net[1].weight.copy_(rows)
        net[1].bias.copy_(-rows.sum(1) / 2)
    return net.requires_grad_(False)


def test_attack_exact_and_bound(opened) -> None:
    """PGD from the same start, the largest of a grid, and ``cross_entropy_bound``."""
    page, ticks = opened("rivals"), np.linspace(-1, 1, 101)
    found = stage(page, f"{json.dumps(states(25))}.map(s.hold)")
    for state, now in zip(states(25), found, strict=True):
        net, eps, y = model(state), state["eps"], torch.tensor([0])
        x = torch.full((1, 1, 1, 2), 0.5).double()
        start = torch.tensor(state["start"], dtype=torch.float64).view(x.shape)
        delta = attacks.pgd_linf(net, x, y, eps, alpha=eps / 20, num_steps=40,
                                 start=start)  # fmt: skip
        end = attacks.cross_entropy(net(x + delta), y)
        assert now["attack"] == pytest.approx(end.item(), abs=1e-9)
        weights = np.array([state["one"], state["two"]])
        grid = eps * np.stack(np.meshgrid(ticks, ticks), -1)
        losses = rivals.loss(grid, weights)
        assert now["exact"] == pytest.approx(losses.max(), abs=1e-9)
        bound = linear.cross_entropy_bound(net, x, y, eps, box=False)
        assert now["bound"] == pytest.approx(bound.item(), abs=1e-9)
        assert now["attack"] <= now["exact"] + 1e-9
        assert now["exact"] <= now["bound"] + 1e-9
    assert any(now["exact"] - now["attack"] > 0.1 for now in found)
    assert any(now["bound"] - now["exact"] < 1e-9 for now in found)


def test_the_rings_are_starts_that_end_lower(opened) -> None:
    """As many as a climb in Python finds on the same grid."""
    page, state = opened("rivals"), states(1)[0]
    short = stage(page, f"s.hold({json.dumps(state)}).short")
    middle = rivals.EPS * ((2 * np.arange(15) + 1) / 15 - 1)
    exact = stage(page, f"s.hold({json.dumps(state)}).exact")
    low = [(a, b) for b in middle for a in middle
           if exact - rivals.loss(rivals.climb((a, b))[-1]) > 0.01]  # fmt: skip
    assert 50 < len(short) < 150
    assert np.abs(np.array(short) - np.array(low)).max() < 1e-12


def test_hands_keys_and_words(opened) -> None:
    """Start and tips by mouse and keys; the sentences follow."""
    page = opened("rivals")
    board, said = page.locator(".draggable"), page.locator("[role=status]")
    words, box = page.locator(".verdict"), board.bounding_box()

    def place(a: float, b: float) -> tuple[float, float]:
        return (box["x"] + (1 + a / 0.52) / 2 * box["width"],
                box["y"] + (1 - b / 0.52) / 2 * box["height"])  # fmt: skip

    assert "ends 0.39 below the largest loss" in words.inner_text()
    page.mouse.move(*place(-0.1, -0.2))
    page.mouse.down()
    page.mouse.move(*place(-0.15, -0.3), steps=3)
    page.mouse.up()
    assert stage(page, "s.get().start") == pytest.approx([-0.15, -0.3], abs=0.01)
    assert "ends at the largest loss, in the upper left" in words.inner_text()
    page.mouse.move(*place(0.27, 0.135))
    page.mouse.down()
    page.mouse.move(*place(-0.27, 0.135), steps=4)
    page.mouse.up()
    now = stage(page, "s.get()")
    assert now["held"] == "two"
    assert now["two"] == pytest.approx([-6, 3], abs=0.5)
    page.wait_for_timeout(60)
    assert "the bound is exact" in words.inner_text()
    page.get_by_role("radio", name="rival 1").check()
    board.focus()
    for _ in range(2):
        page.keyboard.press("Shift+ArrowRight")
    page.wait_for_timeout(700)
    assert stage(page, "s.get().one") == pytest.approx([2, 2], abs=0.5)
    assert "rival 1 stands upper right, rival 2 upper left" in said.inner_text()
