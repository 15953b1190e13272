"""Chapter 11: adversarial training with ReLU, its surrogates and smooth activations.

CIFAR-10 (JPEG), l-inf eps 8/255, box respected; ``models.residual_small`` on the first
20 000 training images, 15 epochs. Every arm is compared with ReLU at the same seed:
same initial weights, same order, same augmentation and attack noise. Weights stay in
CACHE; the result is written after every step. A run that the committed result holds is
not made again, unless masks over more images are asked for (``ADDED``) and its weights
are gone: then its first counts are kept beside the new ones. ``--estimate`` measures
one training step for each arm and prints the CPU time of all that is missing.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from advlib import activations, attacks, data, evaluation, models, results, training
from advlib.files import atomic_write

COMMAND = "python tools/experiments/smooth_training.py"
EPS = 8 / 255
TRAINED, VALIDATED, ATTACKED, MASKED = 20_000, 500, 500, 2000
EPOCHS, PEAK = 15, 0.2
NEAR = 0.22  # where the surrogate's gate is between .1 and .9
# Written before the first run. Per seed, the attacked error of an arm minus that of
# ReLU (strong ensemble, both gradients, 500 images); the t-interval of the mean over
# seeds at 95 %; "different" if Holm's procedure over the five differences rejects at
# level .05, else the smallest effect found with probability .8 is printed.
PLAN = {
    "main": [
        "relu",
        "leaky_relu",
        "parametric_softplus",
        "parametric_softplus_100",
        "smooth_relu",
        "silu",
    ],
    "main_seeds": 8,
    "other_seeds": 3,
    "outcome": "attacked error under both gradients, last checkpoint, minus ReLU's",
    "test": "paired t over seeds, five differences, Holm at level .05",
}
# Written after the first 93 runs had been made and read, so no part of the plan above:
# what these arms show is exploratory, whatever their number of seeds. Three seeds for
# the four cells of the controlled experiment were too few; a smooth activation *with*
# several attack steps was missing; and counts over 500 images could say nothing about
# other images. PLAN, its outcome and its test are left as they were.
ADDED = {
    "when": "after the first 93 runs had been read: exploratory, not planned",
    "arms": [
        "surrogate_attack",
        "surrogate_update",
        "surrogate",
        "relu_5_steps",
        "silu_5_steps",
    ],
    "seeds": 8,
    "masks": "for these arms and the main ones, which of the first 2000 test images "
    "are wrong as they are, under PGD-50 through the network's own gradient, and under "
    "that or 6 restarts of 20 steps through ReLU's or 6 through the smooth gradient: "
    "at most 290 gradients an image, no search, the same for every arm",
}


@dataclass(frozen=True)
class Arm:
    """One way to train: ``num_steps`` of the attack (0: standard), ``length`` times."""

    activation: str = "relu"
    num_steps: int = 1
    length: int = 1


ARMS = {
    **{name: Arm(name) for name in PLAN["main"]},
    "surrogate_attack": Arm("surrogate_attack"),
    "surrogate_update": Arm("surrogate_update"),
    "surrogate": Arm("surrogate"),
    "softplus": Arm("softplus"),
    "gelu": Arm("gelu"),
    "elu": Arm("elu"),
    "celu": Arm("celu"),
    "smooth_relu_400": Arm("smooth_relu_400"),
    "standard": Arm("relu", num_steps=0),
    "standard_surrogate_update": Arm("surrogate_update", num_steps=0),
    "relu_2_steps": Arm(num_steps=2),
    "relu_5_steps": Arm(num_steps=5),
    "relu_10_steps": Arm(num_steps=10),
    "silu_5_steps": Arm("silu", num_steps=5),
    "relu_twice_as_long": Arm(length=2),
    "relu_four_times_as_long": Arm(length=4),
}


def seeds(arm: str) -> int:
    """Return how many seeds ``arm`` gets: the plan's number, or what was added."""
    if arm in ADDED["arms"]:
        return ADDED["seeds"]
    return PLAN["main_seeds"] if arm in PLAN["main"] else PLAN["other_seeds"]


def with_masks(arm: str) -> bool:
    """Whether it is recorded which images ``arm`` gets wrong, not only how many."""
    return arm in PLAN["main"] or arm in ADDED["arms"]


def tasks() -> list[tuple[str, int]]:
    """Return (arm, seed) in order: every arm at seed 0, then at seed 1, ..."""
    most = max(map(seeds, ARMS))
    return [(arm, seed) for seed in range(most) for arm in ARMS if seed < seeds(arm)]


def training_attack(arm: Arm, seed: int) -> attacks.Attack | None:
    """Return PGD from a random start; one step is as long as eps, as in the paper."""
    if arm.num_steps == 0:
        return None
    return partial(
        attacks.pgd_linf,
        eps=EPS,
        alpha=EPS * min(1, 2.5 / arm.num_steps),
        num_steps=arm.num_steps,
        generator=torch.Generator().manual_seed(seed),
    )


def pgd(num_steps: int) -> attacks.Attack:
    """Return the evaluating PGD, random start, step 2/255, same for all networks."""
    return lambda model, x, y: attacks.pgd_linf(
        model,
        x,
        y,
        EPS,
        alpha=2 / 255,
        num_steps=num_steps,
        generator=torch.Generator().manual_seed(0),
        drop_fooled=True,
    )


def strong(smooth: bool, restarts: int = 12, search: bool = True) -> attacks.Attack:
    """Return the ensemble through one of the two gradients; search comes once."""

    def attack(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        twin = activations.with_gradient(model, smooth=smooth)
        options = {"num_restarts": restarts, "search": smooth and search}
        return attacks.strong_attack(twin, x, y, EPS, num_queries=300, **options)

    return attack


def packed(mask: Tensor) -> str:
    """Return the bits of ``mask`` (N,) as hexadecimal, the last byte filled with 0."""
    return np.packbits(mask.numpy()).tobytes().hex()


def masks(model: nn.Module, dataset: data.Dataset) -> dict[str, str]:
    """Return which of the first ``MASKED`` test images are wrong, ``packed``.

    As they are; under PGD-50 through the own gradient; under that or short ensembles
    through both gradients, which only see what still stands.
    """
    x, y = (part[:MASKED] for part in dataset.test)
    own = evaluation.attacked(model, x, y, [pgd(50)])
    both, left = own.clone(), ~own
    if left.any():
        short = [strong(smooth, restarts=6, search=False) for smooth in (False, True)]
        both[left] = evaluation.attacked(model, x[left], y[left], short)
    found = {"clean": evaluation.wrong(model, x, y), "pgd_50": own, "strong": both}
    return {name: packed(mask) for name, mask in found.items()}


def near_the_jump(model: nn.Module, x: Tensor) -> list[float]:
    """Return for each activation layer the share of inputs within ``NEAR`` of 0."""
    kinds = tuple(type(activations.make(name)) for name in activations.ACTIVATIONS)
    shares: list[float] = []

    def look(layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        shares.append(round(float((args[0].abs() < NEAR).float().mean()), 4))

    hooks = [
        layer.register_forward_pre_hook(look)
        for layer in model.modules()
        if isinstance(layer, kinds)
    ]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return shares


class Best:
    """After each epoch: PGD-10 on validation images; keep the best weights."""

    def __init__(self, model: nn.Module, x: Tensor, y: Tensor) -> None:
        self.model, self.x, self.y = model, x, y
        self.wrong: list[int] = []
        self.weights: dict[str, Tensor] = {}

    def __call__(self, epoch: int, objective: float) -> None:
        """Measure; the first of equals is kept."""
        fooled = evaluation.attacked(self.model, self.x, self.y, [pgd(10)])
        self.wrong.append(int(fooled.sum()))
        if self.wrong[-1] < min(self.wrong[:-1], default=len(self.y) + 1):
            state = self.model.state_dict()
            self.weights = {name: value.clone() for name, value in state.items()}


def measure(
    model: nn.Module, best: Best, dataset: data.Dataset
) -> dict[str, int | list[int] | list[float]]:
    """Return the errors of the last and of the best checkpoint, as counts."""
    x, y = (part[:ATTACKED] for part in dataset.test)
    row: dict[str, int | list[int] | list[float]] = {
        "clean_wrong": int(evaluation.wrong(model, *dataset.test).sum()),
        "pgd_wrong": [
            int(evaluation.attacked(model, x, y, [pgd(k)]).sum())
            for k in (1, 2, 5, 10, 20, 50)
        ],
        "strong_relu_gradient_wrong": int(
            evaluation.attacked(model, x, y, [strong(False)]).sum()
        ),
        "strong_wrong": int(
            evaluation.attacked(model, x, y, [strong(False), strong(True)]).sum()
        ),
        "near_the_jump": near_the_jump(model, x),
        "alphas": [
            round(layer.alpha, 1)
            for layer in model.modules()
            if isinstance(layer, activations.SmoothReLU)
        ],
    }
    model.load_state_dict(best.weights)
    row["best_clean_wrong"] = int(evaluation.wrong(model, *dataset.test).sum())
    row["best_pgd_20_wrong"] = int(evaluation.attacked(model, x, y, [pgd(20)]).sum())
    return row


def network(name: str, seed: int, dataset: data.Dataset) -> nn.Module:
    """Return the network of an arm before training, the same for every call."""
    build: Callable[[], nn.Module] = activations.ACTIVATIONS[ARMS[name].activation]
    return models.seeded(
        models.residual_small, dataset.shape, activation=build, seed=seed
    )


def run(name: str, seed: int, dataset: data.Dataset, cache: Path) -> dict:
    """Train one arm at one seed, keep its weights in ``cache``, return its record."""
    arm, model = ARMS[name], network(name, seed, dataset)
    best = Best(model, *(part[:VALIDATED] for part in dataset.validation))
    epochs = EPOCHS * arm.length
    middle = (np.arange(epochs) + 0.5) / epochs
    began = time.process_time()
    history = training.fit(
        model,
        *(part[:TRAINED] for part in dataset.train),
        epochs=epochs,
        lr=np.interp(middle, [0, 1 / 3, 1], [0, PEAK, 0]).tolist(),
        batch_size=128,
        attack=training_attack(arm, seed),
        momentum=0.9,
        weight_decay=5e-4,
        augment=training.shift_and_flip,
        after_epoch=best,
        seed=seed,
    )
    trained = time.process_time() - began
    weights = {key: value.contiguous() for key, value in model.state_dict().items()}
    save_file(weights, cache / f"{name}-{seed}.safetensors")
    row = {"arm": name, "seed": seed, **measure(model, best, dataset)}
    row["objective"] = [round(value, 4) for value in history]
    row["validation_pgd_10_wrong"] = best.wrong
    row["training_seconds"] = round(trained, 1)
    row["seconds"] = round(time.process_time() - began, 1)
    return row


def stored(row: dict, dataset: data.Dataset, cache: Path) -> nn.Module | None:
    """Return the trained network of ``row``, if ``cache`` still has *its* weights."""
    path = cache / f"{row['arm']}-{row['seed']}.safetensors"
    if not path.is_file():
        return None
    model = network(row["arm"], row["seed"], dataset)
    model.load_state_dict(load_file(path))
    same = int(evaluation.wrong(model, *dataset.test).sum()) == row["clean_wrong"]
    return model if same else None


def finished(name: str, row: dict | None) -> bool:
    """Whether nothing is missing in ``row``, which is None before the first run."""
    return row is not None and ("masks" in row or not with_masks(name))


def read(path: Path) -> dict | None:
    """Return the row that ``path`` holds, None if there is none."""
    return json.loads(path.read_text()) if path.is_file() else None


def complete(name: str, seed: int, dataset: data.Dataset, cache: Path) -> dict:
    """Return the row of one run with what it lacked; keep each step in ``cache``."""
    path = cache / f"{name}-{seed}.json"
    row = read(path)
    model = stored(row, dataset, cache) if row else None
    if row is None or (model is None and not finished(name, row)):
        first, row = row, run(name, seed, dataset, cache)
        if first:  # the run that was made and read before: what it counted stays
            earlier = {key: first[key] for key in ("clean_wrong", "strong_wrong")}
            row["first"] = first.get("first", earlier)
        atomic_write(path, json.dumps(row).encode())
    if not finished(name, row):
        began = time.process_time()
        row["masks"] = masks(model or stored(row, dataset, cache), dataset)
        row["mask_seconds"] = round(time.process_time() - began, 1)
        atomic_write(path, json.dumps(row).encode())
    return row


def write(rows: list[dict]) -> None:
    """Write the result with the runs that there are."""
    rows = sorted(rows, key=lambda row: tasks().index((row["arm"], row["seed"])))
    content = {
        "plan": PLAN,
        "added": ADDED,
        "planned_runs": len(tasks()),
        "eps": EPS,
        "epochs": EPOCHS,
        "training_images": TRAINED,
        "validation_images": VALIDATED,
        "test_images": 10_000,
        "attacked_images": ATTACKED,
        "masked_images": MASKED,
        "near": NEAR,
        "runs": rows,
    }
    results.save(
        "smooth_training",
        content,
        command=COMMAND,
        seeds=sorted({row["seed"] for row in rows}),
        dataset="cifar10_jpeg: 20 000 training, 500 validation, all test images",
        seconds=sum(row["seconds"] + row.get("mask_seconds", 0) for row in rows),
        packages=("torch", "numpy"),
    )


def estimate(missing: list[tuple[str, int, bool]], dataset: data.Dataset) -> float:
    """Return about how many CPU seconds ``missing`` will take here.

    One entry a run: arm, seed, and whether it has to be trained. One batch of each arm
    is trained and one batch of 250 images is differentiated; the rest is counting, with
    a third of the images standing, as in the first runs.
    """
    x, y = (part[:256] for part in dataset.train)
    model = network("relu", 0, dataset)
    attacks.input_gradient(model, x[:250], y[:250])  # the first call is slower
    began = time.process_time()
    attacks.input_gradient(model, x[:250], y[:250])
    gradient = (time.process_time() - began) / min(250, len(x))
    steps: dict[str, float] = {}
    for name in {name for name, _, train in missing if train}:
        model, attack = network(name, 0, dataset), training_attack(ARMS[name], 0)
        few = {"epochs": 1, "lr": 0.01, "batch_size": 128, "attack": attack}
        began = time.process_time()
        training.fit(model, x, y, momentum=0.9, **few)
        steps[name] = (time.process_time() - began) / -(-len(x) // 128)
    seconds = 0.0
    for name, _, train in missing:
        epochs = EPOCHS * ARMS[name].length
        if train:  # PGD-1 to 50, PGD-20, both ensembles and the search, validation
            seconds += steps[name] * epochs * -(-TRAINED // 128)
            looks = ATTACKED * (88 + 20 + 480 + 300) + epochs * VALIDATED * 10
            seconds += gradient * looks / 3
        if with_masks(name):
            seconds += gradient * MASKED * 290 / 3
    return seconds


def main(arguments: list[str] | None = None) -> None:
    """Make what is missing, this process's share of it, one run after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path("_build/smooth_training"))
    parser.add_argument("--part", type=int, default=0, help="which share: 0, 1, ...")
    parser.add_argument("--parts", type=int, default=1, help="of how many")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--estimate", action="store_true", help="only say how long")
    options = parser.parse_args(arguments)
    options.cache.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    path = results.RESULTS / "smooth_training.json"
    known = results.load(path.stem)["data"]["runs"] if path.is_file() else []
    for row in known:  # the cache may know more
        part = options.cache / f"{row['arm']}-{row['seed']}.json"
        kept = read(part)
        if kept is None or ("masks" in row and "masks" not in kept):
            atomic_write(part, json.dumps(row).encode())
    dataset = data.load("cifar10_jpeg")
    missing = []
    for name, seed in tasks()[options.part :: options.parts]:
        row = read(options.cache / f"{name}-{seed}.json")
        if name in options.arms and not finished(name, row):
            gone = row is None or stored(row, dataset, options.cache) is None
            missing.append((name, seed, gone))
    hours = estimate(missing, dataset) / 3600
    trained = sum(gone for _, _, gone in missing)
    sys.stdout.write(
        f"{len(missing)} runs lack something, {trained} of them their network: "
        f"about {hours:.1f} hours of one core\n"
    )
    sys.stdout.flush()
    for name, seed, _ in [] if options.estimate else missing:
        row = complete(name, seed, dataset, options.cache)
        write([json.loads(p.read_text()) for p in sorted(options.cache.glob("*.json"))])
        sys.stdout.write(f"{name} {seed}: {row['strong_wrong']} of {ATTACKED}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
