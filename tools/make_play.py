"""Make what the pages play with, ``advlib/play/data``: committed weights and MNIST.

``python tools/make_play.py`` writes one plain script for each network (``NETWORKS``),
one with ten digits, the first test image of each class that all networks read
rightly, and one for each record that a figure shows (``play_records.py``). A test
remakes the files and compares.
"""

import base64
import json
from pathlib import Path

import play_records
import torch
from torch import Tensor, nn

from advlib import data, play, zoo
from advlib.files import atomic_write

FOLDER = Path(play.__file__).parent / "data"
# a network of the pages, the recipe it comes from, bits of a weight
NETWORKS = {
    "standard": ("small", 6),
    "pgd": ("small_pgd", 6),
    "ibp": ("small_ibp", 6),
    "cnn": ("cnn_small_pgd_0", 6),
}


def script(shelf: str, name: str, value: dict) -> bytes:
    """Return a plain script that puts ``value`` on a ``shelf`` of ``Sides``."""
    text = json.dumps(value, separators=(",", ":"))
    start = "(globalThis.Sides ??= { parts: {} })"
    return f'({start}.{shelf} ??= {{}})["{name}"] = {text};\n'.encode()


def notes(dataset: data.Dataset) -> dict[str, dict]:
    """Return the note of each network, with its name and test error."""
    made = {}
    for name, (recipe, bits) in NETWORKS.items():
        note = play.note(zoo.load(recipe, dataset), dataset.shape, bits=bits)
        wrong = ~read_rightly(play.from_note(note), dataset)
        about = {"recipe": recipe, "wrong": int(wrong.sum()), "of": len(wrong)}
        made[name] = note | about
    return made


def read_rightly(model: nn.Module, dataset: data.Dataset) -> Tensor:
    """Return which test images (N,) the ``model`` reads rightly."""
    x, y = dataset.test
    with torch.no_grad():
        return torch.cat(
            [
                model(part.double()).argmax(1) == label
                for part, label in zip(x.split(1000), y.split(1000), strict=True)
            ]
        )


def digits(dataset: data.Dataset, made: dict[str, dict]) -> dict:
    """Return ten images, one a class, as bytes in base64, and their places."""
    right = torch.stack(
        [read_rightly(play.from_note(note), dataset) for note in made.values()]
    ).all(0)
    x, y = dataset.test
    places = [int((right & (y == digit)).nonzero()[0]) for digit in range(10)]
    pixels = (x[places] * 255).round().to(torch.uint8)
    return {
        "pixels": base64.b64encode(pixels.numpy().tobytes()).decode(),
        "places": places,
    }


def make() -> dict[str, bytes]:
    """Return all files of ``advlib/play/data``, name and content."""
    dataset = data.load("mnist")
    made = notes(dataset)
    files = {f"{name}.js": script("notes", name, made[name]) for name in made}
    files["digits.js"] = script("images", "digits", digits(dataset, made))
    for name, record in play_records.RECORDS.items():
        files[f"{name}.js"] = script("records", name, record(dataset))
    return files


def main() -> None:
    """Write the files and say how large they are."""
    FOLDER.mkdir(exist_ok=True)
    for name, content in make().items():
        atomic_write(FOLDER / name, content)
        print(f"{name:14} {len(content) / 1000:6.1f} kB")


if __name__ == "__main__":
    main()
