"""Error rates: clean <= attacked <= true robust <= certified, with their intervals.

``masking_checks`` looks for signs that an attacked error is too low.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from scipy import optimize, stats
from torch import Tensor, nn

from advlib._check import check_all, check_images, check_labels, check_model
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
from advlib.bounds import certified
from advlib.exact import Verdict


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

    ``x`` (N, ...), ``y`` (N,) int64, ``batch_size`` images at a time. Raises
    ``ValueError`` or ``TypeError`` for a model in train mode, labels of another shape
    or dtype, and logits with NaN.
    """
    check_model(model)
    check_labels(x, y)
    with torch.no_grad():
        logits = torch.cat([model(part) for part in x.split(batch_size)])
    if logits.isnan().any():
        raise ValueError("the logits hold NaN")
    return logits.argmax(1) != y


def clean_error(model: nn.Module, x: Tensor, y: Tensor) -> ErrorRate:
    """Return the error on the images as they are; raises what ``wrong`` raises."""
    check_images(x)
    return ErrorRate(int(wrong(model, x, y).sum()), len(y))


def attacked(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    attacks: Sequence[Attack],
    *,
    batch_size: int = 250,
) -> Tensor:
    """Return which images are wrong as they are or under any of ``attacks``: (N,).

    An attack is ``attack(model, x, y) -> delta``; it is only run on images that still
    stand, ``batch_size`` of them at a time. Raises what ``wrong`` and the attacks
    raise.
    """
    check_images(x)
    fallen = wrong(model, x, y)
    for attack in attacks:
        for part in torch.arange(len(y)).split(batch_size):
            part = part[~fallen[part]]
            if len(part):
                delta = attack(model, x[part], y[part])
                fallen[part] = wrong(model, x[part] + delta, y[part])
    return fallen


def attacked_error(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    attacks: Attack | Sequence[Attack],
    *,
    batch_size: int = 250,
) -> ErrorRate:
    """Return the attacked error: a lower bound on the true robust error.

    ``attacks`` is one attack or several, run in batches of ``batch_size``; see
    ``attacked`` for how they count.
    """
    listed = attacks if isinstance(attacks, Sequence) else [attacks]
    fallen = attacked(model, x, y, listed, batch_size=batch_size)
    return ErrorRate(int(fallen.sum()), len(y))


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean of ``values`` and its 95 % t-interval (mean, low, high).

    For means over seeds. Raises ``ValueError`` for fewer than two values.
    """
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or len(array) < 2:
        raise ValueError("an interval needs at least two values")
    half = stats.t.ppf(0.975, len(array) - 1) * stats.sem(array)
    return float(array.mean()), float(array.mean() - half), float(array.mean() + half)


def bootstrap_interval(
    values: Sequence[float],
    statistic: Callable[..., np.ndarray] = np.median,
    *,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Return ``statistic`` of ``values`` and its 95 % percentile bootstrap interval.

    ``statistic(array, axis=...)``; 2000 resamples drawn from ``seed``. Raises
    ``ValueError`` for fewer than two values.
    """
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or len(array) < 2:
        raise ValueError("an interval needs at least two values")
    picks = np.random.default_rng(seed).integers(len(array), size=(2000, len(array)))
    low, high = np.quantile(statistic(array[picks], axis=1), [0.025, 0.975])
    return float(statistic(array, axis=0)), float(low), float(high)


# ------------------------------------------------------------------- the other side

Bound = Callable[[nn.Module, Tensor, Tensor], Tensor]  # margins (N, K), from below
Complete = Callable[[nn.Module, Tensor, Tensor], Sequence[Verdict]]


def uncertified(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    margins: Bound | Sequence[Bound],
    *,
    batch_size: int = 250,
) -> Tensor:
    """Return which images (N,) none of the bounds ``margins`` certifies.

    A bound is ``margins(model, x, y) -> (N, K)``, as in ``bounds``; it is only run on
    images (``x``, ``y``) that are still open, ``batch_size`` of them at a time. Raises
    what the bounds raise.
    """
    check_images(x)
    check_labels(x, y)
    listed = margins if isinstance(margins, Sequence) else [margins]
    left = torch.ones(len(y), dtype=torch.bool)
    for bound in listed:
        for part in torch.arange(len(y)).split(batch_size):
            part = part[left[part]]
            if len(part):
                found = bound(model, x[part], y[part]).detach()
                left[part] = ~certified(found, y[part])
    return left


def certified_error(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    margins: Bound | Sequence[Bound],
    *,
    batch_size: int = 250,
) -> ErrorRate:
    """Return the certified error: an upper bound on the true robust error.

    The share of images without a certificate; see ``uncertified`` for ``model``,
    ``x``, ``y``, ``margins`` (one bound or several) and ``batch_size``.
    """
    left = uncertified(model, x, y, margins, batch_size=batch_size)
    return ErrorRate(int(left.sum()), len(y))


@dataclass(frozen=True)
class BothSides:
    """For each method the images (N,), bool, that it leaves as errors.

    ``errors`` from the weakest attack over "exact" and "open" (errors if all images
    without a verdict are counted as such) to the loosest bound; ``seconds`` of CPU
    time and the number of ``images`` on which a method ran.
    """

    errors: dict[str, Tensor]
    seconds: dict[str, float]
    images: dict[str, int]

    def counts(self) -> dict[str, int]:
        """Return the number of errors by method, in order: they must not fall."""
        return {name: int(mask.sum()) for name, mask in self.errors.items()}

    def crossings(self, below: Sequence[str]) -> list[tuple[str, str]]:
        """Return the pairs that contradict each other; none if all are right.

        ``below`` names the attacks: an image that one of them fooled must be an error
        for every method above.
        """
        names = list(self.errors)
        above = [n for n in names if n not in ("clean", "exact", *below)]
        lows = [*below, *(["exact"] if "exact" in names else [])]
        return [
            (low, high)
            for low in lows
            for high in above
            if (self.errors[low] & ~self.errors[high]).any()
        ]


def both_sides(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    attacks: Mapping[str, Attack],
    bounds: Mapping[str, Bound],
    exact: Complete | None = None,
    *,
    shortcut: bool = True,
) -> BothSides:
    """Hold the true robust error of ``model`` on images ``x``, ``y`` from both sides.

    ``attacks`` from weak to strong, ``bounds`` from loose to tight, ``exact`` a
    complete method that returns one verdict per image. With ``shortcut`` from the
    outside in: each method only runs on images that those before it left open, so its
    errors include theirs. Without it each runs alone on every image: dearer, and a
    test of the order. Raises what the methods raise.
    """
    runner = _Runner(model, x, y, shortcut)
    clean = wrong(model, x, y)
    lower, upper, middle = {}, {}, {}
    fallen, proved = clean, torch.zeros_like(clean)
    for name, attack in attacks.items():
        hit = runner.run(name, _fools(attack), ~fallen)
        lower[name] = hit | (fallen if shortcut else clean)
        fallen = fallen | lower[name]
    start = fallen if shortcut else clean
    for name, bound in bounds.items():
        sure = runner.run(name, _proves(bound), ~fallen & ~proved)
        upper = {name: ~(sure | proved) if shortcut else ~sure, **upper}
        proved = proved | sure
    if exact is not None:
        status = runner.run("exact", _decides(exact), ~fallen & ~proved)
        broken = (status == 1) | start
        safe = (status == 2) | proved if shortcut else status == 2
        middle = {"exact": broken, "open": ~safe}
    errors = {"clean": clean, **lower, **middle, **upper}
    return BothSides(errors, runner.seconds, runner.images)


class _Runner:
    """Run a method on the open images, or on all of them; keep what it cost."""

    def __init__(self, model: nn.Module, x: Tensor, y: Tensor, shortcut: bool) -> None:
        self.model, self.x, self.y, self.shortcut = model, x, y, shortcut
        self.seconds: dict[str, float] = {}
        self.images: dict[str, int] = {}

    def run(
        self,
        name: str,
        decide: Callable[[nn.Module, Tensor, Tensor], Tensor],
        left: Tensor,
    ) -> Tensor:
        left = left if self.shortcut else torch.ones_like(left)
        began = time.process_time()
        found = torch.zeros(len(self.y), dtype=torch.uint8)
        if left.any():
            decided = decide(self.model, self.x[left], self.y[left])
            found[left] = decided.to(torch.uint8)
        self.seconds[name] = time.process_time() - began
        self.images[name] = int(left.sum())
        return found if name == "exact" else found.bool()


def _fools(attack: Attack) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
    return lambda model, x, y: wrong(model, x + attack(model, x, y), y)


def _proves(bound: Bound) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
    return lambda model, x, y: ~uncertified(model, x, y, bound)


def _decides(exact: Complete) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
    codes = {"unknown": 0, "attacked": 1, "certified": 2}
    return lambda model, x, y: torch.tensor(
        [codes[verdict.status] for verdict in exact(model, x, y)]
    )


# ----------------------------------------------------------- two networks, one point


def paired_p_value(first: Tensor, second: Tensor) -> float:
    """Return the p-value of McNemar's exact test that two error rates are equal.

    ``first``, ``second`` (N,) bool: which of the same images are errors of the one and
    of the other. Only images on which they differ count: were the rates equal, each of
    these would be the first's or the second's with probability one half. Raises
    ``ValueError`` for different shapes.
    """
    if first.shape != second.shape or first.dim() != 1:
        raise ValueError("need two masks over the same images")
    only = int((first & ~second).sum()), int((second & ~first).sum())
    return float(stats.binomtest(only[0], sum(only)).pvalue) if sum(only) else 1.0


def images_needed(
    difference: float, discordant: float, *, level: float = 0.05, power: float = 0.8
) -> int:
    """Return how many images show a ``difference`` of two error rates.

    ``discordant``: the share of images on which the two differ, at least the
    difference; for two separate test sets the share expected of independent errors,
    p (1 - q) + q (1 - p). The two-sided paired test at ``level`` then finds the
    difference with probability ``power`` (normal approximation; Connor 1987). Raises
    ``ValueError`` unless 0 < difference <= discordant <= 1.
    """
    if not 0 < difference <= discordant <= 1:
        raise ValueError("need 0 < difference <= discordant <= 1")
    z, strength = stats.norm.ppf(1 - level / 2), stats.norm.ppf(power)
    spread = strength * math.sqrt(discordant - difference**2)
    return math.ceil(((z * math.sqrt(discordant) + spread) / difference) ** 2)


# ------------------------------------------------------ two ways to train, many seeds


def paired_t_p_value(differences: Sequence[float]) -> float:
    """Return the p-value of the two-sided t-test that ``differences`` have mean 0.

    One difference for each seed, of two runs that share it. 0 or 1 if they are all the
    same. Raises ``ValueError`` for fewer than two values.
    """
    mean, low, _ = mean_interval(differences)
    if low == mean:  # no spread at all
        return float(mean == 0)
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the ``p_values`` adjusted for being several, in the same order.

    Rejecting those at most a level keeps the chance of even one false rejection below
    that level, whatever the dependence of the tests. Holm 1979. Raises ``ValueError``
    for a value outside [0, 1].
    """
    if not all(0 <= p <= 1 for p in p_values):
        raise ValueError("a p-value lies between 0 and 1")
    order = sorted(range(len(p_values)), key=lambda k: p_values[k])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, k in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[k]))
        adjusted[k] = largest
    return adjusted


def detectable_difference(
    spread: float, seeds: int, *, level: float = 0.05, power: float = 0.8
) -> float:
    """Return the true mean difference that a paired t-test finds with ``power``.

    ``spread``: the standard deviation over seeds of the paired differences, as
    measured; ``seeds``: how many there are; two-sided test at ``level``. From the
    noncentral t distribution; in the units of ``spread``. Raises ``ValueError`` for
    fewer than two seeds, a negative spread and levels outside (0, 1).
    """
    if seeds < 2 or not spread >= 0 or not (0 < level < 1 and level < power < 1):
        raise ValueError("need seeds >= 2, spread >= 0, 0 < level < power < 1")
    edge = stats.t.ppf(1 - level / 2, seeds - 1)

    def missing(shift: float) -> float:
        # the lower tail, mirrored: scipy's cdf is NaN there for two seeds
        tails = [stats.nct.sf(edge, seeds - 1, sign * shift) for sign in (1, -1)]
        return float(sum(tails)) - power

    upper = 1.0
    while missing(upper) < 0:
        upper *= 2
    return float(optimize.brentq(missing, 0.0, upper)) * spread / math.sqrt(seeds)


# ------------------------------------------------------------------ gradient masking

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


def masking_checks(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    substitutes: Sequence[nn.Module] = (),
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
    whose gradient is zero or not finite; whose margin loss rises by less than half of
    what its gradient promises for one step; whose logits are not the same twice.
    A model whose answers change is asked once for each verdict, and PGD goes on to its
    last step: a lucky draw must not stop it. All draws start from ``seed``; torch's
    random state is left alone. ``batch_size`` images at a time. Raises ``ValueError``
    or ``TypeError`` for bad input, as the attacks do, and ``ValueError`` if no image is
    right. Athalye et al. 2018, arXiv:1802.00420; Carlini et al. 2019, arXiv:1902.06705.
    """
    check_all(model, x, y, eps)
    if not 0 < eps <= 0.5 or num_steps < 2 or num_queries < 1:
        raise ValueError("need 0 < eps <= 0.5, num_steps >= 2, num_queries >= 1")
    suspect = _Suspect(model, x, y, eps, num_steps, seed, batch_size)
    fooled, pgd = suspect.fooled, suspect.pgd
    many = fooled(pgd(eps))
    found = {
        "one step": fooled(partial(fgsm, eps=eps), ~many),
        "other loss": fooled(pgd(eps, loss=margin_loss), ~many),
    }
    if x.dim() == 4:
        found["search"] = fooled(suspect.search(num_queries), ~many)
    if substitutes:
        found["transfer"] = torch.zeros_like(many)
        for other in substitutes:
            found["transfer"] |= fooled(_transferred(pgd(eps), other), ~many)
    found["unbounded"] = ~fooled(pgd(1.0))
    found["larger radius"] = many & ~fooled(pgd(2 * eps), many)
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
        right = ~self.each(self.mistaken)
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

    def mistaken(self, x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            classes = self.model(x[:1]).shape[1]
        if not (y < classes).all():
            raise ValueError(f"a label is not below the {classes} classes")
        return wrong(self.model, x, y)

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

    def no_gradient(self, x: Tensor, y: Tensor) -> Tensor:
        gradient = input_gradient(self.model, x, y).flatten(1)
        return (gradient == 0).all(1) | ~gradient.isfinite().all(1)

    def wrong_gradient(self, x: Tensor, y: Tensor) -> Tensor:
        gradient = input_gradient(self.model, x, y, margin_loss)
        step = 2.5 * self.eps / self.num_steps * gradient.sign()
        step = step.clamp(-x, 1 - x)
        promised = (gradient * step).flatten(1).sum(1)
        with torch.no_grad():
            before = margin_loss(self.model(x), y)
            rise = margin_loss(self.model(x + step), y) - before
        return ~((promised > 0) & (rise >= promised / 2))  # so NaN is a sign, too

    def answers_change(self, x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            first, second = self.model(x), self.model(x)
        gap = (first - second).abs().amax(1)
        return gap > 1e-4 * first.abs().amax(1)
