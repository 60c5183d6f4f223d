"""Rounding up or down, learned (Nagel et al. 2020, AdaRound, arXiv:2004.10568).

Each weight becomes its lower neighbour plus a share between 0 and 1, which gradient descent on the
output's squared error moves, while a growing regulariser drives it to either end. The error is
taken from the second moments of the layer's inputs (the paper's equation 13), so that no inputs are
kept.
"""

from __future__ import annotations

import torch

from autocompress.compression.repair.rows import CodeRows

#: The rectified sigmoid is stretched to these ends, so that shares reach 0 and 1.
_LOW, _HIGH = -0.1, 1.1
#: Exponents of the regulariser, first and last; the first steps go without it.
_SHARP, _BLUNT = 20.0, 2.0
_WARM = 0.2
_WEIGHT = 1.0
_RATE = 0.1


def learned_rounding(rows: CodeRows, *, steps: int = 300) -> torch.Tensor:
    """Whole numbers next to the values, same shape as ``rows.values``; pruned weights stay 0.

    Args:
        rows: what is rounded.
        steps: of Adam.
    """
    pruned = rows.values == 0
    below = rows.values.floor().clamp(-rows.levels, rows.levels - 1)
    share = (rows.values - below).clamp(0.01, 0.99)
    with torch.enable_grad():
        logits = torch.logit((share - _LOW) / (_HIGH - _LOW)).requires_grad_()
        optimizer = torch.optim.Adam([logits], lr=_RATE)
        unit = rows.moments.diagonal(dim1=1, dim2=2).mean()
        for step in range(steps):
            up = torch.where(pruned, 0.0, _shares(logits))
            loss = rows.errors(below + up).sum() / unit
            done = (step / steps - _WARM) / (1 - _WARM)
            if done > 0:
                exponent = _BLUNT + (_SHARP - _BLUNT) * (1 - done)
                between = 1 - (2 * up - 1).abs().pow(exponent)  # 0 for the pruned ones
                loss = loss + _WEIGHT * between.sum()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    codes = below + (_shares(logits.detach()) > 0.5).to(below.dtype)
    return torch.where(pruned, 0.0, codes)


def _shares(logits: torch.Tensor) -> torch.Tensor:
    return (torch.sigmoid(logits) * (_HIGH - _LOW) + _LOW).clamp(0.0, 1.0)
