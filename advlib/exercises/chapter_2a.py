"""Chapter 2a: the worst perturbation of a linear model in l1 and l2, with the box."""

from collections.abc import Callable
from functools import partial, wraps

import numpy as np
import torch

from advlib.exercises.core import Exercise
from advlib.exercises.judging import Case, NotYet, Task, shaped

Array = np.ndarray


def _room(w: Array, x: Array) -> Array:
    return np.where(w > 0, x, 1 - x)


def _fill(
    w: Array,
    x: Array,
    eps: float,
    *,
    key: Callable[[Array], Array] = lambda w: -np.abs(w),
    other_side: bool = False,
    one: bool = False,
    up: bool = False,
) -> Array:
    """The greedy fill of l1; each keyword plants a mistake."""
    w = -w if up else w
    room = 1 - _room(w, x) if other_side else _room(w, x)
    delta = np.zeros_like(x)
    for i in np.argsort(key(w), kind="stable")[: 1 if one else None]:
        step = min(room[i], eps)
        delta[i], eps = -np.sign(w[i]) * step, eps - step
    return delta


def _one_pixel(w: Array, x: Array, eps: float) -> Array:
    delta = np.zeros_like(x)
    i = np.abs(w).argmax()
    delta[i] = -eps * np.sign(w[i])
    return delta


def _all_pixels(w: Array, x: Array, eps: float) -> Array:
    return -np.sign(w) * np.minimum(eps, _room(w, x))


def _water(w: Array, x: Array, eps: float, *, limit: float = 1e9) -> Array:
    """The l2 perturbation with the box, by bisection over the common factor."""
    room, low, high = _room(w, x), 0.0, limit
    for _ in range(200):
        middle = (low + high) / 2
        size = np.minimum(middle * np.abs(w), room)
        low, high = (low, middle) if np.linalg.norm(size) > eps else (middle, high)
    return -np.sign(w) * np.minimum(low * np.abs(w), room)


def _ray(w: Array, x: Array, eps: float) -> Array:
    return -eps * w / np.linalg.norm(w)


def _cut(wrong: Callable[..., Array], w: Array, x: Array, eps: float) -> Array:
    return wrong(w, x, eps).clip(-x, 1 - x)


def _moved(right: Callable[..., Array], w: Array, x: Array, eps: float) -> Array:
    return x + right(w, x, eps)


def _other_way(right: Callable[..., Array], w: Array, x: Array, eps: float) -> Array:
    return right(-w, x, eps)


def _in_bytes(right: Callable[..., Array], w: Array, x: Array, eps: float) -> Array:
    return right(w, x, eps / 255)


def _common(right: Callable[..., Array]) -> dict[str, Callable[..., Array]]:
    """Mistakes in any norm, around the ``right`` perturbation."""
    return {
        "it raises w . delta: move each pixel against the sign of w": partial(
            _other_way, right
        ),
        "it returns x + delta, not delta": partial(_moved, right),
        "eps in units of 255: here pixels live in [0, 1]": partial(_in_bytes, right),
        "every pixel may spend eps: that is the l-infinity ball": _all_pixels,
    }


def _outside(order: int, delta: Array, case: Case) -> str | None:
    _, x, eps = case
    if (x + delta).min() < -1e-6 or (x + delta).max() > 1 + 1e-6:
        return "not projected onto the box: x + delta leaves [0, 1]"
    length = np.linalg.norm(delta, order)
    if length > eps * (1 + 1e-6) + 1e-9:
        return f"delta is too long: its l{order} norm is {length:.4g}, eps {eps:.4g}"
    return None


def _task(
    order: int, right: Callable[..., Array], mistakes: dict[str, Callable[..., Array]]
) -> Task:
    return Task(
        "(w, x, eps)",
        truth=right,
        read=lambda value, case: shaped(value, case[1].shape, "delta, shaped as x"),
        mistakes=mistakes | _common(right),
        view=lambda delta, case: np.asarray(case[0] @ delta),
        broken=partial(_outside, order),
        tolerance=1e-5,
        what="w . delta",
    )


FILL = _task(
    1,
    _fill,
    {
        "the box is ignored: one pixel gets the whole budget and leaves [0, 1]": (
            _one_pixel
        ),
        "what the box leaves over of the budget is lost: give it to the next "
        "pixel": partial(_fill, one=True),
        "the pixels are taken in the order of w, not of |w|": partial(
            _fill, key=lambda w: -w
        ),
        "it starts with the smallest |w|: start with the largest": partial(
            _fill, key=np.abs
        ),
        "the room is on the wrong side: a pixel with w > 0 goes down, by at most "
        "x": partial(_fill, other_side=True),
    },
)
WATER = _task(
    2,
    _water,
    {
        "the box is ignored: this is -eps w / |w|": _ray,
        "clipped once: the length that the box took is lost, so raise lambda": partial(
            _cut, _ray
        ),
        "lambda stops at 1: double the upper end until the length is reached": partial(
            _water, limit=1.0
        ),
    },
)


def _cases(rng: np.random.Generator, radii: list[float]) -> list[Case]:
    """One image for each of the ``radii``, larger ones last; the box matters."""
    made = []
    for d, eps in zip((2, 3, 5, 6, 7, 8, 12), radii, strict=True):
        w, x = rng.standard_normal(d) / 4, rng.random(d)
        x[0], w[-1] = (w[0] < 0) * 1.0, w[-1] * 12  # no room; the steepest pixel
        x[-1] = 0.4 + 0.2 * x[-1]
        if d > 5:
            w[1] = 0.0
        made.append((w, x, float(eps * rng.uniform(0.9, 1.1))))
    return made


def _either_kind(answer: object) -> object:
    """Let a function of tensors answer, too, where arrays raise an error."""
    if not callable(answer):
        return answer

    @wraps(answer)
    def ask(w: Array, x: Array, eps: float) -> object:
        try:
            return answer(w, x, eps)
        except (TypeError, AttributeError) as first:
            try:
                return answer(torch.from_numpy(w), torch.from_numpy(x), eps)
            except (TypeError, AttributeError):
                raise first from None

    return ask


def _judge_l1(answer: object, rng: np.random.Generator) -> str:
    FILL.judge(_either_kind(answer), _cases(rng, [0.2, 1.1, 1.5, 0.9, 1.3, 2.5, 30.0]))
    return "the smallest w . delta that ball and box allow, seven times"


def _judge_l2(answer: object, rng: np.random.Generator) -> str:
    if answer is None:
        raise NotYet("hand in the function of (w, x, eps), not None")
    WATER.judge(_either_kind(answer), _cases(rng, [0.2, 0.7, 1.0, 0.8, 0.9, 1.2, 20.0]))
    return "the smallest w . delta that ball and box allow, seven times"


WANTED = (
    "a function of (w, x, eps), for one image as flat NumPy arrays, that returns the "
    "delta with the smallest w . delta"
)
EXERCISES = [
    Exercise(
        "2a.6",
        "The greedy fill in l1",
        WANTED,
        (
            "a unit of budget lowers w . delta by |w_i|, so serve the pixels in the "
            "order of |w_i|, the largest first",
            "pixel i can go by x_i if w_i > 0 and by 1 - x_i else; spend the smaller "
            "of this room and what is left of eps, then go on to the next",
        ),
        _judge_l1,
    ),
    Exercise(
        "2a.7",
        "The common factor in l2",
        WANTED,
        (
            "the length of `min(lambda |w_i|, room_i)` grows with lambda: bisect "
            "for the lambda at which it is eps",
            "double the upper end until the length reaches eps, but not for ever: with "
            "a large eps every pixel ends at its room, and that is the answer",
        ),
        _judge_l2,
    ),
]
