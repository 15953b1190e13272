"""Walks along the gradient's sign: margins, tangents and flips are the networks'."""

import numpy as np
import pytest
import torch
from hands import SMALL, WIDER, stage

from advlib import attacks, data, play, zoo
from advlib.play.figures.walk import tangent

NETS = ("fc10_1e-4", "fc_100_100", "cnn_small", "cnn_small_pgd_0")


@pytest.mark.parametrize("name", NETS)
def test_walks_are_the_networks(opened, mnist, name: str) -> None:
    """Signs, margins, classes and tangents at four points, for three images."""
    dataset, record = data.load("mnist"), play.stored("walk")
    model = zoo.load(name, dataset).double().requires_grad_(False)
    page = opened("walk")
    for digit in (0, 3, 8):
        place = record["places"][digit]
        x, y = (part[place : place + 1] for part in dataset.test)
        x, label = x.double(), int(y)
        assert label == digit
        v = attacks.input_gradient(model, x, y).sign()
        z, slope = model(x), (model(x + 1e-6 * v) - model(x - 1e-6 * v)) / 2e-6
        for step in (0, 7, 40, 80):
            page.evaluate(
                "s => document.querySelector('.sides').stage.set(s)",
                {"net": name, "digit": digit, "step": step},
            )
            page.wait_for_timeout(60)
            seen = stage(page, "s.seen")
            logits = model(x + seen["eps"] * v)[0]
            others = torch.arange(10) != label
            margin = float(logits[label] - logits[others].max())
            assert seen["margin"] == pytest.approx(margin, abs=1e-4)
            if abs(margin) > 1e-3:
                assert seen["said"] == int(logits.argmax())
            line = (z + seen["eps"] * slope)[0]
            line_margin = float(line[label] - line[others].max())
            assert seen["by"] == pytest.approx(line_margin, abs=1e-3)
        found = np.array(stage(page, "[...s.direction]"))
        assert (found == v.flatten().numpy()).all()


def test_flips_are_where_the_signs_change(mnist) -> None:
    """Just before: right, and just after: wrong; the same for the tangent."""
    dataset, record = data.load("mnist"), play.stored("walk")
    for name in NETS:
        model = zoo.load(name, dataset).double().requires_grad_(False)
        for digit, one in enumerate(record["walks"][name]):
            place = record["places"][digit]
            x, y = (part[place : place + 1] for part in dataset.test)
            v = attacks.input_gradient(model, x.double(), y).sign()
            if one["actual"] is not None:
                ends = torch.tensor([-2e-4, 2e-4]).double() + one["actual"]
                way = x.double() + ends.view(-1, 1, 1, 1) * v
                assert (model(way).argmax(1) == digit).tolist() == [True, False]
            before, after = tangent(one, one["predicted"] * np.array([0.999, 1.001]))
            assert before > 0 > after
    linear = record["walks"]["fc10_1e-4"]
    assert [one["predicted"] for one in linear] == pytest.approx(
        [one["actual"] for one in linear], abs=2e-5
    )
    assert any(one["actual"] is None for one in record["walks"]["cnn_small_pgd_0"])


def test_hands(opened) -> None:
    """Slider by keys, chart by mouse and keys; words follow, a new walk starts at 0."""
    page = opened("walk", width=390, mode="dark")
    slider = page.locator("input[type=range]")
    slider.focus()
    page.keyboard.press("End")
    page.wait_for_timeout(650)
    words = page.locator(".sides [role=status]")
    first = words.inner_text()
    assert "the network says 3" in first
    assert stage(page, "s.seen.eps") == 0.2
    page.get_by_role("radio", name="CNN, PGD-trained").check(force=True)
    page.get_by_role("radio", name="8", exact=True).check(force=True)
    page.wait_for_timeout(650)
    assert stage(page, "s.get().step") == 0
    assert "does not change up to 3.16" in words.inner_text()
    assert page.evaluate(WIDER) == page.evaluate(SMALL) == []
    chart = page.locator(".sides [role=slider]")
    chart.focus()
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(60)
    assert stage(page, "s.get().step") == 11
    assert chart.get_attribute("aria-valuenow") == "11"
    page.set_viewport_size({"width": 1000, "height": 900})
    page.wait_for_timeout(150)
    assert stage(page, "s.get().step") == 11
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    y, half = box["y"] + 100, box["x"] + 40 + (box["width"] - 48) / 2
    page.mouse.move(box["x"] + 45, y)
    page.mouse.down()
    page.mouse.move(half, y, steps=4)
    page.mouse.up()
    page.wait_for_timeout(60)
    assert stage(page, "s.get().step") == 40
    assert slider.input_value() == "40"
