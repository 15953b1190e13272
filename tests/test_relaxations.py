"""Convex programs against an independent formulation, brute force and sampling."""

import math
import tracemalloc

import cvxpy as cp
import numpy as np
import pytest
import torch
from scipy import sparse
from torch import Tensor, nn

from advlib import bounds, models, relaxations
from advlib.bounds import programs

SLACK = 1e-6  # HiGHS stops within 1e-7 of feasibility; weights here are of order one


def problem(
    kind: str, seed: int, n: int = 3
) -> tuple[nn.Sequential, Tensor, Tensor, float]:
    """A random network of ``kind`` in float64, images, labels and a radius."""
    shapes = {"dense": (1, 2, 3), "conv": (1, 5, 5), "residual": (2, 3, 3)}
    shape = shapes[kind]

    def dense() -> nn.Sequential:
        return models.mlp(shape, [7, 6], 4)

    def conv() -> nn.Sequential:
        return nn.Sequential(
            models.Normalize([0.3], [0.5]),
            nn.Conv2d(1, 2, 3, padding=1, stride=2),
            nn.BatchNorm2d(2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(18, 6),
            nn.ReLU(),
            nn.Linear(6, 4),
        )

    def residual() -> nn.Sequential:
        body = nn.Sequential(
            nn.Conv2d(2, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 2, 1)
        )
        shortcut = nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU())
        return nn.Sequential(
            models.Residual(body),
            nn.ReLU(),
            models.Residual(nn.Sequential(nn.Conv2d(2, 2, 1)), shortcut),
            nn.Flatten(),
            nn.Linear(18, 4),
        )

    build = {"dense": dense, "conv": conv, "residual": residual}[kind]
    model = models.seeded(build, seed=seed).double().requires_grad_(False)
    for p in model.parameters():  # larger weights: more unstable units, wider gaps
        p.mul_(2.0)
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, *shape, generator=generator, dtype=torch.float64)
    y = model(x).argmax(1)
    return model, x, y, (0.05, 0.15, 0.4)[seed % 3]


def textbook_lp(
    model: nn.Sequential, x: Tensor, target: int, y: int, eps: float, pre: list
) -> float:
    """The triangle relaxation of a dense network, in cvxpy, as the chapter has it."""
    low, up = (t[0].flatten().numpy() for t in bounds.input_box(x[None], eps))
    value = cp.Variable(len(low))
    rows = [value >= low, value <= up]
    linears = [layer for layer in model if isinstance(layer, nn.Linear)]
    for k, layer in enumerate(linears):
        weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
        z = weight @ value + bias
        if k == len(linears) - 1:
            break
        l_, u_ = (t.numpy() for t in pre[k])
        value = cp.Variable(len(bias))
        rows += [z >= l_, z <= u_, value >= 0, value >= z]
        for i in range(len(bias)):
            if l_[i] >= 0:
                rows.append(value[i] == z[i])
            elif u_[i] <= 0:
                rows.append(value[i] == 0)
            else:
                chord = u_[i] * (z[i] - l_[i]) / (u_[i] - l_[i])
                rows.append(value[i] <= chord)
    task = cp.Problem(cp.Minimize(z[y] - z[target]), rows)
    task.solve(solver=cp.CLARABEL)
    assert task.status == "optimal"
    return task.value


@pytest.mark.parametrize("seed", range(6))
def test_lp_is_the_textbook_program(seed):
    """The sparse program and its dual value equal another solver's optimum."""
    model, x, y, eps = problem("dense", seed, n=1)
    pre = bounds.relu_bounds(model, *bounds.input_box(x, eps))
    found = relaxations.lp_margins(model, x, y, eps, pre=pre)[0]
    for j in set(range(4)) - {int(y)}:
        first = [(low[0], up[0]) for low, up in pre]
        expected = textbook_lp(model, x[0], j, int(y), eps, first)
        assert float(found[j]) == pytest.approx(expected, abs=1e-5)
    assert found[y] == 0


@pytest.mark.parametrize("kind", ["dense", "conv", "residual"])
@pytest.mark.parametrize("method", ["interval", "crown"])
@pytest.mark.parametrize("seed", range(5))
def test_lp_lies_between_its_relatives_and_the_truth(kind, method, seed):
    """CROWN, any slopes, the dual <= LP with the same bounds <= sampled margins."""
    model, x, y, eps = problem(kind, seed)
    box = bounds.input_box(x, eps)
    pre = bounds.relu_bounds(model, *box, method=method)
    found = relaxations.lp_margins(model, x, y, eps, pre=pre)
    below = [bounds.crown_margins(model, x, y, eps, pre=pre)]
    below.append(bounds.wong_kolter_margins(model, x, y, eps, pre=pre))
    below.append(bounds.alpha_crown_margins(model, x, y, eps, pre=pre))
    for other in below:
        assert (found >= other - SLACK).all()
    share = torch.rand(2000, *x.shape, dtype=torch.float64)
    share[:1000] = share[:1000].round()  # half of the points are corners
    points = torch.lerp(box[0], box[1], share).flatten(0, 1)
    with torch.no_grad():
        logits = model(points).view(2000, len(x), -1)
    margins = logits.gather(2, y.expand(2000, -1)[..., None]) - logits
    assert (found <= margins.amin(0) + SLACK).all()


def test_the_networks_above_have_gaps():
    """The comparisons say something: the LP is often strictly the better bound."""
    gaps = []
    for kind in ("dense", "conv", "residual"):
        for seed in range(5):
            model, x, y, eps = problem(kind, seed)
            gap = relaxations.lp_margins(model, x, y, eps)
            gap = gap - bounds.crown_margins(model, x, y, eps)
            gaps.append(float(gap.max()) > 1e-3)
    assert sum(gaps) > 10


def phases(model: nn.Sequential, x: Tensor, y: int, eps: float) -> Tensor:
    """The exact margins of a dense network with one hidden layer: all ReLU phases."""
    first, last = (layer for layer in model if isinstance(layer, nn.Linear))
    w, b = first.weight.detach().numpy(), first.bias.detach().numpy()
    low, up = (t.flatten().numpy() for t in bounds.input_box(x[None], eps))
    v = cp.Variable(len(low))
    best = torch.full((last.out_features,), torch.inf)
    for code in range(2 ** len(b)):
        on = np.array([(code >> i) & 1 for i in range(len(b))])
        signs = 2 * on - 1
        rows = [v >= low, v <= up, cp.multiply(signs, w @ v + b) >= 0]
        logits = last.weight.detach().numpy() @ cp.multiply(on, w @ v + b)
        logits = logits + last.bias.detach().numpy()
        for j in range(len(best)):
            task = cp.Problem(cp.Minimize(logits[y] - logits[j]), rows)
            task.solve(solver=cp.CLARABEL)
            if task.status == "optimal":
                best[j] = min(best[j], task.value)
    return best


@pytest.mark.parametrize("seed", range(2))
def test_lp_is_below_the_exact_margin(seed):
    """On 2^4 phase patterns, each a small program of its own."""
    model = models.seeded(models.mlp, (1, 1, 3), [4], 3, seed=seed).double()
    x = torch.full((1, 1, 1, 3), 0.5, dtype=torch.float64)
    y = model(x).argmax(1)
    found = relaxations.lp_margins(model, x, y, 0.4)[0]
    exact = phases(model, x[0], int(y), 0.4)
    assert (found <= exact + 1e-5).all()


def test_lp_is_exact_without_unstable_units():
    """Then the network is affine on the box: the LP, CROWN and a corner agree."""
    model, x, y, _ = problem("dense", 0)
    eps = 1e-4
    pre = bounds.relu_bounds(model, *bounds.input_box(x, eps))
    assert not any(((low < 0) & (up > 0)).any() for low, up in pre)
    found = relaxations.lp_margins(model, x, y, eps)
    for i, label in enumerate(y):
        point = x[i : i + 1].clone().requires_grad_()
        logits = model(point)
        for j in range(4):
            margin = logits[0, label] - logits[0, j]
            (grad,) = torch.autograd.grad(margin, point, retain_graph=True)
            exact = margin - eps * grad.abs().sum()
            torch.testing.assert_close(found[i, j], exact.detach(), atol=1e-9, rtol=0)


def test_radius_zero_gives_the_clean_margins():
    """A box of one point, also in float32, where bounds contradict by rounding."""
    model, x, y, _ = problem("conv", 1)
    for kind in (torch.float64, torch.float32):
        net, points = model.to(kind), x.to(kind)
        logits = net(points).detach()
        clean = logits.gather(1, y[:, None]) - logits
        pre = bounds.relu_bounds(net, *bounds.input_box(points, 0.0))
        pre = [(low.detach(), up.detach()) for low, up in pre]
        for given in (None, pre):
            found = relaxations.lp_margins(net, points, y, 0.0, pre=given)
            assert found.dtype == kind
            torch.testing.assert_close(found, clean, atol=1e-3, rtol=0)


@pytest.mark.parametrize("kind", ["dense", "conv", "residual"])
def test_lp_bounds_tighten_and_stay_sound(kind):
    """Nested in the given bounds, around sampled values, margins no worse."""
    model, x, y, eps = problem(kind, 2)
    box = bounds.input_box(x, eps)
    pre = bounds.relu_bounds(model, *box)
    tight = relaxations.lp_bounds(model, *box)
    gain = 0.0
    for (low, up), (lower, upper) in zip(pre, tight, strict=True):
        assert (lower >= low).all()
        assert (upper <= up).all()
        gain = max(gain, float((lower - low).max()))
    assert gain > 1e-4
    share = torch.rand(1500, *x.shape, dtype=torch.float64).round()
    points = torch.lerp(box[0], box[1], share).flatten(0, 1)
    for (low, up), z in zip(tight, relu_inputs(model, points), strict=True):
        z = z.view(1500, *low.shape)
        assert (z >= low - SLACK).all()
        assert (z <= up + SLACK).all()
    before = relaxations.lp_margins(model, x, y, eps, pre=pre)
    after = relaxations.lp_margins(model, x, y, eps, pre=tight)
    assert (after >= before - SLACK).all()
    kept = relaxations.lp_bounds(model, *box, layers=[])
    assert all((a[0] == b[0]).all() for a, b in zip(kept, pre, strict=True))


def relu_inputs(model: nn.Module, x: Tensor) -> list[Tensor]:
    """What enters each ReLU, in forward order, by hooks."""
    found = []
    hooks = [
        m.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0].detach()))
        for m in model.modules()
        if isinstance(m, nn.ReLU)
    ]
    model(x)
    for hook in hooks:
        hook.remove()
    return found


def test_dual_values_are_sound_for_any_dual_variables():
    """Weak duality holds for noise, too: that is why no tolerance is subtracted."""
    model, x, y, eps = problem("dense", 2, n=1)
    box = bounds.input_box(x, eps)
    pre = [
        (low[0].numpy(), up[0].numpy()) for low, up in bounds.relu_bounds(model, *box)
    ]
    corners = tuple(t.flatten().numpy() for t in box)
    program, value = programs.start_program(*corners)
    stages = programs.network_stages(models.canonical(model, (1, 2, 3)), (1, 2, 3))
    value = programs.push_stages(program, stages, value, pre)
    matrix, _, _ = programs.row_block(program)
    spec = bounds.margin_spec(y, 4)[0].double().numpy()
    best = relaxations.lp_margins(model, x, y, eps)[0].numpy()
    rng = np.random.default_rng(0)
    for scale in (0.0, 0.1, 1.0, 10.0):
        duals = scale * rng.normal(size=matrix.shape[0])
        for j in range(4):
            cost = program.wide(sparse.csr_array(spec[j : j + 1]) @ value[0]).toarray()[
                0
            ]
            found = programs._dual_value(program, cost, duals)
            assert found + spec[j] @ value[1] <= best[j] + 1e-9


def test_average_pooling_in_float32():
    """Rounded down, so that the result in float32 is a bound, too."""

    def build() -> nn.Sequential:
        pool = nn.AvgPool2d(2)
        return nn.Sequential(
            nn.Conv2d(1, 2, 3), nn.ReLU(), pool, nn.Flatten(), nn.Linear(8, 3)
        )

    model = models.seeded(build, seed=4)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, 1, 6, 6, generator=generator)
    y = model(x).argmax(1)
    found = relaxations.lp_margins(model, x, y, 0.1)
    crown = bounds.crown_margins(model, x, y, 0.1)
    assert found.dtype == torch.float32
    assert (found >= crown - 1e-4).all()
    assert (found > crown + 1e-4).any()


def test_targets_choose_what_is_solved():
    """Entries not asked for hold CROWN's bound."""
    model, x, y, eps = problem("dense", 2)
    pre = bounds.relu_bounds(model, *bounds.input_box(x, eps))
    crown = bounds.crown_margins(model, x, y, eps, pre=pre)
    full = relaxations.lp_margins(model, x, y, eps)
    targets = torch.zeros(3, 4, dtype=torch.bool)
    targets[0] = True
    found = relaxations.lp_margins(model, x, y, eps, targets=targets)
    torch.testing.assert_close(found[0], full[0])
    torch.testing.assert_close(found[1:], crown[1:])
    with pytest.raises(ValueError, match="targets"):
        relaxations.lp_margins(model, x, y, eps, targets=targets.long())


def test_a_time_out_falls_back_to_a_sound_bound():
    """Stopped at once, the result is at least CROWN's and at most the LP's."""
    model, x, y, eps = problem("dense", 2)
    pre = bounds.relu_bounds(model, *bounds.input_box(x, eps))
    crown = bounds.crown_margins(model, x, y, eps, pre=pre)
    full = relaxations.lp_margins(model, x, y, eps)
    found = relaxations.lp_margins(model, x, y, eps, time_limit=0.0)
    assert (found >= crown - 1e-12).all()
    assert (found <= full + SLACK).all()
    box = bounds.input_box(x, eps)
    pre = bounds.relu_bounds(model, *box)
    for (low, _), (lower, _) in zip(
        pre, relaxations.lp_bounds(model, *box, time_limit=0.0), strict=True
    ):
        assert (lower >= low).all()


def test_bad_input_is_refused():
    """Each with its own message, and before any solve."""
    model, x, y, eps = problem("dense", 0)
    lp = relaxations.lp_margins
    for bad, error, words in [
        ((x + 1, y, eps), ValueError, "0, 1"),
        ((x * math.nan, y, eps), ValueError, "NaN"),
        ((x, y, -0.1), ValueError, "eps"),
        ((x, y + 9, eps), ValueError, "classes"),
        ((x, y.double(), eps), TypeError, "int64"),
    ]:
        with pytest.raises(error, match=words):
            lp(model, *bad)
    with pytest.raises(TypeError, match="Tanh"):
        lp(nn.Sequential(model, nn.Tanh()).eval(), x, y, eps)
    with pytest.raises(ValueError, match="train mode"):
        lp(model.train(), x, y, eps)
    model.eval()[1].weight.data[0, 0] = math.nan
    with pytest.raises(ValueError, match="NaN"):
        lp(model, x, y, eps)


def test_wrong_bounds_are_refused():
    """Too few, not finite, of another size, or contradicting each other."""
    model, x, y, eps = problem("dense", 0)
    box = bounds.input_box(x, eps)
    pre = bounds.relu_bounds(model, *box)
    pre = [(low.detach(), up.detach()) for low, up in pre]
    high = pre[0][1] + 5
    loose = (pre[1][0] - 9, pre[1][1] + 9)
    for bad, words in [
        (pre[:1], "sizes"),
        ([pre[0], (pre[1][0] * math.inf, pre[1][1])], "finite"),
        (pre[::-1], "sizes"),
        ([(high, high + 1), pre[1]], "empty"),
    ]:
        with pytest.raises(ValueError, match=words):
            relaxations.lp_margins(model, x, y, eps, pre=bad)
    with pytest.raises(ValueError, match="empty"):
        relaxations.lp_bounds(model, *box, pre=[(high, high + 1), loose])
    with pytest.raises(ValueError, match="corners"):
        relaxations.lp_bounds(model, box[1], box[0])
    with pytest.raises(ValueError, match="layers"):
        relaxations.lp_bounds(model, *box, layers=[2])


def tiny(seed: int) -> tuple[nn.Sequential, Tensor, int, float, list]:
    """A network for semidefinite programs, one image, its class, radius, bounds."""
    model = models.seeded(models.mlp, (1, 2, 3), [6, 5], 3, seed=seed)
    model = model.double().requires_grad_(False)
    for p in model.parameters():
        p.mul_(2.0)
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(1, 2, 3, generator=generator, dtype=torch.float64)
    pre = bounds.relu_bounds(model, *bounds.input_box(x[None], 0.3))
    return model, x, int(model(x[None]).argmax()), 0.3, pre


@pytest.mark.parametrize("seed", range(6))
def test_sdp_lies_between_the_lp_and_the_truth(seed):
    """With the triangle's rows it is above the LP; both are below sampled margins."""
    model, x, y, eps, pre = tiny(seed)
    lp = relaxations.lp_margins(model, x[None], torch.tensor([y]), eps, pre=pre)[0]
    low, up = bounds.input_box(x[None], eps)
    share = torch.rand(4000, 1, 2, 3, dtype=torch.float64)
    share[:2000] = share[:2000].round()
    logits = model(torch.lerp(low, up, share))
    for target in set(range(3)) - {y}:
        sampled = (logits[:, y] - logits[:, target]).min()
        found = relaxations.sdp_margin(model, x, y, target, eps, pre=pre)
        assert lp[target] - 1e-5 <= found <= sampled + 1e-9
        free = relaxations.sdp_margin(model, x, y, target, eps, pre=pre, triangle=False)
        assert free <= found + 1e-5


def test_sdp_closes_a_part_of_the_gap():
    """On most of these networks it is strictly better than the linear program."""
    gains = []
    for seed in range(6):
        model, x, y, eps, pre = tiny(seed)
        lp = relaxations.lp_margins(model, x[None], torch.tensor([y]), eps, pre=pre)[0]
        target = (y + 1) % 3
        found = relaxations.sdp_margin(model, x, y, target, eps, pre=pre)
        gains.append(found > float(lp[target]) + 1e-3)
    assert sum(gains) >= 4


def test_sdp_of_one_unit_is_its_exact_minimum():
    """min ReLU(z) - z / 2 on -1 <= z <= 1 is 0: no gap for a function of one unit."""
    model = models.mlp((1, 1, 1), [1], 2).double().eval().requires_grad_(False)
    model[1].weight[:], model[1].bias[:] = 2.0, -1.0
    model[3].weight[:], model[3].bias[:] = torch.tensor([[1.0], [0.0]]), 0.0
    x = torch.full((1, 1, 1), 0.5, dtype=torch.float64)
    found = relaxations.sdp_margin(model, x, 0, 1, 0.5)
    assert found == pytest.approx(0.0, abs=1e-6)
    assert found <= 0
    found = relaxations.sdp_margin(model, x, 1, 0, 0.5)
    assert found == pytest.approx(-1.0, abs=1e-6)
    assert found <= -1


def test_sdp_values_are_sound_for_any_dual_variables():
    """Perturbed dual variables give a worse bound, never one above the optimum."""
    model, x, y, eps, pre = tiny(0)
    best = relaxations.sdp_margin(model, x, y, (y + 1) % 3, eps, pre=pre)
    solve = relaxations._sdp_duals
    rng = np.random.default_rng(0)
    for scale in (1e-6, 1e-3, 0.1, 10.0):

        def noisy(*problem, scale=scale) -> tuple:
            return tuple(d + scale * rng.normal(size=d.shape) for d in solve(*problem))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(relaxations, "_sdp_duals", noisy)
            found = relaxations.sdp_margin(model, x, y, (y + 1) % 3, eps, pre=pre)
        assert found <= best + 1e-7


def test_sdp_on_a_residual_network_and_without_relu():
    """The same stages as the linear program; a linear model needs no solver."""
    model, x, y, _ = problem("residual", 0, n=1)
    pre = bounds.relu_bounds(model, *bounds.input_box(x, 0.05))
    lp = relaxations.lp_margins(model, x, y, 0.05, pre=pre)[0]
    label = int(y)
    target = (label + 1) % 4
    found = relaxations.sdp_margin(model, x[0], label, target, 0.05, pre=pre)
    assert found >= float(lp[target]) - 1e-5
    flat = models.seeded(models.linear, (1, 1, 3), 3, seed=0).double()
    flat.requires_grad_(False)
    point = torch.full((1, 1, 3), 0.5, dtype=torch.float64)
    row = flat[1].weight[0] - flat[1].weight[1]
    exact = row @ point.flatten() + flat[1].bias[0] - flat[1].bias[1]
    exact = float(exact - 0.1 * row.abs().sum())
    assert relaxations.sdp_margin(flat, point, 0, 1, 0.1) == pytest.approx(exact)


def test_sdp_refuses_bad_input(monkeypatch):
    """Classes, sizes, contradicting bounds, a solver that fails."""
    model, x, y, eps, pre = tiny(1)
    with pytest.raises(ValueError, match="two of the 3 classes"):
        relaxations.sdp_margin(model, x, y, y, eps)
    with pytest.raises(ValueError, match="max_side"):
        relaxations.sdp_margin(model, x, y, (y + 1) % 3, eps, max_side=5)
    with pytest.raises(ValueError, match="0, 1"):
        relaxations.sdp_margin(model, x + 1, y, (y + 1) % 3, eps)
    with pytest.raises(ValueError, match="eps"):
        relaxations.sdp_margin(model, x, y, (y + 1) % 3, -1.0)
    wrong = [(pre[0][1] + 5, pre[0][1] + 6), (pre[1][0] - 99, pre[1][1] + 99)]
    with pytest.raises(ValueError, match="empty"):
        relaxations.sdp_margin(model, x, y, (y + 1) % 3, eps, pre=wrong)
    monkeypatch.setattr(cp.Problem, "solve", lambda self, **options: None)
    with pytest.raises(RuntimeError, match="without dual values"):
        relaxations.sdp_margin(model, x, y, (y + 1) % 3, eps)


# --------------------------------------------------- scales, sizes, limits, outputs

SCALES = [1e-12, 1e-9, 1e-6, 1e-4, 1e3, 1e6, 1e9, 1e12]


def rescaled(model: nn.Sequential, scale: float, logits: float = 1.0) -> nn.Sequential:
    """The same function, hidden units ``scale`` times as large; then the logits."""
    other = models.seeded(models.mlp, (1, 2, 3), [7, 6], 4, seed=0).double()
    other.load_state_dict(model.state_dict())
    other.requires_grad_(False)
    other[1].weight.mul_(scale)
    other[1].bias.mul_(scale)
    other[3].bias.mul_(scale)
    other[5].weight.mul_(logits / scale)
    other[5].bias.mul_(logits)
    return other


@pytest.mark.parametrize("scale", SCALES)
def test_the_scale_of_hidden_units_does_not_matter(scale):
    """relu(s z) / s is one function: as tight, and bounds are not blamed."""
    for seed in range(4):
        model, x, y, eps = problem("dense", seed)
        right = relaxations.lp_margins(model, x, y, eps)
        crown = bounds.crown_margins(model, x, y, eps)
        assert (right > crown + 1e-4).any() or seed in (0, 3)
        other = rescaled(model, scale)
        found = relaxations.lp_margins(other, x, y, eps)
        torch.testing.assert_close(found, right, rtol=1e-6, atol=1e-6)
        small = rescaled(model, scale, logits=1e-6)
        found = relaxations.lp_margins(small, x, y, eps)
        torch.testing.assert_close(found, 1e-6 * right, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-9, 1e-4, 1e4, 1e9])
def test_the_scale_does_not_matter_to_other_programs(scale):
    """Bounds before each ReLU, and the semidefinite program."""
    model, x, y, eps = problem("dense", 2, n=1)
    other = rescaled(model, scale)
    box = bounds.input_box(x, eps)
    for (low, up), (lower, upper) in zip(
        relaxations.lp_bounds(model, *box),
        relaxations.lp_bounds(other, *box),
        strict=True,
    ):
        torch.testing.assert_close(lower / scale, low, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(upper / scale, up, rtol=1e-6, atol=1e-6)
    label, target = int(y), (int(y) + 1) % 4
    right = relaxations.sdp_margin(model, x[0], label, target, eps)
    found = relaxations.sdp_margin(other, x[0], label, target, eps)
    assert found == pytest.approx(right, abs=1e-4)


def test_tiny_boxes_and_far_inputs():
    """A box of 1e-9 around black, and inputs of a million, are scaled, too."""
    model, x, y, _ = problem("dense", 2)
    x[:] = 0.0
    y = model(x).argmax(1)
    logits = model(x).gather(1, y[:, None]) - model(x)
    found = relaxations.lp_margins(model, x, y, 1e-9)
    torch.testing.assert_close(found, logits, rtol=0, atol=1e-7)
    low, up = x + 1e6, x + 1e6 + 1
    box = bounds.relu_bounds(model, low, up)
    for (a, b), (lower, upper) in zip(
        relaxations.lp_bounds(model, low, up), box, strict=True
    ):
        assert ((a >= lower) & (b <= upper) & (a <= b)).all()


def test_bounds_in_float32_of_a_large_scale_are_not_blamed():
    """They contradict each other by rounding: by more than 1e-4, here."""
    for scale in (1e-9, 1.0, 1e9):
        model, x, y, _ = problem("dense", 1)
        other = rescaled(model, scale).float()
        point = x.float()
        pre = bounds.relu_bounds(other, *bounds.input_box(point, 0.0))
        found = relaxations.lp_margins(other, point, y, 0.0, pre=pre)
        logits = other(point)
        clean = logits.gather(1, y[:, None]) - logits
        torch.testing.assert_close(found, clean, atol=1e-2, rtol=0)
        for low, up in relaxations.lp_bounds(other, point, point, pre=pre):
            assert (low <= up).all()


def test_a_solver_that_errs_is_not_believed(monkeypatch):
    """Called empty, refused or left without dual values: then CROWN's bound."""
    model, x, y, eps = problem("dense", 2)
    box = bounds.input_box(x, eps)
    pre = bounds.relu_bounds(model, *box)
    crown = bounds.crown_margins(model, x, y, eps, pre=pre)
    wrong = [(low + 99, up + 99) for low, up in pre]

    def empty(program, value, limit) -> tuple:
        return np.full(len(value[1]), -np.inf), True

    with monkeypatch.context() as patch:
        patch.setattr(relaxations, "minima", empty)
        assert torch.equal(relaxations.lp_margins(model, x, y, eps, pre=pre), crown)
        kept = relaxations.lp_bounds(model, *box, pre=pre)
        assert all(torch.equal(a[0], b[0]) for a, b in zip(kept, pre, strict=True))
        with pytest.raises(ValueError, match="no bounds"):
            relaxations.lp_margins(model, x, y, eps, pre=wrong)
    with monkeypatch.context() as patch:
        patch.setattr(programs, "_solver", lambda program: None)
        assert torch.equal(relaxations.lp_margins(model, x, y, eps, pre=pre), crown)
    with monkeypatch.context() as patch:
        patch.setattr(relaxations, "_sdp_duals", lambda *problem: None)
        with pytest.raises(RuntimeError, match="which it is not"):
            relaxations.sdp_margin(model, x[0], 0, 1, eps)


def test_dual_variables_that_are_no_numbers_count_as_zero():
    """NaN and infinity never make a bound."""
    program, value = programs.start_program(np.zeros(2), np.ones(2))
    value = programs.add_triangle(program, value, (-np.ones(2), np.ones(2)))
    size = programs.row_block(program)[0].shape[0]
    cost = program.wide(value[0])[[0]].toarray()[0]
    right = programs._dual_value(program, cost, np.zeros(size))
    for bad in (np.nan, np.inf, -np.inf):
        assert programs._dual_value(program, cost, np.full(size, bad)) == right


def test_limits_below_zero_are_refused():
    """Neither no limit nor no time: an error; zero and infinity are limits."""
    model, x, y, eps = problem("dense", 2, n=1)
    box = bounds.input_box(x, eps)
    for bad in (-1, -1e-9, math.nan, -math.inf):
        with pytest.raises(ValueError, match="time_limit"):
            relaxations.lp_margins(model, x, y, eps, time_limit=bad)
        with pytest.raises(ValueError, match="time_limit"):
            relaxations.lp_bounds(model, *box, time_limit=bad)
    full = relaxations.lp_margins(model, x, y, eps)
    found = relaxations.lp_margins(model, x, y, eps, time_limit=math.inf)
    assert torch.equal(found, full)


def test_only_rows_of_two_logits_or_more_have_margins():
    """Maps, one logit, labels that are no whole numbers."""
    x = torch.full((1, 1, 2, 2), 0.5)
    y = torch.tensor([0])
    net = nn.Sequential(nn.Conv2d(1, 3, 1)).eval()
    with pytest.raises(ValueError, match="row of logits"):
        relaxations.lp_margins(net, x, y, 0.1)
    with pytest.raises(ValueError, match="row of logits"):
        relaxations.sdp_margin(net, x[0], 0, 1, 0.1)
    single = nn.Sequential(nn.Flatten(), nn.Linear(4, 1)).eval()
    with pytest.raises(ValueError, match="one logit"):
        relaxations.lp_margins(single, x, y, 0.1)
    with pytest.raises(ValueError, match="one logit"):
        relaxations.sdp_margin(single, x[0], 0, 1, 0.1)
    model = models.seeded(models.linear, (1, 2, 2), 3, seed=0)
    for bad in (1.0, "1", None):
        with pytest.raises(TypeError, match="whole number"):
            relaxations.sdp_margin(model, x[0], 0, bad, 0.1)
        with pytest.raises(TypeError, match="whole number"):
            relaxations.sdp_margin(model, x[0], bad, 0, 0.1)
    for bad in (3, -1):
        with pytest.raises(ValueError, match="3 classes"):
            relaxations.sdp_margin(model, x[0], 0, bad, 0.1)
    right = relaxations.sdp_margin(model, x[0], 0, 1, 0.1)
    assert relaxations.sdp_margin(model, x[0], y[0], np.int64(1), 0.1) == right


def test_rows_need_a_tenth_of_the_dense_matrices():
    """Of the convolutional network of the exercises, at 16 x 16; and no more to build.

    The peak counts every array on the way from the layers to the rows.
    """
    shape = (3, 16, 16)
    net = models.seeded(models.cnn, shape, seed=0).double().requires_grad_(False)
    dense, inside = 0, shape
    for layer in net:
        after = models.output_shape(layer, inside)
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            dense += 8 * math.prod(inside) * math.prod(after)
        inside = after
    x = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0)).double()
    box = bounds.input_box(x, 0.001)
    pre = bounds.relu_bounds(net, *box, method="interval")
    pairs = [(low.flatten().numpy(), up.flatten().numpy()) for low, up in pre]
    tracemalloc.start()
    program, value = programs.start_program(*(t.flatten().numpy() for t in box))
    stages = programs.network_stages(net, shape)
    programs.push_stages(program, stages, value, pairs)
    matrix, _, _ = programs.row_block(program)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    parts = matrix.data, matrix.indices, matrix.indptr
    assert sum(part.nbytes for part in parts) <= dense / 10
    assert peak <= dense / 2
    found = sum(b.nnz for kind, *rest in stages if kind == "affine" for b in rest[:1])
    assert matrix.nnz <= found + 6 * program.size
