"""Distillation: the compressed model learns from the original's answers."""

from __future__ import annotations

import torch
from torch.nn import functional

from autocompress.core.candidate import Recipe
from autocompress.errors import RequestError


def response_loss(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """Response distillation (Hinton et al. 2015, arXiv:1503.02531).

    ``T^2 KL(softmax(teacher / T) || softmax(student / T))``, mean over the predictions.

    Args:
        student: logits, shape ``(batch, classes, ...)``.
        teacher: logits, same shape.
        temperature: softening, > 0.
    """
    log_p = functional.log_softmax(student / temperature, dim=1)
    q = functional.log_softmax(teacher / temperature, dim=1)
    total = functional.kl_div(log_p, q, reduction="sum", log_target=True)
    return total * student.shape[1] / max(1, student.numel()) * temperature**2


def regression_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean squared distance to the teacher's outputs, for tasks without classes."""
    return functional.mse_loss(student, teacher)


def distillation_loss(
    student: torch.Tensor,
    teacher: torch.Tensor,
    recipe: Recipe,
    *,
    classification: bool,
) -> torch.Tensor:
    """The distillation term that ``recipe`` asks for.

    Raises:
        RequestError: the recipe names an unknown kind.
    """
    if recipe.distillation != "response":
        raise RequestError(f"distillation is {recipe.distillation!r}; use 'response' or 'none'")
    if classification:
        return response_loss(student, teacher, recipe.temperature)
    return regression_loss(student, teacher)
