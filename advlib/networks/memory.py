"""What tensors share: views of one piece of memory, and writing into it.

A graph knows no memory. Where a module writes in place, or fills a table part by part,
each place in memory has its own place in some node.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from advlib.networks.aten import constant, picked, sample
from advlib.networks.graph import Builder


class Store:
    """The numbers in one piece of memory: where in the graph each is to be found.

    ``node`` holds them at the places ``index``, one for each number in memory, -1 for
    one that nobody has written; without a node they do not depend on the input. A
    ``closed`` store must not be read: it says why. ``tail``: a softmax that was left
    out, and its axis.
    """

    def __init__(self, value: Tensor, node: int | None, closed: str = "") -> None:
        size = value.untyped_storage().nbytes() // value.element_size()
        self.node, self.closed = node, closed
        self.tail: tuple[Callable, int] | None = None
        self.everything = torch.arange(size)
        self.index = torch.full((size,), -1)
        self.index[self.at(value)] = torch.arange(value.numel()).view(value.shape)
        self.found: dict[tuple, int] = {}

    def at(self, value: Tensor) -> Tensor:
        """Return the places in memory of ``value``, which lies in this store."""
        how = value.shape, value.stride(), value.storage_offset()
        return self.everything.as_strided(*how)

    def places(self, value: Tensor) -> Tensor:
        """Return the places in the node of ``value``.

        Raises ``ValueError`` if nothing was written to some of them.
        """
        index = self.index[self.at(value)]
        if (index < 0).any():
            raise ValueError("it reads memory that nothing was written to")
        return index

    def read(self, builder: Builder, value: Tensor, name: str) -> int:
        """Return a node with what ``value`` holds now, shaped without batch.

        Made by ``builder`` under ``name``, as in the methods below.
        """
        how = tuple(value.shape), value.stride(), value.storage_offset()
        if how not in self.found:
            index = self.places(value).reshape(sample(value.shape))
            self.found[how] = picked(builder, self.node, index, name)
        return self.found[how]

    def open(self, builder: Builder, value: Tensor, name: str) -> None:
        """Give numbers that did not depend on the input a node.

        ``value`` is some part of them; ``builder`` and ``name`` as in ``read``.
        """
        memory = value.detach().as_strided((len(self.everything),), (1,), 0)
        memory = memory.cpu().double().masked_fill(self.index < 0, 0)
        self.node = constant(builder, memory, tuple(memory.shape), name)
        self.index = torch.where(self.index < 0, -1, self.everything)

    def move(self, source: Tensor, at: Tensor) -> None:
        """Let the places ``at`` hold what the places ``source`` do."""
        self.index = self.index.index_put((at,), self.index[source])
        self.found.clear()

    def write(self, builder: Builder, at: Tensor, node: int, name: str) -> None:
        """Let the places ``at`` hold the numbers of ``node``, in order.

        ``builder`` and ``name`` as in ``read``.
        """
        new = torch.arange(at.numel()).view(at.shape)
        if self.node is not None and at.numel() < len(self.everything):
            old = builder.places(self.node).numel()
            parts = [(self.node, old), (node, at.numel())]
            flat = [builder.reshape(part, (size,), name) for part, size in parts]
            node, new = builder.concat(flat, 0, name), new + old
        self.node, self.index = node, self.index.clone()
        self.index[at] = new
        self.found.clear()
