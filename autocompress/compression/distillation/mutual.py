"""Deep mutual learning: the candidate and a peer learn together."""

from __future__ import annotations

import torch

from autocompress.compression.distillation.base import Answers, Distillation


class Mutual(Distillation):
    """The peer starts as the original and is trained in the same steps.

    Each learns from the labels and from the other's answers, taken as given in that step. The
    paper's temperature is 1. After the training the peer is dropped.
    """

    name = "mutual"
    reference = "Zhang et al. 2018, arXiv:1706.00384"
    guide = "peer"

    def loss(
        self, student: Answers, teacher: Answers | None, targets: torch.Tensor
    ) -> torch.Tensor:
        """The student's loss and the peer's; gradients reach both."""
        if teacher is None:
            raise ValueError("mutual learning needs the answers of a peer")
        learn = super().loss
        return learn(student, teacher.detached(), targets) + learn(
            teacher, student.detached(), targets
        )
