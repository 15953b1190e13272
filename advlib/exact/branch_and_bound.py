"""The second exact method: a complete search over ReLU phases, and sweeps over images.

A subproblem (``splits``) whose bound is above zero is done; any other is split on one
more unit. If no unit is left to split, a linear program decides. Attacks, and the point
at which each bound is attained, work on the other side. Subproblems of many classes and
images are bounded at once, but each image has its own store, its own order and its own
limits: what is said of it does not depend on its neighbours.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from joblib import Parallel, delayed
from torch import Tensor, nn

from advlib import attacks
from advlib._check import (
    check_all,
    check_classes,
    check_limits,
    check_logits,
    outside_inference,
)
from advlib.attacks.steps import free_room, uniform_like
from advlib.bounds.margins import input_box
from advlib.exact.leaves import leaf_program
from advlib.exact.scaling import near_one
from advlib.exact.splits import Nodes, Search, contradicted, split_nodes
from advlib.exact.verdicts import ROUNDING, Margin, Verdict
from advlib.networks.canonical import canonical_double

WORK = 40_000_000  # numbers in the largest temporary of one batch of subproblems


@dataclass(frozen=True)
class _Limits:
    """When to stop, one image and all of them, and how much to do at once."""

    time_limit: float
    max_nodes: int
    total_time: float
    total_nodes: float
    batch: int
    num_steps: int
    tolerance: float | None  # None: only the sign is asked for

    def stopped(self, search: Search, image: int) -> bool:
        """Return whether ``image`` has used up what is its own."""
        late = float(search.seconds[image]) > self.time_limit
        return late or int(search.count[image]) >= self.max_nodes

    def spent(self, search: Search, begin: float) -> bool:
        """Return whether all images together, since ``begin``, used up the total."""
        late = time.process_time() - begin > self.total_time
        return late or int(search.count.sum()) >= self.total_nodes

    def order(self, search: Search, images: list[int]) -> list[int]:
        """Return whose turn it is: first those of ``images`` that had least."""
        return sorted(images, key=lambda i: int(search.count[i]))

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
    begin, left = time.process_time(), search.root(images[:0])
    if len(images) == 0:
        return left
    stores = _roots(search, images, limits)
    fresh = list(stores)
    while True:
        over = limits.over(search, torch.tensor(fresh, dtype=torch.int64)).tolist()
        for i, solved in zip(fresh, over, strict=True):
            if solved or len(stores[i]) == 0:
                del stores[i]
            elif limits.stopped(search, i):
                left = left.join(stores.pop(i))
        if not stores or limits.spent(search, begin):
            break
        fresh, left = _round(search, stores, left, limits)
    return left.join(*stores.values())


def _roots(search: Search, images: Tensor, limits: _Limits) -> dict[int, Nodes]:
    """Bound the root subproblems of each image; return those that stay open."""
    stores = {}
    each = max(1, limits.batch // max(1, search.classes - 1))
    for some in images.split(each):
        begin = time.process_time()
        roots = search.root(some)
        parts = torch.arange(len(roots)).split(limits.batch)
        kept = [_judge(search, roots.take(part), limits, first=True) for part in parts]
        stores |= roots.take(torch.arange(0)).join(*kept).by_image()
        search.seconds[some] += (time.process_time() - begin) / len(some)
    return stores


def _round(
    search: Search, stores: dict[int, Nodes], left: Nodes, limits: _Limits
) -> tuple[list[int], Nodes]:
    """Split the newest subproblems of as many images as one batch takes.

    Newest first, so a store stays short. An image comes with as many as when it is
    alone, or waits. Returns these images, and ``left`` with what stays undecided.
    """
    begin, now, turn, room = time.process_time(), [], [], limits.batch // 2
    for i in limits.order(search, list(stores)):
        count = min(len(stores[i]), limits.batch // 2)
        if count <= room:
            stores[i], newest = stores[i].cut(len(stores[i]) - count)
            now.append(newest)
            turn.append(i)
            room -= count
        if room == 0:
            break
    children, leaves = split_nodes(now[0].join(*now[1:]))
    before = float(search.seconds[turn].sum())
    left = left.join(_leaves(search, leaves, limits))
    alone = float(search.seconds[turn].sum()) - before  # of linear programs
    if len(children):
        for i, kept in _judge(search, children, limits).by_image().items():
            stores[i] = stores[i].join(kept)
    share = torch.tensor([len(nodes) for nodes in now], dtype=torch.float64)
    spent = time.process_time() - begin - alone
    search.seconds[turn] += spent * share / share.sum()
    return turn, left


def _judge(
    search: Search, nodes: Nodes, limits: _Limits, *, first: bool = False
) -> Nodes:
    """Bound the subproblems, try their points, and return those that stay open."""
    search.count += torch.bincount(nodes.image, minlength=len(search.count))
    if not first:
        search.tighten(nodes)
    empty = contradicted(nodes, search.room[nodes.image])
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
        begin, one = time.process_time(), nodes.take(torch.tensor([i]))
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
        search.seconds[one.image] += time.process_time() - begin
    return nodes.take(undecided)


def _begin(
    model: nn.Module, x: Tensor, y: Tensor, eps: float, box: bool, seed: int
) -> tuple[Search, float]:
    """Check the input, make the bounds before each ReLU and run the attacks.

    Also returns in which unit the search counts logits.
    """
    check_all(model, x, y, eps)
    net = canonical_double(model, x.shape[1:], x)
    x64, y = x.detach().double().cpu(), y.cpu()
    with torch.no_grad():
        check_classes(y, check_logits(net(x64), len(x)).shape[1])
    net, unit = near_one(net, x64[:1])
    search = Search(net, x64, y, input_box(x64, eps, box=box))
    search.try_points(torch.arange(len(x)), x64)
    plans = [(attacks.cross_entropy, None), (_hinge, _start(x64, eps, box, seed))]
    for loss, start in plans:
        left = (search.best > 0).nonzero()[:, 0]
        if eps == 0 or len(left) == 0:
            break
        delta = attacks.pgd_linf(
            net, x64[left], y[left], eps, alpha=eps / 4, num_steps=10,
            start=None if start is None else start[left], box=box, loss=loss,
        )  # fmt: skip
        points = (x64[left] + delta).clamp(
            search.corners[0][left], search.corners[1][left]
        )
        search.try_points(left, points)
    return search, unit


def _start(x: Tensor, eps: float, box: bool, seed: int) -> Tensor:
    """Return a random start: the same share of its room for each image.

    So that it does not depend on the place of an image among the others.
    """
    share = uniform_like(x[:1], torch.Generator().manual_seed(seed))
    lower, upper = free_room(x, box, eps)
    return (lower + (upper - lower) * share).clamp(lower, upper)


def _hinge(logits: Tensor, y: Tensor) -> Tensor:
    """Return minus the margin: linear in the logits, so it does not saturate."""
    own = logits.gather(1, y[:, None])[:, 0]
    return logits.scatter(1, y[:, None], -torch.inf).amax(1) - own


def _limits(search: Search, tolerance: float | None, **given: float | None) -> _Limits:
    """Return the limits ``given``, of which None is none, and the size of a batch."""
    largest = max([math.prod(search.x.shape[1:]), *search.sizes])
    batch = max(8, min(512, WORK // (16 * largest)))
    limits = {k: math.inf if v is None else v for k, v in given.items()}
    return _Limits(batch=batch, num_steps=4, tolerance=tolerance, **limits)


@outside_inference
def branch_and_bound(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    box: bool = True,
    time_limit: float | None = None,
    max_nodes: int = 1_000_000,
    total_time: float | None = None,
    total_nodes: int | None = None,
    seed: int = 0,
) -> list[Verdict]:
    """Say of each image whether some allowed perturbation is misclassified: exact.

    ``x`` (N, ...) in [0, 1] with labels ``y`` (N,), ``eps`` in units of ``x``, with
    ``box`` cut to [0, 1]; ``model`` in eval mode. A complete search on ReLU phases
    with CROWN bounds, after PGD from ``seed``. A tie counts as attacked. Its
    certificates hold up to float64 rounding; a counterexample has been run through the
    network.

    The search for an image stops after ``time_limit`` seconds of CPU time of this
    process (attacks and first bounds not counted) or ``max_nodes`` subproblems; the
    search for all images after ``total_time`` and ``total_nodes``, of which those that
    had least are served first. An image left open is "unknown", with a bound that is
    proven. Without limits on time and in total, verdicts and numbers of subproblems do
    not depend on the other images or their order, up to rounding.

    Raises ``ValueError`` or ``TypeError`` for bad input and unknown layers. Bunel et
    al. 2020 (JMLR 21(42)); multipliers: Wang et al. 2021, arXiv:2103.06624.
    """
    begin = time.process_time()
    given = {"time_limit": time_limit, "max_nodes": max_nodes}
    given |= {"total_time": total_time, "total_nodes": total_nodes}
    check_limits(**given)
    search, unit = _begin(model, x, y, eps, box, seed)
    search.seconds += (time.process_time() - begin) / len(x)
    limits = _limits(search, None, **given)
    images = (search.best > 0).nonzero()[:, 0]
    left = _run(search, images, limits)
    return [_verdict(search, i, left, unit) for i in range(len(x))]


def _run(search: Search, images: Tensor, limits: _Limits) -> Nodes:
    """Search; count only that time while it runs, and the rest of it afterwards."""
    before = search.seconds.clone()
    search.seconds.zero_()
    left = _search(search, images, limits)
    search.seconds += before
    _lower_floor(search, left.image, left.bound)
    return left


def _verdict(search: Search, i: int, left: Nodes, unit: float) -> Verdict:
    nodes, seconds = int(search.count[i]), float(search.seconds[i])
    if search.best[i] <= 0:
        return Verdict("attacked", -math.inf, search.delta[i], seconds, nodes)
    bound = float(search.floor[i]) * unit
    status = "unknown" if bool((left.image == i).any()) else "certified"
    return Verdict(status, bound, None, seconds, nodes)


@outside_inference
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
    total_time: float | None = None,
    total_nodes: int | None = None,
    seed: int = 0,
) -> list[Margin]:
    """Return the smallest margin over the ball and all classes, to ``tolerance``.

    As ``branch_and_bound``, whose arguments it takes, but it goes on until the proven
    ``bound`` is within ``tolerance`` of a ``margin`` that is attained ("optimal"), or
    a limit is met ("time_limit"; the bound is still proven). Raises ``ValueError``
    also unless tolerance > 0.
    """
    begin = time.process_time()
    if not tolerance > 0:
        raise ValueError("tolerance must be positive")
    given = {"time_limit": time_limit, "max_nodes": max_nodes}
    given |= {"total_time": total_time, "total_nodes": total_nodes}
    check_limits(**given)
    search, unit = _begin(model, x, y, eps, box, seed)
    search.seconds += (time.process_time() - begin) / len(x)
    limits = _limits(search, tolerance / unit, **given)
    left = _run(search, torch.arange(len(x)), limits)
    found = []
    for i in range(len(x)):
        bound = min(float(search.floor[i]), float(search.best[i])) * unit
        late = bool((left.image == i).any())
        status = "time_limit" if late else "optimal"
        best, delta = float(search.best[i]) * unit, search.delta[i]
        found.append(Margin(bound, best, delta, status, float(search.seconds[i])))
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
        """The CPU time of all images together, as if done one after the other."""
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
