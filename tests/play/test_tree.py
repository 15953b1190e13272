"""The tree by hand: bounds are advlib's, answers the integer program's."""

import numpy as np
import pytest
import torch
from hands import stage
from torch import nn

from advlib import bounds, exact, models
from advlib.play.figures import polytope, tree

SIX = (
    ([[1.5, -2.5], [2.5, 0], [-0.5, -1]], [-0.5, -1.5, 0.5]),
    ([[-1, 0.5, 1.5], [0.5, -1, -1], [-1, 1.5, 2]], [-1, 1, -0.5]),
    ([[1.5, -1, -0.5], [-0.5, -1.5, 1.5]], [1.5, 0]),
)
CASES = [("toy", 0.5, "triangle", "crown"), ("six", 0.4, "triangle", "crown"),
         ("six", 0.4, "cost", "prices"), ("six", 0.47, "triangle", "prices"),
         ("six", 0.5, "cost", "crown")]  # fmt: skip
GROW = """([net, eps, rule, bound, order]) => {
  const stage = document.querySelector('.sides').stage;
  stage.set({ net, eps, rule, bound });
  return new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => {
    const { tree } = stage;
    let seed = 3;
    const random = () => (seed = (seed * 16807) % 2147483647) / 2147483647;
    while (tree.answer() === 'open') {
      const node = tree.choose(order, random);
      tree.split(node, tree.units(node, rule)[0]);
    }
    done({ answer: tree.answer(), lower: tree.lower(), nodes: tree.nodes.map(node => ({
      signs: node.signs.map(layer => [...layer]), bound: node.bound, is: node.is,
      parent: tree.nodes.indexOf(node.parent), point: node.point,
      region: tree.within(node).flatMap(piece => piece.polygon),
      chosen: node.unit ? [node.unit.k, node.unit.j] : null })) });
  })));
}"""


def six() -> nn.Sequential:
    """Return the figure's second network."""
    net = models.mlp((1, 1, 2), [3, 3], 2).double().eval().requires_grad_(False)
    for layer, (weight, bias) in zip(net[1::2], SIX, strict=True):
        layer.weight.data = torch.tensor(weight).double()
        layer.bias.data = torch.tensor(bias).double()
    return net


NETS = {"toy": polytope.network, "six": six}
POINT = torch.full((1, 1, 1, 2), 0.5).double()


def margins(net: nn.Module, points: list) -> np.ndarray:
    """Return logit 0 minus logit 1 at ``points`` (N, 2)."""
    z = net(torch.tensor(points, dtype=torch.float64).view(-1, 1, 1, 2))
    return (z[:, 0] - z[:, 1]).numpy()


@pytest.mark.parametrize("case", CASES)
def test_a_tree_is_true(opened, case: tuple) -> None:
    """Each bound is CROWN's in its branch (with prices: none above the truth there);
    the answer is the integer program's, and the pieces of the leaves fill the ball."""
    name, eps, rule, how = case
    net, box = NETS[name](), bounds.input_box(POINT, eps)
    grown = opened("tree").evaluate(GROW, [name, eps, rule, how, "lowest"])
    nodes = grown["nodes"]
    for node in nodes:
        if node["region"] and node["is"] != "fooled":
            truth = margins(net, node["region"]).min()
            assert node["bound"] <= truth + 1e-9
            if node["is"] == "exact":
                assert node["bound"] == pytest.approx(truth)
        if how == "crown" and node["is"] != "exact":
            phases = [torch.tensor(layer) for layer in node["signs"]]
            expected = tree.bounded(net, box, phases)
            if node["parent"] >= 0:
                expected = max(expected, nodes[node["parent"]]["bound"])
            assert node["bound"] == pytest.approx(expected, abs=1e-9)
    found = exact.milp_margin(net, POINT, torch.tensor([0]), 1, eps)
    assert (grown["answer"] == "safe") == (found.bound > 0)
    if grown["answer"] == "safe":
        assert 0 < grown["lower"] <= found.margin + 1e-6
    for node in nodes:
        if node["point"]:
            assert margins(net, [node["point"]])[0] <= 1e-9
            assert np.abs(np.array(node["point"]) - 0.5).max() <= eps + 1e-9
            inside = [s * z >= -1e-9 for layer, values in zip(
                node["signs"], hidden(net, np.array([node["point"]])), strict=True)
                for s, z in zip(layer, values[0], strict=True)]  # fmt: skip
            assert all(inside)
    generator = np.random.default_rng(0)
    points = 0.5 + eps * generator.uniform(-1, 1, (200, 2))
    entering = hidden(net, points)
    for k in range(len(points)):
        holds = [all(all(s * z[k][i] >= 0 for i, s in enumerate(layer) if s)
                     for layer, z in zip(node["signs"], entering, strict=True))
                 for node in nodes if node["is"] != "split"]  # fmt: skip
        assert sum(holds) == 1


def hidden(net: nn.Sequential, points: np.ndarray) -> list[np.ndarray]:
    """Return what enters each ReLU at ``points`` (N, 2)."""
    z = torch.tensor(points, dtype=torch.float64).view(-1, 1, 1, 2)
    return [net[: k + 1](z).numpy() for k in (1, 3)]


def test_the_tree_of_the_chapter(opened) -> None:
    """Seven nodes with the bounds of the chapter's table; with prices fewer."""
    page = opened("tree")
    grown = page.evaluate(GROW, ["toy", 0.5, "triangle", "crown", "newest"])
    rows = {tuple(node["signs"][0]): (round(node["bound"], 6), node["is"])
            for node in grown["nodes"]}  # fmt: skip
    assert rows == {
        (0, 0): (-0.5, "split"), (-1, 0): (-0.5, "split"), (-1, -1): (7, "closed"),
        (-1, 1): (2, "exact"), (1, 0): (0, "split"), (1, -1): (7, "closed"),
        (1, 1): (1.5, "closed"),
    }  # fmt: skip
    grown = page.evaluate(GROW, ["toy", 0.5, "triangle", "prices", "random"])
    assert len(grown["nodes"]) < 7


def test_by_keyboard_alone(opened) -> None:
    """Tab reaches the root; Enter splits at what is proposed, until all is closed."""
    page = opened("tree", reduced_motion="reduce")
    root = page.locator(".sides button[data-is]")
    assert root.count() == 1
    root.focus()
    page.keyboard.press("Enter")
    page.get_by_role("button", name="unit 1, proposed").focus()
    said = set()
    for _ in range(3):
        page.keyboard.press("Enter")
        page.wait_for_timeout(620)
        said.add(page.locator(".sides [role=status]").inner_text())
    assert len(said) == 3
    assert page.locator(".sides .verdict b").inner_text() == "robust"
    assert "7 subproblems" in page.locator(".sides .verdict").inner_text()
    leaves = page.locator(".sides button[data-is=closed]")
    assert leaves.count() == 3
    assert "unit 1 off, unit 2 off: margin at least 7" in leaves.first.get_attribute(
        "aria-label"
    )


def test_another_unit_and_a_counterexample(opened) -> None:
    """On a phone: three subproblems do, if one finds the unit, where the largest
    triangle needs 15; at a larger radius "run" ends at an orange node."""
    page = opened("tree", width=390, reduced_motion="reduce")
    page.get_by_label("6 ReLUs").check()
    page.get_by_label("radius").fill("0.4")
    nodes = page.locator(".sides button[data-is]")
    page.get_by_role("button", name="run").click()
    page.wait_for_timeout(60)
    assert nodes.count() == 15
    page.get_by_role("button", name="start over").click()
    page.get_by_role("button", name="unit 3", exact=True).click()
    page.wait_for_timeout(60)
    assert nodes.count() == 3
    assert page.locator(".sides .verdict b").inner_text() == "robust"
    page.get_by_label("radius").fill("0.5")
    page.get_by_role("button", name="unit 1", exact=True).click()
    page.wait_for_timeout(60)
    assert stage(page, "[s.tree.nodes[0].unit.k, s.tree.nodes[0].unit.j]") == [0, 0]
    page.get_by_role("button", name="run").click()
    page.wait_for_timeout(60)
    assert page.locator(".sides .verdict b").inner_text() == "fooled"
    assert page.locator(".sides button[data-is=fooled]").count() >= 1
    assert page.get_by_role("button", name="step").is_disabled()
    page.get_by_role("button", name="start over").click()
    page.wait_for_timeout(60)
    assert page.locator(".sides button[data-is]").count() == 1
    assert page.locator(".sides .verdict b").inner_text() == "open"
