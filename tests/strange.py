"""Networks and tensors that are not what they look like; bounds must refuse them."""

import torch
from torch import Tensor, nn


class Negated(nn.Sequential):
    """A Sequential that is not what its layers say."""

    def forward(self, x: Tensor) -> Tensor:
        """Return minus what the layers return."""
        return -super().forward(x)


class NegatedNumbers(nn.Parameter):
    """Numbers that are stored one way and multiplied another."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        """Return minus what torch returns, for products."""
        found = super().__torch_function__(func, types, args, kwargs or {})
        if func is nn.functional.linear:
            return -found.as_subclass(torch.Tensor)
        return found
