"""Samples by (epoch, index), their order over processes, and the rate of a step."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from advlib import data, training
from advlib._vision import torchvision
from advlib.train.recipe import Images, Schedule

HELD_OUT = 1000  # validation images that the result counts


def generator_of(*key: int) -> torch.Generator:
    """Return a generator seeded from all of ``key``.

    Mixed to 32 bits, because torch ignores the upper half of a seed on the CPU.
    """
    (seed,) = np.random.SeedSequence(key).generate_state(1)
    return torch.Generator().manual_seed(int(seed))


class Samples(torch.utils.data.Dataset):
    """Training images by (epoch, index): augmented image, noise in [0, 1], label.

    What is drawn for a sample comes from (``seed``, epoch, index) alone. ``images``
    (N, C, H, W) in [0, 1] or a list of files, ``labels`` (N,), ``recipe`` says how.
    """

    def __init__(
        self, images: Tensor | list[Path], labels: Tensor, recipe: Images, seed: int
    ) -> None:
        count = recipe.num_images or len(labels)
        self.images, self.labels = images[:count], labels[:count]
        self.recipe, self.seed = recipe, seed

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the sample ``key`` = (epoch, index)."""
        epoch, index = key
        generator = generator_of(self.seed, epoch, index)
        if isinstance(self.images, Tensor):
            x = self.images[index]
            if self.recipe.augment:
                x = training.shift_and_flip(x[None], generator)[0]
        else:
            x = _photo(self.images[index], self.recipe, generator)
        return x, torch.rand(x.shape, generator=generator), self.labels[index]


def _photo(path: Path, recipe: Images, generator: torch.Generator) -> Tensor:
    """Read a photograph: a random crop, perhaps mirrored, or the middle."""
    if not recipe.augment:
        return data.read_images([path], recipe.size)[0]
    kinds = torchvision().transforms
    crop = kinds.Compose(
        [
            kinds.RandomResizedCrop(recipe.size),
            kinds.RandomHorizontalFlip(),
            kinds.ToTensor(),
        ]
    )
    seed = int(torch.randint(2**62, (1,), generator=generator))
    photo = data.read_photo(path)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # torchvision draws from the global state
        return crop(photo)


def load_images(recipe: Images, seed: int) -> tuple[Samples, Callable[[], data.Split]]:
    """Return the training ``Samples`` of ``recipe``, and what reads validation images.

    At most 1000 of these; of a folder, spread over its classes. ``seed`` draws
    augmentation and noise. Raises ``FileNotFoundError`` for a missing folder,
    ``ValueError`` if its two parts differ in their classes, and what ``data.load``
    raises.
    """
    if recipe.dataset != "image_folder":
        loaded = data.load(recipe.dataset)
        few = loaded.validation[0][:HELD_OUT], loaded.validation[1][:HELD_OUT]
        return Samples(*loaded.train, recipe, seed), lambda: few
    files, labels, names = _folder(recipe, "train")
    held, held_labels, held_names = _folder(recipe, "val")
    if names != held_names:
        raise ValueError("train/ and val/ do not have the same classes")
    held, held_labels = held[:HELD_OUT], held_labels[:HELD_OUT]

    def read() -> data.Split:
        return data.read_images(held, recipe.size), held_labels

    return Samples(files, labels, recipe, seed), read


def _folder(recipe: Images, part: str) -> tuple[list[Path], Tensor, list[str]]:
    """List a part's images, shuffled once: any first few are of all classes."""
    folder = Path(recipe.folder) / part
    if not folder.is_dir():
        raise FileNotFoundError(f"data.folder: {recipe.folder!r} holds no {part}/")
    files, labels, names = data.image_folder(folder)
    order = torch.randperm(len(files), generator=generator_of(len(files)))
    return [files[k] for k in order.tolist()], labels[order], names


class Order:
    """The batches of this process: lists of (epoch, index), from ``first`` on.

    Every epoch is a permutation drawn from (``seed``, epoch), cut into global batches;
    process ``rank`` of ``world`` takes every ``world``-th image of each. Images that do
    not fill a batch wait for another epoch.
    """

    def __init__(
        self, n: int, plan: Schedule, seed: int, first: int, rank: int, world: int
    ) -> None:
        self.n, self.plan, self.seed, self.first = n, plan, seed, first
        self.rank, self.world = rank, world
        self.batch_size = min(n, plan.batch_size)
        self.per_epoch = n // self.batch_size
        steps = plan.epochs * self.per_epoch
        self.steps = min(steps, plan.max_steps or steps)

    def __len__(self) -> int:
        """Return the number of batches that are left."""
        return max(0, self.steps - self.first)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Yield this process's part of one global batch after the other."""
        for step in range(self.first, self.steps):
            epoch, place = divmod(step, self.per_epoch)
            generator = generator_of(self.seed, epoch)
            order = torch.randperm(self.n, generator=generator).tolist()
            batch = order[place * self.batch_size :][: self.batch_size]
            yield [(epoch, index) for index in batch[self.rank :: self.world]]


def learning_rate(plan: Schedule, step: int, per_epoch: int) -> float:
    """Return the rate of ``plan`` at ``step``, with ``per_epoch`` steps an epoch."""
    done, warm = (step + 0.5) / per_epoch, plan.warmup_epochs
    rate = plan.lr
    if plan.shape == "triangle":
        share = done / plan.epochs
        rate *= min(3 * share, 1.5 * (1 - share))
    if plan.shape == "steps":
        rate *= 0.1 ** sum(done > milestone for milestone in plan.milestones)
    return rate * min(1.0, done / warm) if warm else rate
