"""Codes that hardly any single change of a weight by one step would improve.

In each row, the one change that lowers the output's squared error most is made, until none does
or the work is too much (greedy coordinate descent; Nair and Suggala 2024, CDQuant,
arXiv:2406.17542).
"""

from __future__ import annotations

import torch

from autocompress.compression.repair.rows import CodeRows

#: Changes looked at in all, at the most; few rows need more than one for every ten weights.
_LOOKED_AT = 2e9


@torch.no_grad()
def descend(rows: CodeRows, codes: torch.Tensor) -> torch.Tensor:
    """Improved codes, same shape; the error of no row rises, and pruned weights stay 0.

    Args:
        rows: what is rounded.
        codes: to begin with, whole numbers.
    """
    codes = codes.clone()
    diagonal = rows.moments.diagonal(dim1=1, dim2=2)[:, None]
    slope = (codes - rows.values) @ rows.moments
    fixed = rows.values == 0
    for _ in range(min(codes.shape[2], 1 + int(_LOOKED_AT / codes.numel()))):
        # a step of +-1 against the slope changes the error by diagonal - 2 |slope|
        move = -slope.sign()
        outside = fixed | ((codes + move).abs() > rows.levels)
        gain = torch.where(outside, -1.0, 2 * slope.abs() - diagonal)
        best, place = gain.max(2)
        if not bool((best > 0).any()):
            break
        step = torch.where(best > 0, move.gather(2, place[..., None])[..., 0], 0.0)
        codes.scatter_add_(2, place[..., None], step[..., None])
        for group, chosen in enumerate(place):
            slope[group] += step[group, :, None] * rows.moments[group, chosen]
    return codes
