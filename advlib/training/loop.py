"""The loop: SGD on an objective, standard or robust, and the augmentation."""

import math
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from advlib._check import check_delta, check_no_images
from advlib.attacks import Attack
from advlib.training.losses import Objective, mean_cross_entropy
from advlib.training.modes import has_batch_statistics

Augment = Callable[[Tensor, torch.Generator], Tensor]


def show_progress() -> bool:
    """A bar for people: in a terminal, or in Jupyter when ADVLIB_PROGRESS=1."""
    return sys.stderr.isatty() or os.environ.get("ADVLIB_PROGRESS") == "1"


def fit(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    epochs: int,
    lr: float | Sequence[float],
    batch_size: int = 100,
    objective: Objective = mean_cross_entropy,
    attack: Attack | None = None,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    augment: Augment | None = None,
    after_epoch: Callable[[int, float], object] | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> list[float]:
    """Train ``model`` in place by SGD; return the mean objective of each epoch.

    ``x`` (N, ...), ``y`` (N,); ``lr`` one number or one for each of ``epochs``; batches
    of ``batch_size``. ``progress`` shows a bar (None: in a terminal only). With
    ``attack``, each batch is first replaced by ``x + attack(model, x, y)``, crafted in
    eval mode: the outer minimisation by Danskin's theorem. A robust loss in closed form
    goes in as ``objective(model, x, y)`` instead. With ``augment``, each batch is
    first replaced by ``augment(x, generator)``. ``momentum`` and ``weight_decay`` are
    those of SGD; vectors and scalars (biases, batch-norm) do not decay. After each
    epoch ``after_epoch(epoch, mean objective)`` is called, ``model`` in eval mode. The
    order of the images comes from ``seed``. A network with batch-norm sees no batch of
    one image: the last one joins the batch before it. Leaves ``model`` in eval mode.
    Raises ``ValueError`` for bad arguments, one image or a ``batch_size`` of 1 with
    batch-norm among them, ``ValueError`` or ``TypeError`` for an attack that returns no
    ``delta`` (``x + delta`` included), and ``FloatingPointError`` if the objective or a
    parameter is not finite. After any error during an epoch, or Ctrl-C, the parameters
    are those of its start, in eval mode: ``model`` is never left between two updates.
    """
    rates = list(lr) if isinstance(lr, Sequence) else [lr] * epochs
    if len(rates) != epochs or len(x) != len(y) or len(x) == 0 or batch_size < 1:
        raise ValueError("need one lr per epoch, one label per image, batch_size >= 1")
    pairs = has_batch_statistics(model)
    if pairs and min(len(x), batch_size) == 1:
        raise ValueError("batch-norm needs two images in a batch")
    optimizer = sgd(model, momentum, weight_decay)
    order, altered = (torch.Generator().manual_seed(seed + k) for k in range(2))
    alter = augment and partial(augment, generator=altered)
    fixed = {"optimizer": optimizer, "objective": objective, "attack": attack}
    step = partial(_step, alter=alter, **fixed)
    history = []
    hidden = not (show_progress() if progress is None else progress)
    for epoch, rate in enumerate(tqdm(rates, disable=hidden, desc="epochs")):
        for group in optimizer.param_groups:
            group["lr"] = rate
        batches = _batches(len(x), batch_size, order, pairs)
        history.append(_epoch(model, x, y, batches, step))
        if after_epoch is not None:
            after_epoch(epoch, history[-1])
    model.eval()
    return history


def _batches(
    n: int, batch_size: int, generator: torch.Generator, pairs: bool
) -> tuple[Tensor, ...]:
    """Cut a random order of ``n`` images; with ``pairs`` none stays alone."""
    batches = torch.randperm(n, generator=generator).split(batch_size)
    if pairs and len(batches[-1]) == 1:  # one image has no variance
        return *batches[:-2], torch.cat(batches[-2:])
    return batches


def _epoch(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    batches: Sequence[Tensor],
    step: Callable[[nn.Module, Tensor, Tensor], float],
) -> float:
    """Take one step per batch, or none: undo them all after an error."""
    before = {k: v.detach().clone() for k, v in model.state_dict().items()}
    try:
        mean = sum(step(model, x[i], y[i]) * len(i) for i in batches) / len(x)
        if not math.isfinite(mean):
            raise FloatingPointError(f"the objective is {mean}: lower lr")
        if not all(p.isfinite().all() for p in model.parameters()):
            raise FloatingPointError("a parameter is not finite: lower lr")
    except BaseException:  # Ctrl-C too, which may come in the middle of an update
        model.load_state_dict(before)
        raise
    finally:
        model.eval()
    return mean


def _step(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    optimizer: torch.optim.Optimizer,
    objective: Objective,
    attack: Attack | None,
    alter: Callable[[Tensor], Tensor] | None,
) -> float:
    if alter is not None:
        x = alter(x)
    if attack is not None:
        model.eval()  # craft against the network that will be attacked
        delta = check_delta(attack(model, x, y), x)
        check_no_images(delta, x)
        x = x + delta
    model.train()
    loss = objective(model, x, y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def sgd(
    model: nn.Module,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    *,
    nesterov: bool = False,
) -> torch.optim.Optimizer:
    """Return SGD for ``model`` with ``momentum``, its rate to be set before each step.

    ``weight_decay`` pulls at matrices and kernels alone, not at vectors and scalars
    (biases, batch-norm, learned activations); ``nesterov`` as in torch.
    """
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [
        {"params": [p for p in model.parameters() if p.dim() >= 2]},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.SGD(
        groups,
        lr=0.0,
        momentum=momentum,
        weight_decay=weight_decay,
        nesterov=nesterov,
    )


def shift(x: Tensor, generator: torch.Generator, *, pad: int = 4) -> Tensor:
    """Return images ``x`` (N, C, H, W), each moved by up to ``pad`` pixels.

    Each image draws its own shift from ``generator``. What moves in from outside is 0.
    """
    h, w = x.shape[2:]
    padded = F.pad(x, (pad,) * 4)
    corners = torch.randint(2 * pad + 1, (len(x), 2), generator=generator).tolist()
    return torch.stack(
        [padded[k, :, i : i + h, j : j + w] for k, (i, j) in enumerate(corners)]
    )


def shift_and_flip(x: Tensor, generator: torch.Generator, *, pad: int = 4) -> Tensor:
    """Return images ``x`` (N, C, H, W), moved by up to ``pad`` pixels and mirrored.

    As ``shift``; then each is mirrored left to right with probability one half, from
    ``generator``. The usual augmentation for natural images; not for digits, which a
    mirror makes wrong.
    """
    moved = shift(x, generator, pad=pad)
    mirror = torch.randint(2, (len(x), 1, 1, 1), generator=generator).bool()
    return torch.where(mirror.to(x.device), moved.flip(3), moved)
