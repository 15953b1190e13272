"""ReLU and its smooth relatives; the forward and the backward chosen apart.

Adversarial training differentiates twice: with respect to the image (the attack) and
with respect to the weights (the update). ``Surrogate`` keeps ReLU's values and lets
each of the two gradients be ReLU's own or a smooth one.
"""

import copy
import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advlib.networks.gate import is_kind, refuse_hidden


class ParametricSoftplus(nn.Module):
    """Return log(1 + exp(``alpha`` x)) / ``alpha``, which never overflows.

    Above ReLU by at most log(2) / ``alpha``, at 0; its derivative is the sigmoid of
    ``alpha`` x, its curvature at most ``alpha`` / 4. ``alpha`` = 1 is softplus. Raises
    ``ValueError`` unless ``alpha`` is positive and finite. Xie et al. 2020,
    arXiv:2006.14536.
    """

    def __init__(self, alpha: float = 10.0) -> None:
        super().__init__()
        self.alpha = _positive(alpha)

    def forward(self, x: Tensor) -> Tensor:
        """Return the values at ``x``, of the same shape."""
        # beyond the threshold torch returns x: the rest, exp(-40), is below rounding
        return F.softplus(x, beta=self.alpha, threshold=40.0)

    def extra_repr(self) -> str:
        """Return what ``print`` shows between the brackets."""
        return f"alpha={self.alpha:g}"


class SmoothReLU(nn.Module):
    """Return x - log(1 + a x) / a for x >= 0, and 0 for x < 0.

    Its derivative is a x / (1 + a x) for x >= 0: continuous, 0 at 0, below 1. With
    ``learnable`` the layer learns its own a, kept as a square so that it stays
    positive: a = ``beta`` ** 2, which starts at ``alpha``. Raises ``ValueError`` unless
    ``alpha`` is positive and finite. Xie et al. 2020, arXiv:2006.14536. Other sources
    call softplus "SmoothReLU".
    """

    def __init__(self, alpha: float = 400.0, *, learnable: bool = True) -> None:
        super().__init__()
        beta = torch.tensor(math.sqrt(_positive(alpha)))
        self.beta = nn.Parameter(beta, requires_grad=learnable)

    @property
    def alpha(self) -> float:
        """The present value of a."""
        return float(self.beta.detach()) ** 2

    def forward(self, x: Tensor) -> Tensor:
        """Return the values at ``x``, of the same shape."""
        a, positive = self.beta.square(), F.relu(x)
        return positive - torch.log1p(a * positive) / a

    def extra_repr(self) -> str:
        """Return what ``print`` shows between the brackets."""
        return f"alpha={self.alpha:g}, learnable={self.beta.requires_grad}"


class _SmoothBackward(torch.autograd.Function):
    """ReLU forward, the derivative of ``ParametricSoftplus`` backward."""

    @staticmethod
    def forward(ctx: torch.autograd.Function, x: Tensor, alpha: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.alpha = alpha
        return F.relu(x)

    @staticmethod
    def backward(ctx: torch.autograd.Function, grad: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return grad * torch.sigmoid(ctx.alpha * x), None


class Surrogate(nn.Module):
    """ReLU's values with a gradient that may be that of ``ParametricSoftplus``.

    The book crafts every attack in eval mode and makes every update in train mode; so
    in eval mode ``attack`` says whether the gradient is the smooth one, in train mode
    ``update``. The values are ReLU's always, bit for bit. ``alpha`` as in
    ``ParametricSoftplus``. Raises ``ValueError`` unless ``alpha`` is positive and
    finite. Xie et al. 2020, arXiv:2006.14536.
    """

    def __init__(
        self, *, attack: bool = True, update: bool = True, alpha: float = 10.0
    ) -> None:
        super().__init__()
        self.attack, self.update, self.alpha = attack, update, _positive(alpha)

    def forward(self, x: Tensor) -> Tensor:
        """Return ReLU at ``x``, of the same shape."""
        smooth = self.update if self.training else self.attack
        return _SmoothBackward.apply(x, self.alpha) if smooth else F.relu(x)

    def extra_repr(self) -> str:
        """Return what ``print`` shows between the brackets."""
        return f"attack={self.attack}, update={self.update}, alpha={self.alpha:g}"


def _positive(alpha: float) -> float:
    if not 0 < alpha < math.inf:
        raise ValueError(f"alpha must be positive and finite, not {alpha}")
    return float(alpha)


# all but ReLU and its surrogate
OTHERS = (nn.LeakyReLU, nn.Softplus, ParametricSoftplus, nn.SiLU, nn.GELU)
OTHERS += (nn.ELU, nn.CELU, SmoothReLU)

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": partial(nn.LeakyReLU, 0.2),
    "softplus": partial(nn.Softplus, threshold=40.0),  # torch's 20 drops 2e-9
    "parametric_softplus": ParametricSoftplus,
    "parametric_softplus_100": partial(ParametricSoftplus, 100.0),
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "elu": nn.ELU,
    "celu": partial(nn.CELU, 2.0),
    "smooth_relu": SmoothReLU,
    "smooth_relu_400": partial(SmoothReLU, 400.0, learnable=False),
    "surrogate": Surrogate,
    "surrogate_attack": partial(Surrogate, update=False),
    "surrogate_update": partial(Surrogate, attack=False),
}


def make(name: str) -> nn.Module:
    """Return a new layer of the activation ``name``, a key of ``ACTIVATIONS``.

    Raises ``ValueError`` for another name.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"unknown activation {name!r}; one of {sorted(ACTIVATIONS)}")
    return ACTIVATIONS[name]()


def with_gradient(model: nn.Module, *, smooth: bool, alpha: float = 10.0) -> nn.Module:
    """Return a copy of ``model`` that computes the same with another gradient.

    The activations are those named in ``ACTIVATIONS``. With ``smooth`` every ReLU (and
    ``Surrogate``) has the derivative of ``ParametricSoftplus`` with ``alpha``, smooth
    activations their own; without, every activation has ReLU's, the jump at 0. So one
    attack can be run through both: if the other gradient finds more, the first one
    hid something. In eval mode; shares the weights; for attacks only. Raises
    ``ValueError`` for a bad ``alpha``, ``TypeError`` for what ``gate.refuse_hidden``
    refuses: a hook would be lost.
    """
    alpha = _positive(alpha)
    refuse_hidden(model, coarse=False)

    def change(layer: nn.Module) -> nn.Module | None:
        if is_kind(layer, nn.ReLU, Surrogate):
            return Surrogate(alpha=alpha) if smooth else nn.ReLU()
        return None if smooth or not isinstance(layer, OTHERS) else _Gated(layer)

    memo = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}
    return swap(copy.deepcopy(model, memo), change).eval()


def swap(
    model: nn.Module, change: Callable[[nn.Module], nn.Module | None]
) -> nn.Module:
    """Replace, in place, each layer of ``model`` for which ``change`` returns another.

    Where it returns None the layers inside are visited. A layer that is used in
    several places is replaced by one other in all of them. Returns ``model``, or what
    stands for it.
    """
    return _swap(model, change, {})


def _swap(
    model: nn.Module,
    change: Callable[[nn.Module], nn.Module | None],
    known: dict[nn.Module, nn.Module],
) -> nn.Module:
    if model not in known:
        other = change(model)
        known[model] = model if other is None else other
        if other is None:
            for name, inner in list(model._modules.items()):  # a shared one each time
                if inner is not None:
                    setattr(model, name, _swap(inner, change, known))
    return known[model]


class _Gated(nn.Module):
    """The values of a smooth ``layer`` (up to rounding) with the gradient of ReLU."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        gated = F.relu(x)
        return gated + (self.layer(x) - gated).detach()
