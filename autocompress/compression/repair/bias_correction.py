"""Biases that take the mean error of rounded weights back.

``b + (W - W') E[x]`` for each output (Nagel et al. 2019, arXiv:1906.04721, with measured means).
"""

from __future__ import annotations

import torch
from torch import nn

from autocompress.compression.repair.moments import InputMoments
from autocompress.compression.stored_layers import StoredLayer


@torch.no_grad()
def correct_bias(
    layer: nn.Conv2d | nn.Linear, original: torch.Tensor, moments: InputMoments
) -> None:
    """Correct a stored layer's bias in place; a layer without one is left alone.

    Args:
        layer: the layer, with its rounded weight.
        original: the weight it had, same shape.
        moments: of its inputs.
    """
    if not isinstance(layer, StoredLayer) or layer.bias is None:
        return
    groups = moments.mean.shape[0]
    lost = (original - layer.stored_weight(None)).double()
    rows = lost.reshape(groups, lost.shape[0] // groups, -1)
    shift = torch.einsum("gok,gk->go", rows, moments.mean).flatten()
    layer.bias.add_(shift.to(layer.bias.dtype))
