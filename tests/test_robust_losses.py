"""Objectives of robust training: TRADES, and certificates of two kinds."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from advlib import attacks, bounds, data, evaluation, models, training

DIGITS = data.load("digits")
X, Y = (part[:12] for part in DIGITS.train)


def trained(seed: int = 0) -> nn.Sequential:
    """A network of seconds for digits."""
    model = models.seeded(models.mlp, DIGITS.shape, [32], seed=seed)
    training.fit(model, *DIGITS.train, epochs=5, lr=0.3)
    return model


MODEL = trained()


def trades(**changes) -> training.TradesLoss:
    """The loss with small settings."""
    settings = {"eps": 0.1, "alpha": 0.03, "num_steps": 5, "beta": 6.0}
    return training.TradesLoss(**settings | changes)


def test_trades_by_the_formula():
    """Cross-entropy plus beta sum p log(p / q), its delta as the attack returns it."""
    delta = trades().perturb(MODEL, X, Y)
    p, q = MODEL(X).softmax(1), MODEL(X + delta).softmax(1)
    divergence = (p * (p / q).log()).sum(1).mean()
    expected = F.cross_entropy(MODEL(X), Y) + 6 * divergence
    torch.testing.assert_close(trades()(MODEL, X, Y), expected, rtol=1e-4, atol=1e-6)


def test_trades_without_beta_is_the_clean_loss():
    """Then nothing is asked of the perturbed images; with it, the loss is larger."""
    clean = training.mean_cross_entropy(MODEL, X, Y)
    torch.testing.assert_close(trades(beta=0.0)(MODEL, X, Y), clean)
    assert trades()(MODEL, X, Y) > clean + 0.01


def test_trades_moves_farther_than_noise_and_stays_inside():
    """Ball and box are respected; the divergence beats 200 random corners."""
    loss = trades(num_steps=20)
    delta = loss.perturb(MODEL, X, Y)
    assert delta.abs().max() <= 0.1 + 1e-6
    assert (X + delta).min() >= 0
    assert (X + delta).max() <= 1

    def moved(delta):
        logs = MODEL(X).log_softmax(1), MODEL(X + delta).log_softmax(1)
        return (logs[0].exp() * (logs[0] - logs[1])).sum(1)

    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        corner = torch.rand(X.shape, generator=generator).sub(0.5).sign() * 0.1
        noise = corner.maximum(-X).minimum(1 - X)
        assert (moved(delta) >= moved(noise)).all()


@pytest.mark.parametrize("mode", [False, True])
def test_trades_keeps_the_mode_and_ignores_labels_in_the_attack(mode):
    """Crafted in eval mode, put back after; wrong labels give the same delta."""
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10)).train(mode)
    one = trades().perturb(model, X, Y)
    assert model.training is mode
    assert torch.equal(one, trades().perturb(model, X, (Y + 1) % 10))
    assert torch.equal(one, trades().perturb(model.eval(), X, Y))


def test_trades_trains_a_robust_network():
    """The attacked error falls far below that of standard training."""
    model = models.seeded(models.mlp, DIGITS.shape, [32], seed=0)
    objective = trades(alpha=0.05, num_steps=3)
    training.fit(model, *DIGITS.train, epochs=40, lr=0.1, objective=objective)

    def attack(model, x, y):
        return attacks.pgd_linf(model, x, y, 0.1, alpha=0.02, num_steps=20)

    robust = evaluation.attacked_error(model, *DIGITS.test, attack)
    standard = evaluation.attacked_error(MODEL, *DIGITS.test, attack)
    assert robust.interval[1] < standard.interval[0]


def test_trades_refuses():
    """A negative beta, NaN, and images outside [0, 1]."""
    for beta in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="beta"):
            trades(beta=beta)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        trades()(MODEL, X + 1, Y)


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_crown_interval_margins_are_sound(share):
    """Below the margins of attacks and of samples; the two bounds, mixed by hand."""
    loss = training.CrownIntervalLoss(0.1, lambda: share)
    margins = loss.margins(MODEL, X, Y, share)
    eps = 0.1 * share
    loose = bounds.interval_margins(MODEL, X, Y, eps)
    pre = bounds.relu_bounds(MODEL, *bounds.input_box(X, eps), method="interval")
    tight = bounds.crown_margins(MODEL, X, Y, eps, pre=pre)
    torch.testing.assert_close(margins, share * loose + (1 - share) * tight)
    points = [attacks.pgd_linf(MODEL, X, Y, eps, alpha=eps / 4, num_steps=20)]
    generator = torch.Generator().manual_seed(0)
    for _ in range(100):
        noise = torch.rand(X.shape, generator=generator).mul(2).sub(1) * eps
        points.append(noise.maximum(-X).minimum(1 - X))
    for delta in points:
        logits = MODEL(X + delta)
        real = logits.gather(1, Y[:, None]) - logits
        assert (margins <= real + 1e-4).all()


def test_crown_interval_loss_ends_as_interval_loss():
    """At the full radius only intervals are left; before, the loss is another."""
    for share in (0.5, 1.0):
        one = training.CrownIntervalLoss(0.1, lambda share=share: share)
        other = training.IntervalLoss(0.1, lambda share=share: share)
        same = torch.equal(one(MODEL, X, Y), other(MODEL, X, Y))
        assert same is (share == 1.0)


def test_crown_interval_loss_has_the_gradient_of_its_value():
    """Along a random direction in the weights: finite differences, in float64."""
    model = trained(1).double()
    x = X.double()
    loss = training.CrownIntervalLoss(0.05, lambda: 0.5)
    parameters = list(model.parameters())
    gradient = torch.autograd.grad(loss(model, x, Y), parameters)
    generator = torch.Generator().manual_seed(0)
    direction = [
        torch.randn(p.shape, generator=generator, dtype=torch.float64)
        for p in parameters
    ]
    values = []
    for step in (-1e-7, 1e-7):
        with torch.no_grad():
            for p, d in zip(parameters, direction, strict=True):
                p += step * d
            values.append(loss(model, x, Y))
            for p, d in zip(parameters, direction, strict=True):
                p -= step * d
    slope = sum(float((g * d).sum()) for g, d in zip(gradient, direction, strict=True))
    assert float(values[1] - values[0]) / 2e-7 == pytest.approx(slope, rel=1e-3)


def test_crown_interval_training_certifies():
    """Certified error after a short training, against none after a standard one."""
    model = models.seeded(models.mlp, DIGITS.shape, [32], seed=0)
    updates = 15 * len(DIGITS.train[1]) // 50
    objective = training.CrownIntervalLoss(0.05, training.Ramp(updates // 2))
    options = {"epochs": 15, "lr": 0.1, "batch_size": 50}
    training.fit(model, *DIGITS.train, objective=objective, **options)

    def margins(model, x, y):
        return bounds.interval_margins(model, x, y, 0.05)

    ours = evaluation.certified_error(model, *DIGITS.test, margins)
    standard = evaluation.certified_error(MODEL, *DIGITS.test, margins)
    assert ours.interval[1] < standard.interval[0]


@pytest.mark.parametrize("factor", [0.5, 1.25, 2.0])
def test_fast_by_the_formula(factor):
    """A uniform start in ball and box, one signed step, clipped to both, by hand."""
    delta = training.fast(0.1, factor=factor, seed=3)(MODEL, X, Y)
    low, high = (X - 0.1).clamp(min=0) - X, (X + 0.1).clamp(max=1) - X
    uniform = torch.rand(X.shape, generator=torch.Generator().manual_seed(3))
    start = low + (high - low) * uniform
    image = (X + start).requires_grad_()
    loss = F.cross_entropy(MODEL(image), Y, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, image)
    expected = (start + factor * 0.1 * gradient.sign()).maximum(low).minimum(high)
    torch.testing.assert_close(delta, expected, rtol=0, atol=1e-6)


def test_fast_draws_anew_and_from_its_seed():
    """Two batches differ, two attacks of one seed agree, another seed differs."""
    one, two, other = (training.fast(0.1, seed=seed) for seed in (0, 0, 1))
    first = one(MODEL, X, Y)
    assert torch.equal(first, two(MODEL, X, Y))
    assert not torch.equal(first, one(MODEL, X, Y))
    assert not torch.equal(first, other(MODEL, X, Y))


def test_fast_follows_its_ramp():
    """Nothing at share 0, half the radius at one half; never outside the box."""
    attack = training.fast(0.2, ramp=training.Ramp(2))
    for radius in (0.0, 0.1, 0.2, 0.2):
        delta = attack(MODEL, X, Y)
        assert float(delta.abs().max()) == pytest.approx(radius, abs=1e-6)
        assert (X + delta).min() >= 0
        assert (X + delta).max() <= 1


def test_fast_refuses():
    """A radius in the wrong units, and a factor that is no length."""
    for eps in (-0.1, 8.0, float("nan")):
        with pytest.raises(ValueError, match="eps"):
            training.fast(eps)
    for factor in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="factor"):
            training.fast(0.1, factor=factor)
