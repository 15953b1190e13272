"""Certificates of test images, checked in exact arithmetic before they are stored.

Make the committed file, half a minute: python tools/experiments/certificates.py make
Prove every certificate in it again:    python tools/experiments/certificates.py check
"""

import argparse
import platform
import sys
import time
from pathlib import Path

import torch

from advlib import bounds, certificates, data, zoo

OUTPUT = Path("advlib/results/mnist-certificates.safetensors")
COMMAND = "python tools/experiments/certificates.py make"
NETWORK, EPS, WANTED = "small_ibp", 0.1, 120


def make() -> None:
    """Certify the first images that allow it; write them and where they come from."""
    dataset = data.load("mnist")
    net, (x, y) = zoo.load(NETWORK, dataset), dataset.test
    found, images, tried, seconds = [], [], 0, 0.0
    while len(found) < WANTED:
        i, label = tried, int(y[tried])
        certificate = certificates.make_certificate(net, x[i], label, EPS)
        began = time.process_time()
        try:
            certificates.check_certificate(net, x[i], label, EPS, certificate)
        except certificates.RejectedError:
            certificate = None
        seconds += time.process_time() - began
        if certificate is not None:
            found.append(certificate)
            images.append(i)
        tried += 1
    notes = {
        "command": COMMAND,
        "dataset": str(dataset),
        "network": NETWORK,
        "eps": EPS,
        "images": images,
        "tried": tried,
        "cpu_seconds_per_check": round(seconds / tried, 2),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__.split("+")[0],
        },
    }
    OUTPUT.parent.mkdir(exist_ok=True)
    certificates.save(found, OUTPUT, **notes)
    size = OUTPUT.stat().st_size
    sys.stdout.write(f"{len(found)} of {tried} images, {size} bytes\n")


def check() -> None:
    """Prove all stored certificates again, for the float32 program, too."""
    found, notes = certificates.load(OUTPUT)
    dataset = data.load("mnist")
    net, (x, y) = zoo.load(notes["network"], dataset), dataset.test
    smallest, floats = None, 0
    for i, certificate in zip(notes["images"], found, strict=True):
        label = int(y[i])
        proved = certificates.check_certificate(
            net, x[i], label, notes["eps"], certificate
        )
        box = bounds.input_box(x[i : i + 1], notes["eps"])
        error = certificates.forward_error_bound(net, *box)[0]
        floats += certificates.holds_in_floats(proved, error, label)
        worst = min(m for j, m in enumerate(proved) if j != label)
        smallest = worst if smallest is None else min(smallest, worst)
    sys.stdout.write(
        f"{len(found)} proved, smallest margin {float(smallest):.4f}; "
        f"{floats} of them for the float32 program, too\n"
    )


def main(arguments: list[str] | None = None) -> None:
    """Make or check, by the first of ``arguments``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["make", "check"])
    {"make": make, "check": check}[parser.parse_args(arguments).what]()


if __name__ == "__main__":
    main()
