"""Bounds against sampling, brute force, closed forms and a second derivation.

Soundness is asked in float64: a bound may exceed a sampled value by rounding only,
``SLACK``, about 1e6 units in the last place of logits of order one.
"""

import functools
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from strange import Negated
from torch import Tensor, nn

from advlib import bounds, linear, models
from advlib.bounds import plan

SLACK = 1e-9
Residual = models.Residual
METHODS = ("interval", "crown", "dual")


def modest(n: int) -> settings:
    """Hypothesis settings: the same ``n`` examples on every run."""
    return settings(deadline=None, max_examples=n, derandomize=True, database=None)


# ------------------------------------------------------------------ the networks


def seq(*layers: nn.Module) -> nn.Sequential:
    """Short for a network written in one line."""
    return nn.Sequential(*layers)


def conv(i: int, o: int, k: int = 3, s: int = 1, p: int = 0, **rest) -> nn.Conv2d:
    """Short for a convolution with kernel ``k``, stride ``s``, padding ``p``."""
    return nn.Conv2d(i, o, k, s, p, **rest)


def head(size: int, num_classes: int = 4, hidden: int = 5) -> list[nn.Module]:
    """The dense end of a convolutional network."""
    return [
        nn.Flatten(),
        nn.Linear(size, hidden),
        nn.ReLU(),
        nn.Linear(hidden, num_classes),
    ]


def uneven() -> nn.Sequential:
    """Kernel, stride and padding differ between the directions; odd sizes."""
    first = nn.Conv2d(2, 3, (3, 2), stride=(2, 1), padding=(1, 0))
    second = nn.Conv2d(3, 2, (2, 3), stride=(1, 2), padding=(0, 1), bias=False)
    return seq(first, nn.ReLU(), second, nn.ReLU(), *head(12))


def bottleneck() -> nn.Sequential:
    """Residual sums with ReLUs in both branches, one of them inside the other."""
    inner = Residual(seq(conv(2, 2, 3, 1, 1), nn.ReLU(), conv(2, 2, 1)))
    body = seq(conv(2, 2, 1), nn.ReLU(), inner, nn.ReLU(), conv(2, 3, 3, 2, 1))
    shortcut = seq(conv(2, 3, 1, 2), nn.ReLU(), conv(3, 3, 1))
    return seq(conv(1, 2, 2), nn.ReLU(), Residual(body, shortcut), nn.ReLU(), *head(12))


NETS = {
    "dense": ((1, 2, 3), lambda: models.mlp((1, 2, 3), [7, 6], 4)),
    "binary": ((1, 2, 2), lambda: models.mlp((1, 2, 2), [6, 5], 2)),
    "deep": ((1, 2, 2), lambda: models.mlp((1, 2, 2), [5] * 8, 3)),
    "no bias": (
        (1, 2, 2),
        lambda: seq(
            nn.Flatten(), nn.Linear(4, 6, bias=False), nn.ReLU(), nn.Linear(6, 3)
        ),
    ),
    "two affine": (
        (1, 2, 2),
        lambda: seq(
            nn.Flatten(), nn.Linear(4, 3), nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 3)
        ),
    ),
    "conv": (
        (1, 6, 6),
        lambda: seq(
            conv(1, 2, 3, 1, 1), nn.ReLU(), conv(2, 3, 3, 2, 1), nn.ReLU(), *head(27)
        ),
    ),
    "edge": (  # stride 2 leaves a column and a row that no filter reaches
        (1, 8, 7),
        lambda: seq(
            conv(1, 2, 3, 2), nn.ReLU(), conv(2, 3, 2, 2, 1), nn.ReLU(), *head(12)
        ),
    ),
    "three conv": (
        (1, 9, 9),
        lambda: seq(
            conv(1, 2, 3, 2, 1),
            nn.ReLU(),
            conv(2, 2, 3, 1, 1),
            nn.ReLU(),
            conv(2, 3, 3, 2, 2),
            nn.ReLU(),
            *head(48),
        ),
    ),
    "uneven": ((2, 5, 6), uneven),
    "groups": (
        (2, 5, 5),
        lambda: seq(
            conv(2, 4, 3, 1, 1, groups=2),
            nn.ReLU(),
            conv(4, 4, 3, 2, 1, groups=4),
            nn.ReLU(),
            conv(4, 3, 2),
            nn.ReLU(),
            *head(12),
        ),
    ),
    "pools": (
        (1, 6, 6),
        lambda: seq(
            conv(1, 3, 3, 1, 1),
            nn.AvgPool2d(2, padding=1),
            nn.ReLU(),
            nn.AvgPool2d((2, 3), stride=1),
            conv(3, 3, 2),
            nn.ReLU(),
            *head(6),
        ),
    ),
    "norms": (
        (2, 4, 4),
        lambda: seq(
            models.Normalize([0.3, 0.6], [0.5, 0.25]),
            conv(2, 3, 3, 1, 1, bias=False),
            nn.BatchNorm2d(3),
            nn.ReLU(),
            nn.Identity(),
            conv(3, 2, 3, 2, 1),
            nn.ReLU(),
            nn.BatchNorm2d(2),
            nn.Flatten(),
            nn.Linear(8, 5),
            nn.BatchNorm1d(5),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(5, 4),
        ),
    ),
    "norm first": (
        (2, 4, 4),
        lambda: seq(
            nn.BatchNorm2d(2, affine=False), conv(2, 3, 2, 2), nn.ReLU(), *head(12)
        ),
    ),
    "residual": (
        (2, 4, 4),
        lambda: seq(
            Residual(seq(conv(2, 2, 3, 1, 1), nn.ReLU(), conv(2, 2, 1))),
            nn.ReLU(),
            Residual(seq(conv(2, 3, 2, 2)), seq(nn.AvgPool2d(2), conv(2, 3, 1))),
            nn.ReLU(),
            *head(12),
        ),
    ),
    "bottleneck": ((1, 5, 5), bottleneck),
    "dense residual": (
        (1, 2, 2),
        lambda: seq(
            nn.Flatten(),
            nn.Linear(4, 6),
            nn.ReLU(),
            Residual(seq(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 6))),
            nn.ReLU(),
            nn.Linear(6, 3),
        ),
    ),
    "conv logits": (
        (1, 3, 3),
        lambda: seq(conv(1, 3, 2), nn.ReLU(), conv(3, 4, 2), nn.Flatten()),
    ),
}


def network(name: str, seed: int = 0, scale: float = 2.0) -> nn.Sequential:
    """A network of ``NETS`` in float64, weights times ``scale``, statistics random."""
    model = models.seeded(NETS[name][1], seed=seed).double()
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            module.weight.data *= scale
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            for value, low, high in [
                (module.running_mean, -0.3, 0.3),
                (module.running_var, 0.3, 2.0),
                (module.weight, 0.5, 2.0),
                (module.bias, -0.3, 0.3),
            ]:
                if value is not None:
                    value.data.uniform_(low, high, generator=generator)
    return model


@functools.cache
def problem(name: str, seed: int = 0, n: int = 4):
    """A network, images with pixels at 0 and 1, labels (mostly right) and a radius."""
    model = network(name, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    x = torch.rand(n, *NETS[name][0], generator=generator).double()
    x = (1.3 * x - 0.15).clamp(0, 1)
    with torch.no_grad():
        y = model(x).argmax(1)
    y[0] = (y[0] + 1) % model(x).shape[1]
    return model, x, y, (0.03, 0.1, 0.25)[seed % 3]


def sample(lower: Tensor, upper: Tensor, n: int = 1200) -> Tensor:
    """Points of the box (n, N, ...): a third corners, a third on faces, the corners
    of which every image has its own, and the two ends first."""
    generator = torch.Generator().manual_seed(n)
    share = torch.rand(n, *lower.shape, generator=generator).to(lower)
    share[: n // 3] = share[: n // 3].round()
    share[n // 3 : 2 * n // 3] = (2 * share[n // 3 : 2 * n // 3] - 0.5).clamp(0, 1)
    share[0], share[1] = 0, 1
    return lower + (upper - lower) * share


def watch(model: nn.Module, points: Tensor) -> tuple[list[Tensor], Tensor]:
    """What enters each ReLU (n, N, *layer), by hooks, and the logits (n, N, K)."""
    seen: list[Tensor] = []

    def note(_: nn.Module, inputs: tuple[Tensor]) -> None:
        seen.append(inputs[0].detach().clone())

    relus = [m for m in model.modules() if isinstance(m, nn.ReLU)]
    hooks = [m.register_forward_pre_hook(note) for m in relus]
    with torch.no_grad():
        logits = model(points.flatten(0, 1))
    for hook in hooks:
        hook.remove()
    return [t.unflatten(0, points.shape[:2]) for t in [*seen, logits]][:-1], (
        logits.unflatten(0, points.shape[:2])
    )


def least_margins(logits: Tensor, y: Tensor) -> Tensor:
    """The smallest z_y - z_j of the sampled logits (n, N, K): (N, K)."""
    own = logits.gather(2, y.expand(len(logits), -1)[..., None])
    return (own - logits).amin(0)


ALPHA = functools.partial(bounds.alpha_crown_margins, num_steps=6)
MARGINS = {
    "interval": bounds.interval_margins,
    "crown": bounds.crown_margins,
    "crown alone": functools.partial(bounds.crown_margins, intersect=False),
    "dual": bounds.wong_kolter_margins,
    "last": functools.partial(ALPHA, slopes="last"),
    "all": functools.partial(ALPHA, slopes="all"),
}


def margins(name: str, *arguments, **rest) -> Tensor:
    """The bound called ``name``, detached."""
    return MARGINS[name](*arguments, **rest).detach()


# ------------------------------------------------------- the input and the question


@given(
    st.lists(st.integers(0, 20).map(lambda i: i / 20), min_size=1, max_size=5),
    st.sampled_from([0.0, 0.03, 0.5, 1.0]),
    st.booleans(),
)
@modest(60)
def test_input_box_is_the_ball_cut_to_the_pixels(values, eps, box):
    """Pixel by pixel, with Python's min and max."""
    x = torch.tensor([values], dtype=torch.float64)
    lower, upper = bounds.input_box(x, eps, box=box)
    for v, low, up in zip(values, lower[0].tolist(), upper[0].tolist(), strict=True):
        assert low == (max(v - eps, 0) if box else v - eps)
        assert up == (min(v + eps, 1) if box else v + eps)


@pytest.mark.parametrize("k", [2, 3, 10])
def test_margin_spec_asks_for_differences(k):
    """Row j times the logits is z_y - z_j, and row y is zero."""
    logits = torch.randn(k, k, generator=torch.Generator().manual_seed(k))
    y = torch.arange(k)
    found = torch.einsum("njk,nk->nj", bounds.margin_spec(y, k), logits)
    expected = logits.gather(1, y[:, None]) - logits
    assert torch.allclose(found, expected, atol=1e-6)
    assert (bounds.margin_spec(y, k)[y, y] == 0).all()


@pytest.mark.parametrize("y", [[0, 3], [-1, 0]])
def test_margin_spec_refuses_labels_that_are_no_class(y):
    """Above the last class, or negative, which would count from the end."""
    with pytest.raises(ValueError, match="class"):
        bounds.margin_spec(torch.tensor(y), 3)


def test_certified_needs_every_margin_positive():
    """A tie, a negative margin or NaN certify nothing; column y is not looked at."""
    nan = math.nan
    rows = [[0, 1, 2], [0, 1, 0], [0, -1, 2], [0, nan, 2], [-5, 1, 2], [nan, 1, 2]]
    margin = torch.tensor(rows)
    expected = [True, False, False, False, True, True]
    assert bounds.certified(margin, torch.zeros(6).long()).tolist() == expected
    assert not bounds.certified(margin, torch.ones(6).long()).any()
    assert bounds.certified(torch.tensor([[0.1, 0.0]]), torch.tensor([1])).all()


# ------------------------------------------------------------- the lines at a ReLU


@given(
    st.floats(-3, 3), st.floats(0, 3), st.sampled_from(["crown", "dual"]),
)  # fmt: skip
@modest(200)
def test_the_lines_hold_the_relu_between_them(low, width, rule):
    """On a grid of the interval; the line above is attained at both ends."""
    low = torch.tensor(low).double()
    up = low + width
    line = bounds.relaxation(low, up, rule=rule)
    z = torch.linspace(0, 1, 501).double() * (up - low) + low
    relu = z.clamp(min=0)
    assert (line.lower * z <= relu + 1e-12).all()
    assert (relu <= line.upper * z + line.offset + 1e-12).all()
    ends = torch.stack([low, up])
    tight = line.upper * ends + line.offset
    assert torch.allclose(tight, ends.clamp(min=0), atol=1e-12)
    assert 0 <= line.lower <= 1
    if not line.free:
        assert (line.lower * z - relu).abs().max() <= 1e-12
    for slope in (0.0, 0.3, 1.0):  # whatever slope is chosen where it is free
        if line.free:
            assert (slope * z <= relu + 1e-12).all()


def test_the_slope_below_cuts_off_the_smaller_area():
    """CROWN: slope 1 where u > -l, else 0; the dual takes the slope of the chord."""
    low = torch.tensor([-1.0, -1.0, -1.0, 0.0, -2.0, 0.0, 1.0])
    up = torch.tensor([2.0, 0.5, 1.0, 3.0, 0.0, 0.0, 2.0])
    crown = bounds.relaxation(low, up)
    assert crown.lower.tolist() == [1, 0, 0, 1, 0, 1, 1]
    assert crown.free.tolist() == [1, 1, 1, 0, 0, 0, 0]
    dual = bounds.relaxation(low, up, rule="dual")
    assert torch.equal(dual.lower, dual.upper)
    assert torch.allclose(dual.upper[:3], torch.tensor([2 / 3, 1 / 3, 1 / 2]))


# ------------------------------------------------------------------------ soundness


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", NETS)
def test_bounds_before_each_relu_hold_1200_sampled_points(name, seed):
    """What enters each ReLU on corners, faces and inside stays within its bounds."""
    model, x, _, eps = problem(name, seed)
    box = bounds.input_box(x, eps)
    seen, _ = watch(model, sample(*box))
    pre = {m: bounds.relu_bounds(model, *box, method=m) for m in METHODS}
    pre["alone"] = bounds.relu_bounds(model, *box, intersect=False)
    for method, pairs in pre.items():
        assert len(pairs) == len(seen)
        for z, (low, up) in zip(seen, pairs, strict=True):
            assert low.shape == up.shape == z.shape[1:]
            assert (low <= z.amin(0) + SLACK).all(), method
            assert (up >= z.amax(0) - SLACK).all(), method
    for (low, up), (least, most) in zip(pre["crown"], pre["interval"], strict=True):
        assert (low >= least - SLACK).all()  # cut with intervals: never looser
        assert (up <= most + SLACK).all()


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", NETS)
def test_margins_are_below_those_of_1200_sampled_points(name, seed):
    """Every method, with and without the box of pixels; column y is exactly 0."""
    model, x, y, eps = problem(name, seed)
    for box in (True, False):
        _, logits = watch(model, sample(*bounds.input_box(x, eps, box=box)))
        least = least_margins(logits, y)
        for method in MARGINS:
            found = margins(method, model, x, y, eps, box=box)
            assert found.shape == least.shape
            assert (found <= least + SLACK).all(), method
            assert (found.gather(1, y[:, None]) == 0).all()


@pytest.mark.parametrize("name", NETS)
def test_interval_bounds_hold_the_output_of_every_layer(name):
    """One box per layer of the canonical network, each around the sampled values."""
    model, x, _, eps = problem(name, 1)
    box = bounds.input_box(x, eps)
    net = models.canonical(model, x.shape[1:])
    boxes = bounds.interval_bounds(model, *box)
    assert len(boxes) == len(net)
    value = sample(*box).flatten(0, 1)
    with torch.no_grad():
        for layer, (low, up) in zip(net, boxes, strict=True):
            value = layer(value)
            some = value.unflatten(0, (-1, len(x)))
            assert (low <= some.amin(0) + SLACK).all()
            assert (up >= some.amax(0) - SLACK).all()


@given(
    seed=st.integers(0, 10**6),
    hidden=st.lists(st.integers(1, 7), min_size=0, max_size=3),
    k=st.integers(2, 5),
    eps=st.sampled_from([0.0, 0.02, 0.1, 0.3, 1.0]),
    scale=st.sampled_from([0.5, 2.0, 5.0]),
)
@modest(25)
def test_random_dense_networks_are_bounded(seed, hidden, k, eps, scale):
    """Any widths, radii up to the whole box, small and large weights."""
    build = functools.partial(models.mlp, (1, 2, 2), hidden, k)
    model = models.seeded(build, seed=seed).double()
    for p in model.parameters():
        p.data *= scale
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(2, 1, 2, 2, generator=generator).double()
    y = torch.randint(k, (2,), generator=generator)
    _, logits = watch(model, sample(*bounds.input_box(x, eps)))
    least = least_margins(logits, y)
    size = SLACK * (1 + logits.abs().max())
    for method in MARGINS:
        assert (margins(method, model, x, y, eps) <= least + size).all(), method


# ------------------------------------------------------------- exact where it must be


AFFINE = {
    "linear": ((1, 3, 3), lambda: models.linear((1, 3, 3), 3)),
    "binary": ((1, 2, 2), lambda: models.linear((1, 2, 2), 2)),
    "conv": (
        (2, 5, 5),
        lambda: seq(conv(2, 3, 3, 2, 1), nn.Flatten(), nn.Linear(27, 4)),
    ),
    "pool": (
        (1, 5, 5),
        lambda: seq(nn.AvgPool2d(2, padding=1), nn.Flatten(), nn.Linear(9, 3)),
    ),
    "deep": (
        (1, 4, 4),
        lambda: seq(conv(1, 2, 2, 2), conv(2, 3, 2), nn.Flatten(), nn.Linear(3, 3)),
    ),
}


@pytest.mark.parametrize("box", [True, False])
@pytest.mark.parametrize("name", AFFINE)
def test_affine_networks_have_the_closed_form(name, box):
    """CROWN in all its forms equals the exact margins; intervals with one layer too."""
    shape, build = AFFINE[name]
    model = models.seeded(build, seed=1).double()
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(5, *shape, generator=generator).double()
    weight, bias = models.affine_matrix(models.canonical(model, shape), shape)
    flat = nn.Linear(*reversed(weight.shape)).double().eval()
    flat.weight.data, flat.bias.data = weight, bias
    y = torch.arange(5) % len(bias)
    exact = linear.pairwise_margins(flat, x.flatten(1), y, 0.1, box=box).detach()
    for method in MARGINS:
        if method == "interval" and name not in ("linear", "binary"):
            continue
        found = margins(method, model, x, y, 0.1, box=box)
        assert torch.allclose(found, exact, atol=1e-12), method


@pytest.mark.parametrize("name", [n for n in NETS if n != "binary"])
def test_bounds_are_exact_while_no_relu_changes_its_phase(name):
    """In a tiny ball the network is linear: the gradient gives the exact margin."""
    model, x, y, _ = problem(name, 2)
    pre = bounds.relu_bounds(model, x, x)
    nearest = min(low.abs().min() for low, _ in pre)  # eps = 0: z itself
    assert nearest > 1e-7
    eps = 1e-8
    assert all(
        ((low > 0) | (up < 0)).all()
        for low, up in bounds.relu_bounds(model, *bounds.input_box(x, eps))
    )
    lower, upper = bounds.input_box(x, eps)
    k = model(x).shape[1]
    for j in range(k):
        at = x.clone().requires_grad_()
        logits = model(at)
        margin = logits.gather(1, y[:, None])[:, 0] - logits[:, j]
        (grad,) = torch.autograd.grad(margin.sum(), at)
        moves = torch.where(grad > 0, lower - x, upper - x)
        expected = margin.detach() + (grad * moves).flatten(1).sum(1)
        for method in set(MARGINS) - {"interval"}:
            found = margins(method, model, x, y, eps)[:, j]
            assert torch.allclose(found, expected, atol=1e-12), method


def arrangement(model: nn.Sequential, lower: Tensor, upper: Tensor) -> Tensor:
    """All vertices of the pieces of a one-hidden-layer network on a rectangle."""
    rows = torch.cat([model[1].weight, torch.eye(2), torch.eye(2)]).detach().double()
    right = torch.cat([-model[1].bias.detach(), lower[0], upper[0]])
    ends = zip(lower[0].tolist(), upper[0].tolist(), strict=True)
    points = [torch.tensor(p, dtype=torch.float64) for p in itertools.product(*ends)]
    for i, j in itertools.combinations(range(len(rows)), 2):
        pair = rows[[i, j]]
        if torch.linalg.det(pair).abs() > 1e-9:
            points.append(torch.linalg.solve(pair, right[[i, j]]))
    points = torch.stack(points)
    inside = ((points >= lower - 1e-12) & (points <= upper + 1e-12)).all(1)
    return points[inside]


@given(seed=st.integers(0, 10**6), eps=st.sampled_from([0.05, 0.2, 0.5]))
@modest(40)
def test_two_pixels_by_brute_force(seed, eps):
    """Two inputs, one hidden layer: the minimum lies at a vertex; a grid agrees."""
    build = functools.partial(models.mlp, (1, 1, 2), [5], 3)
    model = models.seeded(build, seed=seed).double()
    x = torch.rand(1, 1, 1, 2, generator=torch.Generator().manual_seed(seed)).double()
    lower, upper = (c.flatten(1) for c in bounds.input_box(x, eps))
    share = torch.linspace(0, 1, 80).double()
    axes = (share * (upper - lower)[0][:, None] + lower[0][:, None]).unbind()
    grid = torch.cartesian_prod(*axes)
    y = torch.tensor([seed % 3])
    least = []
    for points in (arrangement(model, lower, upper), grid):
        with torch.no_grad():
            logits = model(points.view(-1, 1, 1, 2))[:, None]
        least.append(least_margins(logits, y))
    assert (least[0] <= least[1] + 1e-9).all()  # the vertices hold the minimum
    for method in MARGINS:
        assert (margins(method, model, x, y, eps) <= least[0] + SLACK).all(), method


# -------------------------------------------------------------- a second derivation


def textbook(layers, rows, low, up, pre, choose):
    """CROWN in matrices: two matrices of functions, below and above, in plain loops.

    ``rows`` (S, K) of the logits; ``choose(l, u)`` the lower slope of one unit. Only
    the lower bound is kept; images one at a time.
    """
    weight, constant = rows.clone(), torch.zeros(len(rows)).double()
    for k in range(len(layers) - 1, -1, -1):
        w, b = layers[k]
        constant = constant + weight @ b
        weight = weight @ w
        if k == 0:
            break
        for i in range(weight.shape[1]):
            l, u = (float(end[i]) for end in pre[k - 1])  # noqa: E741
            for s in range(len(weight)):
                a = float(weight[s, i])
                if u <= 0:
                    weight[s, i] = 0
                elif l < 0 and a < 0:
                    weight[s, i] = a * u / (u - l)
                    constant[s] += -a * u * l / (u - l)
                elif l < 0:
                    weight[s, i] = a * choose(l, u)
    best = torch.where(weight > 0, low, up)
    return (weight * best).sum(1) + constant


def adaptive(low: float, up: float) -> float:
    """CROWN's slope."""
    return 1.0 if up > -low else 0.0


def chord(low: float, up: float) -> float:
    """Wong and Kolter's slope."""
    return up / (up - low)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("given_pre", [True, False])
def test_crown_and_dual_are_the_textbook_in_loops(seed, given_pre):
    """Layer by layer with dense matrices, no code shared; own or given bounds."""
    model, x, y, eps = problem("dense", seed)
    layers = [
        (m.weight.detach(), m.bias.detach()) for m in model if isinstance(m, nn.Linear)
    ]
    low, up = (c.flatten(1) for c in bounds.input_box(x, eps))
    spec = bounds.margin_spec(y, 4).double()
    with torch.no_grad():
        wide = bounds.relu_bounds(model, *bounds.input_box(x, eps), method="interval")
    for choose, method in ((adaptive, "crown alone"), (chord, "dual")):
        found = margins(method, model, x, y, eps, pre=wide if given_pre else None)
        for n in range(len(x)):
            pre = [(a[n], b[n]) for a, b in wide] if given_pre else []
            for k in range(len(pre), len(layers) - 1):
                every = torch.eye(len(layers[k][1])).double()
                ends = (low[n], up[n], pre, choose)
                least = textbook(layers[: k + 1], every, *ends)
                most = -textbook(layers[: k + 1], -every, *ends)
                pre.append((least, most))
            expected = textbook(layers, spec[n], low[n], up[n], pre, choose)
            assert torch.allclose(found[n], expected, atol=1e-10), method


@pytest.mark.parametrize("seed", range(4))
def test_interval_margins_are_the_textbook_in_loops(seed):
    """Positive weights take the same end, negative ones the other; the last folded."""
    model, x, y, eps = problem("dense", seed)
    layers = [m for m in model if isinstance(m, nn.Linear)]
    low, up = (c.flatten(1) for c in bounds.input_box(x, eps))
    for layer in layers[:-1]:
        plus, minus = layer.weight.clamp(min=0), layer.weight.clamp(max=0)
        low, up = (
            (low @ plus.T + up @ minus.T + layer.bias).clamp(min=0),
            (up @ plus.T + low @ minus.T + layer.bias).clamp(min=0),
        )
    last = layers[-1]
    weight = last.weight[y][:, None] - last.weight[None]  # (N, K, hidden)
    ends = torch.where(weight > 0, low[:, None], up[:, None])
    expected = (weight * ends).sum(2) + last.bias[y][:, None] - last.bias
    found = bounds.interval_margins(model, x, y, eps)
    assert torch.allclose(found, expected, atol=1e-12)


def test_one_unit_by_hand():
    """z = relu(2x - 1) on [0.25, 0.75]: l = -0.5, u = 0.5, chord (z + 0.5) / 2.

    The margins are z and -z. z >= 0 by slope 0 (u is not above -l); z <= 0.5 by the
    chord at x = 0.75. With the dual's slope 1/2 the lower bound is -0.25.
    """
    model = seq(nn.Flatten(), nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 2, bias=False))
    model = model.double().eval()
    for layer, w in ((model[1], [[2.0]]), (model[3], [[1.0], [0.0]])):
        layer.weight.data = torch.tensor(w).double()
    model[1].bias.data.fill_(-1)
    x, y = torch.full((2, 1), 0.5).double(), torch.tensor([0, 1])
    crown = margins("crown", model, x, y, 0.25)
    assert torch.allclose(crown, torch.tensor([[0, 0], [-0.5, 0]]).double())
    dual = margins("dual", model, x, y, 0.25)
    assert torch.allclose(dual, torch.tensor([[0, -0.25], [-0.5, 0]]).double())
    interval = margins("interval", model, x, y, 0.25)
    assert torch.allclose(interval, torch.tensor([[0, 0], [-0.5, 0]]).double())


# --------------------------------------------------------------- patches and matrices


def dense_twin(net: nn.Sequential, shape: tuple[int, ...]) -> nn.Sequential:
    """The same function of flat inputs, every affine layer a dense matrix."""
    layers: list[nn.Module] = []
    for layer in net:
        if isinstance(layer, Residual):
            twins = [dense_twin(b, shape) for b in (layer.body, layer.shortcut)]
            layers.append(Residual(*twins))
        elif isinstance(layer, nn.ReLU):
            layers.append(nn.ReLU())
        elif not isinstance(layer, nn.Flatten):
            weight, bias = models.affine_matrix(layer, shape)
            layers.append(nn.Linear(*reversed(weight.shape)).to(weight))
            layers[-1].weight.data, layers[-1].bias.data = weight, bias
        shape = models.output_shape(layer, shape)
    return nn.Sequential(*layers).eval()


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", [n for n in NETS if len(NETS[n][0]) == 3])
def test_convolutions_have_the_bounds_of_their_dense_matrices(name, seed):
    """Patches, strides, paddings, groups: the same bounds to 1e-9, every layer."""
    model, x, y, eps = problem(name, seed)
    twin = dense_twin(models.canonical(model, x.shape[1:]), x.shape[1:])
    assert torch.allclose(twin(x.flatten(1)), model(x), atol=1e-10)
    for method in METHODS:
        pairs = zip(
            bounds.relu_bounds(model, *bounds.input_box(x, eps), method=method),
            bounds.relu_bounds(
                twin, *bounds.input_box(x.flatten(1), eps), method=method
            ),
            strict=True,
        )
        for (low, up), (least, most) in pairs:
            assert torch.allclose(low.flatten(1), least, atol=1e-9), method
            assert torch.allclose(up.flatten(1), most, atol=1e-9), method
    for method in ("interval", "crown", "crown alone", "dual"):
        if method in ("interval", "crown") and name == "conv logits":
            continue  # only a Linear last layer is folded
        found = margins(method, model, x, y, eps)
        expected = margins(method, twin, x.flatten(1), y, eps)
        assert torch.allclose(found, expected, atol=1e-9), method


@pytest.mark.parametrize("name", ["conv", "three conv", "groups", "bottleneck"])
def test_optimised_slopes_follow_the_dense_matrices(name):
    """Six steps of ascent agree while one row of slopes stands for one unit."""
    model, x, y, eps = problem(name, 1)
    twin = dense_twin(models.canonical(model, x.shape[1:]), x.shape[1:])
    for slopes in ("last", "all"):
        found = margins(slopes, model, x, y, eps)
        expected = margins(slopes, twin, x.flatten(1), y, eps)
        assert torch.allclose(found, expected, atol=1e-9), slopes


# ------------------------------------------------------------------ optimised slopes


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", ["dense", "deep", "conv", "norms", "bottleneck"])
def test_optimised_slopes_are_never_below_crown(name, seed):
    """By construction: the best set met is returned, and the first is CROWN's."""
    model, x, y, eps = problem(name, seed)
    crown = margins("crown", model, x, y, eps)
    before = crown
    for num_steps in (0, 1, 5, 15):
        last = bounds.alpha_crown_margins(model, x, y, eps, num_steps=num_steps)
        every = bounds.alpha_crown_margins(
            model, x, y, eps, num_steps=num_steps, slopes="all"
        )
        assert not last.requires_grad
        assert not every.requires_grad
        assert (last >= before - 1e-12).all()  # more steps of the same ascent
        assert (every >= crown - 1e-12).all()
        before = last
        if num_steps == 0:
            assert torch.allclose(last, crown, atol=1e-12)


def test_optimised_slopes_gain_something():
    """On most of the networks: else the comparison above says nothing."""
    gains = {"last": 0, "all": 0}
    for name, seed in itertools.product(["dense", "deep", "conv"], range(3)):
        model, x, y, eps = problem(name, seed)
        crown = margins("crown", model, x, y, eps)
        for slopes in gains:
            gain = margins(slopes, model, x, y, eps) - crown
            gains[slopes] += bool(gain.max() > 1e-3)
    assert min(gains.values()) >= 6


@pytest.mark.parametrize("seed", range(4))
def test_given_slopes_are_the_textbook(seed):
    """Random slopes per image and per row, against the loops; 0 and 1 included."""
    model, x, _, eps = problem("dense", seed)
    box = bounds.input_box(x, eps)
    with torch.no_grad():
        pre = bounds.relu_bounds(model, *box)
    layers = [
        (m.weight.detach(), m.bias.detach()) for m in model if isinstance(m, nn.Linear)
    ]
    spec = torch.randn(len(x), 3, 4, generator=torch.Generator().manual_seed(0))
    spec = spec.double()
    for value in (0.0, 0.37, 1.0):
        per_image = [torch.full_like(low, value) for low, _ in pre]
        per_row = [s[:, None].expand(-1, 3, -1) for s in per_image]
        found = [
            bounds.linear_lower(model, spec, *box, pre, slopes=s).detach()
            for s in (per_image, per_row)
        ]
        assert torch.allclose(*found, atol=1e-12)
        for n in range(len(x)):
            mine = [(a[n], b[n]) for a, b in pre]
            ends = box[0][n].flatten(), box[1][n].flatten()
            expected = textbook(
                layers, spec[n], *ends, mine, lambda low, up, v=value: v
            )
            assert torch.allclose(found[0][n], expected, atol=1e-10)


@pytest.mark.parametrize("name", NETS)
def test_any_slopes_are_sound(name):
    """Random slopes in [0, 1], another set for every row: below 1200 points."""
    model, x, _, eps = problem(name, 1)
    box = bounds.input_box(x, eps)
    pre = bounds.relu_bounds(model, *box)
    _, logits = watch(model, sample(*box))
    k = logits.shape[2]
    generator = torch.Generator().manual_seed(0)
    spec = torch.randn(len(x), 3, k, generator=generator).double()
    least = torch.einsum("nsk,pnk->pns", spec, logits).amin(0)
    for shape in ((), (3,)):
        slopes = [
            torch.rand(len(x), *shape, *low.shape[1:], generator=generator).double()
            for low, _ in pre
        ]
        found = bounds.linear_lower(model, spec, *box, pre, slopes=slopes)
        assert (found <= least + SLACK).all()


# ------------------------------------------------------------------ branch and bound


def unstable_unit(pre, layer: int) -> tuple[int, ...]:
    """The most unstable unit of image 0 at ReLU ``layer``, as an index."""
    low, up = (end[0] for end in pre[layer])
    score = up.minimum(-low)
    assert score.max() > 0
    return tuple(int(i) for i in torch.unravel_index(score.argmax(), score.shape))


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("name", ["dense", "conv", "norms", "residual", "bottleneck"])
def test_a_branch_is_bounded_over_its_own_points(name, sign):
    """A phase fixed by ``clip``, a multiplier on it: sound where the phase holds."""
    model, x, y, eps = problem(name, 2, n=1)
    box = bounds.input_box(x, eps)
    pre = bounds.relu_bounds(model, *box)
    seen, logits = watch(model, sample(*box, n=6000))
    k = logits.shape[2]
    spec = bounds.margin_spec(y, k).double()
    useful = 0
    for layer in range(len(pre)):
        if not ((pre[layer][0] < 0) & (pre[layer][1] > 0)).any():
            continue
        unit = (0, *unstable_unit(pre, layer))
        holds = seen[layer][:, 0][(slice(None), *unit[1:])] * sign >= 0
        if not holds.any():
            continue
        least = least_margins(logits[holds], y)
        clip = [
            (torch.full_like(a, -torch.inf), torch.full_like(a, torch.inf))
            for a, _ in pre
        ]
        clip[layer][0 if sign > 0 else 1][unit] = 0
        cut = bounds.relu_bounds(model, *box, clip=clip)
        for z, (low, up) in zip(seen, cut, strict=True):
            assert (low <= z[holds].amin(0) + SLACK).all()
            assert (up >= z[holds].amax(0) - SLACK).all()
        for beta in (0.0, 0.05, 0.5, 3.0):
            for rows in ((), (k,)):  # one multiplier per image, or per row
                push = [a.new_zeros(1, *rows, *a.shape[1:]) for a, _ in pre]
                push[layer][(0, *(slice(None) for _ in rows), *unit[1:])] = -sign * beta
                found = bounds.linear_lower(model, spec, *box, cut, multipliers=push)
                assert (found <= least + SLACK).all(), (layer, beta)
                useful += 1
    assert useful >= 4


def test_multipliers_can_help():
    """For some multiplier the bound of a branch is better than without: beta works."""
    better = 0
    for seed in range(8):
        model, x, y, _ = problem("dense", seed, n=1)
        box = bounds.input_box(x, 0.25)
        pre = bounds.relu_bounds(model, *box)
        unit = (0, *unstable_unit(pre, 1))
        spec = bounds.margin_spec(y, 4).double()
        plain = bounds.linear_lower(model, spec, *box, pre)
        for beta, sign in itertools.product((0.02, 0.1, 0.4), (1, -1)):
            push = [torch.zeros_like(a) for a, _ in pre]
            push[1][unit] = -sign * beta
            found = bounds.linear_lower(model, spec, *box, pre, multipliers=push)
            better += bool((found > plain + 1e-6).any())
    assert better >= 8


def test_an_empty_branch_gives_some_box_and_no_nan():
    """Phases that contradict the bounds leave finite bounds with lower <= upper."""
    model, x, y, eps = problem("dense", 0)
    box = bounds.input_box(x, eps)
    clip = [
        (torch.full_like(a, 50.0), torch.full_like(a, 60.0))
        for a, _ in bounds.relu_bounds(model, *box)
    ]
    pre = bounds.relu_bounds(model, *box, clip=clip)
    assert all((low <= up).all() and (up - low).isfinite().all() for low, up in pre)
    spec = bounds.margin_spec(y, 4).double()
    assert bounds.linear_lower(model, spec, *box, pre).isfinite().all()


# ------------------------------------------------------------------- batches, dtypes


@pytest.mark.parametrize("name", ["dense", "deep", "conv", "three conv", "bottleneck"])
@pytest.mark.parametrize("method", MARGINS)
def test_an_image_has_its_bound_alone_and_in_any_company(name, method):
    """Alone, in the batch, in reverse: the same to rounding. Images do not mix."""
    model, x, y, eps = problem(name, 1, n=6)
    whole = margins(method, model, x, y, eps)
    back = margins(method, model, x.flip(0), y.flip(0), eps).flip(0)
    alone = [margins(method, model, x[i : i + 1], y[i : i + 1], eps) for i in range(6)]
    assert torch.allclose(back, whole, atol=1e-10)
    assert torch.allclose(torch.cat(alone), whole, atol=1e-10)


@pytest.mark.parametrize("name", ["dense", "conv", "three conv", "groups", "residual"])
@pytest.mark.parametrize("budget", [1, 2000])
def test_batches_split_for_memory_give_the_same(name, budget, monkeypatch):
    """With room for one image, one unit, or a few at a time."""
    model, x, y, eps = problem(name, 2, n=3)
    pre = bounds.relu_bounds(model, *bounds.input_box(x, eps), method="interval")
    want = {m: margins(m, model, x, y, eps) for m in MARGINS}
    want_given = margins("crown", model, x, y, eps, pre=pre)
    want_pre = bounds.relu_bounds(model, *bounds.input_box(x, eps))
    monkeypatch.setattr(plan, "BUDGET", budget)
    for m, expected in want.items():
        found = margins(m, model, x, y, eps)
        assert torch.allclose(found, expected, atol=1e-10), m
    found = margins("crown", model, x, y, eps, pre=pre)
    assert torch.allclose(found, want_given, atol=1e-10)
    found_pre = bounds.relu_bounds(model, *bounds.input_box(x, eps))
    for pair, expected in zip(found_pre, want_pre, strict=True):
        assert all(map(torch.allclose, pair, expected))


@pytest.mark.parametrize("method", ["crown", "dual"])
@pytest.mark.parametrize("name", ["dense", "conv", "bottleneck"])
def test_given_bounds_that_are_its_own_change_nothing(name, method):
    """``pre`` from ``relu_bounds`` by the same rule gives the same margins."""
    model, x, y, eps = problem(name, 0)
    pre = bounds.relu_bounds(model, *bounds.input_box(x, eps), method=method)
    own, handed = (
        margins(method, model, x, y, eps, pre=p) for p in (None, pre)
    )  # fmt: skip
    # own may also cut with intervals at the logits, which uses more than pre
    assert (own >= handed - 1e-10).all()
    wide = bounds.relu_bounds(model, *bounds.input_box(x, eps), method="interval")
    assert (margins(method, model, x, y, eps, pre=wide) != own).any()


@pytest.mark.parametrize("name", ["dense", "conv", "pools", "norms", "residual"])
def test_single_precision_follows_double(name):
    """Each bound is a sum of fewer than 1e3 products of order one in six layers.

    So float32 is off by less than 1e3 * 2^-24, about 6e-5, times the size of the
    logits' bounds; a slope that jumps at u = -l changes the bound by as little, for
    both slopes are sound there, but may be 1e-3 less tight: the quantile is asked.
    """
    model, x, y, eps = problem(name, 1)
    found = {m: margins(m, model, x, y, eps) for m in MARGINS}
    pre = bounds.relu_bounds(model, *bounds.input_box(x, eps))
    single = models.seeded(NETS[name][1], seed=1)
    single.load_state_dict(model.state_dict())
    for m, double in found.items():
        rough = margins(m, single, x.float(), y, eps)
        assert rough.dtype == torch.float32
        close = 1e-2 if m in ("last", "all") else 1e-4
        assert (rough - double).abs().max() <= close * (1 + double.abs().max()), m
    rough = bounds.relu_bounds(single, *bounds.input_box(x.float(), eps))
    for pair, expected in zip(rough, pre, strict=True):
        assert pair[0].dtype == pair[1].dtype == torch.float32
        for a, b in zip(pair, expected, strict=True):
            assert (a - b).abs().max() <= 1e-4 * (1 + b.abs().max())


@pytest.mark.parametrize("name", ["pools", "norms", "residual", "norm first"])
def test_layers_that_are_made_take_the_dtype_of_the_images(name):
    """Pools and normalisation become convolutions, in the precision of the network."""
    model, x, y, eps = problem(name, 0)
    for m in MARGINS:
        assert margins(m, model, x, y, eps).dtype == torch.float64
    for low, up in bounds.interval_bounds(model, *bounds.input_box(x, eps)):
        assert low.dtype == up.dtype == torch.float64


# ---------------------------------------------------------------------- gradients


@pytest.mark.parametrize("name", ["dense", "conv", "norms", "residual"])
@pytest.mark.parametrize("method", ["interval", "crown", "dual"])
def test_gradients_reach_every_parameter(name, method):
    """Central differences along a random direction of all parameters agree."""
    model = network(name, 1)
    _, x, y, eps = problem(name, 1)
    parameters = list(model.parameters())
    value = MARGINS[method](model, x, y, eps).sum()
    grads = torch.autograd.grad(value, parameters)
    assert all(g.isfinite().all() for g in grads)
    assert sum(bool(g.abs().max() > 0) for g in grads) >= len(grads) - 1
    generator = torch.Generator().manual_seed(3)
    way = [torch.randn(p.shape, generator=generator).to(p) for p in parameters]
    ends = []
    for step in (1e-6, -2e-6):
        for p, w in zip(parameters, way, strict=True):
            p.data += step * w
        ends.append(float(margins(method, model, x, y, eps).sum()))
    slope = sum(float((g * w).sum()) for g, w in zip(grads, way, strict=True))
    assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(slope, rel=1e-3, abs=1e-4)


def test_bounds_leave_the_model_alone():
    """No gradient is stored, no weight changes, an in-place ReLU writes nowhere."""
    model, x, y, eps = problem("dense", 0)
    model = network("dense", 0)
    for i in (2, 4):
        model[i] = nn.ReLU(inplace=True).eval()
    kept = {k: v.clone() for k, v in model.state_dict().items()}
    box = bounds.input_box(x, eps)
    copies = [corner.clone() for corner in box]
    fresh, _, _, _ = problem("dense", 0)
    for m in MARGINS:
        assert torch.equal(
            margins(m, model, x, y, eps), margins(m, fresh, x, y, eps)
        ), m
    for pair, expected in zip(
        bounds.interval_bounds(model, *box),
        bounds.interval_bounds(fresh, *box),
        strict=True,
    ):
        assert all(map(torch.equal, pair, expected))
    bounds.interval_bounds(seq(nn.ReLU(inplace=True)).eval(), box[0] - 1, box[1])
    assert all(map(torch.equal, box, copies))
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(v, kept[k]) for k, v in model.state_dict().items())


def test_a_relu_object_used_twice_is_two_relus():
    """One module at two places has bounds at both."""
    model, x, y, eps = problem("dense", 0)
    twice = seq(*model[:4], model[2], model[5]).eval()
    box = bounds.input_box(x, eps)
    assert len(bounds.relu_bounds(twice, *box)) == 2
    for m in MARGINS:
        assert torch.equal(margins(m, twice, x, y, eps), margins(m, model, x, y, eps))


# ------------------------------------------------------------------ degenerate cases


@pytest.mark.parametrize("name", NETS)
def test_radius_zero_gives_the_margins_themselves(name):
    """A box of one point: every bound equals the network to rounding."""
    model, x, y, _ = problem(name, 0)
    with torch.no_grad():
        logits = model(x)
    expected = logits.gather(1, y[:, None]) - logits
    for m in MARGINS:
        assert torch.allclose(margins(m, model, x, y, 0.0), expected, atol=1e-10), m


def test_a_box_with_some_free_pixels():
    """Corners may agree in some pixels and differ in others."""
    model, x, _, _ = problem("conv", 0)
    upper = x.clone()
    upper[..., ::2] = (x[..., ::2] + 0.2).clamp(max=1)
    seen, _ = watch(model, sample(x, upper))
    for method in METHODS:
        for z, (low, up) in zip(
            seen, bounds.relu_bounds(model, x, upper, method=method), strict=True
        ):
            assert (low <= z.amin(0) + SLACK).all()
            assert (up >= z.amax(0) - SLACK).all()


@pytest.mark.parametrize("bias", [-100.0, 0.0, 100.0])
@pytest.mark.parametrize("weights", [0.0, 1.0])
def test_dead_units_and_zero_weights(bias, weights):
    """All units off, all on, or l = u = 0 exactly: no NaN, and sound."""
    model = network("dense", 0)
    model[1].bias.data.fill_(bias)
    model[1].weight.data *= weights
    _, x, y, eps = problem("dense", 0)
    _, logits = watch(model, sample(*bounds.input_box(x, eps)))
    least = least_margins(logits, y)
    for m in MARGINS:
        found = MARGINS[m](model, x, y, eps)
        assert found.isfinite().all()
        assert (found <= least + SLACK * (1 + abs(bias))).all(), m
        if m in ("interval", "crown", "dual"):
            grads = torch.autograd.grad(found.sum(), list(model.parameters()))
            assert all(g.isfinite().all() for g in grads)


def test_a_deep_network_stays_finite():
    """Thirty layers: bounds grow but hold no NaN, and are sound."""
    build = functools.partial(models.mlp, (1, 2, 2), [4] * 30, 3)
    model = models.seeded(build, seed=0).double()
    for p in model.parameters():
        p.data *= 1.5
    x = torch.rand(2, 1, 2, 2, generator=torch.Generator().manual_seed(0)).double()
    y = torch.tensor([0, 2])
    _, logits = watch(model, sample(*bounds.input_box(x, 0.1)))
    least = least_margins(logits, y)
    for m in MARGINS:
        found = margins(m, model, x, y, 0.1)
        assert found.isfinite().all()
        assert (found <= least + SLACK * (1 + found.abs().max())).all(), m


def test_two_images_of_one_class_count():
    """K = 2: one margin per image, column y zero, the other negated in the swap."""
    model, x, _, eps = problem("binary", 1)
    zero, one = torch.zeros(len(x)).long(), torch.ones(len(x)).long()
    for m in MARGINS:
        a, b = margins(m, model, x, zero, eps), margins(m, model, x, one, eps)
        assert (a[:, 0] == 0).all()
        assert (b[:, 1] == 0).all()
        assert (a[:, 1] + b[:, 0] <= SLACK).all()  # min d + min(-d) = min d - max d


# ---------------------------------------------------------------------- refusals


GOOD = problem("dense", 0)


@pytest.mark.parametrize("method", MARGINS)
@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({1: GOOD[1] * 255}, ValueError),
        ({1: GOOD[1] - 0.5}, ValueError),
        ({1: GOOD[1] * math.nan}, ValueError),
        ({1: GOOD[1].round().byte()}, TypeError),
        ({2: GOOD[2] * 0 + 4}, ValueError),
        ({2: GOOD[2] * 0 - 1}, ValueError),
        ({2: GOOD[2].float()}, TypeError),
        ({2: GOOD[2].int()}, TypeError),
        ({2: GOOD[2][:1]}, ValueError),
        ({3: -0.1}, ValueError),
        ({3: math.nan}, ValueError),
        ({3: 8}, ValueError),
    ],
    ids=[
        "0-255", "negative", "NaN", "uint8", "label 4 of 4", "label -1", "float labels",
        "int32 labels", "one label", "eps < 0", "eps NaN", "eps 8",
    ],
)  # fmt: skip
def test_bad_input_is_refused(method, change, kind):
    """The same refusals as those of the attacks, by every bound."""
    arguments = [change.get(i, value) for i, value in enumerate(GOOD)]
    with pytest.raises(kind):
        MARGINS[method](*arguments)


@pytest.mark.parametrize("method", MARGINS)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_no_numbers_are_refused(method, value):
    """One NaN or infinity in one bias of one layer is enough."""
    model = network("dense", 0)
    model[3].bias.data[1] = value
    with pytest.raises(ValueError, match="NaN"):
        MARGINS[method](model, *GOOD[1:])


@pytest.mark.parametrize("method", MARGINS)
def test_train_mode_is_refused(method):
    """Dropout and batch-norm would make the bound one of another network."""
    model = network("dense", 0)
    model[2].train()
    with pytest.raises(ValueError, match="train"):
        MARGINS[method](model, *GOOD[1:])


class Doubled(nn.Linear):
    """A Linear that is not what its weights say."""

    def forward(self, x: Tensor) -> Tensor:
        """Return twice the affine map."""
        return 2 * super().forward(x)


@pytest.mark.parametrize(
    "layer",
    [
        nn.MaxPool2d(2),
        nn.Sigmoid(),
        nn.LeakyReLU(),
        nn.GELU(),
        nn.LayerNorm(4),
        nn.Conv2d(1, 1, 2, dilation=2),
        nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(1, 1, 3, padding="same"),
        nn.AvgPool2d(2, padding=1, count_include_pad=False),
        nn.AvgPool2d(3, ceil_mode=True),
        nn.Flatten(2),
        nn.BatchNorm2d(1, track_running_stats=False),
        Negated(nn.ReLU()),
        Doubled(4, 4),
        Residual(seq(nn.Tanh())),
    ],
    ids=lambda m: type(m).__name__,
)
def test_layers_without_a_rule_are_refused(layer):
    """By name: a guessed bound is no bound."""
    model = seq(layer, nn.Flatten(), nn.Linear(16, 3)).eval()
    x, y = torch.rand(1, 1, 4, 4), torch.tensor([0])
    for call in (
        lambda: bounds.interval_bounds(model, x, x),
        lambda: bounds.relu_bounds(model, x, x),
        *(functools.partial(MARGINS[m], model, x, y, 0.1) for m in MARGINS),
    ):
        with pytest.raises(TypeError, match="no bound rule"):
            call()


def test_images_of_another_size_and_outputs_that_are_no_logits():
    """A shape that a layer does not take, a model that returns feature maps."""
    model, x, y, eps = GOOD
    with pytest.raises(ValueError, match="take inputs"):
        bounds.crown_margins(model, x[..., :2], y, eps)
    with pytest.raises(ValueError, match="one row of logits"):
        bounds.crown_margins(seq(conv(1, 2, 2)).double().eval(), x, y, eps)


@pytest.mark.parametrize("function", [bounds.interval_bounds, bounds.relu_bounds])
def test_corners_that_are_no_box_are_refused(function):
    """Crossed, of unequal shape, NaN."""
    model, x, _, _ = GOOD
    for lower, upper in ((x + 0.1, x), (x, x[:1]), (x, x * math.nan)):
        with pytest.raises(ValueError, match="lower <= upper"):
            function(model, lower, upper)


def test_options_that_do_not_exist_are_refused():
    """Methods, rules, slopes and steps: by name."""
    model, x, y, eps = GOOD
    with pytest.raises(ValueError, match="method"):
        bounds.relu_bounds(model, x, x, method="milp")
    with pytest.raises(ValueError, match="rule"):
        bounds.relaxation(x, x, rule="best")
    with pytest.raises(ValueError, match="slopes"):
        bounds.alpha_crown_margins(model, x, y, eps, slopes="first")
    with pytest.raises(ValueError, match="num_steps"):
        bounds.alpha_crown_margins(model, x, y, eps, num_steps=-1)


def test_linear_lower_refuses_what_does_not_fit():
    """Slopes outside [0, 1] or NaN, too few bounds, a spec for other classes."""
    model, x, y, eps = GOOD
    box = bounds.input_box(x, eps)
    pre = bounds.relu_bounds(model, *box)
    spec = bounds.margin_spec(y, 4).double()
    for value in (-0.01, 1.01, math.nan):
        slopes = [torch.full_like(low, value) for low, _ in pre]
        with pytest.raises(ValueError, match=r"\[0, 1\]"):
            bounds.linear_lower(model, spec, *box, pre, slopes=slopes)
    with pytest.raises(ValueError, match="spec"):
        bounds.linear_lower(model, spec[..., :3], *box, pre)
    with pytest.raises(ValueError, match="spec"):
        bounds.linear_lower(model, spec[:1], *box, pre)
    with pytest.raises(ValueError, match="per ReLU"):
        bounds.linear_lower(model, spec, *box, pre[:1])
    with pytest.raises(ValueError, match="lower <= upper"):
        bounds.linear_lower(model, spec, *box[::-1], pre)


@pytest.mark.parametrize("method", ["crown", "dual", "last", "all"])
def test_given_bounds_that_do_not_fit_are_refused(method):
    """One pair too few or too many, or of another batch: an error, not a bound."""
    model, x, y, eps = GOOD
    pre = bounds.relu_bounds(model, *bounds.input_box(x, eps))
    for wrong in (pre[:1], [*pre, pre[0]], [(a[:2], b[:2]) for a, b in pre]):
        with pytest.raises(ValueError, match=r"pre|ReLU"):
            MARGINS[method](model, x, y, eps, pre=wrong)


def test_functional_names_of_the_field():
    """What ``certified`` says follows the margins of every method."""
    model, x, y, _ = problem("dense", 3)
    for m in MARGINS:
        found = margins(m, model, x, y, 0.0)
        right = F.one_hot(y, 4).bool()
        by_hand = (found.masked_fill(right, 1) > 0).all(1)
        assert torch.equal(bounds.certified(found, y), by_hand)
        assert torch.equal(by_hand, model(x).argmax(1) == y)
