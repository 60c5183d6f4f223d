"""Training a realised candidate back, with distillation from the original."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from autocompress.compression.distillation.lesson import Lesson
from autocompress.compression.distillation.points import FeaturePoints
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
        loss: mean loss of the last steps, that of what is trained along included; NaN when there
            were none.
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
    points: FeaturePoints | None = None,
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
        teacher: the original model, in evaluation mode; without it only kinds of distillation that
            need no teacher are more than the labels.
        points: where features are read, for kinds of distillation that read them.
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
        RequestError: the recipe's kind of distillation does not fit these networks.
    """
    if steps <= 0:
        model.eval()
        return FineTuned(0, math.nan)
    parameters = dict(model.named_parameters())
    lesson = Lesson(
        model, recipe, loss=task.loss, classification=task.gives_logits, teacher=teacher,
        points=points,
    )  # fmt: skip
    losses: list[float] = []
    batches = _batches(model, split, batch_size, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        first = next(batches)
        lesson.prepare(first[0])
        optimizer = _optimizer(parameters.values(), lesson.own, recipe.learning_rate)
        model.train()
        if bfloat16:
            model.to(memory_format=torch.channels_last)
        for step, (inputs, targets) in enumerate(itertools.chain([first], batches)):
            share = spent()
            if step >= steps or share >= 1.0 or deadline():
                break
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * _schedule(step, steps, share)
            if bfloat16 and inputs.dim() == 4:
                inputs = inputs.contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                answers = lesson.ask(inputs)
            loss = lesson.loss(answers, targets)
            value = float(loss.detach())
            if not math.isfinite(value):
                raise DivergedError(
                    f"the loss became {value} at step {step} of {steps}; lower the learning rate "
                    f"({recipe.learning_rate}) or check the data and the loss function"
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            for group in optimizer.param_groups:
                nn.utils.clip_grad_norm_(group["params"], 5.0)
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
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
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


def _optimizer(
    parameters: Iterable[nn.Parameter], own: Sequence[nn.Parameter], rate: float
) -> torch.optim.Optimizer:
    """One for the model's parameters and, in a group of their own, those that are trained along."""
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=1e-4)
    if own:
        optimizer.add_param_group({"params": list(own)})
    return optimizer


@torch.no_grad()
def _hold_zeros(
    parameters: Mapping[str, nn.Parameter], masks: Mapping[str, torch.Tensor] | None
) -> None:
    for name, mask in (masks or {}).items():
        if name in parameters:
            parameters[name].mul_(mask)
