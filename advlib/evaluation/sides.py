"""Both sides at once: what each method leaves as errors, from the outside in."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from advlib._check import check_images
from advlib.attacks import Attack
from advlib.evaluation.errors import (
    Bound,
    generators_kept,
    listed,
    perturbed,
    uncertified,
    wrong,
)
from advlib.exact import Verdict

Complete = Callable[[nn.Module, Tensor, Tensor], Sequence[Verdict]]


@dataclass(frozen=True)
class BothSides:
    """For each method the images (N,), bool, that it leaves as errors.

    ``errors`` from the weakest attack over "exact" and "open" (errors if all images
    without a verdict are counted as such) to the loosest bound; ``seconds`` of CPU
    time and the number of ``images`` on which a method ran.
    """

    errors: dict[str, Tensor]
    seconds: dict[str, float]
    images: dict[str, int]

    def counts(self) -> dict[str, int]:
        """Return the number of errors by method, in order: they must not fall."""
        return {name: int(mask.sum()) for name, mask in self.errors.items()}

    def crossings(self, below: Sequence[str]) -> list[tuple[str, str]]:
        """Return the pairs that contradict each other; none if all are right.

        ``below`` names the attacks: an image that one of them fooled must be an error
        for every method above.
        """
        names = list(self.errors)
        above = [n for n in names if n not in ("clean", "exact", *below)]
        lows = [*below, *(["exact"] if "exact" in names else [])]
        return [
            (low, high)
            for low in lows
            for high in above
            if (self.errors[low] & ~self.errors[high]).any()
        ]


def both_sides(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    attacks: Mapping[str, Attack],
    bounds: Mapping[str, Bound],
    exact: Complete | None = None,
    *,
    shortcut: bool = True,
    box: bool = True,
) -> BothSides:
    """Hold the true robust error of ``model`` on images ``x``, ``y`` from both sides.

    ``attacks`` from weak to strong, ``bounds`` from loose to tight, ``exact`` a
    complete method that returns one verdict per image. With ``shortcut`` from the
    outside in: each method only runs on images that those before it left open, so its
    errors include theirs. Without it each runs alone on every image: dearer, and a
    test of the order. ``box`` and generators inside of ``functools.partial`` as in
    ``attacked``. Raises what ``attacked``, ``uncertified`` and the methods raise,
    ``TypeError`` for what is no dictionary of functions, and ``ValueError`` for a name
    that stands twice or is "clean", "exact" or "open", and unless ``exact`` returns one
    verdict per image.
    """
    check_images(x)
    methods = listed([] if exact is None else exact, "exact")
    for what, given in (("attacks", attacks), ("bounds", bounds)):
        if not isinstance(given, Mapping):
            raise TypeError(f"{what}: a dictionary, a name for each function")
        methods += listed(given.values(), what)
    names = [*attacks, *bounds, "clean", "exact", "open"]
    if len(set(names)) < len(names):
        raise ValueError(f"each name stands for one method: {names}")
    with generators_kept(methods):
        return _from_outside_in(model, x, y, attacks, bounds, exact, shortcut, box)


def _from_outside_in(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    attacks: Mapping[str, Attack],
    bounds: Mapping[str, Bound],
    exact: Complete | None,
    shortcut: bool,
    box: bool,
) -> BothSides:
    runner = _Runner(model, x, y, shortcut)
    clean = wrong(model, x, y)
    lower, upper, middle = {}, {}, {}
    fallen, proved = clean, torch.zeros_like(clean)
    for name, attack in attacks.items():
        hit = runner.run(name, _fools(attack, box), ~fallen)
        lower[name] = hit | (fallen if shortcut else clean)
        fallen = fallen | lower[name]
    start = fallen if shortcut else clean
    for name, bound in bounds.items():
        sure = runner.run(name, _proves(bound), ~fallen & ~proved)
        upper = {name: ~(sure | proved) if shortcut else ~sure, **upper}
        proved = proved | sure
    if exact is not None:
        status = runner.run("exact", _decides(exact), ~fallen & ~proved)
        broken = (status == 1) | start
        safe = (status == 2) | proved if shortcut else status == 2
        middle = {"exact": broken, "open": ~safe}
    errors = {"clean": clean, **lower, **middle, **upper}
    return BothSides(errors, runner.seconds, runner.images)


class _Runner:
    """Run a method on the open images, or on all of them; keep what it cost."""

    def __init__(self, model: nn.Module, x: Tensor, y: Tensor, shortcut: bool) -> None:
        self.model, self.x, self.y, self.shortcut = model, x, y, shortcut
        self.seconds: dict[str, float] = {}
        self.images: dict[str, int] = {}

    def run(
        self,
        name: str,
        decide: Callable[[nn.Module, Tensor, Tensor], Tensor],
        left: Tensor,
    ) -> Tensor:
        left = left if self.shortcut else torch.ones_like(left)
        began = time.process_time()
        found = torch.zeros_like(self.y, dtype=torch.uint8)
        if left.any():
            decided = decide(self.model, self.x[left], self.y[left])
            found[left] = decided.to(torch.uint8)
        self.seconds[name] = time.process_time() - began
        self.images[name] = int(left.sum())
        return found if name == "exact" else found.bool()


def _fools(attack: Attack, box: bool) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
    return lambda model, x, y: wrong(model, perturbed(attack, model, x, y, box=box), y)


def _proves(bound: Bound) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
    return lambda model, x, y: ~uncertified(model, x, y, bound)


def _decides(exact: Complete) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
    codes = {"unknown": 0, "attacked": 1, "certified": 2}

    def decide(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        found = [codes[verdict.status] for verdict in exact(model, x, y)]
        if len(found) != len(y):
            raise ValueError(f"{len(found)} verdicts on {len(y)} images")
        return torch.tensor(found, device=y.device)

    return decide
