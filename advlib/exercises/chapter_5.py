"""Chapter 5: what the box is worth, by two integer programs."""

from collections.abc import Callable
from functools import lru_cache, partial

import numpy as np
from torch import Tensor, nn

from advlib.exact import milp_margin
from advlib.exercises.core import Exercise
from advlib.exercises.judging import Case, Task, network, numbers, pictures


@lru_cache(maxsize=200)
def _margins(
    net: nn.Module, image: Tensor, label: Tensor, eps: float, j: int
) -> tuple[float, float]:
    """The smallest margin against ``j`` with the box and without; asked often."""
    inside, outside = (
        milp_margin(net, image, label, j, eps, box=box).margin for box in (True, False)
    )
    return inside, outside


def _classes(net: nn.Module, image: Tensor) -> list[int]:
    """All classes of one image, the largest logit first."""
    return net(image)[0].argsort(descending=True).tolist()


def _fall(net: nn.Module, image: Tensor, label: Tensor, eps: float) -> float:
    inside, outside = _margins(net, image, label, eps, _classes(net, image)[1])
    return inside - outside


def _part(
    pick: Callable[[tuple[float, float]], float],
    net: nn.Module,
    image: Tensor,
    label: Tensor,
    eps: float,
) -> float:
    return pick(_margins(net, image, label, eps, _classes(net, image)[1]))


def _last(net: nn.Module, image: Tensor, label: Tensor, eps: float) -> float:
    inside, outside = _margins(net, image, label, eps, _classes(net, image)[-1])
    return inside - outside


def _from_clean(net: nn.Module, image: Tensor, label: Tensor, eps: float) -> float:
    first, second = net(image)[0].topk(2).values
    return (
        float(first - second)
        - _margins(net, image, label, eps, _classes(net, image)[1])[1]
    )


FALL = Task(
    "(network, image, label, eps)",
    truth=_fall,
    read=numbers(None, "by how much the margin falls"),
    mistakes={
        "the sign: the fall is the margin with the box minus the one without": partial(
            _part, lambda pair: pair[1] - pair[0]
        ),
        "this is the margin inside the box: by how much does it fall outside?": partial(
            _part, lambda pair: pair[0]
        ),
        "this is the margin without the box: by how much has it fallen?": partial(
            _part, lambda pair: pair[1]
        ),
        "this falls from the margin of the clean image: take the smallest margin in "
        "the ball, with the box and without": _from_clean,
        "not the runner-up: it is the class with the second largest logit": _last,
        "eps in units of 255": lambda n, i, k, eps: _fall(n, i, k, eps / 255),
    },
    tolerance=1e-4,
)


def _case(rng: np.random.Generator, hidden: int, eps: float) -> Case:
    """A network and an image near whose black and white pixels the box matters."""
    while True:
        net = network(rng, (4, hidden, 3))
        image = pictures(rng, 1, 4)
        image[..., :2] = image[..., :2].round()
        case = (net, image, net(image).argmax(1), eps)
        if _fall(*case) > 0.02:
            return case


def _judge(answer: object, rng: np.random.Generator) -> str:
    cases = [_case(rng, *size) for size in ((3, 0.1), (4, 0.2), (6, 0.3))]
    FALL.judge(answer, cases)
    return "the fall of the runner-up's margin, on three small networks"


EXERCISES = [
    Exercise(
        "5.6",
        "What the box is worth",
        "a function of (network, image, label, eps), one image and its label with "
        "their batch dimension, that returns by how much the margin falls",
        (
            "the runner-up has the second largest logit: `topk(2).indices[1]`",
            "`exact.milp_margin(..., box=True).margin` minus the same with box=False",
        ),
        _judge,
    )
]
