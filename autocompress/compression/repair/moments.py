"""What enters each layer of a graph: means and second moments of its input patches."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from autocompress.errors import DataError
from autocompress.graph.layers import conv_pads

#: Patches looked at per layer and batch; convolutions have many that tell the same.
_PATCHES = 1 << 12


@dataclass(eq=False)
class InputMoments:
    """Moments of what a layer multiplies its weights with.

    A patch is what one output of one group reads, of length ``k = in / groups * kernel area``.

    Attributes:
        mean: shape ``(groups, k)``.
        second: uncentred second moments, shape ``(groups, k, k)``.
        count: patches seen.
    """

    mean: torch.Tensor
    second: torch.Tensor
    count: int


def patches(layer: nn.Conv2d | nn.Linear, x: torch.Tensor) -> torch.Tensor:
    """Patches of an input, shape ``(groups, n, k)``; evenly spread ones where there are many."""
    if isinstance(layer, nn.Linear):
        rows = x.reshape(1, -1, layer.in_features)
        return rows[:, :: -(-rows.shape[1] // _PATCHES)]
    images = max(1, _PATCHES // max(1, x.shape[-1] * x.shape[-2]) * 4)
    x = x[:: -(-x.shape[0] // images)]
    top, left, bottom, right = conv_pads(layer)
    x = functional.pad(x, (left, right, top, bottom))
    columns = functional.unfold(x, layer.kernel_size, layer.dilation, 0, layer.stride)
    batch, length, places = columns.shape
    columns = columns.reshape(batch, layer.groups, length // layer.groups, places)
    rows = columns.permute(1, 0, 3, 2).reshape(layer.groups, batch * places, -1)
    return rows[:, :: -(-rows.shape[1] // _PATCHES)]


def moments_of(layer: nn.Conv2d | nn.Linear, inputs: Iterable[torch.Tensor]) -> InputMoments:
    """Moments of a layer's inputs, given batch by batch.

    Args:
        layer: says what a patch is.
        inputs: at least one batch.
    """
    found: InputMoments | None = None
    for x in inputs:
        rows = patches(layer, x).double()
        count = rows.shape[1]
        mean, second = rows.mean(1), rows.transpose(1, 2) @ rows / count
        if found is None:
            found = InputMoments(mean, second, count)
            continue
        share = count / (found.count + count)
        found.mean += share * (mean - found.mean)
        found.second += share * (second - found.second)
        found.count += count
    if found is None:
        raise DataError("there are no calibration batches; give at least one")
    return found
