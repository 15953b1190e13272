"""The experiment of chapter 10a: its rules, and what its record must satisfy."""

from functools import partial

import blind_spots
import numpy as np
import pytest
import torch

from advlib import attacks, data, models, results, zoo


@pytest.fixture
def tiny():
    """Two untrained networks, and images with the labels that the first one gives."""
    nets = {
        str(seed): models.seeded(models.linear, (1, 4, 4), 3, seed=seed)
        for seed in range(2)
    }
    x = torch.rand(80, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    return nets, x, nets["0"](x).argmax(1)


def test_images_and_targets_follow_the_rule(tiny):
    """All networks are right, targets are not the label, seeds make a difference."""
    nets, x, y = tiny
    chosen, labels, target = blind_spots.images(nets, x, y, 10)
    for net in nets.values():
        assert torch.equal(net(chosen).argmax(1), labels)
    assert not (target == labels).any()
    assert target.min() >= 0
    assert target.max() <= 2
    again = blind_spots.images(nets, x, y, 10)
    assert all(
        torch.equal(a, b) for a, b in zip(again, (chosen, labels, target), strict=True)
    )
    assert not torch.equal(blind_spots.images(nets, x, y, 10, seed=1)[0], chosen)


def test_amplified_has_the_meant_size_before_clipping():
    """In the middle of the box nothing is clipped: RMS is what was asked for."""
    x = torch.full((3, 1, 4, 4), 0.5)
    delta = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)) * 1e-3
    grown = blind_spots.amplified(x, delta, 0.1)
    assert torch.allclose(grown.square().mean((1, 2, 3)).sqrt(), torch.tensor(0.1))
    assert torch.allclose(grown / delta, (grown / delta)[:, :, :1, :1])
    clipped = blind_spots.amplified(torch.zeros_like(x), delta, 0.1)
    assert (clipped >= 0).all()
    assert blind_spots.rms(clipped) < 0.1


def test_transfer_reads_source_then_network(tiny):
    """Row: made for; column: fooled. A change that fools one of two shows it."""
    nets, x, y = tiny
    x, y, target = blind_spots.images(nets, x, y, 10)
    found = attacks.lbfgs(nets["0"], x, target, loss="margin")
    table = blind_spots.transfer(nets, x, y, {"0": found.delta, "1": 0 * found.delta})
    assert table["native"]["0"]["0"] == int(found.success.sum()) == 10
    assert table["native"]["1"]["0"] == table["native"]["1"]["1"] == 0
    assert table["native"]["0"]["1"] == int(
        (nets["1"](x + found.delta).argmax(1) != y).sum()
    )


def test_hits_are_the_images_behind_the_counts(tiny):
    """Masks in the order source, network, image; what reaches the target is fooled."""
    nets, x, y = tiny
    x, y, target = blind_spots.images(nets, x, y, 10)
    deltas = {
        name: attacks.lbfgs(net, x, target, loss="margin").delta
        for name, net in nets.items()
    }
    table = blind_spots.transfer(nets, x, y, deltas)["native"]
    found = blind_spots.hits(nets, x, y, target, deltas)["native"]
    fooled, reached = (results.unpack(found[k]) for k in ("fooled", "target"))
    assert fooled.shape == (2, 2, 10)
    assert (reached <= fooled).all()
    assert reached[0, 0].all()
    for source, masks in zip(nets, fooled, strict=True):
        assert masks.sum(1).tolist() == [table[source][name] for name in nets]
    noise = blind_spots.noise_hits(nets, x, y, {"much": 0.5})["much"]
    total = blind_spots.noise(nets, x, y, {"much": 0.5})["much"]
    assert results.unpack(noise).sum((0, 2)).tolist() == list(total.values())


def test_cosines_by_hand():
    """Each pair once, image by image."""
    right, up = torch.tensor([[1.0, 0], [2, 0]]), torch.tensor([[0.0, 3], [1, 1]])
    found = blind_spots.cosines({"a": right, "b": up, "c": -right})
    assert found["a"]["b"] == [0.0, 0.707]
    assert found["a"]["c"] == [-1.0, -1.0]
    assert set(found) == {"a", "b"}
    assert set(found["b"]) == {"c"}


def test_the_box_makes_noise_brighter(tiny):
    """Nothing is clipped in the middle of the box; the same draws for both kinds."""
    nets, x, y = tiny
    middle = 0.5 + 0 * x[:10]
    found = blind_spots.box_or_not(nets, middle, y[:10], 0.05)
    assert found["clipped"] == found["plain"]
    assert set(found["plain"]) == set(nets)


def test_noise_counts_every_draw(tiny):
    """Noise of length zero fools nobody; of full length it is counted per draw."""
    nets, x, y = tiny
    x, y, _ = blind_spots.images(nets, x, y, 10)
    totals = blind_spots.noise(nets, x, y, {"none": 0.0, "much": 0.5})
    assert set(totals["none"].values()) == {0}
    assert max(totals["much"].values()) <= blind_spots.DRAWS * 10
    assert max(totals["much"].values()) > 10 / 2


@pytest.mark.parametrize("part", ["whole", "halves"])
def test_the_record(part):
    """n, success, no attack below the exact answer, and near to the PGD's lengths."""
    group = results.load("blind_spots")["data"][part]
    n, names = group["images"], list(group["errors"])
    assert n >= 200
    assert names == {"whole": blind_spots.WHOLE, "halves": blind_spots.HALVES}[part]
    length = {
        method: {k: np.array(v["l2"], float) for k, v in rows.items()}
        for method, rows in group["attacks"].items()
    }
    for name in names:
        ce, margin, pgd = (
            length[method][name] for method in ("cross_entropy", "margin", "pgd")
        )
        for found in (ce, margin, pgd):
            assert len(found) == n
            assert np.isfinite(found).mean() >= 0.99
        assert np.nanmean(margin / pgd) <= 1.05
        if name in group["exact"]:
            for found in (ce, margin, pgd):
                assert np.nanmin(found / group["exact"][name]) >= 1 - 1e-4
            assert np.nanmean(margin / group["exact"][name]) <= 1.01
        table = group["transfer_margin"]["equal"][name]["0.1"]
        kept = results.unpack(group["hits_margin"]["0.1"]["fooled"])[names.index(name)]
        assert kept.sum(1).tolist() == [table[other] for other in names]
        drawn = results.unpack(group["noise_hits"][name]).sum((0, 2))
        assert drawn.tolist() == [group["noise"][name][other] for other in names]
        row = group["transfer_cross_entropy"]["native"][name]
        assert row[name] == np.isfinite(ce).sum()
        assert row["rms"] == pytest.approx(np.nansum(ce) / 28 / n, rel=1e-3)


def test_the_record_can_be_made_again():
    """The first images, network and targets again: lengths and transfer are stored."""
    dataset = data.default()
    if dataset.name != "mnist":
        pytest.skip("the record is MNIST's")
    group = results.load("blind_spots")["data"]["whole"]
    nets, x, _, target = blind_spots.group(blind_spots.WHOLE, dataset, 200)
    for name, method in (("fc10_1e-2", "cross_entropy"), ("fc_100_100", "margin")):
        found = blind_spots.METHODS[method](nets[name], x[:3], target[:3])
        stored = group["attacks"][method][name]["l2"][:3]
        assert found.l2.tolist() == pytest.approx(stored, rel=0.01)
    pool = zoo.training_images("fc10_1e-2", dataset)
    wrong = blind_spots.errors({"a": nets["fc10_1e-2"]}, {"train": pool})["a"]["train"]
    assert abs(wrong[0] - group["errors"]["fc10_1e-2"]["train"][0]) <= 3
    exact = group["exact"]["fc10_1"][:2]
    again = blind_spots.shortest_linear(nets["fc10_1"], x[:2], target[:2])
    assert again.tolist() == pytest.approx(exact, rel=1e-3)


def test_two_workers_and_a_stopped_run(tmp_path):
    """Chunks come from the cache if they are there, and in the order of the images."""
    ask = partial(blind_spots.attack, tmp_path, ["fc10_1"], "fc10_1", "margin", 4)
    first = ask(0, "digits")
    (kept,) = tmp_path.glob("*.safetensors")
    stamp = kept.stat().st_mtime_ns
    again = ask(0, "digits")
    assert kept.stat().st_mtime_ns == stamp
    assert torch.equal(first["delta"], again["delta"])
    assert first["success"].all()
