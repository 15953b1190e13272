"""Parts of a long experiment, each kept in a file when done: a stopped run goes on.

``kept(path, make)`` is what ``make()`` returned when it was called first, with the CPU
seconds it took and the load of the machine before and after.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from advlib.files import atomic_write


def keep(path: Path, row: dict | list | float) -> None:
    """Write ``row`` to ``path`` as JSON, whole or not at all."""
    atomic_write(path, json.dumps(row).encode())


def kept(path: Path, make: Callable[[], dict], *, quiet: Sequence[str] = ()) -> dict:
    """Return what ``make`` returns, from the file ``path`` if it was made before.

    With its ``cpu`` seconds in this process, and the ``load``: the number of processes
    that wanted a core in the minute before, and in its last minute. What is new is
    printed, without the keys in ``quiet``.
    """
    if not path.is_file():
        before, began = os.getloadavg()[0], time.process_time()
        row = make()
        row["cpu"] = round(time.process_time() - began, 1)
        row["load"] = [round(load, 2) for load in (before, os.getloadavg()[0])]
        keep(path, row)
        shown = {key: value for key, value in row.items() if key not in quiet}
        sys.stdout.write(f"{path.stem} {shown}\n")
        sys.stdout.flush()
    return json.loads(path.read_text())
