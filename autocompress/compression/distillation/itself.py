"""Self-distillation: the network's deepest answers teach its earlier stages."""

from __future__ import annotations

import torch
from torch import nn

from autocompress.compression.distillation.base import Answers, Distillation
from autocompress.compression.distillation.features import Adapter, pooled
from autocompress.compression.distillation.points import FeaturePoints
from autocompress.errors import RequestError

#: The paper's weight of the hints.
HINT = 0.03


class SelfDistillation(Distillation):
    """A classifier at the end of each earlier stage learns from labels and the network's answers.

    "Be your own teacher": needs no other network. The classifiers are a 1x1 adapter to the last
    stage's channels (in place of the paper's bottlenecks), the mean over places and a linear layer;
    they are dropped after the training. What they teach the shared layers stays.
    """

    name = "self"
    reference = "Zhang et al. 2019, arXiv:1905.08094"
    reads = "stages"
    guide = "itself"

    @classmethod
    def fits(cls, points: FeaturePoints) -> bool:
        """Whether there is a stage before the last, and one prediction an example."""
        return len(points.stages) > 1 and points.output_rank == 2

    def prepare(self, student: Answers, teacher: Answers | None) -> None:
        """An adapter and a classifier for each stage but the last.

        Raises:
            RequestError: the network gives more than one prediction an example.
        """
        if student.outputs.dim() != 2:
            raise RequestError(
                f"distillation 'self' needs outputs of shape (batch, classes), not "
                f"{tuple(student.outputs.shape)}; use 'response'"
            )
        deepest = pooled(student.stages[-1])
        self._adapters = [Adapter(pooled(x), deepest) for x in student.stages[:-1]]
        self._heads = [
            nn.Linear(deepest.shape[1], student.outputs.shape[1]) for _ in self._adapters
        ]
        self.own.extend([*self._adapters, *self._heads])

    def loss(
        self, student: Answers, teacher: Answers | None, targets: torch.Tensor
    ) -> torch.Tensor:
        """The task's loss of the outputs, and of each earlier stage its labels', answers', hints.

        Sum over the stages (arXiv:1905.08094, equation 6), the outputs and the last features taken
        as given in what the others learn from them.
        """
        recipe, weight = self.setting.recipe, self.setting.recipe.distillation_weight
        answers, deepest = student.outputs.detach(), pooled(student.stages[-1]).detach()
        total = self.setting.loss(student.outputs, targets)
        stages = zip(student.stages[:-1], self._adapters, self._heads, strict=True)
        for features, adapter, head in stages:
            adapted = adapter(pooled(features))
            said = head(adapted)
            labels = self.setting.loss(said, targets)
            total = (
                total + (1 - weight) * labels + weight * self.output_term(said, answers, targets)
            )
            total = total + recipe.feature_weight * HINT * hint_loss(adapted, deepest)
        return total


def hint_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Squared distance of two rows of features ``(batch, channels)``, mean over the batch."""
    return (student - teacher).pow(2).sum(1).mean()
