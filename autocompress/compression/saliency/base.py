"""What a criterion for single weights is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch


class Saliency(ABC):
    """Scores the weights of a model that is being trained; those with small scores become zero.

    One object serves one training: :meth:`observe` may gather what it sees.

    Attributes:
        name: what a goal names it by.
        reference: the paper it comes from.
    """

    name: ClassVar[str]
    reference: ClassVar[str]

    def observe(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Called after every training step, with the step's gradients still in ``.grad``."""
        return  # most criteria look at the weights alone

    @abstractmethod
    def scores(self, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Scores of the same names and shapes; larger stays."""
