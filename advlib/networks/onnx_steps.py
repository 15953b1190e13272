"""One node of an ONNX file: its inputs, its options, and how its outputs are made.

Values that depend on no input are constants and stay numpy arrays of their own dtype.
All others are numbers of nodes in a ``Builder``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from advlib.networks.graph import Affine, Builder
from advlib.networks.maps import Convolution, Matrix, Pick, Scale, Transposed
from advlib.networks.onnx_bytes import NoRuleError

HALFWAY = {
    "Erf": "Erf has a rule only within GELU, x / 2 * (1 + Erf(x / sqrt(2)))",
    "Above": "Greater has a rule only within a softplus with threshold",
}


@dataclass(frozen=True)
class Erf:
    """``factor`` erf(z / sqrt 2) + ``shift`` at ``node``, half-way to a GELU."""

    node: int
    factor: float = 1.0
    shift: float = 0.0


@dataclass(frozen=True)
class Above:
    """Whether ``node`` is above ``level``: what a softplus with threshold asks."""

    node: int
    level: float


Value = int | np.ndarray | Erf | Above | None


@dataclass
class Step:
    """A node of operator ``kind`` called ``name``, and the ``builder`` that it feeds.

    ``values``: its inputs, numbers of the builder's nodes or constants, by their
    ``names``; ``outputs``: the names of those outputs that are used, else "";
    ``attributes``: those not looked at yet; ``once``: nodes that nobody else reads;
    ``node``: the ONNX node itself.
    """

    kind: str
    name: str
    opset: int
    names: tuple[str, ...]
    values: list[Value]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    builder: Builder
    node: Any
    once: set[int] = field(default_factory=set)

    def refuse(self, why: str) -> NoRuleError:
        """Return the error that names the node and says ``why``."""
        return NoRuleError(f"no rule for {self.kind} {self.name!r}: {why}")

    # ------------------------------------------------------------------ inputs

    def value(self, i: int) -> Value:
        """Return input ``i``, None if it is left out."""
        return self.values[i] if i < len(self.values) else None

    def is_variable(self, i: int) -> bool:
        """Whether input ``i`` depends on the network's input."""
        return isinstance(self.value(i), int)

    def variable(self, i: int) -> int:
        """Return the node of input ``i``; raises ``NoRuleError`` for all others."""
        value = self.value(i)
        if isinstance(value, int):
            return value
        if isinstance(value, Erf | Above):
            raise self.refuse(HALFWAY[type(value).__name__])
        raise self.refuse(f"input {i} must depend on the network's input")

    def array(self, i: int) -> np.ndarray:
        """Return the constant input ``i``; raises ``NoRuleError`` for all others."""
        value = self.value(i)
        if isinstance(value, np.ndarray):
            return value
        what = "missing" if value is None else "not a constant"
        raise self.refuse(f"input {i} ({self._called(i)}) is {what}")

    def _called(self, i: int) -> str:
        return repr(self.names[i]) if i < len(self.names) else "not named"

    def numbers(self, i: int, *, finite: bool = True) -> Tensor:
        """Return the constant input ``i`` as float64, exactly.

        Raises ``NoRuleError`` for whole numbers, and ``ValueError`` for NaN and
        infinity, the latter only with ``finite``.
        """
        array = self.array(i)
        if array.dtype.kind in "biuOSU":
            raise self.refuse(f"{self._called(i)} holds {array.dtype}, not floats")
        numbers = torch.from_numpy(np.array(array, dtype=np.float64, order="C"))
        if numbers.isnan().any() or (finite and numbers.isinf().any()):
            raise ValueError(f"the constant {self._called(i)} holds NaN or infinity")
        return numbers

    def whole(self, i: int) -> list[int]:
        """Return the constant input ``i``, whole numbers; else ``NoRuleError``."""
        array = self.array(i)
        if array.dtype.kind not in "iu":
            raise self.refuse(f"{self._called(i)} holds {array.dtype}, not integers")
        return [int(n) for n in array.ravel()]

    # ------------------------------------------------------------------ options

    def take(self, name: str, default: Any = None) -> Any:
        """Return the attribute ``name``, ``default`` if it is not given."""
        return self.attributes.pop(name, default)

    def number(self, name: str, default: float) -> float:
        """Return the attribute ``name``, ``default`` if it is not given.

        Raises ``NoRuleError`` for NaN, infinity and what is no number.
        """
        value = self.take(name, default)
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise self.refuse(f"the attribute {name} is {value}")
        return float(value)

    def integer(self, name: str, default: int) -> int:
        """Return the attribute ``name``, whole; ``default`` if it is not given."""
        value = self.take(name, default)
        if not isinstance(value, int):
            raise self.refuse(f"the attribute {name} is {value}, not whole")
        return value

    def integers(self, name: str, default: Sequence[int], low: int = 0) -> list[int]:
        """Return the attribute ``name``, as many as ``default``, none below ``low``."""
        values = list(self.take(name, default))
        whole = all(isinstance(v, int) and v >= low for v in values)
        if len(values) != len(default) or not whole:
            raise self.refuse(
                f"{name} is {values}; it takes {len(default)} numbers from {low} on"
            )
        return values

    def given(self, name: str, i: int) -> list[int] | None:
        """Return what old versions keep in attribute ``name``, newer in input ``i``."""
        if self.value(i) is not None:
            return self.whole(i)
        values = self.take(name)
        return None if values is None else list(values)

    # ------------------------------------------------------------------ results

    def axis(self, axis: int, rank: int) -> int:
        """Return ``axis`` counted from the front; ``ValueError`` beyond ``rank``."""
        if not -rank <= axis < rank:
            raise ValueError(f"there is no axis {axis} among {rank}")
        return axis % rank

    def shape(self, i: int) -> tuple[int, ...]:
        """Return the shape of input ``i``."""
        value = self.value(i)
        return value.shape if isinstance(value, np.ndarray) else self._shape(i)

    def _shape(self, i: int) -> tuple[int, ...]:
        return self.builder.shape(self.variable(i))

    def pick(self, node: int, places: np.ndarray) -> int:
        """Return the entries of ``node`` at ``places``, -1 for zero.

        Raises ``ValueError`` if there are none.
        """
        shape, size = places.shape, math.prod(self.builder.shape(node))
        if not places.size:
            raise ValueError(f"its output of shape {shape} is empty")
        if places.size == size and (places.ravel() == np.arange(size)).all():
            return self.builder.reshape(node, shape, self.name)
        places = np.array(places, dtype=np.int64, order="C")
        return self.builder.pick(node, torch.from_numpy(places), self.name)

    def places(self, node: int) -> np.ndarray:
        """Return the place of each entry of ``node``."""
        return self.builder.places(node).numpy()

    def shift(self, node: int, by: Tensor) -> int:
        """Return ``node`` plus ``by``, in its bias if it is affine and read once."""
        builder = self.builder
        op, shape = builder.nodes[node].op, builder.shape(node)
        own = isinstance(op, Affine) and node in self.once
        weighs = (Matrix, Convolution, Transposed, Scale)
        if not own or not isinstance(op.map, weighs):
            return builder.scale(node, 1.0, by, self.name)
        if np.broadcast_shapes(by.shape, shape) != shape:
            return builder.scale(node, 1.0, by, self.name)
        bias = by if op.bias is None else op.bias + by
        return builder.affine(builder.nodes[node].inputs[0], op.map, bias, self.name)

    def fill(self, value: Tensor) -> int:
        """Return a node that is ``value`` whatever the input."""
        index = torch.full(value.shape, -1)
        linear = Pick(index, self.builder.shape(0))
        return self.builder.affine(0, linear, value, self.name)

    def multiple(self, node: int) -> tuple[int, float] | None:
        """Return what ``node`` is a multiple of and how many times, else None."""
        op = self.builder.nodes[node].op
        if not isinstance(op, Affine) or not isinstance(op.map, Scale):
            return None
        if op.bias is not None and op.bias.any():
            return None
        first = float(op.map.factor.flatten()[0])
        if (op.map.factor != first).any():
            return None
        return self.builder.nodes[node].inputs[0], first
