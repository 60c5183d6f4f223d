"""Inspect a model: capture it and say everything that is known about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import torch
from torch import fx, nn

from autocompress.errors import RequestError
from autocompress.graph.attention import free_heads
from autocompress.graph.attention_writing import HeadCore
from autocompress.graph.blocks import find_alternatives, find_blocks
from autocompress.graph.capture import fixed_length, free_axes, trace
from autocompress.graph.extents import extents
from autocompress.graph.groups import find_groups
from autocompress.graph.model_graph import Layer, ModelGraph, Skipped
from autocompress.graph.resizing import find_resizings
from autocompress.graph.watching import Watcher

#: aten operators that may hold weights without being a layer here, in words.
_NO_LAYERS = {
    "embedding": "embeddings whose table is computed", "embedding_bag": "bags of embeddings",
    "lstm": "recurrent layers",
    "gru": "recurrent layers", "rnn_tanh": "recurrent layers", "rnn_relu": "recurrent layers",
    "bilinear": "bilinear layers",
    **dict.fromkeys(("matmul", "mm", "bmm", "baddbmm", "einsum"), "products with free parameters"),
}  # fmt: skip


def inspect_model(model: nn.Module, example_inputs: Sequence[torch.Tensor]) -> ModelGraph:
    """Capture ``model`` and find its layers, channel groups, blocks and branches.

    Args:
        model: any module whose forward takes tensors and returns one tensor.
        example_inputs: one tensor per input, batch first.

    Raises:
        CaptureError: the model cannot be run or captured; names the user's line.
    """
    inputs = tuple(x.detach().cpu()[:1].clone() for x in example_inputs)
    module, cores, tied = _captured(model, example_inputs, inputs)
    shapes = node_shapes(module, inputs)
    layers, skipped = _layers(module, shapes)
    groups, unfollowed = find_groups(module, inputs, cores, shapes)
    alternatives = find_alternatives(module, model, shapes, layers)
    blocks = find_blocks(module, shapes, layers, alternatives)
    return ModelGraph(
        module=module,
        example_inputs=inputs,
        layers=layers,
        groups=groups,
        blocks=blocks,
        alternatives=alternatives,
        skipped=[*skipped, *tied, *unfollowed, *_sharing(model, layers)],
        resizings=find_resizings(module, model, shapes),
    )


def _captured(
    model: nn.Module, example_inputs: Sequence[torch.Tensor], inputs: Sequence[torch.Tensor]
) -> tuple[fx.GraphModule, list[HeadCore], list[Skipped]]:
    """The model's graph with free heads, where it can be exported also with a free length."""
    module = trace(model, example_inputs)
    reason = fixed_length(module)
    made, cores, skipped = free_heads(module, inputs)
    if any(1 in free_axes(n) for n in module.graph.nodes if n.op == "placeholder"):
        try:
            extents(made, inputs)
        except RequestError as error:
            reason = str(error)
            fixed = trace(model, example_inputs, free_lengths=False)
            made, cores, skipped = free_heads(fixed, inputs)
    if reason:
        text = f"rows keep the length of the example inputs: {reason}"
        skipped = [Skipped("(length of rows)", text), *skipped]
    return made, cores, skipped


def node_shapes(
    module: fx.GraphModule, inputs: Sequence[torch.Tensor]
) -> dict[str, tuple[int, ...]]:
    """The shape of every node's tensor for the given inputs."""
    shapes: dict[str, tuple[int, ...]] = {}

    def see(node: fx.Node, given: list[Any], value: Any) -> None:
        if isinstance(value, torch.Tensor):
            shapes[node.name] = tuple(value.shape)

    with torch.no_grad():
        Watcher(module, see).run(*inputs)
    return shapes


def _layers(
    module: fx.GraphModule, shapes: dict[str, tuple[int, ...]]
) -> tuple[dict[str, Layer], list[Skipped]]:
    calls = Counter(str(n.target) for n in module.graph.nodes if n.op == "call_module")
    norms = (isinstance(m, nn.modules.batchnorm._BatchNorm) for m in module.modules())
    normed = any(norms)  # which layer one is folded into depends on the blocks that are skipped
    layers: dict[str, Layer] = {}
    skipped: list[Skipped] = []
    for node in module.graph.nodes:
        if node.op == "call_function":
            skipped.extend(_left_alone(module, node))
            continue
        if node.op != "call_module":
            continue
        name = str(node.target)
        layer = _layer(name, module.get_submodule(name), shapes[node.name], calls[name])
        if layer is not None and name not in layers:
            entering = (1, *shapes[node.all_input_nodes[0].name][1:])
            layers[name] = replace(layer, normed=normed, input_shape=entering)
            if layer.calls > 1:
                skipped.append(
                    Skipped(name, f"called {layer.calls} times with shared weights: kept in float")
                )
    return layers, skipped


def _sharing(model: nn.Module, layers: Mapping[str, Layer]) -> list[Skipped]:
    """Layers that share a parameter with an earlier one in the model, but not in the graph."""
    owners: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owner = name.rpartition(".")[0]
        if owner in layers:
            owners.setdefault(id(parameter), []).append(owner)
    return [
        Skipped(
            owner,
            f"shares a parameter with {first} in the model; here these are two layers, each stored "
            "and compressed on its own",
        )
        for first, *others in owners.values()
        for owner in others
    ]


def _left_alone(module: fx.GraphModule, node: fx.Node) -> list[Skipped]:
    """Why a call with weights is no layer, if it is such a call."""
    base = str(node.target).removeprefix("aten.").partition(".")[0]
    if base in _NO_LAYERS and any(_is_parameter(module, n) for n in node.all_input_nodes):
        path = node.meta.get("module_path") or ("",)
        return [Skipped(path[-1] or node.name, f"{_NO_LAYERS[base]} are not compressed")]
    if not base.startswith(("conv", "linear", "addmm")):
        return []
    weight = node.args[1 if base != "addmm" else 2]
    if not isinstance(weight, fx.Node):
        return []
    if weight.op == "get_attr" and _is_constant(node.args[0]):
        reason = "it reads constants alone: it is computed when the model is loaded"
    elif weight.op != "get_attr":
        reason = "its weight is computed in the forward pass, not a plain parameter"
    elif base == "conv2d":
        reason = "its arguments have no plain layer (padding 'same' under an even kernel)"
    else:
        reason = f"layers of kind {base} are not compressed"
    path = node.meta.get("module_path") or ("",)
    return [Skipped(path[-1] or node.name, reason)]


def _is_constant(node: Any) -> bool:
    """Whether a node depends on no input."""
    open_, seen = [node], {node}
    while open_:
        argument = open_.pop()
        if argument.op == "placeholder":
            return False
        new = [n for n in argument.all_input_nodes if n not in seen]
        seen.update(new)
        open_.extend(new)
    return True


def _is_parameter(module: fx.GraphModule, node: fx.Node) -> bool:
    return node.op == "get_attr" and str(node.target) in dict(module.named_parameters())


def _layer(name: str, module: nn.Module, shape: tuple[int, ...], calls: int) -> Layer | None:
    output = (1, *shape[1:])
    parameters = sum(p.numel() for p in module.parameters(recurse=False))
    if isinstance(module, nn.Conv2d):
        return Layer(
            name, "conv", module.in_channels, module.out_channels,
            tuple(module.kernel_size), tuple(module.stride), module.groups,
            prod(output) * prod(module.weight.shape[1:]) * calls, parameters, output, calls,
        )  # fmt: skip
    if isinstance(module, nn.Linear):
        return Layer(
            name, "linear", module.in_features, module.out_features, (), (), 1,
            prod(output) * module.in_features * calls, parameters, output, calls,
        )  # fmt: skip
    if isinstance(module, nn.Embedding):
        return Layer(
            name, "embedding", module.num_embeddings, module.embedding_dim, (), (), 1,
            0, parameters, output, calls,
        )  # fmt: skip
    return None
