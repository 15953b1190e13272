"""One training loop, standard or robust by an argument."""

import math
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from advlib import bounds
from advlib._check import check_eps, check_model
from advlib.attacks import Attack, pgd_linf

Objective = Callable[[nn.Module, Tensor, Tensor], Tensor]
Augment = Callable[[Tensor, torch.Generator], Tensor]


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
        margins = self.margins(model, x, y, share)
        return (1 - share / 2) * clean + share / 2 * F.cross_entropy(-margins, y)

    def margins(self, model: nn.Module, x: Tensor, y: Tensor, share: float) -> Tensor:
        """Return lower bounds (N, K) on the margins at ``x``, ``y`` at that ``share``.

        ``model`` is in eval mode.
        """
        return bounds.interval_margins(model, x, y, share * self.eps)


class CrownIntervalLoss(IntervalLoss):
    """Training on a certificate that starts as a tight one and ends as a loose one.

    As ``IntervalLoss``, with the mean of two bounds on the margins, weighted by the
    share s of the radius: s times that by intervals plus 1 - s times that of a CROWN
    walk over interval bounds before each ReLU. A mean of bounds is a bound. Zhang et
    al. 2020, arXiv:1906.06316.
    """

    def margins(self, model: nn.Module, x: Tensor, y: Tensor, share: float) -> Tensor:
        """Return lower bounds (N, K) on the margins at ``x``, ``y`` at that ``share``.

        ``model`` is in eval mode.
        """
        eps = share * self.eps
        loose = bounds.interval_margins(model, x, y, eps)
        if share == 1:
            return loose
        corners = bounds.input_box(x, eps)
        pre = bounds.relu_bounds(model, *corners, method="interval")
        tight = bounds.crown_margins(model, x, y, eps, pre=pre)
        return share * loose + (1 - share) * tight


class TradesLoss:
    """The cross-entropy of clean images plus ``beta`` times how far they can be moved.

    The second term is the divergence KL(p(x) || p(x + delta)) of the network's
    probabilities, its delta found in the l-inf ball of radius ``eps``, box respected,
    by ``num_steps`` of PGD on that divergence, each of length ``alpha``, from a start
    of size 0.001 drawn from ``seed`` (at delta = 0 its gradient is 0). Labels are used
    in the first term only. Raises ``ValueError`` for a negative ``beta``. Zhang et al.
    2019, arXiv:1901.08573.
    """

    def __init__(
        self, eps: float, *, alpha: float, num_steps: int, beta: float, seed: int = 0
    ) -> None:
        if not beta >= 0:
            raise ValueError(f"beta must not be negative: {beta}")
        self.eps, self.alpha, self.num_steps, self.beta = eps, alpha, num_steps, beta
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Return the loss of ``model`` on a batch ``x``, ``y``: a scalar."""
        delta = self.perturb(model, x, y)
        logits = model(x)
        divergence = _divergence(logits, model(x + delta)).mean()
        return F.cross_entropy(logits, y) + self.beta * divergence

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Return ``delta`` that moves the probabilities of ``model`` at ``x`` far.

        Crafted in eval mode; the mode is put back. ``y`` only has to be a class.
        """
        training = model.training
        model.eval()
        with torch.no_grad():
            clean = model(x)
        start = 1e-3 * torch.randn(x.shape, generator=self.generator).to(x)
        delta = pgd_linf(
            model,
            x,
            y,
            self.eps,
            alpha=self.alpha,
            num_steps=self.num_steps,
            start=start,
            loss=lambda logits, _: _divergence(clean, logits),
        )
        model.train(training)
        return delta


def _divergence(logits: Tensor, moved: Tensor) -> Tensor:
    """Return KL(softmax(logits) || softmax(moved)) per image (N,)."""
    logs = logits.log_softmax(1), moved.log_softmax(1)
    return F.kl_div(logs[1], logs[0], reduction="none", log_target=True).sum(1)


def fast(
    eps: float,
    *,
    factor: float = 1.25,
    seed: int = 0,
    ramp: Callable[[], float] | None = None,
) -> Attack:
    """Return one gradient step from a random start: an attack to train with.

    The start is uniform in the l-inf ball of radius ``eps`` cut to the box [0, 1],
    drawn from ``seed``; the step, ``factor`` times the radius, is projected onto the
    same set: with a ``factor`` of 2 or more every pixel ends at a corner. ``ramp``
    gives the share of the radius for each batch (None: all of it). Raises
    ``ValueError`` for a radius that is none and unless ``factor`` is positive and
    finite. Wong et al. 2020, arXiv:2001.03994.
    """
    check_eps(eps)
    if not 0 < factor < math.inf:
        raise ValueError(f"the factor must be positive and finite: {factor}")
    generator = torch.Generator().manual_seed(seed)

    def attack(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        radius = eps if ramp is None else eps * ramp()
        return pgd_linf(
            model, x, y, radius, alpha=factor * radius, num_steps=1, generator=generator
        )

    return attack


def toward_random_target(
    attack: Callable[..., Tensor], num_classes: int, *, seed: int = 0
) -> Attack:
    """Return a targeted ``attack(model, x, y, target)`` as one on ``(model, x, y)``.

    Each image gets one of the other ``num_classes`` - 1 classes, drawn from ``seed``.
    Raises ``ValueError`` for fewer than two classes.
    """
    if num_classes < 2:
        raise ValueError("a target needs a second class")
    generator = torch.Generator().manual_seed(seed)

    def aimed(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        shift = torch.randint(1, num_classes, y.shape, generator=generator)
        return attack(model, x, y, (y + shift.to(y)) % num_classes)

    return aimed


def noise_as_long_as(attack: Attack, *, seed: int = 0) -> Attack:
    """Return Gaussian noise, in the box, with each image's l2 length of ``attack``.

    The control for what an attack adds to noise: the direction is drawn from ``seed``,
    clipped to [0, 1] and scaled until what is left of it is as long as the attack's
    perturbation (or as long as the box allows).
    """
    generator = torch.Generator().manual_seed(seed)

    def noise(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        wanted = attack(model, x, y).flatten(1).norm(dim=1, keepdim=True)
        draw = torch.randn(x.shape, generator=generator).to(x).flatten(1)
        low, high = -x.flatten(1), 1 - x.flatten(1)
        below, above = torch.zeros_like(wanted), 1e3 * torch.ones_like(wanted)
        for _ in range(30):
            scale = (below + above) / 2
            length = (scale * draw).clamp(low, high).norm(dim=1, keepdim=True)
            below = torch.where(length < wanted, scale, below)
            above = torch.where(length < wanted, above, scale)
        return (below * draw).clamp(low, high).view_as(x)

    return noise


def shortened(attack: Attack, length: float) -> Attack:
    """Return ``attack`` with every perturbation cut to at most ``length`` in l2.

    Raises ``ValueError`` unless ``length`` is positive.
    """
    if not length > 0:
        raise ValueError(f"the length must be positive, not {length}")

    def short(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        delta = attack(model, x, y)
        lengths = delta.flatten(1).norm(dim=1).view(-1, *[1] * (delta.dim() - 1))
        return delta * (length / lengths.clamp(min=length))

    return short


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
        """Return the loss of ``model`` on the batch ``x``, ``y`` and pool: a scalar."""
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
        training = model.training
        model.eval()  # craft against the network that will be attacked
        deltas = []
        for layer in self.layers:
            with torch.no_grad():
                a = model[:layer](x)
            deltas.append(self.craft(model[layer:].eval(), a, y).detach())
        model.train(training)
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
        Raises ``ValueError`` for a ``model`` in train mode.
        """
        check_model(model)
        every = torch.arange(len(self))
        with torch.no_grad():
            rows = [self._logits(model, k, every) for k in range(len(self.layers))]
        return torch.stack(rows).argmax(2) != self.items[1]


class DecayedLoss:
    """An ``objective``, the mean cross-entropy, plus weight decay: a factor per layer.

    Each fully connected layer with weights W and k units adds ``decay * |W|^2 / k``,
    |W| the Frobenius norm; ``decays`` in the order of the layers.
    """

    def __init__(
        self, decays: Sequence[float], objective: Objective = mean_cross_entropy
    ) -> None:
        self.decays, self.objective = decays, objective

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Return the loss of ``model`` on a batch ``x``, ``y``: a scalar.

        Raises ``ValueError`` unless there is one factor for each layer.
        """
        layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
        penalty = sum(
            decay * layer.weight.square().sum() / layer.out_features
            for decay, layer in zip(self.decays, layers, strict=True)
        )
        return self.objective(model, x, y) + penalty


class SparseReconstruction:
    """What a sparse autoencoder minimises; its labels are ignored.

    The network ends in (encoder, units, decoder), the units sigmoid, the decoder a
    Linear of logits, one for each pixel. The cross-entropy of the pixels in [0, 1],
    summed over the image, plus ``weight`` times the divergence, summed over the units,
    of a mean activity of ``share`` from the one measured on the batch.
    """

    def __init__(self, share: float, weight: float) -> None:
        self.share = share
        self.weight = weight

    def __call__(self, model: nn.Sequential, x: Tensor, y: Tensor) -> Tensor:
        """Return the loss of ``model`` on a batch ``x``: a scalar; ``y`` is unused."""
        hidden = model[:-1](x)
        pixels = F.binary_cross_entropy_with_logits(
            model[-1](hidden), x.flatten(1), reduction="sum"
        )
        active = hidden.mean(0).clamp(1e-4, 1 - 1e-4)
        excess = self.share * (self.share / active).log()
        excess = excess + (1 - self.share) * ((1 - self.share) / (1 - active)).log()
        return pixels / len(x) + self.weight * excess.sum()


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
    order of the images comes from ``seed``. Leaves ``model`` in eval mode. Raises
    ``ValueError`` for bad arguments and ``FloatingPointError``, the parameters put back
    to the start of the epoch, if the objective is not finite.
    """
    rates = list(lr) if isinstance(lr, Sequence) else [lr] * epochs
    if len(rates) != epochs or len(x) != len(y) or len(x) == 0 or batch_size < 1:
        raise ValueError("need one lr per epoch, one label per image, batch_size >= 1")
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
        batches = torch.randperm(len(x), generator=order).split(batch_size)
        history.append(_epoch(model, x, y, batches, step))
        if after_epoch is not None:
            model.eval()
            after_epoch(epoch, history[-1])
    model.eval()
    return history


def _epoch(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    batches: Sequence[Tensor],
    step: Callable[[nn.Module, Tensor, Tensor], float],
) -> float:
    """Take one step per batch; undo them all if the mean objective is not finite."""
    before = {k: v.detach().clone() for k, v in model.state_dict().items()}
    mean = sum(step(model, x[i], y[i]) * len(i) for i in batches) / len(x)
    if not math.isfinite(mean):
        model.load_state_dict(before)
        model.eval()
        raise FloatingPointError(f"the objective is {mean}: lower lr")
    return mean


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
        x = x + attack(model, x, y)
    model.train()
    loss = objective(model, x, y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()
