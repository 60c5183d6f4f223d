"""Channels whose removal changes the loss least, by its curvature."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from autocompress.compression.importance.base import ReaderCriterion
from autocompress.compression.importance.evidence import Evidence
from autocompress.compression.importance.members import gathered
from autocompress.graph.model_graph import GroupMember


class HessianTrace(ReaderCriterion):
    """Sum over the group's readers of ``trace(H) / (2 p) * |w|^2``.

    ``w`` are the ``p`` weights with which a reader reads the channel, ``H`` the Hessian of the loss
    to them; the channel is gone when they are zero, whatever norms and biases lie before. Traces
    are Hutchinson's estimates.
    """

    name = "hessian"
    reference = "LeCun et al. 1989, Optimal Brain Damage; Yu et al. 2021, HAP, arXiv:2101.08940"
    words = "the loss that their removal costs by its curvature"
    passes = 8

    def of_reader(
        self, evidence: Evidence, member: GroupMember, layer: nn.Module
    ) -> torch.Tensor | None:
        """``trace(H) / (2 p) * |w|^2`` of the weights that read each channel."""
        traces = evidence.traces.get(member.module)
        if traces is None:
            return None
        weight = cast(torch.Tensor, layer.weight).detach().float().transpose(0, 1).flatten(1)
        size = weight.shape[1] * member.indices.shape[1]
        squared = gathered(weight.pow(2).sum(1), member)
        found: torch.Tensor = gathered(traces, member) * squared / (2 * size)
        return found

    def together(self, found: torch.Tensor) -> torch.Tensor:
        """The sum."""
        return found.sum(0)
