"""The graph that every network becomes: its maps, their transposes, its identities."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from advlib.networks.graph import Builder
from advlib.networks.maps import (
    Convolution,
    Matrix,
    Pick,
    Reshape,
    Scale,
    Transposed,
    dense,
)

LIKE = torch.zeros((), dtype=torch.float64)


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


CONVOLUTION = Convolution(
    _random(6, 2, 3, 2), (4, 9, 8), (2, 1), ((1, 0), (2, 1)), (1, 2), 2
)
MAPS = [
    Matrix(_random(5, 7), (7,)),
    Matrix(_random(5, 7), (3, 7, 2), axis=1),
    Matrix(_random(5, 7), (3, 7, 2), axis=-2),
    CONVOLUTION,
    Convolution(_random(3, 2, 4), (2, 11), (3,), ((2, 2),), (2,)),
    Convolution(
        _random(2, 1, 2, 2, 3), (1, 4, 5, 6), (1, 2, 3), ((0, 0),) * 3, (1,) * 3
    ),
    Transposed(CONVOLUTION),
    Scale(_random(4, 1, 1), (4, 3, 2)),
    Pick(torch.tensor([[0, 5, 5], [-1, 2, 3]]), (2, 3)),
    Pick(torch.tensor([4, 4, 0]), (5,)),
    Reshape((2, 6), (3, 4)),
]


@pytest.mark.parametrize("linear", MAPS, ids=lambda m: type(m).__name__)
def test_pull_is_the_transpose_of_push(linear):
    matrix = dense(linear, LIKE, batch=7)
    x, y = _random(3, *linear.inside), _random(3, *linear.outside, seed=1)
    pushed, pulled = linear.push(x), linear.pull(y)
    assert pushed.shape == y.shape
    assert pulled.shape == x.shape
    torch.testing.assert_close(pushed.flatten(1), x.flatten(1) @ matrix.T)
    torch.testing.assert_close(pulled.flatten(1), y.flatten(1) @ matrix)
    torch.testing.assert_close(dense(linear.absolute(), LIKE), matrix.abs())
    assert linear.to(torch.zeros((), dtype=torch.float32)).push(x.float()).dtype == (
        torch.float32
    )


def test_a_convolution_is_torch_s():
    conv = nn.Conv2d(
        4, 6, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2
    )
    conv = conv.double()
    linear = Convolution(conv.weight, (4, 9, 8), (2, 1), ((1, 1), (2, 2)), (1, 2), 2)
    x = _random(2, 4, 9, 8)
    torch.testing.assert_close(linear.push(x) + conv.bias[:, None, None], conv(x))
    back = nn.ConvTranspose2d(
        6, 4, 3, stride=2, padding=1, output_padding=1, bias=False
    )
    back, y = back.double(), _random(2, 6, 4, 5)
    of = Convolution(back.weight, (4, 8, 10), (2, 2), ((1, 1),) * 2, (1, 1))
    torch.testing.assert_close(Transposed(of).push(y), back(y))


@pytest.mark.parametrize("ceil", [False, True])
def test_max_pooling_is_a_tournament(ceil):
    x, tried = _random(2, 3, 9, 8), 0
    for k, s, p, d in itertools.product((1, 2, 3), (1, 2, 3), (0, 1), (1, 2)):
        if p > k // 2 or d * (k - 1) >= 8:
            continue
        builder = Builder()
        node = builder.input((3, 9, 8))
        options = (k, k), (s, s), ((p, p),) * 2, (d, d)
        builder.max_pool(node, *options, ceil=ceil)
        want = F.max_pool2d(x, k, s, p, d, ceil_mode=ceil)
        assert torch.equal(builder.graph()(x).float(), want.float())
        tried += 1
    assert tried > 20


def test_piecewise_linear_units_are_relus():
    builder, x = Builder(), _random(50, 6)
    z = builder.input((6,))
    ends = torch.linspace(-1, 0, 6)
    for node, want in [
        (builder.leaky_relu(z, 0.1), F.leaky_relu(x, 0.1)),
        (builder.leaky_relu(z, torch.full((6,), 1.5)), torch.where(x > 0, x, 1.5 * x)),
        (builder.absolute(z), x.abs()),
        (builder.clamp(z, -0.5, 0.25), x.clamp(-0.5, 0.25)),
        (builder.clamp(z, ends, None), x.maximum(ends)),
        (builder.clamp(z, 0.5, -0.5), x.clamp(0.5, -0.5)),
        (builder.maximum(z, builder.scale(z, -0.5)), x.maximum(-0.5 * x)),
        (builder.minimum(z, builder.scale(z, 1.0, 0.3)), x.minimum(x + 0.3)),
    ]:
        graph = builder.graph(node)
        torch.testing.assert_close(graph(x), want.double())
        assert {graph.nodes[i].op.name for i in graph.units} <= {"relu"}


def test_sums_broadcast_and_rows_join():
    builder, x = Builder(), _random(4, 3, 2)
    z = builder.input((3, 2))
    mean = builder.mean(z, (0,))
    both = builder.concat([builder.difference(z, mean), builder.reshape(z, (3, 2))], 1)
    graph = builder.graph(builder.reshape(both, (12,)))
    want = torch.cat([x - x.mean(1, keepdim=True), x], 2).flatten(1)
    torch.testing.assert_close(graph(x), want)
    assert len(graph.readers[0]) == 3  # mean, difference, joined


def test_what_does_not_fit_is_said():
    builder = Builder()
    z = builder.input((3, 2))
    with pytest.raises(ValueError, match="does not take inputs of"):
        builder.matrix(z, torch.zeros(4, 3))
    with pytest.raises(ValueError, match="NaN or infinity"):
        builder.scale(z, torch.nan, name="scaling")
    with pytest.raises(ValueError, match="NaN or infinity"):
        builder.matrix(z, torch.zeros(4, 2), torch.full((4,), torch.inf))
    with pytest.raises(ValueError, match="outside"):
        builder.pick(z, torch.tensor([6]))
    with pytest.raises(ValueError, match="cannot be read as"):
        builder.reshape(z, (4,))
    with pytest.raises(ValueError, match="no unit"):
        builder.unit(z, "mish")
    with pytest.raises(ValueError, match="comes first"):
        builder.input((1,))
    with pytest.raises(ValueError, match=r"inputs of \(3,\)"):
        builder.graph()(torch.zeros(1, 3))
    with pytest.raises(ValueError, match=r"lies in the padding|wider"):
        builder.max_pool(z, (4,), (1,), ((0, 0),), (1,))
