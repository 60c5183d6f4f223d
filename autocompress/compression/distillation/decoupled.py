"""Decoupled distillation: how sure the teacher is, and what it takes the rest for, apart."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from autocompress.compression.distillation.base import Distillation

#: Weights of the target's and of the other classes' term; the paper's for CIFAR-100.
TARGET, OTHERS = 1.0, 8.0


class Decoupled(Distillation):
    """The response's divergence in two parts, the second no longer damped by sure teachers."""

    name = "decoupled"
    reference = "Zhao et al. 2022, arXiv:2203.08679"

    def output_term(
        self, student: torch.Tensor, teacher: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        """The two parts, weighted; squared distance for tasks without classes."""
        if not self.setting.classification:
            return super().output_term(student, teacher, targets)
        temperature = self.setting.recipe.temperature
        target, others = decoupled_losses(student, teacher, targets, temperature)
        return TARGET * target + OTHERS * others


def decoupled_losses(
    student: torch.Tensor, teacher: torch.Tensor, targets: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Divergences of (target, not target) and of the distribution over the other classes.

    Predictions with a label below 0, such as the -100 of ``ignore_index``, do not count. Of one
    prediction, the response's divergence is the first plus the teacher's probability of
    "not target" times the second. Both are multiplied by ``T^2``, and means over predictions.

    Args:
        student: logits, shape ``(batch, classes, ...)``.
        teacher: logits, same shape.
        targets: class labels, shape ``(batch, ...)``.
        temperature: softening, > 0.
    """
    s, t = (_rows(x) / temperature for x in (student, teacher))
    labels = targets.flatten()
    counted = labels >= 0
    s, t, labels = s[counted], t[counted], labels[counted]
    is_target = F.one_hot(labels, s.shape[1]).bool()
    pairs = [_target_or_not(x, is_target) for x in (s, t)]
    others = [F.log_softmax(x[~is_target].reshape(len(x), x.shape[1] - 1), 1) for x in (s, t)]
    scale = temperature**2 / max(1, len(s))

    def divergence(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
        return F.kl_div(log_p, log_q, reduction="sum", log_target=True) * scale

    return divergence(pairs[0], pairs[1]), divergence(others[0], others[1])


def _rows(logits: torch.Tensor) -> torch.Tensor:
    return logits.movedim(1, -1).flatten(0, -2)


def _target_or_not(logits: torch.Tensor, is_target: torch.Tensor) -> torch.Tensor:
    """Logarithms of the probabilities of the target and of all others together."""
    log_p = F.log_softmax(logits, 1)
    other = log_p.masked_fill(is_target, -torch.inf).logsumexp(1)
    return torch.stack([log_p[is_target], other], 1)
