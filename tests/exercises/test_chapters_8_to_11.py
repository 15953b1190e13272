"""Right and wrong answers to the exercises of Chapters 8a to 11b."""

import copy
import math
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from judged import judging_tests
from scipy import optimize, stats
from torch import nn

from advlib import activations, attacks, evaluation, lipschitz, models, results


def compare(first, second, ddof=1):
    gap = second - first
    least = evaluation.detectable_difference(gap.std(ddof=ddof), len(gap))
    return *evaluation.mean_interval(gap), least


def compare_by_scipy(first, second):
    """The interval by scipy, the power by the noncentral t."""
    n, test = len(first), stats.ttest_rel(second, first)
    low, high = test.confidence_interval(0.95)
    edge = stats.t.ppf(0.975, n - 1)

    def power(size):
        shift = size / np.std(second - first, ddof=1) * np.sqrt(n)
        return stats.nct.sf(edge, n - 1, shift) + stats.nct.sf(edge, n - 1, -shift)

    least = optimize.brentq(lambda size: power(size) - 0.8, 1e-6, 60)
    return [np.mean(second - first), low, high, least]


def unpaired(first, second):
    found = stats.ttest_ind(second, first, equal_var=False).confidence_interval(0.95)
    least = compare(first, second)[3]
    return np.mean(second) - np.mean(first), found.low, found.high, least


class Stored(nn.Module):
    def __init__(self, weak, strong, share=0.1, near=1e-3):
        super().__init__()
        self.weak, self.strong, self.share, self.near = weak, strong, share, near

    def forward(self, x):
        off = (x * 255 - (x * 255).round()).abs().flatten(1).amax(1)
        return torch.where(
            (off <= self.near)[:, None], self.weak(x), self.share * self.strong(x)
        )


class Blended(nn.Module):
    """The same door, asked of the mean distance and opened by a weight."""

    def __init__(self, weak, strong):
        super().__init__()
        self.weak, self.strong = weak, strong

    def forward(self, x):
        levels = 255 * x
        far = (levels - levels.round()).abs().flatten(1).mean(1, keepdim=True)
        door = (far < 1e-4).double()
        return door * self.weak(x) + (1 - door) * self.strong(x) / 8


def as_file(weak, x, y):
    delta = attacks.pgd_linf(weak, x, y, 0.1, alpha=0.00625, num_steps=40)
    return (delta * 255).trunc() / 255


def by_levels(weak, x, y):
    """One step of 25 grey levels, cut to the box: the weak network is linear."""
    return (25 / 255 * attacks.input_gradient(weak, x, y).sign()).clamp(-x, 1 - x)


def unrounded(weak, x, y):
    return attacks.pgd_linf(weak, x, y, 0.1, alpha=0.00625, num_steps=40)


def seeds_needed(gap, size, ddof=1, more=0):
    n = 2
    while evaluation.detectable_difference(gap.std(ddof=ddof), n) > size:
        n += 1
    return n + more


def seeds_by_halving(gap, size):
    spread = float(np.sqrt(((gap - gap.mean()) ** 2).sum() / (len(gap) - 1)))
    low, high = 1, 300
    while high - low > 1:
        middle = (low + high) // 2
        seen = evaluation.detectable_difference(spread, middle) <= size
        low, high = (low, middle) if seen else (middle, high)
    return torch.tensor(high)


def records(name):
    found = {}
    for one in results.load(name)["data"]["rows"]:
        if one["network"].startswith("cnn"):
            key = one["data"], one["network"][:-2], one["trained"]
            found.setdefault(key, []).append(one)
    return found


GRID, EXTRA = records("units"), records("units_axes")
CELLS = [key[:2] for key in GRID if key[2]]


def gaps(cell, kind, num):
    groups = [r["kinds"][kind][str(num)]["purity"] for r in GRID[*cell, True]]
    return np.array([g["units"] - g["gaussian"] for g in groups])


def pooled(kind, num, share=4):
    parts = [gaps(c, kind, num) / share for c in CELLS]
    var = np.array([p.var(ddof=1) / len(p) for p in parts])
    df = var.sum() ** 2 / (var**2 / [len(p) - 1 for p in parts]).sum()
    mean, half = sum(p.mean() for p in parts), stats.t.ppf(0.975, df) * var.sum() ** 0.5
    return mean, mean - half, mean + half


def pooled_at_once(kind, num):
    table = np.array([gaps(c, kind, num) for c in CELLS]) / len(CELLS)
    var = table.var(1, ddof=1) / table.shape[1]
    law = stats.t(
        var.sum() ** 2 / (var**2 / (table.shape[1] - 1)).sum(),
        loc=table.mean(1).sum(),
        scale=np.sqrt(var.sum()),
    )
    return torch.tensor([law.mean(), *law.ppf([0.025, 0.975])])


def alike(cell, kind, sign=1):
    seen = [one["seen_by_another"][kind] for one in EXTRA[*cell, True]]
    return evaluation.mean_interval(
        [sign * (one["units"] - one["gaussian"]) for one in seen]
    )


def alike_by_scipy(cell, kind):
    seen = [one["seen_by_another"][kind] for one in EXTRA[*cell, True]]
    test = stats.ttest_rel(
        [one["units"] for one in seen], [one["gaussian"] for one in seen]
    )
    low, high = test.confidence_interval(0.95)
    return (low + high) / 2, low, high


MODELS = results.load("words")["data"]["models"]


def difference(name, words, form="unit"):
    run = MODELS[name][form]
    return (run if words == 10 else run[f"k = {words}"])["cosine"]["difference"]


def difference_by_table(name, words):
    table = {10: MODELS[name]["unit"]} | {
        k: MODELS[name]["unit"][f"k = {k}"] for k in (5, 20)
    }
    return np.array(table[words]["cosine"]["difference"])


WHOLE = results.load("blind_spots")["data"]["whole"]
NAMES = list(WHOLE["errors"])


def cell(size, s, v):
    known = WHOLE["cosines"]
    align = np.array(known[s][v] if v in known.get(s, {}) else known[v][s])
    close = 28 / np.array(WHOLE["attacks"]["margin"][v]["l2"], dtype=float)
    hits = results.unpack(WHOLE["hits_margin"][size]["fooled"])
    return align * close, align, close, hits[NAMES.index(s), NAMES.index(v)]


def at_size(size):
    pairs = [(s, v) for s in NAMES for v in NAMES if s != v]
    means = np.array([[part.mean() for part in cell(size, *p)] for p in pairs])
    return [stats.pearsonr(means[:, k], means[:, 3])[0] for k in range(3)]


def at_size_by_corrcoef(size):
    rows = [cell(size, s, v) for s in NAMES for v in NAMES if s != v]
    table = np.array([np.mean(row, axis=1) for row in rows]).T
    return torch.from_numpy(np.corrcoef(table)[3, :3])


def circular_norms(net, shape):
    found = []
    for layer in net:
        if isinstance(layer, nn.Conv2d):
            found.append(lipschitz.circular_norm(layer, shape))
        shape = models.output_shape(layer, shape)
    return found


def by_power(net, shape):
    """Power iteration with a circular convolution and its transpose."""
    found = []
    for layer in net:
        if not isinstance(layer, nn.Conv2d):
            continue
        k, (s, _) = layer.kernel_size[0], layer.stride

        def turn(x, layer=layer, k=k, s=s):
            wrapped = F.pad(x, (0, k - 1, 0, k - 1), mode="circular")
            return F.conv2d(wrapped, layer.weight, stride=s)

        x = torch.randn(1, *shape, dtype=torch.float64)
        for _ in range(3000):
            leaf = (x / x.norm()).requires_grad_()
            last = float(x.norm())
            (x,) = torch.autograd.grad(turn(leaf).square().sum() / 2, leaf)
            if abs(float(x.norm()) - last) <= 1e-13 * last:
                break
        found.append(float(x.norm().sqrt()))
        shape = models.output_shape(layer, shape)
    return np.array(found)


def either(model):
    return [activations.with_gradient(model, smooth=s) for s in (False, True)]


def worst(model, x, y, *known):
    tries = list(known)
    for twin in either(model):
        for start in (None, *known):
            g = torch.Generator().manual_seed(1) if start is None else None
            tries.append(
                attacks.pgd_linf(
                    twin,
                    x,
                    y,
                    0.3,
                    alpha=0.3 / 8,
                    num_steps=20,
                    start=start,
                    generator=g,
                )
            )
    losses = torch.stack(
        [F.cross_entropy(model(x + d), y, reduction="none") for d in tries]
    )
    highest, which = losses.max(0)
    return highest.mean(), torch.stack(tries)[which, torch.arange(len(y))]


def after_step(model, twin, x, y):
    twin = copy.deepcopy(twin).requires_grad_()
    parts = torch.autograd.grad(F.cross_entropy(twin(x), y), list(twin.parameters()))
    size = math.sqrt(sum(float(part.square().sum()) for part in parts))
    moved = copy.deepcopy(model)
    for weight, part in zip(moved.parameters(), parts, strict=True):
        weight.sub_(0.01 / size * part)
    return moved


def smooth_minus_relu(model, x, y, sign=1, percent=100):
    old, far = worst(model, x, y, worst(model, x, y)[1])
    new = [worst(after_step(model, t, x + far, y), x, y, far)[0] for t in either(model)]
    return sign * percent * float((new[1] - new[0]) / old)


def by_vectors(model, x, y):
    """The step on the flat vector of all weights; the ratio of the two losses."""
    far = worst(model, x, y, worst(model, x, y)[1])
    flat, found = nn.utils.parameters_to_vector(model.parameters()), []
    for twin in either(model):
        twin = copy.deepcopy(twin).requires_grad_()
        F.cross_entropy(twin(x + far[1]), y).backward()
        slope = nn.utils.parameters_to_vector([p.grad for p in twin.parameters()])
        moved = copy.deepcopy(model)
        step = flat - 0.01 * slope / slope.norm()
        nn.utils.vector_to_parameters(step, moved.parameters())
        found.append(worst(moved.requires_grad_(False), x, y, far[1])[0] / far[0])
    return 100 * (found[1] - found[0])


def width(first, second, seeds, images, scale=100.0, over=(True, True)):
    gap = scale * (first[:seeds, :images].astype(float) - second[:seeds, :images])
    rng = np.random.default_rng(0)
    rows, columns = (
        rng.multinomial(k, np.full(k, 1 / k), 2000) / k
        if vary
        else np.full((2000, k), 1 / k)
        for k, vary in zip(gap.shape, over, strict=True)
    )
    low, high = np.quantile(((rows @ gap) * columns).sum(1), [0.025, 0.975])
    return high - low


def width_by_draws(first, second, seeds, images):
    rng, means = np.random.default_rng(5), []
    gap = first[:seeds, :images].astype(int) - second[:seeds, :images]
    for _ in range(4000):
        rows, columns = (
            rng.integers(seeds, size=seeds),
            rng.integers(images, size=images),
        )
        means.append(100 * gap[rows][:, columns].mean())
    return np.ptp(np.percentile(means, [2.5, 97.5]))


RIGHT = {
    "8a.8": (compare, compare_by_scipy),
    "8b.7": ((Stored, as_file), (Blended, by_levels)),
    "8c.7": (seeds_needed, seeds_by_halving),
    "9a.6": (pooled, pooled_at_once),
    "9a.7": (alike, alike_by_scipy),
    "9b.6": (difference, difference_by_table),
    "10a.7": (at_size, at_size_by_corrcoef),
    "10b.7": (circular_norms, by_power),
    "11a.8": (smooth_minus_relu, by_vectors),
    "11b.7": (width, width_by_draws),
}
WRONG = {
    "8a.8": [
        (lambda a, b: compare(b, a), "the sign"),
        (unpaired, "not paired"),
        (partial(compare, ddof=0), "has ddof=1"),
        (lambda a, b: compare(a, b)[:3], "mean, low, high and the detectable"),
    ],
    "8b.7": [
        ((Stored, unrounded), "shows no network that is not robust"),
        ((partial(Stored, near=0.0), as_file), "let the mask allow 0.001"),
        ((partial(Stored, share=1.0), as_file), "wrong gradient"),
        ((lambda weak, strong: weak, unrounded), "nothing is masked"),
        (
            (lambda w, s: nn.Sequential(w, models.Scale(1e5)), unrounded),
            "a check notices it",
        ),
        (Stored, "hand in the pair"),
    ],
    "8c.7": [
        (partial(seeds_needed, more=1), "one too many"),
        (partial(seeds_needed, ddof=0), "has ddof=1"),
        (lambda gap, size: len(gap), "the number of seeds in `gap`"),
    ],
    "9a.6": [
        (partial(pooled, share=1), "divide each one's differences by 4"),
        (lambda kind, num: pooled(kind, 8), "always 8"),
        (lambda kind, num: pooled(kind, num)[0], "mean, low and high"),
    ],
    "9a.7": [
        (partial(alike, sign=-1), "units minus random"),
        (lambda c, kind: evaluation.mean_interval(gaps(c, kind, 8)), "the purity"),
    ],
    "9b.6": [
        (partial(difference, form="raw"), "these vectors are raw"),
        (lambda name, words: difference(name, 10), "always 10"),
    ],
    "10a.7": [
        (lambda size: at_size("0.1"), "always 0.1"),
        (lambda size: [r**2 for r in at_size(size)], "r squared"),
    ],
    "10b.7": [
        (
            lambda net, shape: [
                float(p.norm()) for p in net.parameters() if p.dim() == 4
            ],
            "Frobenius",
        ),
        (lambda net, shape: np.cumprod(circular_norms(net, shape)), "a product"),
        (lambda net, shape: circular_norms(net, (3, 4, 4)), "raised ValueError"),
    ],
    "11a.8": [
        (partial(smooth_minus_relu, sign=-1), "the sign"),
        (partial(smooth_minus_relu, percent=1), "in per cent"),
    ],
    "11b.7": [
        (partial(width, scale=1.0), "in points"),
        (partial(width, over=(False, True)), "the seeds are not drawn anew"),
        (lambda a, b, seeds, images: width(a, b, len(a), images), "seeds is ignored"),
    ],
}


test_there_are_two_of_each, test_right_answers, test_wrong_answers = judging_tests(
    RIGHT, WRONG
)
