"""Exact arithmetic: arrays of dyadic rationals.

Every float is a dyadic rational, an integer over a power of two, and sums and products
of such numbers are again dyadic: nothing is ever rounded, except outward where the text
says so. Python integers in NumPy's object arrays do this about 30 times faster than
``fractions.Fraction``, which looks for a common divisor at every step.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor


class RejectedError(ValueError):
    """A certificate that proves nothing; the message says what failed."""


def as_array(values: np.ndarray | Tensor | float) -> np.ndarray:
    """Return the stored numbers ``values`` as a NumPy array, none of them changed.

    A tensor may live on any device and have gradients; bfloat16, which NumPy does not
    know, becomes float32 by sixteen zero bits behind each number. Raises ``TypeError``
    for numbers that are neither real nor integers.
    """
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        if values.dtype == torch.bfloat16:
            bits = values.view(torch.int16).numpy().astype(np.int32)
            return np.asarray(bits << 16).view(np.float32)
        values = values.numpy()
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"need an array of real numbers, not of {array.dtype}")
    return array


@dataclass(frozen=True)
class Exact:
    """An array of dyadic rationals: ``ints`` (Python integers) over 2^``shift``."""

    ints: np.ndarray
    shift: int = 0

    @staticmethod
    def of(values: np.ndarray | Tensor | float) -> "Exact":
        """Return finite floats, or integers, ``values`` without any rounding.

        Raises ``RejectedError`` for NaN and infinity, ``TypeError`` as ``as_array``.
        """
        array = as_array(values)
        if array.dtype.kind in "biu":
            array = array.astype(int) if array.dtype.kind == "b" else array
            return Exact(array.astype(object))
        if not np.isfinite(array).all():
            raise RejectedError("NaN or infinity is no rational number")
        pairs = [v.as_integer_ratio() for v in array.ravel().tolist()]
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


def stack(first: Exact, second: Exact) -> Exact:
    """Return ``first`` on top of ``second``, over one power of two."""
    shift = max(first.shift, second.shift)
    return Exact(np.concatenate([first.at(shift), second.at(shift)]), shift)
