"""What enters each layer of a graph: means and second moments of its input patches."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import fx, nn
from torch.nn import functional

from autocompress.compression.calibration import InputBatch, run_over, spread
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
    count: int = 0

    @classmethod
    def of(cls, rows: torch.Tensor) -> InputMoments:
        """Those of patches, shape ``(groups, n, k)``."""
        count = rows.shape[1]
        return cls(rows.mean(1), rows.transpose(1, 2) @ rows / count, count)

    def add(self, other: InputMoments) -> None:
        """Take other patches of the same layer in."""
        share = other.count / (self.count + other.count)
        self.mean += share * (other.mean - self.mean)
        self.second += share * (other.second - self.second)
        self.count += other.count


def input_moments(
    module: fx.GraphModule,
    layers: Collection[str],
    batches: Iterable[InputBatch],
    *,
    patches_each: int = _PATCHES,
    dtype: torch.dtype = torch.float64,
) -> dict[str, InputMoments]:
    """Moments of the named layers' inputs over the batches, by layer.

    Args:
        module: run as it is, without gradients, in evaluation mode.
        layers: targets of ``call_module`` nodes that are ``nn.Conv2d`` or ``nn.Linear``.
        batches: of inputs.
        patches_each: patches looked at per layer and batch, at the most.
        dtype: of the sums and of what is returned.
    """
    wanted = frozenset(layers)
    found: dict[str, InputMoments] = {}

    def see(node: fx.Node, inputs: list[Any], value: Any) -> None:
        name = str(node.target)
        if node.op != "call_module" or name not in wanted:
            return
        layer = cast("nn.Conv2d | nn.Linear", module.get_submodule(name))
        more = InputMoments.of(patches(layer, inputs[0], patches_each).to(dtype))
        if name in found:
            found[name].add(more)
        else:
            found[name] = more

    run_over(module, batches, see)
    return found


def moments_of(layer: nn.Conv2d | nn.Linear, inputs: Iterable[torch.Tensor]) -> InputMoments:
    """Moments of one layer's inputs, given batch by batch.

    Raises:
        DataError: there is no batch.
    """
    found: InputMoments | None = None
    for x in inputs:
        more = InputMoments.of(patches(layer, x).double())
        if found is None:
            found = more
        else:
            found.add(more)
    if found is None:
        raise DataError("there are no calibration batches; give at least one")
    return found


def patches(layer: nn.Conv2d | nn.Linear, x: torch.Tensor, most: int = _PATCHES) -> torch.Tensor:
    """Patches of an input, shape ``(groups, n, k)``; evenly spread ones where there are many."""
    if isinstance(layer, nn.Linear):
        rows = x.reshape(1, -1, layer.in_features)
        return spread(rows, most, x.shape[-2] if x.dim() > 2 else 1, axis=1)
    images = max(1, most // max(1, x.shape[-1] * x.shape[-2]) * 4)
    x = x[:: -(-x.shape[0] // images)]
    top, left, bottom, right = conv_pads(layer)
    x = functional.pad(x, (left, right, top, bottom))
    columns = functional.unfold(x, layer.kernel_size, layer.dilation, 0, layer.stride)
    batch, length, places = columns.shape
    columns = columns.reshape(batch, layer.groups, length // layer.groups, places)
    rows = columns.permute(1, 0, 3, 2).reshape(layer.groups, batch * places, -1)
    return spread(rows, most, places, axis=1)
