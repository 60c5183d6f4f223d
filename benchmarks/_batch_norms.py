"""Batch norms put back behind folded convolutions, so that an exported model trains as before."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import fx, nn

from autocompress.graph.modules import put_module


def with_batch_norms(module: fx.GraphModule, batches: Iterable[torch.Tensor]) -> fx.GraphModule:
    """A copy with a batch norm behind every convolution that changes nothing in evaluation mode.

    Its statistics are those of the batches, and its scale and shift undo them. The first of two
    convolutions in a row, as of a layer in factors, gets none.

    Args:
        module: batch norms folded, in evaluation mode.
        batches: inputs as in training, shape ``(n, channels, height, width)`` each.
    """
    copied = copy.deepcopy(module)
    names = {str(n.target) for n in copied.graph.nodes if _is_last_convolution(copied, n)}
    for name, (mean, variance) in _moments(copied, names, batches).items():
        convolution = copied.get_submodule(name)
        put_module(copied, name, nn.Sequential(convolution, _unchanging(mean, variance)))
    return copied.eval()


def _is_last_convolution(module: fx.GraphModule, node: fx.Node) -> bool:
    return _is_convolution(module, node) and not any(
        _is_convolution(module, user) for user in node.users
    )


def _is_convolution(module: fx.GraphModule, node: fx.Node) -> bool:
    return node.op == "call_module" and isinstance(
        module.get_submodule(str(node.target)), nn.Conv2d
    )


def _moments(
    module: fx.GraphModule, names: Iterable[str], batches: Iterable[torch.Tensor]
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Mean and variance of each channel that the named convolutions give."""
    sums: dict[str, list[torch.Tensor]] = {name: [] for name in names}

    def watch(name: str) -> Any:
        def hook(_: nn.Module, __: Any, given: torch.Tensor) -> None:
            rows = given.double().transpose(0, 1).flatten(1)
            count = torch.full((len(rows),), float(rows.shape[1]), dtype=torch.float64)
            sums[name].append(torch.stack([count, rows.sum(1), rows.square().sum(1)]))

        return module.get_submodule(name).register_forward_hook(hook)

    hooks = [watch(name) for name in sums]
    try:
        with torch.no_grad():
            for inputs in batches:
                module(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    found = {}
    for name, parts in sums.items():
        count, total, squares = torch.stack(parts).sum(0)
        mean = total / count
        found[name] = (mean.float(), (squares / count - mean.square()).clamp_min(0.0).float())
    return found


def _unchanging(mean: torch.Tensor, variance: torch.Tensor) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(len(mean))
    with torch.no_grad():
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.copy_(mean)
        norm.running_mean = mean.clone()
        norm.running_var = variance.clone()
    return norm
