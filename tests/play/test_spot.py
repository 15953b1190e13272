"""The shortest way to a target: the page's minimiser against scipy's, and bisection."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hands import SMALL, WIDER, stage

from advlib import play
from advlib.play.figures.spot import solve

SOLVE = """([digit, target, c]) => {
  const net = Sides.network(Sides.notes.standard), x = Sides.draw.digits()[digit];
  const { point, value, rms, said } = Sides.figures.spot.solve(net, x, target, c);
  return { point: [...point], value, rms, said };
}"""


@pytest.mark.parametrize(
    ("digit", "target", "c"),
    [(2, 3, 0.01), (2, 3, 1.0), (7, 9, 10.0), (0, 6, 0.2), (4, 1, 1000.0)],
)
def test_the_minimiser_is_scipys(opened, digit: int, target: int, c: float) -> None:
    """In the box; its value is what Python says; not above L-BFGS-B's by 2 %."""
    found = opened("spot").evaluate(SOLVE, [digit, target, c])
    model = play.from_note(play.stored("standard"))
    x = play.images("digits")[digit : digit + 1]
    point = torch.tensor(found["point"], dtype=torch.float64).view_as(x)
    assert point.min() >= 0
    assert point.max() <= 1
    square = (point - x).square().sum()
    logits = model(point)
    loss = c * square + F.cross_entropy(logits, torch.tensor([target]))
    assert found["value"] == pytest.approx(float(loss), rel=1e-9)
    assert found["rms"] == pytest.approx(float(square / 784) ** 0.5, rel=1e-9)
    assert found["said"] == int(logits.argmax())
    z, value, said = solve(model, x, target, c)
    assert found["value"] <= 1.02 * value
    assert said == found["said"]
    length = np.sqrt(np.mean((z - x.numpy().ravel()) ** 2))
    assert found["rms"] == pytest.approx(length, rel=0.05)


def press(page, words: str) -> dict:
    """Press a button; return what is seen then."""
    page.get_by_role("button", name=words).click()
    page.wait_for_timeout(120)
    return stage(page, "({...s.seen, point: 0, share: 0, log: s.get().log})")


def test_bisection_by_two_buttons(opened) -> None:
    """Larger after a hit, smaller after a miss: the bracket halves, and stays true."""
    page = opened("spot", width=390, mode="dark")
    page.wait_for_timeout(100)
    seen = stage(page, "({...s.seen, point: 0, share: 0, log: s.get().log})")
    widths = []
    for _ in range(11):
        seen = press(page, "larger" if seen["hit"] else "smaller")
        widths.append(seen["high"] - seen["low"])
        if widths[-1] < 0.015:
            break
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] == pytest.approx(0.01)
    text = page.locator(".sides").inner_text()
    assert "Found: c =" in text
    low, high = (10 ** seen[key] for key in ("low", "high"))
    model, x = play.from_note(play.stored("standard")), play.images("digits")[2:3]
    assert solve(model, x, 3, 0.8 * low)[2] == 3
    assert solve(model, x, 3, 1.25 * high)[2] != 3
    wrong = press(page, "larger")  # a wrong turn changes no bracket
    assert [wrong["low"], wrong["high"]] == [seen["low"], seen["high"]]
    assert page.evaluate(WIDER) == page.evaluate(SMALL) == []


def test_hands(opened) -> None:
    """The slider by keys: longer weight, shorter change; words and choices follow."""
    page = opened("spot")
    slider = page.get_by_role("slider")
    slider.focus()
    page.keyboard.press("Home")
    page.wait_for_timeout(650)
    words = page.locator(".sides [role=status]")
    assert "the network says 3" in words.inner_text()
    long = stage(page, "s.seen.rms")
    page.keyboard.press("End")
    page.wait_for_timeout(650)
    assert stage(page, "s.seen.rms") < 0.01 * long
    assert "the network says 2" in words.inner_text()
    group = page.get_by_role("group", name="it should say")
    group.get_by_role("radio", name="2", exact=True).check(force=True)
    page.wait_for_timeout(100)
    assert slider.is_disabled()
    assert "choose another target" in page.locator(".sides").inner_text()
    group.get_by_role("radio", name="7", exact=True).check(force=True)
    page.wait_for_timeout(150)
    assert stage(page, "[s.get().log, s.get().tried.length]") == [0, 1]
    assert page.locator(".sides svg circle").count() in (1, 2)
    least = page.evaluate("""() => {
      const net = Sides.network(Sides.notes.standard), x = Sides.draw.digits()[2];
      return [.01, .1, 1, 10].map(c => {
        const begin = performance.now();
        Sides.figures.spot.solve(net, x, 3, c);
        return performance.now() - begin;
      });
    }""")
    assert min(least) < 50
