"""Channels whose readers see small values matter little."""

from __future__ import annotations

import torch
from torch import nn

from autocompress.compression.importance.base import ReaderCriterion
from autocompress.compression.importance.evidence import Evidence
from autocompress.compression.importance.members import gathered
from autocompress.graph.model_graph import GroupMember


class ActivationMagnitude(ReaderCriterion):
    """Mean over the group's readers of the mean ``|x|`` they receive, normalised per reader."""

    name = "activation"
    reference = "Molchanov et al. 2017, arXiv:1611.06440"
    words = "the magnitude of their activations"
    passes = 1

    def of_reader(
        self, evidence: Evidence, member: GroupMember, layer: nn.Module
    ) -> torch.Tensor | None:
        """The mean ``|x|`` of the channels that it receives."""
        seen = evidence.activations.get(member.module)
        return None if seen is None else gathered(seen.magnitude, member)

    def together(self, found: torch.Tensor) -> torch.Tensor:
        """The mean, each first divided by its mean over the channels."""
        return (found / found.mean(-1, keepdim=True).clamp_min(1e-12)).mean(0)
