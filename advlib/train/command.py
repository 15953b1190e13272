"""The command ``python -m advlib.train``: options, processes, files."""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from advlib.files import atomic_write, tensor_bytes
from advlib.train.recipe import RECIPES, read_recipe
from advlib.train.run import Run


def _fabric(options: argparse.Namespace) -> Any:
    try:
        from lightning.fabric import Fabric
    except ImportError:
        try:
            from lightning_fabric import Fabric
        except ImportError as error:
            raise ImportError(
                "advlib.train needs lightning-fabric: pip install it"
            ) from error
    if "LT_CLI_USED" in os.environ:  # `fabric run` has set and started everything
        return Fabric()
    fabric = Fabric(
        accelerator=options.accelerator,
        devices=options.devices,
        num_nodes=options.num_nodes,
        strategy="auto" if options.devices == 1 and options.num_nodes == 1 else "ddp",
    )
    fabric.launch()
    return fabric


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m advlib.train")
    known = ", ".join(sorted(p.stem for p in RECIPES.glob("*.toml")))
    parser.add_argument("--recipe", required=True, help=f"{known}, or a .toml file")
    parser.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs"))
    parser.add_argument("--every", type=int, default=200, help="steps to a checkpoint")
    parser.add_argument("--accelerator", default="auto")
    parser.add_argument("--devices", type=int, default=1, help="on each node")
    parser.add_argument("--num-nodes", type=int, default=1)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Run ``python -m advlib.train`` with ``arguments``; write weights and result.

    Resumes from the checkpoint in the output folder if there is one. Raises
    ``ValueError`` for a negative seed or interval, and what the recipe's parts raise.
    """
    options = _options(arguments)
    if not 0 <= options.seed < 2**16 or options.every < 1:
        raise ValueError("need 0 <= seed < 65536 and every >= 1")
    recipe = read_recipe(options.recipe, options.set)
    fabric = _fabric(options)
    options.out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    run = Run(recipe, options.seed, options.out, fabric)
    run.train(options.every)
    if fabric.is_global_zero:
        name = f"{recipe.name}-{options.seed}"
        content = tensor_bytes(run.model.state_dict())
        atomic_write(options.out / f"{name}.safetensors", content)
        changes = "".join(f" --set {change}" for change in options.set)
        command = f"python -m advlib.train --recipe {recipe.name}{changes}"
        command += f" --seed {options.seed}"
        record = run.report(command, time.monotonic() - began)
        text = json.dumps(record, indent=1) + "\n"
        atomic_write(options.out / f"{name}.json", text.encode())
        sys.stdout.write(f"{name}: {record['validation']}\n")
    fabric.barrier()
