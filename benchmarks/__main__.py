"""``python -m benchmarks``: measure what is missing, print the table, keep it.

Each group is kept as a checkpoint under ``_build/benchmarks``, so that a run that was
stopped goes on; ``--fresh GROUP`` measures a group again, ``--kept`` runs nothing: what
is missing is a line without a number. All groups are kept together, with the seconds
that each took, as ``advlib/results/benchmarks.json`` and at the end of README.md; a
group that was not measured here stays as it was there (the time of one whose seconds
were not kept is not in the sum).
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from advlib import data, results
from advlib.files import atomic_write
from benchmarks import attack_rows, bound_rows, exact_rows, peers
from benchmarks.config import Config, NotRunError
from benchmarks.timing import Row

GROUPS: dict[str, Callable[[Config], list[Row]]] = {
    "pgd": attack_rows.pgd,
    "bounds": bound_rows.compare,
    "slopes": bound_rows.slopes,
    "exact": exact_rows.exact_answers,
    "memory": bound_rows.memory,
    "strong": attack_rows.strong,
}

README = Path(__file__).parent / "README.md"
LAST = "## The last run\n"


def measure(config: Config, group: str) -> dict:
    """Return the rows of ``group``, its CPU seconds and load, from a checkpoint.

    The ``load`` of the machine in the minute before and in the last minute.

    Where no run may be started, from the checkpoints of its long runs.
    """

    def run() -> dict:
        before, began = os.getloadavg()[0], time.process_time()
        rows = [row.record() for row in GROUPS[group](config)]
        load = [round(x, 2) for x in (before, os.getloadavg()[0])]
        seconds = time.process_time() - began
        return {"rows": rows, "seconds": seconds, "load": load}

    try:
        return config.checkpoint(f"rows-{group}", run)
    except NotRunError:
        return run()


def table(rows: list[dict]) -> str:
    """Return ``rows`` as a Markdown table."""
    lines = [
        "| setting | measure | value | goal | | note |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        value = "-" if row["value"] is None else f"{row['value']:.3g}"
        cells = (row["setting"], row["measure"], value, row["goal"], row["verdict"])
        lines.append("| " + " | ".join([*cells, row["note"]]) + " |")
    return "\n".join(lines) + "\n"


def stored() -> dict[str, dict]:
    """Return the groups of ``advlib/results/benchmarks.json``, as ``measure`` does."""
    try:
        content = results.load("benchmarks")["data"]
    except FileNotFoundError:
        return {}
    rows, spent = content["rows"], content.get("spent", {})
    load = content.get("load", {})
    names = dict.fromkeys(row["group"] for row in rows)
    return {
        name: {
            "rows": [row for row in rows if row["group"] == name],
            "seconds": spent.get(name),
            "load": load.get(name),
        }
        for name in names
    }


def save(config: Config, found: dict[str, dict]) -> Path:
    """Keep the table of the groups ``found`` as ``advlib/results/benchmarks.json``."""
    rows = [row for group in found.values() for row in group["rows"]]
    versions = {name: peers.version(name) for name in peers.PACKAGES}
    known = {name: group["seconds"] for name, group in found.items()}
    spent = {name: round(s, 1) for name, s in known.items() if s is not None}
    return results.save(
        "benchmarks",
        {
            "rows": rows,
            "spent": spent,
            "load": {name: group.get("load") for name, group in found.items()},
            "peers": versions,
            "threads": torch.get_num_threads(),
        },
        command="python -m benchmarks",
        seeds=config.seeds,
        dataset=str(config.dataset),
        seconds=sum(spent.values()),
    )


def publish(found: dict[str, dict], page: Path = README) -> None:
    """Write the table of the groups ``found`` to the end of ``page``."""
    before = page.read_text("utf-8").split(LAST)[0]
    parts = [f"\n### {name}\n\n{table(group['rows'])}" for name, group in found.items()]
    atomic_write(page, (before + LAST + "".join(parts)).encode())


def main(arguments: list[str] | None = None) -> None:
    """Run ``python -m benchmarks`` with ``arguments``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("groups", nargs="*", choices=[[], *GROUPS], help="default: all")
    parser.add_argument("--fresh", action="store_true", help="measure these again")
    parser.add_argument("--kept", action="store_true", help="print, run nothing")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    dataset = data.load(os.environ.get("ADVLIB_DATASET", "mnist"))
    config = Config(dataset, start_runs=not options.kept)
    for group in options.groups or GROUPS:
        if options.fresh:
            (config.folder / f"rows-{group}.json").unlink(missing_ok=True)
        sys.stdout.write(f"\n{group}\n\n{table(measure(config, group)['rows'])}")
        sys.stdout.flush()
    if config.dataset.name == "mnist":
        done = [
            g
            for g in GROUPS
            if options.kept or (config.folder / f"rows-{g}.json").is_file()
        ]
        kept = stored() | {group: measure(config, group) for group in done}
        found = {group: kept[group] for group in GROUPS if group in kept}
        path = save(config, found)
        publish(found)
        sys.stdout.write(f"\nkept as {path.name}: {', '.join(done)}\n")


if __name__ == "__main__":
    main()
