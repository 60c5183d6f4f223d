"""What a criterion for channels is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import nn

from autocompress.compression.importance.evidence import Evidence
from autocompress.compression.importance.members import readers
from autocompress.graph.model_graph import ChannelGroup, GroupMember


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


class ReaderCriterion(Criterion):
    """A criterion that looks at data where layers read the group's channels."""

    needs_evidence = True

    def scores(
        self, module: nn.Module, group: ChannelGroup, evidence: Evidence | None
    ) -> torch.Tensor | None:
        """None for groups that no convolution and no linear layer reads."""
        if evidence is None:
            return None
        found = [self.of_reader(evidence, *reader) for reader in readers(module, group)]
        known = [scores for scores in found if scores is not None]
        return self.together(torch.stack(known)) if known else None

    @abstractmethod
    def of_reader(
        self, evidence: Evidence, member: GroupMember, layer: nn.Module
    ) -> torch.Tensor | None:
        """What one reader says of the channels, shape ``(..., channels)``; None without evidence.

        Args:
            evidence: gathered on the model.
            member: the reader's place in the group.
            layer: the reader.
        """

    @abstractmethod
    def together(self, found: torch.Tensor) -> torch.Tensor:
        """The scores, shape ``(channels,)``, from ``(readers, ..., channels)``."""
