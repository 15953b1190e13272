"""Chapter 8: ways to train one small network for the l-inf ball, several seeds.

MNIST, box respected, ``models.cnn_small`` in every row. Runs that the committed result
or the cache already holds are not made again; it is written after every run. A run that
was stopped begins anew. All of them together take about nine hours of a core; ``tasks``
has their order. Attacks and bounds see the first ``attacked`` and ``bounded`` test
images of a row: all 10 000 where a goal speaks of them, 1000 elsewhere.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import shelf
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from advlib import attacks, bounds, data, evaluation, models, results, training

COMMAND = "python tools/experiments/adversarial_training.py"
SEEDS = (0, 1, 2)
VALIDATED, COMPARED = 1000, 200  # validation images; test images for the tightness
RADII = (0.25, 0.5, 0.75, 1.0, 1.25)  # of the test radius, for the same
RESTARTS, QUERIES = 12, 300  # of the strong ensemble
BATCH = 100


@dataclass(frozen=True)
class Row:
    """One way to train against radius ``eps``, itself from 0 up to ``train_eps``.

    The radius grows over the first ``ramp`` (a share) of the updates, the learning
    rate rises to ``peak`` in the first fifth of the epochs and falls to 0 at the end.
    TRADES alone uses the whole radius from the first update on. Each training image is
    moved by up to ``shift`` pixels before anything else happens to it.
    """

    method: str
    eps: float = 0.1
    train_eps: float = 0.1
    epochs: int = 10
    peak: float = 0.05
    ramp: float = 0.3
    shift: int = 0
    attacked: int = 1000
    bounded: int = 1000


ROWS = {
    "standard": Row("standard"),
    "fgsm": Row("fgsm"),
    "fast": Row("fast"),
    "ibp": Row("ibp", 0.1, 0.15, 30, ramp=0.5, attacked=10_000, bounded=10_000),
    "pgd": Row("pgd", train_eps=0.12, attacked=10_000),
    "pgd_long": Row("pgd", 0.1, 0.12, 20, ramp=0.2, shift=1, attacked=10_000),
    "trades": Row("trades"),
    "crown_ibp": Row(
        "crown_ibp", 0.1, 0.15, 20, ramp=0.25, attacked=10_000, bounded=10_000
    ),
    "ibp_long": Row(
        "ibp", 0.1, 0.125, 60, 0.1, ramp=0.3, attacked=10_000, bounded=10_000
    ),
    "fgsm_3": Row("fgsm", eps=0.3, train_eps=0.3),
    "fast_3": Row("fast", eps=0.3, train_eps=0.3),
    "ibp_3": Row("ibp", 0.3, 0.35, 30, 0.02, ramp=0.6),
    "pgd_3": Row("pgd", eps=0.3, train_eps=0.3),
}


def tasks() -> list[tuple[str, int]]:
    """Return (row, seed) in order: every row at the first seed, then at the next."""
    return [(name, seed) for seed in SEEDS for name in ROWS]


def growing_attack(row: Row, ramp: training.Ramp, seed: int) -> attacks.Attack | None:
    """Return the training attack of a ``row``, None for those that use none."""
    if row.method == "fast":
        return training.fast(row.train_eps, seed=seed, ramp=ramp)
    generator = torch.Generator().manual_seed(seed)

    def attack(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        eps = row.train_eps * ramp()
        if row.method == "fgsm":
            return attacks.fgsm(model, x, y, eps)
        return attacks.pgd_linf(
            model, x, y, eps, alpha=eps / 3, num_steps=7, generator=generator
        )

    return attack if row.method in ("fgsm", "pgd") else None


def objective(row: Row, ramp: training.Ramp, seed: int) -> training.Objective:
    """Return what a ``row`` minimises on the batches that it is given."""
    if row.method == "ibp":
        return training.IntervalLoss(row.train_eps, ramp)
    if row.method == "crown_ibp":
        return training.CrownIntervalLoss(row.train_eps, ramp)
    if row.method == "trades":
        eps = row.train_eps
        return training.TradesLoss(eps, alpha=eps / 3, num_steps=7, beta=6.0, seed=seed)
    return training.mean_cross_entropy


def pgd(eps: float, num_steps: int = 40, *, starts: int = 5) -> list[attacks.Attack]:
    """Return PGD from 0 and from ``starts`` random points, step 2.5 eps / steps."""

    def once(generator_seed: int | None) -> attacks.Attack:
        def attack(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            generator = None
            if generator_seed is not None:
                generator = torch.Generator().manual_seed(generator_seed)
            return attacks.pgd_linf(
                model,
                x,
                y,
                eps,
                alpha=2.5 * eps / num_steps,
                num_steps=num_steps,
                generator=generator,
                drop_fooled=True,
            )

        return attack

    return [once(None), *(once(seed) for seed in range(starts))]


def errors(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    attacked: int = 10_000,
    bounded: int = 10_000,
) -> dict[str, int]:
    """Return counts of errors on ``x``, ``y``, from below and from above.

    Clean and FGSM on all images, bounds on the first ``bounded``, PGD and the strong
    ensemble on the first ``attacked``: there only on images that no bound certifies, as
    no attack can change the others, and the ensemble only on those that PGD leaves.
    """
    clean = evaluation.wrong(model, x, y)
    fgsm = evaluation.attacked(model, x, y, [partial(attacks.fgsm, eps=eps)])
    few = x[:bounded], y[:bounded]
    interval = evaluation.uncertified(
        model, *few, partial(bounds.interval_margins, eps=eps)
    )
    crown = interval.clone()
    if interval.any():  # never below intervals: CROWN has nothing to add elsewhere
        crown[interval] = evaluation.uncertified(
            model, *(t[interval] for t in few), partial(bounds.crown_margins, eps=eps)
        )
    can_fall = torch.ones_like(fgsm)
    can_fall[:bounded] = crown
    if (fgsm & ~can_fall).any():
        raise ArithmeticError("an attack fools an image that a bound certifies")
    x, y, fallen, can_fall = (t[:attacked] for t in (x, y, fgsm.clone(), can_fall))
    ensemble = partial(
        attacks.strong_attack, eps=eps, num_restarts=RESTARTS, num_queries=QUERIES
    )
    counts = {}
    for name, listed in (("pgd", pgd(eps)), ("strong", [ensemble])):
        rest = can_fall & ~fallen
        counts[f"{name}_images"] = int(rest.sum())
        if rest.any():
            fallen[rest] = evaluation.attacked(model, x[rest], y[rest], listed)
        counts[f"{name}_wrong"] = int(fallen.sum())
    return {
        "test_images": len(fgsm),
        "clean_wrong": int(clean.sum()),
        "fgsm_wrong": int(fgsm.sum()),
        "attacked_images": len(y),
        **counts,
        "bounded_images": len(crown),
        "interval_uncertified": int(interval.sum()),
        "crown_uncertified": int(crown.sum()),
    }


def tightness(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> dict[str, list]:
    """Return, for each radius, mean margins and certified images of both bounds.

    The smallest margin over the classes, as PGD on the margin finds it (above the
    truth) and as the bounds promise it (below), the mean over ``x``, ``y``. What lies
    between the two is how loose a bound is at most. A bound above the attack, by more
    than rounding, is not recorded: ``ArithmeticError``.
    """
    found: dict[str, list] = {"attack_margin": []}
    walks = {"interval": bounds.interval_margins, "crown": bounds.crown_margins}
    own = nn.functional.one_hot(y, 10).bool()
    for radius in (share * eps for share in RADII):
        delta = attacks.pgd_linf(
            model,
            x,
            y,
            radius,
            alpha=radius / 16,
            num_steps=40,
            loss=attacks.margin_loss,
        )
        with torch.no_grad():
            reached = -attacks.margin_loss(model(x + delta), y)
        found["attack_margin"].append(float(reached.mean()))
        for name, walk in walks.items():
            with torch.no_grad():
                margins = walk(model, x, y, radius)
            least = margins.masked_fill(own, torch.inf).amin(1)
            if (least > reached + 1e-4 * (1 + reached.abs())).any():
                raise ArithmeticError(f"an attack goes below what {name} promises")
            found.setdefault(f"{name}_margin", []).append(float(least.mean()))
            count = int(bounds.certified(margins, y).sum())
            found.setdefault(f"{name}_certified", []).append(count)
    return found


def fitted(
    row: Row, seed: int, dataset: data.Dataset, *, count: int | None = None
) -> tuple[nn.Module, dict]:
    """Return the network of a ``row`` and how its training went.

    Trained on the first ``count`` images (None: all). After each epoch the validation
    images that PGD-10 fools are counted: catastrophic overfitting shows there.
    """
    x, y = (part[:count] for part in dataset.train)
    model = models.seeded(models.cnn_small, dataset.shape, seed=seed)
    updates = row.epochs * -(-len(y) // BATCH)
    ramp = training.Ramp(round(row.ramp * updates))
    watched: list[int] = []
    few = tuple(part[:VALIDATED] for part in dataset.validation)
    middle = (np.arange(row.epochs) + 0.5) / row.epochs
    aside = 0.0

    def watch(epoch: int, mean: float) -> None:
        nonlocal aside
        began = time.process_time()
        fooled = evaluation.attacked(model, *few, pgd(row.eps, 10, starts=1))
        watched.append(int(fooled.sum()))
        aside += time.process_time() - began

    began = time.process_time()
    history = training.fit(
        model,
        x,
        y,
        epochs=row.epochs,
        lr=np.interp(middle, [0, 0.2, 1], [0, row.peak, 0]).tolist(),
        batch_size=BATCH,
        objective=objective(row, ramp, seed),
        attack=growing_attack(row, ramp, seed),
        momentum=0.9,
        augment=partial(training.shift, pad=row.shift) if row.shift else None,
        after_epoch=watch,
        seed=seed,
    )
    return model, {
        "objective": [round(value, 4) for value in history],
        "validation_pgd_10_wrong": watched,
        "training_seconds": round(time.process_time() - began - aside, 1),
    }


def run(
    name: str, seed: int, dataset: data.Dataset, *, count: int | None = None
) -> tuple[nn.Module, dict]:
    """Train and measure one row at one seed: the network, and its record.

    With ``count``, on that many images of each part.
    """
    row, began = ROWS[name], time.process_time()
    model, record = fitted(row, seed, dataset, count=count)
    test = tuple(part[:count] for part in dataset.test)
    few = tuple(part[:COMPARED] for part in test)
    record = {
        "row": name,
        "seed": seed,
        **record,
        **errors(model, *test, row.eps, attacked=row.attacked, bounded=row.bounded),
        "tightness": tightness(model, *few, row.eps),
        "seconds": round(time.process_time() - began, 1),
    }
    return model, record


def write(records: list[dict]) -> None:
    """Write the result with the runs that there are."""
    place = {task: i for i, task in enumerate(tasks())}
    records = sorted(records, key=lambda r: place[r["row"], r["seed"]])
    content = {
        "rows": {name: asdict(row) for name, row in ROWS.items()},
        "planned_runs": len(place),
        "validation_images": VALIDATED,
        "compared_images": COMPARED,
        "radii": RADII,
        "strong": {"num_restarts": RESTARTS, "num_queries": QUERIES},
        "runs": records,
    }
    results.save(
        "adversarial_training",
        content,
        command=COMMAND,
        seeds=sorted({record["seed"] for record in records}),
        dataset="mnist: training images; 1000 validation images; all test images",
        seconds=sum(record["seconds"] for record in records),
        packages=("torch", "numpy"),
    )


def known(cache: Path) -> list[dict]:
    """Return the runs of the committed result and of ``cache`` with unchanged rows."""
    path, found = results.RESULTS / "adversarial_training.json", {}
    if path.is_file():
        content = results.load(path.stem)["data"]
        for run in content["runs"]:
            found[run["row"], run["seed"]] = (content["rows"].get(run["row"]), run)
    for file in cache.glob("*.json"):
        row, run = json.loads(file.read_text())
        found[run["row"], run["seed"]] = (row, run)
    return [
        run
        for (name, seed), (row, run) in found.items()
        if name in ROWS and row and Row(**row) == ROWS[name] and seed in SEEDS
    ]


def main(arguments: list[str] | None = None) -> None:
    """Make the runs that are missing, one by one, and write each when it is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--cache", type=Path, default=Path("_build/adversarial_training")
    )
    parser.add_argument("--only", nargs="*", choices=ROWS, default=list(ROWS))
    options = parser.parse_args(arguments)
    options.cache.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    dataset = data.load("mnist")
    for name, seed in tasks():
        done = {(run["row"], run["seed"]) for run in known(options.cache)}
        if (name, seed) in done or name not in options.only:
            continue
        model, record = run(name, seed, dataset)
        weights = {key: value.contiguous() for key, value in model.state_dict().items()}
        save_file(weights, options.cache / f"{name}-{seed}.safetensors")
        shelf.keep(options.cache / f"{name}-{seed}.json", [asdict(ROWS[name]), record])
        write(known(options.cache))
        sys.stdout.write(f"{json.dumps(record)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
