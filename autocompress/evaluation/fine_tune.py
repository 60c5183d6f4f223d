"""Training a realised candidate back, with distillation from the original."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from autocompress.compression.distillation import distillation_loss
from autocompress.core.candidate import Recipe
from autocompress.errors import DataError, DivergedError
from autocompress.evaluation.splits import Split
from autocompress.evaluation.task import Task

BATCH_SIZE = 64


@dataclass(frozen=True, slots=True)
class FineTuned:
    """What a fine-tune did.

    Attributes:
        steps: optimiser steps done.
        loss: mean loss of the last steps; NaN when there were none.
    """

    steps: int
    loss: float


def fine_tune(
    model: nn.Module,
    split: Split,
    task: Task,
    *,
    recipe: Recipe,
    steps: int,
    seed: int,
    teacher: nn.Module | None = None,
    deadline: Callable[[], bool] = lambda: False,
    spent: Callable[[], float] = lambda: 0.0,
    masks: Mapping[str, torch.Tensor] | None = None,
    after_step: Callable[[float], None] = lambda progress: None,
    batch_size: int = BATCH_SIZE,
    bfloat16: bool = False,
    progress: Callable[[int, float], None] = lambda step, loss: None,
) -> FineTuned:
    """Train ``model`` in place; AdamW, linear warm-up over a twentieth, then cosine to zero.

    Args:
        model: left in evaluation mode.
        split: training examples.
        task: gives the loss.
        recipe: distillation and learning rate.
        steps: optimiser steps at the most; 0 does nothing.
        seed: of the order of the examples.
        teacher: the original model, in evaluation mode; None trains on labels alone.
        deadline: asked before each step; True ends the training early, at whatever rate it had.
        spent: asked before each step for the share of its time that is over; 1 ends the training.
            The learning rate falls with the steps or with the time, whichever is further.
        masks: parameter name to a 0/1 tensor; zeros stay zero.
        after_step: called after each step with the share of the training that is over.
        batch_size: examples per step.
        bfloat16: compute in bfloat16 with channels last, weights kept in float32; not for
            fake-quantised models, whose rounding it would change.
        progress: told the step and its loss.

    Raises:
        DivergedError: the loss is no longer finite.
        DataError: there is no batch to train on.
    """
    if steps <= 0:
        model.eval()
        return FineTuned(0, math.nan)
    parameters = dict(model.named_parameters())
    optimizer = torch.optim.AdamW(parameters.values(), lr=recipe.learning_rate, weight_decay=1e-4)
    model.train()
    if bfloat16:
        model.to(memory_format=torch.channels_last)
    losses: list[float] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for step, (inputs, targets) in enumerate(_batches(model, split, batch_size, seed)):
            share = spent()
            if step >= steps or share >= 1.0 or deadline():
                break
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * _schedule(step, steps, share)
            if bfloat16 and inputs.dim() == 4:
                inputs = inputs.contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                outputs = model(inputs).float()
                guide = _guide(inputs, recipe, teacher)
            loss = _loss(outputs, targets, guide, task, recipe)
            value = float(loss.detach())
            if not math.isfinite(value):
                raise DivergedError(
                    f"the loss became {value} at step {step} of {steps}; lower the learning rate "
                    f"({recipe.learning_rate}) or check the data and the loss function"
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(parameters.values(), 5.0)
            optimizer.step()
            _hold_zeros(parameters, masks)
            after_step(max((step + 1) / steps, share))
            losses.append(value)
            progress(step + 1, value)
    if bfloat16:
        model.to(memory_format=torch.contiguous_format)
    model.eval()
    tail = losses[-20:]
    return FineTuned(len(losses), sum(tail) / len(tail) if tail else math.nan)


def zero_masks(model: nn.Module, layers: Iterable[str]) -> dict[str, torch.Tensor]:
    """Masks that keep today's zeros of the named layers, by parameter name."""
    names = {f"{layer}.weight" for layer in layers}
    return {
        name: (parameter.detach() != 0).to(parameter.dtype)
        for name, parameter in model.named_parameters()
        if name in names
    }


def _batches(
    model: nn.Module, split: Split, batch_size: int, seed: int
) -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
    """Batches without end; batch norm cannot train on those of a single example."""
    norms = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())
    for epoch in itertools.count():
        empty = True
        for inputs, targets in split.batches(batch_size, shuffle=True, seed=seed * 100_003 + epoch):
            if len(inputs) > 1 or not norms:
                empty = False
                yield inputs, targets
        if empty:
            raise DataError(
                f"{split.name} yields no batch of two or more examples to train on; give more "
                f"examples, or a larger batch size"
            )


def _schedule(step: int, steps: int, spent: float = 0.0) -> float:
    warmup = max(1, steps // 20)
    rising = min(1.0, (step + 1) / warmup)
    done = max(0.0, (step - warmup) / max(1, steps - warmup), spent)
    return rising * 0.5 * (1 + math.cos(math.pi * done))


def _guide(inputs: torch.Tensor, recipe: Recipe, teacher: nn.Module | None) -> torch.Tensor | None:
    """The teacher's outputs, when the recipe asks for them."""
    if teacher is None or recipe.distillation == "none" or recipe.distillation_weight == 0:
        return None
    with torch.no_grad():
        answer: torch.Tensor = teacher(inputs)
    return answer.float()


def _loss(
    outputs: torch.Tensor,
    targets: torch.Tensor,
    guide: torch.Tensor | None,
    task: Task,
    recipe: Recipe,
) -> torch.Tensor:
    loss = task.loss(outputs, targets)
    if guide is None:
        return loss
    term = distillation_loss(outputs, guide, recipe, classification=task.gives_logits)
    return (1 - recipe.distillation_weight) * loss + recipe.distillation_weight * term


@torch.no_grad()
def _hold_zeros(
    parameters: Mapping[str, nn.Parameter], masks: Mapping[str, torch.Tensor] | None
) -> None:
    for name, mask in (masks or {}).items():
        if name in parameters:
            parameters[name].mul_(mask)
