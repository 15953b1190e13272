"""Lower bounds on the worst case: each attack returns one allowed perturbation.

Whatever an attack finds, the worst case is at least that bad. ``steps`` and ``losses``
are what all of them share; then from weak to strong: ``pgd``, ``apgd``, ``search``,
``strong``; and ``minimal``, ``lbfgs``, ``boundary``, which look for the shortest
perturbation.
"""

from advlib.attacks.apgd import apgd
from advlib.attacks.boundary import boundary_l2
from advlib.attacks.lbfgs import lbfgs
from advlib.attacks.losses import (
    Loss,
    cross_entropy,
    dlr_loss,
    margin_loss,
    targeted_dlr_loss,
    targeted_loss,
    targeted_sum_loss,
)
from advlib.attacks.minimal import (
    Minimal,
    carlini_wagner_l2,
    minimal_pgd_l2,
    rescale,
)
from advlib.attacks.pgd import Attack, best_of, fgsm, pgd_l1, pgd_l2, pgd_linf
from advlib.attacks.search import square
from advlib.attacks.steps import input_gradient, project, steepest_direction
from advlib.attacks.strong import strong_attack

__all__ = [
    "Attack",
    "Loss",
    "Minimal",
    "apgd",
    "best_of",
    "boundary_l2",
    "carlini_wagner_l2",
    "cross_entropy",
    "dlr_loss",
    "fgsm",
    "input_gradient",
    "lbfgs",
    "margin_loss",
    "minimal_pgd_l2",
    "pgd_l1",
    "pgd_l2",
    "pgd_linf",
    "project",
    "rescale",
    "square",
    "steepest_direction",
    "strong_attack",
    "targeted_dlr_loss",
    "targeted_loss",
    "targeted_sum_loss",
]
