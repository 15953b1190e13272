"""An arrow between two units: top images, purity and rank as the library has them."""

import base64

import numpy as np
import pytest
import torch
from hands import SMALL, WIDER, stage

from advlib import data, play, units, zoo
from advlib.play.figures.turn import purity, tops


@pytest.fixture(scope="module")
def space(mnist) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the chapter's activations (N, n), labels, and images."""
    dataset = data.load("mnist")
    net, (x, y) = zoo.load("cnn_shallow_0", dataset), dataset.test
    live = units.live_units(units.features(net, dataset.validation[0], -2))
    return units.features(net, x, -2)[:, live], y, x


def test_all_angles_are_the_librarys(opened, space) -> None:
    """Rows of eight at 360 angles: from the network itself, up to ties by rounding."""
    phi, y, _ = space
    record, angles = play.stored("turn"), torch.arange(360).double().deg2rad()
    first, second = phi.std(0).argsort(descending=True)[:2]
    arrows = torch.stack([angles.cos(), angles.sin()], 1).round(decimals=12)
    around = torch.zeros(360, phi.shape[1]).double()
    around[:, first], around[:, second] = arrows.T
    expected = units.top_images(phi, around, 8).numpy()
    rows = opened("turn").evaluate("""() => Array.from({length: 360}, (_, angle) => {
      const { best, most, label } = Sides.figures.turn.top(angle);
      return { best, most, label };
    })""")
    places = np.array(record["places"])
    found = np.array([row["best"] for row in rows])
    assert (places[found] == expected).all(1).mean() > 0.98
    share = units.purity(y[torch.tensor(expected)])
    assert [row["most"] / 8 for row in rows] == pytest.approx(share.tolist())
    assert (tops(record, np.arange(360)) == found).all()
    assert [row["most"] / 8 for row in rows] == pytest.approx(purity(record, found))
    for row in rows:
        of = [record["labels"][k] for k in row["best"]]
        assert of.count(row["label"]) == row["most"]
    assert record["labels"] == y[places].tolist()


def test_pictures_and_random_directions(opened, space) -> None:
    """16 greys a pixel; the histogram of 1000 random directions."""
    phi, y, x = space
    record = play.stored("turn")
    shown = opened("turn").evaluate("Sides.figures.turn.images().map(x => [...x])")
    whole = x[record["places"]].flatten(1).numpy()
    assert len(shown) == len(whole)
    assert np.abs(np.array(shown) - whole).max() <= 1 / 30 + 1e-6
    assert len(base64.b64decode(record["pixels"])) == 392 * len(whole)
    g = torch.Generator().manual_seed(0)
    v = units.random_directions(1000, phi.shape[1], generator=g)
    pure = units.purity(y[units.top_images(phi, v, 8)])
    counted = [int((pure == k / 8).sum()) for k in range(9)]
    assert np.abs(np.array(record["random"]) - counted).sum() <= 2


def test_hands(opened) -> None:
    """Slider and arrow by keys, the arrow by mouse; words and marks follow."""
    page = opened("turn", width=390, mode="dark")
    slider = page.locator("input[type=range]")
    slider.focus()
    page.keyboard.press("Home")
    page.wait_for_timeout(650)
    words = page.locator(".sides [role=status]")
    assert words.inner_text().startswith("0 degrees, unit 1. Purity 0.875")
    seen = stage(page, "s.seen")
    random = play.stored("turn")["random"]
    assert [seen["less"], seen["same"], seen["more"]] == [
        sum(random[:7]), random[7], random[8]]  # fmt: skip
    plane = page.locator(".sides svg").first
    plane.focus()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Shift+ArrowRight")
    page.wait_for_timeout(60)
    assert stage(page, "s.get().angle") == 11
    assert slider.input_value() == "11"
    page.keyboard.press("Shift+ArrowDown")
    page.keyboard.press("Shift+ArrowLeft")
    page.wait_for_timeout(60)
    assert stage(page, "s.get().angle") == 351  # it goes round
    assert page.evaluate(WIDER) == page.evaluate(SMALL) == []
    page.set_viewport_size({"width": 1000, "height": 900})
    page.wait_for_timeout(150)
    assert stage(page, "s.get().angle") == 351
    plane.scroll_into_view_if_needed()
    box = plane.bounding_box()
    width, height = box["width"], box["height"]
    zero = [box["x"] + 40 + 3.2 / 12.2 * (width - 48),
            box["y"] + height - 34 - 3.2 / 12.2 * (height - 44)]  # fmt: skip
    page.mouse.move(zero[0] + 60, zero[1])
    page.mouse.down()
    page.mouse.move(zero[0] + 40, zero[1] - 40, steps=4)
    page.wait_for_timeout(60)
    assert stage(page, "s.get().angle") == pytest.approx(45, abs=1)
    page.mouse.move(zero[0], zero[1] - 80, steps=4)
    page.mouse.up()
    page.wait_for_timeout(60)
    assert stage(page, "s.get().angle") == pytest.approx(90, abs=1)
    assert plane.get_attribute("aria-valuenow") == str(stage(page, "s.get().angle"))
    assert page.locator(".sides canvas").count() == 8
