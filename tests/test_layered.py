"""Networks as layers, and the two walks of the search through them."""

import pytest
import torch
from torch import Tensor

from advlib.networks.graph import Builder, Graph
from advlib.networks.layered import Layered, layered
from advlib.networks.maps import Convolution, Matrix
from advlib.verify.walks import (
    Lines,
    corner,
    least,
    relu_lines,
    walk_back,
    walk_forward,
)


def _random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _branches() -> Graph:
    """A network with a skip connection, a join, a pool and a layer after two others."""
    builder = Builder()
    x = builder.input((2, 6, 5))
    conv = Convolution(_random(3, 2, 3, 3), (2, 6, 5), (1, 1), ((1, 1),) * 2, (1, 1))
    first = builder.relu(builder.affine(x, conv, _random(3, 1, 1, seed=1)))
    pooled = builder.max_pool(first, (2, 2), (2, 2), ((0, 0),) * 2, (1, 1))
    flat = builder.reshape(pooled, (18,))
    hidden = builder.relu(builder.matrix(flat, _random(7, 18, seed=2)))
    skip = builder.matrix(builder.reshape(x, (60,)), _random(7, 60, seed=3))
    total = builder.leaky_relu(builder.sum([hidden, skip]), 0.1)
    joined = builder.concat([total, flat], 0)
    return builder.graph(builder.matrix(joined, _random(4, 25, seed=4) / 5))


def _plain() -> Graph:
    builder = Builder()
    node = builder.input((1, 6))
    for k, width in enumerate((8, 9, 3)):
        weight = _random(width, builder.shape(node)[-1], seed=k)
        node = builder.matrix(node, weight, _random(width, seed=k + 9))
        node = builder.relu(node) if k < 2 else node
    return builder.graph()


def _affine() -> Graph:
    builder = Builder()
    node = builder.matrix(builder.input((5,)), _random(3, 5))
    return builder.graph(builder.scale(node, 2.0, 1.0))


GRAPHS = {"branches": _branches, "plain": _plain, "affine": _affine}


@pytest.mark.parametrize("name", GRAPHS)
def test_layers_are_the_graph(name):
    graph = GRAPHS[name]()
    net = layered(graph)
    x = _random(20, *graph.inside, seed=5)
    torch.testing.assert_close(net(x.flatten(1)), graph(x).flatten(1))
    assert all(m.inside == (_width(net, j),) for _, j, m in _sources(net))
    small = net.to(torch.zeros(()))
    assert small(x.flatten(1).float()).dtype == torch.float32
    for _, _, m in _sources(net):
        at = x.new_zeros(1, *m.inside) + 1
        assert (m.absolute().push(at) >= m.push(at).abs() - 1e-12).all()


def _sources(net: Layered) -> list[tuple]:
    return [(k, j, m) for k, one in enumerate(net.layers) for j, m in one.sources]


def _width(net: Layered, j: int) -> int:
    return net.size if j == 0 else net.layers[j - 1].size


def test_a_graph_in_float32_has_layers_in_float32():
    assert layered(_plain().to(torch.zeros(()))).like.dtype == torch.float32


def test_small_maps_are_multiplied_out():
    kinds = {type(m) for _, _, m in _sources(layered(_branches()))}
    assert kinds == {Matrix}


@pytest.mark.parametrize("name", GRAPHS)
def test_rows_of_outputs_and_inputs_join_the_last_layer(name):
    net = layered(GRAPHS[name]())
    n, x = net.layers[-1].size, _random(9, net.size, seed=6)
    matrix, shift = _random(2, n, seed=7), _random(2, seed=8)
    for inputs in (_random(2, net.size, seed=9), torch.zeros(2, net.size).double()):
        rows = net.followed_by(matrix, inputs, shift)
        want = net(x) @ matrix.T + x @ inputs.T + shift
        torch.testing.assert_close(rows(x), want)


def _bounded(net: Layered, low: Tensor, high: Tensor) -> tuple[dict, dict]:
    """CROWN's bounds before each layer of units, and the lines around them."""
    pre, lines = {}, {}
    for k, layer in enumerate(net.layers[:-1], 1):
        eye = torch.eye(layer.size, dtype=low.dtype)
        rows = torch.cat([eye, -eye])[None]
        value = least(walk_back(net, k, rows, lines), low, high)
        pre[k] = value[:, : layer.size], -value[:, layer.size :]
        lines[k] = relu_lines(*pre[k])
    return pre, lines


@pytest.mark.parametrize("name", GRAPHS)
def test_no_point_of_the_boxes_leaves_the_bounds(name):
    """Two boxes at once: 2000 points and the corners where bounds are attained."""
    net = layered(GRAPHS[name]())
    middle = _random(2, net.size, seed=10)
    low, high = middle - 0.2, middle + 0.3
    pre, lines = _bounded(net, low, high)
    k, n = len(net.layers), net.layers[-1].size
    rows = torch.cat([torch.eye(n), -torch.eye(n)]).double()[None]
    found = walk_back(net, k, rows, lines)
    bound, at = least(found, low, high), corner(found.weight, low, high)
    for i in range(2):
        share = torch.rand(2000, net.size, dtype=torch.float64)
        points = torch.cat([low[i] + (high - low)[i] * share, at[i]])
        inner = net.inner(points)
        for j, (lower, upper) in pre.items():
            assert (inner[j - 1] >= lower[i] - 1e-9).all()
            assert (inner[j - 1] <= upper[i] + 1e-9).all()
        assert (inner[-1] @ rows[0].T >= bound[i] - 1e-9).all()
    if name == "affine":  # there nothing is lost: each row at its own corner
        own = net(at.flatten(0, 1)).view(*at.shape[:2], -1) * rows
        torch.testing.assert_close(own.sum(-1), bound)


@pytest.mark.parametrize("name", ["branches", "plain"])
def test_the_gradient_of_a_bound_is_a_forward_walk(name):
    """By slopes and multipliers, against autograd; and the walk ends at the bound."""
    net = layered(GRAPHS[name]())
    middle = _random(2, net.size, seed=11)
    low, high = middle - 0.3, middle + 0.3
    pre, _ = _bounded(net, low, high)
    k = len(net.layers)
    rows = torch.eye(net.layers[-1].size, dtype=torch.float64)[None]
    slopes = {
        j: _random(*pre[j][0].shape, seed=j).sigmoid().requires_grad_() for j in pre
    }
    pushes = {j: (_random(*pre[j][0].shape, seed=j) / 9).requires_grad_() for j in pre}
    lines = {j: relu_lines(*pre[j], slopes[j]) for j in pre}
    found = walk_back(net, k, rows, lines, pushes=pushes)
    bound = least(found, low, high)
    every = [*slopes.values(), *pushes.values()]
    want = torch.autograd.grad(bound.sum(), every, allow_unused=True)
    inner = walk_forward(net, k, corner(found.weight, low, high), lines, found)
    for j, by_slope, by_push in zip(pre, want, want[len(pre) :], strict=False):
        unstable = (pre[j][0] < 0) & (pre[j][1] > 0)
        mine = (found.rows[j].clamp(min=0) * inner[j]).sum(1)
        torch.testing.assert_close(torch.where(unstable, mine, 0.0), by_slope)
        torch.testing.assert_close(inner[j].sum(1), by_push)


def test_lines_of_ends_that_are_no_numbers_prove_nothing():
    low = torch.tensor([[torch.nan, -torch.inf, -1.0]], dtype=torch.float64)
    high = torch.tensor([[1.0, 1.0, 1.0]], dtype=torch.float64)
    line = relu_lines(low, high)
    assert isinstance(line, Lines)
    assert line.upper.isnan().tolist() == [[True, True, False]]
