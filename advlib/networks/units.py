"""The units of a network: ReLU, and the smooth functions that bounds know."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def gelu(z: Tensor) -> Tensor:
    """Return ``z`` times the normal distribution function at z.

    Hendrycks and Gimpel 2016, arXiv:1606.08415.
    """
    return z * 0.5 * torch.erfc(-z / math.sqrt(2))


def gelu_tanh(z: Tensor) -> Tensor:
    """Return the approximation of ``gelu`` at ``z`` by a tanh, which some compute."""
    return F.gelu(z, approximate="tanh")


def softplus(z: Tensor, beta: float = 1.0) -> Tensor:
    """Return log(1 + exp(``beta`` ``z``)) / beta, without torch's threshold.

    torch returns z itself once beta z is above 20, which is 2e-9 / beta too low.
    """
    return torch.logaddexp(beta * z, torch.zeros_like(z)) / beta


def elu(z: Tensor, alpha: float = 1.0) -> Tensor:
    """Return ``z`` where z > 0, else ``alpha`` (exp(z) - 1)."""
    return torch.where(z > 0, z, alpha * torch.expm1(z.clamp(max=0)))


def silu(z: Tensor) -> Tensor:
    """Return ``z`` times the logistic function at z."""
    return z * torch.sigmoid(z)


# by name; further arguments are the unit's options
UNITS: dict[str, Callable[..., Tensor]] = {
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "silu": silu,
    "softplus": softplus,
    "elu": elu,
}
