"""Lipschitz constants against dense matrices, sampled slopes and margins."""

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
