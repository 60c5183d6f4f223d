"""Residual blocks that can be skipped, and branches of which one is kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from torch import fx, nn

from autocompress.graph.alternatives import OneOf
from autocompress.graph.model_graph import Alternatives, Block

#: Operators that keep an identity path alive between a block's input and its output.
_IDENTITY_OPS = frozenset(
    f"aten.{name}"
    for name in (
        "add.Tensor", "relu.default", "hardtanh.default", "relu6.default", "gelu.default",
        "silu.default", "hardswish.default", "contiguous.default", "clone.default",
    )
)  # fmt: skip


def find_blocks(
    module: fx.GraphModule,
    shapes: Mapping[str, tuple[int, ...]],
    layers: Iterable[str],
    alternatives: Collection[str] = (),
) -> list[Block]:
    """Innermost modules with a residual path from their one input of the output's shape.

    Args:
        module: the captured graph.
        shapes: of every node's tensor.
        layers: names of the layers.
        alternatives: names of the choices between branches, which are no blocks although they sum
            their branches, one of which may be the input itself.
    """
    inside = _nodes_by_module(module)
    known = set(layers)
    found: dict[str, Block] = {}
    for path, nodes in inside.items():
        block = None if path in alternatives else _as_block(path, nodes, shapes, known)
        if block is not None:
            found[path] = block
    innermost = [
        block
        for path, block in found.items()
        if not any(other.startswith(path + ".") for other in found)
    ]
    order = {node.name: i for i, node in enumerate(module.graph.nodes)}
    return _with_stages(sorted(innermost, key=lambda block: order[block.output]))


def _with_stages(blocks: list[Block]) -> list[Block]:
    """Blocks that follow each other directly in one module form a stage, dropped last first.

    It is named after that module, or after its first block where the module has other runs of
    blocks, or is the model itself.
    """
    runs: list[list[Block]] = []
    for block in blocks:
        previous = runs[-1][-1] if runs else None
        if previous and previous.stage == block.stage and previous.output == block.input:
            runs[-1].append(block)
        else:
            runs.append([block])
    uses = Counter(run[0].stage for run in runs)
    return [
        replace(block, stage=block.stage if block.stage and uses[block.stage] == 1 else run[0].name)
        for run in runs
        for block in run
    ]


def find_alternatives(
    module: fx.GraphModule,
    model: nn.Module,
    shapes: Mapping[str, tuple[int, ...]],
    layers: Iterable[str],
) -> dict[str, Alternatives]:
    """Every :class:`OneOf` of the model, located in the graph.

    A branch that leaves nothing in the graph, such as ``nn.Identity()``, is the choice's input.
    """
    inside = _nodes_by_module(module)
    known = set(layers)
    found: dict[str, Alternatives] = {}
    for path, submodule in model.named_modules():
        if not isinstance(submodule, OneOf) or path not in inside:
            continue
        branches = {
            option: inside.get(f"{path}.branches.{option}", []) for option in submodule.branches
        }
        ends = {
            option: (_outputs(nodes) or _inputs(inside[path], shapes))[0].name
            for option, nodes in branches.items()
        }
        found[path] = Alternatives(
            name=path,
            output=_outputs(inside[path])[0].name,
            branches=ends,
            layers={option: _layers(nodes, known) for option, nodes in branches.items()},
        )
    return found


def _nodes_by_module(module: fx.GraphModule) -> dict[str, list[fx.Node]]:
    inside: dict[str, list[fx.Node]] = {}
    for node in module.graph.nodes:
        for path in node.meta.get("module_path", ()):
            if path:
                inside.setdefault(path, []).append(node)
    return inside


def _inputs(nodes: list[fx.Node], shapes: Mapping[str, tuple[int, ...]]) -> list[fx.Node]:
    """The activations that enter; parameters and sizes do not count."""
    own = set(nodes)
    outside: dict[fx.Node, None] = {}
    for node in nodes:
        for argument in node.all_input_nodes:
            if argument not in own and argument.op != "get_attr" and argument.name in shapes:
                outside[argument] = None
    return list(outside)


def _outputs(nodes: list[fx.Node]) -> list[fx.Node]:
    own = set(nodes)
    return [node for node in nodes if any(user not in own for user in node.users)]


def _layers(nodes: list[fx.Node], known: set[str]) -> tuple[str, ...]:
    return tuple(str(n.target) for n in nodes if n.op == "call_module" and str(n.target) in known)


def _as_block(
    path: str, nodes: list[fx.Node], shapes: Mapping[str, tuple[int, ...]], known: set[str]
) -> Block | None:
    inputs, outputs = _inputs(nodes, shapes), _outputs(nodes)
    layers = _layers(nodes, known)
    if len(outputs) != 1 or not layers:
        return None
    end = outputs[0]
    alike = [n for n in inputs if shapes[n.name] == shapes.get(end.name)]
    entries = [n for n in alike if _has_identity_path(n, end, set(nodes))]
    # what else enters, such as a mask, has a shape of its own and is not read without the block
    if len(alike) != 1 or len(entries) != 1:
        return None
    entry = entries[0]
    return Block(path, path.rpartition(".")[0], entry.name, end.name, layers)


def _target(node: fx.Node) -> nn.Module | None:
    owner = node.graph.owning_module
    return owner.get_submodule(str(node.target)) if owner is not None else None


def _has_identity_path(entry: fx.Node, end: fx.Node, own: set[fx.Node]) -> bool:
    """Whether the input reaches the output untouched by layers, through an addition."""
    stack: list[tuple[fx.Node, bool]] = [(end, False)]
    while stack:
        node, added = stack.pop()
        if node is entry:
            if added:
                return True
            continue
        dropout = node.op == "call_module" and isinstance(_target(node), nn.Dropout)
        if node not in own or not (dropout or str(node.target) in _IDENTITY_OPS):
            continue
        added = added or str(node.target) == "aten.add.Tensor"
        stack.extend((argument, added) for argument in node.all_input_nodes)
    return False
