"""Sparse matrices of layers against the dense ones that the layers themselves make."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from advlib import models
from advlib.networks.sparse import sparse_matrix


def random_convolution(seed: int) -> tuple[nn.Conv2d, tuple[int, int, int]]:
    """Any kernel, stride, padding, dilation, groups; an input that it takes."""
    draw = random.Random(seed)
    groups = draw.choice([1, 1, 2, 3])
    inner, out = groups * draw.randint(1, 2), groups * draw.randint(1, 3)
    kernel = draw.randint(1, 4), draw.randint(1, 4)
    dilation = draw.choice([1, 1, 2]), draw.choice([1, 1, 3])
    sides = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    shape = (inner, *(n + draw.randint(0, 4) for n in sides))
    stride = draw.randint(1, 3), draw.randint(1, 3)
    padding: tuple[int, int] | str = (draw.randint(0, 3), draw.randint(0, 3))
    if seed % 5 == 0:
        stride, padding = ((1, 1), "same") if seed % 2 else (stride, "valid")
    options = {"stride": stride, "padding": padding, "dilation": dilation}
    options |= {"groups": groups, "bias": draw.random() < 0.5}
    return models.seeded(nn.Conv2d, inner, out, kernel, **options, seed=seed), shape


@pytest.mark.filterwarnings("ignore:Using padding='same' with even")  # asymmetric
@pytest.mark.parametrize("seed", range(60))
def test_convolutions_are_their_dense_matrices(seed):
    """Kernel, stride, padding, dilation and groups; sorted, nothing stored twice."""
    layer, shape = random_convolution(seed)
    for kind in (layer, layer.double()):
        weight, bias = models.affine_matrix(kind, shape)
        found, shift = sparse_matrix(kind, shape)
        assert found.dtype == shift.dtype == np.float64
        np.testing.assert_array_equal(found.toarray(), weight.double().numpy())
        np.testing.assert_allclose(shift, bias.double().numpy(), rtol=0, atol=0)
        assert found.has_canonical_format


def test_depthwise_and_zero_weights():
    """One channel each; zeros of a kernel are not stored."""
    layer = models.seeded(nn.Conv2d, 3, 6, 2, groups=3, seed=0)
    layer.weight.data[::2] = 0.0
    found, _ = sparse_matrix(layer, (3, 4, 4))
    weight, _ = models.affine_matrix(layer, (3, 4, 4))
    np.testing.assert_array_equal(found.toarray(), weight.numpy())
    assert found.nnz == 3 * 9 * 4


def test_linear_layers_and_flatten():
    """On the last dimension, as torch applies them; Flatten is the identity."""
    for bias in (True, False):
        layer = models.seeded(nn.Linear, 3, 2, bias=bias, seed=0)
        for shape in ((3,), (4, 3), (2, 1, 3)):
            found, shift = sparse_matrix(layer, shape)
            x = torch.rand(*shape).double()
            right = layer.double()(x).flatten().detach().numpy()
            np.testing.assert_allclose(found @ x.flatten().numpy() + shift, right)
    found, shift = sparse_matrix(nn.Flatten(), (2, 3))
    np.testing.assert_array_equal(found.toarray(), np.eye(6))
    assert not shift.any()


def test_a_large_convolution_needs_little_memory():
    """32 x 32 x 32 to itself: 8 GiB if it were dense, 0.1 GiB here."""
    layer = models.seeded(nn.Conv2d, 32, 32, 3, padding=1, seed=0).double()
    found, shift = sparse_matrix(layer, (32, 32, 32))
    assert found.data.nbytes + found.indices.nbytes < 150e6
    x = torch.rand(1, 32, 32, 32).double()
    right = layer(x).flatten().detach().numpy()
    np.testing.assert_allclose(found @ x.flatten().numpy() + shift, right, atol=1e-12)


def test_what_has_no_sparse_matrix_is_refused():
    """Layers, a forward of its own, other paddings, inputs that do not fit."""

    class Halved(nn.Linear):
        """A Linear layer of another function."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """Half of it."""
            return super().forward(x) / 2

    with pytest.raises(TypeError, match="ReLU"):
        sparse_matrix(nn.ReLU(), (3,))
    with pytest.raises(TypeError, match="Halved"):
        sparse_matrix(Halved(2, 2), (2,))
    circular = nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular")
    with pytest.raises(TypeError, match="circular"):
        sparse_matrix(circular, (1, 4, 4))
    for layer, shape in [
        (nn.Linear(3, 2), (2,)),
        (nn.Conv2d(1, 1, 3), (1, 2, 4)),
        (nn.Conv2d(1, 1, 3), (2, 4, 4)),
        (nn.Conv2d(1, 1, 3), (4, 4)),
    ]:
        with pytest.raises(ValueError, match="does not take"):
            sparse_matrix(layer, shape)
