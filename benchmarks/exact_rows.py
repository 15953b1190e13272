"""Exact answers: branch and bound, the MILP of the sign, the textbook MILP."""

import statistics

import torch
from torch import Tensor, nn

from advlib import attacks, bounds, branch_and_bound, exact
from benchmarks.config import Config
from benchmarks.timing import Row, cpu_seconds

LIMIT = 100.0  # seconds for the sign of one image
LIMIT_CLASS = 60.0  # and for one class of the textbook program


def still_open(
    config: Config, name: str, eps: float, count: int
) -> tuple[Tensor, Tensor]:
    """Return images of network ``name`` that neither CROWN nor PGD decides at ``eps``.

    Images (N, ...) and labels (N,): the first ``count`` among the first 500 test
    images that the network has right.
    """
    model, (x, y) = config.network(name), config.right(name, 500)
    with torch.no_grad():
        proven = bounds.certified(bounds.crown_margins(model, x, y, eps), y)
    delta = attacks.pgd_linf(model, x, y, eps, alpha=eps / 10, num_steps=100)
    with torch.no_grad():
        stands = model(x + delta).argmax(1) == y
    kept = stands & ~proven
    return x[kept][:count], y[kept][:count]


def _textbook(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> dict:
    """Minimise the margin to every other class, with big-M from intervals."""
    pre = exact.big_m_bounds(model, x, eps, method="interval")
    margins = [
        exact.milp_margin(model, x, y, j, eps, pre=pre, time_limit=LIMIT_CLASS)
        for j in range(model(x).shape[1])
        if j != int(y)
    ]
    attacked = min(m.margin for m in margins) <= 0
    proven = min(m.bound for m in margins) > 0
    return {
        "status": "attacked" if attacked else "certified" if proven else "unknown",
        "stopped": sum(m.status == "time_limit" for m in margins),
    }


def _sign(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> dict:
    (found,) = exact.milp_robust(model, x, y, eps, time_limit=LIMIT)
    return {"status": found.status, "stopped": int(found.status == "unknown")}


def _branch(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> dict:
    (found,) = branch_and_bound.branch_and_bound(model, x, y, eps, time_limit=LIMIT)
    return {"status": found.status, "stopped": int(found.status == "unknown")}


METHODS = {"branch": _branch, "sign": _sign, "textbook": _textbook}


def _answers(
    config: Config, name: str, eps: float, x: Tensor, y: Tensor, textbooks: int
) -> list[dict]:
    """Return, for each image, what each method said and its CPU seconds."""
    model, found = config.network(name), []
    for i in range(len(y)):
        answers = {}
        for method in list(METHODS)[: 3 if i < textbooks else 2]:

            def run(method: str = method, i: int = i) -> dict:
                part = x[i : i + 1], y[i : i + 1]
                work = cpu_seconds(lambda: METHODS[method](model, *part, eps))
                return {"seconds": work[0]} | work[1]

            answers[method] = config.checkpoint(f"exact-{name}-{eps}-{i}-{method}", run)
        found.append(answers)
    return found


def _together(config: Config, name: str, eps: float, x: Tensor, y: Tensor) -> float:
    """Return the median CPU seconds of one call of branch and bound on all images."""
    model = config.network(name)
    each = [
        cpu_seconds(
            lambda: branch_and_bound.branch_and_bound(
                model, x, y, eps, time_limit=LIMIT
            )
        )[0]
        for _ in range(config.repeats)
    ]
    return statistics.median(each)


def exact_answers(config: Config) -> list[Row]:
    """Return the ratios of the three exact methods, and how often they disagree."""
    rows = []
    for name, eps, count, textbooks in config.exact:
        x, y = still_open(config, name, eps, count)
        if len(y) == 0:
            continue
        found = _answers(config, name, eps, x, y, textbooks)
        setting = f"{name}, eps {eps}, {len(y)} images open after CROWN and PGD"
        rows += _rows(setting, found)
        slow = sum(f["sign"]["seconds"] for f in found)
        fast = _together(config, name, eps, x, y)
        what = "sign MILP / branch and bound, all images in one call"
        note = f"{slow:.2f} / {fast:.2f} CPU s"
        rows.append(Row("exact", setting, what, slow / fast, ">= 20", note))
    return rows


def _rows(setting: str, found: list[dict]) -> list[Row]:
    rows = []
    for slow, fast, label, goal in [
        ("sign", "branch", "sign MILP / branch and bound", ">= 20"),
        ("textbook", "branch", "textbook MILP / branch and bound", ">= 100"),
        ("textbook", "sign", "textbook MILP / sign MILP", ">= 15"),
    ]:
        both = [f for f in found if slow in f]
        if not both:
            continue
        each = [f[slow]["seconds"] / f[fast]["seconds"] for f in both]
        total = [sum(f[n]["seconds"] for f in both) for n in (slow, fast)]
        note = f"{len(both)} images, in total {total[0]:.2f} / {total[1]:.2f} CPU s"
        if stopped := sum(f[slow]["stopped"] for f in both):
            note += f"; at least this: {stopped} runs of the slow one hit the limit"
        median = statistics.median(each)
        rows.append(
            Row("exact", setting, f"{label}, one by one, median", median, goal, note)
        )
    said = [{a["status"] for a in f.values()} for f in found]
    note = f"{sum('unknown' in s for s in said)} images with an undecided method"
    clash = sum({"certified", "attacked"} <= s for s in said)
    what = "images on which methods disagree"
    return [*rows, Row("exact", setting, what, clash, "<= 0", note)]
