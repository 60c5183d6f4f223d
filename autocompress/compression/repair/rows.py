"""A stored layer's weight as rows in units of their steps, and back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from autocompress.compression.forms import LEVELS
from autocompress.compression.repair.moments import InputMoments
from autocompress.compression.stored.symmetric import SymmetricCodes
from autocompress.compression.stored_layers import StoredLayer
from autocompress.compression.weight_scale import per_channel

#: Added to the second moments' diagonal, relative to its mean.
_DAMPING = 0.01


@dataclass(eq=False)
class CodeRows:
    """What rounding a layer's weight is about.

    With ``E`` the error of a row in units of its step and ``H`` the second moments of its inputs,
    ``E H E^T`` is the mean squared error of the output, in units of the step.

    Attributes:
        values: float64, shape ``(groups, out / groups, k)``.
        moments: float64, symmetric and positive definite, shape ``(groups, k, k)``.
        levels: the largest code.
        scale: step of each output channel, shape ``(out,)``.
        form: how the weight is stored.
    """

    values: torch.Tensor
    moments: torch.Tensor
    levels: int
    scale: torch.Tensor
    form: SymmetricCodes

    @classmethod
    def of(cls, layer: nn.Conv2d | nn.Linear, inputs: InputMoments) -> CodeRows | None:
        """Those of a layer; None where it is not stored as symmetric codes."""
        if not isinstance(layer, StoredLayer) or not isinstance(layer.form, SymmetricCodes):
            return None
        weight = layer.weight.detach()
        scale = layer.form.scale(weight, None).detach()
        groups = inputs.mean.shape[0]
        rows = (weight / per_channel(scale, weight)).reshape(groups, len(weight) // groups, -1)
        second = inputs.second
        damping = _DAMPING * second.diagonal(dim1=1, dim2=2).mean(1) + 1e-9
        damped = second + damping[:, None, None] * torch.eye(second.shape[1], dtype=second.dtype)
        return cls(rows.double(), damped, LEVELS[layer.form.weight_bits], scale, layer.form)

    def errors(self, codes: torch.Tensor) -> torch.Tensor:
        """``E H E^T`` of each row, shape ``(groups, out / groups)``."""
        missed = codes - self.values
        return torch.einsum("gok,gkl,gol->go", missed, self.moments, missed)

    def nearest(self) -> torch.Tensor:
        """The codes next to the values; pruned weights stay 0."""
        return self.values.round().clamp(-self.levels, self.levels)

    @torch.no_grad()
    def write(self, layer: nn.Conv2d | nn.Linear, codes: torch.Tensor) -> None:
        """Move the layer's float weight onto codes, in place; its steps stay."""
        weight = layer.weight
        rounded = codes.reshape(weight.shape).to(weight.dtype) * per_channel(self.scale, weight)
        weight.copy_(rounded)
        self.form.keep_scale(weight, self.scale)
