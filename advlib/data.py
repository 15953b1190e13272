"""Images in [0, 1]: scikit-learn's digits (embedded), MNIST, CIFAR-10, toy sets.

Files are looked for in the folder ``ADVLIB_DATA``, then in the user's cache; what is
in neither is downloaded. A file that is there but not the published one is refused.
"""

import errno
import hashlib
import http.client
import io
import os
import socket
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from advlib._vision import torchvision

if TYPE_CHECKING:  # Pillow is imported where photographs are read
    from PIL import Image

Split = tuple[Tensor, Tensor]

# torchvision checks only the .gz files that it downloads; these are the files inside
MNIST_SHA256 = {
    "train-images-idx3-ubyte": (
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"
    ),
    "train-labels-idx1-ubyte": (
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"
    ),
    "t10k-images-idx3-ubyte": (
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"
    ),
    "t10k-labels-idx1-ubyte": (
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"
    ),
}
CIFAR10_JPEG_SHA256 = "3dcf110a8ff247576bb91cce3f62b79e04e9e2cdf4bab760e8cae107184b996e"


@dataclass(frozen=True)
class Dataset:
    """Fixed, disjoint splits, each a pair (images, labels).

    Images are float32 (N, C, H, W) in [0, 1], labels int64 (N,). ``note`` says why
    this data set was taken, and is part of ``str``.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    note: str = ""

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape (C, H, W) of one image."""
        return tuple(self.train[0].shape[1:])

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return int(self.train[1].max()) + 1

    def __str__(self) -> str:
        sizes = [len(split[1]) for split in (self.train, self.validation, self.test)]
        shape = " x ".join(map(str, self.shape))
        text = "{}: {} training, {} validation, {} test images".format(
            self.name, *sizes
        )
        return f"{text} of {shape}{f' ({self.note})' if self.note else ''}"


def cache() -> Path:
    """Return the user's cache folder of this book (it need not exist)."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "advlib"


def roots() -> list[Path]:
    """Return the folders searched for data: ``ADVLIB_DATA`` if set, then the cache."""
    given = os.environ.get("ADVLIB_DATA")
    return ([Path(given).absolute()] if given else []) + [cache()]


@contextmanager
def _timeout(seconds: float) -> Iterator[None]:
    """Let no server that stays silent hang the download."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _refuse(path: Path) -> ValueError:
    return ValueError(
        f"{path} is not the published file: truncated or altered. "
        "Delete it and load again (it is then downloaded anew)."
    )


def _download(name: str, fetch: Callable[[str], object], folder: str) -> Path:
    """Run ``fetch(root)`` in a fresh folder, then move ``folder`` into place.

    An attempt that fails leaves nothing behind. Returns the root that now holds it.
    """
    for root in roots():
        made = [p for p in (root, *root.parents) if not p.exists()]
        try:
            root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as work:
                with _timeout(10):
                    fetch(work)
                for new in sorted((Path(work) / folder).iterdir()):
                    if new.is_file() and not new.name.endswith(".gz"):
                        target = root / folder / new.name
                        target.parent.mkdir(parents=True, exist_ok=True)
                        os.replace(new, target)
            return root
        except (OSError, RuntimeError, ValueError, http.client.HTTPException) as error:
            for folder in made:
                if folder.is_dir():
                    folder.rmdir()
            if getattr(error, "errno", None) in (
                errno.EACCES,
                errno.EPERM,
                errno.EROFS,
            ):
                continue  # a data folder that may only be read: use the cache
            why = " ".join(str(error).split())
            raise FileNotFoundError(
                f"{name} is not in {' or '.join(map(str, roots()))}, and could not be "
                f"downloaded ({why}). Connect to the network once, or set "
                "ADVLIB_DATA to a folder that holds it, or ADVLIB_DATASET=digits."
            ) from error
    raise FileNotFoundError(
        f"{name}: none of {', '.join(map(str, roots()))} can be written. "
        "Set ADVLIB_DATA to a folder that holds it, or ADVLIB_DATASET=digits."
    )


def _permuted(x: Tensor, y: Tensor) -> Split:
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    return x[order], y[order]


def _digits() -> Dataset:
    from sklearn.datasets import load_digits

    raw = load_digits()
    images = torch.tensor(raw.images / 16, dtype=torch.float32)[:, None]
    x, y = _permuted(images, torch.tensor(raw.target))
    a, b = 1197, 1397
    return Dataset("digits", (x[:a], y[:a]), (x[a:b], y[a:b]), (x[b:], y[b:]))


def _find(digests: dict[str, str], algorithm: str) -> Path | None:
    """Return the first root that holds all files of ``digests`` (path: digest).

    Every file that is there is checked, before anything reads it. None if no root
    has them all.
    """
    for root in roots():
        present = [name for name in digests if (root / name).is_file()]
        for name in present:
            content = (root / name).read_bytes()
            if hashlib.new(algorithm, content).hexdigest() != digests[name]:
                raise _refuse(root / name)
        if len(present) == len(digests):
            return root
    return None


def _mnist() -> Dataset:
    kind, raw = torchvision().datasets.MNIST, "MNIST/raw"
    digests = {f"{raw}/{name}": h for name, h in MNIST_SHA256.items()}
    root = _find(digests, "sha256")
    if root is None:
        _download("MNIST", lambda where: kind(where, download=True), raw)
        root = _find(digests, "sha256")  # what came is checked like what was there
    idx = torchvision().datasets.mnist  # the class may prefer older, unchecked files
    (x, y), test = [
        (
            idx.read_image_file(root / raw / f"{part}-images-idx3-ubyte")[:, None]
            / 255,
            idx.read_label_file(root / raw / f"{part}-labels-idx1-ubyte"),
        )
        for part in ("train", "t10k")
    ]
    return Dataset("mnist", (x[:55000], y[:55000]), (x[55000:], y[55000:]), test)


def _cifar10() -> Dataset:
    kind = torchvision().datasets.CIFAR10
    listed = dict([*kind.train_list, *kind.test_list])
    listed[kind.meta["filename"]] = kind.meta["md5"]
    folder = kind.base_folder
    root = _find({f"{folder}/{name}": h for name, h in listed.items()}, "md5")
    try:
        if root is None:
            root = _download(
                "CIFAR-10", lambda where: kind(where, download=True), folder
            )
    except FileNotFoundError as error:
        if _jpeg_archive() is None:
            raise
        raise FileNotFoundError(
            f'{error} A JPEG copy is here: load("cifar10_jpeg") reads it.'
        ) from error
    parts = [kind(root, train=train) for train in (True, False)]
    (x, y), test = [
        (torch.from_numpy(p.data).permute(0, 3, 1, 2) / 255, torch.tensor(p.targets))
        for p in parts
    ]
    return Dataset("cifar10", (x[:45000], y[:45000]), (x[45000:], y[45000:]), test)


def _jpeg_archive() -> Path | None:
    paths = [root / "cifar10_jpeg" / "cifar10-jpeg.tar.xz" for root in roots()]
    return next((path for path in paths if path.is_file()), None)


def _cifar10_jpeg() -> Dataset:
    from PIL import Image

    path = _jpeg_archive()
    if path is None:
        raise FileNotFoundError(
            "cifar10_jpeg/cifar10-jpeg.tar.xz is in none of "
            f"{', '.join(map(str, roots()))}; set ADVLIB_DATA, or load('cifar10')."
        )
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != CIFAR10_JPEG_SHA256:
        raise _refuse(path)
    pixels: dict[tuple[str, str, str], np.ndarray] = {}
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for member in archive:
            if member.isfile():
                key = tuple(Path(member.name).parts[-3:])  # split, class, file
                image = Image.open(archive.extractfile(member)).convert("RGB")
                pixels[key] = np.asarray(image)
    classes = sorted({label for _, label, _ in pixels})

    def split(name: str) -> Split:
        keys = sorted(key for key in pixels if key[0] == name)
        x = torch.from_numpy(np.stack([pixels[key] for key in keys]))
        y = torch.tensor([classes.index(label) for _, label, _ in keys])
        return _permuted(x.permute(0, 3, 1, 2) / 255, y)

    (x, y), test = split("train"), split("test")
    note = "JPEG-compressed: not CIFAR-10, a pixel may be off by 50/255 and more"
    return Dataset(
        "cifar10_jpeg", (x[:45000], y[:45000]), (x[45000:], y[45000:]), test, note
    )


_LOADERS = {
    "digits": _digits,
    "mnist": _mnist,
    "cifar10": _cifar10,
    "cifar10_jpeg": _cifar10_jpeg,
}


def load(name: str) -> Dataset:
    """Load ``digits``, ``mnist``, ``cifar10`` or ``cifar10_jpeg``.

    Raises ``ValueError`` for another name and for a file that is not the published
    one, ``FileNotFoundError`` if the files are neither there nor to be downloaded.
    """
    if name not in _LOADERS:
        raise ValueError(f"unknown data set {name!r}; one of {sorted(_LOADERS)}")
    return _LOADERS[name]()


def default() -> Dataset:
    """Return the data set ``ADVLIB_DATASET`` if set, else MNIST, else digits.

    ``str`` of the result says which one and, if it is not MNIST, why. Raises what
    ``load`` raises; a damaged MNIST is refused, never replaced in silence.
    """
    forced = os.environ.get("ADVLIB_DATASET")
    if forced:
        dataset = load(forced)
        why = "as ADVLIB_DATASET asks"
    else:
        try:
            dataset, why = load("mnist"), ""
        except FileNotFoundError:
            dataset = load("digits")
            why = "MNIST is neither on disk nor downloadable"
    if dataset.name == "mnist" or dataset.note:
        return dataset
    return replace(dataset, note=why)


def image_folder(folder: str | Path) -> tuple[list[Path], Tensor, list[str]]:
    """Return files, labels (N,) and class names of ``folder``: one sub-folder a class.

    JPEG and PNG files, sorted, so that the order is the same everywhere. Hidden files
    and sub-folders (their names start with a dot) are what a system or an editor left
    there, and are passed over. Raises ``FileNotFoundError`` if there is no image.
    """
    kinds = {".jpg", ".jpeg", ".png"}
    found = sorted(
        path
        for path in Path(folder).glob("*/*")
        if path.suffix.lower() in kinds
        and not path.name.startswith(".")
        and not path.parent.name.startswith(".")
        and path.is_file()
    )
    if not found:
        raise FileNotFoundError(f"no images in sub-folders of {Path(folder).name!r}")
    names = sorted({path.parent.name for path in found})
    labels = torch.tensor([names.index(path.parent.name) for path in found])
    return found, labels, names


def read_photo(file: Path | str) -> "Image.Image":
    """Return the photograph in ``file`` as Pillow has it: RGB, 8 bits, upright.

    Any size (W, H). Grey becomes three equal colours, 16 bits of grey become 8,
    what is transparent shows a white ground, and the picture is turned as its EXIF
    orientation says. Raises ``FileNotFoundError`` if there is no ``file``, and
    ``ValueError``, with its name, if it is truncated, no image, or of a mode whose
    range is not known (the 32 bits of I and F) or that is no colour.
    """
    from PIL import Image

    content = io.BytesIO(Path(file).read_bytes())  # what fails below is the content
    try:
        with Image.open(content) as opened:
            opened.load()
            turn = opened.getexif().get(0x0112)  # the tag of the orientation
            photo = _rgb(opened)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{file} cannot be read as a photograph: {error}") from error
    how = Image.Transpose
    turns = {
        2: how.FLIP_LEFT_RIGHT,
        3: how.ROTATE_180,
        4: how.FLIP_TOP_BOTTOM,
        5: how.TRANSPOSE,
        6: how.ROTATE_270,
        7: how.TRANSVERSE,
        8: how.ROTATE_90,
    }
    return photo.transpose(turns[turn]) if turn in turns else photo


def _rgb(opened: "Image.Image") -> "Image.Image":
    """Return an image of any mode with a known range as RGB, on a white ground."""
    from PIL import Image

    mode, clear = opened.mode, opened.info.get("transparency")
    if mode.startswith("I;16") or (mode == "I" and opened.format == "PNG"):
        # convert("RGB") would cut off at 255, which makes nearly all of it white
        grey = np.asarray(opened).astype(np.int64)
        grey = np.where(grey == clear, 255, (grey + 128) // 257)
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if mode in ("I", "F") or ";" in mode:
        raise ValueError(f"mode {mode} has no known range; store it with 8 bits")
    if clear is None and not mode.endswith(("A", "a")):
        return opened.convert("RGB")
    # without its alpha channel a clear pixel would show whatever colour lies below
    picture = opened.convert("RGBA")
    ground = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(ground, picture).convert("RGB")


def read_images(files: Sequence[Path], size: int = 224) -> Tensor:
    """Return the images in ``files`` as (N, 3, ``size``, ``size``) in [0, 1].

    As ImageNet is evaluated: the short side scaled to 256 / 224 of ``size``, then the
    middle cut out; but upright, as ``read_photo`` gives them. Raises ``ValueError``
    for no files or a ``size`` below 1, and what ``read_photo`` raises.
    """
    if len(files) == 0 or size < 1:
        raise ValueError(f"need one file or more, size >= 1: {len(files)}, {size}")
    pixels = []
    for file in files:
        photo = read_photo(file)
        scale = size * 256 / 224 / min(photo.size)
        photo = photo.resize([max(size, round(scale * side)) for side in photo.size])
        left, top = ((side - size) // 2 for side in photo.size)
        pixels.append(np.asarray(photo.crop((left, top, left + size, top + size))))
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2) / 255


def pair(split: Split, negative: int, positive: int) -> Split:
    """Keep two classes: images (N, C, H, W) and labels -1 / +1 as float32 (N,).

    Class ``negative`` gets the label -1 and ``positive`` +1. Raises ``ValueError`` if
    they are equal or either has no image in ``split``.
    """
    x, y = split
    if negative == positive or not ((y == negative).any() and (y == positive).any()):
        raise ValueError(
            f"classes {negative} and {positive} must differ and both be present"
        )
    keep = (y == negative) | (y == positive)
    return x[keep], torch.where(y[keep] == positive, 1.0, -1.0)


def toy(name: str, n: int = 200, *, seed: int = 0) -> Split:
    """Return a 2-D set for pictures, by ``name``: blobs, moons or circles.

    Drawn from ``seed``. Points float32 (``n``, 2) in [0, 1], labels int64 (``n``,) in
    {0, 1}. Raises ``ValueError`` for another name or ``n`` < 2.
    """
    from sklearn import datasets

    makers = {
        "blobs": lambda: datasets.make_blobs(n, centers=2, random_state=seed),
        "moons": lambda: datasets.make_moons(n, noise=0.08, random_state=seed),
        "circles": lambda: datasets.make_circles(
            n, noise=0.05, factor=0.5, random_state=seed
        ),
    }
    if name not in makers or n < 2:
        raise ValueError(f"need one of {sorted(makers)} and n >= 2, not {name!r}, {n}")
    points, labels = makers[name]()
    low, high = points.min(0), points.max(0)
    scaled = 0.05 + 0.9 * (points - low) / (high - low)
    return torch.tensor(scaled, dtype=torch.float32), torch.tensor(labels).long()
