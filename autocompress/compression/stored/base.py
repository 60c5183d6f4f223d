"""What a stored form of a layer's weight is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True, eq=False)
class StoredWeight:
    """A weight as the file holds it.

    Attributes:
        codes: shape of the weight: int8 codes, float16 numbers, or uint8 indices into the table.
        bits: of one of them in the file: 16, 8, 4 or 2.
        scale: step of each output channel, shape ``(out,)``; None where there is none.
        table: the values that the indices stand for, shape ``(n,)``: int8 codes in units of the
            scale, or floats; None where the codes are the values.
    """

    codes: torch.Tensor
    bits: int
    scale: torch.Tensor | None = None
    table: torch.Tensor | None = None


class WeightForm(nn.Module, ABC):
    """Rounds a layer's float weight to what its stored form can stand for.

    The float weight belongs to the layer and is given to each method. ``least`` is the smallest
    step that each output channel may have, shape ``(out,)``, in a layer that computes in integers
    (so that its bias fits 32 bits); None in a layer that computes in floats.

    Attributes:
        weight_bits: bits per stored weight, as a policy names them.
    """

    weight_bits: int

    @property
    @abstractmethod
    def file_bits(self) -> int:
        """Bits that one weight takes in the file, tables and scales not counted."""

    @abstractmethod
    def rounded(self, weight: torch.Tensor, least: torch.Tensor | None) -> torch.Tensor:
        """The weight as the runtime sees it; same shape, differentiable."""

    @abstractmethod
    def stored(self, weight: torch.Tensor, least: torch.Tensor | None) -> StoredWeight:
        """The weight as the file holds it."""

    def scale(self, weight: torch.Tensor, least: torch.Tensor | None) -> torch.Tensor:
        """Step of each output channel's integers, shape ``(out,)``.

        Raises:
            TypeError: the form has no integers.
        """
        raise TypeError(f"{type(self).__name__} has no scale")

    def refit(self, weight: torch.Tensor) -> None:
        """Fit the form's own parameters again, to the weight as it is now."""
        return  # most forms have none

    def learn(self) -> None:
        """Let the form's own parameters be trained with the weight."""
        return  # most forms have none


def widened(scale: torch.Tensor, least: torch.Tensor | None) -> torch.Tensor:
    """``scale`` where it is at least ``least``, else that."""
    return scale if least is None else torch.maximum(scale, least)
