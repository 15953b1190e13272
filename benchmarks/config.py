"""What is measured: networks, radii, sizes; and the checkpoints of a long run."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from advlib import data, zoo
from advlib.files import atomic_write

ROOT = Path(__file__).resolve().parent.parent
CHECKPOINTS = ROOT / "_build" / "benchmarks"


class NotRunError(Exception):
    """A long run has no checkpoint, and none may be started."""


@dataclass(frozen=True)
class Config:
    """Networks of the zoo with the radius at which each is measured, and the sizes.

    ``robust`` and ``plain`` name CNNs and MLPs; ``bounds`` and ``slopes`` give
    the batch, ``exact`` the number of images for the fast exact methods and for the
    textbook program, ``strong`` the networks whose ``images`` are attacked.
    """

    dataset: data.Dataset
    robust: tuple[tuple[str, float], ...] = (
        ("cnn_small_pgd_0", 0.3),
        ("mlp_256_pgd", 0.1),
    )
    plain: tuple[tuple[str, float], ...] = (
        ("cnn_small", 0.3),
        ("mlp_256", 0.3),
        ("cnn_small", 0.1),  # at this radius a third of the images stand
        ("mlp_256", 0.1),
    )
    strong: tuple[str, ...] = tuple(f"cnn_small_pgd_{i}" for i in range(3))
    strong_eps: float = 0.3
    images: int = 1000
    bounds: tuple[tuple[str, float, int], ...] = (
        ("mlp_256", 0.02, 100),
        ("mlp_256_pgd", 0.1, 100),
        ("mlp_256_ibp", 0.1, 100),
        ("cnn_small", 0.02, 20),
        ("cnn_small_pgd_0", 0.1, 20),
    )
    slopes: tuple[tuple[str, float, int], ...] = (
        ("mlp_256", 0.02, 20),
        ("mlp_256_pgd", 0.05, 20),
        ("cnn_small", 0.02, 4),
    )
    exact: tuple[tuple[str, float, int, int], ...] = (
        ("small", 0.03, 20, 5),  # 20 images, the textbook program on 5 of them
        ("small_pgd", 0.05, 10, 0),  # here it takes minutes for each image
        ("small_pgd", 0.1, 5, 0),
    )
    memory: tuple[str, float, int] = ("cnn_small", 0.02, 10_000)
    steps: int = 40
    slope_steps: int = 20
    batch: int = 100
    repeats: int = 7
    seeds: tuple[int, ...] = (0, 1, 2)
    folder: Path = CHECKPOINTS
    start_runs: bool = True
    _models: dict = field(default_factory=dict, compare=False, repr=False)

    def network(self, name: str) -> nn.Sequential:
        """Return network ``name``, its parameters frozen, loaded once."""
        if name not in self._models:
            model = zoo.load(name, self.dataset)
            self._models[name] = model.requires_grad_(False)
        return self._models[name]

    def first(self, n: int) -> tuple[Tensor, Tensor]:
        """Return the first ``n`` test images and their labels."""
        x, y = self.dataset.test
        return x[:n], y[:n]

    def right(self, name: str, n: int) -> tuple[Tensor, Tensor]:
        """Return the first ``n`` test images that network ``name`` has right."""
        model, (x, y) = self.network(name), self.first(2 * n)
        with torch.no_grad():
            kept = model(x).argmax(1) == y
        return x[kept][:n], y[kept][:n]

    def checkpoint(self, key: str, make: Callable[[], object]) -> object:
        """Return what ``make()`` returned when ``key`` was first asked for.

        Raises ``NotRunError`` where this is not known and no run may be started.
        """
        path = self.folder / f"{key}.json"
        if path.is_file():
            return json.loads(path.read_text("utf-8"))
        if not self.start_runs:
            raise NotRunError(f"{key}: not run yet")
        value = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, (json.dumps(value, indent=1) + "\n").encode())
        return value
