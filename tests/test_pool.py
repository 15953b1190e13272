"""Training with a pool of adversarial examples: its parts, and what they promise."""

import math
from functools import partial

import cvxpy as cp
import nonrobust_features
import pool_training
import pytest
import torch
from torch import nn

from advlib import attacks, data, evaluation, models, results, training

DIGITS = data.load("digits")
AIMED = training.toward_random_target(attacks.boundary_l2, 10)


def network(seed: int = 0) -> nn.Sequential:
    """Two sigmoid layers of 20 units for digits, float64, untrained."""
    build = partial(models.mlp, activation=nn.Sigmoid)
    return models.seeded(build, DIGITS.shape, [20, 20], seed=seed).double()


def trained(seed: int = 0) -> nn.Sequential:
    """The same, trained: less than 20 % error."""
    model, (x, y) = network(seed), DIGITS.train
    training.fit(model, x.double(), y, epochs=20, lr=2.0, batch_size=50)
    return model


def lengths(delta: torch.Tensor) -> torch.Tensor:
    """The l2 norm of each perturbation."""
    return delta.flatten(1).norm(dim=1)


# ------------------------------------------------------------------- the attack


def linear_case(num_classes: int, n: int = 8):
    """A linear model, random images near the box's edge, labels and targets."""
    model = models.seeded(models.linear, (1, 3, 3), num_classes, seed=0).double()
    generator = torch.Generator().manual_seed(1)
    x = torch.rand((n, 1, 3, 3), generator=generator).double().mul(1.4).sub(0.2)
    x = x.clamp(0, 1)
    with torch.no_grad():
        y = model(x).argmax(1)
    return model, x, y, (y + 1) % num_classes


def shortest(model: nn.Sequential, image: torch.Tensor, target: int) -> float:
    """The minimal distortion of a linear model, by a convex program."""
    weight, bias = (p.detach().numpy() for p in model.parameters())
    pixels = image.flatten().numpy()
    delta = cp.Variable(pixels.size)
    logits = weight @ (pixels + delta) + bias
    box = [pixels + delta >= 0, pixels + delta <= 1]
    ahead = [logits[target] >= logits[j] for j in range(len(bias)) if j != target]
    problem = cp.Problem(cp.Minimize(cp.sum_squares(delta)), box + ahead)
    return float(problem.solve(solver="CLARABEL")) ** 0.5


def test_boundary_attack_is_exact_for_two_linear_classes():
    """To 1e-3 of the convex program's value, never below it, and it is a success."""
    model, x, y, target = linear_case(2)
    delta = attacks.boundary_l2(model, x, y, target, num_halvings=20)
    assert (model(x + delta).argmax(1) == target).all()
    for image, length, t in zip(x, lengths(delta), target.tolist(), strict=True):
        best = shortest(model, image, t)
        assert best * (1 - 1e-6) <= length <= best * 1.001


def test_boundary_attack_is_near_for_five_linear_classes():
    """Never below the convex program, on average within 10 %."""
    model, x, y, target = linear_case(5, 20)
    delta = attacks.boundary_l2(model, x, y, target, num_steps=20)
    assert (model(x + delta).argmax(1) == target).all()
    assert (x + delta).min() >= 0
    assert (x + delta).max() <= 1
    cases = zip(x, lengths(delta), target.tolist(), strict=True)
    ratios = [float(length) / shortest(model, image, t) for image, length, t in cases]
    assert min(ratios) >= 1 - 1e-6
    assert sum(ratios) / len(ratios) < 1.1


def test_boundary_attack_on_a_network():
    """Reaches random targets on a trained network, about as near as binary search."""
    model = trained()
    x, y = DIGITS.test[0][:60].double(), DIGITS.test[1][:60]
    delta = AIMED(model, x, y)
    fooled = evaluation.wrong(model, x + delta, y)
    assert fooled.double().mean() >= 0.95
    slower = training.toward_random_target(
        partial(attacks.boundary_l2, num_steps=60), 10
    )
    ratio = lengths(delta)[fooled] / lengths(slower(model, x, y))[fooled]
    assert 0.9 < float(ratio.mean()) < 1.1


def test_bad_attacks_are_refused():
    """The label as target, another range, gradients with NaN, numbers."""
    model, x, y, target = linear_case(3)
    with pytest.raises(ValueError, match="label"):
        attacks.boundary_l2(model, x, y, y)
    with pytest.raises(ValueError, match="0, 1"):
        attacks.boundary_l2(model, x + 1, y, target)
    with pytest.raises(ValueError, match="classes"):
        attacks.boundary_l2(model, x, y, 3)
    with pytest.raises(ValueError, match="max_step"):
        attacks.boundary_l2(model, x, y, target, max_step=0)
    with pytest.raises(ValueError, match="train mode"):
        attacks.boundary_l2(model.train(), x, y, target)
    broken = model.eval().requires_grad_(False)
    broken[1].weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        attacks.boundary_l2(broken, x, y, target)


# ------------------------------------------------------------ targets and noise


def test_random_targets_are_other_classes():
    """Never the label, all others equally often, the seed decides."""
    seen = []

    def spy(model, x, y, target):
        seen.append(target)
        return torch.zeros_like(x)

    y = torch.arange(10).repeat(500)
    for seed in (0, 0, 1):
        aimed = training.toward_random_target(spy, 10, seed=seed)
        aimed(None, torch.zeros(len(y), 2), y)
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])
    assert (seen[0] != y).all()
    counts = ((seen[0] - y) % 10).bincount(minlength=10)
    assert counts[0] == 0
    assert counts[1:].min() > 450
    with pytest.raises(ValueError, match="second class"):
        training.toward_random_target(spy, 1)


def test_noise_has_the_length_of_the_attack():
    """After clipping to the box, and it is another direction each time."""
    model, (x, y) = trained(), DIGITS.test
    x, y = x[:50].double(), y[:50]
    delta = attacks.boundary_l2(model, x, y, (y + 1) % 10)
    noise = training.noise_as_long_as(lambda *_: delta, seed=0)
    first, second = noise(model, x, y), noise(model, x, y)
    for found in (first, second):
        assert lengths(found).tolist() == pytest.approx(
            lengths(delta).tolist(), rel=1e-4
        )
        assert (x + found).min() >= 0
        assert (x + found).max() <= 1
    cosine = (first * second).flatten(1).sum(1) / lengths(first) / lengths(second)
    assert cosine.abs().mean() < 0.6
    again = training.noise_as_long_as(lambda *_: delta, seed=0)(model, x, y)
    assert torch.equal(again, first)


def test_noise_longer_than_the_box_is_what_fits():
    """A corner is as far as it goes; no attack, no noise."""
    x, y = torch.full((3, 4), 0.5).double(), torch.zeros(3).long()
    far = training.noise_as_long_as(lambda *_: torch.full_like(x, 9.0))
    assert lengths(far(None, x, y)).tolist() == pytest.approx([1.0] * 3)
    none = training.noise_as_long_as(lambda *_: torch.zeros_like(x))
    assert (none(None, x, y).abs() < 1e-6).all()


def test_shorten_by_hand():
    """A 3-4-5 triangle is cut to length 2, a shorter one is kept."""
    delta = torch.tensor([[3.0, 4.0], [0.3, 0.4]])
    cut = training.shortened(lambda *_: delta, 2.0)(None, delta, None)
    assert cut.flatten().tolist() == pytest.approx([1.2, 1.6, 0.3, 0.4])
    with pytest.raises(ValueError, match="length"):
        training.shortened(lambda *_: delta, 0.0)


# ------------------------------------------------------------------- the pool


def counting(start: int = 0):
    """An attack that marks its n-th example by the number start + n, in one pixel."""
    state = [start]

    def craft(model, a, y):
        delta = torch.zeros_like(a)
        delta.flatten(1)[:, 0] = state[0] + torch.arange(len(a)).to(a)
        state[0] += len(a)
        return delta

    return craft


def test_pool_grows_then_keeps_its_size_and_loses_the_oldest():
    """Ten new ones every second call; the last 25 stay, in order."""
    model, (x, y) = network(), DIGITS.train
    pool = training.PoolLoss(counting(), size=25, num_new=10, every=2, num_drawn=3)
    sizes = []
    for _ in range(9):
        pool(model, x[:40].double(), y[:40])
        sizes.append(len(pool))
    assert sizes == [10, 10, 20, 20, 25, 25, 25, 25, 25]
    marks = pool.items[3].flatten(1)[:, 0].long().tolist()
    assert marks == list(range(25, 50))
    assert pool.items[2].tolist() == [4] * 5 + [6] * 10 + [8] * 10
    assert torch.equal(pool.items[1][-10:], y[:10])
    assert torch.equal(pool.items[0][-10:], x[:10].double())


def test_pool_loss_by_hand():
    """One example in the pool: the mean over batch and layers, with the weight."""
    model = network()
    x, y = DIGITS.train[0][:8].double(), DIGITS.train[1][:8]
    deltas = {64: 0.1, 20: -0.2}  # by the width of the layer's input

    def craft(tail, a, y):
        return torch.full_like(a, deltas[a[0].numel()])

    pool = training.PoolLoss(
        craft, (0, 3), size=1, num_new=1, every=5, num_drawn=4, weight=0.3
    )
    loss = pool(model, x, y)
    hidden = model[:3](x[:1]) - 0.2
    nll = nn.functional.cross_entropy
    expected = 0.7 * nll(model(x), y)
    expected = expected + 0.15 * nll(model(x[:1] + 0.1), y[:1])
    expected = expected + 0.15 * nll(model[3:](hidden), y[:1])
    torch.testing.assert_close(loss, expected)
    pairs = zip(
        torch.autograd.grad(loss, list(model.parameters())),
        torch.autograd.grad(expected, list(model.parameters())),
        strict=True,
    )
    assert all(torch.allclose(one, other) for one, other in pairs)


def test_hidden_perturbations_follow_the_present_network():
    """The stored delta is added to the activation that the image has now."""
    model = network()
    x, y = DIGITS.train[0][:4].double(), DIGITS.train[1][:4]
    pool = training.PoolLoss(AIMED, (0, 3, 5), size=4, num_new=4, num_drawn=1)
    pool(model, x, y)
    with torch.no_grad():
        model[1].weight.mul_(3.0)
        for k, layer in enumerate((0, 3, 5)):
            logits = model[layer:](model[:layer](x) + pool.items[3 + k])
            assert torch.equal(pool.fooled(model)[k], logits.argmax(1) != y)


def test_fresh_examples_fool_and_the_mode_is_kept():
    """At every layer; the crafting sees eval mode, the model stays in its own."""
    model, (x, y) = trained(), DIGITS.train
    x, y, modes = x[:60].double(), y[:60], []

    def craft(tail, a, y):
        modes.append(any(m.training for m in tail.modules()))
        return AIMED(tail, a, y)

    pool = training.PoolLoss(craft, (0, 3, 5), size=60, num_new=60)
    with pytest.raises(ValueError, match="train mode"):
        pool.fooled(model.train())
    pool(model, x, y)
    assert modes == [False] * 3
    assert model.training
    assert all(m.training for m in model.modules())
    assert (pool.fooled(model.eval()).double().mean(1) > 0.9).all()


def test_training_with_a_pool():
    """Seeds decide everything; the network ends up harder to fool than without."""
    x, y = DIGITS.train[0][:600].double(), DIGITS.train[1][:600]
    found = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1), ("plain", None)):
        craft = training.toward_random_target(attacks.boundary_l2, 10, seed=seed or 0)
        pool = training.PoolLoss(
            training.shortened(craft, 1.0),
            size=200,
            num_new=50,
            every=5,
            seed=seed or 0,
        )
        objective = training.mean_cross_entropy if seed is None else pool
        found[name] = network()
        training.fit(
            found[name], x, y, epochs=60, lr=2.0, batch_size=50, objective=objective
        )
    weights = {
        k: torch.cat([p.flatten() for p in m.parameters()]) for k, m in found.items()
    }
    assert torch.equal(weights["a"], weights["b"])
    assert not torch.equal(weights["a"], weights["c"])
    x, y = DIGITS.test[0].double(), DIGITS.test[1]
    attack = partial(attacks.pgd_l2, eps=0.5, alpha=0.1, num_steps=20)
    errors = {k: evaluation.attacked_error(m, x, y, attack) for k, m in found.items()}
    assert errors["a"].interval[1] < errors["plain"].interval[0]


@pytest.mark.parametrize(
    "change",
    [
        {"size": 5},
        {"num_new": 0},
        {"every": 0},
        {"num_drawn": 0},
        {"weight": 1.5},
        {"weight": float("nan")},
        {"layers": ()},
        {"layers": (-1,)},
    ],
    ids=str,
)
def test_bad_numbers_are_refused(change):
    """Before anything is trained."""
    good = {"size": 10, "num_new": 6, "every": 1, "num_drawn": 1, "weight": 0.5}
    with pytest.raises(ValueError, match="num_new <= size"):
        training.PoolLoss(AIMED, **good | change)


def test_one_drawn_item_and_batch_norm():
    """Refused in train mode, before anything is crafted; fine in eval mode."""
    layers = [nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, 10)]
    model = models.seeded(lambda: nn.Sequential(*layers), seed=0).double()
    x, y = DIGITS.train[0][:6].double(), DIGITS.train[1][:6]
    pool = training.PoolLoss(AIMED, size=1, num_new=1, num_drawn=1)
    with pytest.raises(ValueError, match="num_drawn >= 2"):
        pool(model.train(), x, y)
    assert (len(pool), pool.calls) == (0, 0)
    assert pool(model.eval(), x, y).isfinite()
    pool.num_drawn = 2
    assert pool(model.train(), x, y).isfinite()


def test_an_attack_that_fails_leaves_the_mode():
    """Of every module, as it was: a frozen layer stays frozen."""
    model = network().train()
    model[2].eval()
    before = [m.training for m in model.modules()]
    x, y = DIGITS.train[0][:6].double(), DIGITS.train[1][:6]

    def broken(tail, a, y):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        training.PoolLoss(broken, size=6, num_new=6)(model, x, y)
    assert [m.training for m in model.modules()] == before
    training.PoolLoss(counting(), size=6, num_new=6)(model, x, y)
    assert [m.training for m in model.modules()] == before


# ------------------------------------------------------------- the experiments


@pytest.mark.parametrize("module", [pool_training, nonrobust_features])
def test_a_stopped_experiment_goes_on(module, tmp_path, monkeypatch):
    """What is in the cache is not computed again."""
    monkeypatch.setattr(module, "EPOCHS", 1)
    monkeypatch.setattr(module, "RATES", [0.5])
    if module is pool_training:
        run = partial(
            module.sweep, tmp_path, DIGITS, seeds=1, methods=["pool_all", "dropout"]
        )
    else:
        monkeypatch.setattr(module, "IMAGES", 200)
        task = ("dnn_2", "next", 0.5)
        run = partial(lambda: [module.measure(task, tmp_path, DIGITS, [1, 2])])
    first = run()
    for path in tmp_path.glob("*.json"):
        path.write_text(path.read_text().replace('"seconds": ', '"seconds": 7777'))
    again = run()
    assert len(first) == len(again) > 0
    for one, two in zip(first, again, strict=True):
        assert two.pop("seconds") >= 7777 > one.pop("seconds")
        assert one == two


def test_dropout_layers_leave_the_same_network():
    """In eval mode the short circuit computes what the network computes."""
    model = models.seeded(pool_training.network, DIGITS.shape, 0.1, 0.1, seed=0)
    assert sum(isinstance(m, nn.Dropout) for m in model) == 3
    x = DIGITS.test[0][:20]
    assert torch.equal(pool_training.short_circuit(model)(x), model(x))


def test_the_record_of_pool_training():
    """Every method with the same seeds, at least three; plausible numbers."""
    record = results.load("pool_training")["data"]
    runs = record["runs"]
    seeds = {
        m: [r["seed"] for r in runs if r["method"] == m] for m in record["methods"]
    }
    assert set(seeds) == set(pool_training.METHODS)
    assert all(found == seeds["decay"] for found in seeds.values())
    assert len(seeds["decay"]) >= 3
    for run in runs:
        assert 0 < run["test_wrong"] < 0.05 * record["test_images"]
        assert run["attacked_wrong"] == sorted(run["attacked_wrong"])
        assert run["slope"] <= math.prod(run["norms"])
        assert 0.85 < run["success"] <= 1
        longest = record["lengths"].get(run["method"], math.inf)
        assert all(0 < length <= longest + 1e-6 for length in run.get("lengths", []))


def test_the_record_of_nonrobust_features():
    """Five seeds; the attack teaches more than the noise in every row."""
    record = results.load("nonrobust_features")["data"]
    found = {(run["student"], run["labels"], run["eps"]) for run in record["runs"]}
    assert found == set(nonrobust_features.TASKS)
    for run in record["runs"]:
        assert len(run["attack"]) == len(run["noise"]) >= 5
        assert min(run["attack"]) > max(run["noise"])


def test_targets_are_wrong_labels():
    """ "next" by hand, "random" never the label."""
    y = torch.arange(10).repeat(50)
    assert torch.equal(nonrobust_features.targets(y, "next"), (y + 1) % 10)
    assert (nonrobust_features.targets(y, "random") != y).all()
