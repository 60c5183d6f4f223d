"""Absolute magnitude of everything a channel touches."""

from __future__ import annotations

import torch
from torch import nn

from autocompress.compression.importance.base import Criterion
from autocompress.compression.importance.evidence import Evidence
from autocompress.compression.importance.members import (
    gathered,
    normalised_mean,
    weights_by_channel,
)
from autocompress.graph.model_graph import ChannelGroup


class L1Magnitude(Criterion):
    """Mean over the group's members of the channel's absolute weights, normalised per member."""

    name = "l1"
    reference = "Li et al. 2017, arXiv:1608.08710; Fang et al. 2023, arXiv:2301.12900"
    words = "the absolute weights of all that touches them"

    def scores(
        self, module: nn.Module, group: ChannelGroup, evidence: Evidence | None
    ) -> torch.Tensor | None:
        """Sums of magnitudes; members without weights do not count."""
        found = [
            gathered(weights.abs().sum(1), member)
            for member, weights in weights_by_channel(module, group)
        ]
        return normalised_mean(found, group.channels)
