"""Signs of masked gradients: each fires on a model made for it, none on honest ones."""

import json
import math
from functools import cache, partial

import masking
import pytest
import torch
from torch import nn

from advlib import attacks, data, evaluation, models, results, training, zoo

DIGITS = data.load("digits")
X, Y = (part[:150] for part in DIGITS.test)
EPS = 0.1
STEEP = models.Ripple(waves=240.0, height=2.0)  # pixels of digits: multiples of 1/16


@cache
def trained(name: str) -> nn.Sequential:
    """A network of the zoo, trained on digits once; "robust" is a quicker one."""
    if name != "robust":
        return zoo.train(name, DIGITS).requires_grad_(False)
    model = models.seeded(models.dnn_2, DIGITS.shape, seed=0)
    pgd = partial(attacks.pgd_linf, eps=EPS, alpha=EPS / 2, num_steps=4)
    training.fit(model, *DIGITS.train, epochs=20, lr=0.1, batch_size=50, attack=pgd)
    return model.requires_grad_(False)


def look(model: nn.Module, x=X, y=Y, eps=EPS, **options) -> dict:
    """The checks by name."""
    listed = evaluation.masking_checks(model, x, y, eps, **options)
    found = {check.name: check for check in listed}
    assert len(found) == len(listed)
    return found


def names(found: dict) -> set[str]:
    """The checks that fired."""
    return {name for name, check in found.items() if check.fired}


class Flat(nn.Module):
    """Round the logits: the network's gradient is zero, its verdicts hardly change."""

    def forward(self, z):
        """Logits to a hundredth."""
        return (100 * z).round() / 100


class Pocket(nn.Module):
    """One pixel, class 1 only from ``low`` to ``high``; its gradient says: go up."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = low, high

    def forward(self, x):
        """Logits (N, 2) of images (N, 1)."""
        inside = (x >= self.low) & (x <= self.high)
        way = x - x.detach()  # zero, with slope 1
        verdict = torch.where(inside, 1.0, -1.0) + way
        return torch.cat([-verdict, verdict], 1)


class Root(nn.Module):
    """A square root at 0: right logits, infinite slope."""

    def forward(self, x):
        """Logits (N, 2) of images (N, 1)."""
        low = (x - x.detach()).sqrt()  # 0, and its slope is not finite
        return torch.cat([1 + low, low], 1)


# --------------------------------------------------------------- each check, alone


@pytest.mark.parametrize("name", ["dnn_2", "robust"])
def test_silence_on_honest_networks(name):
    """Trained in the usual way and robustly; every check is there, in order."""
    found = look(trained(name), substitutes=[trained("linear")])
    assert list(found) == list(evaluation.SIGNS)
    assert names(found) == set()
    wrong = evaluation.wrong(trained(name), X, Y)
    assert {check.n for check in found.values()} == {int((~wrong).sum())}


MADE = {
    "quantised pixels": (
        lambda net: nn.Sequential(models.Quantise(8), net),
        {"search", "transfer", "unbounded", "no gradient", "wrong gradient"},
    ),
    "rounded logits": (
        lambda net: nn.Sequential(net, Flat()),
        {"search", "transfer", "unbounded", "no gradient", "wrong gradient"},
    ),
    "loud logits": (
        lambda net: nn.Sequential(net, models.Scale(1000.0)),
        {"search", "transfer", "unbounded", "no gradient", "other loss"},
    ),
    "clipped pixels": (
        lambda net: nn.Sequential(nn.Hardtanh(0.0, 1.0), net),
        {"dead pixels", "search", "transfer"},
    ),
    "ripples": (
        lambda net: nn.Sequential(STEEP, net),
        {"one step", "search", "transfer", "wrong gradient"},
    ),
    "noise": (
        lambda net: nn.Sequential(models.Noise(0.2), net),
        {"answers change", "wrong gradient"},
    ),
}


@pytest.mark.parametrize("kind", MADE)
def test_what_fires_on_masked_networks(kind):
    """PGD is fooled by the mask, and transfer from what is under it is not."""
    build, expected = MADE[kind]
    found = look(build(trained("dnn_2")).eval(), substitutes=[trained("dnn_2")])
    fired = names(found)
    if kind == "noise":  # what else fires is chance
        assert expected <= fired
    else:
        assert fired == expected


def test_a_radius_that_is_too_large():
    """PGD's first step at 2 eps jumps over the one place that fools."""
    x, y = torch.full((60, 1), 0.5), torch.zeros(60, dtype=torch.int64)
    found = look(Pocket(0.505, 0.51).eval(), x, y)  # steps: 1/160 and 1/80
    assert found["larger radius"].value == 1
    assert {"larger radius"} <= names(found)
    found = look(Pocket(0.505, 1).eval(), x, y)
    assert found["larger radius"].value == 0


def test_slopes_that_are_not_finite():
    """NaN and infinity are a sign, not an error; no image counts as fooled."""
    x, y = torch.zeros(60, 1), torch.zeros(60, dtype=torch.int64)
    found = look(Root().eval(), x, y)
    assert found["no gradient"].value == found["wrong gradient"].value == 1
    assert found["one step"].value == found["larger radius"].value == 0
    assert found["unbounded"].value == 1


def test_by_hand():
    """A threshold on one pixel: who falls, who stands, among the right ones."""
    x = torch.tensor([[0.1], [0.45], [0.55], [0.7], [0.9]])
    y = torch.tensor([0, 0, 1, 1, 0])  # the last is wrong as it is
    model = nn.Sequential(nn.Linear(1, 2)).eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[-1.0], [1.0]]))
        model[0].bias.copy_(torch.tensor([0.5, -0.5]))
    found = look(model, x, y)
    assert "search" not in found  # not images
    assert "transfer" not in found
    assert {check.rate for check in found.values()} == {evaluation.ErrorRate(0, 4)}
    flat = nn.Sequential(models.Quantise(2), model).eval()
    found = look(flat, x, y, substitutes=[model])
    assert found["transfer"].rate == evaluation.ErrorRate(2, 4)
    assert found["unbounded"].rate == evaluation.ErrorRate(4, 4)
    assert found["one step"].rate == evaluation.ErrorRate(0, 4)


def test_the_shares_are_those_of_the_attacks():
    """Search and one step, counted from the library's own attacks."""
    model = nn.Sequential(STEEP, trained("dnn_2")).eval()
    found = look(model, num_steps=24, num_queries=200, seed=3)
    right = ~evaluation.wrong(model, X, Y)
    x, y = X[right], Y[right]
    options = {"alpha": 2.5 * EPS / 24, "num_steps": 24, "drop_fooled": True}
    pgd = partial(attacks.pgd_linf, eps=EPS, **options)
    stands = ~evaluation.attacked(model, x, y, [pgd])
    one = evaluation.attacked(model, x, y, [partial(attacks.fgsm, eps=EPS)])
    assert found["one step"].rate.wrong == int((stands & one).sum()) > 0
    search = partial(
        attacks.square,
        eps=EPS,
        num_queries=200,
        generator=torch.Generator().manual_seed(3),
    )
    left = x[stands], y[stands]
    count = int(evaluation.attacked(model, *left, [search]).sum())
    assert found["search"].rate.wrong == count > 0


@pytest.mark.parametrize("name", ["dnn_2", "robust"])
def test_a_clip_that_changes_no_image(name):
    """Bit-equal logits, a slope of 0 at 0 and 1; PGD from the image is hindered."""
    model = nn.Sequential(nn.Hardtanh(0.0, 1.0), trained(name)).eval()
    assert torch.equal(model(X), trained(name)(X))
    edge = (X == 0) | (X == 1)
    assert (attacks.input_gradient(model, X, Y)[edge] == 0).all()
    found = look(model, num_steps=24, num_queries=10, seed=3)
    assert "dead pixels" in names(found)
    right = ~evaluation.wrong(model, X, Y)
    hidden = (edge.flatten(1).double().mean(1) > 0.25) & right
    assert found["dead pixels"].rate == evaluation.ErrorRate(
        int(hidden.sum()), int(right.sum())
    )
    options = {"alpha": 2.5 * EPS / 24, "num_steps": 24, "drop_fooled": True}
    pgd = partial(attacks.pgd_linf, eps=EPS, **options)
    started = partial(pgd, generator=torch.Generator().manual_seed(3))
    few, many = (evaluation.attacked(model, X, Y, [a]).sum() for a in (pgd, started))
    assert many >= few + 10
    plain = look(trained(name), num_steps=24, num_queries=10, seed=3)
    assert plain["dead pixels"].value == 0


class Mean(nn.Module):
    """Two logits of the mean of the pixels, the first ``blind`` of them left out."""

    def __init__(self, blind: int) -> None:
        super().__init__()
        self.blind = blind

    def forward(self, x):
        """Logits (N, 2) of images (N, 8)."""
        mean = x[:, self.blind :].mean(1) - 0.2
        return torch.stack([-mean, mean], 1)


@pytest.mark.parametrize("dark", range(9))
def test_dead_pixels_by_hand(dark):
    """More than a quarter of those with a slope beside the image; others are none."""
    x = torch.full((40, 8), 0.5)
    x[:, :dark] = 0.0
    for blind in (0, 2):
        net = nn.Sequential(nn.Hardtanh(0.0, 1.0), Mean(blind)).eval()
        y = net(x).argmax(1)
        found = look(net, x, y, num_steps=2)["dead pixels"].value
        assert found == (max(dark - blind, 0) > (8 - blind) / 4)
        assert look(Mean(blind).eval(), x, y)["dead pixels"].value == 0


def test_several_substitutes_count_once():
    """An image that either fools is one image; more substitutes find no fewer."""
    model = nn.Sequential(models.Quantise(8), trained("dnn_2")).eval()
    options = {"num_queries": 1, "num_steps": 10}
    one, two = (
        look(model, substitutes=[trained(n)], **options) for n in ("linear", "dnn_4")
    )
    both = look(model, substitutes=[trained("linear"), trained("dnn_4")], **options)
    counts = [found["transfer"].rate.wrong for found in (one, two, both)]
    assert max(counts[:2]) <= counts[2] <= sum(counts[:2])
    again = look(model, substitutes=[trained("linear")] * 2, **options)
    assert again["transfer"] == one["transfer"]


# ------------------------------------------------------------- numbers and verdicts


def test_a_check_is_a_number_with_an_interval():
    """Value inside the interval; fired only if the low end is above the threshold."""
    for wrong, fires in ((0, False), (8, False), (30, True), (100, True)):
        rate = evaluation.ErrorRate(wrong, 100)
        check = evaluation.MaskingCheck("search", rate, 0.05, "a sign")
        low, high = check.interval
        assert low <= check.value == wrong / 100 <= high
        assert check.n == 100
        assert check.fired is fires is (low > 0.05)
    assert str(check) == f"search: {rate}, FIRED at 0.05: a sign"


def test_seeds_and_the_global_random_state():
    """The same again with the same seed; torch's generator is where it was."""
    model = nn.Sequential(models.Noise(0.3), trained("dnn_2")).eval()
    options = {"num_queries": 50, "num_steps": 10}
    torch.manual_seed(1)
    first = look(model, seed=0, **options)
    drawn = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(3), drawn)
    torch.manual_seed(99)
    assert look(model, seed=0, **options) == first
    other = look(model, seed=1, **options)
    assert any(other[name].rate != first[name].rate for name in first)


@pytest.mark.parametrize("batch_size", [7, 150])
def test_batches_do_not_matter(batch_size):
    """Without random draws, that is; the search draws per batch."""
    model = nn.Sequential(STEEP, trained("dnn_2")).eval()
    options = {"num_steps": 8, "num_queries": 20}
    whole, parts = (look(model, batch_size=b, **options) for b in (250, batch_size))
    for name in set(whole) - {"search"}:
        assert whole[name] == parts[name]


def test_the_model_is_left_as_it_was():
    """No gradients are stored, and nothing is switched."""
    model = models.seeded(models.linear, DIGITS.shape, seed=0)
    look(model, num_steps=2, num_queries=2)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert not model.training


class Broken(nn.Module):
    """Logits with NaN."""

    def forward(self, x):
        """NaN everywhere."""
        return x.flatten(1)[:, :10] * torch.nan


@pytest.mark.parametrize(
    ("changes", "kind", "text"),
    [
        (
            {"model": models.seeded(models.linear, DIGITS.shape, seed=0).train()},
            ValueError,
            "train mode",
        ),
        ({"model": Broken().eval()}, ValueError, "NaN"),
        ({"x": X * 2}, ValueError, r"\[0, 1\]"),
        ({"x": (255 * X).long()}, TypeError, "floating"),
        ({"y": Y[:3]}, ValueError, "one label"),
        ({"y": Y.float()}, TypeError, "int64"),
        ({"y": Y.where(torch.arange(len(Y)) > 0, 10)}, ValueError, "10 classes"),
        ({"eps": 8}, ValueError, "8 / 255"),
        ({"eps": 0.0}, ValueError, "0 < eps <= 0.5"),
        ({"eps": 0.6}, ValueError, "0 < eps <= 0.5"),
        ({"eps": math.nan}, ValueError, "eps"),
        ({"num_steps": 1}, ValueError, "num_steps"),
        ({"num_queries": 0}, ValueError, "num_queries"),
        ({"batch_size": 0}, ValueError, "batch_size"),
        ({"y": (Y + 1) % 10}, ValueError, "no image"),
    ],
)
def test_bad_input(changes, kind, text):
    """A clear error, as everywhere."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    if text == "no image":  # always right, so never with other labels
        model = trained("dnn_2")
        right = ~evaluation.wrong(model, X, Y)
        changes = {"x": X[right], "y": changes["y"][right]}
    arguments = {"model": model, "x": X, "y": Y, "eps": EPS} | changes
    with pytest.raises(kind, match=text):
        evaluation.masking_checks(**arguments)


# ------------------------------------------------------------------ layers that mask


def test_quantise_by_hand():
    """Three levels; the nearest one, and no slope."""
    x = torch.tensor([0.0, 0.2, 0.3, 0.7, 0.8, 1.0], requires_grad=True)
    out = models.Quantise(3)(x)
    assert out.tolist() == [0.0, 0.0, 0.5, 0.5, 1.0, 1.0]
    out.sum().backward()
    assert x.grad.tolist() == [0.0] * 6


def test_ripples_are_small_and_steep():
    """Within height / (2 pi waves); slope 1 + height at multiples of 1 / waves."""
    x = torch.linspace(0, 1, 256, dtype=torch.float64, requires_grad=True)
    out = models.Ripple(255.0, 2.0)(x)
    assert torch.allclose(out, x, atol=1e-12)
    (slope,) = torch.autograd.grad(out.sum(), x)
    assert torch.allclose(slope, torch.full_like(x, 3.0), atol=1e-9)
    between = (x[:-1] + 0.5 / 255).detach().requires_grad_()
    (slope,) = torch.autograd.grad(models.Ripple(255.0, 2.0)(between).sum(), between)
    assert torch.allclose(slope, torch.full_like(slope, -1.0), atol=1e-9)
    fine = torch.linspace(0, 1, 10_001, dtype=torch.float64)
    gap = (models.Ripple(255.0, 2.0)(fine) - fine).abs().max()
    assert gap <= 2 / (2 * math.pi * 255) < 0.0013


def test_noise_is_drawn_anew_in_eval_mode():
    """Mean 0, the given deviation, from the global state."""
    layer = models.Noise(0.5).eval()
    x = torch.zeros(10_000)
    torch.manual_seed(0)
    first, second = layer(x), layer(x)
    torch.manual_seed(0)
    assert torch.equal(layer(x), first)
    assert not torch.equal(first, second)
    assert abs(float(first.mean())) < 0.02
    assert float(first.std()) == pytest.approx(0.5, rel=0.03)


def test_scale_and_sharpened():
    """The factor goes in front of each sigmoid; layers and verdict are shared."""
    assert models.Scale(3.0)(torch.tensor([1.0, -2.0])).tolist() == [3.0, -6.0]
    net = models.seeded(models.fc_100_100, DIGITS.shape, seed=0)
    steep = models.sharpened(net, 7.0)
    assert not steep.training
    assert [type(layer).__name__ for layer in steep] == [
        *("Flatten", "Linear", "Scale", "Sigmoid", "Linear", "Scale", "Sigmoid"),
        "Linear",
    ]
    hidden = torch.sigmoid(7 * net[1](X.flatten(1)))
    hidden = torch.sigmoid(7 * net[3](hidden))
    assert torch.equal(steep(X), net[5](hidden))
    assert torch.allclose(models.sharpened(net, 1.0)(X), net(X))
    with pytest.raises(ValueError, match="no Sigmoid"):
        models.sharpened(trained("dnn_2"), 2.0)


@pytest.mark.parametrize("bad", [0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize(
    "build",
    [models.Scale, models.Noise, models.Ripple, partial(models.Ripple, 255.0)],
)
def test_layers_refuse_what_makes_no_sense(build, bad):
    """Positive and finite."""
    with pytest.raises(ValueError, match="positive, finite"):
        build(bad)


@pytest.mark.parametrize("bad", [1, 0, -2, 2.5])
def test_levels_are_whole_numbers(bad):
    """At least two."""
    with pytest.raises(ValueError, match="whole number"):
        models.Quantise(bad)


# ------------------------------------------------------------------- the experiment


def test_the_rule_by_hand():
    """Geometric mean where the intervals are apart, else the default."""
    honest = {"a": (0.0, 0.01), "b": (0.0, 0.02)}
    masked = {"a": (0.25, 0.4), "b": (0.02, 0.5)}
    assert masking.thresholds(honest, masked) == {"a": 0.05, "b": masking.DEFAULT}
    masked["a"] = (0.64, 1.0)
    assert masking.thresholds(honest, masked)["a"] == 0.08


def test_a_record_on_digits(monkeypatch):
    """JSON holds it; counts in their order; the mask is seen, the network is not."""
    monkeypatch.setattr(zoo, "load", lambda name, dataset: trained(name))
    plain, hidden = (
        masking.measured(("dnn_2", mask), DIGITS, 100) for mask in (None, "quantised")
    )
    json.dumps([plain, hidden], allow_nan=False)
    assert plain["adaptive_wrong"] == plain["pgd_wrong"] >= plain["clean_wrong"]
    assert hidden["pgd_wrong"] == hidden["fgsm_wrong"] == hidden["clean_wrong"]
    assert hidden["adaptive_wrong"] > hidden["pgd_wrong"] + 10
    assert masking.fired(plain) == []
    assert "no gradient" in masking.fired(hidden)
    again = masking.measured(("dnn_2", "quantised"), DIGITS, 100)
    assert again | {"seconds": 0} == hidden | {"seconds": 0}
    summary = masking.summary([plain, hidden])
    assert summary["false_alarms"] == []
    assert summary["caught"] == [["dnn_2", "quantised", masking.fired(hidden)]]
    alarm = plain | {"checks": hidden["checks"]}
    listed = masking.summary([alarm])["false_alarms"]
    assert [name for *_, name in listed] == masking.fired(hidden)
    calibration = alarm | {"role": "calibration"}
    assert masking.summary([calibration])["false_alarms"] == []


@pytest.fixture(scope="module")
def record() -> dict:
    """What is committed."""
    return results.load("masking")["data"]


def test_all_honest_networks_and_the_masked_ones_are_there(record):
    """Each once: the whole zoo on MNIST, its networks on photos, all masks."""
    found = [(r["dataset"], r["base"], r["mask"]) for r in record["networks"]]
    assert len(found) == len(set(found))
    honest = {base for name, base, mask in found if (name, mask) == ("mnist", None)}
    assert honest == set(zoo.RECIPES)
    for name in ("mnist", "cifar10_jpeg"):
        assert [f[1:] for f in found if f[0] == name] == masking.tasks(name)
    assert {r["base"] for r in record["networks"] if r["role"] == "calibration"} == {
        "mlp_256_pgd",
        "fc_100_100",
    }


def test_thresholds_follow_from_two_networks(record):
    """The constants of the library are those of the rule, and were used throughout."""
    calibration = [r for r in record["networks"] if r["role"] == "calibration"]
    honest, masked = sorted(calibration, key=lambda r: r["mask"] is not None)
    assert masking.check_thresholds(honest, masked) == record["thresholds"]
    with pytest.raises(ValueError, match="the rule gives"):
        masking.check_thresholds(masked, masked)
    for r in record["networks"]:
        used = {name: check["threshold"] for name, check in r["checks"].items()}
        assert used == record["thresholds"]


def test_verdicts_follow_from_the_counts(record):
    """Interval, value, fired; false alarms and catches are those of the entries."""
    for r in record["networks"]:
        for check in r["checks"].values():
            rate = evaluation.ErrorRate(check["count"], check["n"])
            assert check["n"] == r["images"] - r["clean_wrong"] or r["mask"] == "random"
            assert check["value"] == round(rate.rate, 4)
            assert check["interval"] == [round(end, 4) for end in rate.interval]
            assert check["fired"] is (rate.interval[0] > check["threshold"])
        assert r["mask"] or r["adaptive_wrong"] == r["pgd_wrong"]
    summary = masking.summary(record["networks"])
    assert summary == {name: record[name] for name in summary}


def test_what_the_chapter_says(record):
    """Every masked network is caught, and PGD saw less than the adaptive attack."""
    assert all(names for _, _, names in record["caught"])
    for _, mask, names in record["caught"]:
        assert len(names) >= 3 or mask == "clipped"
        assert "dead pixels" in names or mask != "clipped"
    for r in record["networks"]:
        if r["mask"] not in (None, "random"):
            assert r["adaptive_wrong"] > r["pgd_wrong"]


def test_one_committed_row_again(record):
    """A network of a second, on its images; counts may move by rounding."""
    if not any((root / "MNIST/raw").is_dir() for root in data.roots()):
        pytest.skip("MNIST's files are not on disk")
    dataset = data.load("mnist")
    for task in (("fc_100_100", "saturated"), ("fc10_1", None)):
        (old,) = [r for r in record["networks"] if (r["base"], r["mask"]) == task]
        new = masking.measured(task, dataset, record["images"])
        for name, check in new["checks"].items():
            assert abs(check["count"] - old["checks"][name]["count"]) <= 5
