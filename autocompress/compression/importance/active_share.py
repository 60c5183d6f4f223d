"""Channels that are mostly zero matter little."""

from __future__ import annotations

import torch
from torch import nn

from autocompress.compression.importance.base import Criterion
from autocompress.compression.importance.evidence import Evidence
from autocompress.compression.importance.members import gathered, readers
from autocompress.graph.model_graph import ChannelGroup


class ActiveShare(Criterion):
    """One minus the average percentage of zeros (APoZ) that the group's readers receive."""

    name = "apoz"
    reference = "Hu et al. 2016, Network Trimming, arXiv:1607.03250"
    words = "how often they are not zero"
    needs_evidence = True
    passes = 1

    def scores(
        self, module: nn.Module, group: ChannelGroup, evidence: Evidence | None
    ) -> torch.Tensor | None:
        """None for groups that no convolution and no linear layer reads."""
        if evidence is None:
            return None
        found = [
            gathered(evidence.activations[member.module].nonzero, member) / member.indices.shape[1]
            for member, _ in readers(module, group)
            if member.module in evidence.activations
        ]
        return torch.stack(found).mean(0) if found else None
