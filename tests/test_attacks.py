"""Attacks: allowed, exact where a theorem says so, and deaf to bad input."""

import functools
import math

import cvxpy
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from advlib import attacks, linear, models
from advlib.attacks.apgd import _checkpoints, _Schedule
from advlib.attacks.search import _squares, stripes

SHAPE = (1, 3, 3)


def modest(n: int) -> settings:
    """Hypothesis settings: the same ``n`` examples on every run."""
    return settings(deadline=None, max_examples=n, derandomize=True, database=None)


def fgsm(model, x, y, eps, *, box=True, seed=None):
    """FGSM with the signature of the others."""
    return attacks.fgsm(model, x, y, eps, box=box)


def pgd(attack, model, x, y, eps, *, box=True, seed=None, num_steps=5, **rest):
    """PGD with a step of eps / 2, from a random start if ``seed`` is given."""
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    return attack(
        model,
        x,
        y,
        eps,
        alpha=eps / 2,
        num_steps=num_steps,
        generator=generator,
        box=box,
        **rest,
    )


pgd_linf = functools.partial(pgd, attacks.pgd_linf)
pgd_l2 = functools.partial(pgd, attacks.pgd_l2)
pgd_l1 = functools.partial(pgd, attacks.pgd_l1, share=0.4)
ALL = {
    "fgsm": (fgsm, "linf"),
    "pgd_linf": (pgd_linf, "linf"),
    "pgd_l2": (pgd_l2, "l2"),
    "pgd_l1": (pgd_l1, "l1"),
}


def dropped(attack, *args, **kwargs):
    """The attack with fooled images dropped."""
    return attack(*args, drop_fooled=True, **kwargs)


def apgd(model, x, y, eps, *, box=True, seed=None, norm="linf", num_steps=12):
    """APGD with the signature of the others."""
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    return attacks.apgd(
        model, x, y, eps, norm=norm, num_steps=num_steps, generator=generator, box=box
    )


def square(model, x, y, eps, *, box=True, seed=None, num_steps=15):
    """The search, which always respects the box."""
    generator = torch.Generator().manual_seed(seed or 0)
    return attacks.square(model, x, y, eps, generator=generator, num_queries=num_steps)


def strong(model, x, y, eps, *, box=True, seed=None, num_steps=4):
    """The ensemble, small, which always respects the box."""
    return attacks.strong_attack(
        model,
        x,
        y,
        eps,
        seed=seed or 0,
        num_restarts=4,
        num_steps=num_steps,
        num_queries=5,
    )


EVERY = ALL | {
    "pgd_linf, dropped": (functools.partial(dropped, pgd_linf), "linf"),
    "pgd_l2, dropped": (functools.partial(dropped, pgd_l2), "l2"),
    "pgd_l1, dropped": (functools.partial(dropped, pgd_l1), "l1"),
    "apgd": (apgd, "linf"),
    "apgd l2": (functools.partial(apgd, norm="l2"), "l2"),
    "square": (square, "linf"),
    "strong": (strong, "linf"),
}


def problem(seed: int = 0, n: int = 6, dtype=torch.float64, build=None):
    """A small network, images with pixels at 0 and at 1, and labels."""
    build = build or functools.partial(models.mlp, SHAPE, [8], 3)
    model = models.seeded(build, seed=seed).to(dtype)
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand((n, *SHAPE), generator=generator, dtype=torch.float64)
    y = torch.randint(model[-1].out_features, (n,), generator=generator)
    return model, (1.6 * x - 0.3).clamp(0, 1).to(dtype), y


def lengths(delta, norm):
    """The norm of each image's perturbation, in float64."""
    order = {"linf": math.inf, "l2": 2, "l1": 1}[norm]
    return torch.linalg.vector_norm(delta.double().flatten(1), order, dim=1)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(
    problem_seed=st.integers(0, 10**6),
    eps=st.sampled_from([0.0, 1 / 255, 8 / 255, 0.1, 0.3, 0.7, 1.0]),
    box=st.booleans(),
    seed=st.none() | st.integers(0, 100),
)
@modest(40)
def test_delta_is_allowed(name, dtype, problem_seed, eps, box, seed):
    """In the ball, and with ``box`` exactly in [0, 1]; dtype and shape of ``x``."""
    attack, norm = EVERY[name]
    model, x, y = problem(problem_seed, dtype=dtype)
    delta = attack(model, x, y, eps, box=box, seed=seed)
    assert (delta.shape, delta.dtype) == (x.shape, x.dtype)
    assert not delta.requires_grad
    if norm == "linf":
        assert delta.abs().max() <= torch.tensor(eps, dtype=dtype)
    else:
        assert lengths(delta, norm).max() <= eps
    if box:
        assert (x + delta).min() >= 0
        assert (x + delta).max() <= 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("eps", [8 / 255, 0.1, 1 / 3])
def test_the_random_start_alone_is_allowed(dtype, eps):
    """With no step after it, nothing repairs the rounding of the start."""
    model = models.seeded(models.linear, (1, 60, 60), 2, seed=0).to(dtype)
    x = torch.linspace(0, 1, 3600).to(dtype).view(1, 1, 60, 60).repeat(4, 1, 1, 1)
    delta = attacks.pgd_linf(
        model,
        x,
        torch.zeros(4).long(),
        eps,
        alpha=0.1,
        num_steps=0,
        generator=torch.Generator().manual_seed(0),
    )
    assert delta.abs().max() <= torch.tensor(eps, dtype=dtype)
    assert (x + delta).min() >= 0
    assert (x + delta).max() <= 1


@pytest.mark.parametrize("name", ALL)
def test_without_box_pixels_may_leave(name):
    """At the corners of the box the unboxed attack leaves it, the boxed does not."""
    attack, _ = ALL[name]
    model, x, y = problem()
    x = x.round()
    for box in (True, False):
        moved = x + attack(model, x, y, 0.3, box=box)
        assert bool(((moved < 0) | (moved > 1)).any()) != box


@pytest.mark.parametrize("box", [True, False])
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("start", [None, 5])
def test_linf_attacks_are_exact_on_binary_linear_models(box, seed, start):
    """Lower bound = upper bound: FGSM and PGD reach the closed form's margin."""
    build = functools.partial(models.linear, SHAPE, 2)
    model, x, y = problem(seed, build=build)
    exact = linear.pairwise_margins(model, x, y, 0.25, box=box).gather(
        1, 1 - y[:, None]
    )
    for delta in (
        attacks.fgsm(model, x, y, 0.25, box=box),
        pgd_linf(model, x, y, 0.25, box=box, seed=start),
    ):
        logits = model(x + delta)
        margin = logits.gather(1, y[:, None]) - logits.gather(1, 1 - y[:, None])
        assert torch.allclose(margin, exact, atol=1e-12)
        bound = linear.cross_entropy_bound(model, x, y, 0.25, box=box)
        assert torch.allclose(attacks.cross_entropy(logits, y), bound, atol=1e-12)


def test_l2_attack_is_exact_on_binary_linear_models_without_box():
    """One step of length eps along the gradient is the worst case."""
    model, x, y = problem(3, build=functools.partial(models.linear, SHAPE, 2))
    delta = attacks.pgd_l2(model, x, y, 0.8, alpha=0.8, num_steps=1, box=False)
    bound = linear.cross_entropy_bound(model, x, y, 0.8, norm="l2", box=False)
    loss = attacks.cross_entropy(model(x + delta), y)
    assert torch.allclose(loss, bound, atol=1e-12)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("box", [True, False])
@pytest.mark.parametrize("num_classes", [2, 5])
def test_no_attack_beats_the_bound(name, box, num_classes):
    """Below <= above: on linear models the loss stays under the sound bound."""
    attack, norm = EVERY[name]
    build = functools.partial(models.linear, SHAPE, num_classes)
    model, x, y = problem(1, n=40, build=build)
    for eps in (0.05, 0.5, 1.0):
        delta = attack(model, x, y, eps, box=box, seed=3)
        loss = attacks.cross_entropy(model(x + delta), y)
        bound = linear.cross_entropy_bound(model, x, y, eps, norm=norm, box=box)
        assert (loss <= bound + 1e-9).all()


@pytest.mark.parametrize("name", ALL)
def test_an_image_does_not_feel_its_batch(name):
    """A batch's result is that of its images one by one."""
    attack, _ = ALL[name]
    model, x, y = problem(2)
    together = attack(model, x, y, 0.2)
    alone = [attack(model, x[i : i + 1], y[i : i + 1], 0.2) for i in range(len(x))]
    assert torch.allclose(together, torch.cat(alone), atol=1e-12)


@pytest.mark.parametrize("name", EVERY)
def test_parameters_and_inputs_are_left_alone(name):
    """No gradient in the parameters, and ``x`` as it was."""
    attack, _ = EVERY[name]
    model, x, y = problem()
    before = x.clone()
    attack(model, x, y, 0.2, seed=0)
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(x, before)
    assert x.grad is None
    assert not x.requires_grad


@pytest.mark.parametrize("name", EVERY)
def test_flags_of_parameters_and_images_do_not_matter(name):
    """Neither the parameters' nor the images' flags matter, and none is changed."""
    attack, _ = EVERY[name]
    model, x, y = problem()
    expected = attack(model, x, y, 0.2)
    model.requires_grad_(False)
    delta = attack(model, x.requires_grad_(), y, 0.2)
    assert torch.equal(delta, expected)
    assert not delta.requires_grad
    assert not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("seed", [None, 0])
def test_a_constant_model_gives_no_nan(name, seed):
    """Where the gradient is zero an attack stays where it started."""
    attack, _ = ALL[name]
    model, x, y = problem()
    with torch.no_grad():
        model[-1].weight.zero_()
    delta = attack(model, x, y, 0.3, seed=seed)
    assert delta.isfinite().all()
    if seed is None or name == "fgsm":
        assert (delta == 0).all()
    else:
        assert torch.equal(delta, attack(model, x, y, 0.3, seed=seed, num_steps=0))


@pytest.mark.parametrize("scale", [1.0, 1e-10, 1e-20, 1e-25, 1e-30])
def test_l2_steps_have_length_alpha_however_small_the_gradient(scale):
    """Squares of small gradients underflow in float32: a step is made all the same."""
    model, x, y = problem(1, dtype=torch.float32)

    def loss(logits, y):
        return scale * (logits[:, 0] - logits[:, 1])

    gradient = attacks.input_gradient(model, x, y, loss)
    assert (gradient != 0).flatten(1).any(1).all()
    delta = attacks.pgd_l2(
        model, x, y, 1.0, alpha=0.25, num_steps=1, box=False, loss=loss
    )
    expected = gradient.double() / scale
    expected = 0.25 * expected / lengths(expected, "l2").view(-1, 1, 1, 1)
    assert torch.allclose(delta.double(), expected, atol=1e-5)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("corner", [0.0, 1.0])
def test_pixels_at_the_edge_of_the_box_move(name, corner):
    """The clamp trap: a pixel at exactly 0 or 1 goes inwards if the loss says so."""
    attack, norm = ALL[name]
    model, x, y = problem(4)
    x = torch.full_like(x, corner)
    gradient = attacks.input_gradient(model, x, y)
    inwards = (gradient > 0) if corner == 0 else (gradient < 0)
    assert inwards.any()
    rest = {} if name == "fgsm" else {"num_steps": 1}
    if name == "pgd_l1":
        rest["share"] = 1.0  # all pixels, else the steepest alone would move
    delta = attack(model, x, y, 0.1, **rest)
    assert (delta[inwards].sign() == (1 if corner == 0 else -1)).all()
    assert (delta[~inwards] == 0).all()
    if norm == "linf":  # one step: eps for FGSM, alpha = eps / 2 for PGD
        step = 0.1 if name == "fgsm" else 0.05
        assert delta[inwards].abs().tolist() == pytest.approx(
            [step] * int(inwards.sum())
        )


@pytest.mark.parametrize("name", ["pgd_linf", "pgd_l2"])
def test_the_generator_alone_decides_the_start(name):
    """Same seed, same delta; another seed, another; the global state is untouched."""
    attack, _ = ALL[name]
    model, x, y = problem()
    before = torch.get_rng_state()
    first = attack(model, x, y, 0.3, seed=1, num_steps=1)
    assert torch.equal(first, attack(model, x, y, 0.3, seed=1, num_steps=1))
    assert not torch.equal(first, attack(model, x, y, 0.3, seed=2, num_steps=1))
    assert torch.equal(torch.get_rng_state(), before)


def starts(attack, shape, eps, *, box):
    """Random starts of 4000 images whose pixels are all 0.5."""
    model = models.seeded(models.linear, shape, 2, seed=0)
    x = torch.full((4000, *shape), 0.5)
    generator = torch.Generator().manual_seed(0)
    return attack(
        model,
        x,
        torch.zeros(4000).long(),
        eps,
        alpha=0.1,
        num_steps=0,
        generator=generator,
        box=box,
    )


def test_the_linf_start_is_uniform_in_the_box():
    """Kolmogorov-Smirnov against the uniform law, with and without the box."""
    for box, half in ((False, 0.8), (True, 0.5)):
        delta = starts(attacks.pgd_linf, (1, 1, 1), 0.8, box=box).flatten()
        law = stats.uniform(-half, 2 * half)
        assert stats.kstest(delta.double().numpy(), law.cdf).pvalue > 1e-3


@pytest.mark.parametrize("size", [1, 2, 5])
def test_the_l2_start_is_uniform_in_the_ball(size):
    """(length / eps)^D is uniform in [0, 1], and no direction is preferred."""
    delta = starts(attacks.pgd_l2, (1, 1, size), 0.4, box=False)
    share = (lengths(delta, "l2") / 0.4) ** size
    assert stats.kstest(share.numpy(), "uniform").pvalue > 1e-3
    positive = int((delta[..., 0] > 0).sum())
    assert stats.binomtest(positive, 4000).pvalue > 1e-3


@pytest.mark.parametrize("loss", [attacks.cross_entropy, lambda z, y: z[:, 0] ** 2])
def test_input_gradient_is_each_images_own(loss):
    """Central differences in single pixels of single images, for any loss."""
    model, x, y = problem(5, n=3)
    gradient = attacks.input_gradient(model, x, y, loss)
    h = 1e-6
    for i in range(len(x)):
        for pixel in ((0, 0, 0), (0, 1, 2), (0, 2, 1)):
            shift = torch.zeros_like(x[i])
            shift[pixel] = h
            with torch.no_grad():
                up = loss(model((x[i] + shift)[None]), y[i : i + 1])
                down = loss(model((x[i] - shift)[None]), y[i : i + 1])
            slope = ((up - down) / (2 * h)).item()
            assert gradient[i][pixel].item() == pytest.approx(slope, abs=1e-6)
    assert all(p.grad is None for p in model.parameters())


def test_cross_entropy_is_minus_the_log_of_the_right_probability():
    """Per image, from the softmax written out."""
    logits = torch.randn((5, 4), generator=torch.Generator().manual_seed(0)).double()
    y = torch.tensor([0, 3, 1, 2, 2])
    share = logits.exp() / logits.exp().sum(1, keepdim=True)
    expected = -torch.stack([share[i, y[i]] for i in range(5)]).log()
    assert torch.allclose(attacks.cross_entropy(logits, y), expected)


@pytest.mark.parametrize("name", ["pgd_linf", "pgd_l2"])
def test_the_loss_is_the_one_that_is_raised(name):
    """With the negated loss the attack goes the other way, and makes it fall."""
    attack, _ = ALL[name]
    model, x, y = problem(1)

    def negated(logits, y):
        return -F.cross_entropy(logits, y, reduction="none")

    clean = attacks.cross_entropy(model(x), y)
    up = model(x + attack(model, x, y, 0.02, num_steps=1))
    down = model(x + attack(model, x, y, 0.02, num_steps=1, loss=negated))
    assert (attacks.cross_entropy(up, y) > clean).all()  # a small step is first order
    assert (attacks.cross_entropy(down, y) < clean).all()


def test_zero_steps_without_generator_is_no_perturbation():
    """The start is 0."""
    model, x, y = problem()
    assert (pgd_linf(model, x, y, 0.3, num_steps=0) == 0).all()
    assert (pgd_l2(model, x, y, 0.3, num_steps=0) == 0).all()


def poisoned(model):
    """The model with one weight NaN."""
    with torch.no_grad():
        model[-1].bias[0] = math.nan
    return model


FAULTS = {
    "train": (lambda m, x, y, eps: (m.train(), x, y, eps), ValueError),
    "uint8": (lambda m, x, y, eps: (m, x.byte(), y, eps), TypeError),
    "0-255": (lambda m, x, y, eps: (m, x * 255, y, eps), ValueError),
    "negative": (lambda m, x, y, eps: (m, x - 0.5, y, eps), ValueError),
    "NaN": (lambda m, x, y, eps: (m, x * math.nan, y, eps), ValueError),
    "empty": (lambda m, x, y, eps: (m, x[:0], y[:0], eps), ValueError),
    "float y": (lambda m, x, y, eps: (m, x, y.double(), eps), TypeError),
    "int32 y": (lambda m, x, y, eps: (m, x, y.int(), eps), TypeError),
    "one y": (lambda m, x, y, eps: (m, x, y[:1], eps), ValueError),
    "onehot y": (lambda m, x, y, eps: (m, x, F.one_hot(y, 3), eps), ValueError),
    "y = -1": (lambda m, x, y, eps: (m, x, y - 10, eps), ValueError),
    "y = K": (lambda m, x, y, eps: (m, x, y * 0 + 3, eps), ValueError),
    "eps < 0": (lambda m, x, y, eps: (m, x, y, -0.1), ValueError),
    "eps NaN": (lambda m, x, y, eps: (m, x, y, math.nan), ValueError),
    "eps inf": (lambda m, x, y, eps: (m, x, y, math.inf), ValueError),
    "NaN weights": (lambda m, x, y, eps: (poisoned(m), x, y, eps), ValueError),
}


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("fault", FAULTS)
def test_bad_input_is_refused(name, fault):
    """Each fault alone, with the documented kind of error, by each attack."""
    attack, _ = EVERY[name]
    change, kind = FAULTS[fault]
    with pytest.raises(kind):
        attack(*change(*problem(), 0.1))


@pytest.mark.parametrize("name", ["fgsm", "pgd_linf"])
def test_eps_in_0_255_is_refused_for_linf(name):
    """8 is no radius in pixels of [0, 1]; in l2 it is a legal one."""
    attack, _ = ALL[name]
    with pytest.raises(ValueError, match="8 / 255"):
        attack(*problem(), 8)
    assert lengths(pgd_l2(*problem(), 8, box=False), "l2").max() <= 8 * (1 + 1e-9)


def listed(deltas):
    """An attack that returns the given perturbations one after the other."""
    waiting = iter(deltas)
    return lambda generator: next(waiting)


@given(seed=st.integers(0, 10**6), num_restarts=st.integers(1, 6))
@modest(60)
def test_best_of_is_the_best_by_wrong_then_loss(seed, num_restarts):
    """Image by image, against a sort of all candidates in plain Python."""
    model, x, y = problem(seed % 50)
    generator = torch.Generator().manual_seed(seed)
    deltas = torch.randn((num_restarts, *x.shape), generator=generator).double() / 4
    best = attacks.best_of(listed(deltas), model, x, y, num_restarts=num_restarts)
    for i in range(len(x)):
        with torch.no_grad():
            logits = model(x[i] + deltas[:, i])
        label = y[i].expand(num_restarts)
        loss = attacks.cross_entropy(logits, label).tolist()
        wrong = (logits.argmax(1) != label).tolist()
        top = max(range(num_restarts), key=lambda r: (wrong[r], loss[r]))
        assert torch.equal(best[i], deltas[top, i])


@pytest.mark.parametrize("name", ["pgd_linf", "pgd_l2"])
def test_more_restarts_never_make_it_worse(name):
    """With the same seed the first restarts are the same: no image's score falls."""
    attack, _ = ALL[name]
    function = {"pgd_linf": attacks.pgd_linf, "pgd_l2": attacks.pgd_l2}[name]
    model, x, y = problem(6, n=30)
    before = None
    for num_restarts in (1, 2, 3, 6):
        best = attacks.best_of(
            lambda g: function(model, x, y, 0.1, alpha=0.05, num_steps=2, generator=g),
            model,
            x,
            y,
            num_restarts=num_restarts,
            seed=4,
        )
        with torch.no_grad():
            logits = model(x + best)
        loss = attacks.cross_entropy(logits, y)
        wrong = logits.argmax(1) != y
        if before is not None:
            assert (wrong >= before[0]).all()
            assert (loss[wrong == before[0]] >= before[1][wrong == before[0]]).all()
        before = wrong, loss
    first = attack(model, x, y, 0.1, seed=4, num_steps=2)
    single = attacks.best_of(
        lambda g: function(model, x, y, 0.1, alpha=0.05, num_steps=2, generator=g),
        model,
        x,
        y,
        num_restarts=1,
        seed=4,
    )
    assert torch.equal(first, single)


def test_best_of_ranks_by_the_given_loss():
    """Two perturbations that fool nobody: another loss prefers the other one."""
    model, x, _ = problem(1)
    y = model(x).argmax(1)
    near, none = torch.full_like(x, 1e-3), torch.zeros_like(x)
    one = attacks.best_of(listed([near, none]), model, x, y, num_restarts=2)
    other = attacks.best_of(
        listed([near, none]),
        model,
        x,
        y,
        num_restarts=2,
        loss=lambda z, y: -attacks.cross_entropy(z, y),
    )
    changed = (one != other).flatten(1).any(1)
    assert changed.all()


@pytest.mark.parametrize("num_restarts", [0, -1])
def test_best_of_refuses_no_restart(num_restarts):
    """At least one run is needed."""
    model, x, y = problem()
    with pytest.raises(ValueError, match="num_restarts"):
        attacks.best_of(listed([]), model, x, y, num_restarts=num_restarts)


def test_best_of_prefers_an_error_to_a_larger_loss():
    """With the negated cross-entropy the delta that fools has the smaller loss."""
    model, x, _ = problem(1, build=functools.partial(models.linear, SHAPE, 2))
    y = model(x).argmax(1)
    gap = (model[1].weight[1] - model[1].weight[0]).detach().view(SHAPE)
    fools = torch.where(y == 0, 1.0, -1.0).view(-1, 1, 1, 1) * gap * 1e3
    assert (model(x + fools).argmax(1) != y).all()
    for order in ([fools, -fools], [-fools, fools]):
        best = attacks.best_of(
            listed(order),
            model,
            x,
            y,
            num_restarts=2,
            loss=lambda z, y: -attacks.cross_entropy(z, y),
        )
        assert torch.equal(best, fools)


def candidates(logits, y):
    """Label, and the other logits sorted from the largest, image by image."""
    for z, label in zip(logits.tolist(), y.tolist(), strict=True):
        yield z, label, sorted((v for j, v in enumerate(z) if j != label), reverse=True)


def test_losses_by_hand():
    """Margin, DLR and the targeted losses, written out in plain Python."""
    logits = torch.randn((8, 5), generator=torch.Generator().manual_seed(1)).double()
    y, target = torch.arange(8) % 5, torch.tensor([1, 0, 0, 0, 0, 3, 3, 3])
    margins = [other[0] - z[c] for z, c, other in candidates(logits, y)]
    tops = [sorted(z, reverse=True) for z in logits.tolist()]
    ratios = [m / (t[0] - t[2]) for m, t in zip(margins, tops, strict=True)]
    assert attacks.margin_loss(logits, y).tolist() == pytest.approx(margins)
    assert attacks.dlr_loss(logits, y).tolist() == pytest.approx(ratios)
    aims = [z[t] - z[c] for z, c, t in zip(logits.tolist(), y, target, strict=True)]
    assert attacks.targeted_loss(logits, y, target).tolist() == pytest.approx(aims)
    ratios = [a / (t[0] - (t[2] + t[3]) / 2) for a, t in zip(aims, tops, strict=True)]
    found = attacks.targeted_dlr_loss(logits, y, target)
    assert found.tolist() == pytest.approx(ratios)
    sums = [z[2] - sum(z[:2] + z[3:]) for z in logits.tolist()]
    assert attacks.targeted_sum_loss(logits, y, 2).tolist() == pytest.approx(sums)


@pytest.mark.parametrize("loss", [attacks.margin_loss, attacks.dlr_loss])
def test_margin_losses_are_positive_exactly_where_wrong(loss):
    """Their sign is the verdict, unlike that of cross-entropy."""
    logits = torch.randn((200, 4), generator=torch.Generator().manual_seed(0))
    y = torch.arange(200) % 4
    assert torch.equal(loss(logits, y) > 0, logits.argmax(1) != y)


def test_losses_refuse_what_they_cannot_do():
    """Too few classes, a target that is no class, one target too many."""
    two, y = torch.zeros(3, 2), torch.zeros(3).long()
    with pytest.raises(ValueError, match="third"):
        attacks.dlr_loss(two, y)
    with pytest.raises(ValueError, match="fourth"):
        attacks.targeted_dlr_loss(torch.zeros(3, 3), y, 1)
    for target in (2, -1, torch.tensor([0, 1, 2]), torch.tensor([0, 1])):
        with pytest.raises(ValueError, match="target"):
            attacks.targeted_loss(two, y, target)


@given(seed=st.integers(0, 10**6), norm=st.sampled_from(["linf", "l2", "l1"]))
@modest(60)
def test_no_unit_step_is_steeper(seed, norm):
    """The dual norm by its definition, and 200 random unit steps below it."""
    generator = torch.Generator().manual_seed(seed)
    gradient = torch.randn((4, 1, 2, 3), generator=generator).double()
    step = attacks.steepest_direction(gradient, norm)
    assert lengths(step, norm).tolist() == pytest.approx([1] * 4)
    reached = (gradient * step).flatten(1).sum(1)
    dual = {"linf": 1, "l2": 2, "l1": math.inf}[norm]
    expected = torch.linalg.vector_norm(gradient.flatten(1), dual, dim=1)
    assert torch.allclose(reached, expected)
    others = torch.randn((200, 1, 1, 2, 3), generator=generator).double()
    others = others / lengths(others, norm).view(-1, 1, 1, 1, 1)
    assert ((gradient * others).flatten(2).sum(2) <= reached + 1e-12).all()


def test_steepest_direction_edges():
    """Zero stays zero, a share of pixels moves alike, bad arguments are refused."""
    zero, ramp = torch.zeros(2, 3, 3), torch.arange(1.0, 11).view(1, 10)
    for norm in ("linf", "l2", "l1"):
        assert (attacks.steepest_direction(zero, norm) == 0).all()
    step = attacks.steepest_direction(-ramp, "l1", share=0.3)
    assert step.tolist()[0] == pytest.approx([0] * 7 + [-1 / 3] * 3)
    for bad in ({"norm": "l3"}, {"norm": "l1", "share": 1.5}):
        with pytest.raises(ValueError, match="norm"):
            attacks.steepest_direction(ramp, **bad)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@given(seed=st.integers(0, 10**6), eps=st.sampled_from([0.0, 0.05, 0.4, 1.5, 9.0]))
@modest(12)
def test_projection_is_the_solvers(norm, seed, eps):
    """The nearest point of ball and box, by cvxpy; inside both without slack."""
    generator = torch.Generator().manual_seed(seed)
    x = (1.6 * torch.rand((3, 8), generator=generator).double() - 0.3).clamp(0, 1)
    z = torch.randn((3, 8), generator=generator).double()
    found = attacks.project(z, eps, norm, lower=-x, upper=1 - x)
    assert lengths(found, norm).max() <= eps
    assert ((found >= -x) & (found <= 1 - x)).all()
    order = {"linf": "inf", "l2": 2, "l1": 1}[norm]
    for i in range(3):
        point = cvxpy.Variable(8)
        inside = [cvxpy.norm(point, order) <= eps, point >= -x[i], point <= 1 - x[i]]
        distance = cvxpy.sum_squares(point - z[i].numpy())
        cvxpy.Problem(cvxpy.Minimize(distance), inside).solve("CLARABEL")
        assert found[i].tolist() == pytest.approx(point.value.tolist(), abs=1e-4)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_projection_without_box_and_of_points_inside(norm, dtype):
    """Large dimensions stay in the ball; a point that is inside stays itself."""
    z = torch.randn((5, 1, 28, 28), generator=torch.Generator().manual_seed(0))
    z = z.to(dtype)
    found = attacks.project(z, 2.0, norm)
    assert lengths(found, norm).max() <= 2
    near = attacks.project(found, 2.0, norm)
    assert torch.equal(near, found)
    with pytest.raises(ValueError, match="lower <= 0"):
        attacks.project(z, 2.0, norm, lower=torch.full_like(z, 0.1))


@pytest.mark.parametrize("name", ["pgd_linf", "pgd_l2", "pgd_l1"])
def test_dropping_loses_nobody(name):
    """Whoever ends misclassified does so with drop_fooled too; others do not differ."""
    attack, _ = ALL[name]
    model, x, y = problem(6, n=60)
    eps = {"pgd_linf": 0.2, "pgd_l2": 0.5, "pgd_l1": 1.5}[name]
    plain = attack(model, x, y, eps, seed=0, num_steps=10)
    quick = attack(model, x, y, eps, seed=0, num_steps=10, drop_fooled=True)
    fell, falls = (model(x + d).argmax(1) != y for d in (plain, quick))
    assert 0 < fell.sum() < 60
    assert (falls | ~fell).all()
    assert torch.allclose(plain[~falls], quick[~falls], atol=1e-12)


def binary(seed):
    """A linear model with two classes."""
    build = functools.partial(models.linear, SHAPE, 2)
    return problem(seed, n=20, build=build)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("seed", [0, 1])
def test_pgd_reaches_the_exact_margin_of_binary_linear_models(norm, seed):
    """Many steps come as close as their length; none goes beyond the closed form."""
    model, x, y = binary(seed)
    attack = {
        "linf": attacks.pgd_linf,
        "l2": attacks.pgd_l2,
        "l1": functools.partial(attacks.pgd_l1, share=0.0),
    }[norm]
    delta = attack(model, x, y, 0.5, alpha=0.01, num_steps=400)
    exact = linear.pairwise_margins(model, x, y, 0.5, norm=norm)
    exact = exact.gather(1, 1 - y[:, None]).squeeze(1)
    margin = -attacks.margin_loss(model(x + delta), y)
    assert (margin >= exact - 1e-12).all()
    assert (margin - exact).max() < 0.02


@pytest.mark.parametrize("name", ["apgd", "square", "strong"])
def test_other_attacks_against_the_exact_margins(name):
    """Never beyond the closed form on linear models, and at most two fifths above."""
    attack, _ = EVERY[name]
    model, x, y = problem(2, n=40, build=functools.partial(models.linear, SHAPE, 4))
    exact = linear.pairwise_margins(model, x, y, 0.2)
    exact = exact.scatter(1, y[:, None], math.inf).amin(1)
    with torch.no_grad():
        clean = -attacks.margin_loss(model(x), y)
        found = attack(
            model, x, y, 0.2, **({"num_steps": 60} if name == "square" else {})
        )
        margin = -attacks.margin_loss(model(x + found), y)
    assert (margin >= exact - 1e-12).all()
    stands = margin > 0
    assert ((margin - exact)[stands] <= 0.4 * (clean - exact)[stands] + 1e-9).all()


@pytest.mark.parametrize("name", ["apgd", "apgd l2", "square", "strong"])
def test_the_seed_decides(name):
    """Same seed, same delta; the global state is untouched."""
    attack, _ = EVERY[name]
    model, x, y = problem(3)
    before = torch.get_rng_state()
    first = attack(model, x, y, 0.1, seed=1, num_steps=2)
    assert torch.equal(first, attack(model, x, y, 0.1, seed=1, num_steps=2))
    assert not torch.equal(first, attack(model, x, y, 0.1, seed=2, num_steps=2))
    assert torch.equal(torch.get_rng_state(), before)


def test_apgd_returns_its_best_point():
    """More steps with the same checkpoints behind them never lower the loss found."""
    model, x, y = problem(7, n=30)
    for loss in (attacks.cross_entropy, attacks.margin_loss):
        delta = attacks.apgd(model, x, y, 0.05, num_steps=40, loss=loss)
        plain = attacks.fgsm(model, x, y, 0.05)
        with torch.no_grad():
            clean, one, found = (loss(model(x + d), y) for d in (0 * x, plain, delta))
        wrong = model(x + delta).argmax(1) != y
        assert (wrong | (found >= clean)).all()
        assert (wrong | (found >= one - 1e-3)).all()


def test_the_checkpoints_of_apgd():
    """The paper's list for 100 steps: 22, then 19, 16, 13, 10, 7 and 6 more."""
    assert _checkpoints(100)[:8] == [22, 41, 57, 70, 80, 87, 93, 99]
    assert _checkpoints(1)[0] == 1


def test_apgd_halves_a_step_that_does_not_help():
    """On a constant model every image is stuck, and goes back to its start."""
    model, x, y = problem(0)
    with torch.no_grad():
        model[-1].weight.zero_()
    schedule = _Schedule(model, x, y, attacks.cross_entropy, 0 * x, 0.4)
    schedule.look(0.1 + 0 * x)
    assert (schedule.halve(0.1 + 0 * x) == 0).all()
    assert schedule.size.tolist() == pytest.approx([0.2] * len(x))


def test_square_sets_squares_of_full_size():
    """Each mask is one square of the asked side, anywhere; stripes fill columns."""
    delta = torch.zeros(300, 2, 6, 5)
    generator = torch.Generator().manual_seed(0)
    for side in (1, 2, 5):
        masks = _squares(delta, side, generator)[:, 0]
        assert (masks.flatten(1).sum(1) == side**2).all()
        assert (masks.any(1).sum(1) == side).all()
    corners = _squares(delta, 2, generator)[:, 0]
    assert corners[:, 0, 0].any()
    assert corners[:, -1, -1].any()
    columns = stripes(delta - 1, delta + 1, generator)
    assert (columns == columns[:, :, :1]).all()
    assert set(columns.unique().tolist()) == {-1, 1}


def test_square_needs_no_gradient():
    """A model of steps, whose gradient is zero everywhere, falls to the search."""
    model, x, y = problem(3, n=30, dtype=torch.float32)
    stairs = torch.nn.Sequential(Rounded(), model).eval()
    y = stairs(x).argmax(1)
    blind = attacks.pgd_linf(stairs, x, y, 0.3, alpha=0.1, num_steps=10)
    assert (blind == 0).all()
    for attack in (functools.partial(square, num_steps=60), strong):
        moved = x + attack(stairs, x, y, 0.3)
        assert (stairs(moved).argmax(1) != y).any()


class Rounded(torch.nn.Module):
    """Round to quarters."""

    def forward(self, x):
        """Return ``x`` in steps of a quarter."""
        return (x * 4).round() / 4


@pytest.mark.parametrize("shape", [(4, 9), (4, 3, 3)])
def test_square_refuses_what_is_no_image(shape):
    """It needs rows and columns; the ensemble then does without it."""
    model = models.seeded(models.linear, SHAPE, 3, seed=0)
    x, y = torch.rand(shape), torch.zeros(4).long()
    with pytest.raises(ValueError, match="N, C, H, W"):
        square(model, x, y, 0.1)
    assert strong(model, x, y, 0.1).shape == x.shape


def test_strong_is_at_least_as_strong_as_each_part():
    """On a small network it fells all that PGD, APGD and the search fell."""
    model, x, y = problem(8, n=60)
    delta = attacks.strong_attack(model, x, y, 0.08, num_queries=30)
    fell = model(x + delta).argmax(1) != y
    parts = (fgsm, functools.partial(pgd_linf, num_steps=20), apgd, square)
    for part in parts:
        part_fell = model(x + part(model, x, y, 0.08)).argmax(1) != y
        assert (fell | ~part_fell).all()
    assert 0 < fell.sum() < 60


def trapped_pgd(model, x, y, eps, alpha, num_steps):
    """The bug: the clamp is part of the function that is differentiated."""
    generator = torch.Generator().manual_seed(0)
    delta = eps * (2 * torch.rand(x.shape, generator=generator).to(x) - 1)
    for _ in range(num_steps):
        delta.requires_grad_()
        logits = model((x + delta).clamp(0, 1))
        (gradient,) = torch.autograd.grad(F.cross_entropy(logits, y), delta)
        delta = (delta.detach() + alpha * gradient.sign()).clamp(-eps, eps)
    return (x + delta).clamp(0, 1) - x


def test_the_clamp_trap():
    """From a start outside the box the trapped attack never moves; ours does."""
    model, x, y = problem(9, n=200)
    x = x.round()  # every pixel at the edge, as most of MNIST's
    y = model(x).argmax(1)
    settings = {"alpha": 0.05, "num_steps": 20}
    generator = torch.Generator().manual_seed(0)
    trap = trapped_pgd(model, x, y, 0.25, **settings)
    free = attacks.pgd_linf(model, x, y, 0.25, **settings, generator=generator)
    with torch.no_grad():
        low, high = (attacks.cross_entropy(model(x + d), y) for d in (trap, free))
        fooled = [int((model(x + d).argmax(1) != y).sum()) for d in (trap, free)]
    assert (trap == 0).double().mean() > 0.4  # half of the starts
    assert low.mean() < high.mean() - 0.02
    assert fooled[0] < fooled[1]


def test_no_gradient_of_a_parameter_is_computed():
    """Hooks on the parameters stay silent: their gradients would double the cost."""
    model, x, y = problem(1)
    seen = []
    for parameter in model.parameters():
        parameter.register_hook(seen.append)
    for attack, _ in EVERY.values():
        attack(model, x, y, 0.1)
    assert seen == []


def test_pgd_starts_where_it_is_told():
    """No step: the start itself, brought into ball and box; bad ones are refused."""
    model = models.seeded(models.linear, (1, 2, 2), seed=0)
    x, y = torch.tensor([[[[0.0, 0.5], [0.95, 1.0]]]]), torch.tensor([0])
    start = torch.tensor([[[[-0.1, 0.3], [0.1, 0.05]]]])
    pgd = functools.partial(attacks.pgd_linf, eps=0.2, alpha=0.1, num_steps=0)
    found = pgd(model, x, y, start=start)
    expected = torch.tensor([[[[0.0, 0.2], [0.05, 0.0]]]])
    torch.testing.assert_close(found, expected)
    assert torch.equal(start, torch.tensor([[[[-0.1, 0.3], [0.1, 0.05]]]]))
    for bad in (start[..., :1], start * torch.nan):
        with pytest.raises(ValueError, match="start"):
            pgd(model, x, y, start=bad)
