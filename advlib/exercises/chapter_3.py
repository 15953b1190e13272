"""Chapter 3: a bound on the margin of a tiny network by its slopes."""

from collections.abc import Callable
from itertools import combinations

import numpy as np
import torch
from torch import nn

from advlib.exercises.core import Exercise
from advlib.exercises.judging import Case, NotYet, call, network, same, shaped, shown

Array = np.ndarray
TAKES = "(net, point, label, eps)"


def _parts(case: Case) -> tuple[Array, ...]:
    """w1, b1, the readout row, its offset, the point, the ends of its square."""
    net, point, label, eps = case
    first, last = (layer for layer in net if isinstance(layer, nn.Linear))
    w1, b1, w2, b2 = (
        p.detach().numpy() for p in (first.weight, first.bias, last.weight, last.bias)
    )
    x = point.numpy()
    ends = np.stack([x - eps, x + eps]).clip(0, 1)
    return w1, b1, w2[label] - w2[1 - label], b2[label] - b2[1 - label], x, ends


def _margin(case: Case, points: Array) -> Array:
    w1, b1, row, offset, *_ = _parts(case)
    return np.maximum(points @ w1.T + b1, 0) @ row + offset


def _exact(case: Case) -> tuple[float, Array]:
    """Return the smallest margin on the square and its point.

    The margin is linear between the lines of the units, so the minimum lies where two
    of these lines, or edges, cross.
    """
    w1, b1, _, _, _, ends = _parts(case)
    rows = np.concatenate([w1, np.eye(2), np.eye(2)])
    sides = np.concatenate([-b1, ends[0], ends[1]])
    points = [ends[0], ends[1]]
    for i, k in combinations(range(len(rows)), 2):
        if abs(np.linalg.det(rows[[i, k]])) > 1e-12:
            points.append(np.linalg.solve(rows[[i, k]], sides[[i, k]]))
    inside = np.array(points).clip(*ends)  # crossings outside: still points of it
    margins = _margin(case, inside)
    return float(margins.min()), inside[margins.argmin()]


def _slopes(case: Case) -> tuple[Array, Array]:
    """Return the slope of the units that are always on, and those of the open ones."""
    w1, b1, row, _, _, ends = _parts(case)
    middle = w1 @ ends.mean(0) + b1
    radius = np.abs(w1) @ (ends[1] - ends[0]) / 2
    pulls = row[:, None] * w1
    on, off = middle >= radius, middle <= -radius
    return pulls[on].sum(0), pulls[~on & ~off]


def _down(case: Case, most: Array) -> float:
    return float(_margin(case, case[1].numpy()[None])[0] - case[3] * most.sum())


def _most(fixed: Array, open_: Array) -> Array:
    ends = fixed + open_.clip(min=0).sum(0), fixed + open_.clip(max=0).sum(0)
    return np.maximum(*np.abs(ends))


def _right(case: Case) -> float:
    return _down(case, _most(*_slopes(case)))


def _all_open(case: Case) -> float:
    w1, _, row, *_ = _parts(case)
    return _down(case, _most(np.zeros(2), row[:, None] * w1))


def _only_on(case: Case) -> float:
    return _down(case, np.abs(_slopes(case)[0]))


def _all_on(case: Case) -> float:
    fixed, open_ = _slopes(case)
    return _down(case, np.abs(fixed + open_.sum(0)))


def _at_the_point(case: Case) -> float:
    w1, b1, row, _, x, _ = _parts(case)
    return _down(case, np.abs((row * (w1 @ x + b1 > 0)) @ w1))


def _sizes(case: Case) -> float:
    fixed, open_ = _slopes(case)
    return _down(case, np.abs(fixed) + np.abs(open_).sum(0))


def _larger_entry(case: Case) -> float:
    return _down(case, _most(*_slopes(case)).max(keepdims=True))


def _length(case: Case) -> float:
    most = _most(*_slopes(case))
    return _down(case, np.linalg.norm(most, keepdims=True))


def _fall(case: Case) -> float:
    return float(case[3] * _most(*_slopes(case)).sum())


def _rival(case: Case) -> float:
    net, point, label, eps = case
    return _right((net, point, 1 - label, eps))


def _intervals(case: Case) -> float:
    w1, b1, row, offset, _, ends = _parts(case)
    middle, radius = w1 @ ends.mean(0) + b1, np.abs(w1) @ (ends[1] - ends[0]) / 2
    low, high = np.maximum(middle - radius, 0), np.maximum(middle + radius, 0)
    return float(row.clip(min=0) @ low + row.clip(max=0) @ high + offset)


MISTAKES: dict[str, Callable[[Case], float]] = {
    "it counts every unit as open: those that are on, or off, in the whole square "
    "do not change": _all_open,
    "the units that are on here and off there are left out: they pull, too": _only_on,
    "it counts the open units as on everywhere: some may be off": _all_on,
    "it takes the slope at the point: it changes where a ReLU switches": _at_the_point,
    "it adds the sizes of all slopes: those that pull in opposite directions cancel, "
    "so add first and take the size then": _sizes,
    "only the larger slope counts: in a square both coordinates move by eps, so add "
    "the two": _larger_entry,
    "the slope's length counts in a disc; in a square add its entries": _length,
    "it returns the fall: the bound is the margin at the point minus the fall": _fall,
    "the margin's sign: the logit of `label` minus the other one": _rival,
    "this is the bound by intervals, not by slopes": _intervals,
    "eps in units of 255": lambda case: _right((*case[:3], case[3] / 255)),
}


def _case(rng: np.random.Generator, units: int, eps: float) -> Case:
    """A network and a square in which the slope at the point is no bound."""
    while True:
        net = network(rng, (2, units, 2), scale=2.0)
        point = torch.from_numpy(rng.uniform(0.05, 0.95, 2))
        case = (net, point, int(net(point.view(1, 1, 1, 2)).argmax()), eps)
        if _at_the_point(case) > _exact(case)[0] + 1e-3:
            return case


def _judge(answer: object, rng: np.random.Generator) -> str:
    shapes = ((3, 0.1), (4, 0.1), (6, 0.08), (8, 0.15), (8, 0.3))
    cases = [_case(rng, *shape) for shape in shapes]
    read = [shaped(call(answer, TAKES, *c), (), "the bound") for c in cases]
    found = [float(value) for value in read]
    ours = np.array([_right(case) for case in cases])
    sound = [f <= _exact(c)[0] + 1e-9 for f, c in zip(found, cases, strict=True)]
    if all(sound) and (np.array(found) >= ours - 1e-7).all():
        return "never above the exact margin, and as tight as the slopes allow"
    for message, wrong in MISTAKES.items():
        if same(np.array(found), np.array([wrong(c) for c in cases]), 1e-7):
            raise NotYet(message)
    if not all(sound):
        raise NotYet(_unsound(cases[sound.index(False)], found[sound.index(False)]))
    k = int((np.array(found) < ours - 1e-7).argmax())
    raise NotYet(
        f"sound, but loose: with eps = {cases[k][3]:.3g} it says {found[k]:.4g} where "
        f"the slopes give {ours[k]:.4g}"
    )


def _unsound(case: Case, found: float) -> str:
    least, point = _exact(case)
    return (
        f"it claims too much: with eps = {case[3]:.3g} around {shown(case[1])} your "
        f"bound is {found:.4g}, and at {shown(point)} the margin is {least:.4g}"
    )


EXERCISES = [
    Exercise(
        "3.8",
        "A bound from nothing",
        "a function of (net, point, label, eps), for a network built as `tiny`, that "
        "returns a lower bound on the margin in the square",
        (
            "interval arithmetic on `W1 x + b1` tells the units that are on in the "
            "whole square, those that are off, and the open ones",
            "in each coordinate the slope lies between (sum over those on + the "
            "negative open ones) and (sum over those on + the positive open ones); "
            "the margin falls at most by eps times the larger size, summed over both",
        ),
        _judge,
    )
]
