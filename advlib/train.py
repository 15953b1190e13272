"""Beyond one machine: ``python -m advlib.train --recipe NAME``.

One recipe, a small TOML file, on a laptop, one GPU, or many processes and nodes by
Lightning Fabric. What a sample's augmentation and attack noise are depends on the
seed, the epoch and the sample's index alone, never on the process that draws it; so
two processes train as one does. Checkpoints hold no pickle and are checked.
"""

import argparse
import hashlib
import inspect
import json
import os
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, fields
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from advlib import activations, attacks, data, evaluation, models, results, training
from advlib._vision import torchvision

RECIPES = Path(__file__).parent / "recipes"
SHAPES = ("constant", "triangle", "steps")
HELD_OUT = 1000  # validation images that the result counts


@dataclass(frozen=True)
class Images:
    """What is trained on: a data set of ``advlib.data`` or an "image_folder".

    The ``folder`` holds train/CLASS and val/CLASS with JPEG or PNG files, which
    ``workers`` processes read at ``size`` x ``size``. ``num_images`` of the training
    images (0: all). ``augment``: shifts and mirrors, or random crops of photographs.
    """

    dataset: str
    folder: str = ""
    num_images: int = 0
    size: int = 224
    augment: bool = False
    workers: int = 0


@dataclass(frozen=True)
class Network:
    """``build`` names a function of ``advlib.models`` or of ``torchvision.models``.

    Every ReLU is replaced by ``activation``, a key of ``activations.ACTIVATIONS``. A
    layer that a network uses several times keeps one set of learned parameters. "mlp"
    gets one hidden layer of 100 units.
    """

    build: str
    activation: str = "relu"
    num_classes: int = 10


@dataclass(frozen=True)
class Attack:
    """PGD with ``num_steps`` (0: standard training) from a random start in the box.

    l-inf radius ``eps`` and step ``alpha`` (0: min(1, 2.5 / num_steps) eps) in units
    of the pixels, numbers or fractions such as "8/255". A batch starts from the clean
    images with probability ``clean_start``.
    """

    eps: float
    alpha: float = 0.0
    num_steps: int = 1
    clean_start: float = 0.0


@dataclass(frozen=True)
class Schedule:
    """SGD: ``epochs`` with ``batch_size`` images over all processes together.

    ``shape`` of the rate: "constant", "triangle" (up to ``lr`` for a third, down to 0)
    or "steps" (a tenth at each of ``milestones``), after a linear rise over
    ``warmup_epochs``. ``max_steps`` ends it earlier (0: not).
    """

    epochs: int
    batch_size: int
    lr: float
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    shape: str = "constant"
    milestones: list[int] = field(default_factory=list)
    warmup_epochs: int = 0
    max_steps: int = 0


@dataclass(frozen=True)
class Recipe:
    """The four tables of a recipe, and its ``name``."""

    name: str
    data: Images
    network: Network
    attack: Attack
    schedule: Schedule

    def digest(self, seed: int) -> str:
        """Return the SHA-256 of the recipe with ``seed``: what a checkpoint is of."""
        text = json.dumps([asdict(self), seed], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


TABLES = {"data": Images, "network": Network, "attack": Attack, "schedule": Schedule}


def read_recipe(name: str, changes: list[str] | tuple[str, ...] = ()) -> Recipe:
    """Return the recipe ``name`` of the book, or that in the TOML file ``name``.

    ``changes``: strings such as "schedule.epochs=3", in TOML. Raises
    ``FileNotFoundError`` for no such recipe, ``ValueError`` for text that is no TOML,
    an unknown or a missing key and a value that makes no sense, ``TypeError`` for a
    value of another type; each names the key.
    """
    path = Path(name) if name.endswith(".toml") else RECIPES / f"{name}.toml"
    if not path.is_file():
        known = sorted(p.stem for p in RECIPES.glob("*.toml"))
        raise FileNotFoundError(f"no recipe {name!r}; there are {known}")
    try:
        content = tomllib.loads(path.read_text("utf-8"))
        for change in changes:
            key, _, value = change.partition("=")
            table, _, entry = key.strip().partition(".")
            content.setdefault(table, {})[entry] = tomllib.loads(f"v = {value}")["v"]
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"recipe {name!r}, {list(changes)}: {error}") from error
    unknown = sorted(set(content) - set(TABLES)) + sorted(set(TABLES) - set(content))
    if unknown:
        raise ValueError(f"tables {unknown}: a recipe has exactly {list(TABLES)}")
    tables = {t: _table(t, kind, content[t]) for t, kind in TABLES.items()}
    recipe = Recipe(path.stem, **tables)
    _check_values(recipe)
    return recipe


def _table(name: str, kind: type, content: dict) -> Any:
    known = {f.name: f for f in fields(kind)}
    for key in content:
        if key not in known:
            raise ValueError(f"unknown key {name}.{key}; one of {sorted(known)}")
    values = {k: _value(f"{name}.{k}", v, known[k].type) for k, v in content.items()}
    try:
        return kind(**values)
    except TypeError as error:
        raise ValueError(f"table {name!r} lacks a key: {error}") from error


def _value(key: str, value: object, kind: Any) -> object:
    if key in ("attack.eps", "attack.alpha") and isinstance(value, str):
        try:
            return float(Fraction(value))
        except (ValueError, ZeroDivisionError) as error:
            raise ValueError(f"{key}: {value!r} is no fraction") from error
    if kind is float and type(value) is int:
        return float(value)
    if kind == list[int]:
        right = isinstance(value, list) and all(type(v) is int for v in value)
    else:
        right = type(value) is kind
    if not right:
        wanted = getattr(kind, "__name__", kind)
        raise TypeError(f"{key} must be {wanted}, not {value!r}")
    return value


def _check_values(recipe: Recipe) -> None:
    plan, attack, network = recipe.schedule, recipe.attack, recipe.network
    known = activations.ACTIVATIONS
    right = {
        "schedule.epochs, batch_size": plan.epochs >= 1 and plan.batch_size >= 1,
        "schedule.lr": 0 < plan.lr < float("inf"),
        f"schedule.shape, one of {SHAPES}": plan.shape in SHAPES,
        "schedule.momentum in [0, 1)": 0 <= plan.momentum < 1,
        "schedule.label_smoothing in [0, 1]": 0 <= plan.label_smoothing <= 1,
        "schedule, a number below 0": min(
            plan.weight_decay, plan.warmup_epochs, plan.max_steps
        )
        >= 0,
        "attack.eps in [0, 1]": 0 <= attack.eps <= 1 and 0 <= attack.alpha <= 1,
        "attack.num_steps >= 0": attack.num_steps >= 0,
        "attack.clean_start in [0, 1]": 0 <= attack.clean_start <= 1,
        "data.num_images, workers, size": recipe.data.num_images >= 0
        and recipe.data.workers >= 0
        and recipe.data.size >= 1,
        f"network.activation, one of {sorted(known)}": network.activation in known,
        "network.num_classes >= 2": network.num_classes >= 2,
    }
    for what, fine in right.items():
        if not fine:
            raise ValueError(f"recipe {recipe.name!r}: {what}")


# ---------------------------------------------------------------------------- samples


def _generator(*key: int) -> torch.Generator:
    """Return a generator seeded from all of ``key``.

    Mixed to 32 bits, because torch ignores the upper half of a seed on the CPU.
    """
    (seed,) = np.random.SeedSequence(key).generate_state(1)
    return torch.Generator().manual_seed(int(seed))


class Samples(torch.utils.data.Dataset):
    """Training images by (epoch, index): augmented image, noise in [0, 1], label.

    What is drawn for a sample comes from (``seed``, epoch, index) alone. ``images``
    (N, C, H, W) in [0, 1] or a list of files, ``labels`` (N,), ``recipe`` says how.
    """

    def __init__(
        self, images: Tensor | list[Path], labels: Tensor, recipe: Images, seed: int
    ) -> None:
        count = recipe.num_images or len(labels)
        self.images, self.labels = images[:count], labels[:count]
        self.recipe, self.seed = recipe, seed

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the sample ``key`` = (epoch, index)."""
        epoch, index = key
        generator = _generator(self.seed, epoch, index)
        if isinstance(self.images, Tensor):
            x = self.images[index]
            if self.recipe.augment:
                x = training.shift_and_flip(x[None], generator)[0]
        else:
            x = _photo(self.images[index], self.recipe, generator)
        return x, torch.rand(x.shape, generator=generator), self.labels[index]


def _photo(path: Path, recipe: Images, generator: torch.Generator) -> Tensor:
    """Read a photograph: a random crop, perhaps mirrored, or the middle."""
    if not recipe.augment:
        return data.read_images([path], recipe.size)[0]
    from PIL import Image

    kinds = torchvision().transforms
    crop = kinds.Compose(
        [
            kinds.RandomResizedCrop(recipe.size),
            kinds.RandomHorizontalFlip(),
            kinds.ToTensor(),
        ]
    )
    seed = int(torch.randint(2**62, (1,), generator=generator))
    with Image.open(path) as opened, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # torchvision draws from the global state
        return crop(opened.convert("RGB"))


def load_images(recipe: Images, seed: int) -> tuple[Samples, Callable[[], data.Split]]:
    """Return the training ``Samples`` of ``recipe``, and what reads validation images.

    At most 1000 of these; of a folder, spread over its classes. ``seed`` draws
    augmentation and noise. Raises ``FileNotFoundError`` for a missing folder,
    ``ValueError`` if its two parts differ in their classes, and what ``data.load``
    raises.
    """
    if recipe.dataset != "image_folder":
        loaded = data.load(recipe.dataset)
        few = loaded.validation[0][:HELD_OUT], loaded.validation[1][:HELD_OUT]
        return Samples(*loaded.train, recipe, seed), lambda: few
    files, labels, names = _folder(recipe, "train")
    held, held_labels, held_names = _folder(recipe, "val")
    if names != held_names:
        raise ValueError("train/ and val/ do not have the same classes")
    held, held_labels = held[:HELD_OUT], held_labels[:HELD_OUT]

    def read() -> data.Split:
        return data.read_images(held, recipe.size), held_labels

    return Samples(files, labels, recipe, seed), read


def _folder(recipe: Images, part: str) -> tuple[list[Path], Tensor, list[str]]:
    """List a part's images, shuffled once: any first few are of all classes."""
    folder = Path(recipe.folder) / part
    if not folder.is_dir():
        raise FileNotFoundError(f"data.folder: {recipe.folder!r} holds no {part}/")
    files, labels, names = data.image_folder(folder)
    order = torch.randperm(len(files), generator=_generator(len(files)))
    return [files[k] for k in order.tolist()], labels[order], names


class Order:
    """The batches of this process: lists of (epoch, index), from ``first`` on.

    Every epoch is a permutation drawn from (``seed``, epoch), cut into global batches;
    process ``rank`` of ``world`` takes every ``world``-th image of each. Images that do
    not fill a batch wait for another epoch.
    """

    def __init__(
        self, n: int, plan: Schedule, seed: int, first: int, rank: int, world: int
    ) -> None:
        self.n, self.plan, self.seed, self.first = n, plan, seed, first
        self.rank, self.world = rank, world
        self.batch_size = min(n, plan.batch_size)
        self.per_epoch = n // self.batch_size
        steps = plan.epochs * self.per_epoch
        self.steps = min(steps, plan.max_steps or steps)

    def __len__(self) -> int:
        """Return the number of batches that are left."""
        return max(0, self.steps - self.first)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Yield this process's part of one global batch after the other."""
        for step in range(self.first, self.steps):
            epoch, place = divmod(step, self.per_epoch)
            generator = _generator(self.seed, epoch)
            order = torch.randperm(self.n, generator=generator).tolist()
            batch = order[place * self.batch_size :][: self.batch_size]
            yield [(epoch, index) for index in batch[self.rank :: self.world]]


def learning_rate(plan: Schedule, step: int, per_epoch: int) -> float:
    """Return the rate of ``plan`` at ``step``, with ``per_epoch`` steps an epoch."""
    done, warm = (step + 0.5) / per_epoch, plan.warmup_epochs
    rate = plan.lr
    if plan.shape == "triangle":
        share = done / plan.epochs
        rate *= min(3 * share, 1.5 * (1 - share))
    if plan.shape == "steps":
        rate *= 0.1 ** sum(done > milestone for milestone in plan.milestones)
    return rate * min(1.0, done / warm) if warm else rate


# ---------------------------------------------------------------------------- network


def build_network(recipe: Network, shape: models.Shape, seed: int) -> nn.Module:
    """Return the network of ``recipe`` for images of ``shape``, drawn from ``seed``.

    Networks of torchvision get the usual normalisation as their first layer. Raises
    ``ValueError`` for a name that is neither ours nor torchvision's.
    """
    ours = getattr(models, recipe.build, None)
    if inspect.isfunction(ours) and "num_classes" in inspect.signature(ours).parameters:
        hidden = {"hidden": [100]} if recipe.build == "mlp" else {}
        model = models.seeded(
            ours, shape, num_classes=recipe.num_classes, seed=seed, **hidden
        )
    elif recipe.build in torchvision().models.list_models(torchvision().models):
        normalize = models.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        kind = partial(torchvision().models.get_model, weights=None)
        inner = models.seeded(
            kind, recipe.build, num_classes=recipe.num_classes, seed=seed
        )
        model = nn.Sequential(normalize, inner)
    else:
        raise ValueError(f"network.build: {recipe.build!r} is no network of ours")
    if recipe.activation == "relu":
        return model

    def change(layer: nn.Module) -> nn.Module | None:
        relu = isinstance(layer, nn.ReLU)
        return activations.make(recipe.activation) if relu else None

    return activations.swap(model, change)


def has_batch_statistics(model: nn.Module) -> bool:
    """Whether ``model`` has a batch-norm layer, which looks at a whole batch."""
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    return any(isinstance(layer, kinds) for layer in model.modules())


# ------------------------------------------------------------------------- checkpoints


@dataclass
class Progress:
    """Where a training stands: ``step``, sum of the epoch so far, means of the past."""

    step: int = 0
    total: float = 0.0
    history: list[float] = field(default_factory=list)


def _content_digest(tensors: dict[str, Tensor]) -> str:
    sha = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        sha.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        sha.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def save_checkpoint(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    recipe: str,
) -> None:
    """Write ``model``, momenta of ``optimizer`` and ``progress`` to ``path``, at once.

    ``recipe``: its digest. A process that dies while it writes leaves the old file.
    """
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        momentum = optimizer.state.get(parameter, {}).get("momentum_buffer")
        if momentum is not None:
            tensors[f"momentum.{name}"] = momentum
    tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    facts = {"recipe": recipe, "sha256": _content_digest(tensors)}
    facts["progress"] = json.dumps(asdict(progress))
    draft = path.with_suffix(".part")
    save_file(tensors, draft, metadata=facts)
    os.replace(draft, path)


def load_checkpoint(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, recipe: str
) -> Progress:
    """Put the checkpoint at ``path`` into ``model`` and ``optimizer``.

    Raises ``ValueError``, and changes nothing, for a file that is truncated or was
    altered, and for one of another ``recipe`` (its digest).
    """
    try:
        with safe_open(path, "pt") as file:
            facts = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}
        progress = Progress(**json.loads(facts["progress"]))
        intact = facts["sha256"] == _content_digest(tensors)
    except (SafetensorError, KeyError, ValueError, TypeError, OSError) as error:
        raise ValueError(f"{path.name} is truncated or no checkpoint") from error
    if not intact:
        raise ValueError(f"{path.name} was altered: its content has another checksum")
    if facts["recipe"] != recipe:
        raise ValueError(f"{path.name} belongs to another recipe or seed")
    state = {k[6:]: v for k, v in tensors.items() if k.startswith("model.")}
    model.load_state_dict(state)
    for name, parameter in model.named_parameters():
        if f"momentum.{name}" in tensors:
            momentum = torch.zeros_like(parameter).copy_(tensors[f"momentum.{name}"])
            optimizer.state[parameter]["momentum_buffer"] = momentum
    return progress


# ---------------------------------------------------------------------------- the loop


def _fabric(options: argparse.Namespace) -> Any:
    try:
        from lightning.fabric import Fabric
    except ImportError:
        try:
            from lightning_fabric import Fabric
        except ImportError as error:
            raise ImportError(
                "advlib.train needs lightning-fabric: pip install it"
            ) from error
    if "LT_CLI_USED" in os.environ:  # `fabric run` has set and started everything
        return Fabric()
    fabric = Fabric(
        accelerator=options.accelerator,
        devices=options.devices,
        num_nodes=options.num_nodes,
        strategy="auto" if options.devices == 1 and options.num_nodes == 1 else "ddp",
    )
    fabric.launch()
    return fabric


def perturb(
    model: nn.Module, x: Tensor, noise: Tensor, y: Tensor, attack: Attack, clean: bool
) -> Tensor:
    """Return ``x`` attacked as ``attack`` says, crafted in eval mode, from ``noise``.

    ``noise`` (N, ...) in [0, 1] places the start in the ball and box around ``x``, or
    if ``clean`` the start is ``x`` itself; ``y`` (N,). ``model`` is left in eval mode.
    """
    if attack.num_steps == 0:
        return x
    model.eval()
    lower, upper = (-x).clamp(min=-attack.eps), (1 - x).clamp(max=attack.eps)
    start = torch.zeros_like(x) if clean else lower + (upper - lower) * noise
    alpha = attack.alpha or attack.eps * min(1, 2.5 / attack.num_steps)
    return x + attacks.pgd_linf(
        model, x, y, attack.eps, alpha=alpha, num_steps=attack.num_steps, start=start
    )


class Run:
    """One training: ``recipe`` at ``seed`` on the processes of ``fabric``.

    Goes on from the checkpoint in the folder ``out`` if there is one. Raises
    ``ValueError`` for batch-norm over several processes without GPUs, for more
    processes than images in a batch, and for a checkpoint of something else.
    """

    def __init__(self, recipe: Recipe, seed: int, out: Path, fabric: Any) -> None:
        self.recipe, self.seed, self.out, self.fabric = recipe, seed, out, fabric
        self.samples, self.validation = load_images(recipe.data, seed)
        shape = tuple(self.samples[0, 0][0].shape)
        self.model = build_network(recipe.network, shape, seed)
        world = fabric.world_size
        if world > 1 and has_batch_statistics(self.model):
            if fabric.device.type != "cuda":
                raise ValueError(
                    "batch-norm over several processes needs GPUs (SyncBatchNorm)"
                )
            self.model = nn.SyncBatchNorm.convert_sync_batchnorm(self.model)
        plan = recipe.schedule
        if min(len(self.samples), plan.batch_size) < world:
            raise ValueError("schedule.batch_size is below the number of processes")
        optimizer = training.sgd(
            self.model, plan.momentum, plan.weight_decay, nesterov=plan.nesterov
        )
        self.network, self.optimizer = fabric.setup(self.model, optimizer)
        self.progress = Progress()
        self.checkpoint = out / f"{recipe.name}-{seed}.checkpoint"
        if self.checkpoint.is_file():
            self.progress = load_checkpoint(
                self.checkpoint, self.model, self._inner(), recipe.digest(seed)
            )

    def _inner(self) -> torch.optim.Optimizer:
        return getattr(self.optimizer, "optimizer", self.optimizer)

    def train(self, every: int) -> None:
        """Train on from where the progress stands; save ``every`` so many steps."""
        fabric, plan = self.fabric, self.recipe.schedule
        order = Order(
            len(self.samples),
            plan,
            self.seed,
            self.progress.step,
            fabric.global_rank,
            fabric.world_size,
        )
        loader = torch.utils.data.DataLoader(
            self.samples, batch_sampler=order, num_workers=self.recipe.data.workers
        )
        hidden = not (training.show_progress() and fabric.is_global_zero)
        bar = tqdm(
            loader,
            "steps",
            disable=hidden,
            total=order.steps,
            initial=self.progress.step,
        )
        for batch in bar:
            for group in self._inner().param_groups:
                group["lr"] = learning_rate(plan, self.progress.step, order.per_epoch)
            parts = [part.to(fabric.device) for part in batch]
            loss = self.step(*parts, order.batch_size)
            self._note(loss, order)
            if self.progress.step % every == 0 or self.progress.step == order.steps:
                self._save()
        self.model.eval()

    def step(self, x: Tensor, noise: Tensor, y: Tensor, batch_size: int) -> float:
        """Attack ``x`` (n, ...) from ``noise``, update; the loss over all processes.

        ``y`` (n,): this process's labels of a global batch of ``batch_size``. Raises
        ``FloatingPointError`` for a loss that is not finite.
        """
        recipe, fabric = self.recipe, self.fabric
        draw = _generator(self.seed, self.progress.step)
        clean = float(torch.rand(1, generator=draw)) < recipe.attack.clean_start
        x = perturb(self.model, x, noise, y, recipe.attack, clean)
        self.network.train()
        smoothing = recipe.schedule.label_smoothing
        loss = F.cross_entropy(
            self.network(x), y, reduction="sum", label_smoothing=smoothing
        )
        self.optimizer.zero_grad()
        # processes average their gradients, whatever the sizes of their parts
        fabric.backward(loss * fabric.world_size / batch_size)
        self.optimizer.step()
        total = fabric.all_reduce(loss.detach(), reduce_op="sum")
        mean = float(total) / batch_size
        if not mean < float("inf"):
            raise FloatingPointError(f"the loss is {mean}: lower schedule.lr")
        return mean

    def _note(self, loss: float, order: Order) -> None:
        progress = self.progress
        progress.step += 1
        progress.total += loss
        if progress.step % order.per_epoch == 0:
            progress.history.append(progress.total / order.per_epoch)
            progress.total = 0.0

    def _save(self) -> None:
        if self.fabric.is_global_zero:
            digest = self.recipe.digest(self.seed)
            save_checkpoint(
                self.checkpoint, self.model, self._inner(), self.progress, digest
            )
        self.fabric.barrier()

    def report(self, command: str, seconds: float) -> dict:
        """Return the result: ``command``, recipe, versions, ``seconds``, errors."""
        x, y = (part.to(self.fabric.device) for part in self.validation())
        pgd = partial(
            attacks.pgd_linf,
            eps=self.recipe.attack.eps,
            alpha=self.recipe.attack.eps / 4,
            num_steps=10,
            drop_fooled=True,
        )
        few = 200
        return {
            "command": command,
            "recipe": asdict(self.recipe),
            "seed": self.seed,
            "versions": results.versions(("torch", "torchvision", "lightning-fabric")),
            "processes": self.fabric.world_size,
            "seconds": round(seconds, 1),
            "steps": self.progress.step,
            "objective": self.progress.history,
            "validation": {
                "n": len(y),
                "clean_wrong": int(evaluation.wrong(self.model, x, y).sum()),
                "attacked_n": len(y[:few]),
                "attacked_wrong": int(
                    evaluation.attacked(self.model, x[:few], y[:few], [pgd]).sum()
                ),
            },
        }


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m advlib.train")
    known = ", ".join(sorted(p.stem for p in RECIPES.glob("*.toml")))
    parser.add_argument("--recipe", required=True, help=f"{known}, or a .toml file")
    parser.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs"))
    parser.add_argument("--every", type=int, default=200, help="steps to a checkpoint")
    parser.add_argument("--accelerator", default="auto")
    parser.add_argument("--devices", type=int, default=1, help="on each node")
    parser.add_argument("--num-nodes", type=int, default=1)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Run ``python -m advlib.train`` with ``arguments``; write weights and result.

    Resumes from the checkpoint in the output folder if there is one. Raises
    ``ValueError`` for a negative seed or interval, and what the recipe's parts raise.
    """
    options = _options(arguments)
    if not 0 <= options.seed < 2**16 or options.every < 1:
        raise ValueError("need 0 <= seed < 65536 and every >= 1")
    recipe = read_recipe(options.recipe, options.set)
    fabric = _fabric(options)
    options.out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    run = Run(recipe, options.seed, options.out, fabric)
    run.train(options.every)
    if fabric.is_global_zero:
        name = f"{recipe.name}-{options.seed}"
        state = {k: v.cpu().contiguous() for k, v in run.model.state_dict().items()}
        save_file(state, options.out / f"{name}.safetensors")
        changes = "".join(f" --set {change}" for change in options.set)
        command = f"python -m advlib.train --recipe {recipe.name}{changes}"
        command += f" --seed {options.seed}"
        record = run.report(command, time.monotonic() - began)
        text = json.dumps(record, indent=1) + "\n"
        (options.out / f"{name}.json").write_text(text, "utf-8")
        sys.stdout.write(f"{name}: {record['validation']}\n")
    fabric.barrier()


if __name__ == "__main__":
    main()
