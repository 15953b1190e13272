"""Chapter 2a's frontier: exact counts of linear models, made again in part."""

from collections import Counter
from functools import cache

import numpy as np
import price_of_robustness as price
import pytest
import torch

from advlib import data, linear, models, results


@cache
def runs() -> dict:
    """The committed masks by task."""
    stored = results.load("price_of_robustness")["data"]["runs"]
    return {
        (r["recipe"], r["radius"], r["trained_with_box"], r["seed"]): {
            name: results.unpack(text) for name, text in r["wrong"].items()
        }
        for r in stored
    }


def test_every_model_is_there_once():
    """Each of the list, with every seed, and all masks over all images."""
    assert set(runs()) == set(price.TASKS)
    images = results.load("price_of_robustness")["data"]["test_images"]
    sizes = Counter(len(mask) for run in runs().values() for mask in run.values())
    assert sizes == {images: len(runs()) * len(price.MEASURES)}


def test_the_stronger_opponent_has_every_image_of_the_weaker():
    """By theorem: clean, box, no box at one radius; box at 0.2 and at 0.3."""
    for run in runs().values():
        assert (run["clean"] <= run["box"]).all()
        assert (run["box"] <= run["no box"]).all()
        assert (run["box"] <= run["box 0.3"]).all()


def test_masks_by_hand():
    """Two pixels, three images: what is wrong, computed with pencil and paper."""
    model = models.linear((1, 1, 2), 1).double()
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[1.0, -1.0]]))
        model[1].bias.zero_()
    x = torch.tensor([[[[0.9, 0.1]]], [[[0.3, 0.0]]], [[[0.2, 0.4]]]]).double()
    y = torch.ones(3).double()  # margins 0.8, 0.3, -0.2
    found = {k: results.unpack(v).tolist() for k, v in price.wrong(model, x, y).items()}
    assert found["clean"] == [False, False, True]
    assert found["no box"] == [False, True, True]  # less 0.4
    assert found["box"] == [False, True, True]
    assert found["box 0.3"] == [False, True, True]  # less 0.6


def test_a_recipe_on_the_digits(tmp_path):
    """A whole task runs; a second call reads the cache."""
    digits = data.load("digits")
    task = ("same", 0.1, True, 0)
    row = price.measure(task, tmp_path, digits)
    assert price.measure(task, tmp_path, digits) == row
    images = len(price.pair(digits.test)[1])
    counts = {k: results.unpack(v).sum() for k, v in row["wrong"].items()}
    assert counts["clean"] <= counts["box"] <= counts["no box"]
    assert len(results.unpack(row["wrong"]["clean"])) == images


def test_one_committed_model_is_trained_again():
    """The cheapest of the list; other arithmetic may turn over an image."""
    try:
        mnist = data.load("mnist")
    except FileNotFoundError:
        pytest.skip("MNIST is neither on disk nor downloadable")
    task = ("published", 0.0, True, 0)
    model = price.train(task, *price.pair(mnist.train))
    x, y = price.pair(mnist.test)
    for name, (eps, box) in price.MEASURES.items():
        margins = linear.binary_margins(model, x, y, eps, box=box)
        mask = (margins <= 0).numpy()
        assert np.abs(mask.sum() - runs()[task][name].sum()) <= 2
