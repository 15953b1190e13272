"""One training loop, standard or robust by an argument.

``loop`` holds ``fit``; it takes an objective (``losses``, ``pool``) and, for
adversarial training, an attack (``crafted``, or any of ``advlib.attacks``).
"""

from advlib.training.crafted import (
    fast,
    noise_as_long_as,
    shortened,
    toward_random_target,
)
from advlib.training.loop import Augment, fit, sgd, shift, shift_and_flip, show_progress
from advlib.training.losses import (
    CrownIntervalLoss,
    DecayedLoss,
    IntervalLoss,
    Objective,
    Ramp,
    SparseReconstruction,
    TradesLoss,
    mean_cross_entropy,
)
from advlib.training.modes import has_batch_statistics
from advlib.training.pool import PoolLoss

__all__ = [
    "Augment",
    "CrownIntervalLoss",
    "DecayedLoss",
    "IntervalLoss",
    "Objective",
    "PoolLoss",
    "Ramp",
    "SparseReconstruction",
    "TradesLoss",
    "fast",
    "fit",
    "has_batch_statistics",
    "mean_cross_entropy",
    "noise_as_long_as",
    "sgd",
    "shift",
    "shift_and_flip",
    "shortened",
    "show_progress",
    "toward_random_target",
]
