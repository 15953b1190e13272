"""The second exact method: a complete search over ReLU phases, and sweeps over images.

A subproblem (``splits``) whose bound is above zero is done; any other is split on one
more unit. If no unit is left to split, a linear program decides. Attacks, and the point
at which each bound is attained, work on the other side. Many subproblems, of all
classes and images, are bounded at once.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from joblib import Parallel, delayed
from torch import Tensor, nn

from advlib import attacks
from advlib._check import check_all
from advlib.bounds.margins import input_box, margin_spec
from advlib.exact.splits import Nodes, Search, contradicted, leaf_program, split_nodes
from advlib.exact.verdicts import ROUNDING, Margin, Verdict
from advlib.networks.canonical import canonical_double

WORK = 40_000_000  # numbers in the largest temporary of one batch of subproblems


@dataclass(frozen=True)
class _Limits:
    """When to stop, and how much to do at once."""

    deadline: float
    max_nodes: int
    batch: int
    num_steps: int
    tolerance: float | None  # None: only the sign is asked for

    def cut(self, search: Search, image: Tensor) -> Tensor:
        """Return the bound above which a subproblem of ``image`` needs no split."""
        if self.tolerance is None:
            return torch.full((len(image),), ROUNDING, dtype=torch.float64)
        return search.best[image] - self.tolerance

    def over(self, search: Search, image: Tensor) -> Tensor:
        """Return which of ``image`` need no more search at all."""
        if self.tolerance is None:
            return search.best[image] <= 0
        return torch.zeros(len(image), dtype=torch.bool)


def _search(search: Search, images: Tensor, limits: _Limits) -> Nodes:
    """Run the search on ``images``; return the subproblems that are left open."""
    roots = search.root(images)
    if len(roots) == 0:
        return roots
    parts = torch.arange(len(roots)).split(limits.batch)
    kept = [_judge(search, roots.take(part), limits, first=True) for part in parts]
    nodes, stuck = kept[0], roots.take(torch.arange(0))
    for part in kept[1:]:
        nodes = nodes.join(part)
    while len(nodes):
        nodes = nodes.take(~limits.over(search, nodes.image))
        late = time.perf_counter() > limits.deadline
        if late or int(search.count.sum()) >= limits.max_nodes:
            break
        now, nodes = _pop(nodes, limits.batch // 2)
        if len(now) == 0:
            break
        children, leaves = split_nodes(now)
        stuck = stuck.join(_leaves(search, leaves, limits))
        if len(children):
            nodes = nodes.join(_judge(search, children, limits))
    return nodes.join(stuck)


def _pop(nodes: Nodes, count: int) -> tuple[Nodes, Nodes]:
    """Take the ``count`` newest subproblems off: depth first, so the store is short."""
    where = torch.arange(len(nodes))
    return nodes.take(where[-count:]), nodes.take(where[: max(len(nodes) - count, 0)])


def _judge(
    search: Search, nodes: Nodes, limits: _Limits, *, first: bool = False
) -> Nodes:
    """Bound the subproblems, try their points, and return those that stay open."""
    search.count += torch.bincount(nodes.image, minlength=len(search.count))
    if not first:
        search.tighten(nodes)
    empty = contradicted(nodes)
    nodes = nodes.take(~empty)
    if len(nodes) == 0:
        return nodes
    steps = 2 * limits.num_steps if first else limits.num_steps
    found = search.bound(nodes, limits.cut(search, nodes.image), steps)
    search.try_points(nodes.image, found.point)
    nodes.unit = found.unit
    done = nodes.bound > limits.cut(search, nodes.image)
    _lower_floor(search, nodes.image[done], nodes.bound[done])
    return nodes.take(~done)


def _lower_floor(search: Search, image: Tensor, bound: Tensor) -> None:
    search.floor.scatter_reduce_(0, image, bound, "amin")


def _leaves(search: Search, nodes: Nodes, limits: _Limits) -> Nodes:
    """Decide subproblems without a free unit; return those that stay undecided."""
    undecided = torch.zeros(len(nodes), dtype=torch.bool)
    for i in range(len(nodes)):
        one = nodes.take(torch.tensor([i]))
        bound, point = leaf_program(search, one)
        if point is not None:
            search.try_points(one.image, point)
        bound = torch.tensor([bound], dtype=torch.float64).maximum(one.bound)
        cut = limits.cut(search, one.image)
        exact = limits.tolerance is not None and bound.isfinite()
        if bound > cut or exact:
            _lower_floor(search, one.image, bound)
        else:
            nodes.bound[i], undecided[i] = bound[0], True
    return nodes.take(undecided)


def _begin(
    model: nn.Module, x: Tensor, y: Tensor, eps: float, box: bool, seed: int
) -> Search:
    """Check the input, make the bounds before each ReLU and run the attacks."""
    check_all(model, x, y, eps)
    net, x64, y = (
        canonical_double(model, x.shape[1:]),
        x.detach().double().cpu(),
        y.cpu(),
    )
    margin_spec(y, net(x64[:1]).shape[1])  # refuses labels that are no class
    search = Search(net, x64, y, input_box(x64, eps, box=box))
    search.try_points(torch.arange(len(x)), x64)
    generator = torch.Generator().manual_seed(seed)
    plans = [(attacks.cross_entropy, None), (_hinge, generator)]
    for loss, start in plans:
        left = (search.best > 0).nonzero()[:, 0]
        if eps == 0 or len(left) == 0:
            break
        delta = attacks.pgd_linf(
            net, x64[left], y[left], eps, alpha=eps / 4, num_steps=10,
            generator=start, box=box, loss=loss,
        )  # fmt: skip
        points = (x64[left] + delta).clamp(
            search.corners[0][left], search.corners[1][left]
        )
        search.try_points(left, points)
    return search


def _hinge(logits: Tensor, y: Tensor) -> Tensor:
    """Return minus the margin: linear in the logits, so it does not saturate."""
    own = logits.gather(1, y[:, None])[:, 0]
    return logits.scatter(1, y[:, None], -torch.inf).amax(1) - own


def _limits(
    search: Search, time_limit: float | None, max_nodes: int, tolerance: float | None
) -> _Limits:
    if max_nodes < 1 or (time_limit is not None and time_limit < 0):
        raise ValueError("need max_nodes >= 1 and time_limit >= 0")
    deadline = time.perf_counter() + (math.inf if time_limit is None else time_limit)
    largest = max([math.prod(search.x.shape[1:]), *search.sizes])
    batch = max(8, min(512, WORK // (16 * largest)))
    return _Limits(deadline, max_nodes, batch, 4, tolerance)


def branch_and_bound(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    box: bool = True,
    time_limit: float | None = None,
    max_nodes: int = 1_000_000,
    seed: int = 0,
) -> list[Verdict]:
    """Say of each image whether some allowed perturbation is misclassified: exact.

    ``x`` (N, ...) in [0, 1] with labels ``y`` (N,), ``eps`` in units of ``x``, with
    ``box`` cut to [0, 1]; ``model`` in eval mode. A complete search on ReLU phases
    with CROWN bounds, over all
    images and classes at once, after PGD from ``seed``. A tie counts as attacked. Its
    certificates hold up to float64 rounding (and, where every phase is fixed, HiGHS's
    tolerance); a counterexample has been run through the network. It stops after
    ``time_limit`` seconds, or ``max_nodes`` subproblems, for all images together; the
    images left open are "unknown", with a bound that is proven.

    Raises ``ValueError`` or ``TypeError`` for bad input and unknown layers. Bunel et
    al. 2020 (JMLR 21(42)); multipliers: Wang et al. 2021, arXiv:2103.06624.
    """
    begin = time.perf_counter()
    search = _begin(model, x, y, eps, box, seed)
    limits = _limits(search, time_limit, max_nodes, None)
    images = (search.best > 0).nonzero()[:, 0]
    left = _search(search, images, limits) if len(images) else search.root(images)
    _lower_floor(search, left.image, left.bound)
    seconds = (time.perf_counter() - begin) / len(x)
    return [_verdict(search, i, left, seconds) for i in range(len(x))]


def _verdict(search: Search, i: int, left: Nodes, seconds: float) -> Verdict:
    nodes = int(search.count[i])
    if search.best[i] <= 0:
        return Verdict("attacked", -math.inf, search.delta[i], seconds, nodes)
    bound = float(search.floor[i])
    status = "unknown" if bool((left.image == i).any()) else "certified"
    return Verdict(status, bound, None, seconds, nodes)


def minimal_margin(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    box: bool = True,
    tolerance: float = 1e-4,
    time_limit: float | None = None,
    max_nodes: int = 1_000_000,
    seed: int = 0,
) -> list[Margin]:
    """Return the smallest margin over the ball and all classes, to ``tolerance``.

    As ``branch_and_bound``, whose arguments it takes, but it goes on until the proven
    ``bound`` is within ``tolerance`` of a ``margin`` that is attained ("optimal"), or
    a limit is met ("time_limit"; the bound is still proven). Raises ``ValueError``
    also unless tolerance > 0.
    """
    begin = time.perf_counter()
    if not tolerance > 0:
        raise ValueError("tolerance must be positive")
    search = _begin(model, x, y, eps, box, seed)
    limits = _limits(search, time_limit, max_nodes, tolerance)
    left = _search(search, torch.arange(len(x)), limits)
    _lower_floor(search, left.image, left.bound)
    seconds = (time.perf_counter() - begin) / len(x)
    found = []
    for i in range(len(x)):
        bound = min(float(search.floor[i]), float(search.best[i]))
        late = bool((left.image == i).any())
        status = "time_limit" if late else "optimal"
        best, delta = float(search.best[i]), search.delta[i]
        found.append(Margin(bound, best, delta, status, seconds))
    return found


Verify = Callable[..., list[Verdict]]


@dataclass(frozen=True)
class ExactError:
    """The true robust error, between two counts: ``attacked`` and that plus unknown.

    ``verdicts``: one for each image, in order.
    """

    verdicts: tuple[Verdict, ...]

    def number(self, status: str) -> int:
        """Return how many images have the ``status``."""
        return sum(verdict.status == status for verdict in self.verdicts)

    @property
    def n(self) -> int:
        """The number of images."""
        return len(self.verdicts)

    @property
    def lower(self) -> float:
        """The share of images with a counterexample."""
        return self.number("attacked") / self.n

    @property
    def upper(self) -> float:
        """The share of images without a certificate; ``lower`` if all are decided."""
        return (self.n - self.number("certified")) / self.n

    @property
    def seconds(self) -> float:
        """The wall time of all images together, as if done one after the other."""
        return sum(verdict.seconds for verdict in self.verdicts)


def exact_error(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    verify: Verify = branch_and_bound,
    chunk: int = 1,
    n_jobs: int | None = None,
    **options: object,
) -> ExactError:
    """Return the true robust error on ``x``, ``y``: exact where all are decided.

    ``verify(model, x, y, eps, **options)`` gives the verdicts of a few images:
    ``branch_and_bound`` or ``exact.milp_robust``, with their ``options`` such as
    ``time_limit``. ``chunk`` images go to it at a time, through joblib, in ``n_jobs``
    processes: by default as ``joblib.parallel_config`` says (so a Dask or Ray cluster
    serves too), else one after the other. The result does not depend on the number of
    workers, unless a time limit strikes. Raises ``ValueError`` for chunk < 1, and
    what ``verify`` raises.
    """
    check_all(model, x, y, eps)
    if chunk < 1:
        raise ValueError("chunk must be at least 1")
    parts = torch.arange(len(x)).split(chunk)
    task = delayed(verify)
    done = Parallel(n_jobs=n_jobs)(
        task(model, x[part], y[part], eps, **options) for part in parts
    )
    return ExactError(tuple(verdict for part in done for verdict in part))
