"""The record of the convex barrier: letters that other methods confirm."""

import convex_barrier
import pytest
import torch
from torch import nn

from advlib import bounds, data, exact, models, relaxations, results


@pytest.fixture(scope="module")
def record():
    """What is committed."""
    return results.load("convex_barrier")["data"]


def _stored(case: dict) -> nn.Module:
    net = models.mlp((1, 4, 4), case["hidden"]).double().eval()
    for parameter, values in zip(net.parameters(), case["weights"], strict=True):
        parameter.data = torch.tensor(values, dtype=torch.float64)
    return net.requires_grad_(False)


def test_every_image_has_one_letter(record):
    """The letters are those that the script explains, one for each image."""
    assert record["letters"] == convex_barrier.LETTERS
    rows = [r for part in ("barrier", "sdp") for c in record[part] for r in c["rows"]]
    assert len(rows) == 36
    for row in rows:
        assert len(row["letters"]) == convex_barrier.IMAGES
        assert set(row["letters"]) <= set(convex_barrier.LETTERS)
        assert row["open"] == sum(row["letters"].count(k) for k in "lbso")


def test_letters_are_monotone(record):
    """What is misclassified stays so, what is attackable is so at larger radii."""
    for case in [*record["barrier"], *record["sdp"]]:
        for small, large in zip(case["rows"], case["rows"][1:], strict=False):
            assert small["eps"] < large["eps"]
            for before, after in zip(small["letters"], large["letters"], strict=True):
                assert (before == "w") == (after == "w")
                assert before != "x" or after in "xu"


def test_an_image_of_the_sdp_is_confirmed(record):
    """One image: no linear program certifies it, the SDP does, and MILP agrees."""
    try:
        x, y = data.load("mnist").test
    except (OSError, ValueError) as error:
        pytest.skip(str(error))
    case = record["sdp"][0]
    net = _stored(case)
    row = next(r for r in case["rows"] if r["eps"] == 0.04)
    i = row["letters"].index("s")
    x, y = nn.AdaptiveAvgPool2d(4)(x[i : i + 1]).double(), y[i : i + 1]
    tight = relaxations.lp_bounds(net, *bounds.input_box(x, 0.04))
    best = relaxations.lp_margins(net, x, y, 0.04, pre=tight)
    assert not bounds.certified(best, y)
    for j in (best[0] <= 0).nonzero()[:, 0].tolist():
        if j != int(y):
            found = relaxations.sdp_margin(net, x[0], int(y), j, 0.04, pre=tight)
            true = exact.milp_margin(net, x, y, j, 0.04, pre=tight)
            assert 0 < found <= true.margin + 1e-5
            assert true.bound > 0


def test_letters_of_a_small_network():
    """Measured anew on a random network: each letter is what the bounds say."""
    net = models.seeded(models.mlp, (1, 2, 2), (6, 6), 3, seed=1).double()
    for parameter in net.parameters():
        parameter.requires_grad_(False).mul_(3)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(12, 1, 2, 2, generator=generator).double()
    y = net(x).argmax(1)
    found = convex_barrier.measure(net, x, y, 0.2, sdp=True)
    margins = relaxations.lp_margins(net, x, y, 0.2)
    crown = bounds.certified(bounds.crown_margins(net, x, y, 0.2), y)
    assert len(set(found["letters"])) > 1
    for i, letter in enumerate(found["letters"]):
        assert (letter == "c") == bool(crown[i])
        linear = bool(bounds.certified(margins[[i]], y[[i]]))
        assert linear if letter in "cl" else not linear or letter in "wx"
