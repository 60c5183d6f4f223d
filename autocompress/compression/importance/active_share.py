"""Channels that are mostly zero matter little."""

from __future__ import annotations

import torch
from torch import nn

from autocompress.compression.importance.base import ReaderCriterion
from autocompress.compression.importance.evidence import Evidence
from autocompress.compression.importance.members import gathered
from autocompress.graph.model_graph import GroupMember


class ActiveShare(ReaderCriterion):
    """One minus the average percentage of zeros (APoZ) that the group's readers receive."""

    name = "apoz"
    reference = "Hu et al. 2016, Network Trimming, arXiv:1607.03250"
    words = "how often they are not zero"
    passes = 1

    def of_reader(
        self, evidence: Evidence, member: GroupMember, layer: nn.Module
    ) -> torch.Tensor | None:
        """The share of the channels' values that are not zero."""
        seen = evidence.activations.get(member.module)
        return None if seen is None else gathered(seen.nonzero, member) / member.indices.shape[1]

    def together(self, found: torch.Tensor) -> torch.Tensor:
        """The mean."""
        return found.mean(0)
