"""The thesis of the book as a test: attack <= exact <= every bound, on 210 networks.

Said of the worst case; on margins z_y - z_j, which are minimised, the signs turn round:
every bound <= the smallest margin <= the margin at every point that an attack tried.

Three things hold the middle in place: the integer program's proven bound from below,
its point, run through the network, from above, and brute force where two pixels and
one hidden layer allow it. A bound may exceed a value of the network only by rounding
(``slack``), HiGHS's results may be off by its tolerance besides (``SOLVER``).
"""

import functools
import itertools
import math
import warnings
from copy import deepcopy
from dataclasses import dataclass, replace
from fractions import Fraction

import cvxpy as cp
import pytest
import torch
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from advlib import attacks, bounds, certificates, exact, models, relaxations
from advlib import branch_and_bound as bb
from advlib.exact import integer_programs

NETWORKS = 210
CHUNKS = 7  # tests of 30 networks each, so that a failure names a few
SOLVER = 2e-6  # HiGHS: rows to 1e-7, integrality to 1e-6, optimality gap to 1e-6
POINTS = 1500


# ----------------------------------------------------------------- random networks


@dataclass(frozen=True)
class Problem:
    """A network in float64, two images near its kinks, labels, a radius, a box."""

    model: nn.Sequential
    x: Tensor
    y: Tensor
    eps: float
    box: bool

    def __iter__(self):
        return iter((self.model, self.x, self.y, self.eps))

    @property
    def corners(self) -> tuple[Tensor, Tensor]:
        """The ends of the allowed set."""
        return bounds.input_box(self.x, self.eps, box=self.box)


@st.composite
def dense(draw):
    """Draw (shape, layers): one to three hidden layers of three to seven units."""
    shape = (1, draw(st.integers(1, 2)), draw(st.integers(2, 3)))
    widths = draw(st.lists(st.integers(3, 7), min_size=1, max_size=3))
    layers: list[nn.Module] = [nn.Flatten()]
    for i, o in itertools.pairwise([math.prod(shape), *widths]):
        layers += [nn.Linear(i, o), nn.ReLU()]
    if len(widths) > 1 and draw(st.booleans()):
        last = widths[-1]
        body = nn.Sequential(nn.Linear(last, 2), nn.ReLU(), nn.Linear(2, last))
        layers += [models.Residual(body), nn.ReLU()]
    return shape, layers, widths[-1]


@st.composite
def convolution(draw):
    """Draw (shape, layers): one or two convolutions, norms, pools, sums, a dense layer.

    Odd and even sizes, kernels from 1 to 3, strides 1 and 2, paddings 0 and 1.
    """
    shape = (draw(st.integers(1, 2)), draw(st.integers(3, 5)), draw(st.integers(3, 4)))
    layers: list[nn.Module] = []
    if draw(st.booleans()):
        layers.append(models.Normalize([0.4] * shape[0], [0.5] * shape[0]))
    size = shape
    for depth in range(draw(st.integers(1, 2))):
        k = draw(st.integers(2, 3) if depth == 0 else st.integers(1, 2))
        stride, padding = draw(st.sampled_from([(2, 1), (2, 0), (1, 0), (2, 1)]))
        layer = nn.Conv2d(size[0], draw(st.integers(1, 2)), k, stride, padding)
        if min(size[1:]) + 2 * padding < k:
            break
        layers.append(layer)
        size = models.output_shape(layer, size)
        if draw(st.booleans()):
            layers.append(nn.BatchNorm2d(size[0]))
        layers.append(nn.ReLU())
        if depth == 0 and math.prod(size) <= 8 and draw(st.booleans()):
            shortcut = nn.Sequential(nn.Conv2d(size[0], size[0], 1))
            shortcut = shortcut if draw(st.booleans()) else None
            inner = nn.Sequential(nn.Conv2d(size[0], size[0], 3, 1, 1))
            layers += [models.Residual(inner, shortcut), nn.ReLU()]
    if min(size[1:]) >= 2 and draw(st.booleans()):
        layers.append(nn.AvgPool2d(2, stride=1, padding=draw(st.integers(0, 1))))
        pool = nn.Conv2d(size[0], size[0], 2, 1, layers[-1].padding)
        size = models.output_shape(pool, size)
    layers.append(nn.Flatten())
    width = math.prod(size)
    if draw(st.booleans()):
        hidden = draw(st.integers(2, 5))
        layers += [nn.Linear(width, hidden), nn.ReLU()]
        width = hidden
    return shape, layers, width


@st.composite
def architectures(draw):
    """Draw (shape, layers, radius, box, right label) of at most 20 hidden units."""
    shape, layers, width = draw(st.one_of(dense(), convolution()))
    layers.append(nn.Linear(width, draw(st.integers(2, 3))))
    model = nn.Sequential(*layers)
    assume(hidden_units(models.canonical(model, shape), shape) <= 20)
    eps = draw(st.sampled_from([0.05, 0.1, 0.2, 0.3]))
    return model, shape, eps, draw(st.booleans()), draw(st.booleans())


def hidden_units(net: nn.Sequential, shape: tuple) -> int:
    """How many numbers enter ReLUs."""
    count = 0
    for layer in net:
        count += math.prod(shape) if isinstance(layer, nn.ReLU) else 0
        if isinstance(layer, models.Residual):
            count += hidden_units(layer.body, shape)
        shape = models.output_shape(layer, shape)
    return count


def randomised(
    model: nn.Sequential, shape: tuple, eps: float, box: bool, right: bool, seed: int
) -> Problem:
    """Random weights whose kinks pass near two images; labels right, or one not."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        for module in model.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                module.reset_parameters()
        model = model.double().eval()
        x = (1.2 * torch.rand(1, *shape).double() - 0.1).clamp(0, 1)
        x = torch.cat([x, x + 0.3 * eps * torch.randn(1, *shape).double()]).clamp(0, 1)
        lower, upper = bounds.input_box(x, eps, box=box)
        share = torch.rand(100, *x.shape).double().round()
        centred(model, (lower + (upper - lower) * share).flatten(0, 1))
        y = model(x).argmax(1)
    if not right:
        y[1] = (y[1] + 1) % model[-1].out_features
    return Problem(model.requires_grad_(False), x, y, eps, box)


def centred(model: nn.Sequential, h: Tensor) -> Tensor:
    """Shift the biases so that 0 lies amid what layers return on the samples ``h``.

    So most units change their phase in the ball, in every layer. Logits are spread.
    """
    for layer in model:
        if isinstance(layer, models.Residual):
            h = centred(layer.body, h) + centred(layer.shortcut, h)
            continue
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.copy_(h.mean((0, 2, 3)))
            layer.running_var.copy_(h.var((0, 2, 3)) * (0.5 + torch.rand(h.shape[1])))
            layer.weight.uniform_(0.5, 1.5)
            layer.bias.uniform_(-1, 1)
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            layer.weight *= 1.5
            out = layer(h)
            every = [d for d in range(out.dim()) if d != 1]
            half = (out.amax(every) - out.amin(every)) / 2
            spread = 2.0 if layer is model[-1] else 0.8
            shift = spread * (2 * torch.rand(len(half)).double() - 1)
            layer.bias -= out.mean(every) - shift * half
        h = layer(h)
    return h


@functools.cache
def drawn() -> list[Problem]:
    """The networks: the same on every run, for hypothesis is derandomised."""
    found: list[Problem] = []

    @settings(
        max_examples=NETWORKS,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(architectures())
    def collect(architecture: tuple) -> None:
        found.append(randomised(*architecture, seed=len(found)))

    collect()
    return found


def chunk(i: int) -> range:
    """The numbers of the networks of test ``i``."""
    size = NETWORKS // CHUNKS
    return range(i * size, (i + 1) * size)


# --------------------------------------------------------------------- the two sides


def at(p: Problem, points: Tensor) -> Tensor:
    """Margins (n, N, K) of points (n, N, ...)."""
    logits = p.model(points.flatten(0, 1)).unflatten(0, points.shape[:2])
    return logits.gather(2, p.y.expand(len(points), -1)[..., None]) - logits


@functools.cache
def sampled(i: int) -> Tensor:
    """The smallest margins (N, K) over 1500 points of the box, half of them corners."""
    p = drawn()[i]
    lower, upper = p.corners
    generator = torch.Generator().manual_seed(i)
    share = torch.rand(POINTS, *p.x.shape, generator=generator).double()
    share[: POINTS // 2] = share[: POINTS // 2].round()
    return at(p, lower + (upper - lower) * share).amin(0)


def tries(p: Problem) -> dict[str, Tensor]:
    """A perturbation of every attack, its name first."""
    model, x, y, eps = p

    def seeded() -> torch.Generator:
        return torch.Generator().manual_seed(0)

    found = {
        "fgsm": attacks.fgsm(model, x, y, eps, box=p.box),
        "pgd": attacks.pgd_linf(
            model, x, y, eps, alpha=eps / 4, num_steps=15, box=p.box
        ),
        "apgd": attacks.apgd(
            model, x, y, eps, num_steps=15, generator=seeded(), box=p.box
        ),
        "strong": attacks.strong_attack(
            model, x, y, eps, num_restarts=3, num_steps=8, search=False
        ),
        "square": attacks.square(
            model, x, y, eps, num_queries=40, generator=seeded()
        ),
    }  # fmt: skip
    return found


@functools.cache
def attacked(i: int) -> dict[str, Tensor]:
    """The perturbations of every attack on network ``i``."""
    return tries(drawn()[i])


@functools.cache
def solved(i: int) -> tuple[Tensor, Tensor]:
    """The integer program's proven bounds and attained margins (N, K); column y is 0.

    Each point is allowed, and its margin is what the network returns there.
    """
    p = drawn()[i]
    model, x, y, eps = p
    proven, attained = torch.zeros(2, *model(x).shape).double()
    lower, upper = p.corners
    for n, j in itertools.product(range(len(x)), range(proven.shape[1])):
        if j == y[n]:
            continue
        one = slice(n, n + 1)
        found = exact.milp_margin(model, x[one], y[one], j, eps, box=p.box)
        assert found.status == "optimal"
        point = x[n] + found.delta
        assert (lower[n] <= point).all()
        assert (point <= upper[n]).all()
        proven[n, j] = found.bound
        attained[n, j] = at(p, point.expand(1, len(x), *point.shape))[0, n, j]
        assert float(attained[n, j]) == pytest.approx(found.margin, abs=1e-9)
    return proven, attained


@functools.cache
def pre(i: int, method: str) -> list[bounds.Box]:
    """Bounds before each ReLU."""
    p = drawn()[i]
    return bounds.relu_bounds(p.model, *p.corners, method=method)


def upper_side(p: Problem) -> dict[str, Tensor]:
    """Every bound by propagation, in the precision of ``p``."""
    alpha = functools.partial(bounds.alpha_crown_margins, num_steps=6)
    methods = {
        "interval": bounds.interval_margins,
        "wong_kolter": bounds.wong_kolter_margins,
        "crown": bounds.crown_margins,
        "crown alone": functools.partial(bounds.crown_margins, intersect=False),
        "alpha last": alpha,
        "alpha all": functools.partial(alpha, slopes="all"),
    }
    return {name: f(*p, box=p.box) for name, f in methods.items()}


@functools.cache
def bounded(i: int) -> dict[str, Tensor]:
    """Every bound on network ``i``, in float64, the linear programs included."""
    p = drawn()[i]
    found = upper_side(p)
    for method in ("interval", "crown"):
        found[f"lp {method}"] = relaxations.lp_margins(
            *p, box=p.box, pre=pre(i, method)
        )
    return found


def magnitude(model: nn.Module, shape: tuple[int, ...]) -> float:
    """A number that no sum of absolute values on the way through ``model`` exceeds.

    The network with |weights| and |biases|, without its ReLUs, at an input of ones.
    Weights of a backward walk and its constants stay below it as well: slopes are at
    most 1 and -l is at most the layer's own value here.
    """
    net = models.canonical(model, shape)

    def through(layers: nn.Sequential, h: Tensor) -> Tensor:
        for layer in layers:
            if isinstance(layer, models.Residual):
                h = through(layer.body, h) + through(layer.shortcut, h)
            elif isinstance(layer, (nn.Linear, nn.Conv2d)):
                bias = None if layer.bias is None else layer.bias.abs()
                h = models.with_weights(layer, layer.weight.abs(), bias)(h)
            elif isinstance(layer, nn.Flatten):
                h = layer(h)
        return h

    return 2 * float(through(net, 1.3 * torch.ones(1, *shape).double()).max())


def slack(p: Problem, dtype: torch.dtype) -> float:
    """How far rounding can move a bound: operations in a row x unit x magnitude.

    Every number is a sum of at most 60 products per layer, in at most 8 layers,
    forward and backward and once more in the intermediate bounds: fewer than 2000
    roundings in a row, each of at most half a unit (2^-24, 2^-53) of ``magnitude``.
    """
    return 1000 * torch.finfo(dtype).eps * magnitude(p.model, p.x.shape[1:])


# ----------------------------------------------------------------------- the thesis


@pytest.mark.parametrize("i", range(CHUNKS))
def test_attack_below_exact(i):
    """No attack, and none of 1500 points, has a margin below the proven minimum."""
    for k in chunk(i):
        p = drawn()[k]
        proven, _ = solved(k)
        lower, upper = p.corners
        close = SOLVER + slack(p, torch.float64)
        for name, delta in attacked(k).items():
            point = p.x + delta
            assert (delta.abs() <= p.eps).all(), (k, name)
            assert (point >= lower - 1e-15).all(), (k, name)
            assert (point <= upper + 1e-15).all(), (k, name)
            if p.box:
                assert (point >= 0).all(), (k, name)
                assert (point <= 1).all(), (k, name)
            assert (at(p, point[None])[0] >= proven - close).all(), (k, name)
        assert (sampled(k) >= proven - close).all(), k


@pytest.mark.parametrize("i", range(CHUNKS))
def test_exact_below_every_bound(i):
    """Each bound is below a margin that the network attains, and below the samples.

    No tolerance of a solver enters: the integer program gives the point, the network
    its margin. Only rounding of float64 is allowed.
    """
    for k in chunk(i):
        p = drawn()[k]
        _, attained = solved(k)
        least = attained.minimum(sampled(k))
        for name, found in bounded(k).items():
            assert found.shape == least.shape
            assert (found.gather(1, p.y[:, None]) == 0).all()
            assert (found <= least + slack(p, torch.float64)).all(), (k, name)


@pytest.mark.parametrize("i", range(CHUNKS))
def test_the_middle_is_one_number(i):
    """Proven bound and attained margin of the integer program meet."""
    for k in chunk(i):
        proven, attained = solved(k)
        assert (proven <= attained + SOLVER).all(), k
        assert (attained - proven <= 20 * SOLVER * (1 + attained.abs())).all(), k


@pytest.mark.parametrize("i", range(CHUNKS))
def test_the_linear_program_is_below_relaxations_on_its_bounds(i):
    """With the same l <= z <= u before each ReLU: CROWN, any slopes, the dual, folded
    intervals. Nothing else is ordered, and nothing else is asked."""
    for k in chunk(i):
        p = drawn()[k]
        close = SOLVER + slack(p, torch.float64)
        for method in ("interval", "crown"):
            lp = bounded(k)[f"lp {method}"]
            same = {"box": p.box, "pre": pre(k, method)}
            below = [
                bounds.crown_margins(*p, **same),
                bounds.wong_kolter_margins(*p, **same),
                bounds.alpha_crown_margins(*p, num_steps=6, **same),
            ]
            if method == "interval":
                below.append(bounded(k)["interval"])
            else:  # these make the same bounds themselves
                below += [bounded(k)["crown"], bounded(k)["alpha last"]]
            for other in below:
                assert (lp >= other - close).all(), (k, method)


@pytest.mark.parametrize("i", range(CHUNKS))
def test_slopes_never_lose_to_crown(i):
    """By construction, and the reason why CROWN is the first step of the ascent."""
    for k in chunk(i):
        close = slack(drawn()[k], torch.float64)
        for name in ("alpha last", "alpha all"):
            assert (bounded(k)[name] >= bounded(k)["crown"] - close).all(), (k, name)
        assert (bounded(k)["crown"] >= bounded(k)["interval"] - close).all(), k


@pytest.mark.parametrize("i", range(CHUNKS))
def test_single_precision_keeps_its_side(i):
    """In float32 every bound is below the attained margin, to float32's rounding."""
    for k in chunk(i):
        p = drawn()[k]
        single = replace(p, model=cast(p.model), x=p.x.float())
        close = slack(p, torch.float32)
        # the float32 image and radius may leave the box of float64 by one rounding,
        # which ``slack`` holds a thousand times
        _, attained = solved(k)
        for name, found in upper_side(single).items():
            assert found.dtype == torch.float32
            assert (found.double() <= attained + close).all(), (k, name)
        proven, _ = solved(k)
        for name, delta in tries(single).items():
            assert delta.dtype == torch.float32
            there = at(p, (single.x + delta).double()[None])[0]
            assert (there >= proven - SOLVER - close).all(), (k, name)


def cast(model: nn.Module) -> nn.Module:
    """A float32 copy of ``model``."""
    return deepcopy(model).float()


# -------------------------------------------------------------- the two exact methods


@pytest.mark.parametrize("i", range(CHUNKS))
def test_branch_and_bound_is_the_integer_program(i):
    """Same verdicts, counterexamples that are ones, same minimum to the tolerance."""
    for k in chunk(i):
        p = drawn()[k]
        proven, attained = solved(k)
        own = torch.nn.functional.one_hot(p.y, proven.shape[1]).bool()
        low = proven.masked_fill(own, math.inf).amin(1)
        high = attained.masked_fill(own, math.inf).amin(1)
        close = 20 * SOLVER * (1 + high.abs())
        lower, upper = p.corners
        for verify in (bb.branch_and_bound, exact.milp_robust):
            for n, said in enumerate(verify(*p, box=p.box)):
                assert said.bound <= high[n] + close[n], k
                if said.status == "attacked":
                    point = p.x[n] + said.delta
                    assert (lower[n] - 1e-12 <= point).all(), k
                    assert (point <= upper[n] + 1e-12).all(), k
                    there = at(p, point.expand(1, len(p.x), *point.shape))[0, n]
                    assert there.masked_fill(own[n], math.inf).min() <= 1e-12, k
                    assert low[n] <= close[n], k
                elif said.status == "certified":
                    assert high[n] > 0, k
                else:
                    assert high[n].abs() <= close[n], k
        if k % 2:  # the minimum itself costs more: every second network
            continue
        for n, found in enumerate(bb.minimal_margin(*p, box=p.box, tolerance=1e-4)):
            assert found.status == "optimal", k
            assert found.bound <= high[n] + close[n], k
            assert found.margin >= low[n] - close[n], k
            assert found.margin - found.bound <= 1e-4 + 1e-9, k


def vertices(model: nn.Sequential, lower: Tensor, upper: Tensor) -> Tensor:
    """The corners of all linear pieces of a one-hidden-layer network on a rectangle."""
    rows = torch.cat([model[1].weight, torch.eye(2).double().repeat(2, 1)])
    right = torch.cat([-model[1].bias, lower, upper])
    found = []
    for i, j in itertools.combinations(range(len(rows)), 2):
        pair = rows[[i, j]]
        if torch.linalg.det(pair).abs() > 1e-9:
            found.append(torch.linalg.solve(pair, right[[i, j]]))
    points = torch.stack(found)
    inside = (points >= lower - 1e-12) & (points <= upper + 1e-12)
    return points[inside.all(1)].clamp(lower, upper)


@pytest.mark.parametrize("seed", range(12))
def test_the_integer_program_is_brute_force(seed):
    """Two pixels, one hidden layer: the minimum over all vertices of all pieces."""
    model, eps, box = models.mlp((1, 1, 2), [6], 3), (0.1, 0.3)[seed % 2], seed % 3 > 0
    p = randomised(model, (1, 1, 2), eps, box, True, seed)
    for n in range(2):
        ends = [end[n].flatten() for end in p.corners]
        points = vertices(p.model, *ends).view(-1, 1, 1, 1, 2)
        one = replace(p, x=p.x[n : n + 1], y=p.y[n : n + 1])
        least = at(one, points).amin(0)[0]
        for j in set(range(3)) - {int(p.y[n])}:
            found = exact.milp_margin(*list(one)[:3], j, p.eps, box=p.box)
            assert found.bound == pytest.approx(float(least[j]), abs=1e-5)
            assert found.margin == pytest.approx(float(least[j]), abs=1e-5)


@pytest.mark.parametrize("nodes", [1, 10])
def test_a_stopped_solver_reports_what_it_has_proven(nodes, monkeypatch):
    """Stopped after a few nodes, so that the clock does not matter: the bound is below
    the minimum, which the same program reaches without a stop. What HiGHS leaves in the
    problem's value, the incumbent, is above it on some of these networks: reported as a
    bound it is false, which is tried, too."""
    ways = {"proven": integer_programs._bound, "value": lambda p, end: float(p.value)}
    run, over = integer_programs._run, {"proven": [], "value": []}

    def stop(problem: cp.Problem) -> str:
        with warnings.catch_warnings():  # an inaccurate solution, or none
            warnings.simplefilter("ignore", UserWarning)
            few = {"mip_max_nodes": nodes, "mip_heuristic_effort": 0.0}
            problem.solve(solver=cp.HIGHS, **few)
        return "limit"

    for seed in (1, 2, 4):
        model = models.seeded(models.mlp, (1, 3, 3), [12] * 3, 3, seed=seed).double()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(2)
        generator = torch.Generator().manual_seed(seed)
        x = torch.rand(1, 1, 3, 3, generator=generator).double()
        y = model(x).argmax(1)
        one = model, x, y, (int(y) + 1) % 3, 0.4
        monkeypatch.setattr(integer_programs, "_run", run)
        monkeypatch.setattr(integer_programs, "_bound", ways["proven"])
        least = exact.milp_margin(*one)
        assert least.status == "optimal"
        monkeypatch.setattr(integer_programs, "_run", stop)
        for name, way in ways.items():
            monkeypatch.setattr(integer_programs, "_bound", way)
            found = exact.milp_margin(*one)
            assert found.status == "time_limit"
            over[name].append(found.bound - least.margin)
    assert max(over["proven"]) <= SOLVER
    assert max(over["value"]) > 0.01


# ------------------------------------------------------------------- exact arithmetic


def certifiable(k: int) -> Problem | None:
    """Network ``k`` with a smaller ball, if it is a plain chain and CROWN certifies."""
    p = replace(drawn()[k], eps=drawn()[k].eps / 4, box=True)
    kinds = {type(layer) for layer in p.model}
    if not kinds <= {nn.Flatten, nn.Linear, nn.Conv2d, nn.ReLU}:
        return None
    return p if bounds.certified(bounds.crown_margins(*p), p.y)[0] else None


@functools.cache
def proofs() -> dict[int, tuple[Problem, certificates.Certificate, list[Fraction]]]:
    """Certificates of the first images, checked in exact arithmetic."""
    found = {}
    for k in range(NETWORKS):
        p = certifiable(k)
        if p is None:
            continue
        image, label = p.x[0], int(p.y[0])
        proposal = certificates.make_certificate(p.model, image, label, p.eps)
        try:
            checked = certificates.check_certificate(
                p.model, image, label, p.eps, proposal
            )
        except certificates.RejectedError:
            checked = []
        found[k] = p, proposal, checked
    return found


def test_certificates_agree_with_the_floats():
    """Proved margins are below every sampled one, and CROWN's but for the coarse grid.

    Intervals are rounded outward to 2^-16 by two steps: a margin loses at most a few
    of these, times ``magnitude``. Where CROWN's margin is above that, the proof holds.
    """
    assert len(proofs()) >= 50
    for k, (p, _, checked) in proofs().items():
        crown = bounds.crown_margins(*p)[0]
        loss = 8 * 2.0**-16 * magnitude(p.model, p.x.shape[1:])
        others = [j for j in range(len(crown)) if j != p.y[0]]
        if not checked:
            assert min(float(crown[j]) for j in others) <= loss, k
            continue
        lower, upper = p.corners
        generator = torch.Generator().manual_seed(k)
        share = torch.rand(POINTS, *p.x.shape, generator=generator).double()
        least = at(p, lower + (upper - lower) * share.round()).amin(0)[0]
        for j in others:
            assert checked[j] > 0
            assert float(checked[j]) <= float(least[j]) + slack(p, torch.float64), k
            assert float(checked[j]) >= float(crown[j]) - loss, k
        assert checked[int(p.y[0])] == 0
    assert sum(bool(checked) for _, _, checked in proofs().values()) >= 50


def tampered(
    certificate: certificates.Certificate, layer: int
) -> dict[str, certificates.Certificate]:
    """False certificates: one number each is changed."""
    lower, upper = certificate.lower, certificate.upper
    slopes, label = certificate.slopes, certificate.label

    def put(parts: tuple, value) -> tuple:
        return tuple(value if i == layer else part for i, part in enumerate(parts))

    def nudged(part, by: int):
        part = part.copy()
        part[0] += by
        return part

    def steep(part, value: int):
        part = part.copy()
        part[(label + 1) % len(part), 0] = value
        return part

    width = int(upper[layer][0] - lower[layer][0])
    less = max(width // 2, 8)
    return {
        "lower end raised": replace(
            certificate, lower=put(lower, nudged(lower[layer], less))
        ),
        "upper end cut": replace(
            certificate, upper=put(upper, nudged(upper[layer], -less))
        ),
        "slope above 1": replace(
            certificate, slopes=put(slopes, steep(slopes[layer], 300))
        ),
        "negative slope": replace(
            certificate, slopes=put(slopes, steep(slopes[layer], -1))
        ),
        "larger radius": replace(certificate, eps=certificate.eps * 1.01),
        "another label": replace(certificate, label=(label + 1) % len(slopes[layer])),
        "a layer missing": replace(certificate, lower=lower[:-1]),
        "no question": replace(certificate, question=""),
    }


def rejected(*claim) -> bool:
    """Whether the check refuses the certificate."""
    try:
        certificates.check_certificate(*claim)
    except certificates.RejectedError:
        return True
    return False


def test_tampered_certificates_are_rejected():
    """A cut interval in the first layer is false, for its ends are attained there;
    slopes outside [0, 1], another eps, label or question are refused at once."""
    seen = 0
    for p, proposal, checked in proofs().values():
        if not checked:
            continue
        image, label = p.x[0], int(p.y[0])
        for name, false in tampered(proposal, 0).items():
            assert rejected(p.model, image, label, p.eps, false), name
        seen += 1
    assert seen >= 50


def test_a_certificate_does_not_pass_for_another_question():
    """One weight moved by one unit in the last place, another image, another radius."""
    p, proposal, _ = next(v for v in proofs().values() if v[2])
    image, label = p.x[0], int(p.y[0])
    certificates.check_certificate(p.model, image, label, p.eps, proposal)
    other = cast(p.model).double()
    layer = next(m for m in other.modules() if isinstance(m, (nn.Linear, nn.Conv2d)))
    layer.weight.data.view(-1)[0] = math.nextafter(float(layer.weight.view(-1)[0]), 9)
    for question in (
        (other, image, label, p.eps),
        (p.model, 1 - image, label, p.eps),
        (p.model, image, label, math.nextafter(p.eps, 1)),
    ):
        assert rejected(*question, proposal)


# --------------------------------------------------- the networks say something at all


def test_the_networks_are_worth_the_trouble():
    """At least 60 % have unstable units before every ReLU, and exact < CROWN strictly.

    And of every kind there are many: convolutions, sums, no box, several depths.
    """
    assert len(drawn()) == NETWORKS
    good = 0
    for k in range(NETWORKS):
        some = [((low < 0) & (up > 0)).flatten(1).any(1) for low, up in pre(k, "crown")]
        gap = (solved(k)[0] - bounded(k)["crown"]).amax(1) > 1e-4
        good += bool((torch.stack(some).all(0) & gap).any())
    assert good >= 0.6 * NETWORKS
    parts = [[type(m) for m in p.model.modules()] for p in drawn()]
    for kind, least in [
        (nn.Conv2d, 60),
        (models.Residual, 25),
        (nn.BatchNorm2d, 25),
        (nn.AvgPool2d, 15),
    ]:
        assert sum(kind in part for part in parts) >= least, kind
    assert sum(part.count(nn.ReLU) >= 3 for part in parts) >= 30
    assert sum(not p.box for p in drawn()) >= 40
    fates = torch.cat(
        [solved(k)[1].amin(1) < 0 for k in range(NETWORKS)]
    )  # column y is 0, so "below" means misclassified somewhere
    assert 0.15 <= float(fates.double().mean()) <= 0.9
