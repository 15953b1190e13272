"""The closed forms of linear models against solvers, corners and the KKT conditions."""

import itertools
import math

import cvxpy as cp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize
from torch import nn

from advlib import attacks, linear, models
from advlib.exact import shortest_linear

NORMS = ("linf", "l2", "l1")
ORDER = {"linf": math.inf, "l2": 2, "l1": 1}
CASES = [(norm, box) for norm in NORMS for box in (True, False)]


def modest(n: int) -> settings:
    """Hypothesis settings: the same ``n`` examples on every run."""
    return settings(deadline=None, max_examples=n, derandomize=True, database=None)


@st.composite
def problems(draw, max_size: int = 6):
    """Draw (w, x, eps): ties, zero weights, pixels at 0 and 1 are frequent."""
    size = draw(st.integers(1, max_size))
    tenths = st.integers(-20, 20).map(lambda i: i / 10)
    pixels = st.integers(0, 10).map(lambda i: i / 10)
    w = draw(st.lists(tenths, min_size=size, max_size=size))
    x = draw(st.lists(pixels, min_size=size, max_size=size))
    eps = draw(st.sampled_from([0.0, 0.03, 0.1, 0.35, 0.8, 1.0, 1.7, 40.0]))
    return (*(torch.tensor(v, dtype=torch.float64) for v in (w, x)), eps)


def radius(eps: float, norm: str) -> float:
    """An l-inf radius above 1 is refused; the box makes it the same as 1."""
    return min(eps, 1.0) if norm == "linf" else eps


def assert_allowed(delta, x, eps, norm, box, slack=1e-9):
    """Fail unless ``delta`` lies in the ball and, with ``box``, exactly in the box."""
    assert np.linalg.norm(delta.double().numpy(), ORDER[norm]) <= eps * (1 + slack)
    if box:
        assert (x + delta).min() >= 0
        assert (x + delta).max() <= 1


def solved(w, x, eps, norm, box) -> float:
    """The optimal value by an interior-point solver."""
    delta = cp.Variable(len(w))
    limits = [cp.norm(delta, {"linf": "inf", "l2": 2, "l1": 1}[norm]) <= eps]
    if box:
        limits += [x.numpy() + delta >= 0, x.numpy() + delta <= 1]
    problem = cp.Problem(cp.Minimize(w.numpy() @ delta), limits)
    value = problem.solve(solver=cp.CLARABEL)
    assert problem.status == "optimal"
    return value


@pytest.mark.parametrize(("norm", "box"), CASES)
@given(problems())
@modest(25)
def test_worst_delta_is_the_convex_programs_optimum(norm, box, problem):
    """The closed form is allowed and as good as what CLARABEL finds."""
    w, x, eps = problem
    eps = radius(eps, norm)
    delta = linear.worst_delta(w, x, eps, norm=norm, box=box)
    assert_allowed(delta, x, eps, norm, box)
    assert float(w @ delta) == pytest.approx(
        solved(w, x, eps, norm, box), abs=1e-6 * (1 + eps)
    )


@pytest.mark.parametrize("box", [True, False])
@given(problems(max_size=7))
@modest(60)
def test_linf_optimum_is_the_best_corner(box, problem):
    """A linear function on a box is smallest at a corner; try all of them."""
    w, x, eps = problem
    eps = radius(eps, "linf")
    low, high = torch.full_like(x, -eps), torch.full_like(x, eps)
    if box:
        low, high = low.maximum(-x), high.minimum(1 - x)
    ends = zip(low.tolist(), high.tolist(), strict=True)
    corners = torch.tensor(list(itertools.product(*ends)), dtype=w.dtype)
    value = linear.min_product(w, x, eps, norm="linf", box=box)
    assert value.item() == pytest.approx((corners @ w).min().item(), abs=1e-12)


@given(problems(max_size=6))
@modest(60)
def test_l1_optimum_without_box_is_the_best_vertex(problem):
    """The vertices of the l1 ball are +-eps on one pixel; try all of them."""
    w, x, eps = problem
    vertices = torch.cat([torch.eye(len(w)), -torch.eye(len(w))]).double() * eps
    value = linear.min_product(w, x, eps, norm="l1", box=False)
    assert value.item() == pytest.approx((vertices @ w).min().item(), abs=1e-12)


@given(problems(max_size=2))
@modest(60)
def test_l1_optimum_with_box_in_the_plane(problem):
    """In 1-D and 2-D all vertices can be listed: edges meet edges, all pairs tried."""
    w, x, eps = problem
    rows = [*itertools.product([1, -1], repeat=len(w)), *(np.eye(len(w)))]
    rows = np.array([*rows, *(-np.eye(len(w)))])
    limit = np.concatenate([np.full(2 ** len(w), eps), 1 - x, x])
    best = math.inf
    for pick in itertools.combinations(range(len(rows)), len(w)):
        if abs(np.linalg.det(rows[list(pick)])) > 1e-9:
            vertex = np.linalg.solve(rows[list(pick)], limit[list(pick)])
            if (rows @ vertex <= limit + 1e-12).all():
                best = min(best, float(w.numpy() @ vertex))
    value = linear.min_product(w, x, eps, norm="l1").item()
    assert value == pytest.approx(best, abs=1e-11)


@given(problems(max_size=12))
@modest(150)
def test_l2_solution_with_box_satisfies_kkt(problem):
    """Free pixels share one multiplier, full ones stop earlier, the ball is used up.

    The problem is convex, so these conditions are sufficient for the optimum.
    """
    w, x, eps = problem
    delta = linear.worst_delta(w, x, eps, norm="l2")
    assert (w * delta <= 0).all()  # no pixel moves the wrong way
    moving = w != 0
    slope, step = w.abs()[moving], delta.abs()[moving]
    room = torch.where(w > 0, x, 1 - x)[moving]
    free = step < room - 1e-9
    if not free.any():
        return  # every useful pixel is at its end: no point is better
    assert step.norm().item() == pytest.approx(eps, abs=1e-7)
    multipliers = step / slope
    assert torch.allclose(multipliers[free], multipliers[free][:1], atol=1e-8)
    if (~free).any() and eps > 0:
        assert multipliers[~free].max() <= multipliers[free].min() + 1e-7


@pytest.mark.parametrize(("norm", "box"), CASES)
@given(problems(max_size=8), st.integers(0, 2**31))
@modest(40)
def test_no_random_allowed_point_is_better(norm, box, problem, seed):
    """Soundness by sampling: 500 allowed points, none below the closed form."""
    w, x, eps = problem
    eps = radius(eps, norm)
    generator = torch.Generator().manual_seed(seed)
    delta = torch.randn((500, len(w)), generator=generator).double()
    size = torch.linalg.vector_norm(delta, ORDER[norm], dim=1, keepdim=True)
    delta = eps * delta / size.clamp(min=1e-9)
    if box:
        delta = delta.clamp(-x, 1 - x)  # towards 0: stays in the ball
    best = linear.min_product(w, x, eps, norm=norm, box=box)
    assert (delta @ w).min() >= best - 1e-12 * (1 + eps)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("eps", [0.01, 0.1, 1.0, 5.0, 100.0])
def test_l2_with_box_at_the_size_of_mnist(dtype, eps):
    """784 pixels, most of them at 0 or 1: the multiplier by root finding agrees."""
    rng = np.random.default_rng(0)
    w = rng.normal(size=784) * (rng.random(784) < 0.8)
    x = np.clip(rng.normal(0.3, 0.7, size=784), 0, 1)
    room = np.where(w > 0, x, 1 - x)

    def step(t):
        return np.minimum(t * abs(w), room)

    def excess(t):
        return np.linalg.norm(step(t)) - eps

    top = 1e6
    t = optimize.brentq(excess, 0, top, xtol=1e-15) if excess(top) > 0 else top
    x = torch.tensor(x, dtype=dtype).clamp(0, 1)
    delta = linear.worst_delta(torch.tensor(w, dtype=dtype), x, eps, norm="l2")
    close = 1e-4 if dtype == torch.float32 else 1e-9
    assert_allowed(delta, x, eps, "l2", True, slack=close)
    assert float(w @ delta.numpy()) == pytest.approx(-(abs(w) @ step(t)), rel=close)


@pytest.mark.parametrize(("norm", "box"), CASES)
@given(problems(max_size=8))
@modest(40)
def test_float32_agrees_with_float64(norm, box, problem):
    """In single precision the result has its dtype, is allowed and is as good."""
    w, x, eps = problem
    eps = radius(eps, norm)
    x32 = x.float()
    delta = linear.worst_delta(w.float(), x32, eps, norm=norm, box=box)
    assert delta.dtype == torch.float32
    assert_allowed(delta, x32, eps, norm, box, slack=1e-5)
    expected = linear.min_product(w, x, eps, norm=norm, box=box).item()
    assert float(w @ delta.double()) == pytest.approx(expected, abs=3e-5 * (1 + eps))


@pytest.mark.parametrize(
    ("norm", "eps", "first"), [("l2", 1e-3, 5e-4), ("l1", 1e-6, 5e-7)]
)
def test_small_eps_in_float32_stays_in_the_ball(norm, eps, first):
    """A full pixel beside a large room: the budget left must not be cancelled away."""
    w, x = torch.tensor([10.0, 1.0]), torch.tensor([first, 1.0])
    delta = linear.worst_delta(w, x, eps, norm=norm)
    assert_allowed(delta, x, eps, norm, True, slack=1e-5)
    left = eps - first if norm == "l1" else math.sqrt(eps**2 - first**2)
    assert delta.tolist() == pytest.approx([-first, -left], rel=1e-4)


@pytest.mark.parametrize(("norm", "box"), CASES)
@pytest.mark.parametrize("tiny", [1e-12, 1e-20, 1e-25, 1e-38])
def test_tiny_weights_in_float32(norm, box, tiny):
    """Squares of small weights underflow: the ball must hold all the same."""
    for w in ([1.0, tiny], [tiny, 1.0], [tiny, tiny], [-tiny, tiny]):
        w, x = torch.tensor(w), torch.tensor([0.2, 0.9])
        delta = linear.worst_delta(w, x, 0.5, norm=norm, box=box)
        assert_allowed(delta, x, 0.5, norm, box, slack=1e-5)
        scaled = (w.double() / w.abs().max().double()).numpy()
        value = float(scaled @ delta.double().numpy())
        best = solved(torch.tensor(scaled), x.double(), 0.5, norm, box)
        assert value == pytest.approx(best, abs=1e-5)


@pytest.mark.parametrize(("norm", "box"), CASES)
def test_all_weights_zero_or_eps_zero(norm, box):
    """Nothing to gain: the value is 0 and no NaN appears."""
    x = torch.tensor([0.0, 0.3, 1.0])
    for w, eps in ((torch.zeros(3), 0.5), (torch.tensor([1.0, -2.0, 3.0]), 0.0)):
        delta = linear.worst_delta(w, x, eps, norm=norm, box=box)
        assert (w * delta).sum() == 0
        assert_allowed(delta, x, eps, norm, box)


@pytest.mark.parametrize("norm", NORMS)
def test_huge_eps_reaches_the_end_of_the_box(norm):
    """Once the ball holds the box, every useful pixel goes to its end."""
    w = torch.tensor([1.0, -2.0, 3.0, -4.0])
    x = torch.tensor([0.0, 0.0, 1.0, 0.7])
    delta = linear.worst_delta(w, x, 1.0 if norm == "linf" else 1e6, norm=norm)
    assert (x + delta).tolist() == [0.0, 1.0, 0.0, 1.0]


@pytest.mark.parametrize(("norm", "box"), CASES)
def test_batches_broadcast(norm, box):
    """(N, 1, D) images against (K, D) weights: each pair as if it were alone."""
    generator = torch.Generator().manual_seed(0)
    w = torch.randn((3, 5), generator=generator).double()
    x = torch.rand((4, 1, 5), generator=generator).double()
    delta = linear.worst_delta(w, x, 0.3, norm=norm, box=box)
    assert delta.shape == (4, 3, 5)
    for i, k in itertools.product(range(4), range(3)):
        alone = linear.worst_delta(w[k], x[i, 0], 0.3, norm=norm, box=box)
        assert torch.allclose(delta[i, k], alone, atol=1e-15)


@given(problems(), st.floats(0.1, 10))
@modest(40)
def test_dual_norm_is_the_gain_without_box(problem, scale):
    """``-eps * dual_norm(w)`` is the unboxed minimum, and the dual norm is a norm."""
    w, x, eps = problem
    for norm in NORMS:
        dual = linear.dual_norm(w, norm)
        value = linear.min_product(w, x, radius(eps, norm), norm=norm, box=False)
        assert value.item() == pytest.approx(-radius(eps, norm) * dual.item())
        assert linear.dual_norm(scale * w, norm).item() == pytest.approx(
            scale * dual.item()
        )
    exact = [w.abs().sum(), (w @ w).sqrt(), w.abs().max()]
    assert [linear.dual_norm(w, norm).item() for norm in NORMS] == pytest.approx(
        [v.item() for v in exact]
    )


def test_dual_norm_keeps_leading_dimensions():
    """(..., D) becomes (...)."""
    assert linear.dual_norm(torch.ones(2, 3, 4), "l1").shape == (2, 3)


@pytest.mark.parametrize(("norm", "box"), CASES)
def test_gradient_of_min_product(norm, box):
    """Danskin: the gradient in w is the minimiser; finite differences agree."""
    generator = torch.Generator().manual_seed(3)
    w = torch.randn((4, 7), generator=generator).double().requires_grad_()
    x = torch.rand((4, 7), generator=generator).double()

    def value(w):
        return linear.min_product(w, x, 0.4, norm=norm, box=box)

    (gradient,) = torch.autograd.grad(value(w).sum(), w)
    delta = linear.worst_delta(w, x, 0.4, norm=norm, box=box)
    assert torch.equal(gradient, delta)
    assert not delta.requires_grad
    h = 1e-6
    for i in range(7):
        shift = torch.zeros(7).double()
        shift[i] = h
        slope = (value(w + shift) - value(w - shift)) / (2 * h)
        assert torch.allclose(slope, delta[:, i], atol=1e-6)


@pytest.mark.parametrize(
    ("w", "x", "eps", "norm"),
    [
        ([math.nan, 1.0], [0.5, 0.5], 0.1, "linf"),
        ([math.inf, 1.0], [0.5, 0.5], 0.1, "l2"),
        ([1.0, 1.0], [math.nan, 0.5], 0.1, "linf"),
        ([1.0, 1.0], [0.5, 1.1], 0.1, "l1"),
        ([1.0, 1.0], [-0.1, 0.5], 0.1, "l2"),
        ([1.0, 1.0], [0.5, 0.5], -0.1, "l2"),
        ([1.0, 1.0], [0.5, 0.5], math.nan, "l1"),
        ([1.0, 1.0], [0.5, 0.5], math.inf, "l1"),
        ([1.0, 1.0], [0.5, 0.5], 8, "linf"),
        ([1.0, 1.0], [0.5, 0.5], 0.1, "l0"),
    ],
)
def test_worst_delta_refuses(w, x, eps, norm):
    """NaN, values out of range and unknown norms; both functions alike."""
    for function in (linear.worst_delta, linear.min_product):
        for box in (True, False):
            with pytest.raises(ValueError, match=r"NaN|eps|norm"):
                function(torch.tensor(w), torch.tensor(x), eps, norm=norm, box=box)


def test_worst_delta_refuses_bytes():
    """Images of uint8 are refused by type."""
    with pytest.raises(TypeError):
        linear.worst_delta(torch.ones(2), torch.ones(2, dtype=torch.uint8), 0.1)


def test_dual_norm_refuses():
    """A norm that is none of the three."""
    with pytest.raises(ValueError, match="l7"):
        linear.dual_norm(torch.ones(2), "l7")


def small_problem(num_classes: int, seed: int, n: int = 12):
    """A random linear model on 4 pixels in float64, with images and labels."""
    model = models.seeded(models.linear, (1, 2, 2), num_classes, seed=seed).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        model[1].weight.normal_(0, 2, generator=generator)
    x = torch.rand((n, 1, 2, 2), generator=generator).double()
    x = (1.4 * x - 0.2).clamp(0, 1)  # some pixels at 0 and at 1
    y = torch.randint(max(num_classes, 2), (n,), generator=generator)
    return model, x, y


def corners(x, eps: float, box: bool):
    """All 2^D corners (N, 2^D, ...) of the l-inf ball, met with the box."""
    flat = x.flatten(1)
    low, high = flat - eps, flat + eps
    if box:
        low, high = low.clamp(min=0), high.clamp(max=1)
    signs = torch.tensor(list(itertools.product([0, 1], repeat=flat.shape[1])))
    every = torch.where(signs.bool(), high[:, None], low[:, None])
    return every.reshape(len(x), len(signs), *x.shape[1:])


@pytest.mark.parametrize("box", [True, False])
@pytest.mark.parametrize("eps", [0.0, 0.1, 0.4, 1.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_linf_margins_against_all_corners(box, eps, seed):
    """Pairwise margins, and which images can be fooled, by brute force."""
    model, x, y = small_problem(3, seed)
    every = corners(x, eps, box)
    with torch.no_grad():
        logits = model(every.flatten(0, 1)).unflatten(0, every.shape[:2])
    right = logits.gather(2, y[:, None, None].expand(-1, logits.shape[1], 1))
    expected = (right - logits).amin(1)
    margins = linear.pairwise_margins(model, x, y, eps, box=box)
    assert torch.allclose(margins, expected, atol=1e-12)
    assert (margins.gather(1, y[:, None]) == 0).all()
    others = logits.scatter(2, y[:, None, None].expand_as(right), -math.inf).amax(2)
    fooled = (others >= right[..., 0]).any(1)
    assert torch.equal(linear.robustly_wrong(model, x, y, eps, box=box), fooled)


@pytest.mark.parametrize("box", [True, False])
@pytest.mark.parametrize("eps", [0.0, 0.1, 0.4, 1.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_binary_margins_against_all_corners(box, eps, seed):
    """One output and labels -1, +1: the smallest y h over all corners."""
    model, x, y = small_problem(1, seed)
    sign = 2.0 * y - 1
    every = corners(x, eps, box)
    with torch.no_grad():
        h = model(every.flatten(0, 1)).view(every.shape[:2])
    margins = linear.binary_margins(model, x, sign, eps, box=box)
    assert torch.allclose(margins, (sign[:, None] * h).amin(1), atol=1e-12)


@pytest.mark.parametrize("box", [True, False])
@pytest.mark.parametrize("eps", [0.0, 0.1, 0.4, 1.0])
@pytest.mark.parametrize("num_classes", [2, 3, 5])
def test_cross_entropy_bound_against_all_corners(box, eps, num_classes):
    """Cross-entropy is convex in delta, so its maximum is at a corner.

    The bound is never below it, and equal to it for two classes.
    """
    model, x, y = small_problem(num_classes, 4)
    every = corners(x, eps, box)
    count = every.shape[1]
    with torch.no_grad():
        loss = F.cross_entropy(
            model(every.flatten(0, 1)), y.repeat_interleave(count), reduction="none"
        )
    exact = loss.view(len(x), count).amax(1)
    bound = linear.cross_entropy_bound(model, x, y, eps, box=box)
    assert (bound >= exact - 1e-12).all()
    if num_classes == 2 or eps == 0:
        assert torch.allclose(bound, exact, atol=1e-12)
    elif eps == 0.4:
        assert (bound > exact + 1e-3).any()  # the docstring: sound, not exact


@pytest.mark.parametrize(("norm", "box"), CASES)
def test_margins_are_attained_and_below_every_attack(norm, box):
    """In each norm: worst_delta attains the margin, and PGD never goes below it."""
    model, x, y = small_problem(3, 7)
    eps = 0.4
    margins = linear.pairwise_margins(model, x, y, eps, norm=norm, box=box)
    weight = model[1].weight.detach()
    for j in range(3):
        gap = weight[y] - weight[j]
        delta = linear.worst_delta(gap, x.flatten(1), eps, norm=norm, box=box)
        z = model(x + delta.view_as(x))
        reached = z.gather(1, y[:, None])[:, 0] - z[:, j]
        assert torch.allclose(reached, margins[:, j], atol=1e-12)
    if norm != "l1":
        attack = attacks.pgd_linf if norm == "linf" else attacks.pgd_l2
        delta = attack(model, x, y, eps, alpha=eps / 4, num_steps=20, box=box)
        z = model(x + delta)
        assert (z.gather(1, y[:, None]) - z >= margins - 1e-9).all()
        fooled = z.argmax(1) != y
        assert (
            fooled <= linear.robustly_wrong(model, x, y, eps, norm=norm, box=box)
        ).all()


def test_two_outputs_agree_with_one():
    """A binary model written with two logits has the same worst-case margins."""
    binary, x, y = small_problem(1, 5)
    pair = models.linear((1, 2, 2), 2).double()
    with torch.no_grad():
        pair[1].weight.copy_(torch.cat([-binary[1].weight, binary[1].weight]) / 2)
        pair[1].bias.copy_(torch.cat([-binary[1].bias, binary[1].bias]) / 2)
    for norm, box in CASES:
        one = linear.binary_margins(binary, x, 2.0 * y - 1, 0.3, norm=norm, box=box)
        two = linear.pairwise_margins(pair, x, y, 0.3, norm=norm, box=box)
        assert torch.allclose(two.gather(1, 1 - y[:, None])[:, 0], one, atol=1e-12)


def test_a_tie_counts_as_an_error():
    """Equal logits are no certificate, whatever argmax would answer."""
    model = models.linear((1, 1, 2), 2).double()
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].bias.zero_()
    x = torch.full((2, 1, 1, 2), 0.5).double()
    assert linear.robustly_wrong(model, x, torch.tensor([0, 1]), 0.1).all()


@pytest.mark.parametrize(("norm", "box"), CASES)
def test_margins_are_differentiable_in_the_parameters(norm, box):
    """Gradients in weight and bias equal finite differences, for training."""
    model, x, y = small_problem(3, 2)
    binary, xb, yb = small_problem(1, 2)
    sums = {
        model: lambda: linear.cross_entropy_bound(
            model, x, y, 0.2, norm=norm, box=box
        ).sum(),
        binary: lambda: F.softplus(
            -linear.binary_margins(binary, xb, 2.0 * yb - 1, 0.2, norm=norm, box=box)
        ).sum(),
    }
    for network, value in sums.items():
        gradients = torch.autograd.grad(value(), list(network.parameters()))
        for parameter, gradient in zip(network.parameters(), gradients, strict=True):
            flat = parameter.detach().view(-1)
            for i in range(0, len(flat), 3):
                h, kept = 1e-6, flat[i].item()
                flat[i] = kept + h
                up = value().item()
                flat[i] = kept - h
                down = value().item()
                flat[i] = kept
                slope = gradient.reshape(-1)[i].item()
                assert slope == pytest.approx((up - down) / (2 * h), abs=1e-5)


def test_parameters_finds_the_one_linear_layer():
    """A bare layer or one among Flatten layers: its own weight and bias."""
    layer = nn.Linear(4, 3)
    for model in (layer, nn.Sequential(nn.Flatten(), layer)):
        weight, bias = linear.parameters(model)
        assert weight is layer.weight
        assert bias is layer.bias


def test_a_missing_bias_is_zero_and_what_changes_nothing_is_passed_over():
    """Two Flattens, nested, Identity, Dropout in eval mode: the same margins."""
    layer = nn.Linear(4, 3, bias=False)
    x, y = torch.rand(5, 1, 2, 2), torch.arange(5) % 3
    plain = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    with torch.no_grad():
        plain[1].weight.copy_(layer.weight)
        plain[1].bias.zero_()
    want = linear.pairwise_margins(plain, x, y, 0.1)
    for model in (
        nn.Sequential(nn.Flatten(), layer),
        nn.Sequential(nn.Flatten(), nn.Flatten(), layer),
        nn.Sequential(nn.Sequential(nn.Flatten()), nn.Identity(), layer),
        nn.Sequential(nn.Flatten(), nn.Dropout(0.5), layer).eval(),
    ):
        assert torch.equal(linear.pairwise_margins(model, x, y, 0.1), want)
        assert (linear.parameters(model)[1] == 0).all()
    dropping = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), layer).train()
    with pytest.raises(ValueError, match="train mode"):
        linear.pairwise_margins(dropping, x, y, 0.1)
    assert linear.pairwise_margins(layer, x.flatten(1), y, 0.1).shape == (5, 3)


@pytest.mark.parametrize("function", ["pairwise_margins", "robustly_wrong"])
def test_one_output_is_no_class(function):
    """Of two classes or more; a binary model has its own function, or two logits."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 1))
    x, y = torch.rand(3, 1, 2, 2), torch.zeros(3).long()
    with pytest.raises(ValueError, match="TwoLogits"):
        getattr(linear, function)(model, x, y, 0.1)
    assert linear.binary_margins(model, x, torch.ones(3), 0.1).shape == (3,)
    with pytest.raises(ValueError, match="do not fit 4 weights"):
        linear.binary_margins(model, torch.rand(3, 1, 3, 3), torch.ones(3), 0.1)
    with pytest.raises(TypeError, match=r"torch\.float64"):
        linear.binary_margins(model, x.double(), torch.ones(3), 0.1)


@pytest.mark.parametrize("scale", [1e-12, 1e-7, 1.0, 1e7, 1e12])
def test_the_shortest_way_does_not_depend_on_the_scale_of_the_logits(scale):
    """The boundary is the same set of images; so is the way without a bias."""
    model = models.seeded(models.linear, (1, 2, 3), 3, seed=0).double()
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(6, 1, 2, 3, generator=generator).double()
    target = (model(x).argmax(1) + 1) % 3
    want = shortest_linear(model, x, target)
    assert want.isfinite().any()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    found = shortest_linear(model, x, target)
    assert torch.allclose(found, want, atol=1e-6)


def test_a_target_that_no_image_reaches_is_infinitely_far():
    """Equal weights and a smaller bias, or a lead that the box does not hold."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2)).double().eval()
    x = torch.tensor([[[[0.5, 0.5]]]]).double()
    for rows, bias, want in (
        ([[1.0, 1], [1, 1]], [1e-9, 0.0], math.inf),
        ([[1.0, 0], [0, 0]], [1.0, 0.0], math.inf),
        ([[1.0, 0], [0, 0]], [0.0, 0.0], 0.5),
        ([[1.0, 1], [1, 1]], [0.0, 0.0], 0.0),
    ):
        with torch.no_grad():
            model[1].weight.copy_(torch.tensor(rows))
            model[1].bias.copy_(torch.tensor(bias))
        found = shortest_linear(model, x, torch.tensor([1]))
        assert found.item() == pytest.approx(want, abs=1e-6)


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3)),
        nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.Linear(4, 3)),
        nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU()),
        nn.Sequential(models.Normalize([0.5], [0.5]), nn.Flatten(), nn.Linear(4, 3)),
        nn.Flatten(),
    ],
    ids=["mlp", "two", "relu", "normalize", "no layer"],
)
def test_models_that_are_not_linear_are_refused(model):
    """Each function refuses them: a closed form for another model is wrong."""
    x, y = torch.rand(2, 1, 2, 2), torch.tensor([0, 1])
    with pytest.raises(TypeError, match="linear"):
        linear.parameters(model)
    for name in ("pairwise_margins", "robustly_wrong", "cross_entropy_bound"):
        with pytest.raises(TypeError, match="linear"):
            getattr(linear, name)(model, x, y, 0.1)
    with pytest.raises(TypeError, match="linear"):
        linear.binary_margins(model, x, 2.0 * y - 1, 0.1)


MULTI = ("pairwise_margins", "robustly_wrong", "cross_entropy_bound")


@pytest.mark.parametrize("name", MULTI)
@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"y": torch.tensor([0, 3])}, ValueError),
        ({"y": torch.tensor([0, -1])}, ValueError),
        ({"y": torch.tensor([0])}, ValueError),
        ({"y": torch.tensor([0.0, 1.0])}, TypeError),
        ({"eps": 8}, ValueError),
        ({"eps": math.nan}, ValueError),
        ({"norm": "l0"}, ValueError),
        ({"x": torch.full((2, 1, 2, 2), 255.0)}, ValueError),
        ({"x": torch.full((2, 1, 2, 2), math.nan)}, ValueError),
        ({"x": torch.ones((2, 1, 2, 2), dtype=torch.uint8)}, TypeError),
    ],
    ids="y=3,y=-1,one y,float y,eps=8,eps=NaN,norm,0-255,NaN,uint8".split(","),
)
def test_multiclass_functions_refuse(name, change, kind):
    """Labels, radius, norm and images: what is documented is raised."""
    good = {
        "x": torch.full((2, 1, 2, 2), 0.5),
        "y": torch.tensor([0, 1]),
        "eps": 0.1,
        "norm": "linf",
    }
    arguments = good | change
    with pytest.raises(kind):
        getattr(linear, name)(
            models.linear((1, 2, 2), 3),
            arguments["x"],
            arguments["y"],
            arguments["eps"],
            norm=arguments["norm"],
        )


@pytest.mark.parametrize(
    ("y", "outputs", "kind"),
    [
        ([0.0, 1.0], 1, ValueError),
        ([1.0, math.nan], 1, ValueError),
        ([1.0], 1, ValueError),
        ([[1.0], [-1.0]], 1, ValueError),
        ([1.0, -1.0], 2, TypeError),
    ],
)
def test_binary_margins_refuses(y, outputs, kind):
    """Labels that are not one of -1, +1 per image; a model with two outputs."""
    model, x = models.linear((1, 2, 2), outputs), torch.full((2, 1, 2, 2), 0.5)
    with pytest.raises(kind):
        linear.binary_margins(model, x, torch.tensor(y), 0.1)


@pytest.mark.parametrize(
    ("x", "kind"),
    [
        (torch.ones((2, 4), dtype=torch.uint8), TypeError),
        (torch.full((2, 4), 255.0), ValueError),
        (torch.full((2, 4), math.nan), ValueError),
    ],
    ids=["uint8", "0-255", "NaN"],
)
def test_binary_margins_refuses_images(x, kind):
    """The same images as elsewhere are refused."""
    model = models.linear((1, 2, 2), 1)
    with pytest.raises(kind):
        linear.binary_margins(model, x, torch.tensor([1.0, -1.0]), 0.1)


def test_an_empty_batch_is_refused():
    """As the attacks refuse it, with ValueError, not with torch's own error."""
    x = torch.zeros(0, 4)
    with pytest.raises(ValueError, match="images"):
        linear.binary_margins(models.linear((1, 2, 2), 1), x, torch.zeros(0), 0.1)
    with pytest.raises(ValueError, match="images"):
        linear.pairwise_margins(
            models.linear((1, 2, 2), 3), x, torch.zeros(0).long(), 0.1
        )
