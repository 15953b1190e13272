"""The verifier challenge: write ``verify``, and be scored as in the competition.

``verify(model, image, label, eps, seconds)`` says of one image whether some allowed
perturbation (l-infinity, cut to [0, 1]) makes the network answer wrongly:
"certified" (none does), "attacked" (one does; a tie counts) or "unknown". A right
answer gives 10 points, a wrong one takes 150, "unknown" gives nothing, as in the yearly
competition of verifiers: who guesses loses.

``score(verify)`` asks it about cases that are drawn anew each time. Their truth is
known: by branch and bound for networks of the zoo, by construction for planted ones.
"""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import product

import numpy as np
import torch
from torch import Tensor, nn

from advlib import bounds, data, evaluation, zoo
from advlib._check import check_counts
from advlib.exact import branch_and_bound
from advlib.networks import models
from advlib.tables import Table, table

Verify = Callable[[nn.Module, Tensor, Tensor, float, float], str]
ANSWERS = ("certified", "attacked", "unknown")
RIGHT, WRONG = 10, -150
TIME = "CPU s"
# a network, from where to where most images are robust, and up to where most are not
RADII = {
    "small": (0.01, 0.05, 0.1),
    "small_pgd": (0.03, 0.1, 0.2),
    "small_ibp": (0.05, 0.12, 0.3),
}


@dataclass(frozen=True)
class Case:
    """One question with its answer.

    ``model`` in eval mode, float64; ``image`` (1, C, H, W) in [0, 1]; ``label`` (1,)
    int64; ``eps`` in units of the image. ``truth``: "certified" or "attacked", then
    with a ``witness``, a perturbation shaped as the image, that fools the network.
    ``kind``: where the case is from.
    """

    model: nn.Module
    image: Tensor
    label: Tensor
    eps: float
    truth: str
    witness: Tensor | None
    kind: str


@dataclass(frozen=True)
class Score:
    """Points of each verifier, and what went wrong with the reader's.

    ``rows``: for each verifier the counts of right, wrong and unknown answers (those
    that came too late are "late", and count as unknown), its score and its CPU
    seconds. ``messages``: one sentence for each of the reader's mistakes.
    """

    rows: dict[str, dict[str, float]]
    messages: list[str]

    def table(self, *, times: bool = True) -> Table:
        """Return the rows as a table, the best first, perhaps without ``times``."""
        order = sorted(self.rows, key=lambda name: -self.rows[name]["score"])
        columns = [
            key for key in next(iter(self.rows.values())) if times or key != TIME
        ]
        rows = {name: self.rows[name] for name in order}
        return table(rows, "verifier", columns=columns)

    def _repr_html_(self) -> str:
        said = "".join(f"<p>{escape(message)}</p>" for message in self.messages)
        return self.table()._repr_html_() + said

    def __repr__(self) -> str:
        return "\n".join([repr(self.table()), *self.messages])


def planted(seed: int, *, robust: bool) -> Case:
    """Return a tiny network whose worst corner is known, 1/64 beyond zero or at it.

    Six pixels, one ReLU layer, weights that are whole numbers of 1/8: the margin is a
    constant less a sum of ReLUs, so its minimum is at a corner of the ball, and all 64
    are tried, without rounding. ``robust``: the smallest margin is 1/64; else it is 0,
    a tie, at a single corner as a rule, which gradients seldom find.
    ``seed`` draws image and weights. Raises ``ArithmeticError`` if the margin is not
    what it must be.
    """
    rng = np.random.default_rng(seed)
    image = torch.tensor(rng.integers(3, 6, 6) / 8).view(1, 1, 2, 3)
    eps = 0.25
    model = models.mlp((1, 2, 3), [12], 2).double().eval().requires_grad_(False)
    first, last = model[1], model[3]
    first.weight.data = torch.tensor(rng.integers(-8, 9, (12, 6)) / 8)
    first.bias.data = torch.tensor(rng.integers(-12, 5, 12) / 8)
    signs = torch.tensor(list(product((-1.0, 1.0), repeat=6))).double()
    corners = image + eps * signs.view(64, 1, 2, 3)
    sums = model[:3](corners).sum(1)
    last.weight.data = torch.stack([torch.zeros(12), torch.ones(12)]).double()
    last.bias.data = torch.tensor([float(sums.max()) + robust / 64, 0.0]).double()
    worst = corners[sums.argmax()][None]
    logits = model(worst)[0]
    if float(logits[0] - logits[1]) != robust / 64:
        raise ArithmeticError("a planted margin is not what it must be")
    return Case(
        model,
        image,
        torch.tensor([0]),
        eps,
        "certified" if robust else "attacked",
        None if robust else worst - image,
        "planted",
    )


def from_zoo(
    rng: np.random.Generator, wanted: str, dataset: data.Dataset, max_nodes: int = 2000
) -> Case | None:
    """Return a test image with a radius at which the answer is ``wanted``.

    The network is one of three small ones: standard, PGD-trained, trained on intervals;
    ``rng`` draws it, the radius and the image among the test images of ``dataset``.
    The truth is that of branch and bound; None if an image that was drawn is misread as
    it is, or has another answer, or none within ``max_nodes`` subproblems.
    """
    name = list(RADII)[rng.integers(len(RADII))]
    low, middle, high = RADII[name]
    ends = (low, middle) if wanted == "certified" else (middle, high)
    eps = round(float(rng.uniform(*ends)), 3)
    images, labels = dataset.test
    pick = int(rng.integers(len(labels)))
    image, label = images[pick : pick + 1].double(), labels[pick : pick + 1]
    model = zoo.load(name, dataset).double().requires_grad_(False)
    if evaluation.wrong(model, image, label).any():
        return None
    (found,) = branch_and_bound.branch_and_bound(
        model, image, label, eps, max_nodes=max_nodes
    )
    if found.status != wanted:
        return None
    witness = None if found.delta is None else found.delta[None]
    return Case(model, image, label, eps, found.status, witness, name)


def cases(count: int = 24, seed: int | None = None) -> list[Case]:
    """Return ``count`` cases, in turn robust and not: one in three is planted.

    Without a ``seed`` they are others at each call. Raises ``ValueError`` if count < 1.
    """
    check_counts(1, count=count)
    rng, dataset = np.random.default_rng(seed), data.default()
    made: list[Case] = []
    while len(made) < count:
        wanted = ("certified", "attacked")[len(made) % 2]
        if len(made) % 3 == 0:
            case = planted(int(rng.integers(2**31)), robust=wanted == "certified")
        else:
            case = from_zoo(rng, wanted, dataset)
        made += [case] if case else []
    return [made[k] for k in rng.permutation(count)]


def by_margins(margins: Callable) -> Verify:
    """Return the verifier that trusts ``margins``, lower bounds, and never attacks."""

    def verify(model, image, label, eps, seconds):
        safe = bounds.certified(margins(model, image, label, eps), label)
        return "certified" if bool(safe) else "unknown"

    return verify


def by_search(
    model: nn.Module, image: Tensor, label: Tensor, eps: float, seconds: float
) -> str:
    """Answer as the book's branch and bound does, within ``seconds`` of CPU time.

    ``model``, ``image`` (1, ...), ``label`` (1,) and ``eps`` as those of a ``Case``.
    """
    (found,) = branch_and_bound.branch_and_bound(
        model, image, label, eps, time_limit=seconds
    )
    return found.status


RIVALS: dict[str, Verify] = {
    "always unknown": lambda *case: "unknown",
    "intervals": by_margins(bounds.interval_margins),
    "CROWN": by_margins(bounds.crown_margins),
    "branch and bound": by_search,
}


def score(
    verify: Verify,
    *,
    name: str = "yours",
    seconds: float = 2.0,
    count: int = 24,
    seed: int | None = None,
    rivals: bool = True,
) -> Score:
    """Ask ``verify`` about ``count`` hidden cases and count its points, as ``name``.

    ``seconds`` of CPU time are allowed for a case; an answer that comes later, and an
    error, count as "unknown". ``rivals``: the book's own verifiers answer the same
    cases. With a ``seed`` the cases are the same at each call. Raises ``TypeError`` if
    ``verify`` cannot be called.
    """
    if not callable(verify):
        raise TypeError("verify must be a function (model, image, label, eps, seconds)")
    asked = cases(count, seed)
    who = {name: verify} | (RIVALS if rivals else {})
    rows, messages = {}, []
    for row, function in who.items():
        found = [_answer(function, case, seconds) for case in asked]
        rows[row] = _row(asked, found, seconds)
        if row == name:
            messages = _mistakes(asked, found, seconds)
    return Score(rows, messages)


def _answer(verify: Verify, case: Case, seconds: float) -> tuple[str, float]:
    """Return an answer, or what was wrong with it, and the CPU seconds it took."""
    model = copy.deepcopy(case.model)
    given = (case.image.clone(), case.label.clone(), case.eps, seconds)
    begin = time.process_time()
    try:
        said = verify(model, *given)
    except Exception as error:  # the reader's code may raise anything
        said = f"raised {type(error).__name__}: {error}"
    spent = time.process_time() - begin
    if said in ANSWERS or str(said).startswith("raised "):
        return str(said), spent
    return f"answered {said!r}", spent


def _row(
    asked: Sequence[Case], found: Sequence[tuple[str, float]], seconds: float
) -> dict[str, float]:
    row = {"right": 0, "wrong": 0, "unknown": 0, "late": 0, "score": 0, TIME: 0.0}
    for case, (said, spent) in zip(asked, found, strict=True):
        row[TIME] += spent
        if spent > seconds:
            row["late"] += 1
        elif said not in ("certified", "attacked"):
            row["unknown"] += 1
        else:
            row["right" if said == case.truth else "wrong"] += 1
    row["score"] = RIGHT * row["right"] + WRONG * row["wrong"]
    row[TIME] = round(row[TIME], 1)
    return row


def _mistakes(
    asked: Sequence[Case], found: Sequence[tuple[str, float]], seconds: float
) -> list[str]:
    """Return a sentence for each kind of mistake, with its first case."""
    said_of: dict[str, str] = {}
    for k, (case, (said, spent)) in enumerate(zip(asked, found, strict=True)):
        where = f"case {k} ({case.kind}, eps {case.eps:g})"
        if spent > seconds:
            kind, text = "late", f"{where} took {spent:.1f} s of {seconds:g}"
        elif said == "certified" and case.witness is not None:
            z = case.model(case.image + case.witness)[0]
            rival = z.clone()
            rival[case.label] = -torch.inf
            kind = "false certificate"
            text = (
                f"{where} is certified and has a counterexample: one allowed "
                f"perturbation has the margin {float(z[case.label] - rival.max()):.3g}"
            )
        elif said == "attacked" and case.truth == "certified":
            kind, text = "false alarm", f"{where} is called attacked and is robust"
        elif said in ANSWERS:
            continue
        else:
            kind = "no answer"
            text = f"{where}: verify {said}; it must answer one of {', '.join(ANSWERS)}"
        said_of.setdefault(kind, text)
    return list(said_of.values())
