"""Chapter 2b: a bound on the worst cross-entropy that lets rivals share a corner."""

from functools import partial
from itertools import combinations, product

import numpy as np
import torch

from advlib.exercises.core import Exercise
from advlib.exercises.judging import Case, Task, numbers, shown

Array = np.ndarray


def _leads(case: Case, box: bool = True, bias: bool = True) -> Array:
    """Return z_j - z_y, (corners, rivals), at all corners of ball and box."""
    weight, offset, image, y, eps = (np.asarray(part) for part in case)
    x, y = image.ravel(), int(y)
    ends = np.stack([x - eps, x + eps])
    ends = ends.clip(0, 1) if box else ends
    corners = np.array(list(product(*ends.T)))
    logits = corners @ weight.T + (offset if bias else 0)
    return np.delete(logits - logits[:, [y]], y, axis=1)


def _pairs(
    *case: object, shared: float | None = None, box: bool = True, bias: bool = True
) -> float:
    """The bound by pairs; each keyword plants a mistake."""
    lead = np.exp(_leads(case, box, bias))
    rivals = lead.shape[1]
    most = [(lead[:, j] + lead[:, k]).max() for j, k in combinations(range(rivals), 2)]
    return float(np.log1p(sum(most) / (rivals - 1 if shared is None else shared)))


def _per_class(*case: object) -> float:
    """Divided by the number K - 1 of rivals."""
    return _pairs(*case, shared=_leads(case).shape[1])


def _twice(*case: object) -> float:
    """Over ordered pairs, so each one counts twice."""
    return _pairs(*case, shared=(_leads(case).shape[1] - 1) / 2)


def _bare(*case: object) -> float:
    """The sum of the rivals alone."""
    return float(np.expm1(_pairs(*case)))


def _no_one(*case: object) -> float:
    """The logarithm of the rivals without the class's own 1."""
    return float(np.log(np.expm1(_pairs(*case))))


def _alone(*case: object) -> float:
    return float(np.log1p(np.exp(_leads(case).max(0)).sum()))


def _exact(*case: object) -> float:
    return float(np.log1p(np.exp(_leads(case)).sum(1).max()))


def _not_above(value: Array, case: Case) -> str | None:
    if float(value) >= _exact(*case) - 1e-9:
        return None
    return (
        f"{shown(value)} is no bound: at a corner of ball and box (eps = "
        f"{case[4]:.3g}, {len(case[0])} classes) the cross-entropy is "
        f"{_exact(*case):.4g}"
    )


BOUND = Task(
    "(weight, bias, image, y, eps)",
    truth=_pairs,
    read=numbers(None, "the bound"),
    mistakes={
        "the sum over the pairs is not divided by K - 2": partial(_pairs, shared=1),
        "divided by 8, which is K - 2 for ten classes only": partial(_pairs, shared=8),
        "divided by K - 1: each rival is in K - 2 of the pairs": _per_class,
        "every pair is counted twice: j < k": _twice,
        "the logarithm is missing: cross-entropy is log(1 + sum of the rivals)": _bare,
        "the 1 is missing: cross-entropy is log(1 + sum of the rivals)": _no_one,
        "the biases are missing": partial(_pairs, bias=False),
        "the box is ignored: x + delta stays in [0, 1]": partial(_pairs, box=False),
        "each rival has a corner of its own: that is the bound of the text": _alone,
        "this is the exact maximum over all corners, not the bound by pairs": _exact,
    },
    broken=_not_above,
)


def _judge(answer: object, rng: np.random.Generator) -> str:
    cases = []
    for classes, eps in ((4, 0.05), (4, 0.3), (5, 0.1), (6, 0.2), (12, 0.1)):
        weight = torch.from_numpy(rng.standard_normal((classes, 4)))
        bias = torch.from_numpy(0.5 * rng.standard_normal(classes))
        image = rng.random((1, 2, 2))
        image[0, 0] = rng.integers(2, size=2)
        image = torch.from_numpy(image)
        y = int((weight @ image.flatten() + bias).argmax())
        cases.append((weight, bias, image, y, eps))
    BOUND.judge(answer, cases)
    return "the bound by pairs, on five linear models of 4 to 12 classes"


EXERCISES = [
    Exercise(
        "2b.7",
        "Between the bound and the truth",
        "a function of (weight, bias, image, y, eps), for one image, that returns the "
        "bound on its cross-entropy",
        (
            "`two_rivals` wants the rows `weight[j] - weight[y]` and `weight[k] - "
            "weight[y]`, and returns two leads at each corner, still without biases",
            "for each pair j < k add both biases, take exp of both, add, and take "
            "the maximum over the corners; the bound is `log(1 + sum / (K - 2))`",
        ),
        _judge,
    )
]
