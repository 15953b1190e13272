"""One training loop, standard or robust by an argument."""

import math
import os
import sys
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from advlib.attacks import Attack

Objective = Callable[[nn.Module, Tensor, Tensor], Tensor]


def mean_cross_entropy(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the mean cross-entropy of ``model`` on a batch ``x``, ``y``: a scalar."""
    return F.cross_entropy(model(x), y)


def _show_progress() -> bool:
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
    seed: int = 0,
    progress: bool | None = None,
) -> list[float]:
    """Train ``model`` in place by SGD; return the mean objective of each epoch.

    ``x`` (N, ...), ``y`` (N,); ``lr`` one number or one for each of ``epochs``; batches
    of ``batch_size``. ``progress`` shows a bar (None: in a terminal only). With
    ``attack``, each batch is first replaced by ``x + attack(model, x, y)``, crafted in
    eval mode: the outer minimisation by Danskin's theorem. A robust loss in closed form
    goes in as ``objective(model, x, y)`` instead. The order of the images comes from
    ``seed``. Leaves ``model`` in eval mode. Raises ``ValueError`` for bad arguments and
    ``FloatingPointError``, the parameters put back to the start of the epoch, if the
    objective is not finite.
    """
    rates = list(lr) if isinstance(lr, Sequence) else [lr] * epochs
    if len(rates) != epochs or len(x) != len(y) or len(x) == 0 or batch_size < 1:
        raise ValueError("need one lr per epoch, one label per image, batch_size >= 1")
    optimizer = torch.optim.SGD(model.parameters(), lr=rates[0] if rates else 0.0)
    generator = torch.Generator().manual_seed(seed)
    history = []
    hidden = not (_show_progress() if progress is None else progress)
    for rate in tqdm(rates, disable=hidden, desc="epochs"):
        optimizer.param_groups[0]["lr"] = rate
        before = {k: v.detach().clone() for k, v in model.state_dict().items()}
        batches = torch.randperm(len(x), generator=generator).split(batch_size)
        total = sum(
            _step(model, x[i], y[i], optimizer, objective, attack) * len(i)
            for i in batches
        )
        history.append(total / len(x))
        if not math.isfinite(history[-1]):
            model.load_state_dict(before)
            model.eval()
            raise FloatingPointError(f"the objective is {history[-1]}: lower lr")
    model.eval()
    return history


def _step(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    optimizer: torch.optim.Optimizer,
    objective: Objective,
    attack: Attack | None,
) -> float:
    if attack is not None:
        model.eval()  # craft against the network that will be attacked
        x = x + attack(model, x, y)
    model.train()
    loss = objective(model, x, y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()
