"""What a criterion for channels is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import nn

from autocompress.compression.importance.evidence import Evidence
from autocompress.graph.model_graph import ChannelGroup


class Criterion(ABC):
    """Scores the channels of coupled groups.

    Scores are compared within a group only. They must follow the channels: when the channels of a
    group are stored in another order, their scores come in that order.

    Attributes:
        name: what it is asked for and reported by.
        reference: the paper it comes from.
        needs_evidence: whether it looks at data; otherwise at weights alone.
        passes: what its evidence costs per example, in forward passes, roughly.
        words: what it ranks by, for a sentence.
    """

    name: ClassVar[str]
    reference: ClassVar[str]
    words: ClassVar[str]
    needs_evidence: ClassVar[bool] = False
    passes: ClassVar[int] = 0

    @abstractmethod
    def scores(
        self, module: nn.Module, group: ChannelGroup, evidence: Evidence | None
    ) -> torch.Tensor | None:
        """Importance of each channel, shape ``(channels,)``; larger stays.

        Args:
            module: holds the group's members by name, with the weights to look at.
            group: whose channels are scored.
            evidence: gathered on this very module; given to criteria that need it.

        Returns:
            None where the group has nothing that the criterion looks at.

        Raises:
            RequestError: the criterion cannot be computed for this model.
        """
