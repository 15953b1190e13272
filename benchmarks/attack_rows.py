"""Attacks: PGD beside the physical limit, the ensemble beside AutoAttack."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from advlib import attacks
from benchmarks import peers
from benchmarks.config import Config, NotRunError
from benchmarks.timing import Row, cpu_seconds, interleaved, ratio

PGD_PEERS = {
    "torchattacks": peers.torchattacks_pgd,
    "foolbox": peers.foolbox_pgd,
    "ART": peers.art_pgd,
}


def floor(model: nn.Module, x: Tensor, y: Tensor, steps: int) -> Callable[[], None]:
    """Return ``steps`` times forward and input gradient, and nothing else."""

    def run() -> None:
        for _ in range(steps):
            point = x.detach().requires_grad_()
            loss = attacks.cross_entropy(model(point), y).sum()
            torch.autograd.grad(loss, point)

    return run


def pgd(config: Config) -> list[Row]:
    """Return PGD's ratios to the floor: a robust CNN and MLP, then plain ones."""
    rows = []
    for kind, name, eps in [
        *[("robust", *pair) for pair in config.robust],
        *[("plain", *pair) for pair in config.plain],
    ]:
        rows += _pgd_rows(config, name, eps, kind == "plain")
    return rows


def _pgd_rows(config: Config, name: str, eps: float, drop: bool) -> list[Row]:
    model, (x, y) = config.network(name), config.first(config.batch)
    alpha, steps = eps / 10, config.steps  # the tutorial's: 0.01 at 0.1

    def ours(drop_fooled: bool = False) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return attacks.pgd_linf(
            model, x, y, eps, alpha=alpha, num_steps=steps, generator=generator,
            drop_fooled=drop_fooled,
        )  # fmt: skip

    calls = {"floor": floor(model, x, y, steps), "advlib": ours}
    if drop:
        calls["advlib, fooled images dropped"] = lambda: ours(True)
    absent = {}
    for peer, build in PGD_PEERS.items():
        try:
            calls[peer] = build(model, x, y, eps, alpha, steps)
        except ImportError as error:
            absent[peer] = str(error)
    with peers.quiet():
        times = interleaved(calls, config.repeats)
        left = {n: _standing(model, x, y, calls[n]()) for n in list(calls)[1:]}
    setting = f"PGD-{steps}, {name}, eps {eps}, batch {len(y)}"
    goals = {"advlib": "<= 1.05" if "cnn" in name else "<= 1.10"}
    goals["advlib, fooled images dropped"] = "<= 0.50"
    rows = [
        Row("pgd", setting, f"{n} / floor", ratio(times, n, "floor"), goals.get(n, ""),
            f"{left[n]} of {len(y)} stand")
        for n in left
    ]  # fmt: skip
    if "torchattacks" in calls:
        both = ratio(times, "advlib", "torchattacks")
        rows.append(Row("pgd", setting, "advlib / torchattacks", both, "<= 1.00"))
    return rows + [Row("pgd", setting, p, None, "", why) for p, why in absent.items()]


def _standing(model: nn.Module, x: Tensor, y: Tensor, delta: Tensor) -> int:
    with torch.no_grad():
        return int((model(x + delta).argmax(1) == y).sum())


def strong(config: Config) -> list[Row]:
    """Return the ensemble beside AutoAttack: images that stand, and CPU time.

    Each network with all seeds, for the spread of both.
    """
    rows, found = [], []
    for name in config.strong:
        setting = f"{name}, eps {config.strong_eps}, {config.images} images"
        for seed in config.seeds:
            try:
                key = f"autoattack-{name}-{seed}"
                run = functools.partial(_theirs, config, name, seed)
                theirs = config.checkpoint(key, run)
            except (ImportError, NotRunError) as error:
                what = f"AutoAttack, seed {seed}: images that stand"
                rows.append(Row("strong", setting, what, None, "", str(error)))
                theirs = None
            found.append((name, theirs))
            for search in (True, False):
                rows += _strong_rows(config, setting, name, seed, search, theirs)
    for name in config.strong:
        spread = [t["standing"] for n, t in found if t and n == name]
        if len(spread) > 1:
            what = f"AutoAttack's spread over {len(spread)} seeds"
            gap = max(spread) - min(spread)
            rows.append(Row("strong", name, what, gap, "", str(spread)))
    return rows


def _ours(config: Config, name: str, search: bool, seed: int) -> dict:
    model, (x, y) = config.network(name), config.first(config.images)

    def run() -> int:
        delta = attacks.strong_attack(
            model, x, y, config.strong_eps, search=search, seed=seed
        )
        return _standing(model, x, y, delta)

    seconds, standing = cpu_seconds(run)
    return {"seconds": seconds, "standing": standing}


def _theirs(config: Config, name: str, seed: int) -> dict:
    model, (x, y) = config.network(name), config.first(config.images)
    run = peers.autoattack(model, x, y, config.strong_eps, seed)
    seconds, standing = cpu_seconds(run)
    return {"seconds": seconds, "standing": int(standing.sum())}


def _strong_rows(
    config: Config, setting: str, name: str, seed: int, search: bool, theirs: dict
) -> list[Row]:
    label = f"strong_attack {'with' if search else 'without'} search, seed {seed}"
    key = f"strong-{name}-{'search' if search else 'fast'}-{seed}"
    goals = ("<= 3", "<= 0.4") if search else ("<= 8", "<= 0.15")
    try:
        run = functools.partial(_ours, config, name, search, seed)
        ours = config.checkpoint(key, run)
    except NotRunError as error:
        return [Row("strong", setting, label, None, "", str(error))]
    note = f"{ours['standing']} stand, {ours['seconds']:.0f} CPU s"
    if theirs is None:
        what = f"{label}: images that stand"
        return [Row("strong", setting, what, ours["standing"], "", note)]
    more = ours["standing"] - theirs["standing"]
    share = ours["seconds"] / theirs["seconds"]
    other = f"AutoAttack {theirs['standing']} stand, {theirs['seconds']:.0f} CPU s"
    return [
        Row(
            "strong", setting, f"{label}: images above AutoAttack", more, goals[0], note
        ),
        Row("strong", setting, f"{label}: CPU / AutoAttack", share, goals[1], other),
    ]
