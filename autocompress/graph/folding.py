"""Fold batch norm into the layer before it."""

from __future__ import annotations

from collections import Counter

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights


def fold_batch_norm(model: fx.GraphModule) -> fx.GraphModule:
    """``model``, changed in place: each batch norm right after a layer is folded into it.

    The layer's node keeps its name. A batch norm whose layer has other readers or is called more
    than once is left alone, as is one that does not follow a layer, or follows a linear layer over
    sequences, whose channels come last.

    Args:
        model: in evaluation mode; layers are ``call_module`` nodes.
    """
    calls = Counter(str(node.target) for node in model.graph.nodes if node.op == "call_module")
    for node in list(model.graph.nodes):
        norm = _module(model, node)
        if not isinstance(norm, nn.modules.batchnorm._BatchNorm):
            continue
        source = node.args[0]
        if not isinstance(source, fx.Node) or len(source.users) != 1:
            continue
        layer = _module(model, source)
        if isinstance(layer, nn.Linear) and source.meta.get("rank", 2) != 2:
            continue
        if isinstance(layer, nn.Conv2d | nn.Linear) and calls[str(source.target)] == 1:
            _fuse(layer, norm)
            node.replace_all_uses_with(source)
            model.graph.erase_node(node)
    model.graph.lint()
    model.delete_all_unused_submodules()
    model.recompile()
    return model


def _module(model: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    return model.get_submodule(str(node.target)) if node.op == "call_module" else None


def _fuse(layer: nn.Conv2d | nn.Linear, norm: nn.modules.batchnorm._BatchNorm) -> None:
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("a batch norm without running statistics cannot be folded")
    fuse = fuse_conv_bn_weights if isinstance(layer, nn.Conv2d) else fuse_linear_bn_weights
    with torch.no_grad():
        weight, bias = fuse(
            layer.weight, layer.bias, norm.running_mean, norm.running_var, norm.eps,
            norm.weight, norm.bias,
        )  # fmt: skip
    layer.weight = nn.Parameter(weight.detach().clone())
    layer.bias = nn.Parameter(bias.detach().clone())
