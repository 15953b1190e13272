"""Certificates that are checked in exact arithmetic, after the floats have spoken.

``make_certificate`` lets the bounds of this package propose, in float64, what a proof
needs: an interval for everything that enters a ReLU, and the slopes of the lines below
the ReLUs. ``check_certificate`` believes none of it. It shares no code with
``bounds``, computes with integers, and proves each interval and each margin anew or
raises ``RejectedError``. Every float is a dyadic rational, an integer over a power of
two, and sums and products of such numbers are again dyadic: nothing is ever rounded,
except outward where the text says so. Python integers in NumPy's object arrays do this
about 30 times faster than ``fractions.Fraction``, which looks for a common divisor at
every step.

What is proved speaks of the network in real arithmetic with the stored weights.
``forward_error_bound`` bounds how far the program that runs it in floats can be off.
"""

import hashlib
import json
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load as load_bytes
from safetensors.numpy import save as save_bytes
from torch import Tensor, nn

from advlib import bounds
from advlib._check import check_all
from advlib.models import affine_matrix, canonical, output_shape

GRID = 16  # intervals lie on multiples of 2^-16, which keeps the integers short
SLOPE_GRID = 8  # slopes below on multiples of 2^-8
CHORD_GRID = 30  # slopes above on multiples of 2^-30, rounded up
SLACK = 2  # steps of the grid by which a proposed interval is widened


class RejectedError(ValueError):
    """A certificate that proves nothing; the message says what failed."""


# ------------------------------------------------------------- exact arithmetic


@dataclass(frozen=True)
class Exact:
    """An array of dyadic rationals: ``ints`` (Python integers) over 2^``shift``."""

    ints: np.ndarray
    shift: int = 0

    @staticmethod
    def of(values: np.ndarray | Tensor | float) -> "Exact":
        """Return finite floats, or integers, ``values`` without any rounding.

        Raises ``RejectedError`` for NaN and infinity.
        """
        array = np.asarray(values)
        if array.dtype.kind in "iu":
            return Exact(array.astype(object))
        if not np.isfinite(array).all():
            raise RejectedError("NaN or infinity is no rational number")
        pairs = [float(v).as_integer_ratio() for v in array.ravel()]
        shift = max((d.bit_length() - 1 for _, d in pairs), default=0)
        ints = np.empty(len(pairs), dtype=object)
        ints[:] = [n << (shift + 1 - d.bit_length()) for n, d in pairs]
        return Exact(ints.reshape(array.shape), shift)

    def at(self, shift: int) -> np.ndarray:
        """Return the integers over the finer 2^``shift``; ``shift`` never shrinks."""
        return self.ints << (shift - self.shift)

    def __add__(self, other: "Exact") -> "Exact":
        shift = max(self.shift, other.shift)
        return Exact(self.at(shift) + other.at(shift), shift)

    def __neg__(self) -> "Exact":
        return Exact(-self.ints, self.shift)

    def __mul__(self, other: "Exact") -> "Exact":
        return Exact(self.ints * other.ints, self.shift + other.shift)

    def __matmul__(self, other: "Exact") -> "Exact":
        return Exact(np.dot(self.ints, other.ints), self.shift + other.shift)

    def __le__(self, other: "Exact") -> np.ndarray:
        shift = max(self.shift, other.shift)
        return (self.at(shift) <= other.at(shift)).astype(bool)

    def __getitem__(self, index: object) -> "Exact":
        return Exact(self.ints[index], self.shift)

    def clip(self, low: int | None, high: int | None) -> "Exact":
        """Cut to the integers ``low`` .. ``high``; None: no end on that side."""
        ends = [None if e is None else e << self.shift for e in (low, high)]
        return Exact(np.clip(self.ints, *ends), self.shift)

    def fractions(self) -> list[Fraction]:
        """Return the numbers of a vector as fractions."""
        return [Fraction(int(i), 1 << self.shift) for i in self.ints]


def _stack(first: Exact, second: Exact) -> Exact:
    shift = max(first.shift, second.shift)
    return Exact(np.concatenate([first.at(shift), second.at(shift)]), shift)


# -------------------------------------------------------------- what is checked


@dataclass(frozen=True)
class Certificate:
    """What a proof needs, for one image of class ``label`` and one ``eps``.

    ``lower``, ``upper``: per ReLU the ends (n,) of the interval of what enters it, in
    units of 2^-16, int64. ``slopes``: per ReLU (K, n), in units of 2^-8, int16, the
    slopes of the lines below: row j for the margin against class j, row ``label`` for
    the intervals of later layers. ``question``: SHA-256 of weights, image, label, eps.
    """

    label: int
    eps: float
    question: str
    lower: tuple[np.ndarray, ...]
    upper: tuple[np.ndarray, ...]
    slopes: tuple[np.ndarray, ...]


def question(model: nn.Module, x: Tensor, y: int, eps: float) -> str:
    """Return the SHA-256 of the weights, names and shapes of ``model``, ``x``, ``y``,
    ``eps``: of what a certificate speaks of.
    """
    digest = hashlib.sha256(f"{y} {float(eps).hex()} {tuple(x.shape)}".encode())
    parts = [*model.state_dict().items(), ("x", x)]
    for name, value in parts:
        kind = f"{name} {value.dtype} {tuple(value.shape)}"
        digest.update(kind.encode() + value.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


def _affine_layers(
    model: nn.Module, shape: Sequence[int]
) -> list[tuple[Tensor, Tensor]]:
    """Return the float64 matrix and bias of each affine layer; ReLUs lie between.

    No layer is folded into another, for that would round.
    """
    layers, relus, shape = [], [], tuple(shape)
    canonical(model, shape)  # refuses options that are not the plain ones
    for layer in model:
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            layers.append(affine_matrix(deepcopy(layer).double(), shape))
            relus.append(False)
        elif isinstance(layer, nn.ReLU) and relus and not relus[-1]:
            relus[-1] = True
        elif not isinstance(layer, nn.Flatten):
            raise TypeError(f"no exact rule for {type(layer).__name__} here")
        shape = output_shape(layer, shape)
    if not layers or relus != [True] * (len(layers) - 1) + [False]:
        raise TypeError("need affine layers with a ReLU between any two of them")
    return layers


@dataclass(frozen=True)
class _Line:
    """Around a ReLU: lower * z <= ReLU(z) <= upper * z + offset."""

    lower: Exact
    upper: Exact
    offset: Exact


def _exact_line(low: np.ndarray, high: np.ndarray, slopes: np.ndarray) -> _Line:
    """Return lines that hold on [low, high]; ``slopes`` (S, n), one row or many.

    Above: a line of slope s through the point (low, 0), where s is the chord's slope
    high / (high - low) rounded up. A convex function lies below a line that is above
    it at both ends: at low by construction, at high because s is no smaller.
    """
    active, dead = low >= 0, high <= 0
    width = np.where(active | dead, 1, high - low)
    one = 1 << CHORD_GRID
    chord = -((-high << CHORD_GRID) // width)
    fixed = np.where(active & ~dead, one, 0)
    upper = np.where(active | dead, fixed, chord)
    offset = np.where(active | dead, 0, -upper * low)
    given = slopes.astype(object) << (CHORD_GRID - SLOPE_GRID)
    lower = np.where(active | dead, fixed, given)
    as_exact = (Exact(lower, CHORD_GRID), Exact(upper, CHORD_GRID))
    return _Line(*as_exact, Exact(offset, CHORD_GRID + GRID))


Layers = Sequence[tuple[Exact, Exact]]
Box = tuple[Exact, Exact]


def _minimum(rows: Exact, constant: Exact, low: Exact, high: Exact) -> Exact:
    """Return the minimum of each row + constant over a box: exact."""
    return constant + rows.clip(0, None) @ low + rows.clip(None, 0) @ high


def _walk(
    rows: Exact, constant: Exact, below: Layers, lines: Sequence[_Line], box: Box
) -> Exact:
    """Return lower bounds of ``rows`` of the last ReLU's output, plus ``constant``.

    ``below``: the affine layers, each followed by the ReLU of ``lines``.
    """
    for (weight, bias), line in zip(reversed(below), reversed(lines), strict=True):
        up, down = rows.clip(0, None), rows.clip(None, 0)
        rows = up * line.lower + down * line.upper
        constant = constant + down @ line.offset + rows @ bias
        rows = rows @ weight
    return _minimum(rows, constant, *box)


def exact_logits(model: nn.Module, x: Tensor) -> list[Fraction]:
    """Return what the real-number network ``model`` returns at ``x``, unrounded.

    ``x`` one input without batch, anywhere. Raises ``TypeError`` for layers other than
    affine ones with a ReLU between, ``RejectedError`` for NaN and infinity.
    """
    value = Exact.of(x.flatten())
    for k, (weight, bias) in enumerate(_affine_layers(model, x.shape)):
        value = value if k == 0 else value.clip(0, None)
        value = Exact.of(weight) @ value + Exact.of(bias)
    return value.fractions()


def _input_box(x: Tensor, eps: float) -> Box:
    pixels, radius = Exact.of(x.flatten()), Exact.of(eps)
    return (pixels + -radius).clip(0, 1), (pixels + radius).clip(0, 1)


def _check_interval(k: int, claim: Box, layers: Layers, lines: list[_Line],
                    before: Box, box: Box) -> None:  # fmt: skip
    """Prove that what enters ReLU ``k`` lies in the interval ``claim``, or refuse.

    ``before`` holds the values that enter the layer just below. First by interval
    arithmetic, then what is left by a walk.
    """
    weight, bias = layers[-1]
    both, shift = _stack(weight, -weight), _stack(bias, -bias)
    need = _stack(claim[0], -claim[1])
    (left,) = np.nonzero(~(need <= _minimum(both, shift, *before)))
    if len(left) and k > 0:
        found = _walk(both[left], shift[left], layers[:-1], lines, box)
        left = left[~(need[left] <= found)]
    if len(left):
        raise RejectedError(
            f"an interval before ReLU {k} is not implied: unit {left[0]}"
        )


def _check_form(
    certificate: Certificate, layers: Sequence[tuple[Tensor, Tensor]]
) -> None:
    widths = [len(bias) for _, bias in layers]
    parts = certificate.lower, certificate.upper, certificate.slopes
    if not 0 <= certificate.label < widths[-1]:
        raise RejectedError("the label is no class")
    if any(len(part) != len(widths) - 1 for part in parts):
        raise RejectedError("need intervals and slopes for every ReLU")
    if any(array.dtype.kind != "i" for part in parts for array in part):
        raise RejectedError("intervals and slopes are integers, in steps of their grid")
    for low, high, slopes, n in zip(*parts, widths[:-1], strict=True):
        if not low.shape == high.shape == (n,) or slopes.shape != (widths[-1], n):
            raise RejectedError("intervals or slopes of another network")
        if not (low <= high).all():
            raise RejectedError("an interval has its ends swapped")
        if not ((0 <= slopes) & (slopes <= 1 << SLOPE_GRID)).all():
            raise RejectedError("a slope lies outside [0, 1]")


def check_certificate(
    model: nn.Module, x: Tensor, y: int, eps: float, certificate: Certificate
) -> list[Fraction]:
    """Return exact lower bounds of z_y - z_j, one per class, all > 0 for j != y.

    A proof for the real-number network ``model`` (Linear and Conv2d with ReLU between,
    float weights as stored), one image ``x`` (without batch), its class ``y``, the
    l-inf ball whose radius is the very float ``eps``, cut to [0, 1]. Proves every
    interval of ``certificate`` from the input on; entry y is 0. Raises
    ``RejectedError`` if anything is not implied, and ``TypeError`` for a layer without
    exact rule.
    """
    check_all(model, x[None], torch.tensor([y]), eps)
    floats = _affine_layers(model, x.shape)
    if certificate.question != question(model, x, y, eps):
        raise RejectedError("made for other weights, another image, label or eps")
    if (certificate.label, certificate.eps) != (y, eps):
        raise RejectedError("made for another label or eps")
    _check_form(certificate, floats)
    layers = [(Exact.of(weight), Exact.of(bias)) for weight, bias in floats]
    box = before = _input_box(x, eps)
    ends = zip(certificate.lower, certificate.upper, certificate.slopes, strict=True)
    shared, outer = [], []
    for k, (low, high, slopes) in enumerate(ends):
        low, high = low.astype(object), high.astype(object)
        claim = Exact(low, GRID), Exact(high, GRID)
        _check_interval(k, claim, layers[: k + 1], shared, before, box)
        shared.append(_exact_line(low, high, slopes[y]))
        outer.append(_exact_line(low, high, np.delete(slopes, y, axis=0)))
        before = claim[0].clip(0, None), claim[1].clip(0, None)
    return _check_margins(y, layers, outer, before, box)


def _check_margins(
    y: int, layers: Layers, lines: list[_Line], before: Box, box: Box
) -> list[Fraction]:
    """Return per class the better of the walk and of intervals (``before``)."""
    classes = len(layers[-1][1].ints)
    rows = np.delete(-np.eye(classes, dtype=int), y, axis=0)
    rows[:, y] = 1
    weight, bias = layers[-1]
    rows = Exact(rows.astype(object))
    start = rows @ weight, rows @ bias
    walk = _walk(*start, layers[:-1], lines, box).fractions()
    plain = _minimum(*start, *before).fractions()
    found = [max(pair) for pair in zip(walk, plain, strict=True)]
    found.insert(y, Fraction(0))
    worst = min((m, j) for j, m in enumerate(found) if j != y)
    if worst[0] <= 0:
        raise RejectedError(
            f"the margin against class {worst[1]} is not proved positive"
        )
    return found


# ------------------------------------------------------------------ the proposal


def make_certificate(
    model: nn.Module, x: Tensor, y: int, eps: float, *, num_steps: int = 0
) -> Certificate:
    """Return what float64 bounds propose for image ``x`` of class ``y``; no proof yet.

    Arguments and errors as ``check_certificate``, which decides. Intervals by CROWN
    cut with interval arithmetic, widened by two steps of the grid, more than float64
    rounds; slopes are CROWN's, after ``num_steps`` steps of gradient ascent.
    """
    check_all(model, x[None], torch.tensor([y]), eps)
    floats = _affine_layers(model, x.shape)
    box = bounds.input_box(x[None].flatten(1).double(), eps)
    pre: list[Interval] = []
    for k in range(len(floats) - 1):
        pre.append(_propose(floats[: k + 1], box, pre))
    slopes = _propose_slopes(floats, y, box, pre, num_steps)
    ends = [[(b[0] * 2**GRID).long().numpy() for b in pair] for pair in pre]
    lower, upper = tuple(e[0] for e in ends), tuple(e[1] for e in ends)
    return Certificate(y, eps, question(model, x, y, eps), lower, upper, slopes)


Interval = tuple[Tensor, Tensor]


def _dense(floats: Sequence[tuple[Tensor, Tensor]]) -> nn.Sequential:
    """Return affine layers with a ReLU between any two of them, in float64."""
    layers: list[nn.Module] = []
    for weight, bias in floats:
        layer = nn.Linear(*weight.T.shape, dtype=weight.dtype)
        layer.weight.data, layer.bias.data = weight, bias
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1]).requires_grad_(False).eval()


def _propose(
    floats: Sequence[tuple[Tensor, Tensor]], box: Interval, pre: list[Interval]
) -> Interval:
    """Return an interval (1, n) of what the last layer returns, rounded outward."""
    weight, bias = floats[-1]
    sides = torch.cat([torch.eye(len(bias)), -torch.eye(len(bias))]).double()[None]
    found = bounds.linear_lower(_dense(floats), sides, *box, pre)
    low, high = pre[-1] if pre else box
    low, high = (low.relu(), high.relu()) if pre else (low, high)
    center, radius = (low + high) / 2, (high - low) / 2
    center, radius = center @ weight.T + bias, radius @ weight.abs().T
    plain = torch.cat([center - radius, -center - radius], 1)
    low, minus = ((found.maximum(plain) * 2**GRID).floor() - SLACK).chunk(2, 1)
    return low / 2**GRID, -minus / 2**GRID


def _propose_slopes(
    floats: Sequence[tuple[Tensor, Tensor]],
    y: int,
    box: Interval,
    pre: list[Interval],
    num_steps: int,
) -> tuple[np.ndarray, ...]:
    """Return CROWN's slopes, per ReLU (K, n), after ``num_steps`` of ascent.

    Each step moves every slope of a row by its gradient over the row's largest, times
    a shrinking length; the best slopes of each row are kept.
    """
    net, classes = _dense(floats), len(floats[-1][1])
    spec = bounds.margin_spec(torch.tensor([y]), classes).double()
    slopes = [(up > -low).double().expand(1, classes, -1) for low, up in pre]
    best, kept = None, slopes
    for step in range(num_steps + 1 if slopes else 0):
        slopes = [(s * 2**SLOPE_GRID).round() / 2**SLOPE_GRID for s in slopes]
        slopes = [s.detach().requires_grad_() for s in slopes]
        value = bounds.linear_lower(net, spec, *box, pre, slopes=slopes)
        better = (value > best)[..., None] if best is not None else torch.tensor(True)
        best = value.detach() if best is None else best.maximum(value.detach())
        kept = [torch.where(better, s, k) for s, k in zip(slopes, kept, strict=True)]
        grads = torch.autograd.grad(value.sum(), slopes, allow_unused=True)
        for i, g in enumerate(grads):
            if g is not None:
                g = g / g.abs().amax(2, keepdim=True).clamp(min=1e-12)
                slopes[i] = (slopes[i] + 0.5 * 0.9**step * g).clamp(0, 1)
    return tuple((s[0].detach() * 2**SLOPE_GRID).to(torch.int16).numpy() for s in kept)


# ------------------------------------------------------------------------- files


def save(
    certificates: Sequence[Certificate], path: Path | str, **notes: object
) -> None:
    """Write ``certificates`` of one network to ``path`` as safetensors: no pickle.

    ``notes`` (JSON) say where they come from. The SHA-256 of the content is stored
    with it. Raises ``OverflowError`` for an interval that 32 bits do not hold.
    """
    tensors = {}
    for part in ("lower", "upper", "slopes"):
        for k in range(len(certificates[0].lower)):
            stacked = np.stack([getattr(c, part)[k] for c in certificates])
            kind = np.int32 if part != "slopes" else np.int16
            if (stacked != stacked.astype(kind)).any():
                raise OverflowError("an interval beyond 2^15 does not fit the file")
            tensors[f"{part}.{k}"] = stacked.astype(kind)
    head = [[c.label, float(c.eps).hex(), c.question] for c in certificates]
    record = {"certificates": head, "notes": notes}
    text = json.dumps(record, sort_keys=True)
    metadata = {"record": text, "sha256": _digest(text, tensors)}
    Path(path).write_bytes(save_bytes(tensors, metadata))


def _digest(text: str, tensors: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(name.encode() + np.ascontiguousarray(tensors[name]).tobytes())
    return digest.hexdigest()


def load(path: Path | str) -> tuple[list[Certificate], dict]:
    """Return the certificates in the file ``path``, unchecked, and its notes.

    Raises ``RejectedError`` for a file that is truncated or altered.
    """
    content = Path(path).read_bytes()
    try:
        tensors = load_bytes(content)
        size = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + size])["__metadata__"]
        text, expected = metadata["record"], metadata["sha256"]
    except (SafetensorError, KeyError, ValueError) as error:
        raise RejectedError(
            "the file is no safetensors file of certificates"
        ) from error
    if _digest(text, tensors) != expected:
        raise RejectedError("the file was altered: its SHA-256 differs")
    record = json.loads(text)
    found = []
    for i, (label, eps, asked) in enumerate(record["certificates"]):
        parts = [
            tuple(
                tensors[f"{part}.{k}"][i].astype(np.int64)
                for k in range(len(tensors) // 3)
            )
            for part in ("lower", "upper", "slopes")
        ]
        found.append(Certificate(label, float.fromhex(eps), asked, *parts))
    return found, record["notes"]


# ------------------------------------------------- the program that runs the network


def forward_error_bound(model: nn.Module, lower: Tensor, upper: Tensor) -> Tensor:
    """Return how far float logits can be from the real network's: (N, K), float64.

    For every float input in the box from ``lower`` to ``upper`` (N, ...), ``model`` in
    the dtype of its weights (float32 or float64) on a device that rounds each sum and
    product to nearest, in any order of summation, with or without fused multiply-add,
    and with subnormals flushed or not. A dot product of n terms and a bias errs by at
    most gamma_(n+1) times the sum of the absolute terms, gamma_m = m u / (1 - m u),
    on top of the errors that come in. Linear and ReLU only: convolutions may be
    computed by transforms (Winograd) for which this does not hold. Raises
    ``TypeError`` for other layers. Higham 2002, chapter 3.
    """
    if any(not isinstance(m, (nn.Flatten, nn.Linear, nn.ReLU)) for m in model):
        raise TypeError("forward errors are bounded for Linear and ReLU only")
    low, high = lower.flatten(1).double(), upper.flatten(1).double()
    error = torch.zeros_like(low)
    for layer in model:
        if isinstance(layer, nn.ReLU):  # exact, and never enlarges an error
            low, high = low.relu(), high.relu()
        elif isinstance(layer, nn.Linear):
            low, high, error = _linear_error(layer, low, high, error)
    return error


def _linear_error(
    layer: nn.Linear, low: Tensor, high: Tensor, error: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the box and the error after ``layer``; float64 itself gets a margin."""
    kind = torch.finfo(layer.weight.dtype)
    weight, n = layer.weight.detach().double(), layer.in_features
    bias = weight.new_zeros(len(weight))
    bias = bias if layer.bias is None else layer.bias.detach().double()
    unit, roundings = kind.eps / 2, n + 1
    if roundings * unit >= 1:
        raise TypeError(f"{n} terms are too many for {layer.weight.dtype}")
    size = low.abs().maximum(high.abs()) + error
    terms = size @ weight.abs().T + bias.abs()
    gamma = roundings * unit / (1 - roundings * unit)
    fresh = gamma * terms + 2 * roundings * kind.tiny
    center, radius = (low + high) / 2, (high - low) / 2
    center = center @ weight.T + bias
    radius = radius @ weight.abs().T + terms * 4 * roundings * 2.0**-53
    error = (error @ weight.abs().T + fresh) * (1 + 4 * roundings * 2.0**-53)
    return center - radius, center + radius, error


def holds_in_floats(margins: Sequence[Fraction], error: Tensor, y: int) -> bool:
    """Return whether the float program, too, returns class ``y`` on the whole ball.

    ``margins`` (K) as proved by ``check_certificate``, ``error`` (K,) of one image by
    ``forward_error_bound``: margins must exceed the errors of both logits.
    """
    allowed = [Fraction(float(e)) for e in error]
    pairs = (
        (m, e) for j, (m, e) in enumerate(zip(margins, allowed, strict=True)) if j != y
    )
    return all(m > e + allowed[y] for m, e in pairs)
