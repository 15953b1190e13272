"""Chapter 6c: interval bounds for a search over phases, and a verifier of one's own."""

from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from advlib.exercises import challenge
from advlib.exercises.core import Exercise
from advlib.exercises.judging import Case, NotYet, Task, array, network

Array = np.ndarray


def _layers(net: nn.Module) -> list[tuple[Array, Array]]:
    linear = (layer for layer in net if isinstance(layer, nn.Linear))
    return [(array(layer.weight), array(layer.bias)) for layer in linear]


def _bound(
    net: nn.Module,
    x: Tensor,
    y: int,
    j: int,
    eps: float,
    phases: list[Tensor] | None,
    *,
    sign: float = 1.0,
    use: bool = True,
    offset: bool = True,
    readout: str = "folded",
    after: bool = False,
    box: bool = True,
) -> Array:
    """Return the bound on the margin, then all ends; a keyword plants a mistake."""
    *inner, (weight, bias) = _layers(net)
    low, high = array(x).ravel() - eps, array(x).ravel() + eps
    low, high = (low.clip(0), high.clip(max=1)) if box else (low, high)
    ends = []
    for k, (w, b) in enumerate(inner):
        middle, radius = w @ (low + high) / 2 + b, np.abs(w) @ (high - low) / 2
        low, high = middle - radius, middle + radius
        if phases is not None and use:
            phase = sign * array(phases[k]).ravel()
            low = np.where(phase > 0, low.clip(0), low)
            high = np.where(phase < 0, high.clip(max=0), high)
        before = low, high
        low, high = low.clip(0), high.clip(0)
        ends += [low, high] if after else before
    return np.concatenate(
        [[_last(weight, bias if offset else 0 * bias, y, j, low, high, readout)], *ends]
    )


def _last(
    weight: Array, bias: Array, y: int, j: int, low: Array, high: Array, readout: str
) -> float:
    if readout == "apart":
        first = weight[y].clip(0) @ low + weight[y].clip(max=0) @ high
        second = weight[j].clip(0) @ high + weight[j].clip(max=0) @ low
        return float(first - second + bias[y] - bias[j])
    w = weight[y] - weight[j]
    if readout == "above":
        low, high = high, low
    if readout == "low":
        high = low
    return float(w.clip(0) @ low + w.clip(max=0) @ high + bias[y] - bias[j])


def _swapped(
    net: nn.Module, x: Tensor, y: int, j: int, eps: float, phases: list[Tensor] | None
) -> Array:
    return _bound(net, x, j, y, eps, phases)


def _read(value: object, case: Case) -> Array:
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise NotYet("return a pair as `bounded` does: the bound and `pre`")
    bound, pre = value
    net = case[0]
    sizes = [len(b) for _, b in _layers(net)[:-1]]
    try:
        ends = [array(end).ravel() for pair in pre for end in pair]
        found = array(bound).reshape(1)
    except (TypeError, ValueError) as error:
        raise NotYet(
            "return a pair: one number, and a (lower, upper) for each ReLU layer"
        ) from error
    if [len(end) for end in ends] != [size for size in sizes for _ in "lu"]:
        raise NotYet(f"`pre` holds one (lower, upper) for each ReLU layer, of {sizes}")
    return np.concatenate([found, *ends])


def _unsound(value: Array, case: Case) -> str | None:
    """Look for a point of the ball, with these phases, below the bound."""
    net, x, y, j, eps, phases = case
    steps = torch.linspace(-1, 1, 41, dtype=torch.float64) * eps
    points = (x.flatten() + torch.cartesian_prod(steps, steps)).clamp(0, 1)
    inside, a = torch.ones(len(points), dtype=torch.bool), points
    *inner, last = (layer for layer in net if isinstance(layer, nn.Linear))
    for k, layer in enumerate(inner):
        z_hat = layer(a)
        if phases is not None:
            inside &= (z_hat * phases[k].flatten() >= 0).all(1)
        a = z_hat.relu()
    margins = (last(a) @ _row(last.out_features, y, j))[inside]
    if len(margins) == 0 or value[0] <= float(margins.min()) + 1e-9:
        return None
    at = points[inside][margins.argmin()].tolist()
    return (
        f"it claims too much: your bound is {value[0]:.4g}, and at {at[0]:.3g}, "
        f"{at[1]:.3g}, inside the ball and the phases, the margin is "
        f"{margins.min():.4g}"
    )


def _row(classes: int, y: int, j: int) -> Tensor:
    row = torch.zeros(classes, dtype=torch.float64)
    row[y], row[j] = 1.0, -1.0
    return row


INTERVALS = Task(
    "(net, x, y, j, eps, phases)",
    truth=_bound,
    read=_read,
    mistakes={
        "the phases are ignored: clip what enters the ReLUs by them": partial(
            _bound, use=False
        ),
        "the phases are the wrong way round: +1 means on, z_hat >= 0": partial(
            _bound, sign=-1.0
        ),
        "the biases of the last layer are missing": partial(_bound, offset=False),
        "the margin is z_y - z_j, not z_j - z_y": _swapped,
        "it claims too much: where w < 0 the upper end counts, not the lower": partial(
            _bound, readout="low"
        ),
        "this bounds the margin from above: the ends are swapped": partial(
            _bound, readout="above"
        ),
        "sound, but loose: the two logits are bounded apart; fold them into one row "
        "w = W[y] - W[j]": partial(_bound, readout="apart"),
        "`pre` are the bounds before the ReLUs, not after": partial(_bound, after=True),
        "not projected onto the box: pixels stay in [0, 1]": partial(_bound, box=False),
    },
    broken=_unsound,
    what="the bound, then pre",
)


def _cases(rng: np.random.Generator) -> list[Case]:
    made: list[Case] = []
    for fixed, eps in ((0, 0.1), (0, 0.3), (1, 0.3), (1, 0.5), (2, 0.5)):
        net = network(rng, (2, 6, 5, 3), scale=2.0)
        x = torch.full((1, 1, 1, 2), 0.4 + 0.2 * rng.random(), dtype=torch.float64)
        y = int(net(x).argmax())
        j = int(rng.choice([k for k in range(3) if k != y]))
        phases = [torch.zeros(1, 6).double(), torch.zeros(1, 5).double()]
        for layer in range(fixed):
            now = (net, x, y, j, eps, phases)
            start = 1 + 12 * layer
            size = (6, 5)[layer]
            low, high = _bound(*now)[start : start + 2 * size].reshape(2, size)
            open_ = ((low < -1e-3) & (high > 1e-3)).nonzero()[0]
            if len(open_):
                phases[layer][0, rng.choice(open_)] = float(rng.choice([-1, 1]))
        made.append((net, x, y, j, eps, phases if fixed else None))
    return made


def _judge(answer: object, rng: np.random.Generator) -> str:
    INTERVALS.judge(answer, _cases(rng))
    return "interval bounds, with and without phases, on five networks"


def _judge_verifier(answer: object, rng: np.random.Generator) -> str:
    if not callable(answer):
        raise NotYet("hand in a function (model, image, label, eps, seconds)")
    found = challenge.score(answer, count=18, seed=int(rng.integers(2**31)))
    mine, crown = found.rows["yours"], found.rows["CROWN"]
    if mine["wrong"] or (found.messages and mine["score"] <= crown["score"]):
        raise NotYet(f"{found.messages[0]}; {mine['score']} points in all")
    if mine["score"] <= crown["score"]:
        raise NotYet(
            f"nothing wrong, but {mine['score']} points, and CROWN alone, which never "
            f"attacks, has {crown['score']}"
        )
    return (
        f"no wrong answer, {mine['score']} points; CROWN alone has {crown['score']}, "
        f"this chapter's search {found.rows['branch and bound']['score']}"
    )


EXERCISES = [
    Exercise(
        "6c.6",
        "A search with interval bounds",
        "a function of (net, x, y, j, eps, phases) that returns what `bounded` "
        "returns, the bound and `pre`",
        (
            "`bounds.relu_bounds(..., method='interval', clip=...)` gives `pre`; "
            "the chapter's `clip` turns phases into what it takes, and None stays None",
            "after the last ReLUs fold the two logits into one row `w = W[y] - "
            "W[j]`: positive entries meet the lower ends, negative ones the upper, "
            "and the difference of the biases comes on top",
        ),
        _judge,
    ),
    Exercise(
        "6c.8",
        "The verifier challenge",
        "a function of (model, image, label, eps, seconds) that answers 'certified', "
        "'attacked' or 'unknown'",
        (
            "say 'attacked' only for a point that you have run through the network, "
            "'certified' only for a proof, and 'unknown' otherwise: nothing is lost",
            "PGD with the margin loss finds most attacks, "
            "`bounds.alpha_crown_margins` gives most proofs; for the rest split one "
            "ReLU, or let `branch_and_bound.branch_and_bound` do it with a "
            "`time_limit`",
        ),
        _judge_verifier,
    ),
]
