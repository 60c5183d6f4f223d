"""The task's metric of a model over a split."""

from __future__ import annotations

import torch
from torch import nn

from autocompress.errors import DivergedError
from autocompress.evaluation.splits import Split
from autocompress.evaluation.task import Task


@torch.no_grad()
def outputs_of(
    model: nn.Module, split: Split, *, limit: int | None = None, batch_size: int = 256
) -> tuple[torch.Tensor, torch.Tensor]:
    """All outputs and targets of a split, concatenated."""
    model.eval()
    outputs: list[torch.Tensor] = []
    targets: list[torch.Tensor] = []
    for x, y in split.batches(batch_size, limit=limit):
        outputs.append(model(x))
        targets.append(y)
    return torch.cat(outputs), torch.cat(targets)


def evaluate_model(
    model: nn.Module, split: Split, task: Task, *, limit: int | None = None
) -> float:
    """The task's metric of ``model`` on (the first ``limit`` examples of) ``split``.

    Raises:
        DivergedError: the model's outputs are not finite.
    """
    outputs, targets = outputs_of(model, split, limit=limit)
    if not bool(torch.isfinite(outputs).all()):
        raise DivergedError("the model's outputs hold NaN or infinity")
    return task.evaluate(outputs, targets)
