"""Biases that take the mean error of a layer's outputs back.

``b + E[y] - E[y']`` for each output, where ``y`` is the output in floats and ``y'`` what the layer
gives in the quantised graph, errors of earlier layers included (Nagel et al. 2019,
arXiv:1906.04721, section 4.2.1, with measured means).
"""

from __future__ import annotations

from collections import defaultdict
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
    watcher = _Means(module, layers)
    run_over(watcher, module, batches)
    return {name: mean.value for name, mean in watcher.means.items()}


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


class _Means(fx.Interpreter):
    def __init__(self, module: fx.GraphModule, layers: Collection[str]) -> None:
        super().__init__(module)
        self.layers = frozenset(layers)
        self.means: dict[str, _Mean] = defaultdict(_Mean)

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        value = super().call_module(target, args, kwargs)
        if target in self.layers:
            self.means[target].add(self.fetch_attr(target), value)
        return value
