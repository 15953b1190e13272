"""The ImageNet network of Chapter 1's notes, built without a download."""

import pytest
import torch

from advlib import zoo
from advlib._vision import torchvision


@pytest.fixture
def untrained(monkeypatch):
    """Let torchvision build ResNet-50 with random weights in place of a download."""
    kinds = torchvision().models
    build = kinds.resnet50
    seen = []

    def resnet50(*, weights):
        seen.append(weights)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return build(weights=None)

    monkeypatch.setattr(kinds, "resnet50", resnet50)
    return seen


def test_resnet_takes_pixels(untrained):
    """Normalisation is inside: the same pixels, normalised by hand, same logits."""
    model, names = zoo.imagenet_resnet50()
    assert untrained == [torchvision().models.ResNet50_Weights.IMAGENET1K_V1]
    assert len(names) == 1000
    assert not model.training
    x = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    with torch.no_grad():
        assert torch.allclose(model(x), model[1]((x - mean) / std), atol=1e-5)
