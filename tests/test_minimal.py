"""Minimal-distortion attacks against closed forms, convex programs and brute force."""

import itertools
import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from advlib import attacks, data, models, zoo
from advlib.attacks.lbfgs import _cross_entropy, _Hinge, _Penalised
from advlib.exact import shortest_linear

ATTACKS = {
    "cross-entropy": attacks.lbfgs,
    "margin": lambda *a: attacks.lbfgs(*a, loss="margin"),
    "clip": lambda *a: attacks.lbfgs(*a, loss="margin", box="clip"),
    "carlini-wagner": partial(attacks.carlini_wagner_l2, num_searches=7, num_steps=200),
    "pgd": attacks.minimal_pgd_l2,
}
SLACK = {"carlini-wagner": 1.02}  # Adam with a fixed step comes no nearer
each_attack = pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)


def affine(weight, bias) -> nn.Sequential:
    """A linear model with the given rows, in float64."""
    weight, bias = torch.as_tensor(weight), torch.as_tensor(bias)
    layer = nn.Linear(weight.shape[1], len(weight)).double()
    layer.load_state_dict({"weight": weight.double(), "bias": bias.double()})
    return nn.Sequential(nn.Flatten(), layer).eval()


def two_classes(dim: int, x: torch.Tensor, margin: float, seed: int) -> nn.Sequential:
    """A model with z_0 - z_1 = w.x + b, |w| = 1, equal to ``margin`` at ``x``."""
    w = torch.randn(dim, generator=torch.Generator().manual_seed(seed)).double()
    w = w / w.norm()
    bias = margin - float(w @ x.flatten())
    return affine(torch.stack([w / 2, -w / 2]), [bias / 2, -bias / 2])


def check_result(model, x, target, found) -> None:
    """What a success says is true in the model's own precision, and in the box."""
    point = x + found.delta
    assert point.min() >= 0
    assert point.max() <= 1
    assert torch.equal(model(point).argmax(1) == target, found.success)
    assert (found.delta[~found.success] == 0).all()
    assert torch.equal(found.l2.isnan(), ~found.success)


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("dim", [2, 30, 200])
def test_binary_linear_without_active_box(name, dim):
    """|margin| / ||w||, w of length 1, the box far away: to 1 % (Adam: to 2 %)."""
    x = torch.full((1, dim), 0.5).double()
    model = two_classes(dim, x, 0.2, seed=dim)
    target = torch.tensor([1])
    found = ATTACKS[name](model, x, target)
    check_result(model, x, target, found)
    assert found.success.all()
    assert 0.2 - 1e-9 <= found.l2.item() <= 0.2 * SLACK.get(name, 1.01)
    assert found.rms.item() == pytest.approx(found.l2.item() / math.sqrt(dim))


def boxed(w: np.ndarray, x: np.ndarray, gain: float) -> float:
    """The shortest r in the box with w.r = gain: r = clip(s w), bisection on s."""
    low, high = 0.0, 1e6
    for _ in range(200):
        s = (low + high) / 2
        r = np.clip(s * w, -x, 1 - x)
        low, high = (s, high) if w @ r < gain else (low, s)
    return float(np.linalg.norm(np.clip(high * w, -x, 1 - x)))


@pytest.mark.parametrize("name", ["cross-entropy", "margin", "carlini-wagner", "pgd"])
@pytest.mark.parametrize("dim", [3, 20, 200])
def test_binary_linear_with_active_box(name, dim):
    """A problem in one variable, checked by a convex program, then the attack: 1 %."""
    g = torch.Generator().manual_seed(dim)
    x = torch.rand(1, dim, generator=g).double().round(decimals=1)
    x[:, ::2] = (x[:, ::2] > 0.5).double()  # half of the pixels at the edge
    free = two_classes(dim, x, 0.1, seed=dim + 1)
    w = (free[-1].weight[1] - free[-1].weight[0]).detach().numpy()
    room = np.clip(np.sign(w), -x[0].numpy(), 1 - x[0].numpy())
    margin = 0.6 * float(w @ room)
    model = two_classes(dim, x, margin, seed=dim + 1)
    exact = boxed(w, x[0].numpy(), margin)
    assert exact > 1.02 * margin  # the box does cost something
    target = torch.tensor([1])
    solved = shortest_linear(model, x, target).item()
    assert exact == pytest.approx(solved, rel=1e-4)
    found = ATTACKS[name](model, x, target)
    check_result(model, x, target, found)
    assert exact * (1 - 1e-6) <= found.l2.item() <= exact * SLACK.get(name, 1.01)


def test_quadratic_program_with_three_classes():
    """By hand: one rival binds, then both, then no point of the box will do."""
    model = affine([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], [0.6, 0.0, 0.0])
    x = torch.tensor([[0.5, 0.2], [0.1, 0.9]]).double()
    found = shortest_linear(model, x, torch.tensor([1, 1]))
    # class 1 needs x_0 >= 0.6 and x_0 >= x_1: move to (0.6, 0.2), then to (0.6, 0.6)
    assert found.tolist() == pytest.approx([0.1, math.hypot(0.5, 0.3)], rel=1e-5)
    never = affine([[0.0, 0.0], [1.0, 0.0]], [1.5, 0.0])
    assert shortest_linear(never, x, torch.tensor([1, 1])).isinf().all()
    net = models.seeded(models.mlp, (1, 1, 2), [3], 2, seed=0)
    with pytest.raises(TypeError, match="linear"):
        shortest_linear(net, x.view(-1, 1, 1, 2), torch.tensor([1, 1]))
    with pytest.raises(ValueError, match="classes"):
        shortest_linear(never, x, torch.tensor([2, 1]))


def test_clipping_on_three_pixels():
    """Two linear classes: clip(s w) is the shortest anyway, if the loss drives far.

    The hinge stops as soon as the point *outside* the box is wrong, and then clipping
    takes away what made it so: no weight succeeds.
    """
    x = torch.tensor([[0.0, 0.5, 0.5]]).double()
    w = np.array([-3.0, 2.0, 1.0])
    model = affine(np.stack([-w / 2, w / 2]), [0.0, -1.7])  # z_1 - z_0 = -0.2 at x
    target, exact = torch.tensor([1]), 0.2 / math.sqrt(5)  # the first pixel is stuck
    assert boxed(w, x[0].numpy(), 0.2) == pytest.approx(exact)
    for loss in ("cross_entropy", "margin"):
        found = attacks.lbfgs(model, x, target, loss=loss)
        assert found.l2.item() == pytest.approx(exact, rel=1e-2)
    clipped = attacks.lbfgs(model, x, target, box="clip")
    check_result(model, x, target, clipped)
    assert clipped.l2.item() == pytest.approx(exact, rel=1e-2)
    assert clipped.delta[0, 0] == 0
    assert not attacks.lbfgs(model, x, target, loss="margin", box="clip").success.any()


@pytest.fixture(scope="module")
def fc10():
    """Softmax regression, images it gets right, random wrong targets, exact lengths."""
    dataset = data.default()
    model = zoo.load("linear", dataset)
    x, y = (part[:20] for part in dataset.test)
    right = model(x).argmax(1) == y
    x, y = x[right][:12], y[right][:12]
    g = torch.Generator().manual_seed(0)
    target = (y + torch.randint(1, 10, y.shape, generator=g)) % 10
    return model, x, target, shortest_linear(model, x, target)


def test_margin_version_is_exact_on_softmax_regression(fc10):
    """Within 1 % of the quadratic program on every image, and never below it."""
    model, x, target, exact = fc10
    found = attacks.lbfgs(model, x, target, loss="margin")
    check_result(model, x, target, found)
    ratio = found.l2 / exact
    assert ratio.min() >= 1 - 1e-4
    assert ratio.max() <= 1.01


def test_cross_entropy_version_is_not(fc10):
    """A convex problem, solved, whose solution is another one than was wanted."""
    model, x, target, exact = fc10
    ratio = attacks.lbfgs(model, x, target).l2 / exact
    assert ratio.min() >= 1 - 1e-4
    assert ratio.mean() > 1.01
    assert ratio.max() < 1.2


def test_pgd_and_carlini_wagner_are_fair_opponents(fc10):
    """Both within 2 % of the quadratic program on average."""
    model, x, target, exact = fc10
    for attack in (attacks.minimal_pgd_l2, attacks.carlini_wagner_l2):
        found = attack(model, x, target)
        check_result(model, x, target, found)
        ratio = found.l2 / exact
        assert ratio.min() >= 1 - 1e-4
        assert ratio.mean() <= 1.02


def test_no_grid_point_is_shorter():
    """Brute force: three sigmoid units in two dimensions, a grid of 401 x 401."""
    model = models.seeded(models.mlp, (1, 1, 2), [3], 3, seed=11, activation=nn.Sigmoid)
    model = model.double()
    for p in model.parameters():
        p.data *= 12
    axis = torch.linspace(0, 1, 401).double()
    grid = torch.tensor(list(itertools.product(axis, axis))).double()
    with torch.no_grad():
        classes = model(grid.view(-1, 1, 1, 2)).argmax(1)
    assert len(classes.unique()) == 3
    x = torch.tensor([[0.3, 0.6]]).double().view(1, 1, 1, 2)
    here = model(x).argmax(1)
    for t in set(classes.tolist()) - {here.item()}:
        away = (grid[classes == t] - x.flatten()).norm(dim=1).min().item()
        for loss in ("cross_entropy", "margin"):
            found = attacks.lbfgs(model, x, torch.tensor([t]), loss=loss)
            assert away - 0.004 <= found.l2.item() <= away + 0.004


def test_largest_c():
    """More weight on the length: shorter, until it fails; the search stops there."""
    x = torch.full((1, 4), 0.5).double()
    model = two_classes(4, x, 0.3, seed=0)
    target = torch.tensor([1])
    found = attacks.lbfgs(model, x, target, num_bisections=12)
    c = found.c.item()
    # closed form: the minimiser is -s w with 2 c s = p, and succeeds if s >= 0.3; at
    # s = 0.3 both classes have p = 1/2, so the largest c is 1 / (4 * 0.3)
    assert c == pytest.approx(1 / 1.2, rel=2e-3)
    assert c <= 1 / 1.2 * (1 + 1e-4)
    for start in (1e-3, 1e3):
        again = attacks.lbfgs(model, x, target, c=start, num_bisections=12)
        assert again.c.item() == pytest.approx(c, rel=5e-3)


def test_smallest_c_of_carlini_and_wagner():
    """There the weight is on the loss: below some c nothing succeeds, above all."""
    x = torch.full((1, 4), 0.5).double()
    model = two_classes(4, x, 0.3, seed=0)
    target = torch.tensor([1])
    # c * slope 1 against 2 * 0.3, the derivative of the squared length at the border
    weak = attacks.carlini_wagner_l2(model, x, target, c=0.4, num_searches=1)
    strong = attacks.carlini_wagner_l2(model, x, target, c=1.0, num_searches=1)
    assert not weak.success.any()
    assert weak.c.isnan().all()
    assert strong.success.all()


@pytest.mark.parametrize("loss", ["cross_entropy", "margin"])
def test_value_and_gradient_agree(loss):
    """Finite differences: value and gradient are of the same function."""
    model = models.seeded(models.fc_100_100, (1, 3, 3), 4, seed=0)
    x = torch.rand(1, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    logits = model(x).detach()
    target = int(logits.argmin())
    lead = float(attacks.margin_loss(logits, torch.tensor([target])))
    cost = _cross_entropy if loss == "cross_entropy" else _Hinge(lead)
    one = _Penalised(model, model.double(), x.double(), target, cost, "bounds", 100)
    z = one.start + 0.01
    value, gradient = one.value(z.copy(), 0.7)
    for i, direction in enumerate(np.eye(9)):
        step = 1e-6 * direction
        slope = (one.value(z + step, 0.7)[0] - one.value(z - step, 0.7)[0]) / 2e-6
        assert slope == pytest.approx(gradient[i], rel=1e-4, abs=1e-7)
    reference = torch.nn.functional.cross_entropy(
        model(torch.from_numpy(z).view_as(x)), torch.tensor([target])
    )
    if loss == "cross_entropy":
        assert value == pytest.approx(0.7 * 9 * 1e-4 + reference.item(), rel=1e-6)


def test_rescale_has_the_asked_length_after_clipping():
    """Proportional to delta where the box is not active, and of the asked length."""
    g = torch.Generator().manual_seed(0)
    x = torch.rand(5, 1, 8, 8, generator=g)
    x[:, :, :4] = 0
    delta = 1e-3 * torch.randn(x.shape, generator=g)
    for rms in (0.001, 0.05, 0.2):
        found = attacks.rescale(x, delta, rms)
        sizes = found.flatten(1).square().mean(1).sqrt()
        assert torch.allclose(sizes, torch.full((5,), rms), rtol=1e-4)
        assert (x + found).min() >= 0
        assert (x + found).max() <= 1
        inside = (x + found > 1e-5) & (x + found < 1 - 1e-5)
        ratio = (found / delta).masked_fill(~inside, torch.nan).flatten(1)
        middle = ratio.nanmedian(1, keepdim=True).values
        assert ((ratio / middle - 1).abs().nan_to_num() < 1e-3).all()
    full = attacks.rescale(x, delta, 1.0)  # more than the box can hold
    assert torch.equal(x + full, torch.where(delta > 0, 1.0, 0.0))
    assert not attacks.rescale(x, torch.zeros_like(x), 0.1).any()


def test_the_search_leaves_the_model_alone():
    """Parameters keep value, dtype and gradient, and the images too."""
    model = models.seeded(models.fc_100_100, (1, 3, 3), 4, seed=0)
    before = [p.clone() for p in model.parameters()]
    x = torch.rand(2, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    kept, target = x.clone(), model(x).argmin(1)
    for attack in ATTACKS.values():
        attack(model, x, target)
    assert torch.equal(x, kept)
    for p, old in zip(model.parameters(), before, strict=True):
        assert torch.equal(p, old)
        assert p.grad is None
        assert p.requires_grad


def test_no_success_is_said():
    """A target out of reach: no success, zero delta, NaN for length and c."""
    model = affine([[1.0, 0.0], [0.0, 0.0]], [1.0, 0.0])  # z_0 >= 1 > z_1 in the box
    x, target = torch.full((1, 2), 0.5).double(), torch.tensor([1])
    for attack in ATTACKS.values():
        found = attack(model, x, target)
        assert not found.success.any()
        assert found.l2.isnan().all()
        assert found.c.isnan().all()
        assert not found.delta.any()


class _Root(nn.Module):
    """Finite logits whose gradient is NaN: the square root of zero, times zero."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rest = (0 * x.flatten(1)).sqrt()
        return rest[:, :2] + torch.tensor([1.0, 0.0]).to(x)


@each_attack
def test_bad_input_raises(attack):
    """Each with its own message, before any work is done."""
    model = models.seeded(models.linear, (1, 2, 2), 3, seed=0)
    x = torch.full((2, 1, 2, 2), 0.5)
    pred = model(x).argmax(1)
    target = (pred + 1) % 3
    with pytest.raises(ValueError, match="equals the prediction"):
        attack(model, x, torch.stack([target[0], pred[1]]))
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        attack(model, x + 1, target)
    with pytest.raises(ValueError, match="NaN"):
        attack(model, x * torch.nan, target)
    with pytest.raises(ValueError, match="train mode"):
        attack(models.seeded(models.linear, (1, 2, 2), 3, seed=0).train(), x, target)
    with pytest.raises(ValueError, match="one label"):
        attack(model, x, target[:1])
    with pytest.raises(TypeError, match="int64"):
        attack(model, x, target.float())
    with pytest.raises(ValueError, match="classes"):
        attack(model, x, target + 3)
    with pytest.raises(FloatingPointError, match="not finite"):
        attack(_Root().eval(), x, torch.ones(2).long())


def test_bad_settings_raise():
    """Numbers and names that mean nothing."""
    model = models.seeded(models.linear, (1, 2, 2), 3, seed=0)
    x = torch.full((1, 1, 2, 2), 0.5)
    target = (model(x).argmax(1) + 1) % 3
    for bad in (
        {"loss": "hinge"},
        {"box": "tanh"},
        {"c": 0.0},
        {"c": math.nan},
        {"num_bisections": -1},
        {"max_iter": 0},
    ):
        with pytest.raises(ValueError, match=r"unknown|need"):
            attacks.lbfgs(model, x, target, **bad)
    for bad in ({"c": -1.0}, {"num_searches": 0}, {"num_steps": 0}, {"lr": 0.0}):
        with pytest.raises(ValueError, match="need"):
            attacks.carlini_wagner_l2(model, x, target, **bad)
    for bad in ({"num_radii": 0}, {"num_steps": 0}):
        with pytest.raises(ValueError, match="at least one"):
            attacks.minimal_pgd_l2(model, x, target, **bad)
    for delta, rms in ((x[..., :1], 0.1), (x * torch.nan, 0.1), (x, -0.1), (x, 2.0)):
        with pytest.raises(ValueError, match=r"finite|pixels"):
            attacks.rescale(x, delta, rms)
