"""The sweep of Chapter 8: what is counted, and how it goes on where it stopped."""

import json
from dataclasses import replace

import adversarial_training as sweep
import pytest
import torch

from advlib import attacks, bounds, data, evaluation, models, results, training

DIGITS = data.load("digits")
FEW = tuple(part[:60] for part in DIGITS.test)
METHODS = sorted({row.method for row in sweep.ROWS.values()})


@pytest.fixture
def small(monkeypatch):
    """The sweep with one epoch, a weak ensemble and a few images."""
    rows = {name: replace(row, epochs=1) for name, row in sweep.ROWS.items()}
    monkeypatch.setattr(sweep, "ROWS", rows)
    monkeypatch.setattr(sweep, "VALIDATED", 20)
    monkeypatch.setattr(sweep, "COMPARED", 10)
    monkeypatch.setattr(sweep, "RESTARTS", 2)
    monkeypatch.setattr(sweep, "QUERIES", 5)
    return rows


def trained() -> torch.nn.Sequential:
    """A network of seconds, trained on intervals: both bounds have something to say."""
    model = models.seeded(models.cnn_small, DIGITS.shape, seed=0)
    objective = training.IntervalLoss(0.05, training.Ramp(600))
    options = {"epochs": 30, "lr": 0.05, "momentum": 0.9, "objective": objective}
    training.fit(model, *DIGITS.train, batch_size=25, **options)
    return model


MODEL = trained()


def test_the_plan():
    """One architecture; the seeds in turn, every row at the first of them first."""
    listed = sweep.tasks()
    assert len(listed) == len(set(listed)) == 3 * len(sweep.ROWS)
    assert [seed for _, seed in listed] == sorted(seed for _, seed in listed)
    small = {row.method for row in sweep.ROWS.values() if row.eps == 0.1}
    assert small == set(METHODS)
    large = {row.method for row in sweep.ROWS.values() if row.eps == 0.3}
    assert large == {"fgsm", "fast", "pgd", "ibp"}
    assert all(r.train_eps >= r.eps for r in sweep.ROWS.values())


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("method", METHODS)
def test_a_run_of_each_method(method):
    """Counts in their order, one value for each epoch, JSON holds it; same again."""
    name = next(n for n, row in sweep.ROWS.items() if row.method == method)
    _, record = sweep.run(name, 0, DIGITS, count=40)
    json.dumps(record, allow_nan=False)
    assert record["clean_wrong"] <= record["pgd_wrong"] <= record["strong_wrong"]
    assert record["strong_wrong"] <= record["crown_uncertified"]
    assert record["crown_uncertified"] <= record["interval_uncertified"] <= 40
    assert len(record["validation_pgd_10_wrong"]) == len(record["objective"]) == 1
    _, again = sweep.run(name, 0, DIGITS, count=40)
    timings = ("seconds", "training_seconds")
    assert {k: v for k, v in record.items() if k not in timings} == {
        k: v for k, v in again.items() if k not in timings
    }


@pytest.mark.usefixtures("small")
def test_the_counts_are_those_of_the_library():
    """FGSM and CROWN over all images; the ensemble left out none that could fall."""
    found = sweep.errors(MODEL, *FEW, 0.05)
    assert found["clean_wrong"] < 20
    assert 0 < found["crown_uncertified"] < 60
    assert found["pgd_images"] == found["crown_uncertified"] - found["fgsm_wrong"]
    assert found["strong_images"] == found["crown_uncertified"] - found["pgd_wrong"]
    fgsm = evaluation.attacked_error(
        MODEL, *FEW, lambda m, x, y: attacks.fgsm(m, x, y, 0.05)
    )
    assert found["fgsm_wrong"] == fgsm.wrong
    crown = evaluation.uncertified(
        MODEL, *FEW, lambda m, x, y: bounds.crown_margins(m, x, y, 0.05)
    )
    assert found["crown_uncertified"] == int(crown.sum())
    everywhere = evaluation.attacked(
        MODEL, *FEW, [lambda m, x, y: attacks.strong_attack(m, x, y, 0.05)]
    )
    assert not (everywhere & ~crown).any()


@pytest.mark.usefixtures("small")
def test_a_contradiction_is_not_recorded(monkeypatch):
    """A bound that certifies everything: refused as soon as an attack succeeds."""
    promise = torch.ones(len(FEW[1]), 10)
    monkeypatch.setattr(
        sweep.bounds, "interval_margins", lambda m, x, y, eps: promise[: len(y)]
    )
    with pytest.raises(ArithmeticError, match="certifies"):
        sweep.errors(MODEL, *FEW, 0.3)


def test_a_bound_above_the_attack_is_not_recorded(monkeypatch):
    """CROWN that promises a little more than an attack leaves: refused."""
    honest = bounds.crown_margins
    monkeypatch.setattr(
        sweep.bounds, "crown_margins", lambda *args: honest(*args) + 3.0
    )
    with pytest.raises(ArithmeticError, match="below what crown"):
        sweep.tightness(MODEL, *FEW, 0.1)


def test_tightness_is_ordered():
    """Intervals below CROWN below the attack; margins fall as the radius grows."""
    found = sweep.tightness(MODEL, *FEW, 0.1)
    attack, crown, interval = (
        found[f"{name}_margin"] for name in ("attack", "crown", "interval")
    )
    for low, high in ((interval, crown), (crown, attack)):
        assert all(a <= b + 1e-4 for a, b in zip(low, high, strict=True))
    assert interval == sorted(interval, reverse=True)
    assert crown == sorted(crown, reverse=True)
    counts = found["interval_certified"], found["crown_certified"]
    assert all(a <= b for a, b in zip(*counts, strict=True))


def test_the_growing_radius():
    """From 0 to all of it, for the two attacks that the sweep makes itself."""
    for name in ("fgsm", "pgd"):
        row = sweep.ROWS[name]
        attack = sweep.growing_attack(row, training.Ramp(2), 0)
        for share in (0.0, 0.5, 1.0):
            size = float(attack(MODEL, *FEW).abs().max())
            assert size == pytest.approx(share * row.train_eps, abs=1e-6)
    for name in ("standard", "trades", "ibp", "crown_ibp"):
        assert sweep.growing_attack(sweep.ROWS[name], training.Ramp(2), 0) is None


@pytest.mark.usefixtures("small")
def test_it_goes_on_where_it_stopped(tmp_path, monkeypatch):
    """Runs of the committed record are kept, unless their row has changed since."""
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    monkeypatch.setattr(sweep, "SEEDS", (0, 1))
    monkeypatch.setattr(sweep.data, "load", lambda name: DIGITS)
    made = []

    def run(name, seed, dataset):
        made.append((name, seed))
        return MODEL, {"row": name, "seed": seed, "seconds": 1.0}

    monkeypatch.setattr(sweep, "run", run)
    where = ["--cache", str(tmp_path / "cache"), "--only", "fgsm", "pgd"]
    sweep.main(where)
    assert made == [("fgsm", 0), ("pgd", 0), ("fgsm", 1), ("pgd", 1)]
    sweep.main(where)
    assert len(made) == 4
    changed = sweep.ROWS | {"pgd": replace(sweep.ROWS["pgd"], peak=0.01)}
    monkeypatch.setattr(sweep, "ROWS", changed)
    sweep.main(where)
    assert made[4:] == [("pgd", 0), ("pgd", 1)]
    record = results.load("adversarial_training")
    assert [r["row"] for r in record["data"]["runs"]] == ["fgsm", "pgd"] * 2
    assert record["seeds"] == [0, 1]
    assert (tmp_path / "cache/pgd-1.safetensors").is_file()
