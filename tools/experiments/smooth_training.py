"""Chapter 11: adversarial training with ReLU, its surrogates and smooth activations.

CIFAR-10 (JPEG), l-inf eps 8/255, box respected; ``models.residual_small`` on the first
20 000 training images, 15 epochs. Every arm is compared with ReLU at the same seed:
same initial weights, same order, same augmentation and attack noise. The runs that
the committed result already holds are not made again; it is written after every run.
One run takes three to five minutes of one core, all of them about eight hours.
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
from safetensors.torch import save_file
from torch import Tensor, nn

from advlib import activations, attacks, data, evaluation, models, results, training

COMMAND = "python tools/experiments/smooth_training.py"
EPS = 8 / 255
TRAINED, VALIDATED, ATTACKED = 20_000, 500, 500
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
    "relu_twice_as_long": Arm(length=2),
    "relu_four_times_as_long": Arm(length=4),
}


def tasks() -> list[tuple[str, int]]:
    """Return (arm, seed) in order: every arm at seed 0, 1, 2, then the main arms."""
    listed = [(arm, seed) for seed in range(PLAN["other_seeds"]) for arm in ARMS]
    later = range(PLAN["other_seeds"], PLAN["main_seeds"])
    return listed + [(arm, seed) for seed in later for arm in PLAN["main"]]


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


def strong(smooth: bool) -> attacks.Attack:
    """Return the ensemble through one of the two gradients; search comes once."""

    def attack(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        twin = activations.with_gradient(model, smooth=smooth)
        return attacks.strong_attack(
            twin, x, y, EPS, num_restarts=12, search=smooth, num_queries=300
        )

    return attack


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


def run(name: str, seed: int, dataset: data.Dataset, cache: Path) -> dict:
    """Train one arm at one seed, keep its weights in ``cache``, return its record."""
    arm = ARMS[name]
    build: Callable[[], nn.Module] = activations.ACTIVATIONS[arm.activation]
    model = models.seeded(
        models.residual_small, dataset.shape, activation=build, seed=seed
    )
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


def write(rows: list[dict]) -> None:
    """Write the result with the runs that there are."""
    rows = sorted(rows, key=lambda row: tasks().index((row["arm"], row["seed"])))
    content = {
        "plan": PLAN,
        "planned_runs": len(tasks()),
        "eps": EPS,
        "epochs": EPOCHS,
        "training_images": TRAINED,
        "validation_images": VALIDATED,
        "test_images": 10_000,
        "attacked_images": ATTACKED,
        "near": NEAR,
        "runs": rows,
    }
    results.save(
        "smooth_training",
        content,
        command=COMMAND,
        seeds=sorted({row["seed"] for row in rows}),
        dataset="cifar10_jpeg: 20 000 training, 500 validation, all test images",
        seconds=sum(row["seconds"] for row in rows),
        packages=("torch", "numpy"),
    )


def main(arguments: list[str] | None = None) -> None:
    """Make the runs that are missing, this process's share of them, one by one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path("_build/smooth_training"))
    parser.add_argument("--part", type=int, default=0, help="which share: 0, 1, ...")
    parser.add_argument("--parts", type=int, default=1, help="of how many")
    options = parser.parse_args(arguments)
    options.cache.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    path = results.RESULTS / "smooth_training.json"
    known = results.load(path.stem)["data"]["runs"] if path.is_file() else []
    for row in known:
        (options.cache / f"{row['arm']}-{row['seed']}.json").write_text(json.dumps(row))
    dataset = data.load("cifar10_jpeg")
    for name, seed in tasks()[options.part :: options.parts]:
        record = options.cache / f"{name}-{seed}.json"
        if record.is_file():
            continue
        record.write_text(json.dumps(run(name, seed, dataset, options.cache)))
        write([json.loads(p.read_text()) for p in sorted(options.cache.glob("*.json"))])
        sys.stdout.write(f"{record.read_text()}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
