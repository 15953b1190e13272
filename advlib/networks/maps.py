"""Linear maps, each with its transpose: all that a bound needs to know of a layer.

A map sends one array of shape ``inside`` to one of shape ``outside``. ``push`` carries
values forward through it, ``pull`` carries rows (linear functions of what comes out)
back, as the transposed matrix would; ``absolute`` is the map with the absolute values
of its numbers, which intervals need. A batch of any size stands before each shape.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Shape = tuple[int, ...]


class Map(Protocol):
    """A linear map between arrays of shape ``inside`` and ``outside``."""

    @property
    def inside(self) -> Shape:
        """The shape of one input."""

    @property
    def outside(self) -> Shape:
        """The shape of one output."""

    def push(self, values: Tensor) -> Tensor:
        """Return the map of ``values`` (N, *inside), (N, *outside)."""

    def pull(self, rows: Tensor) -> Tensor:
        """Return the transposed map of ``rows`` (N, *outside), (N, *inside)."""

    def absolute(self) -> "Map":
        """Return the map whose numbers are the absolute values of this one's."""

    def to(self, like: Tensor) -> "Map":
        """Return the map in dtype and on the device of ``like``."""


@dataclass(frozen=True)
class Matrix:
    """Multiply by ``weight`` (out, in) along ``axis`` of arrays of shape ``inside``.

    With the last axis of a flat array it is a Linear layer; along others, sums, means,
    adaptive pooling and resizing. Raises ``ValueError`` for a shape that does not fit.
    """

    weight: Tensor
    inside: Shape
    axis: int = -1

    def __post_init__(self) -> None:
        fits = -len(self.inside) <= self.axis < len(self.inside)
        if not fits or self.inside[self.axis] != self.weight.shape[1]:
            raise ValueError(
                f"a matrix {tuple(self.weight.shape)} does not take inputs of "
                f"{self.inside} along axis {self.axis}"
            )

    @property
    def outside(self) -> Shape:
        """The shape of one output."""
        shape = list(self.inside)
        shape[self.axis] = self.weight.shape[0]
        return tuple(shape)

    @property
    def _last(self) -> bool:
        return self.axis in (-1, len(self.inside) - 1)

    def push(self, values: Tensor) -> Tensor:
        """Return the product with ``values`` (N, *inside)."""
        return self._times(values, self.weight.T)

    def pull(self, rows: Tensor) -> Tensor:
        """Return the product of ``rows`` (N, *outside) with the transposed matrix."""
        return self._times(rows, self.weight)

    def _times(self, values: Tensor, matrix: Tensor) -> Tensor:
        if self._last:
            return values @ matrix
        axis = self.axis if self.axis < 0 else self.axis - len(self.inside)
        return (values.movedim(axis, -1) @ matrix).movedim(-1, axis)

    def absolute(self) -> "Matrix":
        """Return the matrix of absolute values."""
        return replace(self, weight=self.weight.abs())

    def to(self, like: Tensor) -> "Matrix":
        """Return the map in dtype and on the device of ``like``."""
        return replace(self, weight=self.weight.to(like))


@dataclass(frozen=True)
class Convolution:
    """Convolve with ``weight`` (out, in / groups, *kernel): one, two or three axes.

    ``padding``: for each axis how many zeros before and behind; ``stride`` and
    ``dilation`` one number an axis. Raises ``ValueError`` for an input that does not
    fit.
    """

    weight: Tensor
    inside: Shape
    stride: Shape
    padding: tuple[tuple[int, int], ...]
    dilation: Shape
    groups: int = 1

    def __post_init__(self) -> None:
        kernel = self.weight.shape[2:]
        sides = (len(self.stride), len(self.padding), len(self.dilation), len(kernel))
        fits = len(self.inside) == len(kernel) + 1 and set(sides) == {len(kernel)}
        fits = fits and self.inside[0] == self.weight.shape[1] * self.groups
        if not fits or len(self.weight) % self.groups or min(self.outside) < 1:
            raise ValueError(
                f"a convolution of weight {tuple(self.weight.shape)}, groups "
                f"{self.groups}, stride {self.stride}, padding {self.padding} and "
                f"dilation {self.dilation} does not take inputs of {self.inside}"
            )

    @property
    def outside(self) -> Shape:
        """The shape of one output."""
        sides = []
        for i, n in enumerate(self.inside[1:]):
            reach = self.dilation[i] * (self.weight.shape[2 + i] - 1) + 1
            sides.append((n + sum(self.padding[i]) - reach) // self.stride[i] + 1)
        return len(self.weight), *sides

    def push(self, values: Tensor) -> Tensor:
        """Return the convolution of ``values`` (N, *inside)."""
        ends = [end for pair in reversed(self.padding) for end in pair]
        if any(ends):
            values = F.pad(values, ends)
        run = (F.conv1d, F.conv2d, F.conv3d)[len(self.stride) - 1]
        options = {"stride": self.stride, "dilation": self.dilation}
        return run(values, self.weight, groups=self.groups, **options)

    def pull(self, rows: Tensor) -> Tensor:
        """Return what each pixel of the input weighs in ``rows`` (N, *outside)."""
        run = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)
        options = {"stride": self.stride, "dilation": self.dilation}
        run = run[len(self.stride) - 1]
        values = run(rows, self.weight, groups=self.groups, **options)
        ends = []
        for n, had, (before, _) in zip(
            self.inside[1:], values.shape[2:], self.padding, strict=True
        ):
            ends = [-before, before + n - had, *ends]
        return F.pad(values, ends) if any(ends) else values

    def absolute(self) -> "Convolution":
        """Return the convolution with the absolute weights."""
        return replace(self, weight=self.weight.abs())

    def to(self, like: Tensor) -> "Convolution":
        """Return the map in dtype and on the device of ``like``."""
        return replace(self, weight=self.weight.to(like))


@dataclass(frozen=True)
class Transposed:
    """The transpose of another map: of a convolution, a transposed convolution."""

    of: Map

    @property
    def inside(self) -> Shape:
        """The shape of one input."""
        return self.of.outside

    @property
    def outside(self) -> Shape:
        """The shape of one output."""
        return self.of.inside

    def push(self, values: Tensor) -> Tensor:
        """Return the transposed map of ``values`` (N, *inside)."""
        return self.of.pull(values)

    def pull(self, rows: Tensor) -> Tensor:
        """Return the map itself of ``rows`` (N, *outside)."""
        return self.of.push(rows)

    def absolute(self) -> "Transposed":
        """Return the transpose of the absolute map."""
        return Transposed(self.of.absolute())

    def to(self, like: Tensor) -> "Transposed":
        """Return the map in dtype and on the device of ``like``."""
        return Transposed(self.of.to(like))


@dataclass(frozen=True)
class Scale:
    """Multiply each entry of arrays of shape ``inside`` by its own ``factor``.

    ``factor`` broadcasts to ``inside``. Raises ``ValueError`` if it does not.
    """

    factor: Tensor
    inside: Shape

    def __post_init__(self) -> None:
        if np.broadcast_shapes(self.factor.shape, self.inside) != self.inside:
            raise ValueError(
                f"a factor {tuple(self.factor.shape)} does not fit {self.inside}"
            )

    @property
    def outside(self) -> Shape:
        """The shape of one output: that of the input."""
        return self.inside

    def push(self, values: Tensor) -> Tensor:
        """Return ``values`` (N, *inside), each times its factor."""
        return values * self.factor

    def pull(self, rows: Tensor) -> Tensor:
        """Return the same of ``rows``: the matrix is diagonal."""
        return rows * self.factor

    def absolute(self) -> "Scale":
        """Return the map of absolute factors."""
        return replace(self, factor=self.factor.abs())

    def to(self, like: Tensor) -> "Scale":
        """Return the map in dtype and on the device of ``like``."""
        return replace(self, factor=self.factor.to(like))


@dataclass(frozen=True)
class Pick:
    """Let each output be one entry of the input, or zero.

    ``index`` (*outside), whole numbers: the place in the flat input, -1 for zero. So
    slices, transposes, padding of every mode, gathers, repeats and the corners of
    pooling windows are written. Raises ``ValueError`` for a place that is not there.
    """

    index: Tensor
    inside: Shape

    def __post_init__(self) -> None:
        size = math.prod(self.inside)
        if self.index.dtype != torch.int64 or self.index.numel() == 0:
            raise ValueError("an index must be of dtype int64 and not empty")
        if int(self.index.min()) < -1 or int(self.index.max()) >= size:
            raise ValueError(f"an index outside of an input of {self.inside}")

    @property
    def outside(self) -> Shape:
        """The shape of one output."""
        return tuple(self.index.shape)

    def push(self, values: Tensor) -> Tensor:
        """Return the picked entries of ``values`` (N, *inside)."""
        flat = values.reshape(len(values), -1)
        out = flat[:, self.index.clamp(min=0).flatten()].view(-1, *self.index.shape)
        return out.masked_fill(self.index < 0, 0) if self._zeros else out

    @property
    def _zeros(self) -> bool:
        return bool((self.index < 0).any())

    def pull(self, rows: Tensor) -> Tensor:
        """Return what each entry of the input weighs in ``rows`` (N, *outside)."""
        if self._zeros:
            rows = rows.masked_fill(self.index < 0, 0)
        flat = rows.new_zeros(len(rows), math.prod(self.inside))
        flat.index_add_(1, self.index.clamp(min=0).flatten(), rows.flatten(1))
        return flat.view(-1, *self.inside)

    def absolute(self) -> "Pick":
        """Return the map itself: it holds ones and zeros."""
        return self

    def to(self, like: Tensor) -> "Pick":
        """Return the map on the device of ``like``."""
        return replace(self, index=self.index.to(like.device))


@dataclass(frozen=True)
class Reshape:
    """Let the same numbers in the same order have another shape.

    Raises ``ValueError`` if their counts differ.
    """

    inside: Shape
    outside: Shape

    def __post_init__(self) -> None:
        if math.prod(self.inside) != math.prod(self.outside):
            raise ValueError(f"{self.inside} cannot be read as {self.outside}")

    def push(self, values: Tensor) -> Tensor:
        """Return ``values`` (N, *inside) as (N, *outside)."""
        return values.reshape(-1, *self.outside)

    def pull(self, rows: Tensor) -> Tensor:
        """Return ``rows`` (N, *outside) as (N, *inside)."""
        return rows.reshape(-1, *self.inside)

    def absolute(self) -> "Reshape":
        """Return the map itself: it holds ones and zeros."""
        return self

    def to(self, like: Tensor) -> "Reshape":
        """Return the map itself: it holds nothing to be made ``like`` another."""
        return self


def dense(linear: Map, like: Tensor, *, batch: int = 4096) -> Tensor:
    """Return the matrix (out, in) of a ``linear`` map, in dtype of ``like``.

    Both ends are counted in flattened order. ``batch``: unit rows pulled at once.
    """
    rows, columns = math.prod(linear.outside), math.prod(linear.inside)
    if isinstance(linear, Matrix) and len(linear.inside) == 1:
        return linear.weight.to(like)
    moved, parts = linear.to(like), []
    for start in range(0, rows, batch):
        unit = like.new_zeros(min(batch, rows - start), rows)
        unit[torch.arange(len(unit)), start + torch.arange(len(unit))] = 1
        parts.append(moved.pull(unit.view(-1, *linear.outside)).reshape(-1, columns))
    return torch.cat(parts)


def flat_places(shape: Sequence[int]) -> Tensor:
    """Return the number of each entry of an array of ``shape``: what ``Pick`` takes."""
    return torch.arange(math.prod(shape)).view(*shape)


def pooling_places(
    n: int, kernel: int, stride: int, padding: tuple[int, int], dilation: int,
    ceil: bool,
) -> Tensor:  # fmt: skip
    """Return which of ``n`` places along an axis each window reads: (windows, kernel).

    ``padding`` (before, behind) and what lies beyond it are places below 0 or not below
    ``n``. ``kernel``, ``stride`` and ``dilation`` are one number each; with ``ceil`` a
    window counts that reaches beyond the end but begins before it, as in torch. Raises
    ``ValueError`` for a window that is too wide or lies in the padding.
    """
    before, behind = padding
    room = n + before + behind - dilation * (kernel - 1) - 1
    count = room // stride + 1
    if ceil and room % stride and count * stride < n + before:
        count += 1
    if count < 1:
        raise ValueError(f"a window is wider than {n}")
    starts = torch.arange(count)[:, None] * stride - before
    at = starts + torch.arange(kernel) * dilation
    if not ((at >= 0) & (at < n)).any(1).all():
        raise ValueError("a window lies in the padding")
    return at
