"""Checkpoints without pickle, with a checksum of their content."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from advlib.files import atomic_write, tensor_bytes


@dataclass
class Progress:
    """Where a training stands: ``step``, sum of the epoch so far, means of the past."""

    step: int = 0
    total: float = 0.0
    history: list[float] = field(default_factory=list)


def _content_digest(tensors: dict[str, Tensor]) -> str:
    sha = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        sha.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        sha.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def save_checkpoint(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    recipe: str,
) -> None:
    """Write ``model``, momenta of ``optimizer`` and ``progress`` to ``path``, at once.

    ``recipe``: its digest. A process that dies while it writes leaves the old file, and
    so does a parameter that is not finite: raises ``FloatingPointError``.
    """
    if not all(p.isfinite().all() for p in model.parameters()):
        raise FloatingPointError("a parameter is not finite: lower schedule.lr")
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        momentum = optimizer.state.get(parameter, {}).get("momentum_buffer")
        if momentum is not None:
            tensors[f"momentum.{name}"] = momentum
    facts = {"recipe": recipe, "sha256": _content_digest(tensors)}
    facts["progress"] = json.dumps(asdict(progress))
    atomic_write(path, tensor_bytes(tensors, facts))


def load_checkpoint(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, recipe: str
) -> Progress:
    """Put the checkpoint at ``path`` into ``model`` and ``optimizer``.

    Raises ``ValueError``, and changes nothing, for a file that is truncated or was
    altered, and for one of another ``recipe`` (its digest).
    """
    try:
        with safe_open(path, "pt") as file:
            facts = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}
        progress = Progress(**json.loads(facts["progress"]))
        intact = facts["sha256"] == _content_digest(tensors)
    except (SafetensorError, KeyError, ValueError, TypeError, OSError) as error:
        raise ValueError(f"{path.name} is truncated or no checkpoint") from error
    if not intact:
        raise ValueError(f"{path.name} was altered: its content has another checksum")
    if facts["recipe"] != recipe:
        raise ValueError(f"{path.name} belongs to another recipe or seed")
    state = {k[6:]: v for k, v in tensors.items() if k.startswith("model.")}
    model.load_state_dict(state)
    for name, parameter in model.named_parameters():
        if f"momentum.{name}" in tensors:
            momentum = torch.zeros_like(parameter).copy_(tensors[f"momentum.{name}"])
            optimizer.state[parameter]["momentum_buffer"] = momentum
    return progress
