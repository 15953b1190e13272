"""What differentiates does so where the caller has switched gradients off, too."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from advlib import attacks, bounds, certificates, evaluation, exact, lipschitz
from advlib import branch_and_bound as bb

MODES = {"no_grad": torch.no_grad, "inference_mode": torch.inference_mode}

EPS = 0.1  # at which the search has to split


def dense() -> nn.Sequential:
    """Two layers on 16 pixels."""
    layers = nn.Flatten(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)
    return nn.Sequential(*layers)


def conv() -> nn.Sequential:
    """A convolution, and a layer behind it."""
    layers = nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(32, 4)
    return nn.Sequential(*layers)


def network(build: Callable[[], nn.Sequential]) -> tuple[nn.Module, Tensor, Tensor]:
    """A network, three images, and what it says of them."""
    torch.manual_seed(3)
    model = build().eval()
    x = torch.rand(3, 1, 4, 4)
    return model, x, model(x).argmax(1)


STEP = {"alpha": 0.03, "num_steps": 3}
CALLS = {
    "alpha": lambda m, x, y: bounds.alpha_crown_margins(m, x, y, EPS, num_steps=3),
    "alpha, all": lambda m, x, y: bounds.alpha_crown_margins(
        m, x, y, EPS, num_steps=3, slopes="all"
    ),
    "lipschitz": lambda m, x, y: lipschitz.lipschitz_margins(m, x, y, EPS),
    "certificate": lambda m, x, y: (
        certificates.make_certificate(m, x[0], int(y[0]), 0.001, num_steps=3)
        .slopes[0]
        .tolist()
    ),
    "carlini_wagner": lambda m, x, y: (
        attacks.carlini_wagner_l2(m, x, (y + 1) % 4, num_searches=1, num_steps=3).delta
    ),
    "lbfgs": lambda m, x, y: attacks.lbfgs(m, x, (y + 1) % 4).delta,
    "minimal_pgd": lambda m, x, y: (
        attacks.minimal_pgd_l2(m, x, (y + 1) % 4, num_radii=2, num_steps=3).delta
    ),
    "pgd_linf": lambda m, x, y: attacks.pgd_linf(m, x, y, EPS, **STEP),
    "pgd_l2": lambda m, x, y: attacks.pgd_l2(m, x, y, EPS, **STEP),
    "pgd_l1": lambda m, x, y: attacks.pgd_l1(m, x, y, EPS, **STEP),
    "apgd": lambda m, x, y: attacks.apgd(m, x, y, EPS, num_steps=3),
    "strong": lambda m, x, y: attacks.strong_attack(m, x, y, EPS, num_queries=10),
    "milp": lambda m, x, y: exact.milp_robust(m, x[:1], y[:1], EPS)[0].bound,
    "branch": lambda m, x, y: [
        v.bound for v in bb.branch_and_bound(m, x, y, EPS, max_nodes=50)
    ],
    "smallest": lambda m, x, y: bb.minimal_margin(m, x[:1], y[:1], EPS)[0].bound,
    "masking": lambda m, x, y: [
        c.rate.wrong for c in evaluation.masking_checks(m, x, y, EPS)
    ],
}


def same(first: Any, second: Any) -> bool:
    """Whether two results, tensors or numbers in lists, are equal."""
    if isinstance(first, (list, tuple)):
        return all(same(a, b) for a, b in zip(first, second, strict=True))
    return bool(torch.equal(torch.as_tensor(first), torch.as_tensor(second)))


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("build", [dense, conv])
def test_gradients_switched_off_change_nothing(
    build: Callable, call: Callable, mode: Callable[[], AbstractContextManager]
) -> None:
    model, x, y = network(build)
    want = call(model, x, y)
    with mode():
        found = call(model, x, y)
    assert same(want, found)
