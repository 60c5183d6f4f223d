"""Biases that take the mean error of a layer's outputs back.

``b + E[y] - E[y']`` for each output, where ``y`` is the output in floats and ``y'`` what the layer
gives in the quantised graph, errors of earlier layers included (Nagel et al. 2019,
arXiv:1906.04721, section 4.2.1, with measured means).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import fx, nn

from autocompress.compression.calibration import InputBatch, run_over


@torch.no_grad()
def correct_bias(
    layer: nn.Conv2d | nn.Linear, wanted: torch.Tensor, inputs: Iterable[torch.Tensor]
) -> None:
    """Correct a stored layer's bias in place; a layer without one is left alone.

    Args:
        layer: the layer, with its rounded weight.
        wanted: mean of each output channel in floats, shape ``(out,)``, on the same examples.
        inputs: what the layer reads in the quantised graph, one tensor a batch.
    """
    if layer.bias is None:
        return
    given = _Mean()
    for x in inputs:
        given.add(layer, layer(x))
    layer.bias.add_((wanted - given.value).to(layer.bias.dtype))


def output_means(
    module: fx.GraphModule, layers: Collection[str], batches: Iterable[InputBatch]
) -> dict[str, torch.Tensor]:
    """Mean of each output channel of the named layers, shape ``(out,)``, float64, by layer.

    Args:
        module: run as it is, without gradients, in evaluation mode.
        layers: targets of ``call_module`` nodes that are ``nn.Conv2d`` or ``nn.Linear``.
        batches: of inputs.
    """
    means = {name: _Mean() for name in layers}

    def see(node: fx.Node, inputs: list[Any], value: Any) -> None:
        name = str(node.target)
        if node.op == "call_module" and name in means:
            means[name].add(module.get_submodule(name), value)

    run_over(module, batches, see)
    return {name: mean.value for name, mean in means.items() if mean.count}


class _Mean:
    """Mean of each output channel over examples and places."""

    def __init__(self) -> None:
        self.total: torch.Tensor | float = 0.0
        self.count = 0

    def add(self, layer: nn.Module, output: torch.Tensor) -> None:
        rows = output.transpose(1, -1) if isinstance(layer, nn.Conv2d) else output
        rows = rows.detach().reshape(-1, rows.shape[-1])
        self.total = self.total + rows.sum(0, dtype=torch.float64)
        self.count += len(rows)

    @property
    def value(self) -> torch.Tensor:
        return torch.as_tensor(self.total) / self.count
