"""What a method for choosing ranges is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch


@dataclass(frozen=True, slots=True)
class Range:
    """The range of a tensor's values, always holding 0."""

    low: float
    high: float


class RangeMethod(ABC):
    """Chooses the range that the codes of a tensor cover; what lies outside is saturated.

    Attributes:
        name: what ``calibration=`` calls it.
        reference: the paper or talk it comes from.
    """

    name: ClassVar[str]
    reference: ClassVar[str]

    @abstractmethod
    def choose(self, values: torch.Tensor, low: float, high: float, *, bits: int = 8) -> Range:
        """The range to cover.

        Args:
            values: a sample of the tensor's values, shape ``(n,)``, float64, ascending.
            low: the smallest value seen, or 0 if that is less.
            high: the largest value seen, or 0 if that is more.
            bits: of the codes.
        """
