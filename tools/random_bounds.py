"""Compare random bounds with samples and attacks: is any bound ever contradicted?

    python tools/random_bounds.py --count 1000000 --seed 0 --jobs 2

Random networks over every rule of ``models.canonical``, random radii, every bound. A
comparison is one bound value against the best point found: a margin or a ReLU's input
at uniform points, at corners of the box and at points of projected gradient descent,
all run through the model itself. Prints how often each rule occurred and, for each
bound, the number of comparisons, how many were contradicted and the least slack; the
exit status is 1 if any was contradicted.

A bound contradicts a point if it is beyond it by more than ROUNDINGS units in the last
place (of the network's dtype) of the sum of absolute terms: what is left if all weights
and inputs are replaced by their absolute values. Slack is measured in that sum, too.
The same seed gives the same networks with any number of jobs.
"""

import argparse
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advlib import bounds, branch_and_bound, lipschitz, models, relaxations

ROUNDINGS = 1000
POINTS = 48  # uniform ones and as many corners, for each image
STEPS = 6  # of projected gradient descent, for each class
UNITS = 6  # of each ReLU that are compared
IMAGES = 3

# ------------------------------------------------------------------------ networks

Shape = tuple[int, ...]


@dataclass
class Builder:
    """Draws layers one after the other; ``rules`` counts what it used."""

    draw: random.Random
    rules: Counter = field(default_factory=Counter)

    def used(self, layer: nn.Module, rule: str = "") -> nn.Module:
        """Count the rule of a ``layer``, by default its type."""
        self.rules[rule or type(layer).__name__] += 1
        return layer

    def some(self, chance: float) -> bool:
        """True with this ``chance``."""
        return self.draw.random() < chance

    def convolution(self, shape: Shape, out: int = 0) -> nn.Module:
        """Any kernel, stride, padding, groups that fit; ``out`` channels keep size."""
        draw, (c, *sides) = self.draw, shape
        if out:  # as a branch of a residual sum needs it
            k = draw.choice([1, 3])
            groups = c if c == out and self.some(0.3) else 1
            layer = nn.Conv2d(c, out, k, padding=k // 2, groups=groups)
            return self.used(layer, "Conv2d groups" if groups > 1 else "Conv2d")
        groups = draw.choice([g for g in (1, 1, 2, 3) if c % g == 0])
        padding = draw.randint(0, 2), draw.randint(0, 2)
        kernel = [
            draw.randint(1, min(3, n + 2 * p))
            for n, p in zip(sides, padding, strict=True)
        ]
        stride = draw.choice([1, 1, 2]), draw.choice([1, 1, 2, 3])
        options = {"stride": stride, "padding": padding, "groups": groups}
        for name, used in [("stride", stride != (1, 1)), ("padding", any(padding))]:
            self.rules[f"Conv2d {name}"] += used
        self.rules["Conv2d groups"] += groups > 1
        channels = groups * draw.randint(1, 2)
        bias = self.some(0.7)
        self.rules["no bias"] += not bias
        return self.used(nn.Conv2d(c, channels, tuple(kernel), bias=bias, **options))

    def linear(self, size: int, out: int = 0) -> nn.Module:
        """To ``out`` units, by default any number."""
        bias = self.some(0.7)
        self.rules["no bias"] += not bias
        layer = nn.Linear(size, out or self.draw.randint(2, 9), bias=bias)
        return self.used(layer)

    def normalised(self, channels: int) -> nn.Module:
        """Normalize, in the middle of a network, too."""
        mean = [self.draw.random() for _ in range(channels)]
        std = [0.2 + self.draw.random() for _ in range(channels)]
        return self.used(models.Normalize(mean, std))

    def residual(self, shape: Shape, depth: int) -> nn.Module:
        """A sum of two branches that keep the shape, with sums inside."""
        self.rules["Residual nested"] += depth > 0
        body = self.branch(shape, depth)
        shortcut = self.branch(shape, depth) if self.some(0.4) else None
        self.rules["Residual shortcut"] += shortcut is not None
        return self.used(models.Residual(body, shortcut))

    def branch(self, shape: Shape, depth: int) -> nn.Sequential:
        """Layers that keep the ``shape``, perhaps with a residual sum among them."""
        layers: list[nn.Module] = []
        for _ in range(self.draw.randint(1, 2)):
            kind = self.draw.choice(["affine", "affine", "relu", "sum", "norm"])
            if kind == "sum" and depth < 2:
                layers.append(self.residual(shape, depth + 1))
            elif kind == "norm" and len(shape) == 3:
                layers.append(self.used(nn.BatchNorm2d(shape[0])))
            elif kind == "relu":
                layers.append(self.used(nn.ReLU()))
            elif len(shape) == 3:
                layers.append(self.convolution(shape, shape[0]))
            else:
                layers.append(self.linear(shape[0], shape[0]))
        return nn.Sequential(*layers)

    def layer(self, shape: Shape, before: nn.Module | None) -> nn.Module:
        """One more layer for inputs of ``shape``, behind ``before``."""
        kinds = ["affine"] * 4 + ["relu"] * 4 + ["sum", "idle", "flat", "norm"]
        kinds += ["norm"] * 3 * isinstance(before, nn.Linear)  # BatchNorm1d, only here
        kind = self.draw.choice(kinds)
        if kind == "relu":
            self.rules["ReLU twice"] += isinstance(before, nn.ReLU)
            self.rules["ReLU first"] += before is None
            return self.used(nn.ReLU(inplace=False))
        if kind == "sum":
            return self.residual(shape, 0)
        if kind == "idle":
            idle = nn.Identity() if self.some(0.5) else nn.Dropout(0.5)
            return self.used(idle)
        if kind == "flat":
            self.rules["Flatten twice"] += len(shape) == 1
            return self.used(nn.Flatten())
        if len(shape) == 1:
            if kind == "norm" and isinstance(before, nn.Linear):
                return self.used(nn.BatchNorm1d(shape[0]))
            return self.linear(shape[0])
        if kind == "norm":
            if self.some(0.5):
                return self.normalised(shape[0])
            return self.used(nn.BatchNorm2d(shape[0]))
        if self.some(0.2) and min(shape[1:]) > 1:
            return self.used(nn.AvgPool2d(2, stride=self.draw.choice([1, 2])))
        return self.convolution(shape)

    def network(self, shape: Shape) -> nn.Module:
        """A network for images of ``shape`` that ends in 2 to 5 logits."""
        layers: list[nn.Module] = []
        first = shape
        for _ in range(self.draw.randint(1, 7)):
            before = layers[-1] if layers else None
            if math.prod(shape) > 150 and len(shape) == 3:
                layers.append(self.used(nn.Flatten()))
            else:
                layers.append(self.layer(shape, before))
            shape = end_of(layers, first)
        if len(shape) == 3:
            layers.append(self.used(nn.Flatten()))
        binary = self.some(0.1)
        layers.append(
            self.linear(math.prod(shape), 1 if binary else self.draw.randint(2, 5))
        )
        if not binary and self.some(0.1):
            layers.append(self.used(nn.ReLU(), "ReLU last"))
        cut = self.draw.randint(0, len(layers))
        if self.some(0.3):  # nested Sequentials are one
            layers = [nn.Sequential(*layers[:cut]), *layers[cut:]]
        net = nn.Sequential(*layers)
        return self.used(models.TwoLogits(net)) if binary else net


def end_of(layers: Sequence[nn.Module], shape: Shape) -> Shape:
    """The shape of one output of ``layers`` for an input of ``shape``."""
    with torch.no_grad():
        return tuple(nn.Sequential(*layers).eval()(torch.zeros(1, *shape)).shape[1:])


def shaken(model: nn.Module, draw: random.Random, generator: torch.Generator) -> None:
    """Draw larger weights, running statistics, some zeros: wide and odd networks."""

    def drawn(like: Tensor, low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(like.shape, generator=generator)

    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                module.running_mean.copy_(drawn(module.running_mean, -1, 1))
                module.running_var.copy_(drawn(module.running_var, 0.1, 2))
                module.weight.copy_(drawn(module.weight, -2, 2))
                module.bias.copy_(drawn(module.bias, -1, 1))
            elif isinstance(module, (nn.Linear, nn.Conv2d)):
                scale = math.exp(draw.uniform(-0.5, 1.2))
                module.weight.mul_(scale)
                module.weight[drawn(module.weight, 0, 1) < 0.05] = 0.0


# --------------------------------------------------------------- what points attain


@dataclass
class Case:
    """A model, images, labels and a ball; the best values that any point attains."""

    model: nn.Module
    x: Tensor
    y: Tensor
    eps: float
    box: bool
    draw: random.Random
    generator: torch.Generator

    def __post_init__(self) -> None:
        self.corners = bounds.input_box(self.x, self.eps, box=self.box)
        self.sizes, logits = absolute_terms(self.model, self.corners)
        self.logit_size = logits
        self.margin_size = logits.gather(1, self.y[:, None]) + logits
        self.units = [
            self.draw.sample(range(s.shape[1]), min(UNITS, s.shape[1]))
            for s in self.sizes
        ]

    def uniform(self) -> list[Tensor]:
        """Uniform points of the box and corners of it."""
        size = (POINTS, *self.x.shape)
        share = torch.rand(size, generator=self.generator).to(self.x)
        return [
            torch.lerp(*self.corners, share),
            torch.lerp(*self.corners, share.round()),
        ]

    def visit(self) -> None:
        """Run all points: ``best`` margins (N, K), ``ends`` of each ReLU's units."""
        points = torch.cat([*self.uniform(), *self.descend(), *self.unit_corners()])
        with torch.no_grad():
            logits, inputs = recorded(self.model, points.flatten(0, 1))
        logits = logits.unflatten(0, points.shape[:2])
        own = self.y.expand(len(points), -1)[..., None]
        self.best = (logits.gather(2, own) - logits).amin(0)
        self.logits = logits.amin(0), logits.amax(0)
        inputs = [z.flatten(1).unflatten(0, points.shape[:2]) for z in inputs]
        self.ends = [(z.amin(0), z.amax(0)) for z in inputs]

    def moved(
        self, value: Callable[[Tensor], Tensor], start: Tensor, step: float
    ) -> Tensor:
        """One step down the gradient's sign of ``value``, within the box."""
        point = start.detach().requires_grad_()
        total = value(point).sum()
        if not total.requires_grad:
            return start
        (slope,) = torch.autograd.grad(total, point, allow_unused=True)
        if slope is None:
            return start
        return (start - step * slope.sign()).clamp(*self.corners).detach()

    def descend(self) -> Iterator[Tensor]:
        """Points of projected gradient descent on each margin: (1, N, ...)."""
        for j in range(self.margin_size.shape[1]):

            def margin(point: Tensor, j: int = j) -> Tensor:
                logits = self.model(point)
                return logits.gather(1, self.y[:, None])[:, 0] - logits[:, j]

            point = self.x.clamp(*self.corners)
            for step in range(STEPS):
                point = self.moved(margin, point, self.eps * 2 / (1 + step))
                yield point[None]

    def unit_corners(self) -> Iterator[Tensor]:
        """The corners to which one gradient of each compared unit points."""
        for k, units in enumerate(self.units):
            for unit in units:
                for sign in (1, -1):

                    def value(point: Tensor, at: tuple = (k, unit, sign)) -> Tensor:
                        inputs = recorded(self.model, point)[1]
                        return at[2] * inputs[at[0]].flatten(1)[:, at[1]]

                    yield self.moved(value, self.x, 2 * self.eps)[None]


def recorded(model: nn.Module, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The logits of ``model`` at ``x``, and what enters each ReLU, in forward order."""
    found: list[Tensor] = []
    hooks = [
        module.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0]))
        for module in model.modules()
        if isinstance(module, nn.ReLU)
    ]
    try:
        return model(x), found
    finally:
        for hook in hooks:
            hook.remove()


def absolute_terms(
    model: nn.Module, corners: tuple[Tensor, Tensor]
) -> tuple[list[Tensor], Tensor]:
    """Sums of absolute terms before each ReLU, (N, units), and of the logits."""
    found: list[Tensor] = []

    def carried(net: nn.Sequential, size: Tensor) -> Tensor:
        for layer in net:
            if isinstance(layer, models.Residual):
                size = carried(layer.body, size) + carried(layer.shortcut, size)
            elif isinstance(layer, nn.ReLU):
                found.append(size.flatten(1))
            elif isinstance(layer, (nn.Linear, nn.Conv2d)):
                bias = None if layer.bias is None else layer.bias.abs()
                weight = layer.weight.abs()
                if isinstance(layer, nn.Linear):
                    size = F.linear(size, weight, bias)
                else:
                    size = F.conv2d(size, weight, bias, layer.stride, layer.padding,
                                    layer.dilation, layer.groups)  # fmt: skip
            else:
                size = layer(size)
        return size

    net = models.canonical(model, corners[0].shape[1:])
    with torch.no_grad():
        last = carried(net, corners[0].abs().maximum(corners[1].abs()))
    return found, last


# ------------------------------------------------------------------------- tallies


@dataclass
class Tally:
    """Comparisons of one bound: how many, contradicted, least slack, where."""

    count: int = 0
    contradicted: int = 0
    slack: float = math.inf
    first: str = ""

    def add(self, bound: Tensor, best: Tensor, size: Tensor, where: str) -> None:
        """Compare lower bounds with the least values met; NaN claims nothing."""
        bound, best = bound.detach().double(), best.double()
        claimed = ~bound.isnan()
        size = size.double().clamp(min=1e-300)
        slack = ((best - bound) / size)[claimed.expand_as(best)]
        if slack.numel() == 0:
            return
        worst = ROUNDINGS * torch.finfo(size_dtype(where)).eps
        false = int((slack < -worst).sum())
        self.count += slack.numel()
        self.contradicted += false
        self.slack = min(self.slack, float(slack.min()))
        if false and not self.first:
            self.first = where

    def join(self, other: "Tally") -> None:
        """Add the counts of another."""
        self.count += other.count
        self.contradicted += other.contradicted
        self.slack = min(self.slack, other.slack)
        self.first = self.first or other.first


def size_dtype(where: str) -> torch.dtype:
    """The dtype in which the case ``where`` was computed."""
    return torch.float32 if "float32" in where else torch.float64


@dataclass
class Report:
    """All tallies, how often each rule occurred, the number of networks."""

    tallies: dict[str, Tally] = field(default_factory=dict)
    rules: Counter = field(default_factory=Counter)
    networks: int = 0

    def to(self, name: str) -> Tally:
        """The tally of the bound ``name``."""
        return self.tallies.setdefault(name, Tally())

    def join(self, other: "Report") -> None:
        """Add the counts of another report."""
        for name, tally in other.tallies.items():
            self.to(name).join(tally)
        self.rules += other.rules
        self.networks += other.networks

    @property
    def count(self) -> int:
        """The number of comparisons."""
        return sum(t.count for t in self.tallies.values())

    @property
    def contradicted(self) -> int:
        """The number of bounds that a point contradicts."""
        return sum(t.contradicted for t in self.tallies.values())

    def lines(self) -> Iterator[str]:
        """The two tables."""
        yield f"{'rule':26s}{'layers':>10s}"
        for rule, count in sorted(self.rules.items()):
            yield f"{rule:26s}{count:10d}"
        yield ""
        yield f"{'bound':34s}{'compared':>10s}{'contradicted':>14s}{'least slack':>14s}"
        for name, t in sorted(self.tallies.items()):
            yield f"{name:34s}{t.count:10d}{t.contradicted:14d}{t.slack:14.1e}"
            if t.first:
                yield f"    first contradicted: {t.first}"
        yield (
            f"{self.networks} networks, {self.count} comparisons, "
            f"{self.contradicted} contradicted"
        )


# -------------------------------------------------------------------------- bounds


def margin_bounds(case: Case) -> Iterator[tuple[str, Tensor]]:
    """Every bound of the margins over the box that every network has."""
    args, box = (case.model, case.x, case.y, case.eps), case.box
    yield "interval_margins", bounds.interval_margins(*args, box=box)
    for cut in (True, False):
        name = "crown_margins" if cut else "crown_margins, not intersected"
        yield name, bounds.crown_margins(*args, box=box, intersect=cut)
    yield "wong_kolter_margins", bounds.wong_kolter_margins(*args, box=box)
    alpha = partial(bounds.alpha_crown_margins, *args, box=box, num_steps=3)
    yield "alpha_crown_margins, last", alpha()
    if case.draw.random() < 0.3:
        yield "alpha_crown_margins, all", alpha(slopes="all")
    method = case.draw.choice(["interval", "crown", "dual"])
    pre = bounds.relu_bounds(case.model, *case.corners, method=method)
    spec = bounds.margin_spec(case.y, case.best.shape[1]).to(case.x)
    slopes = [torch.rand(a.shape, generator=case.generator).to(a) for a, _ in pre]
    lower = partial(bounds.linear_lower, case.model, spec, *case.corners, pre)
    yield "linear_lower, random slopes", lower(slopes=slopes)
    for rule in ("crown", "dual"):
        yield f"linear_lower, {rule}", lower(rule=rule)


def unit_bounds(case: Case) -> Iterator[tuple[str, list]]:
    """Every bound of what enters each ReLU."""
    for method in ("interval", "crown", "dual"):
        find = partial(bounds.relu_bounds, case.model, *case.corners, method=method)
        yield f"relu_bounds, {method}", find()
    yield "relu_bounds, not intersected", find(method="crown", intersect=False)
    units = sum(size.shape[1] for size in case.sizes)
    if units <= 25 and case.draw.random() < 0.1:
        yield "lp_bounds", relaxations.lp_bounds(case.model, *case.corners)


def compare_boxes(case: Case, report: Report, where: str) -> None:
    """Margins, ReLU inputs and logits over the box."""
    for name, found in margin_bounds(case):
        other = torch.ones_like(found, dtype=torch.bool).scatter(1, case.y[:, None], 0)
        values = found[other], case.best[other], case.margin_size[other]
        report.to(name).add(*values, where)
    for name, pre in unit_bounds(case):
        for (low, up), (least, most), size, units in zip(
            pre, case.ends, case.sizes, case.units, strict=True
        ):
            low, up = low.flatten(1)[:, units], up.flatten(1)[:, units]
            least, most, size = least[:, units], most[:, units], size[:, units]
            report.to(name).add(low, least, size, where)
            report.to(name).add(-up, -most, size, where)
    low, up = bounds.interval_bounds(case.model, *case.corners)[-1]
    report.to("interval_bounds").add(low, case.logits[0], case.logit_size, where)
    report.to("interval_bounds").add(-up, -case.logits[1], case.logit_size, where)


def compare_programs(case: Case, report: Report, where: str) -> None:
    """Linear programs, and what branch and bound says, on small networks."""
    units = sum(size.shape[1] for size in case.sizes)
    args = case.model, case.x, case.y, case.eps
    if units > 40 or case.draw.random() > 0.15:
        return
    found = relaxations.lp_margins(*args, box=case.box)
    other = torch.ones_like(found, dtype=torch.bool).scatter(1, case.y[:, None], 0)
    values = found[other], case.best[other], case.margin_size[other]
    report.to("lp_margins").add(*values, where)
    verdicts = branch_and_bound.branch_and_bound(*args, box=case.box, max_nodes=64)
    size = case.margin_size.amax(1)
    best = case.best.masked_fill(~other, math.inf).amin(1)
    for i, verdict in enumerate(verdicts):
        claim = verdict.bound
        if verdict.status == "certified":  # every margin is claimed to be above 0
            claim = max(claim, 0.0)
        bound = torch.tensor(claim, dtype=torch.float64)
        tally = report.to(f"branch_and_bound, {verdict.status}")
        tally.add(bound, best[i], size[i], where)


def compare_lipschitz(case: Case, report: Report, where: str) -> None:
    """Margins over balls in l2 and linf, the box not kept; the slopes that are met."""
    if not isinstance(
        list(models.canonical(case.model, case.x.shape[1:]))[-1], nn.Linear
    ):
        return
    for norm, order in (("l2", 2.0), ("linf", math.inf)):
        found = lipschitz.lipschitz_margins(
            case.model, case.x, case.y, case.eps, norm=norm
        )
        step = torch.randn(2 * POINTS, *case.x.shape, generator=case.generator)
        step = step.to(case.x).flatten(2)
        step = step.sign() if norm == "linf" else step
        step = step / step.norm(order, dim=2, keepdim=True) * case.eps
        points = torch.cat([case.x[None], case.x + step.view(-1, *case.x.shape)])
        with torch.no_grad():
            logits = case.model(points.flatten(0, 1)).unflatten(0, points.shape[:2])
        own = case.y.expand(len(points), -1)[..., None]
        best = (logits.gather(2, own) - logits).amin(0)
        reach = case.x.abs() + case.eps
        size = absolute_terms(case.model, (-reach, reach))[1]
        size = size.gather(1, case.y[:, None]) + size
        other = torch.ones_like(found, dtype=torch.bool).scatter(1, case.y[:, None], 0)
        tally = report.to(f"lipschitz_margins, {norm}")
        tally.add(found[other], best[other], size[other], where)
    constant = lipschitz.lipschitz_bound(case.model, case.x.shape[1:])
    met = lipschitz.jacobian_norms(case.model, case.x)
    bound = torch.tensor(-constant, dtype=torch.float64).expand(len(met))
    report.to("lipschitz_bound").add(bound, -met, bound.abs(), where)


def run_case(seed: int, number: int) -> Report:
    """Draw network ``number`` of a ``seed`` and compare all its bounds."""
    draw = random.Random(f"{seed}/{number}")
    generator = torch.Generator().manual_seed(draw.getrandbits(60))
    shape = draw.choice([1, 2, 3]), draw.randint(2, 5), draw.randint(2, 5)
    builder = Builder(draw)
    with torch.random.fork_rng():
        torch.manual_seed(draw.getrandbits(60))
        model = builder.network(shape).eval()
    shaken(model, draw, generator)
    kind = torch.float32 if draw.random() < 0.25 else torch.float64
    model = model.to(kind).requires_grad_(False)
    x = torch.rand(IMAGES, *shape, generator=generator).to(kind)
    x[x < 0.1], x[x > 0.9] = 0.0, 1.0
    with torch.no_grad():
        logits = model(x)
    y = logits.argmax(1)
    if draw.random() < 0.1:
        y = torch.randint(logits.shape[1], (IMAGES,), generator=generator)
    eps = draw.choice([0.0, 1e-6, 0.001, 0.01, 0.05, 0.1, 0.3, 1.0])
    case = Case(model, x, y, eps, draw.random() < 0.8, draw, generator)
    case.visit()
    where = f"network {number} of seed {seed}, eps = {eps}, box = {case.box}, {kind}"
    report = Report(rules=builder.rules, networks=1)
    compare_boxes(case, report, where)
    compare_programs(case, report, where)
    compare_lipschitz(case, report, where)
    return report


# ------------------------------------------------------------------------- command


def run_part(seed: int, first: int, size: int) -> Report:
    """The cases from ``first`` on, on one thread."""
    torch.set_num_threads(1)
    report = Report()
    for number in range(first, first + size):
        report.join(run_case(seed, number))
    return report


def run(count: int, seed: int, jobs: int, part: int = 10) -> Report:
    """Compare until there are ``count`` comparisons, with ``jobs`` processes."""
    report, first = Report(), 0
    if jobs == 1:
        while report.count < count:
            report.join(run_part(seed, first, 1))
            first += 1
        return report
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        while report.count < count:
            starts = [first + part * i for i in range(2 * jobs)]
            first += part * len(starts)
            parts = [pool.submit(run_part, seed, start, part) for start in starts]
            for done in parts:
                report.join(done.result())
    return report


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print the tables, return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    chosen = parser.parse_args(arguments)
    begin = time.perf_counter()
    report = run(chosen.count, chosen.seed, chosen.jobs)
    for line in report.lines():
        print(line)
    print(f"{time.perf_counter() - begin:.0f} s, {chosen.jobs} processes")
    return 1 if report.contradicted else 0


if __name__ == "__main__":
    raise SystemExit(main())
