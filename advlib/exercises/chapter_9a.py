"""Chapter 9a: read two answers from the records, with intervals."""

from functools import cache, partial

import numpy as np
from scipy import stats

from advlib import results
from advlib.exercises.core import Exercise
from advlib.exercises.judging import Task, numbers

Array = np.ndarray
KINDS = ("raw", "z-scored", "whitened")
CELLS = tuple(
    (data, build)
    for data in ("mnist", "cifar10_jpeg")
    for build in ("cnn_shallow", "cnn_deep")
)


@cache
def _rows(record: str, cell: tuple[str, str], trained: bool) -> list[dict]:
    """The networks of a cell, one for each seed."""
    rows = results.load(record)["data"]["rows"]
    return [
        row
        for row in rows
        if (row["data"], row["network"][:-2], row["trained"]) == (*cell, trained)
    ]


def _gaps(
    cell: tuple[str, str], kind: str, num: int, trained: bool, what: str
) -> Array:
    rows = _rows("units", cell, trained)
    groups = [row["kinds"][kind][str(num)][what] for row in rows]
    return np.array([g["units"] - g["gaussian"] for g in groups])


def _pooled(
    kind: str,
    num: int,
    *,
    sign: float = 1.0,
    trained: bool = True,
    what: str = "purity",
    always: int | None = None,
    total: bool = False,
    normal: bool = False,
) -> Array:
    """Return mean, low, high over the four cells; a keyword plants a mistake."""
    share = 1 if total else len(CELLS)
    parts = [sign * _gaps(c, kind, always or num, trained, what) for c in CELLS]
    parts = [part / share for part in parts]
    var = np.array([p.var(ddof=1) / len(p) for p in parts])
    freedom = var.sum() ** 2 / (var**2 / [len(p) - 1 for p in parts]).sum()
    edge = stats.norm.ppf(0.975) if normal else stats.t.ppf(0.975, freedom)
    mean, half = sum(p.mean() for p in parts), edge * var.sum() ** 0.5
    return np.array([mean, mean - half, mean + half])


def _t_interval(values: Array) -> Array:
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return np.array([values.mean(), values.mean() - half, values.mean() + half])


def _one_sample(kind: str, num: int) -> Array:
    parts = [_gaps(c, kind, num, True, "purity") for c in CELLS]
    return _t_interval(np.concatenate(parts))


POOLED = Task(
    "(kind, num)",
    truth=_pooled,
    read=numbers(3, "mean, low and high"),
    mistakes={
        "the sign: units minus random directions": partial(_pooled, sign=-1.0),
        "the number of images is ignored: yours is always 8": partial(
            _pooled, always=8
        ),
        "a sum over the four cells: divide each one's differences by 4": partial(
            _pooled, total=True
        ),
        "one sample of twelve: the cells have means of their own, so pool their "
        "variances with `welch`": _one_sample,
        "the quantile is the normal's; with three seeds a cell take Student's": partial(
            _pooled, normal=True
        ),
        "these networks are not trained": partial(_pooled, trained=False),
        "this is the entropy, not the purity": partial(_pooled, what="entropy"),
    },
    tolerance=1e-6,
    what="(mean, low, high)",
)


def _alike(
    cell: tuple[str, str],
    kind: str,
    *,
    sign: float = 1.0,
    trained: bool = True,
    other: str | None = None,
) -> Array:
    """Return mean, low, high over seeds; a keyword plants a mistake."""
    seen = [row["seen_by_another"] for row in _rows("units_axes", cell, trained)]
    gaps = [one[kind]["units"] - one[kind]["gaussian"] for one in seen]
    if other is not None:
        gaps = [one[kind][other] for one in seen]
    return _t_interval(sign * np.array(gaps))


def _normal(cell: tuple[str, str], kind: str) -> Array:
    mean, low, _ = _alike(cell, kind)
    half = (mean - low) * stats.norm.ppf(0.975) / stats.t.ppf(0.975, 2)
    return np.array([mean, mean - half, mean + half])


def _purity(cell: tuple[str, str], kind: str) -> Array:
    return _t_interval(_gaps(cell, kind, 8, True, "purity"))


ALIKE = Task(
    "(cell, kind)",
    truth=_alike,
    read=numbers(3, "mean, low and high"),
    mistakes={
        "the sign: units minus random directions": partial(_alike, sign=-1.0),
        "these networks are not trained": partial(_alike, trained=False),
        "the units alone: subtract the random directions": partial(
            _alike, other="units"
        ),
        "the random directions alone: units minus these": partial(
            _alike, other="gaussian"
        ),
        "the quantile is the normal's; with three seeds take Student's": _normal,
        "this is the purity, which knows the labels: read `seen_by_another`": _purity,
    },
    tolerance=1e-6,
    what="(mean, low, high)",
)


def _judge_pooled(answer: object, rng: np.random.Generator) -> str:
    tops = results.load("units")["data"]["tops"]
    every = [(kind, num) for num in tops for kind in KINDS]
    picked = sorted(rng.choice(len(every), size=7, replace=False))
    POOLED.judge(answer, [every[k] for k in picked])
    return "the pooled difference for seven scales and numbers of images"


def _judge_alike(answer: object, rng: np.random.Generator) -> str:
    every = [(cell, kind) for cell in CELLS for kind in KINDS]
    picked = sorted(rng.choice(len(every), size=7, replace=False))
    ALIKE.judge(answer, [every[k] for k in picked])
    return "units minus random directions for seven cells and scales"


EXERCISES = [
    Exercise(
        "9a.6",
        "The number of images in a row",
        "a function of (kind, num), as in ('raw', 8), that returns mean, low and high "
        "of the difference, pooled over the four cells",
        (
            "`differences(cell, kind, num=num)` gives one cell's three differences; "
            "`welch` pools the cells",
            "`welch` adds up the means of its parts, so hand it each cell's "
            "differences divided by 4",
        ),
        _judge_pooled,
    ),
    Exercise(
        "9a.7",
        "A score without labels",
        "a function of (cell, kind), as in (('mnist', 'cnn_deep'), 'raw'), that "
        "returns mean, low and high over the seeds of units minus random directions",
        (
            "`extra[*cell, True]` lists the trained networks of a cell; each has "
            "`one[kind]['units']` and `one[kind]['gaussian']` under "
            "'seen_by_another'",
            "subtract seed by seed, and give the three differences to "
            "`evaluation.mean_interval`",
        ),
        _judge_alike,
    ),
]
