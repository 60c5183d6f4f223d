"""Which form stores a weight."""

from __future__ import annotations

import torch

from autocompress.compression.stored.base import WeightForm
from autocompress.compression.stored.binary import Signs
from autocompress.compression.stored.half import HalfFloats
from autocompress.compression.stored.shared import SharedValues
from autocompress.compression.stored.symmetric import SymmetricCodes


def weight_form(
    weight: torch.Tensor, bits: int, *, codebook: int | None = None, scaled: bool = False
) -> WeightForm:
    """The form that stores ``weight``, fitted to it.

    Args:
        weight: shape ``(out, ...)``.
        bits: below 32, unless there is a codebook.
        codebook: number of shared values, or None.
        scaled: whether shared values have a factor for each output channel.
    """
    if codebook is not None:
        return SharedValues(weight, codebook, scaled=scaled)
    if bits == 16:
        return HalfFloats()
    if bits == 1:
        return Signs()
    return SymmetricCodes(weight, bits)
