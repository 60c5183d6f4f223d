"""Attention calls whose masks may leave a row nothing to look at, written out.

Torch gives zeros for such a row; ONNX has no operator that does, and translations of the one call
give an average of everything or no number at all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from autocompress.graph.attention_form import Facts, may_hide_all
from autocompress.graph.movement import base_name

_aten = torch.ops.aten


def written_out(module: fx.GraphModule, facts: Facts) -> fx.GraphModule | None:
    """``module`` with ``softmax(q k^T * scale + mask) v`` in place of such calls; None without any.

    Weights of what a mask hides are set to zero behind the softmax, too, which changes nothing but
    rows that are hidden wholly. The new graph shares all layers.

    Args:
        module: a captured graph; left as it is.
        facts: of the graph, or of one with the same nodes around its attentions.
    """
    graph = fx.Graph()
    made: dict[fx.Node, fx.Node] = {}
    graph.output(graph.graph_copy(module.graph, made))
    found = False
    for old, node in made.items():
        given = _guardable(old, facts)
        if given is None:
            continue
        with graph.inserting_before(node):
            arguments = {key: made[v] if isinstance(v, fx.Node) else v for key, v in given.items()}
            boolean = given["attn_mask"].name in facts.booleans
            width = facts.shapes[given["query"].name][-1]
            node.replace_all_uses_with(_explicit(graph, node, arguments, boolean, width))
        graph.erase_node(node)
        found = True
    if not found:
        return None
    graph.lint()
    return fx.GraphModule(module, graph, class_name="CapturedModel").eval()


def _guardable(node: fx.Node, facts: Facts) -> Mapping[str, Any] | None:
    """The arguments of a call that needs it and can have it."""
    if node.op != "call_function" or base_name(node) != "scaled_dot_product_attention":
        return None
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    given: dict[str, Any] = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    mask = given.get("attn_mask")
    if any(given.get(name) for name in ("dropout_p", "is_causal", "enable_gqa")):
        return None
    return given if isinstance(mask, fx.Node) and may_hide_all(mask, facts) else None


def _explicit(
    graph: fx.Graph, node: fx.Node, given: Mapping[str, Any], boolean: bool, width: int
) -> fx.Node:
    def call(target: Any, *arguments: Any) -> fx.Node:
        made = graph.call_function(target, arguments)
        made.meta = dict(node.meta)
        return made

    scale = given.get("scale")
    query = call(_aten.mul.Tensor, given["query"], width**-0.5 if scale is None else float(scale))
    key, mask = call(_aten.transpose.int, given["key"], -2, -1), given["attn_mask"]
    scores = call(_aten.matmul.default, query, key)
    if boolean:
        hidden = call(_aten.logical_not.default, mask)
        scores = call(_aten.masked_fill.Scalar, scores, hidden, -math.inf)
    else:
        hidden = call(_aten.eq.Scalar, mask, -math.inf)
        scores = call(_aten.add.Tensor, scores, mask)
    weights = call(_aten.softmax.int, scores, -1)
    weights = call(_aten.masked_fill.Scalar, weights, hidden, 0.0)
    return call(_aten.matmul.default, weights, given["value"])
