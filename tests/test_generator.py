"""The generator of Chapter 11b: what it may do, and what the record counts."""

import generator
import pytest
import torch

from advlib import data, evaluation, models, results, zoo

DIGITS = data.load("digits")


@pytest.fixture
def small(monkeypatch):
    """A few updates, images and one seed, on digits."""
    monkeypatch.setattr(generator, "MARKS", [1, 3])
    monkeypatch.setattr(generator, "TRAINED", 60)
    monkeypatch.setattr(generator, "ATTACKED", 40)
    monkeypatch.setattr(generator, "BATCH", 10)
    monkeypatch.setattr(generator, "SEEDS", [0])


@pytest.fixture
def victim():
    return models.seeded(models.mlp, DIGITS.shape, [20], seed=0).eval()


@pytest.mark.parametrize("kind", sorted(generator.KINDS))
def test_moves_stay_in_ball_and_box(kind):
    """Also where tanh is 1; the pattern is the same for all images, up to the box."""
    fooler = models.seeded(generator.KINDS[kind], DIGITS.shape, seed=0)
    for parameter in fooler.parameters():
        parameter.data *= 1000
    x = DIGITS.test[0][:20]
    delta = generator.perturb(fooler, x).detach()
    assert float(delta.abs().max()) <= generator.EPS + 1e-6
    assert float((x + delta).min()) >= 0
    assert float((x + delta).max()) <= 1
    alike = torch.equal(fooler(x)[0], fooler(x)[1])
    assert alike == (kind != "generator")


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("kind", sorted(generator.KINDS))
def test_counts_are_those_of_the_library(kind, victim):
    """One count for each mark, none below the clean ones; the same again."""
    counts = generator.train(kind, 0, victim, DIGITS)
    assert counts == generator.train(kind, 0, victim, DIGITS)
    assert len(counts) == 2
    solved = generator.solved(victim, DIGITS)
    x, y = (part[:40] for part in DIGITS.test)
    assert solved["clean"] == evaluation.clean_error(victim, x, y).wrong
    assert min(counts) >= solved["clean"]
    assert solved["PGD, 20 steps"] >= solved["clean"]


def test_training_helps():
    """The pattern of a linear victim: after training it fools more than at first."""
    model = zoo.load("linear", DIGITS).requires_grad_(False)
    generator.MARKS, old = [1, 60], generator.MARKS
    try:
        first, last = generator.train("generator", 0, model, DIGITS)
    finally:
        generator.MARKS = old
    assert last > first


@pytest.mark.usefixtures("small")
def test_goes_on_where_it_was(monkeypatch, tmp_path):
    """The second call trains nothing and writes the same record."""
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(generator.data, "load", lambda name: DIGITS)
    generator.main(["--cache", str(tmp_path)])
    first = results.load("generator")
    monkeypatch.setattr(generator, "train", None)
    generator.main(["--cache", str(tmp_path)])
    assert results.load("generator") == first
    assert len(first["data"]["runs"]) == len(generator.KINDS)
