"""Channels that their batch norm scales down matter little."""

from __future__ import annotations

import torch
from torch import nn

from autocompress.compression.importance.base import Criterion
from autocompress.compression.importance.evidence import Evidence
from autocompress.compression.importance.members import gathered, normalised_mean
from autocompress.graph.model_graph import ChannelGroup


class BatchNormScale(Criterion):
    """Mean over the group's batch norms of ``|gamma|``, normalised per norm."""

    name = "batch_norm_scale"
    reference = "Liu et al. 2017, Network Slimming, arXiv:1708.06519"
    words = "the scales of their batch norms"

    def scores(
        self, module: nn.Module, group: ChannelGroup, evidence: Evidence | None
    ) -> torch.Tensor | None:
        """None for groups without a batch norm that scales."""
        found = []
        for member in group.members:
            norm = module.get_submodule(member.module)
            if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.affine:
                found.append(gathered(norm.weight.detach().float().abs(), member))
        return normalised_mean(found, group.channels)
