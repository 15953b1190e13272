"""Which signs of masked gradients fire, on masked networks and on all honest ones.

One command, about 10 minutes of CPU time: python tools/experiments/masking.py
The thresholds of ``evaluation.SIGNS`` come from two networks alone, one honest and one
masked; the command computes them anew and stops if they are others. Then it runs the
checks on masked networks of other kinds and on every network of the zoo, and lists the
honest ones on which a check fired. For the clip two signs were tried: dead pixels, and
a random start of PGD that fools what the start at the image leaves. The second also
fired on three honest networks, where it was right about the attack and wrong about a
mask, and was dropped.
"""

import math
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from advlib import attacks, data, evaluation, models, results, zoo

COMMAND = "python tools/experiments/masking.py"
IMAGES, STEPS, QUERIES, SEED = 1000, 40, 500, 0
# its factor was chosen of 10, 30, 100, 300, on 200 images: there most checks respond
SATURATED = "saturated"
MASKS: dict[str, Callable[[nn.Sequential], nn.Sequential]] = {
    SATURATED: partial(models.sharpened, factor=300.0),
    "quantised": lambda net: nn.Sequential(models.Quantise(8), net).eval(),
    "logits x 1000": lambda net: nn.Sequential(net, models.Scale(1000.0)).eval(),
    "random": lambda net: nn.Sequential(models.Noise(0.3), net).eval(),
    "clipped": lambda net: nn.Sequential(nn.Hardtanh(0.0, 1.0), net).eval(),
    "rippled": lambda net: nn.Sequential(models.Ripple(), net).eval(),
}
Task = tuple[str, str | None]  # a network of the zoo, and its mask
CALIBRATION: tuple[Task, Task] = (("mlp_256_pgd", None), ("fc_100_100", SATURATED))
BASES = ("cnn_small", "dnn_2_pgd")
SUBSTITUTES = {
    "mnist": ("dnn_2", "small_pgd"),
    "cifar10_jpeg": ("cnn_shallow_1", "cnn_deep_1"),
}
DEFAULT = 0.05
RULE = (
    "the geometric mean of the high end of the honest network's interval and the low "
    f"end of the masked one's, to three digits; {DEFAULT} if the latter is not above "
    "the former"
)


def thresholds(honest: dict[str, Sequence], masked: dict[str, Sequence]) -> dict:
    """Return the threshold of each check by the rule, from intervals (low, high)."""
    found = {}
    for name, (_, high) in honest.items():
        low = masked[name][0]
        found[name] = round(math.sqrt(low * high), 3) if low > high else DEFAULT
    return found


def tasks(dataset: str) -> list[Task]:
    """Return what is measured on a data set: masked networks, then all of the zoo."""
    if dataset != "mnist":
        here = zoo.WEIGHTS.glob(f"{dataset}-*.safetensors")
        known = {path.stem.removeprefix(f"{dataset}-") for path in here}
        return [(name, None) for name in zoo.RECIPES if name in known]
    others = [mask for mask in MASKS if mask != SATURATED]
    masked = [(base, mask) for base in BASES for mask in others]
    honest = [(name, None) for name in zoo.RECIPES]
    return [*CALIBRATION, *masked, *(t for t in honest if t not in CALIBRATION)]


def radius(base: str, dataset: str) -> float:
    """Return the l-inf radius: that of the training, else 0.1, on photos 8/255."""
    usual = 8 / 255 if dataset.startswith("cifar") else 0.1
    return zoo.RECIPES[base].eps or usual


def errors(
    model: nn.Module, base: nn.Module, x: Tensor, y: Tensor, eps: float
) -> dict[str, int]:
    """Count the images wrong as they are, under FGSM, under PGD, and adaptively.

    FGSM and PGD work on ``model``, "adaptive" is PGD on what is under the mask.
    """
    changing = any(isinstance(layer, models.Noise) for layer in model.modules())
    options = {"eps": eps, "alpha": 2.5 * eps / STEPS, "num_steps": STEPS}
    pgd = partial(attacks.pgd_linf, **options, drop_fooled=not changing)
    methods = {
        "clean": [],
        "fgsm": [partial(attacks.fgsm, eps=eps)],
        "pgd": [pgd],
        "adaptive": [lambda _, x, y: pgd(base, x, y)],
    }
    found = {}
    for name, listed in methods.items():
        with torch.random.fork_rng():
            torch.manual_seed(SEED)
            fallen = evaluation.attacked(model, x, y, listed)
        found[f"{name}_wrong"] = int(fallen.sum())
    return found


def measured(task: Task, dataset: data.Dataset, images: int = IMAGES) -> dict:
    """Return the record of one network on the first test images."""
    base, mask = task
    began = time.process_time()
    plain = zoo.load(base, dataset).requires_grad_(False)
    model = MASKS[mask](plain) if mask else plain
    others = [s for s in SUBSTITUTES.get(dataset.name, ("linear",)) if s != base]
    x, y = (part[:images] for part in dataset.test)
    eps = radius(base, dataset.name)
    checks = evaluation.masking_checks(
        model,
        x,
        y,
        eps,
        substitutes=[zoo.load(s, dataset).requires_grad_(False) for s in others],
        seed=SEED,
        num_steps=STEPS,
        num_queries=QUERIES,
    )
    return {
        "base": base,
        "mask": mask,
        "role": "calibration" if task in CALIBRATION else "test",
        "dataset": dataset.name,
        "eps": eps,
        "images": len(y),
        "substitutes": others,
        **errors(model, plain, x, y, eps),
        "checks": {
            check.name: {
                "count": check.rate.wrong,
                "n": check.n,
                "value": round(check.value, 4),
                "interval": [round(end, 4) for end in check.interval],
                "threshold": check.threshold,
                "fired": check.fired,
            }
            for check in checks
        },
        "seconds": round(time.process_time() - began, 1),
    }


def fired(record: dict) -> list[str]:
    """Return the names of the checks that fired on one network."""
    return [name for name, check in record["checks"].items() if check["fired"]]


def summary(records: list[dict]) -> dict:
    """Return false alarms on honest test networks, and what fired on masked ones."""
    tested = [record for record in records if record["role"] == "test"]
    return {
        "honest_networks": sum(record["mask"] is None for record in tested),
        "false_alarms": [
            [record["dataset"], record["base"], name]
            for record in tested
            if record["mask"] is None
            for name in fired(record)
        ],
        "caught": [
            [record["base"], record["mask"], fired(record)]
            for record in tested
            if record["mask"] is not None
        ],
    }


def check_thresholds(honest: dict, masked: dict) -> dict[str, float]:
    """Return the thresholds from both records; ``ValueError`` if SIGNS has others."""
    ends = [
        {name: c["interval"] for name, c in record["checks"].items()}
        for record in (honest, masked)
    ]
    found = thresholds(*ends)
    used = {name: threshold for name, (threshold, _) in evaluation.SIGNS.items()}
    if found != used:
        raise ValueError(f"evaluation.SIGNS has {used}, the rule gives {found}")
    return found


def main() -> None:
    """Measure all, one after the other, and write the result."""
    torch.set_num_threads(1)
    records, rule = [], {}
    for name in SUBSTITUTES:
        dataset = data.load(name)
        for task in tasks(name):
            records.append(measured(task, dataset))
            last = {k: v for k, v in records[-1].items() if k != "checks"}
            shares = {k: c["value"] for k, c in records[-1]["checks"].items()}
            sys.stdout.write(f"{last}\n  {shares}\n  fired: {fired(records[-1])}\n")
            sys.stdout.flush()
            if len(records) == len(CALIBRATION):
                rule = check_thresholds(*records)
    content = {
        "images": IMAGES,
        "num_steps": STEPS,
        "num_queries": QUERIES,
        "rule": RULE,
        "default": DEFAULT,
        "thresholds": rule,
        "networks": records,
        **summary(records),
    }
    results.save(
        "masking",
        content,
        command=COMMAND,
        seeds=[SEED],
        dataset=f"mnist and cifar10_jpeg: the first {IMAGES} test images",
        seconds=sum(record["seconds"] for record in records),
        packages=("torch", "numpy"),
    )


if __name__ == "__main__":
    main()
