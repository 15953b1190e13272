"""Signs of masked gradients, which make an attacked error too low."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from advlib._check import ask, check_all, check_counts, outside_inference
from advlib.attacks import (
    Attack,
    Loss,
    cross_entropy,
    fgsm,
    input_gradient,
    margin_loss,
    pgd_linf,
    square,
)
from advlib.attacks.pgd import random_linf
from advlib.attacks.steps import free_room
from advlib.evaluation.errors import ErrorRate, wrong

# name: threshold, and what a share above it means. The thresholds come from two
# networks on 1000 test images of MNIST at eps 0.1, the zoo's mlp_256_pgd (honest) and
# its fc_100_100 with sigmoids 300 times as steep (masked): the geometric mean of the
# high end of the honest interval and the low end of the masked one; 0.05 where these do
# not separate the two. tools/experiments/masking.py finds them anew and tests them on
# other networks.
SIGNS: dict[str, tuple[float, str]] = {
    "one step": (0.019, "one step fools images that many steps leave standing"),
    "other loss": (0.05, "the margin fools images that the cross-entropy leaves"),
    "search": (0.069, "a search without gradients fools images that PGD leaves"),
    "transfer": (0.036, "perturbations of other networks fool images that PGD leaves"),
    "unbounded": (0.041, "images withstand PGD although every image is allowed"),
    "larger radius": (0.006, "images fooled at eps withstand PGD at 2 eps"),
    "dead pixels": (0.015, "a quarter of the pixels has a gradient, but none here"),
    "no gradient": (0.017, "the gradient of the cross-entropy is zero or not finite"),
    "wrong gradient": (0.051, "a step of PGD gains less than half of what it should"),
    "answers change": (0.05, "two calls on one image return different logits"),
}


@dataclass(frozen=True)
class MaskingCheck:
    """A warning sign of masked gradients: on which share of the images it shows.

    ``rate`` counts images among those that are right as they are; the check has
    ``fired`` if even the low end of its interval lies above ``threshold``. ``meaning``
    says what a high rate means. A check that is silent proves nothing.
    """

    name: str
    rate: ErrorRate
    threshold: float
    meaning: str

    @property
    def value(self) -> float:
        """The share of images that show the sign."""
        return self.rate.rate

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % Clopper-Pearson interval of the share."""
        return self.rate.interval

    @property
    def n(self) -> int:
        """The number of images looked at: those that are right as they are."""
        return self.rate.n

    @property
    def fired(self) -> bool:
        """Whether the low end of the interval exceeds the threshold."""
        return self.interval[0] > self.threshold

    def __str__(self) -> str:
        verdict = f"{'FIRED' if self.fired else 'silent'} at {self.threshold:.2g}"
        return f"{self.name}: {self.rate}, {verdict}: {self.meaning}"


@outside_inference
def masking_checks(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    substitutes: Iterable[nn.Module] = (),
    seed: int = 0,
    num_steps: int = 40,
    num_queries: int = 500,
    batch_size: int = 250,
) -> list[MaskingCheck]:
    """Look for signs that gradient attacks on ``model`` report too few errors.

    ``x`` (N, ...) in [0, 1], ``y`` (N,) int64; l-inf ``eps`` in units of ``x``, at most
    0.5, the box kept; images that are wrong as they are do not count. The attack under
    test is PGD on the cross-entropy from the image itself, ``num_steps`` of 2.5 radius
    / ``num_steps``, stopped at the first error. Each check of ``SIGNS`` is a share:
    of images that FGSM, PGD on the margin, ``attacks.square`` with ``num_queries`` (for
    images (N, C, H, W) only) or PGD on one of the ``substitutes`` (if any) fools and
    PGD does not; that stand at radius 1; that fall at ``eps`` and stand at twice that;
    in which, of the pixels with a gradient at a random point of the ball, more than a
    quarter has none at the image (a clip hides them); whose gradient is zero or not
    finite; whose margin loss rises by less than half of what its gradient promises for
    one step; whose logits are not the same twice.
    A model whose answers change is asked once for each verdict, and PGD goes on to its
    last step: a lucky draw must not stop it. All draws start from ``seed``; torch's
    random state is left alone. ``batch_size`` images at a time. Raises ``ValueError``
    or ``TypeError`` for bad input, as the attacks do, and ``ValueError`` if no image is
    right. Athalye et al. 2018, arXiv:1802.00420; Carlini et al. 2019, arXiv:1902.06705.
    """
    check_all(model, x, y, eps)
    check_counts(1, num_queries=num_queries, batch_size=batch_size)
    check_counts(2, num_steps=num_steps)
    if not 0 < eps <= 0.5:
        raise ValueError(f"need 0 < eps <= 0.5, not {eps}")
    suspect = _Suspect(model, x, y, eps, num_steps, seed, batch_size)
    fooled, pgd = suspect.fooled, suspect.pgd
    many = fooled(pgd(eps))
    found = {
        "one step": fooled(partial(fgsm, eps=eps), ~many),
        "other loss": fooled(pgd(eps, loss=margin_loss), ~many),
    }
    if x.dim() == 4:
        found["search"] = fooled(suspect.search(num_queries), ~many)
    others = [fooled(_transferred(pgd(eps), other), ~many) for other in substitutes]
    if others:
        found["transfer"] = torch.stack(others).any(0)
    found["unbounded"] = ~fooled(pgd(1.0))
    found["larger radius"] = many & ~fooled(pgd(2 * eps), many)
    found["dead pixels"] = suspect.each(suspect.dead_pixels())
    found["no gradient"] = suspect.each(suspect.no_gradient)
    found["wrong gradient"] = suspect.each(suspect.wrong_gradient)
    found["answers change"] = suspect.changed
    return [
        MaskingCheck(name, ErrorRate(int(mask.sum()), len(mask)), *SIGNS[name])
        for name, mask in found.items()
    ]


def _transferred(attack: Attack, substitute: nn.Module) -> Attack:
    return lambda model, x, y: attack(substitute, x, y)


class _Suspect:
    """A model, the images that it gets right, and the ways to look at it."""

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        eps: float,
        num_steps: int,
        seed: int,
        batch_size: int,
    ) -> None:
        self.model, self.eps, self.num_steps = model, eps, num_steps
        self.seed, self.batch_size = seed, batch_size
        self.x, self.y = x.detach(), y
        right = ~self.each(partial(wrong, model))
        if not right.any():
            raise ValueError("no image is classified right: nothing can be masked")
        self.x, self.y = self.x[right], y[right]
        self.changed = self.each(self.answers_change)

    def each(
        self, ask: Callable[[Tensor, Tensor], Tensor], among: Tensor | None = None
    ) -> Tensor:
        """Return the answers (N,), bool, of ``ask`` on batches; False elsewhere."""
        answers = torch.zeros_like(self.y, dtype=torch.bool)
        asked = torch.ones_like(answers) if among is None else among
        if not asked.any():
            return answers
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            for part in asked.nonzero().squeeze(1).split(self.batch_size):
                answers[part] = ask(self.x[part], self.y[part])
        return answers

    def fooled(self, attack: Attack, among: Tensor | None = None) -> Tensor:
        """Return which images the attack fools; NaN in its delta counts as 0."""

        def falls(x: Tensor, y: Tensor) -> Tensor:
            return wrong(self.model, x + attack(self.model, x, y).nan_to_num(0), y)

        return self.each(falls, among)

    def pgd(self, eps: float, loss: Loss = cross_entropy) -> Attack:
        return partial(
            pgd_linf,
            eps=eps,
            alpha=2.5 * eps / self.num_steps,
            num_steps=self.num_steps,
            loss=loss,
            drop_fooled=not self.changed.any(),  # else a lucky draw would stop it
        )

    def search(self, num_queries: int) -> Attack:
        generator = torch.Generator().manual_seed(self.seed)
        return partial(
            square, eps=self.eps, num_queries=num_queries, generator=generator
        )

    def dead_pixels(self) -> Callable[[Tensor, Tensor], Tensor]:
        generator = torch.Generator().manual_seed(self.seed)

        def dead(x: Tensor, y: Tensor) -> Tensor:
            room = free_room(x, True, self.eps)
            beside = x + random_linf(*room, generator)
            here, there = (
                input_gradient(self.model, point, y).flatten(1) != 0
                for point in (x, beside)
            )
            return (there & ~here).sum(1) > there.sum(1) / 4

        return dead

    def no_gradient(self, x: Tensor, y: Tensor) -> Tensor:
        gradient = input_gradient(self.model, x, y).flatten(1)
        return (gradient == 0).all(1) | ~gradient.isfinite().all(1)

    def wrong_gradient(self, x: Tensor, y: Tensor) -> Tensor:
        gradient = input_gradient(self.model, x, y, margin_loss)
        step = 2.5 * self.eps / self.num_steps * gradient.sign()
        step = step.clamp(-x, 1 - x)
        promised = (gradient * step).flatten(1).sum(1)
        before = margin_loss(ask(self.model, x), y)
        rise = margin_loss(ask(self.model, x, step), y) - before
        return ~((promised > 0) & (rise >= promised / 2))  # so NaN is a sign, too

    def answers_change(self, x: Tensor, y: Tensor) -> Tensor:
        first, second = ask(self.model, x), ask(self.model, x)
        gap = (first - second).abs().amax(1)
        return gap > 1e-4 * first.abs().amax(1)
