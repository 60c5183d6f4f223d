"""Activations as the runtime stores them: integers from 0, one scale and zero point per tensor."""

from __future__ import annotations

import torch
from torch import nn

from autocompress.compression.rounding import fake_quantize


class ActivationQuantizer(nn.Module):
    """Fake quantisation of an activation tensor, asymmetric, one scale per tensor.

    Args:
        bits: of a code, at most 8.

    Attributes:
        bits: as given.
        last: the largest code; the smallest is 0.
        scale: buffer, 0-dimensional: the step.
        zero_point: buffer, 0-dimensional: the code of 0, a whole number in 0..last.
    """

    scale: torch.Tensor
    zero_point: torch.Tensor

    def __init__(self, bits: int = 8) -> None:
        super().__init__()
        self.bits = bits
        self.last = 2**bits - 1
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("zero_point", torch.zeros(()))

    def set_range(self, low: float, high: float) -> None:
        """Cover ``[low, high]``, widened to hold 0; an empty range becomes ``[0, 1]``.

        The step is a millionth smaller than the range needs, so that rounding never keeps either
        end from the first or last code: clipping to the range then equals saturation.
        """
        low, high = min(low, 0.0), max(high, 0.0)
        if high - low < 1e-12:
            high = low + 1.0
        step = (high - low) / self.last * (1.0 - 1e-6)
        scale = torch.tensor(step, dtype=torch.float32)
        zero = torch.round(torch.tensor(-low) / scale).clamp(0, self.last)
        self.scale.copy_(scale)
        self.zero_point.copy_(zero)

    @property
    def range(self) -> tuple[float, float]:
        """The smallest and the largest representable value."""
        scale, zero = float(self.scale), float(self.zero_point)
        return -zero * scale, (self.last - zero) * scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``x`` rounded to representable values; same shape."""
        return fake_quantize(x, self.scale, self.zero_point, 0, self.last)

    def extra_repr(self) -> str:
        """The range and the bits, for printing."""
        low, high = self.range
        return f"{low:.4g}..{high:.4g}, bits={self.bits}"
