"""One training loop, standard or robust by an argument."""

import math
import os
import sys
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from advlib import bounds
from advlib.attacks import Attack

Objective = Callable[[nn.Module, Tensor, Tensor], Tensor]


def mean_cross_entropy(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the mean cross-entropy of ``model`` on a batch ``x``, ``y``: a scalar."""
    return F.cross_entropy(model(x), y)


class Ramp:
    """A share that grows: 0 at the first call, 1 from call ``num_calls`` on.

    With ``num_calls`` = 0 it is always 1. Robust training from the full radius tends
    to end in a network that ignores its input.
    """

    def __init__(self, num_calls: int) -> None:
        self.num_calls = num_calls
        self.calls = 0

    def __call__(self) -> float:
        """Return the share of this call, and count it."""
        share = min(1.0, self.calls / self.num_calls) if self.num_calls else 1.0
        self.calls += 1
        return share


class IntervalLoss:
    """Training on a certificate: the mean of clean and interval cross-entropy.

    Over all perturbations in the l-inf ball of radius ``eps``, in the box [0, 1], the
    cross-entropy is at most that of the logits z_j - z_y raised to the upper ends of
    their intervals. ``ramp`` gives the share s of the radius for each batch; the
    weights are 1 - s / 2 for the clean loss and s / 2 for this bound, so that training
    starts as a standard one. Gowal et al. 2018, arXiv:1810.12715.
    """

    def __init__(self, eps: float, ramp: Callable[[], float]) -> None:
        self.eps = eps
        self.ramp = ramp

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Return the loss of ``model`` on a batch ``x``, ``y``: a scalar.

        Leaves ``model`` in eval mode, which the bounds ask for.
        """
        share = self.ramp()
        clean = mean_cross_entropy(model, x, y)
        model.eval()
        margins = bounds.interval_margins(model, x, y, share * self.eps)
        return (1 - share / 2) * clean + share / 2 * F.cross_entropy(-margins, y)


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
