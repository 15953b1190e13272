"""Lipschitz constants against dense matrices, sampled slopes and margins."""

import math
import random
from functools import partial

import pytest
import torch
from torch import nn

from advlib import lipschitz, models

ORDER = {"l2": 2, "linf": float("inf")}


def conv_net(seed: int) -> nn.Sequential:
    """A small convolutional network with a residual sum."""

    def build() -> nn.Sequential:
        body = nn.Sequential(
            nn.Conv2d(2, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 2, 3, padding=1)
        )
        return nn.Sequential(
            models.Normalize([0.4], [0.5]),
            nn.Conv2d(1, 2, 3, stride=2, padding=1),
            nn.ReLU(),
            models.Residual(body),
            nn.Flatten(),
            nn.Linear(18, 4),
        )

    return models.seeded(build, seed=seed).double().requires_grad_(False)


def networks() -> list[nn.Sequential]:
    """Dense and convolutional ones, for inputs (1, 5, 5)."""
    dense = [models.seeded(models.mlp, (1, 5, 5), [9, 8], 4, seed=i) for i in range(3)]
    return [m.double().requires_grad_(False) for m in dense] + [
        conv_net(i) for i in range(3)
    ]


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("groups", [1, 2])
def test_operator_norm_against_the_dense_matrix(norm, groups, monkeypatch):
    """Equal up to rounding, from above; the bound for large layers is above, too."""
    layer = nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=groups).double()
    weight, _ = models.affine_matrix(layer, (2, 5, 5))
    exact = float(torch.linalg.matrix_norm(weight, ORDER[norm]))
    found = lipschitz.operator_norm(layer, (2, 5, 5), norm=norm)
    assert exact <= found <= exact * (1 + 1e-9)
    monkeypatch.setattr(lipschitz, "DENSE", 0)
    loose = lipschitz.operator_norm(layer, (2, 5, 5), norm=norm)
    assert exact <= loose <= 3 * exact


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_no_sampled_slope_is_steeper(norm):
    """1000 pairs of points per network, near and far."""
    generator = torch.Generator().manual_seed(0)
    for model in networks():
        bound = lipschitz.lipschitz_bound(model, (1, 5, 5), norm=norm)
        a = torch.rand(1000, 1, 5, 5, generator=generator, dtype=torch.float64)
        step = torch.randn(a.shape, generator=generator, dtype=torch.float64)
        b = a + torch.logspace(-3, 1, 1000).view(-1, 1, 1, 1) * step
        rise = torch.linalg.vector_norm(model(a) - model(b), ORDER[norm], dim=1)
        run = torch.linalg.vector_norm((a - b).flatten(1), ORDER[norm], dim=1)
        assert (rise <= bound * run).all()
        assert bound < 1e3 * float((rise / run).max())


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_margins_hold_at_sampled_points(norm):
    """2000 points of the sphere and 1 of the gradient; folding beats sqrt(2) L."""
    generator = torch.Generator().manual_seed(1)
    for model in networks():
        x = torch.rand(3, 1, 5, 5, generator=generator, dtype=torch.float64)
        y = model(x).argmax(1)
        found = lipschitz.lipschitz_margins(model, x, y, 0.2, norm=norm)
        step = torch.randn(
            2000, *x.shape, generator=generator, dtype=torch.float64
        ).flatten(2)
        step = step / torch.linalg.vector_norm(step, ORDER[norm], dim=2, keepdim=True)
        points = (x + 0.2 * step.view(2000, *x.shape)).flatten(0, 1)
        logits = model(points).view(2000, 3, -1)
        margins = logits.gather(2, y.expand(2000, -1)[..., None]) - logits
        assert (found <= margins.amin(0)).all()
        clean = model(x).gather(1, y[:, None]) - model(x)
        factor = 2**0.5 if norm == "l2" else 2
        bound = lipschitz.lipschitz_bound(model, (1, 5, 5), norm=norm)
        others = torch.arange(4) != y[:, None]
        assert (found >= clean - 0.2 * factor * bound)[others].all()
        assert (found.gather(1, y[:, None]) == 0).all()


def test_a_linear_model_is_exact():
    """Then the bound is the margin less eps times the dual norm: attained."""
    model = models.seeded(models.linear, (1, 2, 2), 2, seed=0).double()
    x = torch.full((1, 1, 2, 2), 0.5, dtype=torch.float64)
    y = model(x).argmax(1)
    row = (model[1].weight[y] - model[1].weight[1 - y])[0].detach()
    for norm, worst in [("l2", row / row.norm()), ("linf", row.sign())]:
        found = lipschitz.lipschitz_margins(model, x, y, 0.3, norm=norm)
        logits = model(x - 0.3 * worst.view(x.shape))[0].detach()
        expected = logits[y] - logits[1 - y]
        torch.testing.assert_close(found[0, 1 - y], expected)


def test_bad_input_is_refused():
    """Norms, layers, labels, modes, weights."""
    model = networks()[0]
    x = torch.full((1, 1, 5, 5), 0.5, dtype=torch.float64)
    y = torch.tensor([0])
    with pytest.raises(ValueError, match="norm"):
        lipschitz.lipschitz_bound(model, (1, 5, 5), norm="l1")
    with pytest.raises(ValueError, match="norm"):
        lipschitz.lipschitz_margins(model, x, y, 0.1, norm="l3")
    with pytest.raises(ValueError, match="norm"):
        lipschitz.lipschitz_margins(model, x, y, 0.1, norm="l1")
    with pytest.raises(TypeError, match="ReLU"):
        lipschitz.operator_norm(nn.ReLU(), (3,))
    with pytest.raises(TypeError, match="Tanh"):
        lipschitz.lipschitz_bound(nn.Sequential(nn.Tanh()).eval(), (3,))
    with pytest.raises(TypeError, match="last layer"):
        lipschitz.lipschitz_margins(model[:-1].eval(), x, y, 0.1)
    with pytest.raises(ValueError, match="classes"):
        lipschitz.lipschitz_margins(model, x, y + 7, 0.1)
    with pytest.raises(ValueError, match="eps"):
        lipschitz.lipschitz_margins(model, x, y, -0.1)
    with pytest.raises(ValueError, match="0, 1"):
        lipschitz.lipschitz_margins(model, x + 1, y, 0.1)
    with pytest.raises(ValueError, match="train mode"):
        lipschitz.lipschitz_bound(model.train(), (1, 5, 5))
    model.eval()[1].weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        lipschitz.lipschitz_bound(model, (1, 5, 5))


# ------------------------------------------- convolutions: circular, real, from below

SHAPES = [
    # kernel, stride, padding, groups, height, width
    ((3, 3), (1, 1), (1, 1), 1, 6, 6),
    ((4, 4), (2, 2), (1, 1), 1, 8, 8),
    ((4, 4), (2, 2), (0, 0), 2, 6, 8),
    ((2, 3), (2, 3), (1, 0), 1, 4, 9),
    ((5, 5), (3, 1), (2, 2), 2, 9, 5),
    ((1, 1), (2, 2), (0, 0), 1, 4, 4),
]


def convolution(case: tuple) -> nn.Conv2d:
    """A random layer with 2 input and 4 output channels, float64."""
    kernel, stride, padding, groups = case[:4]
    options = {"stride": stride, "padding": padding, "groups": groups}
    layer = models.seeded(nn.Conv2d, 2, 4, kernel, **options, seed=0)
    return layer.double().requires_grad_(False)


def circular_matrix(layer: nn.Conv2d, height: int, width: int) -> torch.Tensor:
    """The matrix of the circular convolution, entry by entry from its definition."""
    (down, right), (up, left) = layer.stride, layer.padding
    out, inner, rows, columns = layer.weight.shape
    high, wide = height // down, width // right
    matrix = torch.zeros(out, high, wide, inner * layer.groups, height, width).double()
    for o in range(out):
        first = o // (out // layer.groups) * inner
        for p in range(high):
            for q in range(wide):
                for a in range(rows):
                    for b in range(columns):
                        place = (p * down + a - up) % height, (q * right + b - left)
                        target = matrix[o, p, q, first : first + inner]
                        target[:, place[0], place[1] % width] += layer.weight[
                            o, :, a, b
                        ]
    return matrix.flatten(3).flatten(0, 2)


@pytest.mark.parametrize("case", SHAPES)
def test_circular_norm_against_the_explicit_matrix(case):
    """Stride, padding and groups included: equal to the largest singular value."""
    layer, (height, width) = convolution(case), case[4:]
    exact = float(torch.linalg.matrix_norm(circular_matrix(layer, height, width), 2))
    found = lipschitz.circular_norm(layer, (2, height, width))
    assert found == pytest.approx(exact, rel=1e-10)


def test_circular_norm_by_hand():
    """A kernel of ones on a torus: its sum; with stride s, over the root of s * s."""
    layer = nn.Conv2d(1, 1, 3, bias=False).double().requires_grad_(False)
    layer.weight.fill_(1.0)
    assert lipschitz.circular_norm(layer, (1, 6, 6)) == pytest.approx(9)
    difference = nn.Conv2d(1, 1, (1, 2), bias=False).double().requires_grad_(False)
    difference.weight.copy_(torch.tensor([[[[1.0, -1.0]]]]))
    assert lipschitz.circular_norm(difference, (1, 1, 8)) == pytest.approx(2)
    single = nn.Conv2d(1, 1, 1, stride=2, bias=False).double().requires_grad_(False)
    single.weight.fill_(3.0)  # keeps every fourth pixel, three times as large
    assert lipschitz.circular_norm(single, (1, 4, 4)) == pytest.approx(3)


@pytest.mark.parametrize("case", SHAPES)
def test_real_norm_from_both_sides(case):
    """Power iteration <= dense matrix of the real layer <= circular, padded."""
    layer, shape = convolution(case), (2, *case[4:])
    weight, _ = models.affine_matrix(layer, shape)
    exact = float(torch.linalg.matrix_norm(weight, 2))
    below = lipschitz.power_norm(layer, shape)
    above = lipschitz.circular_norm(layer, lipschitz.padded_shape(layer, shape))
    assert below == pytest.approx(exact, rel=1e-4)
    assert below <= exact * (1 + 1e-12)
    assert exact <= above * (1 + 1e-12)
    assert above <= 1.6 * exact


def test_the_circle_of_the_same_size_is_no_bound():
    """Differences on a circle of three are smaller, sums larger than the real ones."""
    layer = nn.Conv2d(1, 1, (1, 2), padding=(0, 1), bias=False).double()
    layer.requires_grad_(False)
    for kernel, sign in [((1.0, -1.0), 1), ((1.0, 1.0), -1)]:
        layer.weight.copy_(torch.tensor(kernel).view(1, 1, 1, 2))
        weight, _ = models.affine_matrix(layer, (1, 1, 3))
        real = float(torch.linalg.matrix_norm(weight, 2))
        same = lipschitz.circular_norm(layer, (1, 1, 3))
        assert sign * (real - same) > 0.1
        padded = lipschitz.circular_norm(
            layer, lipschitz.padded_shape(layer, (1, 1, 3))
        )
        assert padded >= real * (1 - 1e-12)


def test_power_norm_of_dense_layers():
    """The largest singular value, from below; a zero layer has norm 0."""
    layer = models.seeded(nn.Linear, 9, 5, seed=0).requires_grad_(False)
    exact = float(torch.linalg.matrix_norm(layer.weight.double(), 2))
    steps = [lipschitz.power_norm(layer, (9,), num_steps=k) for k in (1, 3, 300)]
    assert steps == sorted(steps)
    assert steps[-1] == pytest.approx(exact)
    assert steps[0] < 0.99 * exact
    nn.init.zeros_(layer.weight)
    assert lipschitz.power_norm(layer, (9,)) == 0


def sigmoid_net(seed: int) -> nn.Sequential:
    """Two sigmoid layers for inputs (1, 5, 5)."""

    def build() -> nn.Sequential:
        layers = [nn.Flatten(), nn.Linear(25, 9), nn.Sigmoid(), nn.Linear(9, 8)]
        return nn.Sequential(*layers, nn.Sigmoid(), nn.Linear(8, 4))

    return models.seeded(build, seed=seed).double().requires_grad_(False)


def test_a_sigmoid_counts_a_quarter():
    """The product by hand; the list of layers; a sigmoid's slope at 0 attains it."""
    model = sigmoid_net(0)
    norms = [float(torch.linalg.matrix_norm(model[i].weight, 2)) for i in (1, 3, 5)]
    expected = norms[0] * norms[1] * norms[2] / 16
    assert lipschitz.lipschitz_bound(model, (1, 5, 5)) == pytest.approx(expected)
    listed = lipschitz.layer_norms(model, (1, 5, 5))
    assert [name for name, _ in listed] == ["Linear", "Sigmoid"] * 2 + ["Linear"]
    assert [value for _, value in listed] == pytest.approx(
        [norms[0], 0.25, norms[1], 0.25, norms[2]]
    )
    single = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Sigmoid()).double().eval()
    slopes = lipschitz.jacobian_norms(single, torch.zeros(1, 1).double())
    assert float(slopes) == pytest.approx(lipschitz.lipschitz_bound(single, (1,)))


def test_margins_of_a_sigmoid_net_hold_at_sampled_points():
    """2000 points of the sphere."""
    model, generator = sigmoid_net(1), torch.Generator().manual_seed(0)
    x = torch.rand(1, 1, 5, 5, generator=generator).double()
    y = model(x).argmax(1)
    lower = lipschitz.lipschitz_margins(model, x, y, 0.5)
    step = torch.randn(2000, 1, 5, 5, generator=generator).double()
    step *= 0.5 / step.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    logits = model(x + step)
    assert (logits[:, y] - logits >= lower - 1e-12).all()


def test_layers_multiply_to_the_bound():
    """With a residual sum and batch-norm folded, too."""
    for model in networks():
        listed = lipschitz.layer_norms(model, (1, 5, 5))
        bound = lipschitz.lipschitz_bound(model, (1, 5, 5))
        assert math.prod(value for _, value in listed) == pytest.approx(bound)


def test_large_convolutions_get_a_tight_bound(monkeypatch):
    """Above the dense norm, and nearer to it than the geometric mean of the sums."""
    layer = models.seeded(nn.Conv2d, 3, 8, 4, stride=2, padding=1, seed=0).double()
    exact = lipschitz.operator_norm(layer, (3, 12, 12))
    monkeypatch.setattr(lipschitz, "DENSE", 0)
    assert exact <= lipschitz.operator_norm(layer, (3, 12, 12)) <= 1.05 * exact


def test_jacobian_norms_against_autograd():
    """torch.autograd.functional.jacobian, image by image."""
    for model in (networks()[0], networks()[3], sigmoid_net(0)):
        x = torch.rand(4, 1, 5, 5, generator=torch.Generator().manual_seed(1)).double()
        found = lipschitz.jacobian_norms(model, x)
        for image, norm in zip(x, found, strict=True):
            dense = torch.autograd.functional.jacobian(model, image[None])
            exact = torch.linalg.matrix_norm(dense.flatten(2)[0].flatten(1), 2)
            assert float(norm) == pytest.approx(float(exact))


def test_slopes_lie_between_jacobian_and_bound():
    """Short steps give the Jacobian's norm, no step more than the product of norms."""
    for model in (*networks(), sigmoid_net(0)):
        x = torch.rand(6, 1, 5, 5, generator=torch.Generator().manual_seed(1)).double()
        short = lipschitz.steepest_slopes(model, x, length=1e-6)
        local = lipschitz.jacobian_norms(model, x)
        torch.testing.assert_close(short, local, rtol=1e-4, atol=0)
        far = lipschitz.steepest_slopes(model, x, length=0.5)
        assert (far <= lipschitz.lipschitz_bound(model, (1, 5, 5)) * (1 + 1e-9)).all()
        first = lipschitz.steepest_slopes(model, x, length=0.5, num_steps=0)
        assert (far >= first - 1e-12).all()


def test_slopes_of_a_linear_model_are_its_norm():
    """At every length: the leading direction is found at once."""
    model = models.seeded(models.linear, (1, 5, 5), 4, seed=0).double()
    x = torch.full((2, 1, 5, 5), 0.5).double()
    exact = float(torch.linalg.matrix_norm(model[1].weight.detach(), 2))
    for length in (0.1, 3.0):
        found = lipschitz.steepest_slopes(model.eval(), x, length=length)
        assert found.tolist() == pytest.approx([exact] * 2)


def test_bad_convolutions_are_refused():
    """Sizes, strides, layers, numbers of steps, modes."""
    layer = nn.Conv2d(1, 1, 3, stride=2)
    with pytest.raises(ValueError, match="divide"):
        lipschitz.circular_norm(layer, (1, 5, 4))
    with pytest.raises(ValueError, match="larger"):
        lipschitz.circular_norm(layer, (1, 2, 2))
    with pytest.raises(TypeError, match="Linear"):
        lipschitz.circular_norm(nn.Linear(2, 2), (1, 2, 2))
    with pytest.raises(TypeError, match="ReLU"):
        lipschitz.power_norm(nn.ReLU(), (3,))
    with pytest.raises(ValueError, match="num_steps"):
        lipschitz.power_norm(layer, (1, 5, 5), num_steps=0)
    model, x = networks()[0], torch.full((1, 1, 5, 5), 0.5).double()
    with pytest.raises(ValueError, match="length"):
        lipschitz.steepest_slopes(model, x, length=0.0)
    with pytest.raises(ValueError, match="0, 1"):
        lipschitz.jacobian_norms(model, x + 1)
    with pytest.raises(ValueError, match="train mode"):
        lipschitz.jacobian_norms(model.train(), x)
    with pytest.raises(ValueError, match="train mode"):
        lipschitz.layer_norms(model, (1, 5, 5))


# ------------------------------------ options of convolutions, outputs, other inputs


def odd_convolution(seed: int) -> tuple[nn.Conv2d, tuple[int, int, int]]:
    """Dilation, groups, asymmetric padding, padding in words; and an input."""
    draw = random.Random(seed)
    groups = draw.choice([1, 2])
    kernel = draw.randint(1, 3), draw.randint(1, 3)
    dilation = draw.randint(1, 3), draw.randint(1, 3)
    stride = draw.randint(1, 2), draw.randint(1, 3)
    padding: tuple[int, int] | str = draw.randint(0, 3), draw.randint(0, 2)
    if seed % 4 == 0:
        padding, stride = "same", (1, 1)
    elif seed % 4 == 1:
        padding = "valid"
    options = {"stride": stride, "padding": padding, "dilation": dilation}
    layer = models.seeded(nn.Conv2d, 2, 4, kernel, groups=groups, **options, seed=seed)
    sides = [
        d * (k - 1) + 1 + draw.randint(0, 4)
        for k, d in zip(kernel, dilation, strict=True)
    ]
    return layer.double().requires_grad_(False), (2, *sides)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even")
@pytest.mark.parametrize("seed", range(40))
def test_norms_are_those_of_the_dense_matrix(seed, monkeypatch):
    """Both norms, every option; by the bound for large layers from above, not far."""
    layer, shape = odd_convolution(seed)
    weight, _ = models.affine_matrix(layer, shape)
    exact = float(torch.linalg.matrix_norm(weight, 2))
    rows = float(weight.abs().sum(1).max())
    assert lipschitz.operator_norm(layer, shape) == pytest.approx(exact)
    assert lipschitz.operator_norm(layer, shape, norm="linf") == pytest.approx(rows)
    columns = lipschitz._absolute(layer, shape, transposed=True)
    torch.testing.assert_close(columns.flatten(), weight.abs().sum(0))
    below = lipschitz.power_norm(layer, shape)
    assert exact * (1 - 1e-3) <= below <= exact * (1 + 1e-12)
    monkeypatch.setattr(lipschitz, "DENSE", 0)
    above = lipschitz.operator_norm(layer, shape)
    assert exact * (1 - 1e-12) <= above
    wrapped = lipschitz.circular_norm(layer, lipschitz.padded_shape(layer, shape))
    assert exact * (1 - 1e-12) <= wrapped


def test_dilated_circular_norm_by_hand():
    """Taps two apart on a circle of even length are two circles of their own."""
    layer = nn.Conv2d(1, 1, (1, 2), dilation=(1, 2), bias=False).double()
    layer.requires_grad_(False).weight.copy_(torch.tensor([[[[1.0, -1.0]]]]))
    assert lipschitz.circular_norm(layer, (1, 1, 8)) == pytest.approx(2)
    near = nn.Conv2d(1, 1, (1, 2), bias=False).double().requires_grad_(False)
    near.weight.copy_(torch.tensor([[[[3.0, 1.5]]]]))
    layer.weight.copy_(near.weight)
    same = lipschitz.circular_norm(near, (1, 1, 5))
    assert lipschitz.circular_norm(layer, (1, 1, 10)) == pytest.approx(same)


def test_layers_on_more_dimensions_and_other_paddings():
    """Linear acts on the last dimension; padding by anything but zeros is refused."""
    layer = models.seeded(nn.Linear, 4, 3, seed=0).double().requires_grad_(False)
    for norm in ("l2", "linf"):
        flat = lipschitz.operator_norm(layer, (4,), norm=norm)
        assert lipschitz.operator_norm(layer, (2, 4), norm=norm) == flat
        with pytest.raises(ValueError, match="does not take"):
            lipschitz.operator_norm(layer, (4, 2), norm=norm)
    assert lipschitz.power_norm(layer, (2, 4)) == pytest.approx(
        lipschitz.power_norm(layer, (4,))
    )
    with pytest.raises(ValueError, match="does not take"):
        lipschitz.power_norm(layer, (3,))
    for mode in ("circular", "reflect", "replicate"):
        wrapped = nn.Conv2d(1, 2, 3, padding=1, padding_mode=mode)
        for norm in ("l2", "linf"):
            with pytest.raises(TypeError, match=mode):
                lipschitz.operator_norm(wrapped, (1, 4, 4), norm=norm)
        with pytest.raises(TypeError, match=mode):
            lipschitz.power_norm(wrapped, (1, 4, 4))
        with pytest.raises(TypeError, match=mode):
            lipschitz.padded_shape(wrapped, (1, 4, 4))
    conv = nn.Conv2d(2, 2, 3)
    for shape in [(1, 5, 5), (2, 2, 5), (5, 5)]:
        for norm in ("l2", "linf"):
            with pytest.raises(ValueError, match="does not take"):
                lipschitz.operator_norm(conv, shape, norm=norm)
        with pytest.raises(ValueError, match="does not take"):
            lipschitz.power_norm(conv, shape)
    with pytest.raises(ValueError, match="does not take"):
        lipschitz.circular_norm(conv, (1, 4, 4))


def test_sigmoids_inside_nested_sequentials_count():
    """Wherever they stand; a subclass with a forward of its own is refused."""
    model = sigmoid_net(0)
    nested = nn.Sequential(model[:3], nn.Sequential(model[3:])).eval()
    assert lipschitz.lipschitz_bound(nested, (1, 5, 5)) == pytest.approx(
        lipschitz.lipschitz_bound(model, (1, 5, 5))
    )

    class Steep(nn.Sigmoid):
        """Ten times as steep."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """The sigmoid of ten times ``x``."""
            return super().forward(10 * x)

    model[2] = Steep()
    with pytest.raises(TypeError, match="Steep"):
        lipschitz.lipschitz_bound(model.eval(), (1, 5, 5))


class Works(nn.Module):
    """A network that first works on its input, in place or not."""

    def __init__(self, first=None, then=None) -> None:
        super().__init__()
        self.net = models.seeded(models.mlp, (1, 2, 2), [8], 3, seed=0)
        self.first, self.then = first, then

    def forward(self, x: torch.Tensor) -> object:
        """Logits, or what ``then`` makes of them."""
        z = self.net(x if self.first is None else self.first(x))
        return z if self.then is None else self.then(z)


@pytest.mark.parametrize("name", ["jacobian_norms", "steepest_slopes"])
def test_slopes_of_models_that_work_in_place_and_of_others(name):
    """Images stay; slopes and outputs that are not finite, other outputs: errors."""
    more = {"length": 0.1, "num_steps": 3} if name == "steepest_slopes" else {}
    function = partial(getattr(lipschitz, name), **more)
    x = torch.rand(3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    right = function(Works(lambda v: (v - 0.5) / 0.25).eval(), x)
    found = function(Works(lambda v: v.sub_(0.5).div_(0.25)).eval(), x)
    assert torch.equal(x, before)
    torch.testing.assert_close(found, right)
    single = function(Works(then=lambda z: z[:, :1]).eval(), x)
    assert single.shape == (3,)
    for then, error, words in [
        (lambda z: (z, z), TypeError, "tuple"),
        (lambda z: z[:, :, None], ValueError, "row of logits"),
        (lambda z: z * math.nan, ValueError, "NaN or infinity"),
        (lambda z: z[:, :1] * math.nan, ValueError, "NaN or infinity"),
        (lambda z: z.detach(), ValueError, "no gradient"),
    ]:
        with pytest.raises(error, match=words):
            function(Works(then=then).eval(), x)
    with pytest.raises(ValueError, match="infinite or NaN"):
        function(Works(lambda v: v.sqrt()).eval(), torch.zeros(1, 1, 2, 2))
    with pytest.raises(TypeError, match="float64"):
        function(Works().eval(), x.double())


@pytest.mark.parametrize("name", ["jacobian_norms", "steepest_slopes"])
def test_slopes_in_inference_mode(name):
    """Inside it and for images made inside: the same numbers."""
    more = {"length": 0.1, "num_steps": 3} if name == "steepest_slopes" else {}
    function, model = partial(getattr(lipschitz, name), **more), Works().eval()
    x = torch.rand(3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    right = function(model, x)
    with torch.inference_mode():
        inside = x.clone()
        assert torch.equal(function(model, inside), right)
        norm = lipschitz.power_norm(model.net[1], (4,))
    assert torch.equal(function(model, inside), right)
    assert norm == lipschitz.power_norm(model.net[1], (4,))


def test_margins_need_two_logits_and_one_dtype():
    """One logit and other dtypes are refused, TwoLogits wraps the first."""
    x = torch.rand(3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    y = torch.zeros(3).long()
    binary = models.seeded(models.mlp, (1, 2, 2), [8], 1, seed=0)
    with pytest.raises(ValueError, match="TwoLogits"):
        lipschitz.lipschitz_margins(binary, x, y, 0.1)
    both = models.TwoLogits(binary).eval()
    found = lipschitz.lipschitz_margins(both, x, y, 0.1)
    generator = torch.Generator().manual_seed(1)
    step = 0.05 * torch.randn(500, 3, 1, 2, 2, generator=generator).sign()
    logits = both((x + step).flatten(0, 1)).view(500, 3, 2)
    assert (logits[..., :1] - logits >= found - 1e-6).all()
    with pytest.raises(TypeError, match="float64"):
        lipschitz.lipschitz_margins(both, x.double(), y, 0.1)
