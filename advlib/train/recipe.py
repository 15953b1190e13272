"""Recipes: five dataclasses, and the small TOML files that fill them."""

import hashlib
import json
import tomllib
from dataclasses import asdict, dataclass, field, fields
from fractions import Fraction
from pathlib import Path
from typing import Any

from advlib import activations

RECIPES = Path(__file__).parent.parent / "recipes"
SHAPES = ("constant", "triangle", "steps")


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
