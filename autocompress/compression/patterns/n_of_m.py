"""N of every M consecutive input channels stay, as sparse matrix units of GPUs expect it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from autocompress.compression.patterns.base import NOTHING_MULTIPLIED, Pattern
from autocompress.graph.model_graph import Layer


@dataclass(frozen=True)
class NOfM(Pattern):
    """At most ``kept`` of every ``of`` consecutive input channels stay, per output channel.

    Groups run along the input channels, the axis that is summed over, at each kernel position on
    its own (Mishra et al. 2021, arXiv:2104.08378; Zhou et al. 2021, arXiv:2102.04010). Channels
    that do not fill a last group form a shorter one, which keeps ``kept`` of them too: padded with
    zeros it is a valid group.

    Attributes:
        kept: entries of a group that stay.
        of: entries of a group.
    """

    kept: int
    of: int

    @property
    def name(self) -> str:
        """Such as "2:4"."""
        return f"{self.kept}:{self.of}"

    @property
    def sparsity(self) -> float:
        """Share of zeros where groups are full."""
        return 1.0 - self.kept / self.of

    def mask(self, scores: torch.Tensor, sparsity: float) -> torch.Tensor:
        """1 for the ``kept`` largest scores of each group; ``sparsity`` is the pattern's own."""
        moved = scores.movedim(1, -1)
        channels = moved.shape[-1]
        padded = functional.pad(moved, (0, -channels % self.of), value=-torch.inf)
        grouped = padded.reshape(*padded.shape[:-1], -1, self.of)
        lost = grouped.argsort(dim=-1, stable=True)[..., : self.of - self.kept]
        mask = torch.ones_like(grouped).scatter(-1, lost, 0.0).flatten(-2)
        return mask[..., :channels].movedim(-1, 1).contiguous()

    def refusal(self, layer: Layer) -> str | None:
        """Layers that sum over fewer than ``of`` channels have no full group."""
        if layer.kind == "embedding":
            return NOTHING_MULTIPLIED
        channels = layer.in_channels // layer.groups
        if channels >= self.of:
            return None
        return f"it sums over {channels} input channels, fewer than the {self.of} of a group"
