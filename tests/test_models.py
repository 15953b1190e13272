"""Sizes, shapes and seeds of the networks."""

import itertools

import pytest
import torch
from torch import nn

from advlib import models
from advlib._vision import torchvision

SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32), (1, 7, 5)]
BUILDERS = ("linear", "small", "dnn_2", "dnn_4", "cnn")


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
