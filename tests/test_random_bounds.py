"""The command that compares random bounds with samples, and whether it can fail."""

import pytest
import random_bounds
import torch
from torch import nn

from advlib import bounds, lipschitz, models, relaxations

RULES = {
    "AvgPool2d", "BatchNorm1d", "BatchNorm2d", "Conv2d", "Conv2d groups",
    "Conv2d padding", "Conv2d stride", "Dropout", "Flatten", "Flatten twice",
    "Identity", "Linear", "Normalize", "ReLU", "ReLU first", "ReLU last", "ReLU twice",
    "Residual", "Residual nested", "Residual shortcut", "TwoLogits", "no bias",
}  # fmt: skip

TIGHT = 1e-6  # a bound that some point attains, up to rounding of float32


@pytest.fixture(scope="module")
def report():
    """Some ten thousand comparisons."""
    return random_bounds.run(count=12_000, seed=1, jobs=1)


def test_no_bound_is_contradicted(report):
    """By any sample, corner or attack, on networks over every rule there is."""
    assert report.count >= 12_000
    assert report.contradicted == 0, "\n".join(report.lines())
    assert {rule for rule, count in report.rules.items() if count} >= RULES
    assert set(report.rules) == RULES


def test_the_points_are_near_the_bounds(report):
    """Each bound is attained somewhere: otherwise nothing would be compared."""
    names = {name.split(",")[0] for name in report.tallies}
    assert names >= {
        "interval_margins", "crown_margins", "wong_kolter_margins", "linear_lower",
        "alpha_crown_margins", "relu_bounds", "interval_bounds", "lipschitz_margins",
        "lipschitz_bound", "lp_margins", "lp_bounds", "branch_and_bound",
    }  # fmt: skip
    for name, tally in report.tallies.items():
        assert tally.count > 0
        if not name.startswith(("lp_bounds", "branch_and_bound")):
            assert tally.slack < TIGHT, name
    assert report.tallies["branch_and_bound, certified"].slack < TIGHT


def higher(function, by: float = 1e-3):
    """``function`` with margins that are too high."""

    def planted(*args, **kwargs):
        return function(*args, **kwargs) + by

    return planted


BROKEN = [
    (bounds, "crown_margins", "crown_margins"),
    (bounds, "interval_margins", "interval_margins"),
    (bounds, "linear_lower", "linear_lower"),
    (relaxations, "lp_margins", "lp_margins"),
    (lipschitz, "lipschitz_margins", "lipschitz_margins"),
]


@pytest.mark.parametrize(("module", "function", "name"), BROKEN)
def test_a_bound_that_is_too_high_is_found(monkeypatch, module, function, name):
    """By a thousandth, and only this one is contradicted; the exit status is 1."""
    monkeypatch.setattr(module, function, higher(getattr(module, function)))
    rare = function == "lp_margins"  # on few networks
    report = random_bounds.run(count=8_000 if rare else 2_500, seed=1, jobs=1)
    bad = {key.split(",")[0] for key, t in report.tallies.items() if t.contradicted}
    assert bad == {name}
    assert any(t.first for t in report.tallies.values())


def test_bounds_before_a_relu_that_are_too_narrow_are_found(monkeypatch):
    """Both ends moved inwards by a thousandth."""
    proper = bounds.relu_bounds

    def narrow(*args, **kwargs) -> list:
        found = proper(*args, **kwargs)
        cut = [((up - low) / 2).clamp(0, 1e-3) for low, up in found]
        return [(a + c, b - c) for (a, b), c in zip(found, cut, strict=True)]

    monkeypatch.setattr(bounds, "relu_bounds", narrow)
    report = random_bounds.run(count=1_500, seed=1, jobs=1)
    assert report.tallies["relu_bounds, crown"].contradicted > 0


def test_a_wrong_rule_is_found(monkeypatch):
    """Batch-norm folded without its shift: the bounds of another network."""
    from advlib.networks import canonical, gate

    proper = canonical._batch_norm

    def shifted(layer: nn.Module, *rest) -> object:
        other = type(layer)(layer.num_features).to(layer.weight.dtype).eval()
        other.load_state_dict(layer.state_dict())
        other.bias.data += 0.1
        return proper(other.requires_grad_(False), *rest)

    monkeypatch.setattr(canonical, "_batch_norm", shifted)
    monkeypatch.setattr(gate, "compare", lambda *args: None)  # which would see it
    assert random_bounds.run(count=4_000, seed=1, jobs=1).contradicted > 0


def test_the_command(monkeypatch, capsys):
    """Tables, the exit status, and the same counts with any number of jobs."""
    assert random_bounds.main(["--count", "500", "--seed", "3", "--jobs", "1"]) == 0
    said = capsys.readouterr().out
    assert "0 contradicted" in said
    assert "Residual" in said
    monkeypatch.setattr(bounds, "crown_margins", higher(bounds.crown_margins))
    assert random_bounds.main(["--count", "1500", "--seed", "1", "--jobs", "1"]) == 1
    assert "first contradicted: network" in capsys.readouterr().out


def test_networks_depend_on_the_seed_alone():
    """Number 5 of seed 3, twice, and after others."""
    first, second = random_bounds.run_case(3, 5), random_bounds.run_case(3, 5)
    assert first.rules == second.rules
    assert first.count == second.count
    joined = random_bounds.run_part(3, 4, 2)
    assert joined.count == random_bounds.run_case(3, 4).count + first.count


def test_the_sum_of_absolute_terms():
    """By hand: |2| * 3 + |-1| * 1 + |-4| = 11."""
    model = models.linear((1, 1, 2), 2).double().eval().requires_grad_(False)
    model[1].weight[:], model[1].bias[:] = torch.tensor([[2.0, -1.0], [0.0, 1.0]]), -4.0
    corners = torch.tensor([[[[-3.0, 0.5]]]]), torch.tensor([[[[1.0, 1.0]]]])
    found, size = random_bounds.absolute_terms(
        model, tuple(c.double() for c in corners)
    )
    assert found == []
    assert size.tolist() == [[11.0, 5.0]]
