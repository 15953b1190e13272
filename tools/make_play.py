"""Make what the pages play with, ``advlib/play/data``: committed weights and MNIST.

``python tools/make_play.py`` writes one plain script for each network (``NETWORKS``),
one with ten digits, the first test image of each class that all networks read
rightly, and one for each record that a figure shows. A test remakes the files and
compares.
"""

import base64
import json
from pathlib import Path

import torch
from torch import Tensor, nn

from advlib import data, play, plot, results, zoo
from advlib.evaluation.masking import SIGNS
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


def cheats() -> dict:
    """Return the networks of the record ``masking`` that a reader is asked about.

    Those on MNIST that its thresholds were not fixed on, but for the random ones, whose
    noise hides little. Shares are of ``images``; ``shown`` and ``fired`` of each check.
    """
    record = results.load("masking")["data"]
    rows = [
        found
        for found in record["networks"]
        if (found["dataset"], found["role"]) == ("mnist", "test")
        and found["mask"] != "random"
    ]
    networks = [
        {
            "name": plot.LABELS.get(row["base"], row["base"]),
            **{key: row[key] for key in ("base", "mask", "eps")},
            "wrong": [row[f"{way}_wrong"] for way in ("clean", "pgd", "adaptive")],
            "shown": [row["checks"][name]["value"] for name in SIGNS],
            "fired": [int(row["checks"][name]["fired"]) for name in SIGNS],
        }
        for row in rows
    ]
    checks = [[name, *SIGNS[name]] for name in SIGNS]
    return {"images": record["images"], "checks": checks, "networks": networks}


def overfit() -> dict:
    """Return the record ``fgsm_ray``, errors as shares, by the name of the training."""
    record = results.load("fgsm_ray")["data"]
    runs = {
        name: [
            {way: wrong / record["images"] for way, wrong in row["errors"].items()}
            | {"rays": row["rays"]}
            for row in record["runs"][key]
        ]
        for name, key in (("FGSM", "fgsm_3"), ("fast", "fast_3"))
    }
    return {"shares": record["shares"], "runs": runs}


def make() -> dict[str, bytes]:
    """Return all files of ``advlib/play/data``, name and content."""
    dataset = data.load("mnist")
    made = notes(dataset)
    files = {f"{name}.js": script("notes", name, made[name]) for name in made}
    shown = digits(dataset, made)
    files["overfit.js"] = script("records", "overfit", overfit())
    files["cheats.js"] = script("records", "cheats", cheats())
    return files | {"digits.js": script("images", "digits", shown)}


def main() -> None:
    """Write the files and say how large they are."""
    FOLDER.mkdir(exist_ok=True)
    for name, content in make().items():
        atomic_write(FOLDER / name, content)
        print(f"{name:14} {len(content) / 1000:6.1f} kB")


if __name__ == "__main__":
    main()
