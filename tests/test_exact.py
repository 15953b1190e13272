"""Breakpoints against fine grids; integer programs against brute force."""

import math
from itertools import product

import cvxpy as cp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from torch import nn

from advlib import bounds, exact, linear, models, relaxations

MODEST = settings(deadline=None, max_examples=20, derandomize=True, database=None)


def tiny_cnn() -> nn.Sequential:
    """Convolution, average pooling and two ReLUs: every affine layer with a rule."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(4, 3, 2, stride=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(3, 3),
    )


BUILDS = {
    "linear": lambda: models.linear((1, 4, 4), 3),
    "mlp": lambda: models.mlp((1, 4, 4), [12, 8, 6], 3),
    "cnn": tiny_cnn,
}


def problem(kind: str, seed: int):
    """A random network in float64 and the two ends of a segment."""
    model = models.seeded(BUILDS[kind], seed=seed).double()
    generator = torch.Generator().manual_seed(seed)
    start, end = torch.rand((2, 1, 4, 4), generator=generator).double()
    return model, 4 * start - 2, 4 * end - 2


def points(start, end, t):
    """The inputs at positions ``t``, computed otherwise than by lerp."""
    return torch.stack([(1 - s) * start + s * end for s in t.tolist()])


def pattern(model, x):
    """Which ReLUs are active, for each input."""
    signs = []
    for layer in model:
        if isinstance(layer, nn.ReLU):
            signs.append((x > 0).flatten(1))
        x = layer(x)
    return torch.cat(signs, 1)


@pytest.mark.parametrize("kind", BUILDS)
@given(seed=st.integers(0, 10**6))
@MODEST
def test_logits_are_linear_between_breakpoints(kind, seed):
    """At three points inside each piece, the chord and the network agree."""
    model, start, end = problem(kind, seed)
    t = exact.breakpoints(model, start, end)
    assert t[0] == 0
    assert t[-1] == 1
    assert (t.diff() > 0).all()
    with torch.no_grad():
        ends = model(points(start, end, t))
        for share in (0.25, 0.5, 0.9):
            inside = model(points(start, end, t[:-1] + share * t.diff()))
            chord = (1 - share) * ends[:-1] + share * ends[1:]
            assert torch.allclose(inside, chord, atol=1e-10)


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
@given(seed=st.integers(0, 10**6))
@MODEST
def test_every_change_of_the_pattern_is_a_breakpoint_and_no_more(kind, seed):
    """On a fine grid: where the active set changes there is a breakpoint in between.

    Conversely each breakpoint has another active set on its two sides.
    """
    model, start, end = problem(kind, seed)
    t = exact.breakpoints(model, start, end)
    grid = torch.linspace(0, 1, 4001).double()
    with torch.no_grad():
        active = pattern(model, points(start, end, grid))
        middles = pattern(model, points(start, end, (t[:-1] + t[1:]) / 2))
    changes = (active[:-1] != active[1:]).any(1)
    counts = torch.histc(t[1:-1], 4000, 0, 1)
    assert (counts[changes] > 0).all()
    wide = t.diff() > 1e-9  # midpoints of narrower pieces are rounding
    different = (middles[:-1] != middles[1:]).any(1)
    assert different[wide[:-1] & wide[1:]].all()


def test_the_breakpoints_of_a_network_worked_by_hand():
    """z = relu(x) - relu(x - 1) from -1 to 3 has its kinks at x = 0 and x = 1."""
    model = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 2)).double().eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0], [1.0]]))
        model[0].bias.copy_(torch.tensor([0.0, -1.0]))
        model[2].weight.copy_(torch.tensor([[1.0, -1.0], [0.0, 0.0]]))
        model[2].bias.zero_()
    start, end = torch.tensor([-1.0]).double(), torch.tensor([3.0]).double()
    t = exact.breakpoints(model, start, end)
    assert t.tolist() == pytest.approx([0, 0.25, 0.5, 1])
    loss, at = exact.segment_max(model, start, end, 1)  # log(1 + e^z), z = 1 from 0.5
    assert loss.item() == pytest.approx(math.log(1 + math.e))
    assert at >= 0.5 - 1e-12


def test_a_kink_at_the_ends_and_a_segment_of_one_point():
    """Units that are zero at an end, or everywhere, make no spurious breakpoint."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU()).double().eval()
    zero, one = torch.zeros(1).double(), torch.ones(1).double()
    for start, end in ((zero, one), (-one, zero), (one, one), (zero, zero)):
        assert exact.breakpoints(model, start, end).tolist() == [0, 1]


@pytest.mark.parametrize("kind", BUILDS)
@given(seed=st.integers(0, 10**6), y=st.integers(0, 2))
@MODEST
def test_segment_max_is_an_upper_bound_that_is_attained(kind, seed, y):
    """No point of a grid of 10001 has a larger loss; the returned t has this one."""
    model, start, end = problem(kind, seed)
    loss, t = exact.segment_max(model, start, end, y)
    grid = torch.linspace(0, 1, 10001).double()[:, None, None, None]
    with torch.no_grad():
        logits = model(start + grid * (end - start))
        there = model((start + t * (end - start))[None])
    label = torch.tensor([y])
    losses = F.cross_entropy(logits, label.expand(10001), reduction="none")
    assert losses.max() <= loss + 1e-10
    assert losses.max() >= loss - 0.05  # the grid comes near, so the bound is no waste
    assert F.cross_entropy(there, label).item() == pytest.approx(loss.item())


def test_the_model_and_the_ends_are_left_alone():
    """No gradient is kept and nothing is written into the arguments."""
    model, start, end = problem("mlp", 0)
    model[2] = nn.ReLU(inplace=True).eval()
    kept = start.clone(), end.clone()
    loss, t = exact.segment_max(model, start, end, 0)
    assert torch.equal(start, kept[0])
    assert torch.equal(end, kept[1])
    assert not loss.requires_grad
    assert not t.requires_grad


def test_float32_follows_the_inputs():
    """Single precision in, single precision out, close to double."""
    model, start, end = problem("mlp", 1)
    exact_loss, _ = exact.segment_max(model, start, end, 0)
    loss, t = exact.segment_max(model.float(), start.float(), end.float(), 0)
    assert loss.dtype == t.dtype == torch.float32
    assert loss.item() == pytest.approx(exact_loss.item(), abs=1e-5)


def test_a_normalised_network_has_a_rule():
    """Normalize is affine: the docstring refuses only what is not."""
    inner, start, end = problem("mlp", 2)
    model = nn.Sequential(models.Normalize([0.5], [0.25]).double(), *inner).eval()
    t = exact.breakpoints(model, start, end)
    moved = exact.breakpoints(inner, (start - 0.5) / 0.25, (end - 0.5) / 0.25)
    assert torch.allclose(t, moved, atol=1e-9)


@pytest.mark.parametrize("layer", [nn.Sigmoid(), nn.MaxPool1d(1), nn.Softplus()])
def test_other_layers_are_refused(layer):
    """No rule, no answer: a TypeError names the layer."""
    model = nn.Sequential(nn.Linear(2, 2), layer).eval()
    for function, rest in ((exact.breakpoints, ()), (exact.segment_max, (0,))):
        with pytest.raises(TypeError, match=type(layer).__name__):
            function(model, torch.zeros(2), torch.ones(2), *rest)


@pytest.mark.parametrize(
    ("start", "end", "train"),
    [
        (torch.zeros(2), torch.zeros(3), False),
        (torch.zeros(2), torch.tensor([math.nan, 0.0]), False),
        (torch.tensor([math.inf, 0.0]), torch.zeros(2), False),
        (torch.zeros(2), torch.ones(2), True),
    ],
    ids=["shape", "NaN", "inf", "train"],
)
def test_bad_segments_are_refused(start, end, train):
    """Unequal shapes, values that are not finite, a model in train mode."""
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU()).train(train)
    for function, rest in ((exact.breakpoints, ()), (exact.segment_max, (0,))):
        with pytest.raises(ValueError, match=r"ends|train"):
            function(model, start, end, *rest)


@pytest.mark.parametrize("y", [-1, 3])
def test_a_label_that_is_no_class_is_refused(y):
    """A negative label would index from the end: refused as well."""
    model, start, end = problem("mlp", 0)
    with pytest.raises(ValueError, match="class"):
        exact.segment_max(model, start, end, y)


# ------------------------------------------------------------ integer programs


def network(kind: str, seed: int) -> tuple[nn.Sequential, torch.Tensor, torch.Tensor]:
    """A random network in float64, two images, and the classes it gives them."""
    shape = (1, 1, 2) if kind == "plane" else (1, 4, 4)
    builds = {
        "plane": lambda: models.mlp(shape, [5, 4], 3),
        "one": lambda: models.mlp(shape, [7], 3),
        "deep": lambda: models.mlp(shape, [6, 5, 4], 3),
        "cnn": tiny_cnn,
        "residual": residual,
    }
    model = models.seeded(builds[kind], seed=seed).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator).double()
            parameter.mul_(1.5).add_(0.1 * noise)
    x = torch.rand((2, *shape), generator=generator).double()
    with torch.no_grad():
        return model, x, model(x).argmax(1)


def residual() -> nn.Sequential:
    """Two residual sums, with and without a shortcut that has its own ReLU."""
    body = nn.Sequential(nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 5))
    side = nn.Sequential(nn.Linear(5, 5), nn.ReLU())
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(16, 5),
        models.Residual(body),
        nn.ReLU(),
        models.Residual(nn.Sequential(nn.Linear(5, 5)), side),
        nn.Linear(5, 3),
    )


def by_patterns(model, x, y, target, eps):
    """One hidden layer: a linear program for each of the 2^k activation patterns."""
    (first, last), smallest = [m for m in model if isinstance(m, nn.Linear)], np.inf
    W, b, V, c = (p.detach().numpy() for p in (*first.parameters(), *last.parameters()))
    low, high = (part.flatten().numpy() for part in bounds.input_box(x, eps))
    row, shift = V[y] - V[target], c[y] - c[target]
    for pattern in product([0.0, 1.0], repeat=len(b)):
        on = np.array(pattern)
        sign = (1 - 2 * on)[:, None]
        found = linprog((row * on) @ W, sign * W, -sign[:, 0] * b,
                        bounds=np.stack([low, high], 1))  # fmt: skip
        assert found.status in (0, 2)
        if found.status == 0:
            smallest = min(smallest, found.fun + (row * on) @ b + shift)
    return smallest


def on_lines(model, x, y, target, eps, lines=401):
    """In the plane: the smallest margin on parallel segments, by their breakpoints.

    The exact minimum over the box is at most the Lipschitz constant times half the
    distance of two lines below it. Returns both ends.
    """
    low, high = (part.view(2) for part in bounds.input_box(x, eps))
    smallest = np.inf
    for height in torch.linspace(low[1].item(), high[1].item(), lines).double():
        ends = [torch.stack([side[0], height]).view(1, 1, 2) for side in (low, high)]
        t = exact.breakpoints(model, *ends).view(-1, 1, 1, 1)
        with torch.no_grad():
            logits = model(torch.lerp(*ends, t))
        smallest = min(smallest, (logits[:, y] - logits[:, target]).min().item())
    weights = [m.weight.detach() for m in model if isinstance(m, nn.Linear)]
    lipschitz = math.prod(torch.linalg.matrix_norm(w, 2).item() for w in weights[:-1])
    lipschitz *= (weights[-1][y] - weights[-1][target]).norm().item()
    step = (high[1] - low[1]).item() / (lines - 1)
    return smallest - lipschitz * step / 2, smallest


def rivals(y, k=3):
    """The classes other than ``y``."""
    return [j for j in range(k) if j != int(y)]


@pytest.mark.parametrize("eps", [0.1, 0.4])
@pytest.mark.parametrize("seed", range(3))
def test_milp_is_the_minimum_over_all_patterns(seed, eps):
    """A linear program for each of 128 patterns gives the same number."""
    model, x, y = network("one", seed)
    j = rivals(y[0])[seed % 2]
    found = exact.milp_margin(model, x[:1], y[:1], j, eps)
    truth = by_patterns(model, x[:1], int(y[0]), j, eps)
    assert found.status == "optimal"
    assert found.bound == pytest.approx(truth, abs=1e-5)
    assert found.margin == pytest.approx(truth, abs=1e-5)


@pytest.mark.parametrize("box", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_milp_in_the_plane_lies_in_the_bracket_of_lines(seed, box):
    """401 parallel segments, exact by breakpoints, and the Lipschitz slack."""
    model, x, y = network("plane", seed)
    x = 0.4 + 0.2 * x if not box else x  # without the box the ball stays inside it
    eps = 0.3
    for j in rivals(y[0]):
        found = exact.milp_margin(model, x[:1], y[:1], j, eps, box=box)
        low, high = on_lines(model, x[:1], int(y[0]), j, eps)
        assert low - 1e-6 <= found.bound <= high + 1e-6
        assert high - low < 0.05  # narrow enough to see a wrong answer


@pytest.mark.parametrize("eps", [0.0, 0.1, 0.5])
def test_linear_networks_have_a_closed_form(eps):
    """No ReLU: the program is linear and its optimum is the formula of chapter 2."""
    model = models.seeded(models.linear, (1, 3, 3), 4, seed=1).double()
    x, y = torch.rand((3, 1, 3, 3)).double(), torch.tensor([0, 1, 3])
    truth = linear.pairwise_margins(model, x, y, eps)
    verdicts = exact.milp_robust(model, x, y, eps)
    for i in range(3):
        margins = []
        for j in rivals(y[i], 4):
            found = exact.milp_margin(model, x[i : i + 1], y[i : i + 1], j, eps)
            assert found.bound == pytest.approx(truth[i, j].item(), abs=1e-7)
            margins.append(truth[i, j].item())
        expected = "certified" if min(margins) > 0 else "attacked"
        assert verdicts[i].status == expected


@pytest.mark.parametrize("kind", ["deep", "cnn", "residual"])
@given(seed=st.integers(0, 10**6), eps=st.sampled_from([0.05, 0.2, 0.6]))
@settings(MODEST, max_examples=8)
def test_no_sampled_point_is_below_and_the_returned_one_attains(kind, seed, eps):
    """Soundness on 2000 points, corners among them; delta is allowed and attains."""
    model, x, y = network(kind, seed)
    x, y = x[:1], y[:1]
    j = rivals(y[0])[seed % 2]
    found = exact.milp_margin(model, x, y, j, eps)
    low, high = bounds.input_box(x, eps)
    generator = torch.Generator().manual_seed(seed)
    share = torch.rand((2000, *x.shape[1:]), generator=generator).double()
    share[1000:] = share[1000:].round()
    with torch.no_grad():
        logits = model(low + share * (high - low))
        there = model(x + found.delta)[0]
    assert (logits[:, y[0]] - logits[:, j]).min() >= found.bound - 1e-6
    assert found.delta.abs().max() <= eps + 1e-12
    assert (x + found.delta).min() >= -1e-12
    assert (x + found.delta).max() <= 1 + 1e-12
    assert (there[y[0]] - there[j]).item() == pytest.approx(found.margin, abs=1e-9)
    assert found.margin - found.bound == pytest.approx(0, abs=2e-5)


@pytest.mark.parametrize("kind", ["deep", "residual"])
@pytest.mark.parametrize("seed", range(3))
def test_every_choice_of_big_m_gives_the_same_optimum(kind, seed):
    """Naive, interval, CROWN, LP: the bounds change the time, not the answer."""
    model, x, y = network(kind, seed)
    x, y, eps = x[:1], y[:1], 0.2
    chosen = [
        exact.big_m_bounds(model, x, eps, method=m)
        for m in ("naive", "interval", "crown")
    ]
    chosen.append(relaxations.lp_bounds(model, *bounds.input_box(x, eps)))
    j = rivals(y[0])[0]
    found = [exact.milp_margin(model, x, y, j, eps, pre=pre).bound for pre in chosen]
    assert found == pytest.approx([found[0]] * 4, abs=1e-5)
    signs = [exact.milp_robust(model, x, y, eps, pre=p)[0].status for p in chosen]
    assert len(set(signs)) == 1


def test_naive_bounds_are_one_number_that_holds_everywhere():
    """-M and M for all units, and no unit's interval reaches beyond."""
    model, x, _ = network("deep", 0)
    naive = exact.big_m_bounds(model, x, 0.2, method="naive")
    tight = exact.big_m_bounds(model, x, 0.2, method="interval")
    for i in range(2):
        assert len({v for low, high in naive for v in high[i].tolist()}) == 1
        for (low, high), (least, most) in zip(naive, tight, strict=True):
            assert torch.equal(low[i], -high[i])
            assert (low[i] <= least[i]).all()
            assert (high[i] >= most[i]).all()


@pytest.mark.parametrize("kind", ["deep", "cnn", "residual"])
@given(seed=st.integers(0, 10**6), eps=st.sampled_from([0.02, 0.1, 0.3]))
@settings(MODEST, max_examples=10)
def test_the_sign_question_agrees_with_the_minimum(kind, seed, eps):
    """Certified iff every minimum is positive; a counterexample is checked here."""
    model, x, y = network(kind, seed)
    for i, verdict in enumerate(exact.milp_robust(model, x, y, eps)):
        one = x[i : i + 1], y[i : i + 1]
        least = min(exact.milp_margin(model, *one, j, eps).margin for j in rivals(y[i]))
        if abs(least) > 1e-5:
            assert verdict.status == ("certified" if least > 0 else "attacked")
        if verdict.status == "certified":
            assert 0 < verdict.bound <= least + 1e-5
        if verdict.status == "attacked":
            x_adv = one[0] + verdict.delta
            assert verdict.delta.abs().max() <= eps + 1e-12
            assert x_adv.min() >= -1e-12
            assert x_adv.max() <= 1 + 1e-12
            with torch.no_grad():
                logits = model(x_adv)[0]
            assert logits[y[i]] <= logits[rivals(y[i])].max() + 1e-12


# --------------------------------------------------- what a stopped solver proves


def planted(sense, stop: int):
    """A knapsack equation with a planted solution: optimum 103 (min) or 97 (max).

    The distance to the right-hand side is 3 at least, by an extra column; stopped after
    ``stop`` nodes HiGHS holds an incumbent that is worse.
    """
    rng = np.random.default_rng(3)
    weights = rng.integers(1000, 9999, (3, 30))
    solution = rng.integers(0, 2, 30)
    x, gap = cp.Variable(30, boolean=True), cp.Variable(3, nonneg=True)
    rows = [gap >= weights @ x - weights @ solution]
    rows += [gap >= weights @ solution - weights @ x]
    distance = cp.sum(gap) + 100 + 3
    objective = cp.Minimize(distance) if sense == "min" else cp.Maximize(-distance)
    problem = cp.Problem(objective, rows)
    with pytest.warns(UserWarning, match="inaccurate"):
        problem.solve(solver=cp.HIGHS, mip_max_nodes=stop)
    return problem


@pytest.mark.parametrize(("sense", "optimum"), [("min", 103), ("max", -103)])
def test_a_stopped_solver_leaves_the_incumbent_and_we_return_the_bound(sense, optimum):
    """The trap: value is no bound at all, mip_dual_bound lacks constant and sign."""
    problem = planted(sense, stop=20)
    assert problem.status == cp.USER_LIMIT
    bound, sign = exact.proven_bound(problem), 1 if sense == "min" else -1
    assert sign * problem.value > sign * optimum + 1  # only the incumbent
    assert sign * bound <= sign * optimum + 1e-6  # proven
    raw = problem.solver_stats.extra_stats.mip_dual_bound
    assert abs(raw - bound) > 50  # as it stands it is not the bound of this problem


@pytest.mark.parametrize(("sense", "optimum"), [("min", 97), ("max", 103)])
def test_a_finished_solver_proves_the_optimum(sense, optimum):
    """With a constant, in both senses; values of the variables are left alone."""
    x = cp.Variable(3, boolean=True)
    objective = cp.Minimize(100 - cp.sum(x)) if sense == "min" else (
        cp.Maximize(cp.sum(x) + 100)
    )  # fmt: skip
    problem = cp.Problem(objective)
    problem.solve(solver=cp.HIGHS)
    assert exact.proven_bound(problem) == pytest.approx(optimum)
    assert x.value == pytest.approx([1, 1, 1])
    with pytest.raises(ValueError, match="mixed-integer"):
        exact.proven_bound(cp.Problem(cp.Minimize(cp.sum(cp.Variable(2)))))


def hard():
    """A network whose program takes HiGHS many seconds, and its optimum by others."""
    model = models.seeded(models.mlp, (1, 6, 6), [24, 24], 3, seed=5).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    x = torch.rand((1, 1, 6, 6), generator=torch.Generator().manual_seed(5)).double()
    return model, x, model(x).argmax(1)


def test_a_timed_out_margin_is_a_bound():
    """Stopped at once or soon, bound <= every attained margin, and >= CROWN's."""
    model, x, y = hard()
    crown = bounds.crown_margins(model, x, y, 0.3)
    j = rivals(y[0])[0]
    attained = []
    for limit in (0.0, 0.05, 0.3):
        found = exact.milp_margin(model, x, y, j, 0.3, time_limit=limit)
        assert found.status == "time_limit"
        assert found.bound >= crown[0, j].item() - 1e-9
        attained.append(found)
    least = min(found.margin for found in attained)
    assert all(found.bound <= least + 1e-6 for found in attained)
    assert attained[0].bound < attained[0].margin - 0.1  # not the incumbent


def test_a_timed_out_sign_is_unknown_and_its_bound_is_proven():
    """Neither certified nor attacked: the bound is CROWN's or better, below zero."""
    model, x, y = hard()
    (found,) = exact.milp_robust(model, x, y, 0.15, time_limit=0.02)
    assert found.status == "unknown"
    assert found.delta is None
    crown = bounds.crown_margins(model, x, y, 0.15)[0]
    assert min(crown[j].item() for j in rivals(y[0])) - 1e-9 <= found.bound <= 0


def test_a_margin_within_the_tolerance_is_not_certified():
    """A minimum of 1e-8 is no attack, one of -1e-8 is: the network decides."""
    model = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 2)).double().eval()
    with torch.no_grad():
        model[0].weight.fill_(1.0)
        model[0].bias.fill_(-0.5)
        model[2].weight.copy_(torch.tensor([[1.0], [0.0]]))
        model[2].bias.copy_(torch.tensor([1e-8, 0.0]))
    x, y = torch.full((1, 1), 0.5).double(), torch.tensor([0])
    pre = exact.big_m_bounds(model, x, 0.3, method="naive")
    (found,) = exact.milp_robust(model, x, y, 0.3, pre=pre)
    assert found.status in ("unknown", "certified")
    with torch.no_grad():
        model[2].bias.copy_(torch.tensor([-1e-8, 0.0]))
    assert exact.milp_robust(model, x, y, 0.3)[0].status == "attacked"


@pytest.mark.parametrize("end", [cp.SOLVER_ERROR, cp.UNBOUNDED])
def test_another_status_raises(monkeypatch, end):
    """What is neither an optimum nor a limit is no answer."""
    model, x, y = network("one", 0)
    monkeypatch.setattr(cp.Problem, "solve", lambda *_, **__: None)
    monkeypatch.setattr(cp.Problem, "status", end)
    with pytest.raises(RuntimeError, match="HiGHS"):
        exact.milp_margin(model, x[:1], y[:1], rivals(y[0])[0], 0.3)


def test_a_solver_error_is_named(monkeypatch):
    """cvxpy's own exception becomes a RuntimeError that says what failed."""
    model, x, y = network("one", 0)

    def fail(*_, **__):
        raise cp.SolverError("no")

    monkeypatch.setattr(cp.Problem, "solve", fail)
    with pytest.raises(RuntimeError, match="HiGHS failed"):
        exact.milp_margin(model, x[:1], y[:1], rivals(y[0])[0], 0.3)


# ---------------------------------------------------------------------- bad input


def bad_inputs():
    """What every exact method refuses, and the error's type and words."""
    model, x, y = network("one", 0)
    nan = models.seeded(models.mlp, (1, 4, 4), [7], 3, seed=0).double()
    with torch.no_grad():
        nan[1].weight[0, 0] = math.nan
    sigmoid = nn.Sequential(nn.Flatten(), nn.Linear(16, 3), nn.Sigmoid()).double()
    train = models.seeded(models.mlp, (1, 4, 4), [7], 3, seed=0).double().train()
    return {
        "eps < 0": (model, x, y, -0.1, ValueError, "eps"),
        "eps in 255ths": (model, x, y, 8, ValueError, "pixels"),
        "x outside": (model, x + 1, y, 0.1, ValueError, r"\[0, 1\]"),
        "x NaN": (model, x * math.nan, y, 0.1, ValueError, "NaN"),
        "label too large": (model, x, y * 0 + 3, 0.1, ValueError, "label"),
        "label negative": (model, x, y * 0 - 1, 0.1, ValueError, "label"),
        "label float": (model, x, y.double(), 0.1, TypeError, "int64"),
        "NaN weights": (nan, x, y, 0.1, ValueError, "NaN"),
        "unknown layer": (sigmoid.eval(), x, y, 0.1, TypeError, "Sigmoid"),
        "train mode": (train, x, y, 0.1, ValueError, "train"),
    }


@pytest.mark.parametrize("case", bad_inputs())
def test_bad_input_is_refused(case):
    """Each with a clear error, by both programs."""
    model, x, y, eps, error, words = bad_inputs()[case]
    with pytest.raises(error, match=words):
        exact.milp_robust(model, x, y, eps)
    with pytest.raises(error, match=words):
        exact.milp_margin(model, x[:1], y[:1], 2, eps)


def test_bad_targets_bounds_and_methods_are_refused():
    """Targets that are no other class; pre of the wrong kind; several images."""
    model, x, y = network("one", 0)
    one = x[:1], y[:1]
    for target in (-1, 3, int(y[0])):
        with pytest.raises(ValueError, match="target"):
            exact.milp_margin(model, *one, target, 0.1)
    j = rivals(y[0])[0]
    with pytest.raises(ValueError, match="one image"):
        exact.milp_margin(model, x, y, j, 0.1)
    with pytest.raises(ValueError, match="method"):
        exact.big_m_bounds(model, x, 0.1, method="guess")
    (pre,) = exact.big_m_bounds(model, one[0], 0.1)
    narrow = torch.full_like(pre[0], 1e-3)  # no input gives such small values
    with pytest.raises(ValueError, match="pre are no bounds"):
        exact.milp_margin(model, *one, j, 0.1, pre=[(-narrow, narrow)])
    for wrong in ([], [pre, pre], [(pre[0][:, :3], pre[1][:, :3])]):
        with pytest.raises(ValueError, match="pre"):
            exact.milp_margin(model, *one, j, 0.1, pre=wrong)
    with pytest.raises(ValueError, match="finite"):
        exact.milp_margin(model, *one, j, 0.1, pre=[(pre[0] - math.inf, pre[1])])


def test_float32_models_are_solved_in_float64_and_left_alone():
    """The same numbers as the model in double; gradients and dtype untouched."""
    model, x, y = network("deep", 3)
    single = models.seeded(models.mlp, (1, 4, 4), [6, 5, 4], 3, seed=0)
    single.load_state_dict(model.state_dict())
    x32 = x[:1].float()
    j = rivals(y[0])[0]
    found = exact.milp_margin(single, x32, y[:1], j, 0.1)
    twin = exact.milp_margin(single.double(), x32.double(), y[:1], j, 0.1)
    assert found.bound == pytest.approx(twin.bound, abs=1e-9)
    assert found.delta.dtype == torch.float64
    assert all(p.requires_grad and p.grad is None for p in single.parameters())
