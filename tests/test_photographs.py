"""Chapter 1's photographs: the record is what the committed network says."""

from functools import cache

import numpy as np
import photographs
import pytest
import torch
from safetensors.torch import load_file

from advlib import data, models, results, zoo


@cache
def record() -> dict:
    """The committed data."""
    return results.load("photographs")["data"]


@cache
def network() -> torch.nn.Module:
    """The committed network, without the data set."""
    model = models.cnn_deep((3, 32, 32)).eval()
    name = f"cifar10_jpeg-{record()['network']}.safetensors"
    model.load_state_dict(load_file(zoo.WEIGHTS / name))
    return model


def test_the_record_is_small():
    """It travels in the package."""
    assert (results.RESULTS / "photographs.json").stat().st_size < 60_000


@pytest.mark.parametrize("k", range(photographs.SHOWN))
def test_every_answer_is_measured_again(k):
    """From the images in the record: class and probability, to the third digit."""
    photo = record()["shown"][k]
    levels = results.unpack(photo["image"]).astype(int)
    for name, (said, sure) in photo["answers"].items():
        change = 0
        if name != "image":
            change = results.unpack(photo["deltas"][name]).astype(int)
            assert np.abs(change).max() <= int(name.split()[1])
        moved = levels + change
        assert 0 <= moved.min() <= moved.max() <= 255
        (best,), (probability,) = photographs.answers(network(), moved[None])
        assert record()["classes"][best] == said
        assert probability == pytest.approx(sure, abs=2e-3)
    assert photo["answers"]["image"][0] == photo["label"]
    assert photo["answers"]["toward 8"][0] == record()["target"]


def test_counts_agree_with_the_masks():
    """Masks over all images; an attack keeps what was wrong before it."""
    masks = {name: results.unpack(text) for name, text in record()["masks"].items()}
    assert {len(mask) for mask in masks.values()} == {record()["images"]}
    assert (masks["away 8"] >= masks["wrong"]).mean() > 0.99
    assert masks["away 2"].sum() > masks["wrong"].sum()
    assert masks["toward 8"].sum() > masks["toward 2"].sum()
    for photo in record()["shown"]:
        i = photo["index"]
        assert masks["away 2"][i]
        assert masks["toward 8"][i]
        assert not masks["wrong"][i]


def test_the_shown_are_the_surest_of_their_class():
    """Ready ones only, each class once, the surest first."""
    y = torch.tensor([3, 3, 1, 1, 0, 2])
    ready = np.array([False, True, True, True, True, False])
    sure = np.array([0.99, 0.5, 0.6, 0.8, 0.7, 0.95])
    assert photographs.picked(ready, sure, y) == [3, 4, 1]


def test_the_first_images_are_attacked_again(monkeypatch):
    """Where the data are: eight images, the weaker radius, same verdicts but one."""
    if not any((root / "cifar10_jpeg").is_dir() for root in data.roots()):
        pytest.skip("the JPEG copy of CIFAR-10 is not on disk")
    x, y = (part[:8] for part in data.load("cifar10_jpeg").test)
    plain = photographs.whole(x)
    change = photographs.attacked(network(), x, y, 2, None)
    assert np.abs(change).max() <= 2
    said, _ = photographs.answers(network(), plain + change)
    kept = results.unpack(record()["masks"]["away 2"])[:8]
    assert ((said != y.numpy()) != kept).sum() <= 1
