"""Trained networks: recipe, weights, provenance.

``load(name, dataset)`` reads the weights committed for MNIST and trains by the same
recipe on any other data set (seconds on digits). ``python -m advlib.zoo train NAME``
remakes a committed file.
"""

import argparse
import hashlib
import json
import math
import platform
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load as load_bytes
from torch import Tensor, nn

from advlib import attacks, data, evaluation, models, training
from advlib._vision import torchvision
from advlib.files import atomic_write, tensor_bytes

WEIGHTS = Path(__file__).parent / "weights"
CHECKSUMS = WEIGHTS / "sha256.json"
METHODS = ("pgd", "fgsm", "ibp", "autoencoder")
PARTS = ("train", "all", "first half", "second half")


@dataclass(frozen=True)
class Recipe:
    """How a network was trained: SGD, ``lr`` for ``epochs``, then ``lr / 10``.

    ``build`` names a function of ``networks.models``. ``eps`` > 0 is robust training in
    the l-inf ball, box respected, by ``method``: "pgd" trains on images attacked by
    ``num_steps`` of PGD from a random start with ``alpha = 2.5 eps / num_steps``,
    "fgsm" by that one step from 0, "ibp" on ``training.IntervalLoss``. The radius
    grows from 0 to ``eps`` over the first ``ramp`` (a share) of the updates. At least
    ``min_steps`` updates are made, so that a small data set gets more epochs. Method
    "autoencoder" first trains the layers
    before the last as the encoder of a sparse autoencoder, for ``encoder_epochs``, then
    only the last on labels. ``decay`` is that of ``training.DecayedLoss``. ``part``
    says which images are trained on (see ``training_images``). Raises ``ValueError``
    for another method or part.
    """

    build: str
    epochs: int = 10
    lr: float = 0.1
    drop_after: float = 0.5
    batch_size: int = 100
    seed: int = 0
    eps: float = 0.0
    num_steps: int = 0
    min_steps: int = 1000
    method: str = "pgd"
    ramp: float = 0.0
    decay: tuple[float, ...] = ()
    part: str = "train"
    encoder_epochs: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "decay", tuple(self.decay))  # a list, from JSON
        if self.method not in METHODS:
            raise ValueError(f"method {self.method!r} is none of {METHODS}")
        if self.part not in PARTS:
            raise ValueError(f"part {self.part!r} is none of {PARTS}")

    def rates(self, n: int) -> list[float]:
        """Return the learning rate of each epoch on ``n`` images."""
        enough = math.ceil(self.min_steps / math.ceil(n / self.batch_size))
        epochs = max(self.epochs, enough)
        first = math.ceil(self.drop_after * epochs)
        return [self.lr] * first + [self.lr / 10] * (epochs - first)

    def _growth(self, n: int) -> training.Ramp:
        updates = len(self.rates(n)) * math.ceil(n / self.batch_size)
        return training.Ramp(round(self.ramp * updates))

    def attack(self, n: int = 1) -> attacks.Attack | None:
        """Return the training attack for ``n`` images; None unless by one."""
        if self.eps == 0 or self.method not in ("pgd", "fgsm"):
            return None
        generator = torch.Generator().manual_seed(self.seed)
        growth = self._growth(n)

        def attack(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            eps = self.eps * growth()
            if self.method == "fgsm":
                return attacks.fgsm(model, x, y, eps)
            return attacks.pgd_linf(
                model,
                x,
                y,
                eps,
                alpha=2.5 * eps / self.num_steps,
                num_steps=self.num_steps,
                generator=generator,
            )

        return attack

    def objective(self, n: int = 1) -> training.Objective:
        """Return what is minimised over ``n`` images: cross-entropy, unless by IBP."""
        if self.eps > 0 and self.method == "ibp":
            return training.IntervalLoss(self.eps, self._growth(n))
        if self.decay:
            return training.DecayedLoss(self.decay)
        return training.mean_cross_entropy


CNN_PGD = Recipe(
    "cnn_small",
    epochs=10,
    drop_after=0.7,
    batch_size=50,
    eps=0.3,
    num_steps=7,
    ramp=0.4,
)
CNN_SHALLOW = Recipe("cnn_shallow", epochs=8, drop_after=0.75, min_steps=400)
CNN_DEEP = replace(CNN_SHALLOW, build="cnn_deep")
FC10 = Recipe("linear", epochs=60, drop_after=0.7, part="all", min_steps=4000)
SIGMOID = Recipe(
    "fc_100_100",
    epochs=60,
    lr=1.0,
    drop_after=0.7,
    min_steps=4000,
    decay=(1e-5, 1e-5, 1e-6),
    part="all",
)
RECIPES = {
    "linear": Recipe("linear"),
    "small": Recipe("small"),
    "dnn_2": Recipe("dnn_2"),
    "dnn_4": Recipe("dnn_4"),
    "cnn": Recipe("cnn"),
    "dnn_2_pgd": Recipe("dnn_2", epochs=20, eps=0.1, num_steps=7),
    "small_pgd": Recipe("small", epochs=30, eps=0.1, num_steps=7),
    "small_ibp": Recipe(
        "small", epochs=40, drop_after=0.75, eps=0.1, method="ibp", ramp=0.5
    ),
    "mlp_256": Recipe("mlp_256"),
    "mlp_256_pgd": Recipe("mlp_256", epochs=12, eps=0.1, num_steps=7),
    "mlp_256_ibp": Recipe(
        "mlp_256", epochs=30, drop_after=0.75, eps=0.1, method="ibp", ramp=0.5
    ),
    "cnn_small": Recipe("cnn_small"),
    "cnn_small_pgd_0": CNN_PGD,
    "cnn_small_pgd_1": replace(CNN_PGD, seed=1),
    "cnn_small_pgd_2": replace(CNN_PGD, seed=2),
    "cnn_small_fgsm": replace(CNN_PGD, method="fgsm"),  # collapses: Chapter 8a
    **{f"cnn_shallow_{i}": replace(CNN_SHALLOW, seed=i) for i in range(3)},
    **{f"cnn_deep_{i}": replace(CNN_DEEP, seed=i) for i in range(3)},
    "fc10_1e-4": replace(FC10, decay=(1e-4,)),
    "fc10_1e-2": replace(FC10, decay=(1e-2,)),
    "fc10_1": replace(FC10, decay=(1.0,)),
    "fc_100_100": SIGMOID,
    "fc_200_200": replace(SIGMOID, build="fc_200_200"),
    "ae_400": replace(
        SIGMOID,
        build="ae_400",
        method="autoencoder",
        encoder_epochs=30,
        epochs=100,
        decay=(0.0, 1e-6),
    ),
    "fc_100_100_p1": replace(SIGMOID, part="first half"),
    "fc_123_456_p1": replace(SIGMOID, build="fc_123_456", part="first half"),
    "fc_100_100_p2": replace(SIGMOID, part="second half", seed=1),
}


def _recipe(name: str) -> Recipe:
    if name not in RECIPES:
        raise ValueError(f"unknown network {name!r}; one of {sorted(RECIPES)}")
    return RECIPES[name]


def training_images(name: str, dataset: data.Dataset) -> data.Split:
    """Return the images and labels of ``dataset`` that network ``name`` is trained on.

    Those of ``dataset.train``; for some recipes these with the validation images, all
    of them or a half. Raises ``ValueError`` for an unknown name.
    """
    part = _recipe(name).part
    if part == "train":
        return dataset.train
    pairs = zip(dataset.train, dataset.validation, strict=True)
    x, y = (torch.cat(pair) for pair in pairs)
    middle = len(x) // 2
    keep = {"first half": slice(middle), "second half": slice(middle, None)}
    return x[keep.get(part, slice(None))], y[keep.get(part, slice(None))]


def _fit_encoder(model: nn.Sequential, x: Tensor, y: Tensor, recipe: Recipe) -> None:
    """Train all but the last layer as a sparse autoencoder's encoder; freeze it."""
    encoder, pixels = model[:-1], x[0].numel()
    decoder = models.seeded(
        nn.Linear, model[-1].in_features, pixels, seed=recipe.seed + 1
    )
    encoding = replace(recipe, epochs=recipe.encoder_epochs, lr=0.1)
    rates = encoding.rates(len(y))
    training.fit(
        nn.Sequential(*encoder, decoder),
        x,
        y,
        epochs=len(rates),
        lr=rates,
        batch_size=recipe.batch_size,
        objective=training.SparseReconstruction(share=0.1, weight=1.0),
        seed=recipe.seed,
    )
    encoder.requires_grad_(False)


def train(
    name: str, dataset: data.Dataset, *, seed: int | None = None
) -> nn.Sequential:
    """Train network ``name`` by its recipe on its images of ``dataset``; eval mode.

    ``seed`` replaces the recipe's. Raises ``ValueError`` for an unknown name.
    """
    recipe = _recipe(name)
    seed = recipe.seed if seed is None else seed
    build = getattr(models, recipe.build)
    model = models.seeded(build, dataset.shape, dataset.num_classes, seed=seed)
    x, y = training_images(name, dataset)
    n = len(y)
    rates = recipe.rates(n)
    if recipe.method == "autoencoder":
        _fit_encoder(model, x, y, replace(recipe, seed=seed))
    training.fit(
        model,
        x,
        y,
        epochs=len(rates),
        lr=rates,
        batch_size=recipe.batch_size,
        objective=recipe.objective(n),
        attack=recipe.attack(n),
        seed=seed,
    )
    return model.requires_grad_()


def _file(name: str, dataset: str) -> Path:
    return WEIGHTS / f"{dataset}-{name}.safetensors"


def load(name: str, dataset: data.Dataset) -> nn.Sequential:
    """Return network ``name`` for ``dataset``, in eval mode.

    Reads the committed weights if there are any for ``dataset``, else trains. Raises
    ``ValueError`` for an unknown name or a file that is not the committed one.
    """
    recipe, path = _recipe(name), _file(name, dataset.name)
    if not path.is_file():
        return train(name, dataset)
    content = path.read_bytes()
    expected = json.loads(CHECKSUMS.read_text()).get(path.name)
    if hashlib.sha256(content).hexdigest() != expected:
        raise ValueError(
            f"{path.name} is truncated or altered; restore it, or remake it with "
            f"python -m advlib.zoo train {name}"
        )
    build = getattr(models, recipe.build)
    model = models.seeded(build, dataset.shape, dataset.num_classes, seed=0)
    model.load_state_dict(load_bytes(content))
    return model


def provenance(name: str, dataset: str = "mnist") -> dict:
    """Return how a committed network was made: recipe, versions, seconds, test error.

    ``name`` is a key of ``RECIPES``, ``dataset`` the name of a data set. Raises
    ``FileNotFoundError`` if no weights are committed for ``dataset``.
    """
    path = _file(name, dataset)
    if not path.is_file():
        raise FileNotFoundError(f"no committed weights for {name} on {dataset}")
    with safe_open(path, "pt") as stored:
        return json.loads(stored.metadata()["provenance"])


def remake(name: str, dataset: data.Dataset) -> dict:
    """Train ``name`` on ``dataset``, write its weights, and return its provenance."""
    began = time.perf_counter()
    model = train(name, dataset)
    error = evaluation.clean_error(model, *dataset.test)
    option = "" if dataset.name == "mnist" else f" --dataset {dataset.name}"
    record = {
        "command": f"python -m advlib.zoo train {name}{option}",
        "dataset": str(dataset),
        "recipe": json.loads(json.dumps(asdict(_recipe(name)))),  # tuples: lists
        "test_wrong": error.wrong,
        "test_images": error.n,
        "seconds": round(time.perf_counter() - began),
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__.split("+")[0],
        },
    }
    WEIGHTS.mkdir(exist_ok=True)
    path = _file(name, dataset.name)
    content = tensor_bytes(model.state_dict(), {"provenance": json.dumps(record)})
    atomic_write(path, content)
    sums = json.loads(CHECKSUMS.read_text()) if CHECKSUMS.is_file() else {}
    sums[path.name] = hashlib.sha256(content).hexdigest()
    text = json.dumps(sums, indent=1, sort_keys=True) + "\n"
    atomic_write(CHECKSUMS, text.encode())
    return record


def imagenet_resnet50() -> tuple[nn.Sequential, list[str]]:
    """Return torchvision's pretrained ResNet-50 on [0, 1] images, and class names.

    Downloads about 98 MB on first use. The input is (N, 3, 224, 224) in [0, 1]:
    normalisation is the first layer. Eval mode. Raises ``OSError`` without network.
    """
    kinds = torchvision().models
    weights = kinds.ResNet50_Weights.IMAGENET1K_V1
    normalize = models.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    network = nn.Sequential(normalize, kinds.resnet50(weights=weights))
    return network.eval(), weights.meta["categories"]


def imagenet_alexnet(*, download: bool = False) -> nn.Sequential:
    """Return torchvision's pretrained AlexNet on [0, 1] images, layer after layer.

    One flat ``Sequential``, so that any layer can be cut out; the input is
    (N, 3, 224, 224) in [0, 1], normalisation is the first layer. Eval mode. Unless
    ``download`` (about 244 MB) the weights must be in torch's cache: raises
    ``FileNotFoundError`` if they are not, ``OSError`` without network.
    """
    kinds = torchvision().models
    weights = kinds.AlexNet_Weights.IMAGENET1K_V1
    place = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    if not download and not place.is_file():
        raise FileNotFoundError(f"no {place.name} in torch's cache: download=True")
    network = kinds.alexnet(weights=weights)
    normalize = models.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    layers = [*network.features, network.avgpool, nn.Flatten(), *network.classifier]
    return nn.Sequential(normalize, *layers).eval()


def main(arguments: list[str] | None = None) -> None:
    """Run ``python -m advlib.zoo`` with ``arguments``: list, or train NAME."""
    parser = argparse.ArgumentParser(prog="python -m advlib.zoo")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="the networks and their recipes")
    again = commands.add_parser("train", help="train a network and write its weights")
    again.add_argument("name", choices=sorted(RECIPES))
    again.add_argument("--dataset", default="mnist")
    options = parser.parse_args(arguments)
    if options.command == "list":
        for name, recipe in RECIPES.items():
            sys.stdout.write(f"{name}: {recipe}\n")
    else:
        record = remake(options.name, data.load(options.dataset))
        sys.stdout.write(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
