"""Breakpoints on a segment against fine grids and midpoints."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from advlib import exact, models

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
