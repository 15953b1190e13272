"""One function at many scales: integer programs must not see the difference."""

import copy
import math
from itertools import product

import cvxpy as cp
import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import nn

from advlib import bounds, exact, models
from advlib import branch_and_bound as bb
from advlib.exact import encoding, instances, integer_programs
from advlib.networks.canonical import canonical_double


def conv() -> nn.Sequential:
    """Two convolutions, one with padding."""
    return nn.Sequential(
        nn.Conv2d(1, 3, 2),
        nn.ReLU(),
        nn.Conv2d(3, 2, 2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(18, 3),
    )


def residual() -> nn.Sequential:
    """A residual sum with two ReLUs in its body, and one behind it."""
    body = nn.Sequential(nn.ReLU(), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 5))
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(9, 5),
        models.Residual(body),
        nn.ReLU(),
        nn.Linear(5, 3),
    )


BUILDS = {
    "one": lambda: models.mlp((1, 3, 3), [8], 3),
    "deep": lambda: models.mlp((1, 3, 3), [7, 6], 3),
    "conv": conv,
    "residual": residual,
}


def network(kind: str, seed: int) -> tuple[nn.Sequential, torch.Tensor, torch.Tensor]:
    """A random network in float64, one image, and the class it gives it."""
    model = models.seeded(BUILDS[kind], seed=seed).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator).double()
            parameter.mul_(1.5).add_(0.1 * noise)
        x = torch.rand((1, 1, 3, 3), generator=generator).double()
        return model, x, model(x).argmax(1)


def affine(model: nn.Module) -> list[nn.Module]:
    """The affine layers, in order."""
    return [m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]


def logits_scaled(model: nn.Module, factor: float) -> nn.Module:
    """The logits times ``factor``."""
    last = affine(other := copy.deepcopy(model))[-1]
    with torch.no_grad():
        last.weight.mul_(factor)
        last.bias.mul_(factor)
    return other


def hidden_scaled(model: nn.Module, factor: float) -> nn.Module:
    """All units of the first layer times ``factor``; the same logits."""
    first, *rest = affine(other := copy.deepcopy(model))
    with torch.no_grad():
        first.weight.mul_(factor)
        for layer in (first, *rest[:-1]):
            layer.bias.mul_(factor)
        rest[-1].weight.div_(factor)
    return other


def units_scaled(model: nn.Module, decades: float) -> nn.Module:
    """Each unit or channel of the first layer by its own factor; the same logits."""
    first, second = affine(other := copy.deepcopy(model))[:2]
    generator = torch.Generator().manual_seed(0)
    share = torch.rand(len(first.weight), generator=generator).double() * 2 - 1
    factor = 10 ** (decades * share)
    with torch.no_grad():
        first.weight.mul_(factor.view(-1, *[1] * (first.weight.dim() - 1)))
        first.bias.mul_(factor)
        second.weight.div_(factor.view(1, -1, *[1] * (second.weight.dim() - 2)))
    return other


def by_patterns(model, x, y, target, eps):
    """One hidden layer: a linear program for each of the 2^k activation patterns."""
    first, last = affine(model)
    W, b, V, c = (p.detach().numpy() for p in (*first.parameters(), *last.parameters()))
    low, high = (part.flatten().numpy() for part in bounds.input_box(x, eps))
    row, shift, least = V[y] - V[target], c[y] - c[target], math.inf
    for pattern in product([0.0, 1.0], repeat=len(b)):
        on = np.array(pattern)
        sign = (1 - 2 * on)[:, None]
        found = linprog((row * on) @ W, sign * W, -sign[:, 0] * b,
                        bounds=np.stack([low, high], 1))  # fmt: skip
        if found.status == 0:
            least = min(least, found.fun + (row * on) @ b + shift)
    return least


SCALES = [1e-12, 1e-7, 1e-5, 1e-4, 1e4, 1e6, 1e7, 1e12]


def check(model, x, y, eps, least, target, factor=1.0):
    """The bound is below ``least`` and near it; the verdict is its sign's."""
    found = exact.milp_margin(model, x, y, target, eps)
    assert found.status == "optimal"
    assert found.bound / factor <= least[target] + 1e-9
    assert found.bound / factor >= least[target] - 3e-5
    assert found.margin / factor == pytest.approx(least[target], abs=3e-5)
    (verdict,) = exact.milp_robust(model, x, y, eps)
    low = min(least.values())
    if abs(low) > 3e-5:
        assert verdict.status == ("certified" if low > 0 else "attacked")
    if verdict.status == "certified":
        assert 0 < verdict.bound / factor <= low + 1e-9


def rivals(y):
    """The classes other than ``y``."""
    return [j for j in range(3) if j != int(y)]


@pytest.mark.parametrize("seed", range(6))
def test_one_hidden_layer_at_every_scale_is_the_minimum_over_patterns(seed):
    """256 linear programs at scale 1 give the truth at every other scale."""
    model, x, y = network("one", seed)
    eps = (0.05, 0.2, 0.5)[seed % 3]
    least = {j: by_patterns(model, x, int(y), j, eps) for j in rivals(y)}
    target = rivals(y)[seed % 2]
    for factor in SCALES:
        check(hidden_scaled(model, factor), x, y, eps, least, target)
        check(logits_scaled(model, factor), x, y, eps, least, target, factor)
    for decades in (3, 6, 12):
        check(units_scaled(model, decades), x, y, eps, least, target)


@pytest.mark.parametrize("kind", ["deep", "conv", "residual"])
@pytest.mark.parametrize("seed", range(3))
def test_deeper_networks_at_every_scale_agree_with_branch_and_bound(kind, seed):
    """Branch and bound at scale 1, to 1e-8, is the other method."""
    model, x, y = network(kind, seed)
    eps = (0.05, 0.2, 0.5)[seed]
    (found,) = bb.minimal_margin(model, x, y, eps, tolerance=1e-8)
    each = {j: exact.milp_margin(model, x, y, j, eps) for j in rivals(y)}
    target = min(each, key=lambda j: each[j].bound)
    least = {j: one.margin for j, one in each.items()} | {target: found.margin}
    for factor in SCALES[::2]:
        check(logits_scaled(model, factor), x, y, eps, least, target, factor)
        if kind != "residual":
            check(hidden_scaled(model, factor), x, y, eps, least, target)
    if kind != "residual":
        check(units_scaled(model, 8), x, y, eps, least, target)


@pytest.mark.parametrize("eps", [1e-4, 1e-7, 1e-10])
def test_a_tiny_ball_has_its_own_unit(eps):
    """At eps 1e-7 a tolerance of 1e-6 in pixels would be ten times the ball.

    The image is a tie, and two units change sign there: so the minimum is linear in
    eps, and known from a ball of radius 0.001.
    """
    model, x, y = network("one", 1)
    x = x.clamp(0.1, 0.9)
    j = rivals(y)[0]
    with torch.no_grad():
        before = model[1](x.flatten(1))[0]
        assert (before.abs() > 0.001 * model[1].weight.abs().sum(1))[2:].all()
        model[1].bias[:2] -= before[:2]
        z = model(x)[0]
        model[3].bias[j] += z[y[0]] - z[j]
    truth = by_patterns(model, x, int(y), j, 0.001) * eps / 0.001
    found = exact.milp_margin(model, x, y, j, eps)
    assert found.bound <= truth + 1e-14
    assert found.bound == pytest.approx(truth, rel=2e-3)
    assert found.margin == pytest.approx(truth, rel=2e-3)


@pytest.mark.parametrize(
    ("sizes", "powers"),
    [([0.0, 1.0, 0.75, 3.0], [1.0, 2.0, 1.0, 4.0]), ([1e-320, 1e300], None)],
)
def test_powers_of_two_are_just_above(sizes, powers):
    """And finite with a finite reciprocal where the number is hardly one."""
    found = encoding.power_of_two(np.array(sizes))
    if powers is not None:
        assert found.tolist() == powers
    assert np.isfinite(found).all()
    assert np.isfinite(1 / found).all()


def test_the_program_is_balanced_whatever_the_scale():
    """No coefficient above 8, none that HiGHS drops, at scales 1e-12 to 1e12."""
    model, x, _ = network("deep", 0)
    for factor in (1e-12, 1.0, 1e12):
        net = canonical_double(hidden_scaled(model, factor), x.shape[1:])
        corners = bounds.input_box(x, 0.3)
        pre = bounds.relu_bounds(net, *corners)
        program, _ = encoding.encode(net, corners, pre)
        matrix, _ = program.stacked(program.equal + program.at_most)
        assert 1e-9 < abs(matrix.data).min() <= abs(matrix.data).max() <= 8
        assert program.largest().max() <= 1 + 1e-9


def test_what_the_solver_drops_widens_the_rows():
    """Weights below 1e-9 of a unit's size are not lost: the row leaves them room."""
    net = nn.Sequential(nn.Linear(21, 1), nn.ReLU(), nn.Linear(1, 2)).double().eval()
    with torch.no_grad():
        net[0].weight.fill_(4e-10)[0, 0] = 1
        net[0].bias.fill_(-0.5)
        net[2].weight.copy_(torch.tensor([[-1e3], [0.0]]))
        net[2].bias.copy_(torch.tensor([1e3, 0.0]))
    net = net.requires_grad_(False)
    x = torch.full((1, 21), 0.5).double()
    corners = bounds.input_box(x, 0.5)
    program, _ = encoding.encode(net, corners, bounds.relu_bounds(net, *corners))
    assert not program.equal[0][0].shape[0]  # the equation became two inequalities
    assert all(abs(rows.data).min() >= 1e-9 for rows, _ in program.at_most)
    found = exact.milp_margin(net, x, torch.tensor([0]), 1, 0.5)
    assert found.bound <= 1e3 - 1e3 * (0.5 + 20 * 4e-10) + 1e-9
    assert found.bound == pytest.approx(500, abs=1e-2)


# ------------------------------------------------------------- bounds that are huge


def widened(pre, size, layer=None, unit=None):
    """``pre`` with -size and size: everywhere, in one layer, or for one unit."""
    wide = [(low.clone(), high.clone()) for low, high in pre]
    for k, (low, high) in enumerate(wide):
        if layer in (None, k):
            part = slice(None) if unit is None else unit
            low.flatten(1)[:, part], high.flatten(1)[:, part] = -size, size
    return wide


@pytest.mark.parametrize("size", [1e6, 1e7])
@pytest.mark.parametrize("place", [(), (0,), (1,), (1, 4)])
def test_a_huge_big_m_is_refused_and_named(size, place):
    """Of all units, of one layer, of one unit: its tolerance would be a unit's size."""
    model, x, y = network("deep", 2)
    pre = widened(exact.big_m_bounds(model, x, 0.2), size, *place)
    name = "ReLU 2, unit 4" if len(place) == 2 else "ReLU"
    for method in (
        lambda **o: exact.milp_margin(model, x, y, rivals(y)[0], 0.2, pre=pre, **o),
        lambda **o: exact.milp_robust(model, x, y, 0.2, pre=pre, **o)[0],
    ):
        with pytest.raises(ValueError, match=name):
            method()
        found = method(allow_large=True)
        assert found.status in ("unproven", "attacked", "unknown")
        crown = bounds.crown_margins(model, x, y, 0.2, pre=pre)
        assert found.bound <= crown.max() + 1e-9 or found.bound == -math.inf


@pytest.mark.parametrize("seed", range(6))
def test_a_huge_big_m_never_certifies(seed):
    """Whatever HiGHS says of it, ``allow_large`` finds counterexamples at most."""
    model, x, y = network("deep", seed)
    pre = widened(exact.big_m_bounds(model, x, 0.05), 1e7)
    assert exact.milp_robust(model, x, y, 0.05)[0].status == "certified"
    (found,) = exact.milp_robust(model, x, y, 0.05, pre=pre, allow_large=True)
    assert found.status == "unknown"


@pytest.mark.parametrize("factor", [10, 1e3, 5e4])
def test_wide_bounds_below_the_limit_are_slow_and_change_nothing(factor):
    """Up to a hundred thousand times too wide, the optimum is the same."""
    model, x, y = network("one", 3)
    j = rivals(y)[0]
    truth = by_patterns(model, x, int(y), j, 0.2)
    tight = exact.big_m_bounds(model, x, 0.2)
    sizes = [torch.maximum(low.abs(), high.abs()) * factor for low, high in tight]
    pre = [(-size, size) for size in sizes]
    found = exact.milp_margin(model, x, y, j, 0.2, pre=pre)
    assert found.bound <= truth + 1e-9
    assert found.bound == pytest.approx(truth, abs=1e-2)


@pytest.mark.parametrize("factor", [1e-12, 1e12])
def test_scaled_networks_have_no_huge_big_m(factor):
    """What counts is the ratio: pre-activations of 1e12 are a unit's own size."""
    model, x, y = network("one", 4)
    other = hidden_scaled(model, factor)
    truth = by_patterns(model, x, int(y), rivals(y)[0], 0.2)
    for method in ("naive", "interval", "crown"):
        pre = exact.big_m_bounds(other, x, 0.2, method=method)
        found = exact.milp_margin(other, x, y, rivals(y)[0], 0.2, pre=pre)
        assert found.bound == pytest.approx(truth, abs=1e-5)


def test_units_without_weights_have_no_size_and_do_no_harm():
    """A pruned unit can reach nothing: its naive bounds are no huge big-M."""
    model, x, y = network("one", 5)
    with torch.no_grad():
        model[1].weight[:3] = 0
        model[1].bias[:3] = 0
    j = rivals(y)[0]
    pre = exact.big_m_bounds(model, x, 0.2, method="naive")
    found = exact.milp_margin(model, x, y, j, 0.2, pre=pre)
    assert found.bound == pytest.approx(by_patterns(model, x, int(y), j, 0.2), abs=1e-5)


# ------------------------------------------------------- when the solver is not right


def lying(end):
    """A HiGHS that calls every program infeasible, or finished with a high bound."""

    def run(problem, **options):
        problem.solve(solver=cp.HIGHS, **{**options, "mip_rel_gap": 0.0})
        if end == "optimal":
            stats = problem.solver_stats.extra_stats
            stats.mip_dual_bound += 1e3
        return end

    return run


@pytest.mark.parametrize("end", ["infeasible", "optimal"])
@pytest.mark.parametrize("eps", [0.3, 0.8])
@pytest.mark.filterwarnings("ignore:Solution may be inaccurate")
def test_no_wrong_word_of_the_solver_certifies(monkeypatch, end, eps):
    """Points that were tried contradict it, or no point is found near the image."""
    monkeypatch.setattr(integer_programs, "_run", lying(end))
    for seed in range(4):
        model, x, y = network("deep", seed)
        crown = bounds.crown_margins(model, x, y, eps)[0]
        if bool(bounds.certified(crown[None], y).all()):
            continue
        (verdict,) = exact.milp_robust(model, x, y, eps)
        assert verdict.status != "certified"
        for j in rivals(y):
            found = exact.milp_margin(model, x, y, j, eps)
            assert found.status == "unproven"
            assert found.bound == pytest.approx(crown[j].item(), abs=1e-9)
            assert found.bound <= found.margin


def test_an_empty_program_is_the_callers_fault_only_if_pre_was_given(monkeypatch):
    """Without ``pre`` no message names it."""
    model, x, y = network("deep", 2)
    assert not bounds.certified(bounds.crown_margins(model, x, y, 0.8), y).all()
    real = instances.bounds_before_relus

    def small(*arguments, **options):
        pre, *rest = real(*arguments, **options)
        return [(low / 50, high / 50) for low, high in pre], *rest

    monkeypatch.setattr(instances, "bounds_before_relus", small)
    found = exact.milp_margin(model, x, y, rivals(y)[0], 0.8)
    assert found.status == "unproven"
    assert exact.milp_robust(model, x, y, 0.8)[0].status != "certified"
    monkeypatch.undo()
    shrunk = [(low / 50, high / 50) for low, high in exact.big_m_bounds(model, x, 0.8)]
    for method in (
        lambda pre: exact.milp_margin(model, x, y, rivals(y)[0], 0.8, pre=pre),
        lambda pre: exact.milp_robust(model, x, y, 0.8, pre=pre),
    ):
        with pytest.raises(ValueError, match="pre are no bounds"):
            method(shrunk)


# ---------------------------------------------------------------------- bad limits


@pytest.mark.parametrize("limit", [-1.0, -1e-9, math.nan, -math.inf])
def test_negative_and_nan_limits_are_refused_by_name(limit):
    """By every exact method, before any work."""
    model, x, y = network("one", 0)
    for method in (
        lambda **o: exact.milp_margin(model, x, y, rivals(y)[0], 0.1, **o),
        lambda **o: exact.milp_robust(model, x, y, 0.1, **o),
        lambda **o: bb.branch_and_bound(model, x, y, 0.1, **o),
        lambda **o: bb.minimal_margin(model, x, y, 0.1, **o),
        lambda **o: bb.exact_error(model, x, y, 0.1, **o),
        lambda **o: bb.exact_error(model, x, y, 0.1, verify=exact.milp_robust, **o),
    ):
        with pytest.raises(ValueError, match="time_limit"):
            method(time_limit=limit)


def test_crossed_swapped_and_nan_bounds_are_refused():
    """By both programs, and by the encoding itself."""
    model, x, y = network("deep", 0)
    pre = exact.big_m_bounds(model, x, 0.2)
    swapped = [(high, low) for low, high in pre]
    crossed = [(low + 50, high) for low, high in pre]
    nan = [(low * math.nan, high) for low, high in pre]
    infinite = [(low, high + math.inf) for low, high in pre]
    net, corners = canonical_double(model, x.shape[1:]), bounds.input_box(x, 0.2)
    for wrong in (swapped, crossed, nan, infinite, pre[:1], [*pre, pre[0]]):
        with pytest.raises(ValueError, match=r"pre|bounds"):
            exact.milp_margin(model, x, y, rivals(y)[0], 0.2, pre=wrong)
        with pytest.raises(ValueError, match=r"pre|bounds"):
            exact.milp_robust(model, x, y, 0.2, pre=wrong)
        with pytest.raises(ValueError, match=r"pre|bounds"):
            encoding.encode(net, corners, wrong)


def test_one_logit_is_refused():
    """One output is no choice: both programs say what to do."""
    model = models.seeded(models.mlp, (1, 3, 3), [4], 1, seed=0).double()
    x, y = torch.rand(1, 1, 3, 3).double(), torch.tensor([0])
    for method in (
        lambda: exact.milp_margin(model, x, y, 0, 0.1),
        lambda: exact.milp_robust(model, x, y, 0.1),
        lambda: bb.branch_and_bound(model, x, y, 0.1),
        lambda: bb.minimal_margin(model, x, y, 0.1),
        lambda: bb.exact_error(model, x, y, 0.1),
    ):
        with pytest.raises(ValueError, match="TwoLogits"):
            method()
    wrapped = models.TwoLogits(model).eval()
    with torch.no_grad():
        assert wrapped(x).shape == (1, 2)
