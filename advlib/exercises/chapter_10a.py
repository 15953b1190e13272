"""Chapter 10a: what orders the transfer of perturbations at another size."""

from functools import partial

import numpy as np
from scipy import stats

from advlib import results
from advlib.exercises.core import Exercise
from advlib.exercises.judging import Task, numbers

Array = np.ndarray


def _whole() -> dict:
    return results.load("blind_spots")["data"]["whole"]


def _measures() -> tuple[Array, Array]:
    """Return alignment and closeness, (pairs, images) each."""
    whole = _whole()
    known = whole["cosines"]
    align, close = [], []
    for s, v in _pairs():
        align.append(known[s][v] if v in known.get(s, {}) else known[v][s])
        length = np.array(whole["attacks"]["margin"][v]["l2"], dtype=float) / 28
        close.append(1 / length)
    return np.array(align), np.array(close)


def _pairs() -> list[tuple[str, str]]:
    names = list(_whole()["errors"])
    return [(s, v) for s in names for v in names if s != v]


def _hits(size: str, what: str) -> Array:
    masks = results.unpack(_whole()["hits_margin"][size][what])
    place = {name: k for k, name in enumerate(_whole()["errors"])}
    return np.array([masks[place[s], place[v]] for s, v in _pairs()])


def _order(
    size: str,
    *,
    what: str = "fooled",
    always: str | None = None,
    ranks: bool = False,
    images: bool = False,
    square: bool = False,
    means_first: bool = False,
) -> Array:
    """Return the three correlations; a keyword plants a mistake."""
    align, close = _measures()
    hits = _hits(always or size, what)
    product = align * close
    if means_first:
        product = align.mean(1, keepdims=True) * close.mean(1, keepdims=True)
    found = []
    for measure in (product, align, close):
        pair = (measure, hits) if images else (measure.mean(1), hits.mean(1))
        pair = tuple(a.ravel() for a in pair)
        r = stats.spearmanr(*pair)[0] if ranks else np.corrcoef(*pair)[0, 1]
        found.append(r**2 if square else r)
    return np.array(found)


def _swapped(size: str) -> Array:
    return _order(size)[[0, 2, 1]]


ORDER = Task(
    "(size)",
    truth=_order,
    read=numbers(3, "the correlations of product, alignment and closeness"),
    mistakes={
        "the size is ignored: yours is always 0.1": partial(_order, always="0.1"),
        "these are the images that get the target, not all that are fooled": partial(
            _order, what="target"
        ),
        "in the order of the text: product, alignment, closeness": _swapped,
        "every image is a point of its own: take means over the images first": partial(
            _order, images=True
        ),
        "the product is taken image by image, then averaged": partial(
            _order, means_first=True
        ),
        "this is the correlation of ranks": partial(_order, ranks=True),
        "this is r squared": partial(_order, square=True),
    },
    tolerance=1e-6,
    what="(product, alignment, closeness)",
)


def _judge(answer: object, rng: np.random.Generator) -> str:
    sizes = [size for size in _whole()["hits_margin"] if size != "native"]
    ORDER.judge(answer, [(sizes[k],) for k in rng.permutation(len(sizes))])
    return "the three correlations at each size of the record"


EXERCISES = [
    Exercise(
        "10a.7",
        "Another size",
        "a function of size, a text such as '0.06', that returns the correlations with "
        "the errors of alignment x closeness, of alignment and of closeness",
        (
            "`chosen('fooled', size)` reads the verdicts of the thirty cells at a size",
            "`correlation(measure, verdicts)` takes the means over the images itself; "
            "call it for each of `measures`, in their order",
        ),
        _judge,
    )
]
