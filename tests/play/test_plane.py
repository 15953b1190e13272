"""The plane of the tiny network: the page's margins are advlib's, and those of LPs."""

from itertools import product

import numpy as np
import pytest
import torch
from hands import stage
from scipy.optimize import linprog
from torch import Tensor, nn

from advlib import bounds, play
from advlib.play.figures import plane

STATES = [  # x, y, radius
    (0.3575, 0.5171, 0.08), (0.69, 0.098, 0.14), (0.1, 0.95, 0.25), (0.8, 0.62, 0.05),
]  # fmt: skip


@pytest.fixture(scope="module")
def net() -> nn.Sequential:
    """Return the network that the page has."""
    return plane.network(play.stored("plane"))


def answer(net: nn.Sequential, point: Tensor) -> int:
    """Return the class of a point (2,)."""
    return int(net(point.view(1, 1, 1, 2)).argmax())


def by_programs(net: nn.Sequential, low: Tensor, high: Tensor, label: int) -> float:
    """Return the least margin on a box: a linear program for each of 256 patterns."""
    w, b, read, last = (p.numpy() for p in net.parameters())
    row, best = read[label] - read[1 - label], np.inf
    ends = list(zip(low.tolist(), high.tolist(), strict=True))
    for on in map(np.array, product([0.0, 1.0], repeat=len(b))):
        sign = 1 - 2 * on
        found = linprog((row * on) @ w, A_ub=sign[:, None] * w, b_ub=-sign * b,
                        bounds=ends)  # fmt: skip
        if found.status == 0:
            best = min(best, found.fun + (row * on) @ b)
    return best + last[label] - last[1 - label]


def hold(page, x: float, y: float, eps: float, cuts: int = 0) -> dict:
    """Return what the page knows of a square."""
    state = f"{{x: {x}, y: {y}, eps: {eps}, cuts: {cuts}}}"
    return stage(page, f"JSON.parse(JSON.stringify(s.hold({state})))")


def test_all_margins_are_advlibs(opened, net: nn.Sequential) -> None:
    """Ends of PGD, CROWN, intervals, and the exact margin of polygons in Python."""
    page = opened("plane")
    for x, y, eps in STATES:
        found, point = hold(page, x, y, eps), torch.tensor([x, y], dtype=torch.float64)
        label = answer(net, point)
        expected = plane.margins(net, point, label, eps)
        assert found["label"] == label
        assert np.abs(np.array(found["ends"]) - expected["pgd"]).max() < 1e-9
        for name in ("exact", "crown", "interval"):
            assert found[name] == pytest.approx(expected[name], abs=1e-9), name
        assert found["interval"] <= found["crown"] <= found["exact"] + 1e-9
        assert found["exact"] <= found["attack"] + 1e-9


@pytest.mark.parametrize("state", STATES[:2])
def test_the_exact_margin_is_that_of_all_patterns(opened, net, state) -> None:
    """And it is attained at the star, which is allowed."""
    *point, eps = state
    found = hold(opened("plane"), *state)
    point = torch.tensor(point, dtype=torch.float64)
    low, high = (point - eps).clamp(min=0), (point + eps).clamp(max=1)
    least = by_programs(net, low, high, found["label"])
    assert found["exact"] == pytest.approx(least, abs=1e-7)
    star = torch.tensor(found["point"], dtype=torch.float64)
    assert (star >= low - 1e-12).all()
    assert (star <= high + 1e-12).all()
    z = net(star.view(1, 1, 1, 2))[0]
    there = float(z[found["label"]] - z[1 - found["label"]])
    assert there == pytest.approx(found["exact"], abs=1e-9)


def test_parts_cover_the_square_and_are_sound(opened, net: nn.Sequential) -> None:
    """Each bound is advlib's on that part, or its parent's; none is above the truth."""
    x, y, eps = STATES[1]
    page = opened("plane")
    before, found = hold(page, x, y, eps), hold(page, x, y, eps, 12)
    assert len(found["parts"]) == 13
    assert found["crown"] == min(part["crown"] for part in found["parts"])
    assert before["crown"] < 0 < found["crown"] <= found["exact"] + 1e-9
    area, label = 0.0, found["label"]
    for part in found["parts"]:
        low, high = (
            torch.tensor([part[end]["0"], part[end]["1"]], dtype=torch.float64)
            for end in ("low", "high")
        )
        area += float((high - low).prod())
        least = min(p[2].min() for p in plane.pieces(net, low, high, label))
        scaled = nn.Sequential(nn.Flatten(), nn.Linear(2, 8), *net[2:]).double().eval()
        with torch.no_grad():  # the unit square of this network is the part
            scaled[1].weight.copy_(net[1].weight * (high - low))
            scaled[1].bias.copy_(net[1].bias + net[1].weight @ low)
        middle = torch.full((1, 1, 1, 2), 0.5).double()
        scaled.requires_grad_(False)
        own = bounds.crown_margins(scaled, middle, torch.tensor([label]), 0.5)
        assert own[0, 1 - label].item() - 1e-9 <= part["crown"] <= least + 1e-9
    box = [found["box"][end] for end in ("low", "high")]
    whole = np.prod([box[1][k] - box[0][k] for k in ("0", "1")])
    assert area == pytest.approx(whole, rel=1e-12)


def test_hands_keys_and_words(opened) -> None:
    """Arrows and mouse move the cross; a cut and a radius are said."""
    page = opened("plane")
    said = page.locator(".sides [role=status]")
    page.wait_for_function("document.querySelector('[role=status]').textContent")
    first, before = said.inner_text(), stage(page, "s.get()")
    assert "exact −0.16" in first
    handle = page.locator(".draggable")
    handle.focus()
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("ArrowDown")
    now = stage(page, "s.get()")
    assert now["x"] == pytest.approx(before["x"] + 0.1)
    assert now["y"] == pytest.approx(before["y"] - 0.01)
    box = handle.bounding_box()
    page.mouse.move(box["x"] + 9, box["y"] + 9)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 0.9 * box["height"],
                    steps=3)  # fmt: skip
    page.mouse.up()
    now = stage(page, "s.get()")
    assert (now["x"], now["y"]) == pytest.approx((0.25, 0.1), abs=0.01)
    page.get_by_role("button", name="Point B").click()
    page.get_by_role("slider").fill("0.14")
    badge = page.locator(".verdict b")
    page.wait_for_function("document.querySelector('.verdict b').dataset.is === 'open'")
    split = page.get_by_role("button", name="Split")
    for _ in range(20):
        split.press("Enter")
        page.wait_for_timeout(30)
        if badge.inner_text() == "safe, and proven":
            break
    assert badge.inner_text() == "safe, and proven"
    parts = stage(page, "s.get()")["cuts"] + 1
    assert f"in {parts} parts" in page.locator(".verdict").inner_text()
    page.wait_for_timeout(600)
    assert "radius 0.14" in said.inner_text()
    assert said.inner_text() != first
