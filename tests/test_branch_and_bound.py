"""Branch and bound against integer programs, patterns, formulas and samples."""

import math

import joblib
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from advlib import bounds, branch_and_bound, exact, linear, models
from advlib.exact import splits
from advlib.networks.canonical import canonical_double

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
    for bad in ({"time_limit": -1.0}, {"max_nodes": 0}):
        with pytest.raises(ValueError, match="need max_nodes"):
            bab(model, x, y, 0.1, **bad)
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
