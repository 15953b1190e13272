"""Clean, attacked and certified error, and which images they count."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from scipy import stats
from torch import Tensor, nn

from advlib._check import (
    ask,
    check_classes,
    check_counts,
    check_delta,
    check_images,
    check_labels,
    check_model,
    check_no_images,
)
from advlib.attacks import Attack
from advlib.bounds import certified


@dataclass(frozen=True)
class ErrorRate:
    """``wrong`` of ``n`` images, and the 95 % Clopper-Pearson interval of the rate.

    The interval speaks of images drawn as the ``n`` were; it says nothing about
    retraining the network. Raises ``ValueError`` unless 0 <= wrong <= n, n >= 1.
    """

    wrong: int
    n: int

    def __post_init__(self) -> None:
        if not 0 <= self.wrong <= self.n or self.n < 1:
            raise ValueError(f"need 0 <= wrong <= n, n >= 1: {self.wrong} of {self.n}")

    @property
    def rate(self) -> float:
        """The share of wrong images."""
        return self.wrong / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % Clopper-Pearson interval."""
        exact = stats.binomtest(self.wrong, self.n).proportion_ci(method="exact")
        return float(exact.low), float(exact.high)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.rate:.2g} [{low:.2g}, {high:.2g}] (n = {self.n})"


def wrong(model: nn.Module, x: Tensor, y: Tensor, batch_size: int = 250) -> Tensor:
    """Return which images are misclassified (N,), bool.

    ``x`` (N, ...), ``y`` (N,) int64, ``batch_size`` images at a time, each batch a
    copy: a model that works in place changes no image of the caller. Raises
    ``ValueError`` or ``TypeError`` for a model in train mode, labels of another shape
    or dtype or outside 0 .. K - 1, images and weights of two dtypes, and for anything
    but logits (N, K), finite, with K >= 2.
    """
    check_model(model)
    check_labels(x, y)
    check_counts(1, batch_size=batch_size)
    logits = torch.cat([ask(model, part) for part in x.split(batch_size)])
    check_classes(y, logits.shape[1])
    return logits.argmax(1) != y


def clean_error(model: nn.Module, x: Tensor, y: Tensor) -> ErrorRate:
    """Return the error on the images as they are; raises what ``wrong`` raises."""
    check_images(x)
    return ErrorRate(int(wrong(model, x, y).sum()), len(y))


def listed(given: object, what: str) -> list[Callable[..., object]]:
    """Return ``given``, one function or any iterable of some, as a list.

    Raises ``TypeError`` for what cannot be called; ``what`` names it.
    """
    found = [given] if callable(given) else given
    if not isinstance(found, Iterable):
        raise TypeError(f"{what}: a {type(given).__name__} cannot be called")
    found = list(found)  # a generator can be read only once
    for one in found:
        if not callable(one):
            raise TypeError(
                f"{what}: a {type(one).__name__} cannot be called: give functions of "
                "(model, x, y); of a dictionary, its values()"
            )
    return found


def perturbed(
    attack: Attack, model: nn.Module, x: Tensor, y: Tensor, *, box: bool = True
) -> Tensor:
    """Return ``x + delta`` for the ``delta`` of ``attack`` on ``model``.

    The attack works on a copy of ``x`` (N, ...), with the labels ``y`` (N,). Raises
    ``TypeError`` or ``ValueError`` for what is no perturbation: another type, shape or
    dtype, NaN, with ``box`` an ``x + delta`` that leaves [0, 1] by more than rounding,
    and a ``delta`` that looks like the images, as if it were ``x + delta``.
    """
    delta = check_delta(attack(model, x.clone(), y), x)
    moved = x + delta
    slack = max(1e-5, 8 * torch.finfo(x.dtype).eps)
    low, high = map(float, moved.aminmax())
    if box and not (low >= -slack and high <= 1 + slack):
        raise ValueError(
            f"x + delta lies in [{low:.3g}, {high:.3g}], outside [0, 1]: an attack "
            "returns delta, not x + delta; for one that may leave the box say box=False"
        )
    check_no_images(delta, x)
    return moved


@contextmanager
def generators_kept(functions: Iterable[Callable[..., object]]) -> Iterator[None]:
    """Put the generators inside of ``functools.partial`` back to where they were.

    So an evaluation is a function of its arguments: repeated, it gives the same counts.
    Looks at the arguments of ``functions`` that are partials, and of partials in these.
    """
    found, open_ends = [], list(functions)
    while open_ends:
        one = open_ends.pop()
        if isinstance(one, torch.Generator):
            found.append((one, one.get_state()))
        elif isinstance(one, partial):
            open_ends += [one.func, *one.args, *one.keywords.values()]
    try:
        yield
    finally:
        for generator, state in found:
            generator.set_state(state)


def attacked(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    attacks: Attack | Iterable[Attack],
    *,
    batch_size: int = 250,
    box: bool = True,
) -> Tensor:
    """Return which images are wrong as they are or under any of ``attacks``: (N,).

    An attack is ``attack(model, x, y) -> delta``; give one or any iterable of some. It
    is only run on images that still stand, ``batch_size`` of them at a time. ``box``
    False allows it to leave [0, 1]. A ``torch.Generator`` inside of
    ``functools.partial`` is put back afterwards: repeated, the call gives the same
    (within it, the generator goes on from batch to batch); for other draws give another
    seed. Raises what ``wrong``, the attacks and ``perturbed`` raise, and ``TypeError``
    for what is no attack.
    """
    check_images(x)
    check_counts(1, batch_size=batch_size)
    functions = listed(attacks, "attacks")
    fallen = wrong(model, x, y)
    with generators_kept(functions):
        for attack in functions:
            for part in torch.arange(len(y), device=y.device).split(batch_size):
                part = part[~fallen[part]]
                if len(part):
                    moved = perturbed(attack, model, x[part], y[part], box=box)
                    fallen[part] = wrong(model, moved, y[part])
    return fallen


def attacked_error(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    attacks: Attack | Iterable[Attack],
    *,
    batch_size: int = 250,
    box: bool = True,
) -> ErrorRate:
    """Return the attacked error: a lower bound on the true robust error.

    ``attacks`` is one attack or several, run in batches of ``batch_size``; see
    ``attacked`` for how they count and for ``box``.
    """
    fallen = attacked(model, x, y, attacks, batch_size=batch_size, box=box)
    return ErrorRate(int(fallen.sum()), len(y))


Bound = Callable[[nn.Module, Tensor, Tensor], Tensor]  # margins (N, K), from below


def uncertified(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    margins: Bound | Iterable[Bound],
    *,
    batch_size: int = 250,
) -> Tensor:
    """Return which images (N,) none of the bounds ``margins`` certifies.

    A bound is ``margins(model, x, y) -> (N, K)``, as in ``bounds``; give one or any
    iterable of some. It is only run on images (``x``, ``y``) that are still open,
    ``batch_size`` of them at a time. NaN and infinity certify nothing. Raises what the
    bounds raise, ``TypeError`` for what is no bound or returns no floating tensor, and
    ``ValueError`` for margins of another shape, K < 2 and labels outside 0 .. K - 1.
    """
    check_images(x)
    check_labels(x, y)
    check_counts(1, batch_size=batch_size)
    functions = listed(margins, "margins")
    left = torch.ones_like(y, dtype=torch.bool)
    with generators_kept(functions):
        for bound in functions:
            for part in torch.arange(len(y), device=y.device).split(batch_size):
                part = part[left[part]]
                if len(part):
                    found = bound(model, x[part], y[part])
                    left[part] = ~_certifies(found, y[part])
    return left


def _certifies(margins: object, y: Tensor) -> Tensor:
    """Return which images ``margins`` certify, if they are margins at all."""
    if not isinstance(margins, Tensor) or not margins.is_floating_point():
        kind = getattr(margins, "dtype", type(margins).__name__)
        raise TypeError(f"a bound returns margins (N, K), floating point, not {kind}")
    if margins.dim() != 2 or len(margins) != len(y):
        raise ValueError(f"margins of {len(y)} images are {tuple(margins.shape)}")
    check_classes(y, margins.shape[1])
    proven = margins.detach().to(y.device)
    return certified(torch.where(proven.isfinite(), proven, -torch.inf), y)


def certified_error(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    margins: Bound | Iterable[Bound],
    *,
    batch_size: int = 250,
) -> ErrorRate:
    """Return the certified error: an upper bound on the true robust error.

    The share of images without a certificate; see ``uncertified`` for ``model``,
    ``x``, ``y``, ``margins`` (one bound or several) and ``batch_size``.
    """
    left = uncertified(model, x, y, margins, batch_size=batch_size)
    return ErrorRate(int(left.sum()), len(y))
