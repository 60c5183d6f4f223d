"""Channels whose readers see small values matter little."""

from __future__ import annotations

import torch
from torch import nn

from autocompress.compression.importance.base import Criterion
from autocompress.compression.importance.evidence import Evidence
from autocompress.compression.importance.members import gathered, normalised_mean, readers
from autocompress.graph.model_graph import ChannelGroup


class ActivationMagnitude(Criterion):
    """Mean over the group's readers of the mean ``|x|`` they receive, normalised per reader."""

    name = "activation"
    reference = "Molchanov et al. 2017, arXiv:1611.06440"
    words = "the magnitude of their activations"
    needs_evidence = True
    passes = 1

    def scores(
        self, module: nn.Module, group: ChannelGroup, evidence: Evidence | None
    ) -> torch.Tensor | None:
        """None for groups that no convolution and no linear layer reads."""
        if evidence is None:
            return None
        found = [
            gathered(evidence.activations[member.module].magnitude, member)
            for member, _ in readers(module, group)
            if member.module in evidence.activations
        ]
        return normalised_mean(found, group.channels)
