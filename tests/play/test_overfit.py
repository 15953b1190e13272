"""The epochs of one-step training: the record, how it is made, and a hand on it."""

import sys
from pathlib import Path

import pytest
import torch
from hands import SMALL, WIDER, stage

from advlib import attacks, models, play, results

sys.path.insert(0, str(Path(__file__).parents[2] / "tools" / "experiments"))

import fgsm_ray

SET = """async state => {
  document.querySelector('.sides').stage.set(state);
  for (let k = 0; k < 2; k++) await new Promise(requestAnimationFrame);
}"""
KEYS = {"FGSM": "fgsm_3", "fast": "fast_3"}
RECORD = results.load("fgsm_ray")["data"]


def test_data_are_the_record() -> None:
    """Epoch by epoch, number by number; FGSM's training is the one that collapses."""
    data = play.stored("overfit")
    assert data["shares"] == RECORD["shares"]
    for name, key in KEYS.items():
        for shown, row in zip(data["runs"][name], RECORD["runs"][key], strict=True):
            for way, wrong in row["errors"].items():
                assert shown[way] == wrong / RECORD["images"]
            assert row["errors"]["clean"] <= row["errors"]["fgsm"]
            assert shown["rays"] == row["rays"]
    last = {name: data["runs"][name][-1] for name in KEYS}
    assert last["FGSM"]["pgd"] > 0.5 > 0.2 > last["fast"]["pgd"]
    hidden = last["FGSM"]["rays"]["pgd"]  # far more than the gradient tells
    assert hidden["loss"][-1] - hidden["loss"][0] > 5 * hidden["slope"]


def test_the_way_to_a_point() -> None:
    """On a linear model of two classes all is known: PGD ends where FGSM does."""
    model = models.seeded(models.linear, (1, 4, 4), 2, seed=0).double().eval()
    model.requires_grad_(False)
    x = 0.4 + 0.2 * torch.rand(9, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    x, y = x.double(), torch.arange(9) % 2
    found, delta = fgsm_ray.rays(model, x, y, 0.1), attacks.fgsm(model, x, y, 0.1)
    assert found["pgd"] == found["fgsm"] == fgsm_ray.ray(model, x, y, delta)
    losses = found["fgsm"]["loss"]
    for k, share in ((0, 0.0), (7, 0.35), (20, 1.0)):
        loss = attacks.cross_entropy(model(x + share * delta), y).mean()
        assert losses[k] == pytest.approx(float(loss), abs=1e-4)
    assert losses == sorted(losses)
    assert 0 < found["fgsm"]["slope"] < losses[-1] - losses[0]  # it is convex there
    near = fgsm_ray.ray(model, x, y, delta / 20)
    assert near["slope"] == pytest.approx(near["loss"][-1] - near["loss"][0], abs=3e-4)


@pytest.mark.parametrize(("width", "mode"), [(1440, "light"), (390, "dark")])
def test_hands(opened, width: int, mode: str) -> None:
    """Slider, arrows and mouse choose the epoch; its numbers are said."""
    page = opened("overfit", width=width, mode=mode)
    assert page.evaluate(WIDER) == page.evaluate(SMALL) == []
    sizes = page.locator(".sides svg").evaluate_all(
        "all => all.map(e => e.getBoundingClientRect().width / e.viewBox.baseVal.width)"
    )
    assert sizes == pytest.approx([1, 1], abs=0.02)
    chart = page.get_by_role("application")
    words = page.locator(".sides > p:not(.title):not(.hidden)")
    many = len(RECORD["runs"]["fgsm_3"])
    for name, key in KEYS.items():
        for epoch in (1, 4, many):
            page.evaluate(SET, {"run": name, "epoch": epoch})
            row = RECORD["runs"][key][epoch - 1]
            for wrong in row["errors"].values():
                assert f"{100 * wrong / RECORD['images']:.1f} %" in words.inner_text()
            for ray in row["rays"].values():
                rise = ray["loss"][-1] - ray["loss"][0]
                told = f"{ray['slope']:.2f}; it rises by {rise:.2f}".replace("-", "−")
                assert told.split(";")[0] in words.inner_text()
                assert told.split("; ")[1][:-1] in words.inner_text()
            pictures = page.get_by_role("img").last.get_attribute("aria-label")
            assert f"to {row['rays']['pgd']['loss'][-1]:.2f}" in pictures
    chart.focus()
    page.keyboard.press("ArrowLeft")
    assert stage(page, "s.get().epoch") == many - 1
    page.keyboard.press("Shift+ArrowLeft")
    assert stage(page, "s.get().epoch") == 1
    page.get_by_role("slider").press("ArrowRight")
    box = chart.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 9, box["y"] + 60, steps=3)
    page.mouse.up()
    assert stage(page, "s.get().epoch") == many
    page.wait_for_timeout(650)
    said = page.locator(".sides [role=status]").inner_text()
    assert f"Trained with fast. After epoch {many}" in said


def test_it_plays_and_stops(opened) -> None:
    """From the first epoch to the last, or there at once with less motion."""
    page = opened("overfit")
    many = len(RECORD["runs"]["fgsm_3"])
    play_button = page.get_by_role("button", name="Play")
    play_button.press("Enter")
    page.wait_for_function("document.querySelector('.sides').stage.get().epoch >= 3")
    page.get_by_role("button", name="Stop").press("Enter")
    epoch = stage(page, "s.get().epoch")
    page.wait_for_timeout(800)
    assert stage(page, "s.get().epoch") == epoch < many
    page = opened("overfit", reduced_motion="reduce")
    page.get_by_role("button", name="Play").press("Enter")
    assert stage(page, "s.get().epoch") == many
    assert page.get_by_role("button", name="Play").is_visible()
