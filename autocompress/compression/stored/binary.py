"""One bit per weight."""

from __future__ import annotations

import torch

from autocompress.compression.forms import CONTAINER_BITS
from autocompress.compression.rounding import straight_through
from autocompress.compression.stored.base import StoredWeight, WeightForm, widened
from autocompress.compression.weight_scale import binary_scale, per_channel


class Signs(WeightForm):
    """The sign of each weight times its channel's mean magnitude; zeros stay zero.

    That is the scale with the smallest squared error (Rastegari et al. 2016, arXiv:1603.05279).
    """

    weight_bits = 1

    @property
    def file_bits(self) -> int:
        """Those of the container, which can hold zeros, too."""
        return CONTAINER_BITS[1]

    def scale(self, weight: torch.Tensor, least: torch.Tensor | None) -> torch.Tensor:
        """It follows the weight."""
        return widened(binary_scale(weight), least)

    def rounded(self, weight: torch.Tensor, least: torch.Tensor | None) -> torch.Tensor:
        """Signs times scales; gradients pass unchanged."""
        scale = per_channel(self.scale(weight, least), weight)
        return straight_through(weight, self._signs(weight, least) * scale)

    def stored(self, weight: torch.Tensor, least: torch.Tensor | None) -> StoredWeight:
        """-1, 0 and 1, in the smallest container there is."""
        codes = self._signs(weight, least).to(torch.int8)
        return StoredWeight(codes, self.file_bits, self.scale(weight, least))

    def _signs(self, weight: torch.Tensor, least: torch.Tensor | None) -> torch.Tensor:
        """The signs; zeros in channels where a large bias widens the step beyond the weights."""
        codes = weight.detach().sign()
        if least is None:
            return codes
        drowned = 2.0 * binary_scale(weight) < least
        return torch.where(per_channel(drowned, codes), 0.0, codes)
