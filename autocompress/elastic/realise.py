"""From the elastic model to a physically small, plain model."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import fx, nn

from autocompress.core.candidate import Candidate
from autocompress.elastic.layers import ElasticLayer, ElasticNorm
from autocompress.elastic.model import ElasticModel
from autocompress.graph.modules import put_module
from autocompress.graph.operations import part_layers, part_names


def realise(elastic: ElasticModel, candidate: Candidate) -> fx.GraphModule:
    """``candidate`` as a plain model in evaluation mode, with its own copy of the weights.

    Pruned channels, skipped blocks and other branches are gone; a low-rank layer is several layers
    ("<layer>.0", "<layer>.1" and so on). Nodes keep the names they have in the captured graph,
    which are also the names of the candidate's operations.

    Raises:
        RequestError: the candidate does not fit the model.
    """
    before = elastic.candidate
    try:
        elastic.select(candidate)  # what is written is compressed for good, not simulated
        with torch.no_grad():
            return _Writer(elastic).write()
    finally:
        elastic.configure(before)


class _Writer:
    def __init__(self, elastic: ElasticModel) -> None:
        self.elastic = elastic
        self.root = nn.Module()
        self.graph = fx.Graph()
        self.made: dict[str, fx.Node] = {}

    def write(self) -> fx.GraphModule:
        selection = self.elastic.selection

        def made(node: fx.Node) -> fx.Node:
            return self.made[selection.resolve(node.name)]

        for name in selection.nodes:
            node = self.elastic.graph.nodes[name]
            if node.op == "output":
                self.graph.output(made(node.all_input_nodes[0]))
            elif node.op == "call_module":
                self.made[name] = self._module(node, made(node.all_input_nodes[0]))
                self.made[name].meta["rank"] = node.meta.get("rank", 2)
            elif node.op == "get_attr":
                self.made[name] = self._tensor(node)
            elif node.op == "placeholder":
                self.made[name] = self.graph.placeholder(name)
                self.made[name].meta.update(node.meta)  # which of its axes are free
            else:
                copied = self.graph.node_copy(node, made)
                copied.args = fx.map_arg(selection.arguments(node), made)
                copied.name = name
                self.made[name] = copied
        model = fx.GraphModule(self.root, self.graph, class_name="CandidateModel")
        model.graph.lint()
        return model.eval()

    def _call(self, target: str, module: nn.Module, source: fx.Node, name: str) -> fx.Node:
        put_module(self.root, target, module)
        return self.graph.create_node("call_module", target, (source,), {}, name=name)

    def _module(self, node: fx.Node, source: fx.Node) -> fx.Node:
        target = str(node.target)
        module = self.elastic.weights.get_submodule(target)
        if isinstance(module, ElasticNorm):
            return self._call(target, module.realised(), source, node.name)
        if not isinstance(module, ElasticLayer):
            return self._call(target, copy.deepcopy(module), source, node.name)
        parts = [module.sliced()]
        layer = self.elastic.graph.layers.get(target)
        if layer is not None:
            policy = self.elastic.candidate.policy(target)
            for technique in self.elastic.techniques:
                parts = technique.realise(layer, policy, parts)
        names, layers = part_names(node.name, len(parts)), part_layers(target, len(parts))
        for part, name, place in zip(parts, names, layers, strict=True):
            source = self._call(place, part.as_module(), source, name)
        return source

    def _tensor(self, node: fx.Node) -> fx.Node:
        target = str(node.target)
        tensor: Any = getattr(self.elastic.weights, target)
        if not hasattr(self.root, target):
            if isinstance(tensor, nn.Parameter):
                self.root.register_parameter(target, nn.Parameter(tensor.detach().clone()))
            else:
                self.root.register_buffer(target, tensor.detach().clone())
        return self.graph.get_attr(target)
