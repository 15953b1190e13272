"""Attacks and evaluation on images of another device, and where they make tensors."""

import ast
from functools import partial
from pathlib import Path

import far
import pytest
import torch

import advlib
from advlib import attacks, bounds, evaluation, models, training
from advlib.exact import Verdict

ROOMS = ("attacks", "evaluation", "training")
X = torch.rand(8, 1, 6, 6, generator=torch.Generator().manual_seed(0))
FGSM = partial(attacks.fgsm, eps=0.05)
INTERVAL = partial(bounds.interval_margins, eps=0.01)


def seeded() -> torch.Generator:
    """A generator in ordinary memory."""
    return torch.Generator().manual_seed(0)


def network():
    """Three classes."""
    return models.seeded(models.mlp, (1, 6, 6), [8], 3, seed=0).requires_grad_(False)


def decide(model, x, y):
    """Verdicts in turn."""
    kinds = ("unknown", "attacked", "certified")
    return [Verdict(kinds[k % 3], 0.0, None, 0.0) for k in range(len(x))]


PGD = {"alpha": 0.02, "num_steps": 2}
CALLS = {
    "input_gradient": attacks.input_gradient,
    "fgsm": FGSM,
    "pgd_linf": lambda m, x, y: attacks.pgd_linf(
        m, x, y, 0.05, generator=seeded(), drop_fooled=True, **PGD
    ),
    "pgd_l2": lambda m, x, y: attacks.pgd_l2(m, x, y, 0.5, generator=seeded(), **PGD),
    "pgd_l1": lambda m, x, y: attacks.pgd_l1(m, x, y, 1.0, generator=seeded(), **PGD),
    "apgd": lambda m, x, y: attacks.apgd(
        m, x, y, 0.5, norm="l2", generator=seeded(), num_steps=6
    ),
    "square": lambda m, x, y: attacks.square(
        m, x, y, 0.05, generator=seeded(), num_queries=4
    ),
    "strong_attack": partial(
        attacks.strong_attack, eps=0.05, num_restarts=6, num_steps=2, num_queries=4
    ),
    "boundary_l2": lambda m, x, y: attacks.boundary_l2(m, x, y, (y + 1) % 3),
    "carlini_wagner_l2": lambda m, x, y: attacks.carlini_wagner_l2(
        m, x, (m(x).argmax(1) + 1) % 3, num_searches=2, num_steps=4
    ).delta,
    "minimal_pgd_l2": lambda m, x, y: attacks.minimal_pgd_l2(
        m, x, (m(x).argmax(1) + 1) % 3, num_radii=2, num_steps=4
    ).delta,
    "lbfgs": lambda m, x, y: attacks.lbfgs(
        m, x, (m(x).argmax(1) + 1) % 3, num_bisections=1, max_iter=4
    ).delta,
    "rescale": lambda m, x, y: attacks.rescale(x, FGSM(m, x, y), 0.4),
    "best_of": lambda m, x, y: attacks.best_of(
        lambda g: attacks.pgd_linf(m, x, y, 0.05, generator=g, **PGD),
        m, x, y, num_restarts=2,
    ),
    "fast": training.fast(0.1),
    "toward_random_target": training.toward_random_target(attacks.boundary_l2, 3),
    "noise_as_long_as": training.noise_as_long_as(FGSM),
    "shortened": training.shortened(FGSM, 0.1),
    "trades": lambda m, x, y: training.TradesLoss(0.1, beta=1.0, **PGD)(m, x, y),
    "wrong": partial(evaluation.wrong, batch_size=3),
    "attacked": lambda m, x, y: evaluation.attacked(m, x, y, FGSM, batch_size=3),
    "uncertified": lambda m, x, y: evaluation.uncertified(
        m, x, y, (INTERVAL,), batch_size=3
    ),
    "both_sides": lambda m, x, y: torch.stack(
        list(evaluation.both_sides(
            m, x, y, {"f": FGSM}, {"i": INTERVAL}, decide
        ).errors.values())
    ),
    "both_sides, each alone": lambda m, x, y: torch.stack(
        list(evaluation.both_sides(
            m, x, y, {"f": FGSM}, {"i": INTERVAL}, decide, shortcut=False
        ).errors.values())
    ),
    "masking_checks": lambda m, x, y: torch.tensor(
        [c.value for c in evaluation.masking_checks(
            m, x, y, 0.05, substitutes=[m], num_steps=2, num_queries=2
        )],
        device=x.device,
    ),
    "rates": lambda m, x, y: torch.tensor(
        [
            evaluation.clean_error(m, x, y).rate,
            evaluation.attacked_error(m, x, y, FGSM).rate,
            evaluation.certified_error(m, x, y, INTERVAL).rate,
        ],
        device=x.device,
    ),
}  # fmt: skip
STATEFUL = ("fast", "toward_random_target", "noise_as_long_as")  # each draws on


@pytest.mark.parametrize("name", CALLS)
def test_images_and_network_on_another_device(name):
    """The answer lies there, and is that of ordinary memory."""
    net = network()
    y = net(X).argmax(1)
    y[0] = (y[0] + 1) % 3  # one is wrong as it is
    if name == "boundary_l2":
        y = net(X).argmax(1)
    here = CALLS[name](net, X, y)
    with far.World():
        model = far.settle(network())
        there = CALLS[name](model, far.sent(X.clone()), far.sent(y.clone()))
    assert isinstance(there, far.Far)
    there = far.fetched(there)
    if name in STATEFUL:
        assert there.shape == here.shape
    else:
        assert torch.equal(there, here)


def test_the_stand_in_refuses_what_cuda_refuses():
    """Mixed operands and far indices; not shapes, numbers and ordinary indices."""
    with far.World():
        x, index = far.sent(X.clone()), torch.arange(2)
        mask = x.flatten(1).sum(1) > 0
        for bad in (
            lambda: x + X,
            lambda: X[mask],
            lambda: torch.where(mask, torch.zeros(8), 1.0),
            lambda: x.__setitem__(0, X[0]),
            lambda: torch.stack([x, X]),
            lambda: x.numpy(),
        ):
            with pytest.raises(far.DeviceError):
                bad()
        assert torch.equal(x[index].cpu(), X[:2])
        assert (x + torch.tensor(1.0)).device == far.CUDA
        assert torch.zeros(2, device=x.device).device == far.CUDA
        assert torch.zeros(2).to(x).device == far.CUDA
        assert x.to("cpu").device == torch.device("cpu")
        assert torch.zeros(2).device == torch.device("cpu")


MAKERS = "arange zeros ones eye tensor full empty rand randn linspace randperm".split()


def bare(source: str) -> list[int]:
    """The lines on which a tensor is made with neither a device nor ``.to(...)``."""
    tree = ast.parse(source)
    moved = {
        id(node.func.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "to"
    }
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "torch"
        and node.func.attr in MAKERS
        and "device" not in {k.arg for k in node.keywords}
        and not any(k.arg == "generator" for k in node.keywords)
        and id(node) not in moved
    ]


def test_the_scan_sees_what_it_should():
    """By hand."""
    assert bare("torch.arange(3)\ntorch.zeros(2).to(x)\ntorch.eye(2, device=d)") == [1]


@pytest.mark.parametrize("path", [
    path
    for name in ROOMS[:2]
    for path in sorted((Path(advlib.__file__).parent / name).glob("*.py"))
], ids=lambda path: f"{path.parent.name}.{path.stem}")  # fmt: skip
def test_no_tensor_is_made_without_a_device(path):
    """A bare ``torch.arange`` lies in ordinary memory, wherever the images are."""
    assert bare(path.read_text("utf-8")) == []
