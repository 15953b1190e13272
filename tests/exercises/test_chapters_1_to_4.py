"""Right and wrong answers to the exercises of Chapters 1 to 4b."""

from functools import partial
from itertools import combinations, product

import numpy as np
import torch
import torch.nn.functional as F
from judged import judging_tests
from scipy.optimize import linprog, minimize
from torch import nn

from advlib import attacks, bounds, exact, linear


def pgd(model, x, y, eps, up=1, box=True, signed=True):
    delta = torch.zeros_like(x)
    for _ in range(40):
        moved = (x + delta).requires_grad_()
        loss = F.cross_entropy(model(moved), y, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, moved)
        step = gradient.sign() if signed else gradient
        delta = (delta + up * 0.01 * step).clamp(-eps, eps)
        delta = delta.clamp(-x, 1 - x) if box else delta
    return delta


def pgd_one_by_one(model, x, y, eps):
    """In the coordinates of the image, image by image, with backward."""
    found = []
    for image, label in zip(x, y, strict=True):
        low, high = (image - eps).clamp(min=0), (image + eps).clamp(max=1)
        now = image.clone()
        for _ in range(40):
            leaf = now[None].clone().requires_grad_()
            F.cross_entropy(model(leaf), label[None]).backward()
            now = torch.min(torch.max(now + 0.01 * leaf.grad[0].sign(), low), high)
        found.append(now - image)
    return torch.stack(found).numpy()


def crossing(model, image, label, step=1e-3, end="high", box=True):
    def fools(eps):
        delta = attacks.fgsm(model, image, label, eps, box=box)
        return bool(model(image + delta).argmax(1) != label)

    low, high = 0.0, 1.0
    while high - low > step:
        middle = (low + high) / 2
        low, high = (low, middle) if fools(middle) else (middle, high)
    return high if end == "high" else low


def first_on_a_grid(model, image, label):
    gradient = attacks.input_gradient(model, image, label).sign()
    for eps in np.arange(0, 1, 5e-4):
        if model((image + eps * gradient).clamp(0, 1)).argmax(1) != label:
            return torch.tensor(eps)
    return 1.0


def fill(w, x, eps, signed=-1):
    room = np.where(w > 0, x, 1 - x)
    delta = np.zeros_like(x)
    for i in np.argsort(-np.abs(w)):
        step = min(room[i], eps)
        delta[i], eps = signed * np.sign(w[i]) * step, eps - step
    return delta


def by_program(w, x, eps):
    """Split into what goes up and what goes down."""
    d = len(x)
    ends = [(0, u) for u in 1 - x] + [(0, u) for u in x]
    found = linprog(np.r_[w, -w], A_ub=np.ones((1, 2 * d)), b_ub=[eps], bounds=ends)
    return found.x[:d] - found.x[d:]


def by_tensors(w, x, eps):
    return linear.worst_delta(w, x, eps, norm="l2")


def by_descent(w, x, eps):
    """A solver that knows nothing of multipliers."""
    ball = {"type": "ineq", "fun": lambda d: eps**2 - d @ d, "jac": lambda d: -2 * d}
    found = minimize(
        lambda d: w @ d,
        np.zeros_like(x),
        jac=lambda d: w,
        bounds=list(zip(-x, 1 - x, strict=True)),
        constraints=[ball],
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    delta = found.x.clip(-x, 1 - x)
    return delta * min(1, eps / max(np.linalg.norm(delta), 1e-12))


def clipped_ray(w, x, eps):
    return (-eps * w / np.linalg.norm(w)).clip(-x, 1 - x)


def rivals_by_turns(weight, bias, image, y, eps, share=None):
    def two(a, b):
        turns = (-a / b)[(-a / b) > 0].sort().values
        ends = torch.cat([turns.new_zeros(1), turns, 1 + 2 * turns[-1:]])
        ratios = (ends[1:] + ends[:-1]) / 2 if len(turns) else ends + 1
        signs = (a + ratios[:, None] * b).sign()
        x = image.flatten()
        moved = x + (eps * signs).clamp(-x, 1 - x)
        return moved @ a, moved @ b

    others = [j for j in range(len(weight)) if j != y]
    total = 0.0
    for j, k in combinations(others, 2):
        p, q = two(weight[j] - weight[y], weight[k] - weight[y])
        p, q = p + bias[j] - bias[y], q + bias[k] - bias[y]
        total += (p.exp() + q.exp()).max()
    return torch.log(1 + total / (share or len(others) - 1))


def rivals_at_corners(weight, bias, image, y, eps):
    """All corners of the box at once."""
    x = image.flatten()
    sides = torch.stack([(x - eps).clamp(min=0), (x + eps).clamp(max=1)], 1)
    corners = torch.tensor(list(product(*sides.tolist())), dtype=x.dtype)
    z = corners @ weight.T + bias
    lead = (z - z[:, y : y + 1]).exp()
    pairs = lead[:, :, None] + lead[:, None]
    kept = [j for j in range(len(weight)) if j != y]
    most = pairs.amax(0)[kept][:, kept]
    return float(
        torch.log1p((most.sum() - most.diagonal().sum()) / 2 / (len(kept) - 1))
    )


def one_corner_each(weight, bias, image, y, eps):
    x = image.flatten()
    w = weight - weight[y]
    moved = torch.where(w > 0, (x + eps).clamp(max=1), (x - eps).clamp(min=0))
    lead = (w * moved).sum(1) + bias - bias[y]
    return torch.logsumexp(lead, 0)


def by_slopes(net, point, label, eps, shrink=1.0):
    w1, b1, w2, _ = (p.detach() for p in net.parameters())
    low, high = (point - eps).clamp(min=0), (point + eps).clamp(max=1)
    middle, radius = w1 @ (low + high) / 2 + b1, w1.abs() @ (high - low) / 2
    on, off = middle >= radius, middle <= -radius
    pulls = (w2[label] - w2[1 - label])[:, None] * w1
    open_, fixed = pulls[~on & ~off], pulls[on].sum(0)
    most = torch.maximum(
        (fixed + open_.clamp(min=0).sum(0)).abs(),
        (fixed + open_.clamp(max=0).sum(0)).abs(),
    )
    z = net(point[None])[0]
    return z[label] - z[1 - label] - shrink * eps * most.sum()


def exactly(net, point, label, eps):
    """No bound is better than the minimum."""
    image = point.view(1, 1, 1, 2)
    found = exact.milp_margin(net, image, torch.tensor([label]), 1 - label, eps)
    return found.bound


def by_intervals(net, point, label, eps):
    image = point.view(1, 1, 1, 2)
    found = bounds.interval_margins(net, image, torch.tensor([label]), eps)
    return found[0, 1 - label]


def local_slope(net, point, label, eps):
    leaf = point[None].clone().requires_grad_()
    z = net(leaf)[0]
    value = z[label] - z[1 - label]
    return value - eps * torch.autograd.grad(value, leaf)[0].abs().sum()


def l1(model, x, y, share, eps=10.0, **more):
    steps = {"alpha": 1.0, "num_steps": 20} | more
    return attacks.pgd_l1(model, x, y, eps, share=share, **steps)


def l1_by_steps(model, x, y, share):
    """Its own loop of steps and projections."""
    delta = torch.zeros_like(x)
    for _ in range(20):
        gradient = attacks.input_gradient(model, x + delta, y)
        stuck = (delta >= 1 - x) & (gradient > 0) | (delta <= -x) & (gradient < 0)
        free = gradient.masked_fill(stuck, 0)
        move = attacks.steepest_direction(free, "l1", share=share)
        delta = attacks.project(delta + move, 10.0, "l1", lower=-x, upper=1 - x)
    return delta


class Binary(nn.Module):
    def forward(self, x):
        return (x - 0.5).sign().clamp(min=0)


class Through(Binary):
    def forward(self, x):
        return x + (super().forward(x) - x).detach()


def behind(network, x, y, layer=Through, sign=1):
    model = nn.Sequential(layer(), network).eval()
    delta = attacks.pgd_linf(model, x, y, 0.3, alpha=0.03, num_steps=40)
    return sign * delta


def by_steep_sigmoid(network, x, y):
    """A smooth stand-in for the threshold."""
    delta = torch.zeros_like(x)
    for _ in range(60):
        moved = (x + delta).requires_grad_()
        soft = torch.sigmoid(10 * (moved - 0.5))
        loss = F.cross_entropy(network(soft), y, reduction="sum")
        delta = delta + 0.02 * torch.autograd.grad(loss, moved)[0].sign()
        delta = delta.clamp(-0.3, 0.3).clamp(-x, 1 - x)
    return delta


def downhill(network, x, y):
    delta = -behind(network, x, y)
    return delta.clamp(-x, 1 - x)


RIGHT = {
    "1.6": (pgd, pgd_one_by_one),
    "1.7": (crossing, first_on_a_grid),
    "2a.6": (fill, by_program),
    "2a.7": (by_tensors, by_descent),
    "2b.7": (rivals_by_turns, rivals_at_corners),
    "3.8": (by_slopes, exactly),
    "4a.6": (l1, l1_by_steps, partial(l1, drop_fooled=True)),
    "4b.6": (behind, by_steep_sigmoid),
}
WRONG = {
    "1.6": [
        (partial(pgd, box=False), "not projected onto the box"),
        (partial(pgd, signed=False), "the gradient's sign is missing"),
        (partial(pgd, up=-1), "goes down the loss"),
        (lambda m, x, y, eps: x + pgd(m, x, y, eps), "returns the attacked images"),
        (lambda m, x, y, eps: pgd(m, x, y, 2 * eps), "not projected onto the ball"),
        (lambda m, x, y: x, "called as f(model, x, y, eps)"),
        (lambda m, x, y, eps: x[0], "delta, shaped as x"),
        (lambda m, x, y, eps: x.sub_(eps), "changes its argument x in place"),
    ],
    "1.7": [
        (partial(crossing, end="low"), "does not fool yet"),
        (partial(crossing, step=0.2), "too coarse"),
        (lambda m, x, y: 255 * crossing(m, x, y), "units of 255"),
        (lambda m, x, y: 0.0, "does not fool the network"),
    ],
    "2a.6": [
        (partial(fill, signed=1), "not projected onto the box"),
        (lambda w, x, eps: fill(-w, x, eps), "it raises w . delta"),
        (lambda w, x, eps: fill(w, x, eps / 255), "units of 255"),
        (lambda w, x, eps: -np.sign(w) * eps, "not projected onto the box"),
        (lambda w, x, eps: 0 * x, "expected w . delta ="),
    ],
    "2a.7": [
        (clipped_ray, "clipped once"),
        (lambda w, x, eps: -eps * w / np.linalg.norm(w), "the box is ignored"),
        (lambda w, x, eps: w @ x, "delta, shaped as x"),
    ],
    "2b.7": [
        (partial(rivals_by_turns, share=8), "8, which is K - 2 for ten"),
        (partial(rivals_by_turns, share=1), "not divided by K - 2"),
        (lambda *case: rivals_by_turns(*case) - 2, "is no bound: at a corner"),
        (
            lambda *case: torch.log1p(
                one_corner_each(*case[:2], case[2], *case[3:]).exp()
            ),
            "hidden cases differ",
        ),
    ],
    "3.8": [
        (local_slope, "takes the slope at the point"),
        (by_intervals, "this is the bound by intervals"),
        (partial(by_slopes, shrink=0.5), "it claims too much: with eps"),
        (partial(by_slopes, shrink=2.0), "sound, but loose"),
    ],
    "4a.6": [
        (lambda m, x, y, share: l1(m, x, y, 0.0), "the share is ignored"),
        (partial(l1, eps=1.0), "eps is 10 here: yours is 1"),
        (partial(l1, num_steps=40), "yours takes forty"),
        (lambda m, x, y, share: x + l1(m, x, y, share), "returns the attacked images"),
    ],
    "4b.6": [
        (partial(behind, layer=Binary), "delta is zero"),
        (downhill, "too few"),
        (lambda n, x, y: 2 * behind(n, x, y), "not projected onto the ball"),
        (lambda n, x, y: x + behind(n, x, y), "returns the attacked images"),
    ],
}


test_there_are_two_of_each, test_right_answers, test_wrong_answers = judging_tests(
    RIGHT, WRONG
)
