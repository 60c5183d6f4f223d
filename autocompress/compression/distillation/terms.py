"""Distances between two networks' outputs."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def response_loss(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """``T^2 KL(softmax(teacher / T) || softmax(student / T))``, mean over the predictions.

    Hinton et al. 2015, arXiv:1503.02531.

    Args:
        student: logits, shape ``(batch, classes, ...)``.
        teacher: logits, same shape.
        temperature: softening, > 0.
    """
    log_p = F.log_softmax(student / temperature, dim=1)
    q = F.log_softmax(teacher / temperature, dim=1)
    total = F.kl_div(log_p, q, reduction="sum", log_target=True)
    return total * student.shape[1] / max(1, student.numel()) * temperature**2


def output_loss(
    student: torch.Tensor, teacher: torch.Tensor, temperature: float, *, classification: bool
) -> torch.Tensor:
    """:func:`response_loss` of logits; the mean squared distance for tasks without classes."""
    if classification:
        return response_loss(student, teacher, temperature)
    return F.mse_loss(student, teacher)
