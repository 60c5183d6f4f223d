"""Channel groups: which channels can only be removed together.

The dependency analysis is torch-pruning's (Fang et al., DepGraph, CVPR 2023, arXiv:2301.12900).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import torch
import torch_pruning as tp
from torch import fx, nn

from autocompress.graph.attention_writing import HeadCore
from autocompress.graph.local_groups import local_groups
from autocompress.graph.model_graph import ChannelGroup, GroupMember, Role, Skipped
from autocompress.graph.movement import remove_unread

_BETWEEN = "(channel widths between blocks)"
#: Dimensions of a tensor that is cut into windows both ways. The analysis of such a one, MaxViT,
#: did not end, and took 20 GB of memory until it was stopped.
_WINDOWED = 6
_WINDOWS = "images are cut into windows, through which channels are not followed"
_LOCALLY = "they are from one layer to the next"


def find_groups(
    module: fx.GraphModule,
    example_inputs: Sequence[torch.Tensor],
    cores: Sequence[HeadCore] = (),
    shapes: Mapping[str, tuple[int, ...]] = MappingProxyType({}),
) -> tuple[dict[str, ChannelGroup], list[Skipped]]:
    """All channel groups of a normalised graph, and what could not be analysed.

    Groups that must keep their width are returned with the reason in ``rigid``. Where the analysis
    fails, or would not end, groups are those of :func:`.local_groups.local_groups`.

    Args:
        module: the graph.
        example_inputs: one tensor per input, batch first.
        cores: its attentions whose heads can be taken away.
        shapes: of every node's tensor, where they are known.
    """
    widths = {name: core.head_dim for core in cores for name in core.layers}
    module = _channel_by_channel(module, cores)
    if any(len(shape) >= _WINDOWED for shape in shapes.values()):
        return _locally(module, example_inputs, widths, _WINDOWS)
    names = {submodule: name for name, submodule in module.named_modules()}
    try:
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")
            graph = tp.DependencyGraph().build_dependency(module, tuple(example_inputs))
            coupled = list(graph.get_all_groups(root_module_types=[nn.Conv2d, nn.Linear]))
    except Exception as error:  # the analysis is a library's: whatever it raises, we go on
        reason = f"channel dependencies could not be analysed ({type(error).__name__}: {error})"
        return _locally(module, example_inputs, widths, reason)
    groups: dict[str, ChannelGroup] = {}
    skipped: list[Skipped] = []
    for raw in coupled:
        root = names.get(raw[0].dep.target.module)
        if root is None:
            continue
        try:
            group = _in_heads(_group(graph, raw, root, names), widths)
        except Exception as error:
            skipped.append(
                Skipped(
                    root, f"its channels could not be followed ({type(error).__name__}: {error})"
                )
            )
            continue
        groups[group.name] = group
        if group.rigid:
            skipped.append(Skipped(group.name, f"width kept: {group.rigid}"))
    return groups, skipped


def _locally(
    module: fx.GraphModule,
    example_inputs: Sequence[torch.Tensor],
    widths: Mapping[str, int],
    reason: str,
) -> tuple[dict[str, ChannelGroup], list[Skipped]]:
    """What can be followed without the analysis of the whole model, which fails for a reason."""
    found = local_groups(module, example_inputs)
    groups = {name: _in_heads(group, widths) for name, group in found.items()}
    rigid = [Skipped(g.name, f"width kept: {g.rigid}") for g in groups.values() if g.rigid]
    return groups, [Skipped(_BETWEEN, f"{reason}; {_LOCALLY}"), *rigid]


def _channel_by_channel(module: fx.GraphModule, cores: Sequence[HeadCore]) -> fx.GraphModule:
    """A graph that shares the layers, with additions in place of attentions.

    Both couple queries, keys, values and results in the same way, channel by channel; an addition
    has no shapes with numbers of heads, which the analysis cannot follow.
    """
    if not cores:
        return module
    graph = fx.Graph()
    made: dict[fx.Node, fx.Node] = {}
    graph.output(graph.graph_copy(module.graph, made))
    nodes = {old.name: new for old, new in made.items()}
    for core in cores:
        output = nodes[core.output]
        with graph.inserting_before(output):
            total = graph.call_function(
                torch.ops.aten.add.Tensor, (nodes[core.key], nodes[core.value])
            )
            if core.lengths_differ:
                total = graph.call_function(torch.ops.aten.mean.dim, (total, [1], True))
            total = graph.call_function(torch.ops.aten.add.Tensor, (nodes[core.query], total))
        output.replace_all_uses_with(total)
    remove_unread(graph)
    return fx.GraphModule(module, graph)


def _in_heads(group: ChannelGroup, widths: Mapping[str, int]) -> ChannelGroup:
    """The group with the width of its heads, if it has heads.

    Args:
        group: found channel by channel.
        widths: of a head, by the layers that project heads.
    """
    found = {widths[name] for name in group.producers if name in widths}
    if not found:
        return group
    heads = [m for m in group.members if m.role == "out"]
    straight = np.arange(group.channels)[:, None]
    if len(found) > 1 or not all(np.array_equal(m.indices, straight) for m in heads):
        reason = "its heads do not lie one after the other in all that has its channels"
        return replace(group, rigid=group.rigid or reason)
    return replace(group, unit=found.pop())


def _group(
    graph: tp.DependencyGraph, raw: tp.Group, root: str, names: Mapping[nn.Module, str]
) -> ChannelGroup:
    first = raw[0].dep
    channels = graph.get_out_channels(first.target.module)
    whole = graph.get_pruning_group(first.target.module, first.handler, idxs=list(range(channels)))
    pairs: dict[tuple[str, Role], set[tuple[int, int]]] = {}
    rigid: str | None = None
    for item in whole:
        module = item.dep.target.module
        name = names.get(module)
        if name is None:
            if isinstance(module, nn.Parameter):
                rigid = rigid or "a free parameter of the model has this many channels"
            continue
        role = _role(module, item.dep.handler.__name__)
        if isinstance(module, nn.Conv2d) and 1 < module.groups != module.out_channels:
            rigid = rigid or f"{name} is a grouped convolution"
        if isinstance(module, nn.Embedding):
            rigid = rigid or f"its table {name} is looked up whole: embeddings keep their width"
        if isinstance(module, nn.GroupNorm):
            rigid = rigid or f"{name} normalises over groups of channels"
        found = pairs.setdefault((name, role), set())
        found.update(zip(item.root_idxs, item.idxs, strict=True))
    members: dict[tuple[str, Role], GroupMember] = {}
    modules = {name: module for module, name in names.items()}
    for (name, role), found in pairs.items():
        indices = _indices(found, channels, _extent(modules[name], role))
        if indices is None:
            rigid = rigid or f"its channels reach {name} in an irregular order"
            continue
        members[name, role] = GroupMember(name, role, indices)
    if not any(m.role == "in" for m in members.values()):
        rigid = rigid or "it is the model's output"
    return ChannelGroup(_first(members, names, root), channels, tuple(members.values()), rigid)


def _first(
    members: Mapping[tuple[str, Role], GroupMember], names: Mapping[nn.Module, str], root: str
) -> str:
    """The group's name: its first producer, in the model's order, that mixes channels."""
    modules = {name: module for module, name in names.items()}
    producers = [name for name in modules if (name, "out") in members]
    mixing = [name for name in producers if getattr(modules[name], "groups", 1) == 1]
    return (mixing or producers or [root])[0]


def _role(module: nn.Module, handler: str) -> Role:
    if isinstance(module, nn.modules.batchnorm._BatchNorm | nn.LayerNorm | nn.GroupNorm):
        return "norm"
    return "in" if "in_channels" in handler else "out"


def _extent(module: nn.Module, role: Role) -> int:
    """How many channels of that role the module has."""
    own = ("in_channels", "in_features") if role == "in" else ("out_channels", "out_features")
    for attribute in (*own, "embedding_dim", "num_features", "num_channels", "normalized_shape"):
        value = getattr(module, attribute, None)
        if value is not None:
            return int(value[-1] if isinstance(value, tuple) else value)
    raise TypeError(f"{type(module).__name__} has no channels")


def _indices(
    pairs: Iterable[tuple[int, int]], channels: int, extent: int
) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]] | None:
    """Target indices per root channel, shape ``(channels, multiplicity)``; None when uneven."""
    by_root: list[list[int]] = [[] for _ in range(channels)]
    for root, target in sorted(pairs):
        if not 0 <= target < extent:
            return None
        by_root[root].append(target)
    lengths = {len(found) for found in by_root}
    if len(lengths) != 1 or not by_root[0]:
        return None
    return np.array(by_root, dtype=np.int64)
