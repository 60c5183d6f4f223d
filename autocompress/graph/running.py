"""Running what a candidate keeps of a captured graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx, nn

from autocompress.graph.model_graph import ModelGraph
from autocompress.graph.selection import Selection


def run(
    graph: ModelGraph, selection: Selection, root: nn.Module, inputs: Sequence[torch.Tensor]
) -> torch.Tensor:
    """The output of the nodes that are kept.

    Args:
        graph: the captured model.
        selection: which of its nodes run.
        root: holds the modules and tensors under the graph's names.
        inputs: one tensor per input of the model, batch first.
    """
    values: dict[str, Any] = {}
    remaining = iter(inputs)

    def value(node: fx.Node) -> Any:
        return values[selection.resolve(node.name)]

    for name in selection.nodes:
        node = graph.nodes[name]
        if node.op == "placeholder":
            values[name] = next(remaining)
        elif node.op == "get_attr":
            values[name] = _attribute(root, str(node.target))
        elif node.op == "call_module":
            values[name] = root.get_submodule(str(node.target))(value(node.all_input_nodes[0]))
        elif node.op == "call_function":
            arguments = fx.map_arg(selection.arguments(node), value)
            keywords = fx.map_arg(node.kwargs, value)
            values[name] = node.target(*arguments, **keywords)  # type: ignore[operator]
        else:
            return value(node.all_input_nodes[0])  # type: ignore[no-any-return]
    raise RuntimeError("the captured graph has no output")


def _attribute(root: nn.Module, target: str) -> Any:
    owner: Any = root
    for part in target.split("."):
        owner = getattr(owner, part)
    return owner
