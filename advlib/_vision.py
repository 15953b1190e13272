"""The one place that imports torchvision."""

import sys
from types import ModuleType

import torch

_registered: list[torch.library.Library] = []  # a definition dies with its Library


def torchvision() -> ModuleType:
    """Return torchvision, also beside a torch without its compiled operators.

    The index's Linux wheels of torchvision are built for CUDA; beside a CPU-only torch
    their operators do not load, and importing fails on the first one that is missing.
    No operator of the book's is among them, so they are declared and the import
    retried.
    """
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        for name in [m for m in sys.modules if m.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        for op in ("nms", "qnms"):
            library.define(
                f"{op}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            )
        _registered.append(library)
        import torchvision
    return torchvision
