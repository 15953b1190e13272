"""Activations: values, derivatives, curvatures, and gradients that are swapped."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from advlib import activations, attacks, models, training

EXTREME = (-1e4, -100.0, -1.3, -0.2, -1e-3, 1e-3, 0.2, 1.3, 100.0, 1e4)
PLAIN = [n for n in activations.ACTIVATIONS if not n.startswith("surrogate")]
SURROGATES = ["surrogate", "surrogate_attack", "surrogate_update"]


def sigmoid(x: float) -> float:
    """1 / (1 + exp(-x)) without overflow."""
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


def bell(x: float) -> float:
    """The density of the standard normal distribution."""
    return math.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def area(x: float) -> float:
    """Its distribution function, without cancellation on the left."""
    return math.erfc(-x / math.sqrt(2)) / 2


def plus(x: float, a: float) -> float:
    """The positive part, plus what the parametric softplus adds to it."""
    return max(x, 0) + math.log1p(math.exp(-abs(a * x))) / a


# value, derivative and curvature, each by its formula, away from a kink
BY_HAND = {
    "relu": (lambda x: max(x, 0), lambda x: float(x > 0), lambda x: 0.0),
    "leaky_relu": (
        lambda x: max(x, 0.2 * x),
        lambda x: 1.0 if x > 0 else 0.2,
        lambda x: 0.0,
    ),
    "softplus": (
        lambda x: plus(x, 1),
        sigmoid,
        lambda x: sigmoid(x) * sigmoid(-x),
    ),
    "parametric_softplus": (
        lambda x: plus(x, 10),
        lambda x: sigmoid(10 * x),
        lambda x: 10 * sigmoid(10 * x) * sigmoid(-10 * x),
    ),
    "parametric_softplus_100": (
        lambda x: plus(x, 100),
        lambda x: sigmoid(100 * x),
        lambda x: 100 * sigmoid(100 * x) * sigmoid(-100 * x),
    ),
    "silu": (
        lambda x: x * sigmoid(x),
        lambda x: sigmoid(x) * (1 + x * sigmoid(-x)),
        lambda x: sigmoid(x) * sigmoid(-x) * (2 + x * (sigmoid(-x) - sigmoid(x))),
    ),
    "gelu": (
        lambda x: x * area(x),
        lambda x: area(x) + x * bell(x),
        lambda x: bell(x) * (2 - x * x),
    ),
    "elu": (
        lambda x: x if x > 0 else math.expm1(x),
        lambda x: 1.0 if x > 0 else math.exp(x),
        lambda x: 0.0 if x > 0 else math.exp(x),
    ),
    "celu": (
        lambda x: x if x > 0 else 2 * math.expm1(x / 2),
        lambda x: 1.0 if x > 0 else math.exp(x / 2),
        lambda x: 0.0 if x > 0 else math.exp(x / 2) / 2,
    ),
    "smooth_relu": (
        lambda x: x - math.log1p(400 * x) / 400 if x > 0 else 0.0,
        lambda x: 400 * x / (1 + 400 * x) if x > 0 else 0.0,
        lambda x: 400 / (1 + 400 * x) ** 2 if x > 0 else 0.0,
    ),
}
BY_HAND["smooth_relu_400"] = BY_HAND["smooth_relu"]
# the derivatives on the two sides of 0: equal where the activation is smooth
AT_ZERO = {
    "relu": (0, 1),
    "leaky_relu": (0.2, 1),
    "softplus": (0.5, 0.5),
    "parametric_softplus": (0.5, 0.5),
    "parametric_softplus_100": (0.5, 0.5),
    "silu": (0.5, 0.5),
    "gelu": (0.5, 0.5),
    "elu": (1, 1),
    "celu": (1, 1),
    "smooth_relu": (0, 0),
    "smooth_relu_400": (0, 0),
}


def derivatives(layer: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Value, first and second derivative at each entry of ``x``, by autograd."""
    x = x.clone().requires_grad_()
    value = layer(x)
    (first,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    second = torch.zeros_like(x)
    if first.requires_grad:
        (second,) = torch.autograd.grad(first.sum(), x)
    return value.detach(), first.detach(), second


@pytest.mark.parametrize("name", PLAIN)
def test_by_the_formulas(name):
    """In float64, from -1e4 to 1e4: value, derivative, curvature."""
    layer = activations.make(name).double()
    found = derivatives(layer, torch.tensor(EXTREME, dtype=torch.float64))
    for values, formula in zip(found, BY_HAND[name], strict=True):
        assert values.isfinite().all()
        expected = torch.tensor([formula(x) for x in EXTREME], dtype=torch.float64)
        torch.testing.assert_close(values, expected, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("name", PLAIN)
def test_at_zero(name):
    """Finite at 0; the derivative jumps there for the two that are not smooth."""
    layer = activations.make(name).double()
    sides = torch.tensor([-1e-9, 1e-9], dtype=torch.float64)
    left, right = derivatives(layer, sides)[1].tolist()
    assert (left, right) == pytest.approx(AT_ZERO[name], abs=1e-6)
    value, slope, bend = derivatives(layer, torch.zeros(1, dtype=torch.float64))
    assert value.item() == pytest.approx(BY_HAND[name][0](0.0))
    assert min(left, right) - 1e-6 <= slope.item() <= max(left, right) + 1e-6
    assert bend.isfinite().all()


@pytest.mark.parametrize("name", PLAIN)
def test_gradcheck(name):
    """Autograd against finite differences, away from 0, where all are smooth."""
    x = torch.tensor([-2.0, -0.3, 0.4, 1.7], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(activations.make(name).double(), (x,))


@pytest.mark.parametrize("name", ["softplus", "parametric_softplus"])
def test_no_step_where_torch_goes_over_to_the_identity(name):
    """At x = 20 the values of torch's own Softplus() fall by 2e-9."""
    layer = activations.make(name).double()
    x = torch.tensor([20.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))
    assert not torch.autograd.gradcheck(nn.Softplus(), (x,), raise_exception=False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", list(activations.ACTIVATIONS))
def test_shape_and_dtype_stay(name, dtype):
    """The values have the shape and the dtype of the input, and are finite."""
    x = torch.tensor([EXTREME, EXTREME], dtype=dtype)
    out = activations.make(name).to(dtype)(x)
    assert out.shape == x.shape
    assert out.dtype == dtype
    assert out.isfinite().all()


def test_parametric_softplus_lies_above_relu():
    """By at most log(2) / alpha, reached at 0."""
    x = torch.linspace(-3, 3, 1001, dtype=torch.float64)
    for alpha in (1.0, 10.0, 100.0):
        gap = activations.ParametricSoftplus(alpha)(x) - F.relu(x)
        assert (gap >= -1e-15).all()  # rounding of values near 3
        assert gap.max().item() == pytest.approx(math.log(2) / alpha)
        assert gap.argmax() == 500


def test_softplus_is_parametric_softplus_with_alpha_one():
    """The name clash, resolved: torch's softplus at beta 1 is the same function."""
    x = torch.linspace(-15, 15, 301, dtype=torch.float64)
    torch.testing.assert_close(activations.ParametricSoftplus(1.0)(x), F.softplus(x))


def test_smooth_relu_learns_its_alpha():
    """The layer's own a gets a gradient if it is to learn, as by finite differences."""
    x = torch.tensor([-1.0, 0.002, 0.3], dtype=torch.float64)
    layer = activations.SmoothReLU(4.0).double()
    (found,) = torch.autograd.grad(layer(x).sum(), layer.beta)
    sums = []
    for step in (-1e-6, 1e-6):
        with torch.no_grad():
            moved = activations.SmoothReLU(4.0).double()
            moved.beta += step
            sums.append(moved(x).sum())
    assert found.item() == pytest.approx(float(sums[1] - sums[0]) / 2e-6, rel=1e-6)
    assert layer.alpha == pytest.approx(4.0)
    fixed = activations.make("smooth_relu_400")
    assert not fixed.beta.requires_grad
    assert fixed.alpha == pytest.approx(400.0, rel=1e-6)


@pytest.mark.parametrize("alpha", [0.0, -1.0, math.inf, math.nan])
@pytest.mark.parametrize(
    "build",
    [
        activations.ParametricSoftplus,
        activations.SmoothReLU,
        lambda alpha: activations.Surrogate(alpha=alpha),
        lambda alpha: activations.with_gradient(
            nn.Sequential(nn.ReLU()), smooth=True, alpha=alpha
        ),
    ],
)
def test_bad_alpha(build, alpha):
    """Zero, negative, infinite and NaN are refused, by name."""
    with pytest.raises(ValueError, match="alpha"):
        build(alpha)


def test_unknown_name():
    """The error names what was asked for and what there is."""
    with pytest.raises(ValueError, match=r"'swish'.*silu"):
        activations.make("swish")


def test_repr_shows_the_settings():
    """What ``print(model)`` shows tells two arms apart."""
    shown = {repr(activations.make(name)) for name in activations.ACTIVATIONS}
    assert len(shown) == len(activations.ACTIVATIONS)


# ------------------------------------------------------------------- forward, backward


@pytest.mark.parametrize("training_mode", [False, True])
@pytest.mark.parametrize("name", SURROGATES)
def test_surrogate_switches(name, training_mode):
    """ReLU's values to the bit; one gradient in eval mode, one in train mode."""
    layer = activations.make(name).train(training_mode)
    x = torch.linspace(-2, 2, 401, dtype=torch.float64)
    value, slope, _ = derivatives(layer, x)
    assert torch.equal(value, F.relu(x))
    smooth = layer.update if training_mode else layer.attack
    expected = torch.sigmoid(10 * x) if smooth else (x > 0).double()
    torch.testing.assert_close(slope, expected)


def test_surrogate_gradient_is_that_of_the_smooth_function():
    """Backward against finite differences of the parametric softplus."""
    x = torch.tensor([-0.7, -0.05, 0.0, 0.03, 0.8], dtype=torch.float64)
    h = 1e-6
    for alpha in (3.0, 10.0):
        smooth = activations.ParametricSoftplus(alpha)
        expected = (smooth(x + h) - smooth(x - h)) / (2 * h)
        _, slope, _ = derivatives(activations.Surrogate(alpha=alpha).eval(), x)
        torch.testing.assert_close(slope, expected, rtol=1e-7, atol=1e-8)


def test_fit_uses_one_gradient_for_the_attack_and_one_for_the_update():
    """The two half-switched surrogates: the attack's gate is open, or the update's."""
    x = torch.tensor([[0.4], [0.6]])
    y = torch.tensor([0, 1])
    slopes = {}
    for name in SURROGATES:
        model = nn.Sequential(nn.Linear(1, 4), activations.make(name), nn.Linear(4, 2))
        for parameter in model.parameters():
            nn.init.constant_(parameter, 0.1)
        with torch.no_grad():
            model[0].bias.fill_(-0.3)  # every unit sits left of the jump
            model[2].weight[1] = 0.5
        seen = []

        def attack(model, x, y, seen=seen):
            gradient = attacks.input_gradient(model, x, y)
            seen.append(bool(gradient.abs().max() > 0))
            return torch.zeros_like(x)

        before = model[0].weight.detach().clone()
        training.fit(model, x, y, epochs=1, lr=1.0, attack=attack)
        slopes[name] = (seen[0], not torch.equal(before, model[0].weight))
    assert slopes == {
        "surrogate": (True, True),
        "surrogate_attack": (True, False),
        "surrogate_update": (False, True),
    }


@pytest.mark.parametrize("name", list(activations.ACTIVATIONS))
def test_with_gradient(name):
    """The same values, shared weights; smooth keeps its slope, the gate is ReLU's."""
    model = models.seeded(
        models.mlp, (1, 4, 4), [8], activation=activations.ACTIVATIONS[name], seed=0
    )
    x = torch.rand(5, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    for smooth in (False, True):
        twin = activations.with_gradient(model, smooth=smooth)
        torch.testing.assert_close(twin(x), model(x))
        assert not twin.training
        assert twin[1].weight is model[1].weight
        z = torch.linspace(-1, 1, 8, dtype=torch.float64)
        _, slope, _ = derivatives(twin[2].double(), z)
        if not smooth:
            torch.testing.assert_close(slope, (z > 0).double())
        elif name in ("relu", *SURROGATES):
            torch.testing.assert_close(slope, torch.sigmoid(10 * z))
        else:
            own = derivatives(activations.make(name).double(), z)[1]
            torch.testing.assert_close(slope, own)
    assert type(model[2]) is type(activations.make(name))  # the original is as it was


def test_with_gradient_reaches_into_blocks():
    """In a residual network every activation is swapped, the blocks' included."""
    model = models.seeded(models.residual_small, (1, 8, 8), width=2, seed=0)
    twin = activations.with_gradient(model, smooth=True)
    kinds = [type(layer).__name__ for layer in twin.modules()]
    assert kinds.count("Surrogate") == 5
    assert kinds.count("ReLU") == 0
