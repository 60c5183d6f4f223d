"""Channels whose removal changes the loss least, to first order."""

from __future__ import annotations

import torch
from torch import nn

from autocompress.compression.importance.base import ReaderCriterion
from autocompress.compression.importance.evidence import Evidence
from autocompress.compression.importance.members import gathered
from autocompress.graph.model_graph import GroupMember


class Taylor(ReaderCriterion):
    """Mean over examples of the squared derivative of the loss to a gate on the channel.

    A gate multiplies the channel wherever it is read; at 1 its derivative is the first-order change
    of the loss when the channel goes, summed over all that is coupled before it is squared.
    """

    name = "taylor"
    reference = "Molchanov et al. 2019, arXiv:1906.10771; Liu et al. 2021, arXiv:2108.00708"
    words = "the loss that their removal costs to first order"
    passes = 3

    def of_reader(
        self, evidence: Evidence, member: GroupMember, layer: nn.Module
    ) -> torch.Tensor | None:
        """Each example's derivative to the gate, shape ``(n, channels)``."""
        gradients = evidence.gate_gradients.get(member.module)
        return None if gradients is None else gathered(gradients, member)

    def together(self, found: torch.Tensor) -> torch.Tensor:
        """Summed over the readers before it is squared."""
        return found.sum(0).pow(2).mean(0)
