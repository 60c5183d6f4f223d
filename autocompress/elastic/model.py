"""The elastic model: shared weights that run as any candidate, and become any candidate."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import fx, nn

from autocompress.compression.base import Technique
from autocompress.compression.importance.ranking import magnitude_orders
from autocompress.core.candidate import Candidate
from autocompress.elastic.layers import ElasticLayer, ElasticNorm, Slice
from autocompress.errors import RequestError
from autocompress.graph.model_graph import ModelGraph
from autocompress.graph.modules import put_module
from autocompress.graph.pickling import without_graph
from autocompress.graph.running import run
from autocompress.graph.selection import Selection, select

_NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)


class ElasticModel(nn.Module):
    """One set of weights that runs as any candidate.

    Built from a captured model, whose weights are copied. Each channel group is sorted once by
    importance, so that narrowing a layer keeps its first channels; the sorted full model computes
    the same function as the captured one.

    Args:
        graph: the captured model, with only groups that can be narrowed left free (see
            :func:`autocompress.elastic.space.without_unusable_widths`).
        techniques: applied to each layer in ascending ``order``.
        orders: group name to its channels, the most important first (see
            :func:`autocompress.compression.importance.ranking.rank_channels`); None ranks them by
            squared weights.

    Attributes:
        layers: its convolutions, linear layers and embeddings, by name.
    """

    def __init__(
        self,
        graph: ModelGraph,
        techniques: Sequence[Technique] = (),
        *,
        orders: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        super().__init__()
        self.graph = graph
        self.techniques = sorted(techniques, key=lambda technique: technique.order)
        self.weights = without_graph(sort_channels(graph, orders))
        for name, module in list(self.weights.named_modules()):
            if isinstance(module, nn.Conv2d | nn.Linear | nn.Embedding):
                put_module(self.weights, name, ElasticLayer(module))
            elif isinstance(module, _NORMS):
                put_module(self.weights, name, ElasticNorm(module))
        self.layers = {
            name: module
            for name, module in self.weights.named_modules()
            if isinstance(module, ElasticLayer)
        }
        self._norms = {
            name: module
            for name, module in self.weights.named_modules()
            if isinstance(module, ElasticNorm)
        }
        self.candidate = Candidate()
        self.selection: Selection = select(graph, self.candidate)

    def configure(self, candidate: Candidate) -> ElasticModel:
        """Run as ``candidate`` from now on; copies no weights.

        Codebooks, and factors of layers whose weights or channels changed, are fitted anew.

        Raises:
            RequestError: the candidate does not fit the model.
        """
        self.select(candidate)
        for name, layer in self.layers.items():
            self._compress(name, layer, candidate)
        return self

    def select(self, candidate: Candidate) -> None:
        """Keep the channels, kernels and nodes that ``candidate`` keeps, none of them compressed.

        Raises:
            RequestError: the candidate does not fit the model.
        """
        selection = select(self.graph, candidate)
        kept_out = {n: torch.from_numpy(i) for n, i in selection.out_indices.items()}
        kept_in = {n: torch.from_numpy(i) for n, i in selection.in_indices.items()}
        for name, norm in self._norms.items():
            norm.kept = Slice(kept_out.get(name))
        for name, layer in self.layers.items():
            layer.reset()
            layer.out = Slice(kept_out.get(name))
            layer.into = Slice(kept_in.get(name))
            layer.kernel = selection.kernels.get(name)
        self.candidate = candidate
        self.selection = selection

    def at_step(self, number: int | None) -> None:
        """Say which step of a training goes on, so that what was fitted serves for a while.

        None says that no training goes on.
        """
        for layer in self.layers.values():
            layer.age = number

    def update_norms(self, on: bool) -> None:
        """Whether training moves the running statistics: on for the largest candidate only."""
        for norm in self._norms.values():
            norm.updates = on

    def _compress(self, name: str, layer: ElasticLayer, candidate: Candidate) -> None:
        known = self.graph.layers.get(name)
        if known is None:
            return
        policy = candidate.policy(name)
        with torch.no_grad():
            parts = [layer.sliced()]
        for technique in self.techniques:
            transform = technique.simulate(known, policy, parts)
            if transform is not None:
                layer.transforms.append(transform)
                with torch.no_grad():
                    parts = transform(parts)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """The configured candidate's output for a batch."""
        return run(self.graph, self.selection, self.weights, inputs)


def sort_channels(
    graph: ModelGraph, orders: Mapping[str, Sequence[int]] | None = None
) -> fx.GraphModule:
    """A copy of the captured model with every free channel group sorted by importance.

    Args:
        graph: the captured model.
        orders: group name to its channels, the most important first; None ranks by squared weights.

    Raises:
        RequestError: an order is no permutation of a free group's channels.
    """
    chosen = magnitude_orders(graph) if orders is None else orders
    for name, order in chosen.items():
        group = graph.groups.get(name)
        if group is None or group.rigid is not None:
            raise RequestError(f"there is an order for {name!r}, which is no group of free width")
        if not group.is_order(order):
            whole = f" that keeps heads of {group.unit} together" if group.unit > 1 else ""
            raise RequestError(
                f"the order of {name!r} is no permutation of its {group.channels} channels{whole}"
            )
    return reorder_channels(graph, {name: torch.tensor(order) for name, order in chosen.items()})


def reorder_channels(graph: ModelGraph, orders: Mapping[str, torch.Tensor]) -> fx.GraphModule:
    """A copy of the captured model with the channels of groups in another order.

    Args:
        graph: the captured model.
        orders: group name to a permutation of its channels, shape ``(channels,)``.
    """
    weights = copy.deepcopy(graph.module)
    for name, order in orders.items():
        for member in graph.groups[name].members:
            indices = torch.from_numpy(member.indices)
            module = weights.get_submodule(member.module)
            _permute(module, 1 if member.role == "in" else 0, indices, indices[order])
    return weights


def _permute(module: nn.Module, axis: int, places: torch.Tensor, source: torch.Tensor) -> None:
    """Move the channels at ``source`` to ``places``, along ``axis`` of the weight."""
    tensors = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    for name, tensor in tensors:
        if axis == 1 and name != "weight":
            continue
        if tensor.dim() <= axis or (axis == 1 and tensor.shape[1] == 1 < int(places.max()) + 1):
            continue
        order = torch.arange(tensor.shape[axis])
        order[places.ravel()] = source.ravel()
        with torch.no_grad():
            tensor.copy_(tensor.index_select(axis, order))
