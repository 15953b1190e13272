"""Beyond one machine: ``python -m advlib.train --recipe NAME``.

One recipe, a small TOML file, on a laptop, one GPU, or many processes and nodes by
Lightning Fabric. What a sample's augmentation and attack noise are depends on the
seed, the epoch and the sample's index alone, never on the process that draws it; so
two processes train as one does. Checkpoints hold no pickle and are checked.
"""

from advlib.train.checkpoint import Progress, load_checkpoint, save_checkpoint
from advlib.train.command import main
from advlib.train.network import build_network
from advlib.train.recipe import (
    RECIPES,
    SHAPES,
    TABLES,
    Attack,
    Images,
    Network,
    Recipe,
    Schedule,
    read_recipe,
)
from advlib.train.run import Run, perturb
from advlib.train.samples import HELD_OUT, Order, Samples, learning_rate, load_images
from advlib.training import has_batch_statistics

__all__ = [
    "HELD_OUT",
    "RECIPES",
    "SHAPES",
    "TABLES",
    "Attack",
    "Images",
    "Network",
    "Order",
    "Progress",
    "Recipe",
    "Run",
    "Samples",
    "Schedule",
    "build_network",
    "has_batch_statistics",
    "learning_rate",
    "load_checkpoint",
    "load_images",
    "main",
    "perturb",
    "read_recipe",
    "save_checkpoint",
]
