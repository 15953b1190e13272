"""One training on the processes of a Fabric: attack, step, save, report."""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from advlib import attacks, evaluation, results, training
from advlib.train.checkpoint import Progress, load_checkpoint, save_checkpoint
from advlib.train.network import build_network
from advlib.train.recipe import Attack, Recipe
from advlib.train.samples import Order, generator_of, learning_rate, load_images


def perturb(
    model: nn.Module, x: Tensor, noise: Tensor, y: Tensor, attack: Attack, clean: bool
) -> Tensor:
    """Return ``x`` attacked as ``attack`` says, crafted in eval mode, from ``noise``.

    ``noise`` (N, ...) in [0, 1] places the start in the ball and box around ``x``, or
    if ``clean`` the start is ``x`` itself; ``y`` (N,). ``model`` is left in eval mode.
    """
    if attack.num_steps == 0:
        return x
    model.eval()
    lower, upper = (-x).clamp(min=-attack.eps), (1 - x).clamp(max=attack.eps)
    start = torch.zeros_like(x) if clean else lower + (upper - lower) * noise
    alpha = attack.alpha or attack.eps * min(1, 2.5 / attack.num_steps)
    return x + attacks.pgd_linf(
        model, x, y, attack.eps, alpha=alpha, num_steps=attack.num_steps, start=start
    )


class Run:
    """One training: ``recipe`` at ``seed`` on the processes of ``fabric``.

    Goes on from the checkpoint in the folder ``out`` if there is one. Raises
    ``ValueError`` for batch-norm over several processes without GPUs or on batches of
    one image, for more processes than images in a batch, and for a checkpoint of
    something else.
    """

    def __init__(self, recipe: Recipe, seed: int, out: Path, fabric: Any) -> None:
        self.recipe, self.seed, self.out, self.fabric = recipe, seed, out, fabric
        self.samples, self.validation = load_images(recipe.data, seed)
        shape = tuple(self.samples[0, 0][0].shape)
        self.model = build_network(recipe.network, shape, seed)
        world = fabric.world_size
        if world > 1 and training.has_batch_statistics(self.model):
            if fabric.device.type != "cuda":
                raise ValueError(
                    "batch-norm over several processes needs GPUs (SyncBatchNorm)"
                )
            self.model = nn.SyncBatchNorm.convert_sync_batchnorm(self.model)
        plan = recipe.schedule
        if min(len(self.samples), plan.batch_size) < world:
            raise ValueError("schedule.batch_size is below the number of processes")
        alone = min(len(self.samples), plan.batch_size) == 1
        if alone and training.has_batch_statistics(self.model):
            raise ValueError("schedule.batch_size: batch-norm needs two images")
        optimizer = training.sgd(
            self.model, plan.momentum, plan.weight_decay, nesterov=plan.nesterov
        )
        self.network, self.optimizer = fabric.setup(self.model, optimizer)
        self.progress = Progress()
        self.checkpoint = out / f"{recipe.name}-{seed}.checkpoint"
        if self.checkpoint.is_file():
            self.progress = load_checkpoint(
                self.checkpoint, self.model, self._inner(), recipe.digest(seed)
            )

    def _inner(self) -> torch.optim.Optimizer:
        return getattr(self.optimizer, "optimizer", self.optimizer)

    def train(self, every: int) -> None:
        """Train on from where the progress stands; save ``every`` so many steps."""
        fabric, plan = self.fabric, self.recipe.schedule
        order = Order(
            len(self.samples),
            plan,
            self.seed,
            self.progress.step,
            fabric.global_rank,
            fabric.world_size,
        )
        loader = torch.utils.data.DataLoader(
            self.samples, batch_sampler=order, num_workers=self.recipe.data.workers
        )
        hidden = not (training.show_progress() and fabric.is_global_zero)
        bar = tqdm(
            loader,
            "steps",
            disable=hidden,
            total=order.steps,
            initial=self.progress.step,
        )
        for batch in bar:
            for group in self._inner().param_groups:
                group["lr"] = learning_rate(plan, self.progress.step, order.per_epoch)
            parts = [part.to(fabric.device) for part in batch]
            loss = self.step(*parts, order.batch_size)
            self._note(loss, order)
            if self.progress.step % every == 0 or self.progress.step == order.steps:
                self._save()
        self.model.eval()

    def step(self, x: Tensor, noise: Tensor, y: Tensor, batch_size: int) -> float:
        """Attack ``x`` (n, ...) from ``noise``, update; the loss over all processes.

        ``y`` (n,): this process's labels of a global batch of ``batch_size``. Raises
        ``FloatingPointError`` for a loss that is not finite.
        """
        recipe, fabric = self.recipe, self.fabric
        draw = generator_of(self.seed, self.progress.step)
        clean = float(torch.rand(1, generator=draw)) < recipe.attack.clean_start
        x = perturb(self.model, x, noise, y, recipe.attack, clean)
        self.network.train()
        smoothing = recipe.schedule.label_smoothing
        loss = F.cross_entropy(
            self.network(x), y, reduction="sum", label_smoothing=smoothing
        )
        self.optimizer.zero_grad()
        # processes average their gradients, whatever the sizes of their parts
        fabric.backward(loss * fabric.world_size / batch_size)
        self.optimizer.step()
        total = fabric.all_reduce(loss.detach(), reduce_op="sum")
        mean = float(total) / batch_size
        if not mean < float("inf"):
            raise FloatingPointError(f"the loss is {mean}: lower schedule.lr")
        return mean

    def _note(self, loss: float, order: Order) -> None:
        progress = self.progress
        progress.step += 1
        progress.total += loss
        if progress.step % order.per_epoch == 0:
            progress.history.append(progress.total / order.per_epoch)
            progress.total = 0.0

    def _save(self) -> None:
        if self.fabric.is_global_zero:
            digest = self.recipe.digest(self.seed)
            save_checkpoint(
                self.checkpoint, self.model, self._inner(), self.progress, digest
            )
        self.fabric.barrier()

    def report(self, command: str, seconds: float) -> dict:
        """Return the result: ``command``, recipe, versions, ``seconds``, errors."""
        x, y = (part.to(self.fabric.device) for part in self.validation())
        pgd = partial(
            attacks.pgd_linf,
            eps=self.recipe.attack.eps,
            alpha=self.recipe.attack.eps / 4,
            num_steps=10,
            drop_fooled=True,
        )
        few = 200
        return {
            "command": command,
            "recipe": asdict(self.recipe),
            "seed": self.seed,
            "versions": results.versions(("torch", "torchvision", "lightning-fabric")),
            "processes": self.fabric.world_size,
            "seconds": round(seconds, 1),
            "steps": self.progress.step,
            "objective": self.progress.history,
            "validation": {
                "n": len(y),
                "clean_wrong": int(evaluation.wrong(self.model, x, y).sum()),
                "attacked_n": len(y[:few]),
                "attacked_wrong": int(
                    evaluation.attacked(self.model, x[:few], y[:few], [pgd]).sum()
                ),
            },
        }
