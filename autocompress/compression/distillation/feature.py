"""Feature regression: the student's features give the teacher's."""

from __future__ import annotations

import torch

from autocompress.compression.distillation.base import Answers, Distillation
from autocompress.compression.distillation.features import Adapter, same_places


class FeatureRegression(Distillation):
    """Squared distance at the ends of stages, through 1x1 adapters where channels differ."""

    name = "feature"
    reference = "Romero et al. 2015, arXiv:1412.6550"
    reads = "stages"

    def prepare(self, student: Answers, teacher: Answers | None) -> None:
        """An adapter for each point where the networks' channels do not correspond."""
        if teacher is None:
            return
        self._adapters: dict[int, Adapter] = {}
        for i, pair in enumerate(zip(student.stages, teacher.stages, strict=True)):
            s, t = same_places(*pair)
            if s.shape[1] != t.shape[1] or not self.setting.aligned:
                self._adapters[i] = Adapter(s, t)
        self.own.extend(self._adapters.values())

    def feature_term(self, student: Answers, teacher: Answers) -> torch.Tensor:
        """Mean over the points of :func:`regression_loss`."""
        terms = []
        for i, pair in enumerate(zip(student.stages, teacher.stages, strict=True)):
            s, t = same_places(*pair)
            adapter = self._adapters.get(i)
            terms.append(regression_loss(s if adapter is None else adapter(s), t))
        return torch.stack(terms).mean()


def regression_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """``|teacher - student|^2 / (2 |teacher|^2)`` over a batch.

    The paper's half squared distance (arXiv:1412.6550, equation 3), relative to the teacher's
    features, so that one weight does for layers and networks of any scale.

    Args:
        student: shape ``(batch, channels, ...)``.
        teacher: same shape.
    """
    scale = teacher.pow(2).mean().clamp(min=1e-12)
    return (teacher - student).pow(2).mean() / (2 * scale)
