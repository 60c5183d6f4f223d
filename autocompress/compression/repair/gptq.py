"""Codes that make up for each other's errors.

Columns of a layer's weight are rounded one by one; what one loses, the columns that are still to
come make up for as well as their inputs' correlation allows (Frantar et al. 2023, GPTQ,
arXiv:2210.17323; the columns with the largest inputs come first).
"""

from __future__ import annotations

import torch
from torch import nn

from autocompress.compression.forms import LEVELS
from autocompress.compression.repair.moments import InputMoments
from autocompress.compression.stored.symmetric import SymmetricCodes
from autocompress.compression.stored_layers import StoredLayer
from autocompress.compression.weight_scale import per_channel

#: Added to the second moments' diagonal, relative to its mean.
_DAMPING = 0.01


@torch.no_grad()
def round_with_feedback(layer: nn.Conv2d | nn.Linear, moments: InputMoments) -> None:
    """Move a stored layer's float weights onto the codes that serve its inputs best, in place.

    Args:
        layer: stored as symmetric codes; others are left alone.
        moments: of its inputs.
    """
    if not isinstance(layer, StoredLayer) or not isinstance(layer.form, SymmetricCodes):
        return
    form, bits = layer.form, layer.form.weight_bits
    weight = layer.weight.detach()
    scale = form.scale(weight, None)
    groups = moments.mean.shape[0]
    rows = (weight / per_channel(scale, weight)).reshape(groups, weight.shape[0] // groups, -1)
    codes = _codes(rows.double(), moments.second, LEVELS[bits])
    rounded = codes.reshape(weight.shape).to(weight.dtype) * per_channel(scale, weight)
    layer.weight.copy_(rounded)
    largest = rounded.abs().flatten(1).amax(1)
    kept = scale * LEVELS[bits] / largest.clamp_min(1e-12)
    form.clip_ratio.copy_(torch.where(largest > 0, kept, form.clip_ratio))


def _codes(rows: torch.Tensor, second: torch.Tensor, levels: int) -> torch.Tensor:
    """Whole numbers for rows in units of their step, shape ``(groups, out, k)``."""
    size = rows.shape[2]
    diagonal = second.diagonal(dim1=1, dim2=2)
    order = diagonal.mean(0).argsort(descending=True)
    rows, second = rows[:, :, order].clone(), second[:, order][:, :, order]
    damping = _DAMPING * diagonal.mean(1) + 1e-9
    damped = second + damping[:, None, None] * torch.eye(size, dtype=second.dtype)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    factor = torch.linalg.cholesky(inverse, upper=True)
    codes = torch.empty_like(rows)
    zero = rows == 0  # pruned: they take nothing on
    for i in range(size):
        column = rows[:, :, i]
        codes[:, :, i] = torch.where(zero[:, :, i], 0.0, column.round().clamp(-levels, levels))
        error = (column - codes[:, :, i]) / factor[:, i, i, None]
        rows[:, :, i + 1 :] -= error[:, :, None] * factor[:, None, i, i + 1 :]
    restored = torch.empty_like(codes)
    restored[:, :, order] = codes
    return restored
