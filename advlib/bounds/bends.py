"""How each smooth unit bends: its slope, where it is convex, where it is lowest.

A line stays below a unit where it is convex if it does at one tangent, and where it is
concave if it does at both ends; so all that ``curves`` needs to know of a unit F is

 - where its second derivative changes sign, derived here unit by unit,
 - how steep it gets, where it is lowest, and between which numbers it stays,
 - by how much its value and its slope, computed in float64, can be off.

That amount is counted in ``ROUNDING``, 16 times 2^-52. It rests on one assumption, that
exp, expm1, log1p, tanh, erfc and the logistic function of torch are within 6 units in
the last place, which a test measures; the rest are a few roundings of known size.

The derivations, with s the logistic function, so s' = s (1 - s) and 1 - 2 s = -tanh(z /
2), and with P and p the normal distribution function and its density, p' = -z p:

 - sigmoid: F'' = s' (1 - 2 s) has the sign of -z.
 - tanh: F'' = -2 F (1 - F^2) has the sign of -z.
 - softplus: F = log(1 + exp(b z)) / b, F' = s(b z), F'' = b s'(b z) > 0.
 - elu: left of 0, F'' = a exp(z) has the sign of a; right of 0 it is a line. At 0 the
   slope jumps from a to 1.
 - silu: F = z s, F' = s + z s', F'' = s' (2 - z tanh(z / 2)). The product z tanh(z / 2)
   is even and grows with abs(z): F is convex between its two roots at 2, concave
   outside. F' = s (1 + z (1 - s)) is 0 where w = -1 - z solves w exp(w) = exp(-1), and
   there F = -w: both places are the number w of Lambert, 0.27846.
 - gelu: F = z P, F' = P + z p, F'' = p (2 - z^2): convex between -sqrt(2) and sqrt(2).
   F' falls from 0 to its least value at -sqrt(2), then rises: it has one root.
 - gelu_tanh: F = z s(y), y = 2 c (z + d z^3) with c = sqrt(2 / pi) and d = 0.044715.
   F'' = s'(y) (2 y' + z y'' - z y'^2 tanh(y / 2)), and the bracket is
   4 c (1 + 6 d z^2) (1 - q), q = c z (1 + 3 d z^2)^2 tanh(y / 2) / (1 + 6 d z^2).
   q is even, 0 at 0 and grows with abs(z), as (1 + 3 v)^2 / (1 + 6 v) does with v > 0
   (it is 1 + 9 v^2 / (1 + 6 v)): two roots of q = 1, convex between them.

The last three are z times S(z) with S(z) + S(-z) = 1, so F(z) = z / 2 + an even
function; their slopes left of the convex part are below 1/2, right of it above 1/2.
"""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from advlib.networks import units

INFINITY = math.inf
ROUNDING = 16 * 2.0**-52  # what a value is off, as a part of itself: float64 throughout
TINY = 2.0**-1020  # and what underflow adds

# the roots of F'' and F' named above, the float64 that lies nearest
SILU_BEND = 2.3993572805154677
GELU_TANH_BEND = 1.4185040087908284
SILU_LOWEST = -1.278464542761073795
GELU_LOWEST = -0.7517915246935644575
GELU_TANH_LOWEST = -0.7524614220710162585


@dataclass(frozen=True)
class Piece:
    """From ``start`` to ``stop`` a unit bends up (``bend`` 1), down (-1) or not (0)."""

    start: float
    stop: float
    bend: int


@dataclass(frozen=True)
class Curve:
    """One unit: ``value``, ``slope`` and ``bend`` (F, F', F'') at float64 tensors.

    ``pieces``: where it bends which way; ``bend`` itself serves only quick searches.
    ``steepest`` is at least every abs(slope); all values lie from ``floor`` to
    ``ceiling``. ``lowest``: the unit falls before and rises after; None if it rises
    everywhere. ``reach``: beyond it (and -it) the slope is constant to 1e-17.
    ``grain``: a value is off by at most ``ROUNDING`` (abs(value) + grain), a slope by
    at most ``ROUNDING`` times ``steepest``, both plus ``TINY``. ``corner``: where the
    slope jumps (there ``slope`` is that from the left); right of it the unit is the
    identity, exactly. None without. ``sign``: -1 once it is ``mirrored``.
    """

    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    bend: Callable[[Tensor], Tensor]
    pieces: tuple[Piece, ...]
    steepest: float
    reach: float
    grain: float = 0.0
    floor: float = -INFINITY
    ceiling: float = INFINITY
    lowest: float | None = None
    corner: float | None = None
    sign: int = 1

    def error(self, value: Tensor) -> Tensor:
        """Return by how much a computed ``value`` can be off."""
        return ROUNDING * (value.abs() + self.grain) + TINY * (1 + self.steepest)

    @property
    def arcs(self) -> list[Piece]:
        """The pieces where the unit is convex."""
        return [piece for piece in self.pieces if piece.bend > 0]

    def mirrored(self) -> "Curve":
        """Return minus the unit, for lines: ``floor`` to ``lowest`` do not follow."""
        return replace(
            self,
            value=lambda z: -self.value(z),
            slope=lambda z: -self.slope(z),
            bend=lambda z: -self.bend(z),
            pieces=tuple(Piece(p.start, p.stop, -p.bend) for p in self.pieces),
            sign=-self.sign,
        )


def _rise_then_flatten() -> tuple[Piece, ...]:
    return Piece(-INFINITY, 0.0, 1), Piece(0.0, INFINITY, -1)


def _convex_within(bend: float) -> tuple[Piece, ...]:
    outer = Piece(-INFINITY, -bend, -1), Piece(bend, INFINITY, -1)
    return outer[0], Piece(-bend, bend, 1), outer[1]


def _logistic_slope(z: Tensor) -> Tensor:
    return torch.sigmoid(z) * torch.sigmoid(-z)


def _sigmoid() -> Curve:
    def bend(z: Tensor) -> Tensor:
        return -_logistic_slope(z) * torch.tanh(z / 2)

    return Curve(
        torch.sigmoid, _logistic_slope, bend, _rise_then_flatten(), 0.25, 40.0,
        floor=0.0, ceiling=1.0,
    )  # fmt: skip


def _tanh() -> Curve:
    def slope(z: Tensor) -> Tensor:
        return 4 * _logistic_slope(2 * z)

    def bend(z: Tensor) -> Tensor:
        return -2 * torch.tanh(z) * slope(z)

    return Curve(
        torch.tanh, slope, bend, _rise_then_flatten(), 1.0, 21.0,
        floor=-1.0, ceiling=1.0,
    )  # fmt: skip


def _softplus(beta: float = 1.0) -> Curve:
    if not 0 < beta < INFINITY:
        raise ValueError(f"softplus needs a finite beta > 0, not {beta}")
    return Curve(
        lambda z: units.softplus(z, beta),
        lambda z: torch.sigmoid(beta * z),
        lambda z: beta * _logistic_slope(beta * z),
        (Piece(-INFINITY, INFINITY, 1),),
        steepest=1.0,
        reach=40.0 / beta,
        grain=1 / beta,
        floor=0.0,
    )


def _elu(alpha: float = 1.0) -> Curve:
    if not math.isfinite(alpha):
        raise ValueError(f"elu needs a finite alpha, not {alpha}")

    def left(z: Tensor) -> Tensor:
        return alpha * torch.exp(z.clamp(max=0))

    bend = (alpha > 0) - (alpha < 0)
    return Curve(
        lambda z: units.elu(z, alpha),
        lambda z: torch.where(z > 0, 1.0, left(z)),
        left,
        (Piece(-INFINITY, 0.0, bend), Piece(0.0, INFINITY, 0)),
        steepest=max(1.0, abs(alpha)),
        reach=40.0,
        floor=min(0.0, -alpha),
        lowest=0.0 if alpha < 0 else None,
        corner=0.0,
    )


def _silu() -> Curve:
    def slope(z: Tensor) -> Tensor:
        return torch.sigmoid(z) * (1 + z * torch.sigmoid(-z))

    def bend(z: Tensor) -> Tensor:
        return _logistic_slope(z) * (2 - z * torch.tanh(z / 2))

    return Curve(
        units.silu, slope, bend, _convex_within(SILU_BEND), 1.1, 45.0,
        floor=-0.27846454276107385, lowest=SILU_LOWEST,
    )  # fmt: skip


def _gelu() -> Curve:
    def density(z: Tensor) -> Tensor:
        return torch.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)

    def slope(z: Tensor) -> Tensor:
        return 0.5 * torch.erfc(z * -math.sqrt(0.5)) + z * density(z)

    def bend(z: Tensor) -> Tensor:
        return density(z) * (2 - z * z)

    return Curve(
        units.gelu, slope, bend, _convex_within(math.sqrt(2)), 1.13, 10.0,
        grain=1.0, floor=-0.16997120747990373, lowest=GELU_LOWEST,
    )  # fmt: skip


def _gelu_tanh() -> Curve:
    twice, cubic = 2 * math.sqrt(2 / math.pi), 0.044715

    def inner(z: Tensor) -> tuple[Tensor, Tensor]:  # y and y'
        near = z.clamp(-1e3, 1e3)  # beyond, s(y) is 0 or 1
        square = cubic * near * near
        return twice * near * (1 + square), twice * (1 + 3 * square)

    def value(z: Tensor) -> Tensor:  # 1 + tanh would cancel on the left
        return z * torch.sigmoid(inner(z)[0])

    def slope(z: Tensor) -> Tensor:
        y, rise = inner(z)
        return torch.sigmoid(y) * (1 + z.clamp(-1e3, 1e3) * rise * torch.sigmoid(-y))

    def bend(z: Tensor) -> Tensor:
        y, rise = inner(z)
        turn = (
            2 * rise + 6 * twice * cubic * z * z - z * rise * rise * torch.tanh(y / 2)
        )
        return _logistic_slope(y) * turn

    return Curve(
        value, slope, bend, _convex_within(GELU_TANH_BEND), 1.13, 10.0,
        grain=1.0, floor=-0.17004075057125408, lowest=GELU_TANH_LOWEST,
    )  # fmt: skip


CURVES: dict[str, Callable[..., Curve]] = {
    "sigmoid": _sigmoid,
    "tanh": _tanh,
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "silu": _silu,
    "softplus": _softplus,
    "elu": _elu,
}


def curve_of(name: str, options: tuple[float, ...] = ()) -> Curve:
    """Return how the smooth unit ``name`` with its ``options`` bends.

    Raises ``ValueError`` for a unit of which that is not known, and for options that
    it does not take.
    """
    if name not in CURVES:
        raise ValueError(f"no lines are known for the unit {name!r}: {sorted(CURVES)}")
    known = inspect.signature(CURVES[name]).parameters
    if len(options) > len(known):
        raise ValueError(f"the unit {name!r} takes the options {[*known]}: {options}")
    return CURVES[name](*options)
