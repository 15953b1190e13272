"""Is this build slower than another? Each call in both, interleaved, in CPU time.

    git worktree add --detach ../before COMMIT
    python tools/compare_builds.py ../before . --rounds 15

Three contenders take turns, each round in another order: the first build, the second,
and the first once more, whose times say how far a build differs from itself. Each turn
is a process of its own, that imports ``advlib`` from that build alone; a short call is
run once untimed, then timed: the least of its times, which a neighbour disturbs least.
A call is slower where the median of its paired ratios, second build over first, is more
than 5 % above the spread of the first build against itself: that by which three in four
of its own paired ratios differ from one, to either side.
"""

import argparse
import functools
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Calls = dict[str, Callable[[], Any]]

CONTENDERS = ("first", "second", "first again")


def _attacks(at: Callable[..., tuple]) -> Calls:
    from advlib import attacks, evaluation

    def pgd(name: str, eps: float, drop: bool) -> Callable[[], Any]:
        model, x, y = at(name, 100)
        given = {"alpha": eps / 10, "num_steps": 40, "drop_fooled": drop}
        return lambda: attacks.pgd_linf(model, x, y, eps, **given)

    def fgsm(name: str, eps: float) -> Callable[[], Any]:
        model, x, y = at(name, 1000)
        attack = functools.partial(attacks.fgsm, eps=eps)
        return lambda: evaluation.attacked_error(model, x, y, attack)

    calls = {
        f"PGD-40 {name} {eps}{' dropped' if drop else ''}": pgd(name, eps, drop)
        for name, eps, drops in [
            ("cnn_small_pgd_0", 0.3, (False,)), ("mlp_256_pgd", 0.1, (False,)),
            ("cnn_small", 0.1, (False, True)), ("mlp_256", 0.1, (False, True)),
        ] for drop in drops
    }  # fmt: skip
    return calls | {"FGSM mlp_256_pgd, 1000 images": fgsm("mlp_256_pgd", 0.1)}


def _bounds(at: Callable[..., tuple]) -> Calls:
    from advlib import bounds, certificates

    calls: Calls = {}
    for name, eps, n in [
        ("mlp_256", 0.02, 100), ("mlp_256_pgd", 0.1, 100), ("mlp_256_ibp", 0.1, 100),
        ("cnn_small", 0.02, 20), ("cnn_small_pgd_0", 0.1, 20),
    ]:  # fmt: skip
        for kind in ("interval", "crown"):
            ask = getattr(bounds, f"{kind}_margins")
            calls[f"{kind} {name}"] = functools.partial(ask, *at(name, n), eps)
    model, x, y = at("small", 1)
    calls["certificate small"] = lambda: certificates.make_certificate(
        model, x[0], int(y[0]), 0.01
    )
    return calls


def _exact(at: Callable[..., tuple]) -> Calls:
    from advlib import attacks, bounds, branch_and_bound, exact

    def still_open(name: str, eps: float, count: int) -> tuple:
        model, x, y = at(name, 300)
        proven = bounds.certified(bounds.crown_margins(model, x, y, eps), y)
        delta = attacks.pgd_linf(model, x, y, eps, alpha=eps / 10, num_steps=100)
        kept = (model(x).argmax(1) == y) & (model(x + delta).argmax(1) == y) & ~proven
        return model, x[kept][:count], y[kept][:count], eps

    def one_by_one(call: Callable[..., Any], given: tuple) -> Callable[[], Any]:
        model, x, y, eps = given
        return lambda: [call(model, x[[i]], y[[i]], eps) for i in range(len(y))]

    def textbook(model: Any, x: Any, y: Any, eps: float) -> Any:
        pre = exact.big_m_bounds(model, x, eps, method="interval")
        target = (int(y) + 1) % 10
        return exact.milp_margin(model, x, y, target, eps, pre=pre)

    calls: Calls = {}
    for name, eps, count in (
        ("small", 0.03, 3), ("small_pgd", 0.05, 3), ("small_pgd", 0.1, 1),
    ):  # fmt: skip
        given = still_open(name, eps, count)
        branch, least = branch_and_bound.branch_and_bound, exact.milp_robust
        all_open = still_open(name, eps, 20)
        for call, label in ((branch, "branch and bound"), (least, "sign MILP")):
            calls[f"{label} {name} {eps}"] = one_by_one(call, given)
        calls[f"branch and bound, together {name} {eps}"] = (
            lambda branch=branch, every=all_open: branch(*every)
        )
    easy = still_open("small", 0.03, 1)
    calls["smallest margin small 0.03"] = one_by_one(
        branch_and_bound.minimal_margin, easy
    )
    calls["textbook MILP small 0.03"] = one_by_one(textbook, easy)
    return calls


GROUPS = {"pgd": _attacks, "bounds": _bounds, "exact": _exact}


def turn(groups: list[str]) -> dict[str, float]:
    """Return the CPU seconds of each call of the ``groups``, in the build imported."""
    import torch

    from advlib import data, zoo

    torch.set_num_threads(1)
    dataset = data.load("mnist")
    models: dict = {}

    def at(name: str, count: int) -> tuple:
        if name not in models:
            models[name] = zoo.load(name, dataset).requires_grad_(False)
        return models[name], *(split[:count] for split in dataset.test)

    def timed(call: Callable[[], Any]) -> float:
        began = time.process_time()
        call()
        return time.process_time() - began

    found = {}
    for group in groups:
        for name, call in GROUPS[group](at).items():
            first = timed(call)
            each = [first] if first > 1 else []
            while not each or (len(each) < 50 and sum(each) < 0.2):
                each.append(timed(call))
            found[name] = min(each)
    return found


def _child(build: Path, groups: list[str]) -> dict[str, float]:
    here = os.environ | {"PYTHONPATH": str(build.resolve()), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-P", str(Path(__file__).resolve()), "--turn", *groups]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            command, env=here, cwd=folder, check=True, stdout=subprocess.PIPE, text=True
        )
    return json.loads(done.stdout.splitlines()[-1])


def collect(first: Path, second: Path, groups: list[str], rounds: int) -> dict:
    """Return the turns of each contender, one dictionary of CPU seconds a round."""
    builds = dict(zip(CONTENDERS, (first, second, first), strict=True))
    turns: dict[str, list[dict]] = {name: [] for name in CONTENDERS}
    for r in range(rounds):
        for name in CONTENDERS[r % 3 :] + CONTENDERS[: r % 3]:
            turns[name].append(_child(builds[name], groups))
    return turns


def judge(turns: dict[str, list[dict[str, float]]]) -> list[dict]:
    """Return, for each call, the median paired ratio, the spread and whether slower."""
    rows = []
    for call in turns["second"][0]:
        first, second, again = ([t[call] for t in turns[n]] for n in CONTENDERS)
        ratio = statistics.median(b / a for a, b in zip(first, second, strict=True))
        off = sorted(max(a / b, b / a) for a, b in zip(first, again, strict=True))
        spread = off[math.ceil(0.75 * len(off)) - 1]
        row = {"call": call, "ratio": ratio, "spread": spread}
        row |= {"first": min(first), "second": min(second)}
        rows.append(row | {"slower": ratio > 1.05 * spread})
    return rows


def main(arguments: list[str] | None = None) -> None:
    """Compare two builds and print the table; exit 1 where the second is slower."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("builds", nargs="*", type=Path, help="two checkouts")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=list(GROUPS))
    parser.add_argument("--save", type=Path, help="a file for all times, as JSON")
    parser.add_argument("--turn", nargs="+", choices=GROUPS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.turn:
        sys.stdout.write(json.dumps(turn(options.turn)) + "\n")
        return
    if len(options.builds) != 2 or options.rounds < 1:
        parser.error("need two builds, and a round or more")
    turns = collect(*options.builds, options.groups, options.rounds)
    if options.save:
        options.save.write_text(json.dumps(turns))
    rows = judge(turns)
    for row in rows:
        sys.stdout.write(
            f"{row['call']:44} {1e3 * row['first']:9.1f} {1e3 * row['second']:9.1f} ms"
            f"  ratio {row['ratio']:.3f}  spread {row['spread']:.3f}"
            f"{'  SLOWER' if row['slower'] else ''}\n"
        )
    slower = sum(row["slower"] for row in rows)
    load = os.getloadavg()[0]
    sys.stdout.write(f"{options.rounds} rounds, {slower} slower, load {load:.1f}\n")
    sys.exit(int(slower > 0))


if __name__ == "__main__":
    main()
