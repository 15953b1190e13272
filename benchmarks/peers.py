"""The peers, each behind one function; one that is absent is a line, not a crash.

They are installed for the benchmarks alone, into a folder that the book never sees
(README.md). Each gets its own copy of a network, because some of them change it.
"""

import contextlib
import importlib
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from copy import deepcopy
from importlib import metadata

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.config import ROOT

FOLDER = ROOT / "_build" / "peers"
PACKAGES = {
    "torchattacks": "torchattacks",
    "foolbox": "foolbox",
    "art": "adversarial-robustness-toolbox",
    "pyautoattack": "pyautoattack",
    "auto_LiRPA": "auto_LiRPA",
}
Attack = Callable[[], Tensor]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Their warnings (deprecated calls of torch and numpy) are not ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def find(name: str) -> types.ModuleType:
    """Import peer ``name``; raise ``ImportError`` if it is absent or does not load."""
    if FOLDER.is_dir() and str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))  # at the end: the book's own versions come first
    with quiet():
        if name == "auto_LiRPA":
            _old_names()
        return importlib.import_module(name)


def _old_names() -> None:
    """Give auto_LiRPA 0.3 of 2022 the three names that torch and numpy moved since.

    It then runs unchanged under this torch. Newer versions need none of this.
    """
    module = types.ModuleType("numpy.lib.arraysetops")
    module.isin = np.isin
    sys.modules.setdefault(module.__name__, module)
    helper = importlib.import_module("torch.onnx.symbolic_helper")
    inner = "torch.onnx._internal.torchscript_exporter._globals"
    state = importlib.import_module(inner).GLOBALS
    if not hasattr(helper, "_set_opset_version"):
        helper._set_opset_version = lambda version: setattr(
            state, "export_onnx_opset_version", version
        )
    if not hasattr(torch._C.Node, "__getitem__"):
        torch._C.Node.__getitem__ = lambda n, key: getattr(n, n.kindOf(key))(key)


def version(name: str) -> str:
    """Return the installed version of peer ``name``, or "absent"."""
    try:
        find(name)
        return metadata.version(PACKAGES[name])
    except (ImportError, metadata.PackageNotFoundError):
        return "absent"


def torchattacks_pgd(
    model: nn.Module, x: Tensor, y: Tensor, eps: float, alpha: float, steps: int
) -> Attack:
    """Return torchattacks' PGD on ``x``, ``y``: ``steps`` of ``alpha`` in ``eps``."""
    attack = find("torchattacks").PGD(
        deepcopy(model), eps=eps, alpha=alpha, steps=steps
    )
    return lambda: attack(x, y) - x


def foolbox_pgd(
    model: nn.Module, x: Tensor, y: Tensor, eps: float, alpha: float, steps: int
) -> Attack:
    """Return foolbox's PGD on ``x``, ``y``: ``steps`` of ``alpha`` in ``eps``."""
    foolbox = find("foolbox")
    wrapped = foolbox.PyTorchModel(deepcopy(model), bounds=(0, 1), device="cpu")
    attack = foolbox.attacks.LinfPGD(abs_stepsize=alpha, steps=steps, random_start=True)
    return lambda: attack.run(wrapped, x, y, epsilon=eps) - x


def art_pgd(
    model: nn.Module, x: Tensor, y: Tensor, eps: float, alpha: float, steps: int
) -> Attack:
    """Return ART's PGD on ``x``, ``y``: ``steps`` of ``alpha`` in ``eps``."""
    find("art")
    evasion = importlib.import_module("art.attacks.evasion")
    estimators = importlib.import_module("art.estimators.classification")
    classifier = estimators.PyTorchClassifier(
        deepcopy(model), nn.CrossEntropyLoss(), tuple(x.shape[1:]), 10,
        clip_values=(0.0, 1.0), device_type="cpu",
    )  # fmt: skip
    attack = evasion.ProjectedGradientDescent(
        classifier, eps=eps, eps_step=alpha, max_iter=steps, num_random_init=1,
        batch_size=len(x), verbose=False,
    )  # fmt: skip
    images, labels = x.numpy(), y.numpy()
    return lambda: torch.from_numpy(attack.generate(images, labels)) - x


def autoattack(
    model: nn.Module, x: Tensor, y: Tensor, eps: float, seed: int
) -> Callable[[], Tensor]:
    """Return AutoAttack (standard) on ``x``, ``y`` in ``eps``: which images stand.

    Its four attacks in the packaging of pyautoattack, batches of 250, from ``seed``.
    """
    kind = find("pyautoattack").AutoAttack
    attack = kind(deepcopy(model), eps=eps, norm="Linf", version="standard", seed=seed)

    def run() -> Tensor:
        with quiet():
            x_adv, _ = attack.run_standard_evaluation(x, y, batch_size=250)
        with torch.no_grad():
            return model(x_adv).argmax(1) == y

    return run


def lirpa(
    model: nn.Module, x: Tensor, eps: float, spec: Tensor, steps: int
) -> Callable[[str], Tensor]:
    """Return auto_LiRPA's lower bound of ``spec`` @ logits for one of its methods.

    ``spec`` (N, S, K); the ball of radius ``eps`` is cut to [0, 1]; "CROWN-Optimized"
    makes ``steps`` steps. The graph is built here, outside of any timing.
    """
    package = find("auto_LiRPA")
    with quiet():
        options = {
            "conv_mode": "patches",
            "sparse_features_alpha": False,  # in 0.3 it fails on its own shapes
            "optimize_bound_args": {"iteration": steps},
        }
        bounded = package.BoundedModule(
            deepcopy(model), torch.zeros_like(x), bound_opts=options
        )
    ball = package.PerturbationLpNorm(
        norm=np.inf, eps=eps, x_L=(x - eps).clamp(0, 1), x_U=(x + eps).clamp(0, 1)
    )
    images = package.BoundedTensor(x, ball)

    def bound(method: str) -> Tensor:
        with quiet(), torch.set_grad_enabled(method == "CROWN-Optimized"):
            lower, _ = bounded.compute_bounds(
                x=(images,), C=spec, method=method, bound_upper=False
            )
        return lower.detach()

    return bound
