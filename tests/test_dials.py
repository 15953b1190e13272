"""The dials of Chapter 8c: arms in pairs, and a sweep that goes on where it stopped."""

from dataclasses import asdict

import dials
import pytest
import torch

from advlib import data, models, results, training

DIGITS = data.load("digits")
X, Y = (part[:30] for part in DIGITS.test)
FAST = {
    "standard": dials.Arm(40, 4),
    "pgd": dials.Arm(40, 4, 0.1),
    "noise": dials.Arm(40, 4, 0.1, "noise"),
    "trades": dials.Arm(40, 4, 0.1, "trades", 1.0),
}


def test_every_arm_has_its_partner():
    """No arm twice; standard training on as many images for as many updates."""
    listed = dials.arms()
    assert len(set(listed)) == len(listed)
    assert all(dials.Arm(arm.images, arm.updates) in listed for arm in listed)
    assert {arm.method for arm in listed} == {"pgd", "noise", "trades"}
    assert all((arm.beta > 0) == (arm.method == "trades") for arm in listed)


def test_what_perturbs():
    """From 0 to the full radius, in the box; noise is signs and ignores labels."""
    net = models.seeded(models.mlp, DIGITS.shape, [100], seed=0)
    for name in ("pgd", "noise"):
        attack = dials.crafted(FAST[name], training.Ramp(1), 0)
        assert attack(net, X, Y).abs().max() == 0
        delta = attack(net, X, Y)
        assert float(delta.abs().max()) == pytest.approx(0.1, abs=1e-6)
        assert ((X + delta >= 0) & (X + delta <= 1)).all()
    noise = (dials.crafted(FAST["noise"], training.Ramp(0), 0) for _ in range(2))
    first, second = (
        attack(net, X, y) for attack, y in zip(noise, (Y, 9 - Y), strict=True)
    )
    assert torch.equal(first, second)
    inside = (X > 0.11) & (X < 0.89)
    assert torch.allclose(first[inside].abs(), torch.tensor(0.1))
    for name in ("standard", "trades"):
        assert dials.crafted(FAST[name], training.Ramp(1), 0) is None


@pytest.mark.parametrize("name", FAST)
def test_a_run_is_repeated_exactly_and_kept(name, tmp_path, monkeypatch):
    """Again in another cache: the same counts; in this one: no training."""
    folders = [tmp_path / "a", tmp_path / "b"]
    one, two = (
        dials.sweep(folder, DIGITS, seeds=2, listed=[FAST[name]]) for folder in folders
    )
    for row in one + two:
        row.pop("seconds")
    assert one == two
    assert [row["seed"] for row in one] == [0, 1]
    assert one[0] | asdict(FAST[name]) == one[0]
    monkeypatch.delattr(dials, "trained")
    kept = dials.sweep(folders[0], DIGITS, seeds=2, listed=[FAST[name]])
    assert [row["clean_wrong"] for row in kept] == [row["clean_wrong"] for row in one]


def test_the_number_of_updates(monkeypatch):
    """As many steps of SGD as the arm says, the rate lower in the last quarter."""
    rates = []
    step = torch.optim.SGD.step

    def counted(self, *args, **kwargs):
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.SGD, "step", counted)
    dials.trained(dials.Arm(200, 16), 0, DIGITS)
    assert rates == [0.05] * 12 + [0.005] * 4


def test_the_record_is_whole():
    """Every arm at every seed; counts are counts."""
    record = results.load("dials")
    found = record["data"]
    arms: dict[dials.Arm, int] = {}
    for run in found["runs"]:
        arm = dials.Arm(**{key: run[key] for key in asdict(FAST["pgd"])})
        arms[arm] = arms.get(arm, 0) + 1
        assert 0 <= run["clean_wrong"] <= found["test_images"]
        assert 0 <= run["attacked_wrong"] <= found["attacked_images"]
    assert set(arms) == set(dials.arms())
    assert set(arms.values()) == {dials.SEEDS}
    assert record["seeds"] == list(range(dials.SEEDS))
