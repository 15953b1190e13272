"""Branch and bound against integer programs, patterns, formulas and samples."""

import copy
import functools
import math
import tracemalloc

import joblib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from torch import nn

from advlib import bounds, branch_and_bound, exact, linear, models
from advlib.exact import encoding, leaves, scaling, splits
from advlib.networks.canonical import affine_matrix, canonical_double, output_shape

MODEST = settings(deadline=None, max_examples=8, derandomize=True, database=None)
bab, minimal = branch_and_bound.branch_and_bound, branch_and_bound.minimal_margin


def conv() -> nn.Sequential:
    """Two convolutions, one with stride and padding, and a dense head."""
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(3, 2, 2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2, 4),
        nn.ReLU(),
        nn.Linear(4, 3),
    )


def residual() -> nn.Sequential:
    """A sum whose body and shortcut both have ReLUs, then another layer."""
    body = nn.Sequential(nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 5))
    side = nn.Sequential(nn.Linear(5, 5), nn.ReLU())
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(16, 5),
        models.Residual(body, side),
        nn.Linear(5, 6),
        nn.ReLU(),
        nn.Linear(6, 3),
    )


BUILDS = {
    "dense": lambda: models.mlp((1, 4, 4), [7, 6], 3),
    "deep": lambda: models.mlp((1, 4, 4), [5, 5, 5, 4], 3),
    "conv": conv,
    "residual": residual,
}


def network(kind: str, seed: int, images: int = 2):
    """A random network in float64, images, and the classes it gives them."""
    model = models.seeded(BUILDS[kind], seed=seed).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator).double()
            parameter.mul_(1.7).add_(0.1 * noise)
    x = torch.rand((images, 1, 4, 4), generator=generator).double()
    with torch.no_grad():
        return model, x, model(x).argmax(1)


def margins_at(model, x, y):
    """The margin of each point of ``x``, label ``y``."""
    with torch.no_grad():
        logits = model(x)
    rest = [j for j in range(logits.shape[1]) if j != y]
    return logits[:, y] - logits[:, rest].amax(1)


def by_programs(model, x, y, eps):
    """The smallest margin of one image by one integer program for each class."""
    found = [exact.milp_margin(model, x, y, j, eps) for j in range(3) if j != int(y)]
    return min(f.bound for f in found), min(f.margin for f in found)


@pytest.mark.parametrize("kind", BUILDS)
@given(seed=st.integers(0, 10**6), eps=st.sampled_from([0.03, 0.1, 0.3, 0.8]))
@MODEST
def test_both_exact_methods_agree(kind, seed, eps):
    """The margin to the solver's tolerance, and hence the verdict."""
    model, x, y = network(kind, seed)
    verdicts = bab(model, x, y, eps)
    found = minimal(model, x, y, eps, tolerance=1e-6)
    for i in range(2):
        one = x[i : i + 1], y[i : i + 1]
        low, high = by_programs(model, *one, eps)
        assert found[i].status == "optimal"
        assert found[i].bound == pytest.approx(low, abs=2e-5)
        assert found[i].margin == pytest.approx(high, abs=2e-5)
        if abs(high) > 2e-5:
            assert verdicts[i].status == ("certified" if high > 0 else "attacked")


@pytest.mark.parametrize("kind", BUILDS)
@given(seed=st.integers(0, 10**6), eps=st.sampled_from([0.05, 0.2, 0.5]))
@MODEST
def test_no_sampled_point_contradicts_and_counterexamples_are_real(kind, seed, eps):
    """2000 points, corners among them, never below; delta allowed, and attained."""
    model, x, y = network(kind, seed, images=1)
    (verdict,), (found,) = bab(model, x, y, eps), minimal(model, x, y, eps)
    low, high = bounds.input_box(x, eps)
    generator = torch.Generator().manual_seed(seed)
    share = torch.rand((2000, 1, 4, 4), generator=generator).double()
    share[1000:] = share[1000:].round()
    least = margins_at(model, low + share * (high - low), int(y)).min().item()
    assert found.bound <= min(least, found.margin) + 1e-9
    assert found.margin <= found.bound + 1e-4 + 1e-9
    assert not (verdict.status == "certified" and least <= 0)
    deltas = [found.delta] + ([verdict.delta] if verdict.delta is not None else [])
    for delta in deltas:
        assert delta.abs().max() <= eps + 1e-12
        assert (x + delta).min() >= -1e-12
        assert (x + delta).max() <= 1 + 1e-12
    there = margins_at(model, x + found.delta, int(y)).item()
    assert there == pytest.approx(found.margin, abs=1e-9)
    if verdict.delta is not None:
        assert margins_at(model, x + verdict.delta, int(y)) <= 1e-12


@pytest.mark.parametrize("seed", range(3))
def test_bounds_of_subproblems_hold_on_their_branch(seed):
    """Random phases: no sampled point that obeys them is below the bound.

    The bound with multipliers is above the one without on many branches, so it is
    the branch that makes it true, not slack.
    """
    model, x, y = network("dense", seed, images=1)
    net = canonical_double(model, x.shape[1:])
    box = bounds.input_box(x, 0.4)
    search = splits.Search(net, x, y, box)
    roots = search.root(torch.tensor([0]))
    generator = torch.Generator().manual_seed(seed)
    share = torch.rand((20000, 1, 4, 4), generator=generator).double()
    points = box[0] + share * (box[1] - box[0])
    before, z = [], points
    with torch.no_grad():
        for layer in net:
            if isinstance(layer, nn.ReLU):
                before.append(z.flatten(1))
            z = layer(z)
    before, checked = torch.cat(before, 1), 0
    for _ in range(20):
        nodes = roots.take(torch.arange(2))
        free = ((nodes.low < 0) & (nodes.high > 0))[0].nonzero()[:, 0]
        for unit in free[torch.randperm(len(free), generator=generator)[:3]]:
            nodes.phase[:, unit] = 1 - 2 * int(
                torch.rand((), generator=generator) > 0.5
            )
            nodes.unit[:] = unit
            search.tighten(nodes)
        search.bound(nodes, torch.full((2,), torch.inf).double(), 15)
        held = nodes.phase[0] != 0
        obey = (before[:, held] * nodes.phase[0, held] >= 0).all(1)
        if not obey.any():
            continue
        checked += 1
        for bound, target in zip(nodes.bound, nodes.target, strict=True):
            least = (z[obey, y[0]] - z[obey, target]).min()
            assert bound <= least + 1e-9
            assert (before[obey] >= nodes.low[0] - 1e-9).all()
            assert (before[obey] <= nodes.high[0] + 1e-9).all()
    assert checked >= 5


@pytest.mark.parametrize("eps", [0.0, 0.1, 0.5])
def test_linear_networks_have_a_closed_form(eps):
    """No ReLU, nothing to split: the root bound is the formula of chapter 2."""
    model = models.seeded(models.linear, (1, 3, 3), 4, seed=1).double()
    generator = torch.Generator().manual_seed(0)
    x = torch.rand((4, 1, 3, 3), generator=generator).double()
    y = model(x).argmax(1)
    truth = linear.pairwise_margins(model, x, y, eps).detach()
    truth = truth.scatter(1, y[:, None], torch.inf).amin(1)
    for found, verdict, least in zip(
        minimal(model, x, y, eps), bab(model, x, y, eps), truth, strict=True
    ):
        assert found.margin == pytest.approx(least.item(), abs=1e-9)
        assert found.bound == pytest.approx(least.item(), abs=1e-9)
        assert verdict.status == ("certified" if least > 0 else "attacked")


def test_a_tie_counts_as_attacked():
    """|x| - 0 at x = 0 is a tie and the only one: found, and not certified."""
    model = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 2)).double().eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0], [-1.0]]))
        model[0].bias.copy_(torch.tensor([-0.5, 0.5]))
        model[2].weight.copy_(torch.tensor([[1.0, 1.0], [0.0, 0.0]]))
        model[2].bias.zero_()
    x, y = torch.tensor([[0.3]]).double(), torch.tensor([0])
    assert bab(model, x, y, 0.1)[0].status == "certified"
    assert bab(model, x, y, 0.25)[0].status in ("attacked", "unknown")
    with torch.no_grad():
        model[2].bias.copy_(torch.tensor([-1e-4, 0.0]))
    assert bab(model, x, y, 0.25)[0].status == "attacked"


def test_images_that_are_wrong_or_alone_or_together():
    """Clean errors are attacked by delta = 0; a batch says what single calls say."""
    model, x, y = network("dense", 3, images=6)
    y[0] = (y[0] + 1) % 3
    together = bab(model, x, y, 0.1)
    assert together[0].status == "attacked"
    assert together[0].delta.abs().max() == 0
    for i, verdict in enumerate(together):
        (alone,) = bab(model, x[i : i + 1], y[i : i + 1], 0.1)
        assert alone.status == verdict.status
    assert {v.status for v in together} == {"attacked", "certified"}


def hard():
    """A network that keeps the search busy for many rounds."""
    model = models.seeded(models.mlp, (1, 6, 6), [24, 24], 3, seed=5).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    x = torch.rand((1, 1, 6, 6), generator=torch.Generator().manual_seed(5)).double()
    return model, x, model(x).argmax(1)


@pytest.mark.parametrize("stop", [{"time_limit": 0.0}, {"max_nodes": 60}])
def test_a_stopped_search_is_unknown_and_its_bound_is_proven(stop):
    """Bounds of both modes: below every attained margin, above plain CROWN."""
    model, x, y = hard()
    (full,) = minimal(model, x, y, 0.15, tolerance=0.5)
    (found,) = minimal(model, x, y, 0.15, tolerance=1e-3, **stop)
    assert found.status == "time_limit"
    assert found.bound <= full.margin + 1e-9
    crown = bounds.crown_margins(model, x, y, 0.15)[0]
    least = min(crown[j].item() for j in range(3) if j != int(y))
    assert found.bound >= least - 1e-9
    (verdict,) = bab(model, x, y, 0.12, **stop)
    if verdict.status == "unknown":
        assert verdict.bound <= 0
        assert verdict.delta is None


EASY = [0, 6, 7, 8, 26, 32, 43, 52, 54, 56]  # 34 to 158 subproblems each, at 0.1
HARD = 16  # over three thousand


@functools.cache
def crowd():
    """A network, and sixty images that it gets right."""
    model = hard()[0]
    generator = torch.Generator().manual_seed(7)
    x = torch.rand((60, 1, 6, 6), generator=generator).double()
    return model, x, model(x).argmax(1)


def said(index, **limits):
    """Statuses and numbers of subproblems of the images ``index``, in one call."""
    model, x, y = crowd()
    found = bab(model, x[index], y[index], 0.1, **limits)
    return {i: (v.status, v.nodes) for i, v in zip(index, found, strict=True)}


ORDERS = [[HARD, *EASY], [*EASY, HARD], [*EASY[5:], HARD, *EASY[4::-1]]]


def test_a_hard_image_takes_nothing_from_its_neighbours():
    """First, in the middle, last: each image is told what it is told alone."""
    alone = {}
    for i in [*EASY, HARD]:
        alone |= said([i], max_nodes=600)
    assert {alone[i][0] for i in EASY} == {"certified"}
    assert alone[HARD][0] == "unknown"
    assert 600 <= alone[HARD][1] <= 600 + 512
    for order in ORDERS:
        assert said(order, max_nodes=600) == alone


def test_bounds_and_points_do_not_depend_on_the_neighbours_either():
    """To rounding: of stopped searches, of finished ones, and of the minimum."""
    model, x, y = crowd()
    index = torch.tensor([HARD, *EASY[:4]])
    together = bab(model, x[index], y[index], 0.1, max_nodes=300)
    least = minimal(model, x[index], y[index], 0.1, tolerance=0.05, max_nodes=300)
    for k, i in enumerate(index.tolist()):
        one = x[i : i + 1], y[i : i + 1]
        (alone,) = bab(model, *one, 0.1, max_nodes=300)
        assert together[k].bound == pytest.approx(alone.bound, abs=1e-9)
        (alone,) = minimal(model, *one, 0.1, tolerance=0.05, max_nodes=300)
        assert least[k].status == alone.status
        assert least[k].bound == pytest.approx(alone.bound, abs=1e-9)
        assert least[k].margin == pytest.approx(alone.margin, abs=1e-9)


@pytest.mark.parametrize("order", ORDERS)
def test_a_total_is_shared_in_turns(order, monkeypatch):
    """Who had least comes next: a hard image cannot use up what ten easy ones need.

    In small batches, where they cannot ride along in what the hard one leaves free.
    """
    monkeypatch.setattr(branch_and_bound, "WORK", 1)
    found = said(order, total_nodes=1500)
    assert {found[i][0] for i in EASY} == {"certified"}
    assert found[HARD][0] == "unknown"
    assert 1500 <= sum(nodes for _, nodes in found.values()) <= 1500 + 8
    none = said(order, total_time=0.0)
    assert {status for status, _ in none.values()} == {"unknown"}


def test_limits_of_time_are_per_image_and_count_this_process(monkeypatch):
    """A clock that stands still stops nobody; an image that ran out stops alone."""
    model, x, y = crowd()
    index = torch.tensor([HARD, *EASY])
    real = branch_and_bound.time.process_time
    monkeypatch.setattr(branch_and_bound.time, "process_time", lambda: 0.0)
    found = bab(model, x[index], y[index], 0.1, time_limit=0.0, max_nodes=600)
    assert [v.status for v in found] == ["unknown"] + ["certified"] * len(EASY)
    assert all(v.seconds == 0 for v in found)
    monkeypatch.setattr(branch_and_bound.time, "process_time", real)
    begin = real()
    found = bab(model, x[index], y[index], 0.1, max_nodes=600)
    spent = real() - begin
    assert sum(v.seconds for v in found) == pytest.approx(spent, rel=0.1)
    assert found[0].seconds > max(v.seconds for v in found[1:])


@pytest.mark.parametrize("factor", [1e-12, 1e-6, 1e6, 1e12])
@pytest.mark.parametrize("kind", ["dense", "conv", "residual"])
def test_verdicts_do_not_depend_on_the_scale_of_the_weights(kind, factor):
    """Logits and first layer times a factor: bounds follow, nothing is lost."""
    for seed in range(2):
        model, x, y = network(kind, seed)
        other = copy.deepcopy(model)
        layers = [m for m in other.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
        with torch.no_grad():
            layers[-1].weight.mul_(factor)
            layers[-1].bias.mul_(factor)
            if kind != "residual":
                layers[0].weight.mul_(factor)
                for layer in layers[:-1]:
                    layer.bias.mul_(factor)
                layers[-1].weight.div_(factor)
        for eps in (0.05, 0.3):
            pairs = zip(bab(model, x, y, eps), bab(other, x, y, eps), strict=True)
            for first, second in pairs:
                assert first.status == second.status
            first = minimal(model, x, y, eps, tolerance=1e-3)
            second = minimal(other, x, y, eps, tolerance=1e-3 * factor)
            for one, two in zip(first, second, strict=True):
                assert two.bound / factor <= one.margin + 1e-9
                assert two.bound / factor == pytest.approx(one.bound, abs=1.1e-3)


def test_a_network_near_one_is_left_as_it_is():
    """Bit for bit: the search sees the network's own numbers."""
    for kind in BUILDS:
        model, x, _ = network(kind, 0)
        net = canonical_double(model, x.shape[1:])
        same, unit = scaling.near_one(net, x[:1])
        assert same is net
        assert unit == 1


@pytest.mark.parametrize("factor", [1e-9, 1e7])
def test_a_network_brought_near_one_is_the_same_function(factor):
    """Powers of two alone: equal logits, bit for bit, but for the unit."""
    for kind in BUILDS:
        model, x, _ = network(kind, 1)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(factor)
        net = canonical_double(model, x.shape[1:])
        other, unit = scaling.near_one(net, x[:1])
        assert other is not net
        assert math.frexp(unit)[0] == 0.5
        with torch.no_grad():
            assert torch.equal(net(x), other(x) * unit)
            assert 2**-12 < other(torch.full_like(x, 0.5)).abs().max() < 2**12


def test_bounds_that_overflow_are_refused():
    """NaN would count as a unit that is off."""
    model = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 2)).double().eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1e308], [1e308]]))
        model[0].bias.fill_(-1e308)
        model[2].weight.fill_(0.0)
    x, y = torch.tensor([[1.0]]).double(), torch.tensor([0])
    with pytest.raises(ValueError, match=r"overflow|NaN|infinity"):
        bab(model, x, y, 1.0, box=False)


# ------------------------------------------------------------------ linear programs


def dense_leaf(model, x, y, target, eps, phase):
    """The smallest margin where the units have the signs ``phase``, by dense matrices.

    Also whether it is a minimum: no point may have these signs.
    """
    low, high = (end.flatten().numpy() for end in bounds.input_box(x, eps))
    matrix, constant, rows, sides = np.eye(len(low)), np.zeros(len(low)), [], []
    signs, shape = iter(np.split(phase, np.cumsum(relu_sizes(model, x))[:-1])), x.shape
    for layer in canonical_double(model, x.shape[1:]):
        if isinstance(layer, nn.ReLU):
            sign = next(signs)
            rows.append(-sign[:, None] * matrix)
            sides.append(sign * constant)
            on = sign > 0
            matrix, constant = on[:, None] * matrix, on * constant
        elif not isinstance(layer, nn.Flatten):
            weight, bias = affine_matrix(layer, shape[1:])
            matrix = weight.numpy() @ matrix
            constant = weight.numpy() @ constant + bias.numpy()
        shape = (1, *output_shape(layer, shape[1:]))
    cost = matrix[y] - matrix[target]
    found = linprog(cost, np.vstack(rows), np.concatenate(sides),
                    bounds=np.stack([low, high], 1))  # fmt: skip
    shift = constant[y] - constant[target]
    return found.status, (found.fun + shift if found.status == 0 else math.inf)


def relu_sizes(model, x):
    """The number of units of each ReLU."""
    return [low.numel() for low, _ in bounds.relu_bounds(model, x[:1], x[:1])]


@pytest.mark.parametrize("kind", ["dense", "conv"])
@pytest.mark.parametrize("factor", [1e-9, 1.0, 1e9])
def test_leaf_programs_are_the_dense_programs_at_every_scale(kind, factor):
    """Minimum and emptiness, with phases of points of the ball and with random ones."""
    kinds = set()
    for seed in range(4):
        model, x, y = network(kind, seed, images=1)
        eps, target, plain = 0.3, (int(y) + 1) % 3, copy.deepcopy(model)
        with torch.no_grad():
            model[-1].weight.mul_(factor)
            model[-1].bias.mul_(factor)
        net = canonical_double(model, x.shape[1:])
        box = bounds.input_box(x, eps)
        search = splits.Search(net, x, y, box)
        generator = torch.Generator().manual_seed(seed)
        for trial in range(6):
            share = torch.rand(x.shape, generator=generator).double()
            z, found = box[0] + share * (box[1] - box[0]), []
            for layer in net:
                if isinstance(layer, nn.ReLU):
                    found.append(z.flatten())
                z = layer(z)
            phase = torch.where(torch.cat(found) > 0, 1, -1).to(torch.int8)
            flip = torch.rand(len(phase), generator=generator) < 0.1 * (trial % 3)
            phase = torch.where(flip, -phase, phase)
            node = search.root(torch.tensor([0])).take(torch.tensor([0]))
            node.target[0], node.phase[0] = target, phase
            value, point = leaves.leaf_program(search, node)
            status, least = dense_leaf(
                plain, x, int(y), target, eps, phase.double().numpy()
            )
            least *= factor
            kinds.add(status)
            if status == 0:
                assert value <= least + 1e-7 * max(1, factor)
                assert value == pytest.approx(least, rel=1e-5, abs=1e-6 * factor + 2e-9)
                assert (box[0] <= point).all()
                assert (point <= box[1]).all()
            else:
                assert value in (math.inf, -math.inf)
                assert point is None
    assert kinds == {0, 2}


def test_an_empty_leaf_is_believed_only_with_a_proof(monkeypatch):
    """A solver that calls everything infeasible proves nothing."""
    model, x, y = network("dense", 0, images=1)
    real, calls = leaves.linprog, []

    def lying(*arguments, **options):
        found = real(*arguments, **options)
        calls.append(found.status)
        found.status = 2 if len(calls) % 2 else found.status
        return found

    monkeypatch.setattr(leaves, "linprog", lying)
    net = canonical_double(model, x.shape[1:])
    search = splits.Search(net, x, y, bounds.input_box(x, 0.1))
    node = search.root(torch.tensor([0])).take(torch.tensor([0]))
    with torch.no_grad():
        before = [net[1](x.flatten(1)), net[3](net[:3](x))]
    node.phase[0] = torch.where(torch.cat(before, 1)[0] > 0, 1, -1)
    assert leaves.leaf_program(search, node) == (-math.inf, None)
    assert calls == [0, 0]


def test_programs_of_convolutions_are_sparse():
    """32 x 32 pixels: one dense matrix of the first layer would be 200 MB."""
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 4, 4, stride=4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, 3),
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for parameter in model.double().eval().requires_grad_(False).parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)).double()
    y = model(x).argmax(1)
    search = splits.Search(model, x, y, bounds.input_box(x, 0.001))
    node = search.root(torch.tensor([0])).take(torch.tensor([0]))
    low, high = search.pre[0][0].flatten(), search.pre[0][1].flatten()
    node.phase[0, : len(low)] = torch.where(low + high > 0, 1, -1)
    tracemalloc.start()
    leaves.leaf_program(search, node)
    encoding.encode(model, search.corners, search.pre)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60e6


def test_nodes_that_hold_no_point_are_dropped():
    """A phase that the bounds exclude: contradicted, whichever way round."""
    model, x, y = network("dense", 0, images=1)
    net = canonical_double(model, x.shape[1:])
    search = splits.Search(net, x, y, bounds.input_box(x, 0.05))
    nodes = search.root(torch.tensor([0]))
    stable = ((nodes.low > 0.01) | (nodes.high < -0.01))[0].nonzero()[0, 0]
    excluded = -1 if nodes.low[0, stable] > 0 else 1
    nodes.phase[0, stable], nodes.unit[0] = excluded, stable
    search.tighten(nodes)
    assert splits.contradicted(nodes).tolist() == [True, False]


def test_sweeps_are_the_same_with_two_workers():
    """joblib: one process, two processes, another chunk: identical verdicts."""
    model, x, y = network("dense", 1, images=6)
    runs = [
        branch_and_bound.exact_error(model, x, y, 0.1, n_jobs=jobs, chunk=chunk)
        for jobs, chunk in ((1, 1), (2, 1), (None, 4))
    ]
    with joblib.parallel_config(backend="threading", n_jobs=2):
        runs.append(branch_and_bound.exact_error(model, x, y, 0.1))
    listed = [[(v.status, v.nodes) for v in run.verdicts] for run in runs]
    assert listed[0] == listed[1] == listed[3]
    assert [s for s, _ in listed[2]] == [s for s, _ in listed[0]]
    assert runs[0].verdicts[0].bound == runs[1].verdicts[0].bound
    programs = branch_and_bound.exact_error(
        model, x, y, 0.1, verify=exact.milp_robust, chunk=2, time_limit=60.0
    )
    assert [v.status for v in programs.verdicts] == [s for s, _ in listed[0]]


def test_the_error_is_an_interval():
    """Attacked over n below, not certified over n above; seconds add up."""
    verdict = exact.Verdict("certified", 1.0, None, 0.5)
    listed = [verdict] * 6
    listed += [exact.Verdict("attacked", -math.inf, torch.zeros(1), 0.25)] * 3
    error = branch_and_bound.ExactError(
        (*listed, exact.Verdict("unknown", -1, None, 1))
    )
    assert (error.n, error.lower) == (10, 0.3)
    assert error.upper == pytest.approx(0.4)
    assert error.seconds == pytest.approx(4.75)
    assert error.number("unknown") == 1


def bad_inputs():
    """What is refused, with the error's type and words."""
    model, x, y = network("dense", 0)
    nan, _, _ = network("dense", 0)
    with torch.no_grad():
        nan[1].weight[0, 0] = math.nan
    sigmoid = nn.Sequential(nn.Flatten(), nn.Linear(16, 3), nn.Sigmoid()).double()
    train = network("dense", 0)[0].train()
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
    """Each with a clear error, in both modes and through the sweep."""
    model, x, y, eps, error, words = bad_inputs()[case]
    for method in (bab, minimal, branch_and_bound.exact_error):
        with pytest.raises(error, match=words):
            method(model, x, y, eps)


def test_bad_limits_are_refused():
    """Negative times, no nodes, no tolerance, no chunk."""
    model, x, y = network("dense", 0)
    for bad in (
        {"time_limit": -1.0},
        {"time_limit": math.nan},
        {"total_time": -1.0},
        {"max_nodes": 0},
        {"total_nodes": 0},
    ):
        for method in (bab, minimal):
            with pytest.raises(ValueError, match="need max_nodes") as error:
                method(model, x, y, 0.1, **bad)
            assert next(iter(bad)) in str(error.value)
    with pytest.raises(ValueError, match="tolerance"):
        minimal(model, x, y, 0.1, tolerance=0.0)
    with pytest.raises(ValueError, match="chunk"):
        branch_and_bound.exact_error(model, x, y, 0.1, chunk=0)


def test_float32_models_are_searched_in_float64_and_left_alone():
    """The verdicts of the model in double; gradients and dtype untouched."""
    model, x, y = network("dense", 4)
    single = models.seeded(BUILDS["dense"], seed=0)
    single.load_state_dict(model.state_dict())
    twin = models.seeded(BUILDS["dense"], seed=0).double()
    twin.load_state_dict(single.state_dict())
    found = bab(single, x.float(), y, 0.1)
    again = bab(twin, x.float().double(), y, 0.1)
    assert [f.status for f in found] == [f.status for f in again]
    assert all(p.grad is None and p.requires_grad for p in single.parameters())


def test_subproblems_are_cut_and_sorted_by_image():
    image = torch.tensor([2, 0, 2, 5, 0])
    part = torch.arange(5.0)[:, None].expand(5, 3)
    flat = (image, torch.arange(5)), (part.to(torch.int8), part, part, part, part)
    nodes = splits.Nodes(*flat[0], *flat[1], torch.arange(5.0), torch.arange(5))
    first, rest = nodes.cut(2)
    assert first.target.tolist() == [0, 1]
    assert rest.target.tolist() == [2, 3, 4]
    found = {i: n.target.tolist() for i, n in nodes.by_image().items()}
    assert found == {0: [1, 4], 2: [0, 2], 5: [3]}  # in their order
    assert nodes.cut(0)[0].by_image() == {}
    assert rest.join(first, first).target.tolist() == [2, 3, 4, 0, 1, 0, 1]
