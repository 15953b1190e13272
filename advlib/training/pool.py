"""A pool of perturbed examples that is renewed while the network trains."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advlib._check import check_model
from advlib.attacks import Attack
from advlib.networks.layers import check_only_layers
from advlib.training.losses import mean_cross_entropy
from advlib.training.modes import has_batch_statistics, in_eval_mode


class PoolLoss:
    """Training with a pool of perturbed examples that is renewed all the time.

    An objective for ``fit`` on an ``nn.Sequential``. Every ``every`` calls, the first
    ``num_new`` images of the batch are perturbed by ``craft(tail, a, y)`` at the input
    of each layer in ``layers`` (0: the image itself; ``tail``: the network from there
    on, in eval mode, ``a`` its input, in [0, 1]) and enter the pool, which holds the
    ``size`` newest. The loss is 1 - ``weight`` times the mean cross-entropy of the
    batch plus ``weight`` times that of ``num_drawn`` pool items, drawn from ``seed``
    for each layer, with their true labels. Hidden perturbations are added to the
    activations that the *present* network has for the stored image. Raises
    ``ValueError`` for bad numbers. The idea: Szegedy et al. 2013, arXiv:1312.6199.
    """

    def __init__(
        self,
        craft: Attack,
        layers: Sequence[int] = (0,),
        *,
        size: int = 1000,
        num_new: int = 100,
        every: int = 10,
        num_drawn: int = 50,
        weight: float = 0.5,
        seed: int = 0,
    ) -> None:
        numbers = (size - num_new, num_new - 1, every - 1, num_drawn - 1)
        if min(numbers) < 0 or not 0 <= weight <= 1 or not layers or min(layers) < 0:
            raise ValueError("need 1 <= num_new <= size, layers >= 0, weight in [0, 1]")
        self.craft, self.layers, self.weight = craft, tuple(layers), weight
        self.size, self.num_new, self.every = size, num_new, every
        self.num_drawn, self.calls = num_drawn, 0
        self.generator = torch.Generator().manual_seed(seed)
        self.items: tuple[Tensor, ...] = ()  # x, y, call of entry, delta of each layer

    def __len__(self) -> int:
        """Return the number of examples in the pool; the newest are the last."""
        return len(self.items[0]) if self.items else 0

    def __call__(self, model: nn.Sequential, x: Tensor, y: Tensor) -> Tensor:
        """Return the loss of ``model`` on the batch ``x``, ``y`` and pool: a scalar.

        Raises ``ValueError`` for one drawn item where batch-norm, in train mode, needs
        two to have a variance; ``TypeError`` for a model that is more than its layers.
        """
        check_only_layers(model)
        if self.num_drawn == 1 and model.training and has_batch_statistics(model):
            raise ValueError("batch-norm needs num_drawn >= 2")
        if self.calls % self.every == 0:
            self.renew(model, x[: self.num_new], y[: self.num_new])
        self.calls += 1
        loss = (1 - self.weight) * mean_cross_entropy(model, x, y)
        for place in range(len(self.layers)):
            shape = (self.num_drawn,)
            drawn = torch.randint(len(self), shape, generator=self.generator)
            logits = self._logits(model, place, drawn)
            pool = F.cross_entropy(logits, self.items[1][drawn])
            loss = loss + self.weight / len(self.layers) * pool
        return loss

    def renew(self, model: nn.Sequential, x: Tensor, y: Tensor) -> None:
        """Perturb ``x``, ``y`` against ``model``, put them in, let the oldest go."""
        deltas = []
        with in_eval_mode(model):  # craft against the network that will be attacked
            for layer in self.layers:
                with torch.no_grad():
                    a = model[:layer](x.clone())  # layers may work in place
                deltas.append(self.craft(model[layer:].eval(), a, y).detach())
        new = (x, y, torch.full_like(y, self.calls), *deltas)
        old = self.items or tuple(part[:0] for part in new)
        self.items = tuple(
            torch.cat(parts)[-self.size :] for parts in zip(old, new, strict=True)
        )

    def _logits(self, model: nn.Sequential, place: int, which: Tensor) -> Tensor:
        """Return the logits at the items ``which``, perturbed at ``layers[place]``."""
        layer, x = self.layers[place], self.items[0][which]
        return model[layer:](model[:layer](x) + self.items[3 + place][which])

    def fooled(self, model: nn.Sequential) -> Tensor:
        """Return which examples ``model`` misclassifies: (layers, size), bool.

        Against the network for which they were made nearly all; later ever fewer.
        Raises ``ValueError`` for a ``model`` in train mode, ``TypeError`` for one that
        is more than its layers.
        """
        check_model(model)
        check_only_layers(model)
        every = torch.arange(len(self))
        with torch.no_grad():
            rows = [self._logits(model, k, every) for k in range(len(self.layers))]
        return torch.stack(rows).argmax(2) != self.items[1]
