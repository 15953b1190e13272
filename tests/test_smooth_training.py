"""The runs of Chapter 11b: plan and additions, masks, and how they go on."""

import json

import numpy as np
import pytest
import smooth_training as study
import torch
from torch import nn

from advlib import data, evaluation, models, results

DIGITS = data.load("digits")
RECORD = results.load("smooth_training")["data"]


def tiny(shape, activation):
    """Two hidden units' worth of the real network, batch-norm included."""
    size = int(np.prod(shape))
    layers = [nn.Flatten(), nn.Linear(size, 12), nn.BatchNorm1d(12), activation()]
    return nn.Sequential(*layers, nn.Linear(12, 10))


@pytest.fixture
def small(monkeypatch, tmp_path):
    """The study on digits: three arms, an epoch, a few images."""
    arms = ("relu", "silu_5_steps", "gelu")
    monkeypatch.setattr(study, "ARMS", {name: study.ARMS[name] for name in arms})
    for name, value in {"TRAINED": 200, "VALIDATED": 20, "ATTACKED": 24}.items():
        monkeypatch.setattr(study, name, value)
    monkeypatch.setattr(study, "MASKED", 50)
    monkeypatch.setattr(study, "EPOCHS", 1)
    monkeypatch.setattr(study.models, "residual_small", tiny)
    monkeypatch.setattr(study, "seeds", lambda arm: 1)
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(study.data, "load", lambda name: DIGITS)
    return tmp_path


def unpacked(text: str, n: int) -> np.ndarray:
    """As the chapter reads a mask."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8))[:n] == 1


def test_the_plan_is_untouched_and_the_additions_are_no_part_of_it():
    """What was written before the first run still stands; each arm has its seeds."""
    assert study.PLAN == RECORD["plan"]
    assert "not planned" in study.ADDED["when"]
    listed = study.tasks()
    assert len(listed) == len(set(listed))
    assert [seed for _, seed in listed] == sorted(seed for _, seed in listed)
    for name in study.ARMS:
        wanted = 8 if study.with_masks(name) else 3
        assert sum(arm == name for arm, _ in listed) == study.seeds(name) == wanted
    assert {(row["arm"], row["seed"]) for row in RECORD["runs"]} <= set(listed)
    assert {study.ARMS[f"{a}_5_steps"].num_steps for a in ("relu", "silu")} == {5}


def test_packed_masks_come_back():
    """Also where their length is no multiple of eight."""
    mask = torch.rand(2003, generator=torch.Generator().manual_seed(0)) < 0.3
    assert (unpacked(study.packed(mask), 2003) == mask.numpy()).all()


@pytest.mark.usefixtures("small")
def test_masks_grow_with_the_attack():
    """Clean in PGD-50 in both gradients; the first images are those of the counts."""
    model = models.seeded(tiny, DIGITS.shape, nn.SiLU, seed=0)
    found = {k: unpacked(v, 50) for k, v in study.masks(model, DIGITS).items()}
    x, y = (part[:50] for part in DIGITS.test)
    assert (found["clean"] == evaluation.wrong(model, x, y).numpy()).all()
    assert (found["clean"] <= found["pgd_50"]).all()
    assert (found["pgd_50"] <= found["strong"]).all()


def test_goes_on_where_it_was(small):
    """Nothing twice; masks from kept weights; without them a new run, old counts."""
    cache = small / "cache"
    study.main(["--cache", str(cache)])
    rows = {row["arm"]: row for row in results.load("smooth_training")["data"]["runs"]}
    assert set(rows) == {"relu", "silu_5_steps", "gelu"}
    assert {name for name, row in rows.items() if "masks" in row} == {
        "relu",
        "silu_5_steps",
    }
    before = results.load("smooth_training")
    study.main(["--cache", str(cache)])
    assert results.load("smooth_training") == before

    def forget(*names: str) -> None:
        path = cache / "relu-0.json"
        row = {k: v for k, v in rows["relu"].items() if k not in names}
        path.write_text(json.dumps(row))
        results.save(
            "smooth_training",
            before["data"] | {"runs": [row]},
            command="",
            seeds=[0],
            dataset="",
            seconds=1,
        )

    forget("masks")
    study.main(["--cache", str(cache), "--arms", "relu"])
    again = study.read(cache / "relu-0.json")
    assert again["masks"] == rows["relu"]["masks"]
    assert "first" not in again
    assert again["training_seconds"] == rows["relu"]["training_seconds"]

    forget("masks")
    (cache / "relu-0.safetensors").unlink()
    study.main(["--cache", str(cache), "--arms", "relu"])
    again = study.read(cache / "relu-0.json")
    assert again["masks"] == rows["relu"]["masks"]
    assert again["first"] == {
        key: rows["relu"][key] for key in ("clean_wrong", "strong_wrong")
    }


def test_the_estimate_counts_what_is_missing(small, capsys):
    """With ``--estimate`` nothing is trained; trained runs cost more than masks."""
    study.main(["--cache", str(small / "cache"), "--estimate"])
    assert "3 runs lack something, 3 of them" in capsys.readouterr().out
    assert not list((small / "cache").glob("*.json"))
    both = study.estimate([("relu", 0, True)], DIGITS)
    assert both > study.estimate([("relu", 0, False)], DIGITS) > 0
    assert study.estimate([], DIGITS) == 0
