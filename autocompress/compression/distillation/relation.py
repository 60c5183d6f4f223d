"""Relational distillation: distances and angles among a batch's examples."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from autocompress.compression.distillation.base import Answers, Distillation

#: The paper's weights of the distances' and of the angles' term.
DISTANCE, ANGLE = 25.0, 50.0
_TINY = 1e-12


class Relation(Distillation):
    """Distances of pairs and angles of triplets of embeddings; any number of channels."""

    name = "relation"
    reference = "Park et al. 2019, arXiv:1904.05068"
    reads = "embedding"

    def feature_term(self, student: Answers, teacher: Answers) -> torch.Tensor:
        """Both terms, weighted as in the paper."""
        if student.embedding is None or teacher.embedding is None:
            raise ValueError("relational distillation needs the embeddings of both networks")
        pair = student.embedding, teacher.embedding
        return DISTANCE * distance_loss(*pair) + ANGLE * angle_loss(*pair)


def distance_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Huber loss of pairwise distances, each relative to its network's mean distance.

    Mean over all pairs of different examples; 0 for a single one.

    Args:
        student: embeddings, shape ``(batch, channels)``.
        teacher: embeddings, shape ``(batch, other channels)``.
    """
    if len(student) < 2:
        return student.sum() * 0.0
    s, t = (_relative_distances(x) for x in (student, teacher))
    return F.smooth_l1_loss(s, t)


def angle_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Huber loss of the cosines of the angles that triplets of examples form.

    Mean over all triplets of different examples; 0 for fewer than three.

    Args:
        student: embeddings, shape ``(batch, channels)``.
        teacher: embeddings, shape ``(batch, other channels)``.
    """
    if len(student) < 3:
        return student.sum() * 0.0
    s, t = (_cosines(x) for x in (student, teacher))
    return F.smooth_l1_loss(s, t)


def _others(x: torch.Tensor) -> torch.Tensor:
    """Which pairs of examples are different ones, shape ``(batch, batch)``."""
    return ~torch.eye(len(x), dtype=torch.bool, device=x.device)


def _relative_distances(x: torch.Tensor) -> torch.Tensor:
    squared = (x[:, None] - x[None]).pow(2).sum(2)
    # of equal embeddings the root has no gradient
    distances = squared[_others(x)].clamp(min=_TINY).sqrt()
    return distances / distances.mean().clamp(min=_TINY)


def _cosines(x: torch.Tensor) -> torch.Tensor:
    """Cosines at vertex j between i and k, for different i, j and k."""
    unit = F.normalize(x[None] - x[:, None], dim=2)  # from j to i
    cosines = unit @ unit.transpose(1, 2)
    others = _others(x)
    return cosines[others[:, :, None] & others[:, None] & others[None]]
