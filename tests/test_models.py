"""Sizes, shapes and seeds of the networks."""

import itertools

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strange import Negated
from torch import nn
from torch.nn.utils import parametrizations

from advlib import models, training, units
from advlib._vision import torchvision

SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32), (1, 7, 5)]
BUILDERS = ("linear", "small", "dnn_2", "dnn_4", "cnn", "mlp_256", "cnn_small")


def layers_count(sizes) -> int:
    """Weights and biases of fully connected layers, from their widths."""
    return sum(i * o + o for i, o in itertools.pairwise(sizes))


@pytest.mark.parametrize(
    ("name", "tutorial", "widths"),
    [
        ("dnn_2", 159010, [784, 200, 10]),
        ("dnn_4", 188210, [784, 200, 100, 100, 10]),
        ("small", 40480, [784, 50, 20, 10]),
        ("linear", 7850, [784, 10]),
    ],
)
def test_sizes_of_the_dense_networks(name, tutorial, widths):
    """The count by hand from the widths, the tutorial's, and the model's agree."""
    model = getattr(models, name)((1, 28, 28))
    assert models.num_parameters(model) == tutorial == layers_count(widths)


def test_size_of_the_cnn():
    """Four 3x3 convolutions, two of stride 2, then 64 * 7 * 7 to 100 to 10."""
    channels = [(1, 32), (32, 32), (32, 64), (64, 64)]
    convolutions = sum(9 * i * o + o for i, o in channels)
    expected = convolutions + layers_count([64 * 7 * 7, 100, 10])
    assert models.num_parameters(models.cnn((1, 28, 28))) == 379702 == expected


def test_sizes_of_the_networks_for_bounds():
    """784-256-256-10, and two 4x4 convolutions before 32 * 7 * 7 to 100 to 10."""
    assert models.num_parameters(models.mlp_256((1, 28, 28))) == layers_count(
        [784, 256, 256, 10]
    )
    convolutions = (16 + 16) + 16 * 15 + (16 * 16 * 32 + 32)
    assert models.num_parameters(models.cnn_small((1, 28, 28))) == (
        convolutions + layers_count([32 * 7 * 7, 100, 10])
    )


def test_only_trainable_parameters_count():
    """Frozen weights and buffers are no parameters to train."""
    model = nn.Sequential(models.Normalize([0.5], [0.5]), models.linear((1, 2, 2), 3))
    assert models.num_parameters(model) == 15
    model[1][1].weight.requires_grad_(False)
    assert models.num_parameters(model) == 3


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("num_classes", [2, 10])
def test_every_network_takes_every_shape(name, shape, num_classes):
    """Logits (N, K), also for odd sizes; built of plain layers in a Sequential."""
    model = getattr(models, name)(shape, num_classes).eval()
    assert type(model) is nn.Sequential
    x = torch.rand(3, *shape)
    logits = model(x)
    assert logits.shape == (3, num_classes)
    assert torch.allclose(model(x[1:2]), logits[1:2], atol=1e-5)


def test_mlp_without_hidden_layers_is_affine():
    """The mean of two inputs has the mean of the logits, only without ReLU."""
    a, b = torch.randn(2, 1, 1, 3, 3, generator=torch.Generator().manual_seed(0))

    def gap(model):
        return (model((a + b) / 2) - (model(a) + model(b)) / 2).abs().max()

    shape = (1, 3, 3)
    assert gap(models.seeded(models.linear, shape, seed=0)) < 1e-6
    assert gap(models.seeded(models.mlp, shape, [16], seed=0)) > 1e-3


def test_normalize_is_the_transform():
    """As a layer it computes what torchvision's transform computes on the data."""
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    x = torch.rand(4, 3, 5, 6)
    expected = torchvision().transforms.functional.normalize(x, mean, std)
    assert torch.allclose(models.Normalize(mean, std)(x), expected, atol=1e-6)


def test_normalize_as_first_layer_keeps_gradients_in_pixels():
    """The input gradient of the whole is that of the inner model over std."""
    std = (0.5, 0.25, 2.0)
    layer, inner = models.Normalize((0.1, 0.2, 0.3), std), models.linear((3, 2, 2), 2)
    x = torch.rand(1, 3, 2, 2, requires_grad=True)
    z = layer(x).detach().requires_grad_()
    (outer,) = torch.autograd.grad(nn.Sequential(layer, *inner)(x)[0, 0], x)
    (expected,) = torch.autograd.grad(inner(z)[0, 0], z)
    assert torch.allclose(outer, expected / torch.tensor(std).view(3, 1, 1))


def test_normalize_travels_with_the_model():
    """Mean and deviation are buffers: in the state, not trained, cast with it."""
    layer = models.Normalize([0.5], [0.25])
    assert set(layer.state_dict()) == {"mean", "std"}
    assert not list(layer.parameters())
    assert layer.double()(torch.zeros(1, 1, 2, 2).double()).dtype == torch.float64


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        ([0.5], [0.0]),
        ([0.5], [-1.0]),
        ([0.5], [float("nan")]),
        ([0.5, 0.5], [1.0]),
        ([0.5], [1.0, 1.0]),
    ],
)
def test_normalize_refuses(mean, std):
    """A deviation that is not positive, NaN included, or one too few or too many."""
    with pytest.raises(ValueError, match="std"):
        models.Normalize(mean, std)


@pytest.mark.parametrize("name", BUILDERS)
def test_seeded_is_reproducible(name):
    """Same seed, same weights; another seed, others; the result is in eval mode."""
    build = getattr(models, name)
    first, again, other = [
        models.seeded(build, (1, 8, 8), num_classes=4, seed=seed) for seed in (3, 3, 4)
    ]
    assert not any(module.training for module in first.modules())
    assert first[-1].out_features == 4
    for a, b, c in zip(
        first.parameters(), again.parameters(), other.parameters(), strict=True
    ):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)


def test_seeded_does_not_depend_on_or_touch_the_global_state():
    """The global generator is where it was, and what it held does not matter."""
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = models.seeded(models.linear, (1, 4, 4), seed=0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again = models.seeded(models.linear, (1, 4, 4), seed=0)
    assert torch.equal(first[1].weight, again[1].weight)


# ----------------------------------------------------------- residual sums, canonical


def test_a_residual_adds_its_branches():
    """body(x) + shortcut(x); without a shortcut the input itself."""
    body, shortcut = nn.Sequential(nn.Linear(3, 3)), nn.Sequential(nn.Linear(3, 3))
    x = torch.rand(2, 3)
    assert torch.equal(models.Residual(body)(x), body(x) + x)
    assert torch.equal(models.Residual(body, shortcut)(x), body(x) + shortcut(x))
    names = set(models.Residual(body).state_dict())
    assert names == {"body.0.weight", "body.0.bias"}


def statistics(model: nn.Module) -> nn.Module:
    """Random batch-norm statistics, eval mode, float64; other weights as they are."""
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.2, 3)
            if module.affine:
                module.weight.data.uniform_(-2, 2)  # a negative one, too
                module.bias.data.uniform_(-1, 1)
    return model.double().eval()


def rich(*layers: nn.Module) -> nn.Sequential:
    """The layers, then Flatten."""
    return nn.Sequential(*layers, nn.Flatten())


def pooled(pool: nn.Module) -> nn.Sequential:
    """A pool after a convolution, whose weights tell the dtype."""
    return rich(nn.Conv2d(2, 2, 1), pool)


RICH = {
    "conv, norm": lambda: rich(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU()),
    "conv without bias, norm": lambda: rich(
        nn.Conv2d(2, 3, 3, bias=False), nn.BatchNorm2d(3)
    ),
    "norm without weights": lambda: rich(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3, affine=False)
    ),
    "norm first": lambda: rich(nn.BatchNorm2d(2), nn.Conv2d(2, 3, 3, padding=1)),
    "norm after relu": lambda: rich(
        nn.Conv2d(2, 3, 3), nn.ReLU(), nn.BatchNorm2d(3), nn.Conv2d(3, 2, 2)
    ),
    "two norms": lambda: rich(
        nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3), nn.ReLU()
    ),
    "groups, norm": lambda: rich(
        nn.Conv2d(2, 4, 3, groups=2), nn.BatchNorm2d(4), nn.ReLU()
    ),
    "dense, norm": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(50, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3)
    ),
    "norm between conv and flatten": lambda: nn.Sequential(
        nn.Conv2d(2, 2, 2),
        nn.Flatten(),
        nn.Linear(32, 3, bias=False),
        nn.BatchNorm1d(3),
    ),
    "normalize": lambda: rich(models.Normalize([0.1, 0.4], [0.3, 2.0]), nn.ReLU()),
    "pool": lambda: pooled(nn.AvgPool2d(2)),
    "pool, stride and padding": lambda: pooled(nn.AvgPool2d((3, 2), 1, (1, 0))),
    "pool, other divisor": lambda: pooled(nn.AvgPool2d(2, divisor_override=3)),
    "pool, no padding to count": lambda: pooled(
        nn.AvgPool2d(2, count_include_pad=False)
    ),
    "nested": lambda: nn.Sequential(
        nn.Sequential(nn.Identity(), nn.Sequential(nn.Conv2d(2, 2, 2), nn.ReLU())),
        nn.Dropout(0.9),
        nn.Flatten(),
    ),
    "residual": lambda: rich(
        models.Residual(
            nn.Sequential(nn.Conv2d(2, 3, 2, 2), nn.BatchNorm2d(3), nn.ReLU()),
            nn.Sequential(nn.AvgPool2d(2), nn.BatchNorm2d(2), nn.Conv2d(2, 3, 1)),
        ),
        nn.ReLU(inplace=True),
        models.Residual(nn.Sequential(nn.AvgPool2d(3, 1, 1))),
    ),
    "weight norm, norm": lambda: rich(
        parametrizations.weight_norm(nn.Conv2d(2, 3, 2)), nn.BatchNorm2d(3)
    ),
}


@pytest.mark.parametrize("name", RICH)
def test_the_canonical_network_is_the_same_function(name):
    """Only the five kinds of layer, and the same outputs on random inputs."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = statistics(RICH[name]())
        x = torch.randn(6, 2, 5, 5).double()
    net = models.canonical(model, (2, 5, 5))
    kinds = {type(m) for m in net.modules()} - {nn.Sequential}
    assert kinds <= {nn.Flatten, nn.Linear, nn.Conv2d, nn.ReLU, models.Residual}
    with torch.no_grad():
        assert torch.allclose(net(x), model(x.clone()), atol=1e-12)
    assert models.output_shape(net[-1], shape_before_last(net, (2, 5, 5))) == (
        tuple(net(x).shape[1:])
    )


def shape_before_last(net: nn.Sequential, shape: tuple) -> tuple:
    """The shape that the last layer takes."""
    for layer in net[:-1]:
        shape = models.output_shape(layer, shape)
    return shape


def test_canonical_is_repeatable_and_keeps_precision():
    """A canonical network is its own canonical form; dtype as the parameters'."""
    for dtype in (torch.float32, torch.float64):
        model = statistics(RICH["residual"]()).to(dtype)
        net = models.canonical(model, (2, 5, 5))
        x = torch.rand(3, 2, 5, 5, dtype=dtype)
        assert net(x).dtype == dtype
        assert torch.equal(models.canonical(net, (2, 5, 5))(x), net(x))


def test_gradients_reach_the_models_own_weights_through_the_canonical_form():
    """Folded batch-norm included; a sum of outputs has the same gradients."""
    model = statistics(RICH["conv, norm"]())
    x = torch.rand(3, 2, 5, 5).double()
    parameters = list(model.parameters())
    found = torch.autograd.grad(
        models.canonical(model, (2, 5, 5))(x).square().sum(), parameters
    )
    expected = torch.autograd.grad(model(x).square().sum(), parameters)
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a, b, atol=1e-9)


@pytest.mark.parametrize(
    "layer",
    [
        nn.MaxPool2d(2),
        nn.Sigmoid(),
        nn.Conv2d(2, 2, 2, dilation=2),
        nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"),
        nn.Conv2d(2, 2, 3, padding="same"),
        nn.AvgPool2d(2, padding=1, count_include_pad=False),
        nn.AvgPool2d(2, ceil_mode=True),
        nn.Flatten(0),
        nn.BatchNorm2d(2, track_running_stats=False),
        nn.ReLU6(),
        Negated(nn.ReLU()),
        models.Residual(nn.Sequential(nn.Softmax(1))),
    ],
    ids=lambda m: type(m).__name__,
)
def test_canonical_refuses_other_layers_and_options(layer):
    """A TypeError that says so, however deep the layer sits."""
    model = nn.Sequential(nn.Sequential(layer)).eval()
    with pytest.raises(TypeError, match="no bound rule"):
        models.canonical(model, (2, 5, 5))


def test_canonical_refuses_weights_and_inputs_that_do_not_fit():
    """NaN or infinity in weights or statistics; channels, sizes, branches."""
    for value in (float("nan"), float("inf")):
        for name in ("0.weight", "1.running_mean", "1.running_var"):
            model = nn.Sequential(nn.Conv2d(2, 2, 2), nn.BatchNorm2d(2)).eval()
            model.state_dict()[name].view(-1)[0] = value
            with pytest.raises(ValueError, match="NaN or infinity"):
                models.canonical(model, (2, 5, 5))
    uneven = models.Residual(nn.Sequential(nn.Conv2d(2, 3, 1)))
    for layer, shape in (
        (nn.Conv2d(2, 2, 2), (3, 5, 5)),
        (nn.Conv2d(2, 2, 6), (2, 5, 5)),
        (nn.Linear(4, 2), (5,)),
        (uneven, (2, 5, 5)),
    ):
        with pytest.raises(ValueError, match="does not take inputs"):
            models.canonical(nn.Sequential(layer).eval(), shape)
    with pytest.raises(TypeError, match="no shape rule"):
        models.output_shape(nn.Tanh(), (3,))


@given(st.data())
@settings(deadline=None, max_examples=60, derandomize=True, database=None)
def test_shapes_and_matrices_of_convolutions(data):
    """``output_shape`` is what torch returns, and the dense matrix gives the output."""
    pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
    groups = data.draw(st.integers(1, 2))
    channels, out = groups * data.draw(st.integers(1, 2)), groups
    height, width = data.draw(st.tuples(st.integers(2, 6), st.integers(2, 6)))
    kernel, stride = data.draw(pair), data.draw(pair)
    padding = data.draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    assume(height + 2 * padding[0] >= kernel[0] and width + 2 * padding[1] >= kernel[1])
    bias = data.draw(st.booleans())
    layer = nn.Conv2d(
        channels, out, kernel, stride, padding, groups=groups, bias=bias
    ).double()
    x = torch.rand(3, channels, height, width).double()
    with torch.no_grad():
        expected = layer(x)
    assert models.output_shape(layer, x.shape[1:]) == tuple(expected.shape[1:])
    weight, shift = models.affine_matrix(layer, x.shape[1:])
    assert weight.shape == (expected[0].numel(), x[0].numel())
    found = x.flatten(1) @ weight.T + shift
    assert torch.allclose(found, expected.flatten(1), atol=1e-12)


def test_the_matrix_of_a_chain_and_of_flatten():
    """Products of layers; Flatten is the identity; ReLU is not affine."""
    chain = nn.Sequential(nn.Conv2d(1, 2, 2), nn.Flatten(), nn.Linear(8, 3)).double()
    x = torch.rand(4, 1, 3, 3).double()
    weight, bias = models.affine_matrix(chain, (1, 3, 3))
    assert not weight.requires_grad
    assert torch.allclose(x.flatten(1) @ weight.T + bias, chain(x), atol=1e-12)
    weight, bias = models.affine_matrix(nn.Flatten(), (1, 2, 2))
    assert torch.equal(weight, torch.eye(4))
    assert torch.equal(bias, torch.zeros(4))
    with pytest.raises(TypeError, match="ReLU is not affine"):
        models.affine_matrix(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), (2,))


def test_a_layer_with_other_weights_leaves_the_first_alone():
    """The copy computes with what it was given; the original keeps its parameters."""
    layer = nn.Linear(2, 2)
    kept = layer.weight.detach().clone()
    other = models.with_weights(layer, 2 * layer.weight, None)
    x = torch.rand(3, 2)
    assert torch.allclose(other(x), 2 * x @ kept.T)
    assert torch.equal(layer.weight, kept)
    assert layer.bias is not None


def test_residual_small():
    """A stem and two blocks with stride 2; five activations, all of them new ones."""
    model = models.seeded(models.residual_small, (3, 32, 32), width=4, seed=0)
    made = [layer for layer in model.modules() if isinstance(layer, nn.ReLU)]
    assert len({id(layer) for layer in made}) == 5
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    sizes = [tuple(model[: k + 1](x).shape[1:]) for k in range(3)]
    assert sizes == [(4, 16, 16), (8, 8, 8), (16, 4, 4)]
    assert model(x).shape == (2, 10)


def test_the_bounds_take_residual_small():
    """In the canonical form it computes the same, so that it can be certified."""
    model = models.seeded(models.residual_small, (1, 8, 8), width=2, seed=0)
    torch.manual_seed(0)
    model.train()
    model(torch.rand(64, 1, 8, 8))  # statistics other than 0 and 1
    model[-3] = nn.AvgPool2d(1)
    x = torch.rand(3, 1, 8, 8)
    plain = models.canonical(model.eval(), (1, 8, 8))
    torch.testing.assert_close(plain(x), model(x), rtol=1e-4, atol=1e-5)


class Normed(nn.Sequential):
    """Normalises in its own forward."""

    def forward(self, x):
        return super().forward((x - 0.5) / 0.25)


@pytest.mark.parametrize("way", ["hook", "pre-hook", "forward", "instance", "module"])
def test_only_layers_can_be_cut_and_rebuilt(way):
    """A slice would lose a hook, or apply a forward of the model's own twice."""
    layers = [nn.Flatten(), nn.Linear(4, 3), nn.Sigmoid(), nn.Linear(3, 2)]
    model = (Normed if way == "forward" else nn.Sequential)(*layers).eval()
    if way == "hook":
        model.register_forward_hook(lambda module, args, out: -out)
    elif way == "pre-hook":
        model.register_forward_pre_hook(lambda module, args: (args[0] / 2,))
    elif way == "instance":
        model.forward = lambda x, inner=model.forward: -inner(x)
    elif way == "module":
        model = models.TwoLogits(model).eval()
    x, y = torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0])
    pool = training.PoolLoss(lambda m, a, y: 0 * a, size=3, num_new=3, num_drawn=2)
    for call in (
        lambda: models.sharpened(model, 2.0),
        lambda: units.features(model, x, -2),
        lambda: pool(model, x, y),
        lambda: pool.fooled(model),
    ):
        with pytest.raises(TypeError, match="cut"):
            call()
    plain = nn.Sequential(*layers).eval()
    assert units.features(plain, x, -2).shape == (3, 3)
    assert pool(plain, x, y).isfinite()
    assert pool.fooled(plain).shape == (1, 3)
