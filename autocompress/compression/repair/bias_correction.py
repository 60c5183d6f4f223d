"""Biases that take the mean error of a layer's outputs back.

``b + E[y] - E[W' x']`` for each output, where ``y`` is the output in floats and ``x'`` the input
that the layer has in the quantised graph, errors of earlier layers included (Nagel et al. 2019,
arXiv:1906.04721, section 4.2.1, with measured means).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import fx, nn

from autocompress.compression.calibration import InputBatch, run_over
from autocompress.compression.repair.moments import InputMoments
from autocompress.compression.stored_layers import StoredLayer


@torch.no_grad()
def correct_bias(layer: nn.Conv2d | nn.Linear, wanted: torch.Tensor, moments: InputMoments) -> None:
    """Correct a stored layer's bias in place; a layer without one is left alone.

    Args:
        layer: the layer, with its rounded weight.
        wanted: mean of each output channel in floats, shape ``(out,)``.
        moments: of its inputs in the quantised graph.
    """
    if not isinstance(layer, StoredLayer) or layer.bias is None:
        return
    weight = layer.stored_weight(None).double()
    groups = moments.mean.shape[0]
    rows = weight.reshape(groups, weight.shape[0] // groups, -1)
    given = torch.einsum("gok,gk->go", rows, moments.mean).flatten()
    layer.bias.copy_((wanted - given).to(layer.bias.dtype))


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
    return {name: total / watcher.counts[name] for name, total in watcher.totals.items()}


class _Means(fx.Interpreter):
    def __init__(self, module: fx.GraphModule, layers: Collection[str]) -> None:
        super().__init__(module)
        self.layers = frozenset(layers)
        self.totals: dict[str, torch.Tensor] = {}
        self.counts: dict[str, int] = {}

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        value = super().call_module(target, args, kwargs)
        if target in self.layers:
            is_conv = isinstance(self.fetch_attr(target), nn.Conv2d)
            rows = (value.transpose(1, -1) if is_conv else value).detach().double()
            rows = rows.reshape(-1, rows.shape[-1])
            self.totals[target] = self.totals.get(target, 0.0) + rows.sum(0)
            self.counts[target] = self.counts.get(target, 0) + len(rows)
        return value
