"""Shared values: each weight is one of a few, trained, numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn

from autocompress.compression.clusters import cluster, cluster_symmetric
from autocompress.compression.forms import SMALL_CODEBOOK
from autocompress.compression.rounding import straight_through
from autocompress.compression.stored.base import StoredWeight, WeightForm, widened
from autocompress.compression.weight_scale import channel_peaks, per_channel

_LEVELS = 127
_FLOOR = 1e-8


class SharedValues(WeightForm):
    """A codebook per layer (Han et al. 2016, arXiv:1510.00149).

    Which weight takes which value is settled once; training moves the values, each by the sum of
    its weights' gradients. Zeros have a value of their own that stays zero.

    Args:
        weight: clustered.
        count: values, 3 to 256.
        scaled: whether values are relative to each output channel's largest weight, and found with
            both signs. That is for models with batch norm, which scales whole channels (negatively,
            too) when it is folded: the values are then the same before and after.

    Attributes:
        values: parameter, shape ``(count,)``: what the indices stand for.
        indices: buffer, uint8, shape of the weight.
        factors: buffer, shape ``(out,)``: the channels' factors; ones where there are none.
    """

    weight_bits = 32
    values: nn.Parameter
    indices: torch.Tensor
    factors: torch.Tensor
    zero: torch.Tensor

    def __init__(self, weight: torch.Tensor, count: int, *, scaled: bool) -> None:
        super().__init__()
        self.scaled = scaled
        factors, values, indices = _clustered(weight, count, scaled=scaled)
        self.register_buffer("factors", factors)
        self.register_buffer("indices", indices)
        self.register_buffer("zero", values == 0)
        self.values = nn.Parameter(values)

    @property
    def file_bits(self) -> int:
        """Bits of an index in the file."""
        return 4 if len(self.values) <= SMALL_CODEBOOK else 8

    def scale(self, weight: torch.Tensor, least: torch.Tensor | None) -> torch.Tensor:
        """What one unit of the table's int8 codes stands for."""
        return widened(self._own_scale(), least)

    def rounded(self, weight: torch.Tensor, least: torch.Tensor | None) -> torch.Tensor:
        """Values by index; gradients reach the values, not the weight."""
        places = self._places(least)
        floats = self._held()[places] * per_channel(self.factors, weight)
        if least is None:
            return floats
        scale = per_channel(self.scale(weight, least), weight)
        return straight_through(floats, self._codes()[places] * scale)

    def stored(self, weight: torch.Tensor, least: torch.Tensor | None) -> StoredWeight:
        """Indices and their table."""
        indices = self._places(least).to(torch.uint8)
        if least is not None:
            table = self._codes().to(torch.int8)
            return StoredWeight(indices, self.file_bits, self.scale(weight, least), table)
        factors = self.factors if self.scaled else None
        return StoredWeight(indices, self.file_bits, factors, self._held().detach())

    def _held(self) -> torch.Tensor:
        """The values, zero where they have to be."""
        return torch.where(self.zero, torch.zeros_like(self.values), self.values)

    def _own_scale(self) -> torch.Tensor:
        largest = self._held().detach().abs().max().clamp_min(_FLOOR)
        return self.factors * largest / _LEVELS

    def _codes(self) -> torch.Tensor:
        """The values' int8 codes, as floats; shape ``(count,)``."""
        held = self._held().detach()
        step = held.abs().max().clamp_min(_FLOOR) / _LEVELS
        return torch.round(held / step).clamp(-_LEVELS, _LEVELS)

    def _places(self, least: torch.Tensor | None) -> torch.Tensor:
        """The indices; in channels whose step a large bias widens, those of the smallest value.

        The weights of such a channel are next to nothing beside its bias, and the table's codes
        would grow with the step.
        """
        places = self.indices.long()
        if least is None:
            return places
        wide = per_channel(least > self._own_scale(), places)
        return torch.where(wide, self._held().detach().abs().argmin(), places)


class _Mean(torch.autograd.Function):
    """Means of groups of weights; each weight receives its share of its group's gradient."""

    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor, indices: torch.Tensor, count: int) -> torch.Tensor:
        held = torch.bincount(indices.flatten(), minlength=count).clamp_min(1)
        ctx.save_for_backward(indices, held)
        sums = weight.new_zeros(count).index_add_(0, indices.flatten(), weight.flatten())
        return (sums / held)[indices]

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        indices, held = ctx.saved_tensors
        flat = indices.flatten()
        sums = grads[0].new_zeros(len(held)).index_add_(0, flat, grads[0].flatten())
        return (sums / held)[indices], None, None


def share(
    weight: torch.Tensor, count: int, *, scaled: bool
) -> Callable[[torch.Tensor], torch.Tensor]:
    """What turns a weight of this shape into means of the groups that this weight falls into.

    The result is differentiable in its argument and keeps no copy of the weight: the groups are
    settled now, their values follow the weights.

    Args:
        weight: shape ``(out, ...)``.
        count: values, 3 to 256.
        scaled: as for :class:`SharedValues`.
    """
    _, values, found = _clustered(weight, count, scaled=scaled)
    groups = found.long()
    if not scaled:
        return lambda weight: cast(torch.Tensor, _Mean.apply(weight, groups, count))
    # values of both signs are one group: the mean of its magnitudes
    sizes, joined = torch.unique(values.abs(), return_inverse=True)
    groups = joined[groups]

    def moved(weight: torch.Tensor) -> torch.Tensor:
        factors = per_channel(channel_peaks(weight), weight)
        means = cast(torch.Tensor, _Mean.apply(weight.abs() / factors, groups, len(sizes)))
        return means * weight.detach().sign() * factors

    return moved


def _clustered(
    weight: torch.Tensor, count: int, *, scaled: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Channel factors, values and indices."""
    weight = weight.detach()
    if not scaled:
        return weight.new_ones(weight.shape[0]), *cluster(weight, count)
    factors = channel_peaks(weight)
    return factors, *cluster_symmetric(weight / per_channel(factors, weight), count)
