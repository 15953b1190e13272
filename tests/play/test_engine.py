"""The pages' engine in Chromium against advlib, and the files it reads."""

import check_play
import make_play
import numpy as np
import pytest
import torch
from torch import nn

from advlib import models, play

DENSE = ("standard", "pgd", "ibp")

pytestmark = pytest.mark.usefixtures("mnist")


@pytest.mark.parametrize("name", check_play.NAMES)
def test_the_page_computes_what_advlib_computes(engine, name: str) -> None:
    """Logits, gradient, one step, 40 steps, intervals, CROWN, slopes; each bound on
    as many of the inputs as the time allows (the command takes 100)."""
    count, heavy = (5, 1) if name == "cnn" else (25, 8)
    far = check_play.agreement(engine, name, count, eps=0.1, heavy=heavy, seed=3)
    assert set(far) == {"logits", "gradient", "step", "margin", "interval", "crown",
                        "slopes", "least"}  # fmt: skip
    assert (far.pop("margin") < 1e-3).mean() >= 0.95
    assert max(value.max() for value in far.values()) < 1e-4


@pytest.mark.parametrize("name", DENSE)
def test_no_verdict_contradicts_branch_and_bound(engine, name: str) -> None:
    """Safe is never what advlib attacks, fooled never what it certifies."""
    found = check_play.verdicts(engine, name, 15, seed=5, nodes=40)
    assert found.clashes == []
    assert sum(found.said.values()) == 15
    assert {page for page, _ in found.said} >= {"safe", "fooled"}


FAULTS = [  # with how many inputs and subproblems it shows
    # the line above a ReLU too low, a price below zero, a corner, a threshold
    ("offset[j] = -above[j] * l;", "offset[j] = 0;", 15, 0),
    ("= -sign * Math.max(price, 0);", "= -sign * price;", 15, 30),
    ("corner[i] = v[i] > 0 ? low : v[i]", "corner[i] = v[i] > 0 ? high : v[i]", 10, 0),
    ("const SURE = 1e-6;", "const SURE = -2;", 40, 0),
]


@pytest.mark.parametrize(("old", "new", "count", "nodes"), FAULTS)
def test_a_fault_is_found(browser, old: str, new: str, count: int, nodes: int) -> None:
    """Each makes the page call safe what is not: the same check must see it."""
    page = browser.new_page()
    check_play.load(page, (old, new))
    found = check_play.verdicts(page, "standard", count, seed=5, nodes=nodes)
    page.close()
    assert found.clashes


def test_a_tie_is_not_safe(engine) -> None:
    """Two logits that are always equal: fooled or misread, at radius 0 too."""
    said = engine.evaluate("""() => {
      const net = [new Sides.Dense(new Float64Array([1, 1]), new Float64Array(2))];
      const x = Float64Array.of(.5);
      return [0, .1].map(eps => [
        Sides.search(net, x, 0, eps).verdict,
        Sides.verdict(Sides.quick(net, x, 0, eps)),
      ]);
    }""")
    assert said == [["fooled", "misread"]] * 2


def test_the_least_margin_of_tiny_networks(engine) -> None:
    """Against a grid: two pixels, two hidden layers; the search closes its gap."""
    rows = engine.evaluate("""() => {
      let seed = 7;
      const random = () => {
        seed = (seed * 1103515245 + 12345) % 2147483648;
        return seed / 1073741824 - 1;
      };
      const draw = length => Float64Array.from({length}, random);
      const layer = (o, i) => new Sides.Dense(draw(o * i), draw(o));
      return Array.from({length: 60}, () => {
        const net = [layer(6, 2), layer(5, 6), layer(3, 5)];
        const x = Float64Array.of(.5, .5), z = Sides.logits(net, x);
        const label = z.indexOf(Math.max(...z)), eps = .05 + .3 * Math.abs(random());
        const {low, high} = Sides.ball(x, eps), step = i => i / 60;
        let grid = Infinity;
        for (let a = 0; a <= 60; a++) for (let b = 0; b <= 60; b++) {
          const p = [a, b].map((k, i) => low[i] + k / 60 * (high[i] - low[i]));
          grid = Math.min(grid, Sides.margin(Sides.logits(net, p), label).least);
        }
        const found = Sides.search(net, x, label, eps,
          {seconds: 5, nodes: 2000, tolerance: 1e-3});
        const bounds = ["intervals", "crown", "optimised"].map(
          name => Math.min(...Sides[name](net, {low, high}, label)));
        return {grid, ...found, bounds};
      });
    }""")
    for row in rows:
        assert row["lower"] <= row["grid"] + 1e-9
        assert row["upper"] <= row["grid"] + 0.05
        assert abs(row["upper"] - row["lower"]) <= 0.05
        interval, crown, slopes = row["bounds"]
        assert interval <= crown + 1e-9
        assert crown <= slopes + 1e-9
        assert slopes <= row["upper"] + 1e-9
        assert (row["verdict"] == "fooled") == (row["upper"] <= 0)
    closed = [row["upper"] - row["lower"] <= 1e-3 + 1e-9 for row in rows]
    assert sum(closed) >= 55


def test_the_files_are_made_by_the_command() -> None:
    """``python tools/make_play.py`` writes what is committed, byte by byte."""
    made = make_play.make()
    assert {path.name for path in make_play.FOLDER.glob("*.js")} == set(made)
    for name, content in made.items():
        assert (make_play.FOLDER / name).read_bytes() == content, name


def test_a_note_is_the_network() -> None:
    """Whole numbers times powers of two; made into a note again, it stays the same."""
    model = models.seeded(models.cnn_small, (1, 28, 28), seed=2)
    once = play.note(model)
    again = play.note(play.from_note(once))
    assert once == again
    x = torch.rand(20, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    near = play.from_note(once)(x.double()) - model(x)
    assert near.abs().max() < 0.02
    for layer in once["layers"]:
        assert np.log2(layer["scale"]) % 1 == np.log2(layer["unit"]) % 1 == 0


def test_notes_refuse_what_pages_do_not_have() -> None:
    """Other layers, two affine layers in a row, a ReLU at the end, bits, NaN."""
    shape = (1, 2, 2)
    linear = models.mlp(shape, [3], 2).eval()
    for layers in (
        [nn.Flatten(), nn.Linear(4, 2), nn.ReLU()],
        [nn.Flatten(), nn.Linear(4, 2), nn.ReLU(), nn.ReLU(), nn.Linear(2, 2)],
        [nn.Flatten(), nn.ReLU(), nn.Linear(4, 2)],
        [nn.Flatten(), nn.Linear(4, 2), nn.Sigmoid(), nn.Linear(2, 2)],
        [nn.Conv2d(1, 1, (1, 2)), nn.Flatten(), nn.ReLU(), nn.Linear(2, 2)],
    ):
        with pytest.raises(TypeError):
            play.note(nn.Sequential(*layers).eval(), shape)
    with pytest.raises(ValueError, match="bits"):
        play.note(linear, shape, bits=9)
    broken = play.note(linear, shape)
    broken["layers"][0]["kind"] = "other"
    with pytest.raises(TypeError, match="other"):
        play.from_note(broken)
    broken = play.note(linear, shape)
    broken["layers"][0]["weight"] = broken["layers"][1]["weight"]
    with pytest.raises(ValueError, match="weights"):
        play.from_note(broken)
    linear[1].weight.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        play.note(linear, shape)
