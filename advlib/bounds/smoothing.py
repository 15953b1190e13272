"""Randomised smoothing: a certificate of another kind, for another classifier.

The smoothed classifier returns the class that a base classifier returns most often
under Gaussian noise. If that class has probability p > 1/2 at x, it keeps the majority
at every point within sigma * Phi^-1(p) of x in l2: a theorem. But p is only estimated.
So the certificate is a statement about the *smoothed* classifier, from samples, and
false with a probability of at most ``alpha``. It holds for any base classifier, of any
size and with any layers.

Cohen, Rosenfeld and Kolter 2019, arXiv:1902.02918.
"""

from dataclasses import dataclass
from functools import partial

import torch
from scipy import stats
from torch import Tensor, nn

from advlib._check import (
    check_counts,
    check_images,
    check_logits,
    check_model,
    run_model,
)

ABSTAIN = -1  # the class returned where the votes do not decide


@dataclass(frozen=True)
class Certificate:
    """Classes (N,), ``ABSTAIN`` where undecided, and l2 radii (N,), there 0.

    ``labels``: what the smoothed classifier returns; it returns the same within
    ``radii`` (units of the input), all with probability at least 1 - alpha for each
    image by itself.
    """

    labels: Tensor
    radii: Tensor


def _check(
    model: nn.Module, x: Tensor, sigma: float, alpha: float, **sizes: int
) -> None:
    check_model(model)
    check_images(x)
    if not 0 < sigma < float("inf"):
        raise ValueError(f"sigma = {sigma} is no standard deviation")
    if not 0 < alpha < 0.5:
        raise ValueError(f"need 0 < alpha < 1/2 as the chance of an error, not {alpha}")
    check_counts(1, **{f"samples, {name}": size for name, size in sizes.items()})


def lower_confidence(successes: int, n: int, alpha: float) -> float:
    """Return a p that is at most the true probability, unless with chance ``alpha``.

    One-sided, from ``successes`` of ``n`` independent trials: Clopper and Pearson
    1934, the p at which so many successes or more still have probability ``alpha``.
    Raises ``ValueError`` unless 0 <= successes <= n, n >= 1 and 0 < alpha < 1.
    """
    if not (0 <= successes <= n and n >= 1 and 0 < alpha < 1):
        raise ValueError(f"no confidence bound for {successes} of {n} at {alpha}")
    if successes == 0:
        return 0.0
    return float(stats.beta.ppf(alpha, successes, n - successes + 1))


def votes(
    model: nn.Module,
    x: Tensor,
    sigma: float,
    *,
    n: int,
    generator: torch.Generator,
    batch_size: int = 1000,
) -> Tensor:
    """Return how often ``model`` returns each class under noise: (N, K), int64.

    ``x`` (N, ...) in [0, 1]; for each image ``n`` draws of Gaussian noise of standard
    deviation ``sigma`` (units of ``x``), taken from ``generator``, ``batch_size`` at a
    time; the noisy images leave [0, 1]. Raises ``ValueError`` or ``TypeError`` for bad
    input, and for a model that does not return (N, K) finite logits, K >= 2, for noisy
    images, too: NaN is no vote.
    """
    _check(model, x, sigma, 0.1, n=n, batch_size=batch_size)
    if not isinstance(generator, torch.Generator):
        raise TypeError("need a torch.Generator, so that the votes can be drawn again")
    counts, drawn = [], {"generator": generator, "device": generator.device}
    with torch.no_grad():
        for image in x:
            total = torch.zeros((), dtype=torch.int64, device=x.device)
            for start in range(0, n, batch_size):
                size = (min(batch_size, n - start), *image.shape)
                noise = torch.randn(size, dtype=x.dtype, **drawn).to(x)
                noisy = image + sigma * noise
                logits = check_logits(run_model(model, noisy), len(noisy))
                winners = logits.argmax(1)
                total = total + torch.bincount(winners, minlength=logits.shape[1])
            counts.append(total)
    return torch.stack(counts)


def predict(
    model: nn.Module,
    x: Tensor,
    sigma: float,
    *,
    n: int = 1000,
    alpha: float = 0.001,
    generator: torch.Generator,
    batch_size: int = 1000,
) -> Tensor:
    """Return the class of the smoothed classifier, or ``ABSTAIN``: (N,), int64.

    Another class than the smoothed classifier's is returned with probability at most
    ``alpha``: it abstains unless a two-sided binomial test tells the first class from
    the second. Arguments and errors as ``votes``, and ``ValueError`` unless
    0 < alpha < 1/2.
    """
    _check(model, x, sigma, alpha, n=n)
    counts = votes(model, x, sigma, n=n, generator=generator, batch_size=batch_size)
    first, second = counts.topk(2, dim=1).values.T
    sure = [
        stats.binomtest(int(a), int(a + b), 0.5).pvalue <= alpha
        for a, b in zip(first, second, strict=True)
    ]
    undecided = ~torch.tensor(sure, device=x.device)
    return counts.argmax(1).masked_fill(undecided, ABSTAIN)


def certify(
    model: nn.Module,
    x: Tensor,
    sigma: float,
    *,
    n0: int = 100,
    n: int = 10_000,
    alpha: float = 0.001,
    generator: torch.Generator,
    batch_size: int = 1000,
) -> Certificate:
    """Return classes and l2 radii within which the smoothed classifier returns them.

    ``n0`` draws choose the class, ``n`` *other* draws bound its probability p from
    below (``lower_confidence``); the radius is ``sigma`` times the normal quantile of
    that bound; p <= 1/2: it abstains. Wrong, for each image, with probability at most
    ``alpha``. Arguments and errors as ``predict``.
    """
    _check(model, x, sigma, alpha, n0=n0, n=n)
    draw = partial(votes, model, x, sigma, generator=generator, batch_size=batch_size)
    labels = draw(n=n0).argmax(1)
    hits = draw(n=n).gather(1, labels[:, None])[:, 0]
    p = [lower_confidence(int(k), n, alpha) for k in hits]
    p = torch.tensor(p, dtype=torch.float64)
    radii = torch.from_numpy(sigma * stats.norm.ppf(p.numpy())).clamp(min=0)
    sure = (p > 0.5).to(x.device)
    return Certificate(labels.masked_fill(~sure, ABSTAIN), radii.to(x.device))
