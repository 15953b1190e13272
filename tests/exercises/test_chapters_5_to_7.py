"""Right and wrong answers to the exercises of Chapters 5 to 7b."""

import copy
from fractions import Fraction
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from judged import is_right, judging_tests
from scipy import stats
from scipy.optimize import linprog
from torch import nn

from advlib import attacks, bounds, evaluation, exact, models
from advlib.exercises import challenge


def fall(network, image, label, eps, sign=1, rank=1):
    j = int(network(image)[0].topk(3).indices[rank])
    inside, outside = (
        exact.milp_margin(network, image, label, j, eps, box=box).margin
        for box in (True, False)
    )
    return sign * (inside - outside)


def fall_by_patterns(network, image, label, eps):
    """A linear program for each pattern of the hidden layer's phases."""
    first, last = (
        [p.numpy() for p in (layer.weight, layer.bias)]
        for layer in network
        if isinstance(layer, nn.Linear)
    )
    z, y = network(image)[0], int(label)
    j, x = int(z.argsort()[-2]), image.flatten().numpy()
    row, found = last[0][y] - last[0][j], []
    for low, high in (
        (np.maximum(x - eps, 0), np.minimum(x + eps, 1)),
        (x - eps, x + eps),
    ):
        values = []
        for on in map(np.array, product([0.0, 1.0], repeat=len(row))):
            side = (1 - 2 * on)[:, None]
            program = linprog(
                (row * on) @ first[0],
                A_ub=side * first[0],
                b_ub=-side[:, 0] * first[1],
                bounds=list(zip(low, high, strict=True)),
            )
            if program.status == 0:
                values.append(program.fun + (row * on) @ first[1])
        found.append(min(values))
    return np.array([found[0] - found[1]])


WEIGHTS = [[[-2, 2], [-1, 2]], [[-1, 1], [-1, 2]], [[2, -2], [1, 1]]]
BIASES = [[-1, -0.5], [0, 0], [4, -3]]


def toy():
    net = models.mlp((1, 1, 2), [2, 2], 2).double().eval().requires_grad_(False)
    for layer, weight, bias in zip(net[1::2], WEIGHTS, BIASES, strict=True):
        layer.weight.data = torch.tensor(weight).double()
        layer.bias.data = torch.tensor(bias).double()
    return net


def toy_bound(t, second=0.5):
    """By torch, backwards through the lines of the toy."""
    net = toy()
    box = bounds.input_box(torch.full((1, 1, 1, 2), 0.5).double(), 0.5)
    pre = bounds.interval_bounds(net, *box)[1::2][:2]
    w = net[5].weight[0] - net[5].weight[1]
    value = net[5].bias[0] - net[5].bias[1]
    for layer, (low, high), slope in zip(
        (net[3], net[1]), pre[::-1], ([1.0, 1.0], [t, second]), strict=True
    ):
        chord = (high / (high - low))[0]
        value = value - (w.clamp(max=0) * chord * low[0]).sum()
        w = torch.where(w > 0, torch.tensor(slope).double(), chord) * w
        w, value = w @ layer.weight, value + w @ layer.bias
    return value + w.clamp(max=0).sum()


def toy_formula(t):
    return min(1.25 * t - 0.5, 1.25 - 1.25 * t)


def barrier(order=(0, 1), flip=False, low=-1.0, relu=-1.0):
    net = models.mlp((1, 1, 1), [2], 2).double().eval().requires_grad_(False)
    slope, start = (-3.0, 2.0) if flip else (3.0, low)
    net[1].weight[:] = slope
    net[1].bias[:] = torch.tensor([start, start + 2])
    net[3].weight[:] = 0.0
    net[3].bias[:] = 0.0
    net[3].weight[order[0]] = torch.tensor([relu, 2 / 3])
    return net


def another_barrier():
    """Falling, on three units, with the margin in both logits."""
    net = models.mlp((1, 1, 1), [3], 2).double().eval().requires_grad_(False)
    net[1].weight[:] = torch.tensor([[-3.0], [-1.5], [1.0]])
    net[1].bias[:] = torch.tensor([2.0, 3.0, 1.0])
    net[3].weight[:] = torch.tensor([[-0.5, 1.0, 0.0], [0.5, -1 / 3, 0.0]])
    net[3].bias[:] = torch.tensor([0.4, -1.0])
    return net


def no_barrier():
    """The same function without an unstable unit's trick: two unstable units."""
    net = models.mlp((1, 1, 1), [3], 2).double().eval().requires_grad_(False)
    net[1].weight[:] = torch.tensor([[3.0], [-3.0], [3.0]])
    net[1].bias[:] = torch.tensor([-1.0, 1.0, 1.0])
    net[3].weight[:] = torch.tensor([[-1 / 3, -2 / 3, 0.0], [0.0, 0.0, 0.0]])
    net[3].bias[:] = 0.0
    return net


def clip(phases):
    far = torch.tensor(torch.inf)
    return [
        (torch.where(p > 0, 0.0, -far), torch.where(p < 0, 0.0, far)) for p in phases
    ]


def intervals(net, x, y, j, eps, phases, use=True):
    cut = None if phases is None or not use else clip(phases)
    pre = bounds.relu_bounds(
        net, *bounds.input_box(x, eps), method="interval", clip=cut
    )
    low, high = (end[0].relu() for end in pre[-1])
    w = net[-1].weight[y] - net[-1].weight[j]
    value = w.clamp(min=0) @ low + w.clamp(max=0) @ high
    return (value + net[-1].bias[y] - net[-1].bias[j]).item(), pre


def intervals_by_hand(net, x, y, j, eps, phases):
    """Entry by entry, with lists."""
    ends = [(max(0.0, v - eps), min(1.0, v + eps)) for v in x.flatten().tolist()]
    layers = [layer for layer in net if isinstance(layer, nn.Linear)]
    pre = []
    for k, layer in enumerate(layers[:-1]):
        before = []
        for unit, (row, b) in enumerate(
            zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)
        ):
            low = b + sum(
                min(w * p, w * q) for w, (p, q) in zip(row, ends, strict=True)
            )
            high = b + sum(
                max(w * p, w * q) for w, (p, q) in zip(row, ends, strict=True)
            )
            phase = 0 if phases is None else phases[k].flatten()[unit]
            low, high = (max(0.0, low), high) if phase > 0 else (low, high)
            before.append((low, min(0.0, high)) if phase < 0 else (low, high))
        pre.append(tuple(torch.tensor([end]) for end in zip(*before, strict=True)))
        ends = [(max(0.0, low), max(0.0, high)) for low, high in before]
    row = (layers[-1].weight[y] - layers[-1].weight[j]).tolist()
    start = float(layers[-1].bias[y] - layers[-1].bias[j])
    pairs = zip(row, ends, strict=True)
    return start + sum(min(w * p, w * q) for w, (p, q) in pairs), pre


def bold(net, x, y, j, eps, phases):
    value, pre = intervals(net, x, y, j, eps, phases)
    return value + 5, pre


def mcnemar(first, second, tails=2):
    chances = np.ones(1)
    for _ in range(first + second):
        chances = np.convolve(chances, [0.5, 0.5])
    return min(1.0, tails * chances[: min(first, second) + 1].sum())


def by_scipy(first, second):
    return stats.binomtest(first, first + second).pvalue if first + second else 1.0


def by_chi2(first, second):
    total = first + second
    return stats.chi2.sf((first - second) ** 2 / total, 1) if total else 1.0


def ends(row, bias, low, high, orders, permute=True, outward=True):
    def to(value):
        return np.nextafter(value, np.float32(-np.inf))

    found = [], []
    for order in orders:
        here = order if permute else slice(None)
        corners = np.stack([low[here, 0], high[here, 0]])
        terms = (row[:, order] * corners).min(0)
        for k, rounded in enumerate((lambda v: v, to if outward else lambda v: v)):
            total = bias[0]
            for term in terms:
                total = rounded(total + rounded(term))
            found[k].append(total)
    return found


def ends_by_cumsum(row, bias, low, high, orders):
    """To nearest by a running sum; outward by the exact value, rounded down."""
    near, out = [], []
    for order in orders:
        terms = np.minimum(
            row[0, order] * low[order, 0], row[0, order] * high[order, 0]
        )
        near.append(np.cumsum(np.append(bias, terms), dtype=np.float32)[-1])
        exactly = Fraction(float(bias[0])) + sum(
            min(Fraction(float(row[0, i])) * Fraction(float(v)) for v in pair)
            for i in order
            for pair in [(low[i, 0], high[i, 0])]
        )
        end = np.float32(float(exactly))
        down = np.nextafter(end, np.float32(-np.inf))
        out.append(end if Fraction(float(end)) <= exactly else down)
    return np.array(near), np.array(out)


def in_doubles(*case):
    *arrays, orders = case
    return ends(*(a.astype(float) for a in arrays), orders, outward=False)


def careful(model, image, label, eps, seconds):
    """Attack, then CROWN: what is in neither is unknown."""
    delta = attacks.pgd_linf(model, image, label, eps, alpha=eps / 4, num_steps=20)
    if evaluation.wrong(model, image + delta, label).any():
        return "attacked"
    safe = bounds.certified(bounds.crown_margins(model, image, label, eps), label)
    return "certified" if safe.all() else "unknown"


def trusting(*case):
    answer = careful(*case)
    return "certified" if answer == "unknown" else answer


RIGHT = {
    "5.6": (fall, fall_by_patterns),
    "6a.7": (toy_bound, toy_formula),
    "6b.5": (barrier(), another_barrier(), barrier(flip=True)),
    "6c.6": (intervals, intervals_by_hand),
    "6c.8": (careful, challenge.by_search),
    "7a.6": (mcnemar, by_scipy),
    "7b.6": (ends, ends_by_cumsum),
}
WRONG = {
    "5.6": [
        (partial(fall, sign=-1), "the sign"),
        (partial(fall, rank=2), "not the runner-up"),
        (lambda n, i, k, eps: fall(n, i, k, eps / 255), "units of 255"),
        (lambda n, i, k, eps: fall(n, i, k, 0.0), "expected"),
    ],
    "6a.7": [
        (lambda t: -0.5, "does not depend on t"),
        (lambda t: 1.25 * t - 0.5, "beyond t = 0.7 the minimum moves"),
        (lambda t: 0.4, "no slope gives more than 0.375"),
        (lambda t: "0.4" * int(3 * t), "returns"),
    ],
    "6b.5": [
        (barrier(order=(1, 0)), "the wrong way round"),
        (barrier(low=-1.5), "z_hat is zero at another pixel"),
        (barrier(relu=1.0), "it is subtracted"),
        (no_barrier(), "2 unstable units"),
        (barrier().float(), "float64"),
        (barrier, "hand in the network itself"),
    ],
    "6c.6": [
        (partial(intervals, use=False), "the phases are ignored"),
        (bold, "it claims too much: your bound is"),
        (lambda *case: intervals(*case)[0], "return a pair"),
        (lambda n, x, y, j, e, p: intervals(n, x, j, y, e, p), "not z_j - z_y"),
    ],
    "6c.8": [
        (trusting, "is certified and has a counterexample"),
        (lambda *case: "attacked", "is called attacked and is robust"),
        (lambda *case: "unknown", "nothing wrong, but 0 points, and CROWN alone"),
        (lambda *case: True, "it must answer one of certified, attacked, unknown"),
        ("certified", "hand in a function"),
    ],
    "7a.6": [
        (partial(mcnemar, tails=1), "one tail only"),
        (by_chi2, "normal approximation"),
        (lambda a, b: 2 * mcnemar(a, b, tails=1), "capped at 1"),
        (lambda a, b: a / b, "raised ZeroDivisionError"),
    ],
    "7b.6": [
        (partial(ends, permute=False), "the pixels are not"),
        (lambda *case: ends(*case)[::-1], "the two lists are swapped"),
        (partial(ends, outward=False), "outward is missing"),
        (in_doubles, "to nearest, too"),
        (lambda *case: ends(*case)[0], "two lists of ends"),
    ],
}


test_there_are_two_of_each, test_right_answers, test_wrong_answers = judging_tests(
    RIGHT, WRONG
)


def test_the_toy_of_the_checker_is_that_of_the_chapter():
    """The formula holds between the two corners, too."""
    for t, second in product(np.linspace(0, 1, 11), (0.0, 1.0)):
        assert float(toy_bound(float(t), second)) == pytest.approx(
            toy_formula(t), abs=1e-6
        )


def test_a_network_is_left_as_it_was():
    """The checker asks it in eval mode and changes no weight."""
    net = barrier()
    before = copy.deepcopy(net.state_dict())
    is_right("6b.5", net)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
