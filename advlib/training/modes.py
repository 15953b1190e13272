"""What a network does with a batch: batch-norm, and eval mode for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


def has_batch_statistics(model: nn.Module) -> bool:
    """Whether ``model`` has a batch-norm layer, which looks at a whole batch."""
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
    return any(isinstance(layer, kinds) for layer in model.modules())


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Put ``model`` in eval mode; at the end every module gets its own mode back.

    Also after an error.
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
