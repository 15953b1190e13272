"""The network of a recipe."""

import inspect
from functools import partial

from torch import nn

from advlib import activations, models
from advlib._vision import torchvision
from advlib.train.recipe import Network


def build_network(recipe: Network, shape: models.Shape, seed: int) -> nn.Module:
    """Return the network of ``recipe`` for images of ``shape``, drawn from ``seed``.

    Networks of torchvision get the usual normalisation as their first layer. Raises
    ``ValueError`` for a name that is neither ours nor torchvision's.
    """
    ours = getattr(models, recipe.build, None)
    if inspect.isfunction(ours) and "num_classes" in inspect.signature(ours).parameters:
        hidden = {"hidden": [100]} if recipe.build == "mlp" else {}
        model = models.seeded(
            ours, shape, num_classes=recipe.num_classes, seed=seed, **hidden
        )
    elif recipe.build in torchvision().models.list_models(torchvision().models):
        normalize = models.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        kind = partial(torchvision().models.get_model, weights=None)
        inner = models.seeded(
            kind, recipe.build, num_classes=recipe.num_classes, seed=seed
        )
        model = nn.Sequential(normalize, inner)
    else:
        raise ValueError(f"network.build: {recipe.build!r} is no network of ours")
    if recipe.activation == "relu":
        return model

    def change(layer: nn.Module) -> nn.Module | None:
        relu = isinstance(layer, nn.ReLU)
        return activations.make(recipe.activation) if relu else None

    return activations.swap(model, change)
