"""Helpers of the book *Adversarial Robustness from Both Sides*.

The tree is the argument. What is attacked: ``data``, ``networks``. From below:
``attacks``. From above: ``bounds``. Exactly: ``exact``; checked anew: ``proof``. Then
``training`` and measuring, ``evaluation``. ``plot`` draws; it knows none of the others.

Every module a chapter asks for has one short name, whatever its room:
``from advlib import lipschitz, models`` (``MODULES`` says where they live).
"""

from importlib import import_module
from types import ModuleType

__version__ = "0.1.0"

MODULES = {
    "models": "networks.models",
    "lipschitz": "bounds.lipschitz",
    "relaxations": "bounds.relaxations",
    "smoothing": "bounds.smoothing",
    "linear": "exact.linear",
    "branch_and_bound": "exact.branch_and_bound",
    "certificates": "proof.certificates",
    "challenge": "exercises.challenge",
}


def __getattr__(name: str) -> ModuleType:
    """Return the module of this short ``name``; raises ``AttributeError`` for none."""
    if name not in MODULES:
        raise AttributeError(f"module 'advlib' has no attribute {name!r}")
    return import_module(f"advlib.{MODULES[name]}")


def __dir__() -> list[str]:
    return sorted([*globals(), *MODULES])
