"""Codes that make up for each other's errors.

Columns of a layer's weight are rounded one by one; what one loses, the columns that are still to
come make up for as well as their inputs' correlation allows (Frantar et al. 2023, GPTQ,
arXiv:2210.17323; the columns with the largest inputs come first).
"""

from __future__ import annotations

import torch

from autocompress.compression.repair.rows import CodeRows

#: Columns whose errors later ones take on together.
_BLOCK = 128


@torch.no_grad()
def codes_with_feedback(rows: CodeRows) -> torch.Tensor:
    """Whole numbers, same shape as ``rows.values``; pruned weights stay 0."""
    size = rows.values.shape[2]
    order = rows.moments.diagonal(dim1=1, dim2=2).mean(0).argsort(descending=True)
    values, second = rows.values[:, :, order].clone(), rows.moments[:, order][:, :, order]
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(second))
    factor = torch.linalg.cholesky(inverse, upper=True)
    codes = torch.empty_like(values)
    zero = values == 0  # pruned: they take nothing on
    for start in range(0, size, _BLOCK):
        block = range(start, min(start + _BLOCK, size))
        errors = torch.zeros_like(values[:, :, block.start : block.stop])
        for i in block:
            column = values[:, :, i]
            nearest = column.round().clamp(-rows.levels, rows.levels)
            codes[:, :, i] = torch.where(zero[:, :, i], 0.0, nearest)
            error = (column - codes[:, :, i]) / factor[:, i, i, None]
            errors[:, :, i - start] = error
            inside = slice(i + 1, block.stop)
            values[:, :, inside] -= error[:, :, None] * factor[:, None, i, inside]
        # what follows the block takes its errors on at once
        values[:, :, block.stop :] -= errors @ factor[:, block.start : block.stop, block.stop :]
    restored = torch.empty_like(codes)
    restored[:, :, order] = codes
    return restored
