"""Channels whose removal changes the loss least, to first order."""

from __future__ import annotations

import torch
from torch import nn

from autocompress.compression.importance.base import Criterion
from autocompress.compression.importance.evidence import Evidence
from autocompress.compression.importance.members import gathered, readers
from autocompress.graph.model_graph import ChannelGroup


class Taylor(Criterion):
    """Mean over examples of the squared derivative of the loss to a gate on the channel.

    A gate multiplies the channel wherever it is read; at 1 its derivative is the first-order change
    of the loss when the channel goes, summed over all that is coupled before it is squared.
    """

    name = "taylor"
    reference = "Molchanov et al. 2019, arXiv:1906.10771; Liu et al. 2021, arXiv:2108.00708"
    words = "the loss that their removal costs to first order"
    needs_evidence = True
    passes = 3

    def scores(
        self, module: nn.Module, group: ChannelGroup, evidence: Evidence | None
    ) -> torch.Tensor | None:
        """None for groups that no convolution and no linear layer reads."""
        if evidence is None:
            return None
        found = [
            gathered(evidence.gate_gradients[member.module], member)
            for member, _ in readers(module, group)
            if member.module in evidence.gate_gradients
        ]
        return torch.stack(found).sum(0).pow(2).mean(0) if found else None
