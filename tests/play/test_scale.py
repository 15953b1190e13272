"""The scale of the logits: the page's factors are autograd's, and its hands work."""

import pytest
import torch
import torch.nn.functional as F
from hands import stage

from advlib import attacks, data, play, zoo
from advlib.play.figures import scale

FACTORS = (0.01, 0.3, 1, 3, 5)
NAMES = tuple(scale.LOOKS)


def along(page, name: str, factor: float) -> dict:
    """Return what the page computes on the way of one network."""
    return stage(page, f"s.along('{name}', {factor})")


@pytest.mark.parametrize("name", NAMES)
def test_loss_and_margin_are_those_of_the_logits(opened, name: str) -> None:
    """At five scales; the factor of the margin is the same at all of them."""
    page, label = opened("scale"), play.stored("scale")["label"]
    record = play.stored("scale")["networks"][name]
    z, slope = (torch.tensor(record[key], dtype=torch.float64)
                for key in ("logits", "slope"))  # fmt: skip
    y = torch.full((len(z),), label)
    for factor in FACTORS:
        found = along(page, name, factor)
        loss = F.cross_entropy(factor * z, y, reduction="none")
        margin = -attacks.margin_loss(factor * z, y)
        first = (factor * z[:1]).requires_grad_()
        (by,) = torch.autograd.grad(F.cross_entropy(first, y[:1]), first)
        assert found["loss"] == pytest.approx(loss.tolist(), rel=1e-9, abs=1e-13)
        assert found["margin"] == pytest.approx(margin.tolist(), rel=1e-9)
        predicted = float((by[0] * factor * slope).sum())
        if factor <= 1:  # else torch's softmax rounds
            assert found["rise"] == pytest.approx(predicted, rel=1e-9)
            rise = float(loss[-1] - loss[0]) / predicted
            assert found["lossFactor"] == pytest.approx(rise, rel=1e-9)
        assert found["says"] == int(z[-1].argmax()) != label
    once, thrice = along(page, name, 1), along(page, name, 3)
    assert once["marginFactor"] == pytest.approx(thrice["marginFactor"], rel=1e-12)
    assert thrice["lossFactor"] > 50 * once["lossFactor"]


@pytest.mark.usefixtures("mnist")
@pytest.mark.parametrize("name", ["linear", "dnn_4"])
def test_the_record_is_the_zoos(name: str) -> None:
    """The network itself, its own gradient, and the end of the way."""
    import play_records

    dataset, k = data.load("mnist"), play_records.SCALED_IMAGE
    x, y = (part[k : k + 1] for part in dataset.test)
    net, x = zoo.load(name, dataset).double(), x.double()
    delta = attacks.pgd_linf(net, x, y, 0.1, alpha=0.1 / 4, num_steps=15,
                             loss=attacks.margin_loss)  # fmt: skip
    predicted = float((attacks.input_gradient(net, x, y) * delta).sum())
    found = scale.along(name)
    with torch.no_grad():
        rise = F.cross_entropy(net(x + delta), y) - F.cross_entropy(net(x), y)
    assert found["rise"] == pytest.approx(predicted, rel=2e-3)
    assert found["loss"][-1] - found["loss"][0] == pytest.approx(float(rise), abs=1e-3)


def test_hands_and_words(opened) -> None:
    """The slider scales the chosen network alone; words and verdict follow."""
    page = opened("scale", width=390)
    slider, said = page.get_by_role("slider"), page.locator("[role=status]")
    slider.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    names = page.locator(".sides svg[aria-label*='True change']")
    page.wait_for_function(
        "document.querySelector('[role=status]').textContent.includes('times 3')"
    )
    assert "linear model, logits times 3" in said.inner_text()
    factor = along(page, "linear", 3)["lossFactor"]
    assert factor > along(page, "cnn", 1)["lossFactor"] > 1000
    assert "CNN, logits times 1:" in names.get_attribute("aria-label")
    assert "says 7, at every scale" in page.locator(".verdict").inner_text()
    page.get_by_role("radio", name="CNN").check()
    page.wait_for_timeout(60)
    assert stage(page, "s.scales[s.get().at]") == 1
    slider.fill("0")
    page.get_by_role("radio", name="linear model").check()
    page.wait_for_timeout(60)
    assert stage(page, "s.scales[s.get().at]") == 3
    page.wait_for_timeout(600)
    assert "linear model, logits times 3: " in said.inner_text()
    assert "CNN, logits times 0.01" in names.get_attribute("aria-label")
