"""Nine activations in the page: advlib's numbers, and hands that choose and slide."""

import numpy as np
import pytest
import torch
from hands import SMALL, WIDER, stage
from playwright.sync_api import Page
from torch import nn

from advlib import activations
from advlib.play.figures.gates import NINE, network, slopes

ALPHAS = {
    "elu": [0.1, 1.0, 3.0],
    "celu": [0.5, 2.0, 5.0],  # torch keeps it in float32
    "smooth_relu": [0.5, 10.0, 400.0],
    "parametric_softplus": [0.5, 10.0, 400.0],
}
LAYERS = {"elu": nn.ELU, "celu": nn.CELU, "smooth_relu": activations.SmoothReLU,
          "parametric_softplus": activations.ParametricSoftplus}  # fmt: skip
STOPS = {0.5: 3, 1.0: 5, 2.0: 7, 3.0: 8, 10.0: 12, 400.0: 22}


def layer(name: str, alpha: float | None) -> nn.Module:
    """Return the library's layer in float64."""
    made = activations.make(name) if alpha is None else LAYERS[name](alpha)
    return made.requires_grad_(False)


@pytest.fixture(scope="module")
def grid() -> torch.Tensor:
    """Return points up to 1000, close to 0 closely, 0 not among them."""
    side = torch.logspace(-6, 3, 300).double()
    return torch.cat([-side, side])


def test_values_slopes_and_curvatures_are_advlibs(opened, grid) -> None:
    """All nine, at several alphas: the layer, and autograd once and twice."""
    page = opened("gates")
    for name in NINE:
        for alpha in ALPHAS.get(name, [None]):
            made = page.evaluate(
                "([f, a, xs]) => Sides.figures.gates.kinds[f][1](a)"
                ".map(g => xs.map(g))",
                [name, alpha, grid.tolist()],
            )
            value = layer(name, alpha).double()
            # the library keeps SmoothReLU's parameter as a square root, in float32
            if name == "smooth_relu":
                value.beta.data = torch.tensor(alpha).double().sqrt()
            slope = torch.func.grad(value)
            for ours, function in zip(
                made, (value, slope, torch.func.grad(slope)), strict=True
            ):
                found = torch.func.vmap(function)(grid)
                np.testing.assert_allclose(ours, found, rtol=1e-9, atol=1e-9)


WAYS = [("relu", None), ("leaky_relu", None), ("silu", None), ("gelu", None),
        ("softplus", None), ("elu", 3.0), ("celu", 2.0), ("smooth_relu", 400.0),
        ("parametric_softplus", 10.0), ("parametric_softplus", 0.5)]  # fmt: skip


def shown(page: Page, name: str, alpha: float | None, inside: str) -> dict:
    """Set the figure; return what is seen then."""
    state = {"f": name, "stop": STOPS.get(alpha, 5), "inside": inside}
    page.evaluate("s => document.querySelector('.sides').stage.set(s)", state)
    page.wait_for_timeout(60)
    return stage(page, "s.seen")


def test_the_way_is_autograds(opened) -> None:
    """Each network with its activation, and with its slope behind ReLU's values."""
    page, t = opened("gates"), torch.linspace(0, 1, 601, dtype=torch.float64)
    for name, alpha in WAYS:

        def make(name: str = name, alpha: float | None = alpha) -> nn.Module:
            made = layer(name, alpha)
            if name == "smooth_relu":
                made.double().beta.data = torch.tensor(alpha).double().sqrt()
            return made

        model, seen = network(make), shown(page, name, alpha, "f")
        off = np.abs(np.array(seen["slopes"]) - slopes(model, t).numpy()) > 1e-8
        assert off.mean() <= (0.01 if "relu" in name else 0)  # a jump on a point of t
        ends = model(torch.tensor([[0.0], [1.0]]).double())
        change = float(ends[1] - ends[0])
        assert seen["change"] == pytest.approx(change, abs=1e-8)
        assert seen["area"] == pytest.approx(change, abs=0.05)


def test_the_surrogates_gradient_is_no_derivative(opened) -> None:
    """With ReLU's values the slopes are ``Surrogate``'s, and the area is off."""
    page, t = opened("gates"), torch.linspace(0, 1, 601, dtype=torch.float64)
    for name, alpha in WAYS:
        seen = shown(page, name, alpha, "relu")
        if "softplus" in name:
            behind = network(
                lambda alpha=alpha or 1.0: activations.Surrogate(alpha=alpha)
            )
            np.testing.assert_allclose(seen["slopes"], slopes(behind, t), atol=1e-8)
            assert abs(seen["area"] - seen["change"]) > 0.05


def test_hands(opened) -> None:
    """A network narrow and dark, by keys alone; words, charts and limits follow."""
    page = opened("gates", width=390, mode="dark")
    words = page.locator(".sides [role=status]")
    page.wait_for_function("document.querySelector('[role=status]').textContent")
    first = words.inner_text()
    slider = page.get_by_role("slider")
    slider.focus()
    page.keyboard.press("Home")
    page.wait_for_timeout(650)
    assert stage(page, "s.seen.a") == 0.5
    assert stage(page, "s.seen.gap") == pytest.approx(2 * np.log(2))
    assert words.inner_text() != first
    assert "α = 0.5" in words.inner_text()
    page.get_by_role("radio", name="Parametric Softplus").focus()
    page.keyboard.press("ArrowRight")  # SiLU, which has no alpha
    page.wait_for_timeout(60)
    assert slider.is_disabled()
    page.get_by_role("radio", name="ELU", exact=True).focus()
    page.keyboard.press("Space")
    page.wait_for_timeout(60)
    assert stage(page, "s.seen.a") == 1
    assert stage(page, "s.seen.jump") == pytest.approx(0, abs=1e-9)
    slider.focus()
    page.keyboard.press("End")
    page.wait_for_timeout(60)
    assert stage(page, "[s.seen.a, s.seen.jump]") == pytest.approx([3, -2])
    charts = page.locator(".sides svg")
    assert charts.count() == 4
    assert "jumps by -2.0" in charts.nth(1).get_attribute("aria-label")
    assert page.evaluate(WIDER) == page.evaluate(SMALL) == []
    page.set_viewport_size({"width": 1000, "height": 900})
    page.wait_for_timeout(100)
    assert stage(page, "s.seen.a") == 3
