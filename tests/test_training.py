"""The training loop: what it computes, in which mode, and what it leaves behind."""

import copy
import functools
import math
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from advlib import attacks, bounds, data, evaluation, models, training

DIGITS = data.load("digits")
PGD = functools.partial(attacks.pgd_linf, eps=0.2, alpha=0.07, num_steps=5)


def small(seed: int = 0) -> nn.Sequential:
    """A network of seconds for digits."""
    return models.seeded(models.mlp, DIGITS.shape, [32], seed=seed)


def states_equal(a: nn.Module, b: nn.Module) -> bool:
    """Whether all parameters and buffers are the same to the last bit."""
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


def attack(model, x, y):
    """PGD in the l-inf ball of radius 0.2."""
    return PGD(model, x, y)


def test_training_learns_digits():
    """The objective falls, and the network generalises to images it has not seen."""
    model = small()
    before = evaluation.clean_error(model, *DIGITS.test).rate
    history = training.fit(model, *DIGITS.train, epochs=15, lr=0.3)
    assert len(history) == 15
    assert history[-1] < history[0] / 3
    assert evaluation.clean_error(model, *DIGITS.test).rate < 0.1 < before


def test_robust_training_lowers_the_attacked_error():
    """Same start, same order: with the attack inside, the attack outside fails more."""
    errors = {}
    for name, inner in (("standard", None), ("robust", attack)):
        model = small()
        training.fit(model, *DIGITS.train, epochs=15, lr=0.3, attack=inner)
        errors[name] = evaluation.attacked_error(model, *DIGITS.test, attack)
    assert errors["robust"].interval[1] < errors["standard"].interval[0]


def test_ramp_by_hand():
    """0 at the first call, 1 from call ``num_calls`` on; without calls always 1."""
    ramp = training.Ramp(4)
    assert [ramp() for _ in range(7)] == [0, 0.25, 0.5, 0.75, 1, 1, 1]
    assert [training.Ramp(0)() for _ in range(2)] == [1, 1]


def test_interval_loss_starts_as_the_clean_loss():
    """At share 0 it is the mean cross-entropy, value and gradient."""
    model, x, y = small().double(), *(part[:20] for part in DIGITS.train)
    x = x.double()
    loss = training.IntervalLoss(0.1, training.Ramp(5))(model, x, y)
    clean = training.mean_cross_entropy(model, x, y)
    assert loss.item() == pytest.approx(clean.item(), rel=1e-12)
    pairs = zip(
        torch.autograd.grad(loss, list(model.parameters())),
        torch.autograd.grad(clean, list(model.parameters())),
        strict=True,
    )
    assert all(torch.allclose(one, other) for one, other in pairs)


def test_interval_loss_is_above_every_attacked_loss():
    """At share 1, twice the loss minus the clean one bounds what 100 points reach."""
    model, x, y = small().double(), *(part[:20] for part in DIGITS.train)
    x = x.double()
    loss = training.IntervalLoss(0.1, training.Ramp(0))(model, x, y)
    bound = 2 * loss - training.mean_cross_entropy(model, x, y)
    generator = torch.Generator().manual_seed(0)
    for _ in range(100):
        noise = torch.rand(x.shape, generator=generator, dtype=x.dtype)
        corner = (x + 0.1 * (2 * noise.round() - 1)).clamp(0, 1)
        assert training.mean_cross_entropy(model, corner, y) <= bound
    reached = PGD(model, x, y, eps=0.1, alpha=0.03)
    assert training.mean_cross_entropy(model, x + reached, y) <= bound


def test_interval_training_certifies():
    """What standard training leaves uncertified at this radius, this certifies."""
    shares = {}
    for name, share in (("standard", 0.0), ("interval", 1.0)):
        model = small()
        loss = training.IntervalLoss(0.1, lambda share=share: share)
        training.fit(model, *DIGITS.train, epochs=25, lr=0.3, objective=loss)
        margins = bounds.interval_margins(model, *DIGITS.test, 0.1)
        shares[name] = bounds.certified(margins, DIGITS.test[1]).float().mean()
    assert shares["interval"] > shares["standard"] + 0.1


def problem(n: int = 7):
    """A linear model and a few random images, in float64."""
    model = models.seeded(models.linear, (1, 2, 2), 3, seed=1).double()
    generator = torch.Generator().manual_seed(0)
    x = torch.rand((n, 1, 2, 2), generator=generator).double()
    return model, x, torch.randint(3, (n,), generator=generator)


def test_one_full_batch_step_by_hand():
    """w - lr * gradient, with softmax regression's gradient written out."""
    model, x, y = problem()
    weight, bias = (p.detach().clone() for p in model.parameters())
    surplus = (x.flatten(1) @ weight.T + bias).softmax(1) - F.one_hot(y, 3)
    training.fit(model, x, y, epochs=1, lr=0.5, batch_size=len(x))
    expected = weight - 0.5 * surplus.T @ x.flatten(1) / len(x)
    assert torch.allclose(model[1].weight, expected)
    assert torch.allclose(model[1].bias, bias - 0.5 * surplus.mean(0))


def test_history_is_the_mean_over_images():
    """With lr = 0 and a last batch of one image, it is the mean of all 7 losses."""
    model, x, y = problem()
    expected = F.cross_entropy(model(x), y).item()
    history = training.fit(model, x, y, epochs=2, lr=0.0, batch_size=3)
    assert history == pytest.approx([expected, expected])


def test_mean_cross_entropy_is_the_mean_of_the_images_losses():
    """A scalar, differentiable in the parameters."""
    model, x, y = problem()
    value = training.mean_cross_entropy(model, x, y)
    assert value.shape == ()
    assert value.requires_grad
    assert value.item() == pytest.approx(
        sum(attacks.cross_entropy(model(x), y).tolist()) / 7
    )


def test_every_image_is_seen_once_per_epoch_in_another_order():
    """Batches are a permutation with its own label, drawn anew in each epoch."""
    model, _, _ = problem()
    x = torch.arange(10).double().view(10, 1, 1, 1).expand(10, 1, 2, 2) / 10
    y = torch.arange(10) % 3
    seen = []

    def objective(model, x, y):
        order = (10 * x[:, 0, 0, 0]).round().long()
        assert torch.equal(order % 3, y)
        seen.append(order.tolist())
        return training.mean_cross_entropy(model, x, y)

    training.fit(
        model, x, y, epochs=2, lr=0.1, batch_size=4, objective=objective, seed=3
    )
    assert [len(batch) for batch in seen] == [4, 4, 2, 4, 4, 2]
    first, second = ([*a, *b, *c] for a, b, c in (seen[:3], seen[3:]))
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert first != list(range(10))


def test_the_seed_decides_and_the_global_state_does_not():
    """Same seed, same weights, whatever the global generator holds."""
    results = []
    for seed, noise in ((5, 1), (5, 2), (6, 1)):
        torch.manual_seed(noise)
        before = torch.get_rng_state()
        model, x, y = problem()
        training.fit(model, x, y, epochs=2, lr=0.5, batch_size=2, seed=seed)
        assert torch.equal(torch.get_rng_state(), before)
        results.append(model)
    assert states_equal(results[0], results[1])
    assert not states_equal(results[0], results[2])


@pytest.mark.parametrize("kind", [list, tuple])
def test_one_learning_rate_per_epoch(kind):
    """An epoch with lr = 0 changes nothing; [a, b] is a, then b."""
    model, x, y = problem()
    once, twice = copy.deepcopy(model), copy.deepcopy(model)
    training.fit(once, x, y, epochs=1, lr=0.5, batch_size=2)
    training.fit(model, x, y, epochs=2, lr=kind([0.5, 0.0]), batch_size=2)
    assert states_equal(model, once)
    training.fit(twice, x, y, epochs=2, lr=kind([0.5, 0.1]), batch_size=2)
    assert not states_equal(twice, once)


def test_no_epoch_changes_nothing():
    """Zero epochs: an empty history, the same parameters, eval mode."""
    model, x, y = problem()
    before = copy.deepcopy(model)
    assert training.fit(model.train(), x, y, epochs=0, lr=0.5) == []
    assert states_equal(model, before)
    assert not model.training


def with_state() -> nn.Sequential:
    """A model whose two modes differ: batch normalisation and dropout."""
    layers = [nn.Flatten(), nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU()]
    return nn.Sequential(*layers, nn.Dropout(0.5), nn.Linear(8, 3)).double()


def test_attack_in_eval_mode_update_in_train_mode():
    """The attack sees the network as it will be attacked, the update as it learns."""
    _, x, y = problem(8)
    model, calls = with_state(), []

    def spy(model, x, y):
        statistics = model[2].running_mean.clone()
        delta = attacks.fgsm(model, x, y, 0.1)
        assert torch.equal(model[2].running_mean, statistics)
        calls.append(("attack", {m.training for m in model.modules()}, x + delta))
        return delta

    def objective(model, x, y):
        calls.append(("update", {m.training for m in model.modules()}, x))
        return training.mean_cross_entropy(model, x, y)

    training.fit(
        model, x, y, epochs=2, lr=0.1, batch_size=4, attack=spy, objective=objective
    )
    assert [name for name, _, _ in calls] == ["attack", "update"] * 4
    assert [modes for _, modes, _ in calls] == [{False}, {True}] * 4
    for crafted, used in zip(calls[::2], calls[1::2], strict=True):
        assert torch.equal(crafted[2], used[2])
    assert not any(m.training for m in model.modules())


def test_the_images_are_left_alone():
    """Adversarial training replaces batches, never the data."""
    model, x, y = problem()
    kept = x.clone()
    training.fit(
        model,
        x,
        y,
        epochs=1,
        lr=0.1,
        attack=lambda m, x, y: attacks.fgsm(m, x, y, 0.3),
    )
    assert torch.equal(x, kept)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_divergence_restores_the_start_of_the_epoch(bad):
    """In epoch 3 the objective breaks: parameters and buffers are those of epoch 2."""
    _, x, y = problem(8)
    torch.manual_seed(0)
    model = with_state()
    model[4].p = 0.0
    reference, count = copy.deepcopy(model), [0]
    training.fit(reference, x, y, epochs=2, lr=0.1, batch_size=4)

    def objective(model, x, y):
        count[0] += 1
        factor = bad if count[0] == 6 else 1.0  # the last batch of epoch 3
        return factor * training.mean_cross_entropy(model, x, y)

    with pytest.raises(FloatingPointError, match="lr"):
        training.fit(model, x, y, epochs=5, lr=0.1, batch_size=4, objective=objective)
    assert states_equal(model, reference)
    assert not any(m.training for m in model.modules())


def test_a_learning_rate_too_large_is_noticed():
    """A real divergence, not a staged one; what is left can still be used."""
    model = small()
    with pytest.raises(FloatingPointError):
        training.fit(model, *DIGITS.train, epochs=10, lr=1e9)
    assert all(p.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    "error", [ValueError("no"), RuntimeError("no"), KeyboardInterrupt()], ids=repr
)
@pytest.mark.parametrize("where", ["objective", "attack", "augment", "step"])
def test_no_error_leaves_a_half_trained_network(error, where, monkeypatch):
    """In the second batch of epoch 3: parameters and buffers are those of epoch 2."""
    _, x, y = problem(8)
    torch.manual_seed(0)
    model = with_state()
    model[4].p = 0.0
    reference, count = copy.deepcopy(model), [0]
    training.fit(reference, x, y, epochs=2, lr=0.1, batch_size=4)

    def failing(result):
        count[0] += 1
        if count[0] == 6:
            raise error
        return result

    parts = {
        "objective": lambda m, x, y: failing(training.mean_cross_entropy(m, x, y)),
        "attack": lambda m, x, y: failing(torch.zeros_like(x)),
        "augment": lambda x, generator: failing(x),
    }
    if where == "step":  # half of an update is made when it stops
        real = torch.optim.SGD.step
        monkeypatch.setattr(torch.optim.SGD, "step", lambda self: failing(real(self)))
    options = {where: parts[where]} if where in parts else {}
    with pytest.raises(type(error)):
        training.fit(model, x, y, epochs=5, lr=0.1, batch_size=4, **options)
    assert count[0] == 6
    assert states_equal(model, reference)
    assert not any(m.training for m in model.modules())


def test_the_last_update_is_looked_at_too():
    """Each objective is finite, but the step after the last one is not."""
    model, x, y = problem()
    before = copy.deepcopy(model)

    def steep(model, x, y):
        return 1e300 * training.mean_cross_entropy(model, x, y)

    with pytest.raises(FloatingPointError, match=r"parameter.*lr"):
        training.fit(model, x, y, epochs=1, lr=1e300, batch_size=7, objective=steep)
    assert states_equal(model, before)


@pytest.mark.parametrize("build", [with_state, lambda: problem()[0]])
def test_a_last_batch_of_one_image(build):
    """With batch-norm it joins the batch before it, else it is a batch of its own."""
    _, x, y = problem(7)
    torch.manual_seed(0)
    model, sizes = build(), []

    def objective(model, x, y):
        sizes.append(len(x))
        return training.mean_cross_entropy(model, x, y)

    history = training.fit(
        model, x, y, epochs=2, lr=0.1, batch_size=3, objective=objective
    )
    assert sizes == [3, 4] * 2 if build is with_state else [3, 3, 1] * 2
    assert all(math.isfinite(mean) for mean in history)
    assert not any(m.training for m in model.modules())


def test_joined_batches_by_hand():
    """The same order, and the same mean over all images, as with one larger batch."""
    _, x, y = problem(5)
    torch.manual_seed(0)
    model = with_state()
    model[4].p = 0.0
    other = copy.deepcopy(model)
    one = training.fit(model, x, y, epochs=2, lr=0.1, batch_size=4)
    two = training.fit(other, x, y, epochs=2, lr=0.1, batch_size=5)
    assert one == two
    assert states_equal(model, other)


@pytest.mark.parametrize(("n", "batch_size"), [(1, 4), (5, 1)])
def test_batches_of_one_image_are_refused_with_batch_norm(n, batch_size):
    """Before anything happens: parameters, buffers and mode are as they were."""
    _, x, y = problem(n)
    model = with_state().train()
    before = copy.deepcopy(model)
    with pytest.raises(ValueError, match="batch-norm needs two images"):
        training.fit(model, x, y, epochs=1, lr=0.1, batch_size=batch_size)
    assert states_equal(model, before)
    assert all(m.training for m in model.modules())


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.BatchNorm1d(2), True),
        (nn.BatchNorm2d(2), True),
        (nn.BatchNorm3d(2), True),
        (nn.SyncBatchNorm(2), True),
        (nn.LayerNorm(2), False),
        (nn.Dropout(), False),
    ],
    ids=repr,
)
def test_what_has_batch_statistics(layer, expected):
    """At any depth."""
    inside = nn.Sequential(nn.Flatten(), nn.Sequential(layer))
    assert training.has_batch_statistics(inside) is expected


@pytest.mark.parametrize("mode", [True, False])
def test_interval_losses_put_the_mode_back(mode):
    """Of every module, as it was; also when the bounds refuse a layer."""
    _, x, y = problem(8)
    for loss in (training.IntervalLoss, training.CrownIntervalLoss):
        model = with_state().train(mode)
        model[2].eval()  # a frozen batch-norm
        before = [m.training for m in model.modules()]
        loss(0.1, lambda: 0.5)(model, x, y)
        assert [m.training for m in model.modules()] == before
        model[3] = nn.Softmax(dim=1).train(mode)
        with pytest.raises(TypeError):
            loss(0.1, lambda: 0.5)(model, x, y)
        assert [m.training for m in model.modules()] == before


@pytest.mark.parametrize(
    "change",
    [
        {"lr": [0.1]},
        {"lr": [0.1, 0.1, 0.1]},
        {"y": torch.zeros(6).long()},
        {"x": torch.zeros(0, 1, 2, 2), "y": torch.zeros(0).long()},
        {"batch_size": 0},
        {"epochs": -1},
    ],
    ids=["short lr", "long lr", "labels", "no image", "batch_size", "epochs"],
)
def test_bad_arguments_are_refused(change):
    """And the model is as it was."""
    model, x, y = problem()
    before = copy.deepcopy(model)
    good = {"x": x, "y": y, "epochs": 2, "lr": 0.1, "batch_size": 2}
    with pytest.raises(ValueError, match="need one lr"):
        training.fit(model, **good | change)
    assert states_equal(model, before)


def test_silent_by_default(capfd, monkeypatch):
    """Nothing on stdout or stderr where no person watches."""
    monkeypatch.delenv("ADVLIB_PROGRESS", raising=False)
    model, x, y = problem()
    training.fit(model, x, y, epochs=2, lr=0.1)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("way", ["argument", "environment", "terminal"])
def test_a_bar_where_a_person_watches(capsys, monkeypatch, way):
    """By argument, by ADVLIB_PROGRESS=1, or in a terminal; on stderr only."""
    monkeypatch.delenv("ADVLIB_PROGRESS", raising=False)
    if way == "environment":
        monkeypatch.setenv("ADVLIB_PROGRESS", "1")
    if way == "terminal":
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    model, x, y = problem()
    progress = True if way == "argument" else None
    training.fit(model, x, y, epochs=2, lr=0.1, progress=progress)
    out, err = capsys.readouterr()
    assert out == ""
    assert "epochs" in err
    training.fit(model, x, y, epochs=2, lr=0.1, progress=False)
    assert capsys.readouterr() == ("", "")


# ----------------------------------------------------- weight decay, sparse encoders


def test_decay_by_hand():
    """One factor a layer, each square divided by that layer's number of units."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Sigmoid(), nn.Linear(2, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 2.0], [0.0, 3.0]]))
        model[2].weight.copy_(torch.tensor([[2.0, -1.0]]))
    x, y = torch.rand(3, 2), torch.zeros(3, dtype=torch.int64)
    loss = training.DecayedLoss([0.1, 0.01], lambda *_: torch.zeros(()))(model, x, y)
    assert loss.item() == pytest.approx(0.1 * 14 / 2 + 0.01 * 5 / 1)


@pytest.mark.parametrize("wrong", ["images", "shape", "array"])
def test_a_training_attack_returns_a_perturbation(wrong):
    """Trained on x + (x + delta), or not at all: the network stays as it was."""
    x, y = torch.rand(20, 1, 4, 4), torch.arange(20) % 3
    model = models.seeded(models.mlp, (1, 4, 4), [4], 3, seed=0)
    before = [p.detach().clone() for p in model.parameters()]
    ways = {
        "images": lambda m, a, b: (a + attacks.fgsm(m, a, b, 0.1)).clamp(0, 1),
        "shape": lambda m, a, b: attacks.fgsm(m, a, b, 0.1).flatten(1),
        "array": lambda m, a, b: attacks.fgsm(m, a, b, 0.1).numpy(),
    }
    with pytest.raises((ValueError, TypeError), match="delta"):
        training.fit(model, x, y, epochs=1, lr=0.1, attack=ways[wrong], batch_size=10)
    assert all(map(torch.equal, before, model.parameters()))
    assert not model.training
    fine = training.fit(
        model, x, y, epochs=1, lr=0.1, attack=lambda m, a, b: attacks.fgsm(m, a, b, 0.1)
    )
    assert len(fine) == 1


def test_labels_of_a_loss_are_classes():
    """Not one of K, or one class alone, whose cross-entropy is 0: nothing would train.

    And a training that meets one leaves the network as it was.
    """
    x, y = torch.rand(6, 1, 2, 2), torch.tensor([1, 2, 3, 1, 2, 3])
    model = models.seeded(models.mlp, (1, 2, 2), [4], 3, seed=0)
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(ValueError, match="not below the 3 classes"):
        training.fit(model, x, y, epochs=2, lr=0.1, batch_size=2)
    assert all(map(torch.equal, before, model.parameters()))
    single = models.seeded(models.mlp, (1, 2, 2), [4], 1, seed=0)
    with pytest.raises(ValueError, match="TwoLogits"):
        training.mean_cross_entropy(single, x, 0 * y)


def test_decay_needs_a_factor_for_each_layer():
    """Two layers, one factor."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    with pytest.raises(ValueError, match="longer"):
        training.DecayedLoss([0.1])(model, torch.rand(1, 2), torch.tensor([0]))


def test_sparse_reconstruction_by_hand():
    """Grey pixels cost log 2 each; units at one half diverge from the share 1 / 4."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Sigmoid(), nn.Linear(3, 4))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    x, y = torch.rand(5, 1, 2, 2), torch.zeros(5, dtype=torch.int64)
    loss = training.SparseReconstruction(share=0.25, weight=2.0)(model, x, y)
    divergence = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    assert loss.item() == pytest.approx(4 * math.log(2) + 2 * 3 * divergence)


def test_sparse_training_lowers_the_activity():
    """The penalty does what its name says, on real images."""
    x, y = data.load("digits").train
    activity = []
    for weight in (0.0, 5.0):
        layers = nn.Linear(64, 20), nn.Sigmoid(), nn.Linear(20, 64)
        model = models.seeded(
            lambda ls=layers: nn.Sequential(nn.Flatten(), *ls), seed=0
        )
        objective = training.SparseReconstruction(share=0.05, weight=weight)
        training.fit(model, x, y, epochs=20, lr=0.1, objective=objective)
        activity.append(model[:-1](x).mean().item())
    assert activity[1] < 0.7 * activity[0]


# ----------------------------------- momentum, decay, augmentation, what comes after


def test_momentum_and_decay_by_hand():
    """Two full-batch steps: v <- m v + g + d w for matrices, no decay for vectors."""
    x, y = (part[:8] for part in DIGITS.train)
    model, reference = small(), small()
    training.fit(
        model, x, y, epochs=2, lr=0.1, batch_size=8, momentum=0.7, weight_decay=0.3
    )
    speed = [torch.zeros_like(p) for p in reference.parameters()]
    for _ in range(2):
        loss = F.cross_entropy(reference(x), y)
        grads = torch.autograd.grad(loss, list(reference.parameters()))
        for p, v, g in zip(reference.parameters(), speed, grads, strict=True):
            decay = 0.3 * p.detach() if p.dim() == 2 else 0.0
            v.mul_(0.7).add_(g + decay)
            p.data.sub_(0.1 * v)
    for p, q in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6)


def test_augmentation_leaves_the_order_alone():
    """The identity as augmentation: the same weights to the last bit."""
    x, y = (part[:20] for part in DIGITS.train)
    plain, altered = small(), small()
    seen = []

    def identity(x, generator):
        seen.append(torch.rand(1, generator=generator).item())
        return x

    training.fit(plain, x, y, epochs=2, lr=0.1, batch_size=5)
    training.fit(altered, x, y, epochs=2, lr=0.1, batch_size=5, augment=identity)
    assert states_equal(plain, altered)
    assert len(set(seen)) == 8  # one generator goes on from batch to batch


def test_the_attack_sees_the_augmented_images():
    """Augmentation comes first: the attack is bounded around what is trained on."""
    x, y = (part[:4] for part in DIGITS.train)
    seen = []

    def spy(model, x, y):
        seen.append(x)
        return torch.zeros_like(x)

    training.fit(
        small(), x, y, epochs=1, lr=0.1, augment=lambda x, generator: 1 - x, attack=spy
    )
    order = torch.randperm(4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(seen[0], 1 - x[order])


def test_after_each_epoch():
    """Called with the epoch and its mean objective, in eval mode, before the next."""
    x, y = (part[:20] for part in DIGITS.train)
    model, calls = small(), []

    def after(epoch, objective):
        assert not model.training
        calls.append((epoch, objective))

    history = training.fit(model, x, y, epochs=3, lr=0.1, after_epoch=after)
    assert calls == list(enumerate(history))


def test_shift_by_brute_force():
    """Each image is one of the 9 that a pixel to all sides allows; none is mirrored."""
    image = torch.arange(1.0, 26).view(1, 1, 5, 5)
    padded = F.pad(image, (1,) * 4)
    allowed = [padded[:, :, i : i + 5, j : j + 5] for i in range(3) for j in range(3)]
    draw = torch.Generator().manual_seed(0)
    drawn = training.shift(image.expand(200, 1, 5, 5), draw, pad=1)
    match = (drawn.flatten(1)[:, None] == torch.cat(allowed).flatten(1)).all(2)
    assert (match.sum(1) == 1).all()
    assert match.any(0).all()


def test_shift_and_flip_by_brute_force():
    """Each image is one of the 81 x 2 it may become; no shift is left out."""
    image = torch.arange(1.0, 26).view(1, 1, 5, 5)
    padded = F.pad(image, (4,) * 4)
    moved = [padded[:, :, i : i + 5, j : j + 5] for i in range(9) for j in range(9)]
    allowed = [*moved, *(part.flip(3) for part in moved)]
    drawn = training.shift_and_flip(
        image.expand(4000, 1, 5, 5), torch.Generator().manual_seed(0)
    )
    table = torch.cat(allowed).flatten(1)
    match = (drawn.flatten(1)[:, None] == table).all(2)
    assert match.any(1).all()
    assert match.any(0).all()


def test_shift_and_flip_without_padding():
    """Then it only mirrors, half of the images."""
    image = torch.arange(1.0, 26).view(1, 1, 5, 5)
    drawn = training.shift_and_flip(
        image.expand(1000, 1, 5, 5), torch.Generator().manual_seed(0), pad=0
    )
    mirrored = (drawn == image.flip(3)).flatten(1).all(1)
    assert ((drawn == image).flatten(1).all(1) | mirrored).all()
    assert 400 < int(mirrored.sum()) < 600
