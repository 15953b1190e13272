"""The ImageNet cells of chapter 1 run, with a network that needs no download."""

from pathlib import Path

import matplotlib as mpl
import nbformat
import pytest
import torch

from advlib import zoo
from advlib._vision import torchvision

CHAPTER = Path(__file__).resolve().parent.parent / "chapters/01_introduction.ipynb"


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


def _cells(*ids: str) -> list[str]:
    cells = nbformat.read(CHAPTER, 4).cells
    return [next(c.source for c in cells if c.id == wanted) for wanted in ids]


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


def test_cells_run_when_asked(untrained, monkeypatch, capsys):
    """With ADVLIB_IMAGENET=1 the chapter's own cells run to the picture."""
    mpl.use("Agg")
    monkeypatch.setenv("ADVLIB_IMAGENET", "1")
    monkeypatch.delenv("ADVLIB_PHOTO", raising=False)
    imports, *rest = _cells("first-cell", "imagenet-first", "imagenet", "imagenet-run")
    space: dict = {}
    exec(imports.split("\n\n")[0], space)
    for source in rest:
        exec(source.replace("num_steps=30", "num_steps=1"), space)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2
    assert space["photo"].shape == (1, 3, 224, 224)
    assert space["delta"].abs().max() <= 2 / 255 + 1e-6
