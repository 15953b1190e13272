"""What an evaluation takes for a perturbation, a margin, a list; what it repeats."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from advlib import attacks, bounds, evaluation, models, training

X = torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(0))
NET = models.seeded(models.mlp, (1, 4, 4), [16], 3, seed=0).requires_grad_(False)
Y = NET(X).argmax(1)
FGSM = partial(attacks.fgsm, eps=0.05)
INTERVAL = partial(bounds.interval_margins, eps=0.01)
DARK = X * 0.4  # such that x + (x + delta) stays in the box

CALLS = {
    "attacked": lambda attack, x=X, **o: evaluation.attacked(NET, x, Y, attack, **o),
    "attacked_error": lambda attack, x=X, **o: evaluation.attacked_error(
        NET, x, Y, [attack], **o
    ),
    "both_sides": lambda attack, x=X, **o: evaluation.both_sides(
        NET, x, Y, {"a": attack}, {}, **o
    ),
}


def moved_images(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """What other libraries return: ``x + delta``."""
    return x + FGSM(model, x, y)


# ------------------------------------------------------------- what attacks return


@pytest.mark.parametrize("name", CALLS)
def test_images_instead_of_perturbations(name):
    """Outside the box, and inside it where the images are dark."""
    with pytest.raises(ValueError, match=r"outside \[0, 1\].*box=False"):
        CALLS[name](moved_images)
    y = NET(DARK).argmax(1)
    for attack in (moved_images, lambda model, x, y: x):
        with pytest.raises(ValueError, match="looks like the images"):
            evaluation.attacked(NET, DARK, y, attack)
        with pytest.raises(ValueError, match="looks like the images"):
            evaluation.attacked(NET, DARK, y, attack, box=False)


RETURNS = {
    "a column of pixels": (lambda m, x, y: x[..., :1], ValueError, "one perturbation"),
    "one for all": (lambda m, x, y: 0 * x[:1], ValueError, "one perturbation"),
    "NaN": (lambda m, x, y: x * math.nan, ValueError, "NaN"),
    "infinity": (lambda m, x, y: x / 0 + 1, ValueError, "NaN or infinity"),
    "float64": (lambda m, x, y: 0 * x.double(), TypeError, "torch.float64"),
    "complex": (lambda m, x, y: 0j * x, TypeError, "complex"),
    "a pair": (lambda m, x, y: (0 * x, True), TypeError, "tuple"),
    "nothing": (lambda m, x, y: None, TypeError, "NoneType"),
    "a record": (
        lambda m, x, y: attacks.minimal_pgd_l2(
            m, x, (y + 1) % 3, num_radii=1, num_steps=1
        ),
        TypeError,
        "Minimal",
    ),
}


@pytest.mark.parametrize("kind", RETURNS)
def test_what_is_no_perturbation(kind):
    """A clear error in evaluation, in restarts and in what trains with attacks."""
    attack, error, text = RETURNS[kind]
    for call in CALLS.values():
        with pytest.raises(error, match=text):
            call(attack)
    with pytest.raises(error, match=text):
        attacks.best_of(lambda _: attack(NET, X, Y), NET, X, Y, num_restarts=1)
    for wrap in (training.noise_as_long_as, partial(training.shortened, length=1.0)):
        with pytest.raises(error, match=text):
            wrap(attack)(NET, X, Y)


@pytest.mark.parametrize("name", CALLS)
def test_leaving_the_box_is_said(name):
    """An attack without box is refused, unless the evaluation is told so."""
    free = partial(attacks.fgsm, eps=0.3, box=False)
    with pytest.raises(ValueError, match="box=False"):
        CALLS[name](free)
    CALLS[name](free, box=False)
    rate = evaluation.attacked_error(NET, X, Y, free, box=False)
    assert rate.wrong == int(evaluation.wrong(NET, X + free(NET, X, Y), Y).sum())


def test_rounding_is_no_step_out_of_the_box():
    """Half precision, and a sum that ends just above 1."""
    attack = partial(attacks.fgsm, eps=0.1)
    for kind in (torch.float16, torch.bfloat16, torch.float64):
        model = models.seeded(models.mlp, (1, 4, 4), [16], 3, seed=0).to(kind)
        x = X.to(kind)
        evaluation.attacked(model, x, model(x).argmax(1), attack)
    above = lambda m, x, y: 1 + 1e-7 - x  # noqa: E731
    evaluation.attacked(NET, X, Y, above)


@pytest.mark.parametrize("seed", range(20))
def test_true_perturbations_raise_no_alarm(seed):
    """Any sign, brightening, few pixels, few images; also nowhere negative ones."""
    g = torch.Generator().manual_seed(seed)
    for x in (X, DARK, X[:1], 0.3 + 0 * X, 0 * X, X.round()):
        y = NET(x).argmax(1)
        noise = torch.rand(x.shape, generator=g)
        for delta in (
            0.3 * (noise - 0.5),
            0.3 * noise,
            0.3 * (noise > 0.5),
            0.3 + 0 * x,
            0.5 * x,
            -x,
            1 - x,
            torch.zeros_like(x),
        ):
            delta = delta.clamp(-x, 1 - x)
            fixed = lambda m, x, y, delta=delta: delta[: len(x)]  # noqa: E731
            evaluation.attacked(NET, x, y, fixed)
    few = torch.rand(3, 1, 1, 2, generator=g)  # too few numbers to tell
    tiny = models.seeded(models.mlp, (1, 1, 2), [4], 3, seed=0)
    evaluation.attacked(tiny, 0.4 * few, tiny(0.4 * few).argmax(1), lambda m, x, y: x)


def test_an_attack_that_works_in_place():
    """What it does to its images is its own affair: x + delta is that of the caller."""

    def inside(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        delta = FGSM(model, x, y)
        x += delta
        return delta

    x = X.clone()
    for call in (evaluation.attacked, evaluation.attacked_error):
        assert str(call(NET, x, Y, [inside])) == str(call(NET, X, Y, [FGSM]))
    assert torch.equal(x, X)


# ------------------------------------------------------------------------- iterables


@pytest.mark.parametrize(
    "wrap",
    [list, tuple, set, iter, lambda fs: (f for f in fs), lambda fs: dict.fromkeys(fs),
     lambda fs: {str(k): f for k, f in enumerate(fs)}.values(), lambda fs: fs[0]],
    ids="list tuple set iterator generator keys values one".split(),
)  # fmt: skip
def test_any_iterable_of_functions(wrap):
    """A generator is read once; one function needs no list."""
    right = evaluation.attacked(NET, X, Y, [FGSM])
    assert torch.equal(evaluation.attacked(NET, X, Y, wrap([FGSM, FGSM])), right)
    assert evaluation.attacked_error(NET, X, Y, wrap([FGSM])).wrong == int(right.sum())
    left = evaluation.uncertified(NET, X, Y, [INTERVAL])
    assert 0 < left.sum() < len(X)
    assert torch.equal(evaluation.uncertified(NET, X, Y, wrap([INTERVAL])), left)
    rate = evaluation.certified_error(NET, X, Y, wrap([INTERVAL]))
    assert rate.wrong == int(left.sum())
    options = {"num_steps": 2, "num_queries": 2}
    nets = wrap([NET]) if wrap is not set else [NET]
    if nets is not NET:
        look = partial(evaluation.masking_checks, NET, X, Y, 0.05, **options)
        assert look(substitutes=nets) == look(substitutes=[NET])


@pytest.mark.parametrize("bad", [{"a": FGSM}, ["fgsm"], "fgsm", [None], None, 3, [[]]])
def test_what_cannot_be_called(bad):
    """Said before anything runs."""
    for call in (evaluation.attacked, evaluation.attacked_error):
        with pytest.raises(TypeError, match=r"attacks: a \w+ cannot be called"):
            call(NET, X, Y, bad)
    for call in (evaluation.uncertified, evaluation.certified_error):
        with pytest.raises(TypeError, match=r"margins: a \w+ cannot be called"):
            call(NET, X, Y, bad)


def test_both_sides_take_dictionaries_of_functions():
    """With names that stand for one method each."""
    both = partial(evaluation.both_sides, NET, X, Y)
    for bad in ([FGSM], FGSM, {"a": "fgsm"}, {"a": [FGSM]}):
        with pytest.raises(TypeError, match=r"attacks: a (dictionary|\w+ cannot)"):
            both(bad, {})
        with pytest.raises(TypeError, match=r"bounds: a (dictionary|\w+ cannot)"):
            both({}, bad)
    with pytest.raises(TypeError, match="exact"):
        both({}, {}, exact="milp")
    for name in ("clean", "exact", "open", "interval"):
        with pytest.raises(ValueError, match="one method"):
            both({name: FGSM}, {"interval": INTERVAL})
    with pytest.raises(ValueError, match="0 verdicts"):
        both({}, {}, exact=lambda m, x, y: [])


# --------------------------------------------------------------------------- margins


def claims(value: float) -> evaluation.Bound:
    """A bound that says ``value`` of every class."""
    return lambda model, x, y: torch.full((len(x), 3), value)


def test_nan_and_infinity_certify_nothing():
    """Nor do they in one column; the label's own column does not matter."""
    for bad in (math.nan, math.inf, -math.inf, 0.0, -1.0):
        assert evaluation.uncertified(NET, X, Y, claims(bad)).all()
        sides = evaluation.both_sides(NET, X, Y, {}, {"b": claims(bad)})
        assert sides.errors["b"].all()
    assert not evaluation.uncertified(NET, X, Y, claims(0.1)).any()
    assert not evaluation.uncertified(NET, X, Y, [claims(math.nan), claims(0.1)]).any()
    for bad in (math.nan, math.inf):
        for shift in (0, 1, 2):

            def one(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
                margins = torch.ones(len(x), 3)
                margins[torch.arange(len(x)), (y + shift) % 3] = bad  # noqa: B023
                return margins

            assert evaluation.uncertified(NET, X, Y, one).all() == (shift > 0)


@pytest.mark.parametrize(
    ("bound", "error", "text"),
    [
        (lambda m, x, y: torch.ones(len(x), 1), ValueError, "TwoLogits"),
        (lambda m, x, y: torch.ones(len(x)), ValueError, "margins of 40"),
        (lambda m, x, y: torch.ones(3), ValueError, "margins of 40"),
        (lambda m, x, y: torch.ones(1, 3), ValueError, "margins of 40"),
        (lambda m, x, y: torch.ones(len(x), 3, 1, 1), ValueError, "margins of 40"),
        (lambda m, x, y: torch.ones(len(x), 2), ValueError, "2 classes"),
        (lambda m, x, y: torch.ones(len(x), 3).bool(), TypeError, "torch.bool"),
        (lambda m, x, y: torch.ones(len(x), 3).long(), TypeError, "torch.int64"),
        (lambda m, x, y: [1.0] * len(x), TypeError, "list"),
        (lambda m, x, y: None, TypeError, "NoneType"),
        (lambda m, x, y: (torch.ones(len(x), 3), 1), TypeError, "tuple"),
    ],
)
def test_what_is_no_margin(bound, error, text):
    """Of another shape or type; K >= 2 and every label one of K."""
    y = torch.where(torch.arange(len(Y)) == 3, 2, Y)
    for call in (evaluation.uncertified, evaluation.certified_error):
        with pytest.raises(error, match=text):
            call(NET, X, y, bound)
    net = models.seeded(models.mlp, (1, 4, 4), [16], 3, seed=0)
    with pytest.raises(error, match=text):
        evaluation.both_sides(net, X, y, {}, {"b": bound}, shortcut=False)


# ------------------------------------------------------------------------ generators


def test_a_generator_in_a_partial_is_put_back():
    """Repeated, an evaluation gives the same; within one, the draws go on."""
    g = torch.Generator().manual_seed(0)
    state = g.get_state()
    seen = []

    def spy(model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator):
        seen.append(torch.rand(1, generator=generator).item())
        return torch.zeros_like(x)

    for wrapped in (
        partial(spy, generator=g),
        partial(partial(spy), generator=g),
        partial(lambda inner, m, x, y: inner(m, x, y), partial(spy, generator=g)),
        partial(lambda m, x, y, inner: inner(m, x, y), inner=partial(spy, generator=g)),
    ):
        for call in (
            lambda a: evaluation.attacked(NET, X, Y, [a, a], batch_size=20),
            lambda a: evaluation.attacked_error(NET, X, Y, [a] * 4),
            lambda a: evaluation.both_sides(NET, X, Y, dict.fromkeys("abcd", a), {}),
        ):
            seen.clear()
            call(wrapped)
            call(wrapped)
            assert len(seen) == 8
            assert seen[:4] == seen[4:]
            assert len(set(seen)) == 4
            assert torch.equal(g.get_state(), state)


def test_a_bound_with_a_generator_and_one_that_fails():
    """Bounds, too; and after an error."""
    g = torch.Generator().manual_seed(0)
    state = g.get_state()

    def bound(model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator):
        if draws:
            raise KeyError("no more")
        draws.append(torch.rand(1, generator=generator).item())
        return torch.ones(len(x), 3)

    draws: list[float] = []
    evaluation.uncertified(NET, X, Y, partial(bound, generator=g))
    assert torch.equal(g.get_state(), state)
    for generator in (g, g):
        with pytest.raises(KeyError):
            evaluation.uncertified(NET, X, Y, partial(bound, generator=generator))
        assert torch.equal(g.get_state(), state)


def test_repeated_evaluations_with_random_starts():
    """The same images each time; called by hand, the attack draws anew."""
    g = torch.Generator().manual_seed(0)
    start = partial(attacks.pgd_linf, eps=0.08, alpha=0.02, num_steps=1, generator=g)
    first, again = (evaluation.attacked(NET, X, Y, [start] * 3) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(start(NET, X, Y), start(NET, X, Y))
