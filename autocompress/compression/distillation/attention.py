"""Attention transfer: the student looks where the teacher looks."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from autocompress.compression.distillation.base import Answers, Distillation
from autocompress.compression.distillation.features import same_places
from autocompress.compression.distillation.points import FeaturePoints

#: Half of the paper's beta of 1000, which is for means over the places of a map.
WEIGHT = 500.0


class AttentionTransfer(Distillation):
    """Squared distance of normalised attention maps; any number of channels, no adapter."""

    name = "attention"
    reference = "Zagoruyko & Komodakis 2017, arXiv:1612.03928"
    reads = "stages"

    @classmethod
    def fits(cls, points: FeaturePoints) -> bool:
        """Whether any of its features has more than one place."""
        return bool(cls.wanted(points).stages)

    @classmethod
    def wanted(cls, points: FeaturePoints) -> FeaturePoints:
        """The points with more than one place."""
        maps = tuple(point for point in points.stages if point.positions > 1)
        return FeaturePoints(maps, None, points.output_rank, points.aligned)

    def feature_term(self, student: Answers, teacher: Answers) -> torch.Tensor:
        """Sum over the points."""
        terms = [
            attention_loss(*same_places(s, t))
            for s, t in zip(student.stages, teacher.stages, strict=True)
        ]
        return WEIGHT * torch.stack(terms).sum()


def attention_map(x: torch.Tensor) -> torch.Tensor:
    """Sum of squares over the channels, each example's of length one; ``(batch, places)``."""
    return F.normalize(x.pow(2).sum(1).flatten(1), dim=1)


def attention_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of two attention maps, over batch and places.

    Args:
        student: features, shape ``(batch, channels, ...)``.
        teacher: features of the same batch and places, any number of channels.
    """
    return F.mse_loss(attention_map(student), attention_map(teacher))
