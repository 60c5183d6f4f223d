"""Channels whose removal changes the loss least, by its curvature."""

from __future__ import annotations

import torch
from torch import nn

from autocompress.compression.importance.base import Criterion
from autocompress.compression.importance.evidence import Evidence
from autocompress.compression.importance.members import gathered, readers
from autocompress.graph.model_graph import ChannelGroup


class HessianTrace(Criterion):
    """Sum over the group's readers of ``trace(H) / (2 p) * |w|^2``.

    ``w`` are the ``p`` weights with which a reader reads the channel, ``H`` the Hessian of the loss
    to them; the channel is gone when they are zero, whatever norms and biases lie before. Traces
    are Hutchinson's estimates.
    """

    name = "hessian"
    reference = "LeCun et al. 1989, Optimal Brain Damage; Yu et al. 2021, HAP, arXiv:2101.08940"
    words = "the loss that their removal costs by its curvature"
    needs_evidence = True
    passes = 8

    def scores(
        self, module: nn.Module, group: ChannelGroup, evidence: Evidence | None
    ) -> torch.Tensor | None:
        """None for groups that no convolution and no linear layer reads, each once."""
        if evidence is None:
            return None
        found = []
        for member, layer in readers(module, group):
            if member.module in evidence.traces:
                weight = layer.weight.detach().float().transpose(0, 1).flatten(1)  # type: ignore[operator]
                squared = gathered(weight.pow(2).sum(1), member)
                trace = gathered(evidence.traces[member.module], member)
                size = weight.shape[1] * member.indices.shape[1]
                found.append(trace * squared / (2 * size))
        return torch.stack(found).sum(0) if found else None
