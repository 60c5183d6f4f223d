"""Where a channel's scale can move from one layer into the next without changing the function.

``relu(x / s) = relu(x) / s`` for ``s > 0``: what a layer (or a layer norm) gives less in a channel,
the layers that read it make up for (Nagel et al. 2019, arXiv:1906.04721; Xiao et al. 2023,
SmoothQuant, arXiv:2211.10438).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import fx, nn

from autocompress.graph.ops import LAYER_KINDS, Op

#: Operations between two layers that a positive factor of a channel passes through.
_HOMOGENEOUS = frozenset(
    {"relu", "leaky_relu", "max_pool", "avg_pool", "global_avg_pool", "dropout", "identity"}
)


@dataclass(frozen=True, slots=True)
class ScalePair:
    """A layer and those that read its channels, and nothing else does.

    Attributes:
        source: module name of the layer, or layer norm, that gives the channels.
        readers: module names of the layers that read them.
        tensor: node whose values they read.
        area: positions of a channel that a reader takes as inputs of their own (behind a flatten).
    """

    source: str
    readers: tuple[str, ...]
    tensor: str
    area: int = 1


def scale_pairs(module: fx.GraphModule, ops: Sequence[Op]) -> list[ScalePair]:
    """All of a realised graph, batch norm folded, in order of execution.

    Args:
        module: layers are ``call_module`` nodes.
        ops: its operations; names equal the graph's nodes.
    """
    nodes = {node.name: node for node in module.graph.nodes}
    calls = Counter(str(n.target) for n in module.graph.nodes if n.op == "call_module")
    readers: dict[str, list[Op]] = defaultdict(list)
    for op in ops:
        for name in op.inputs:
            readers[name].append(op)
    found = []
    for op in ops:
        if op.kind not in LAYER_KINDS and op.kind != "layer_norm":
            continue
        target = str(nodes[op.name].target)
        pair = _follow(op, target, readers, nodes)
        if pair is not None and all(calls[name] == 1 for name in (pair.source, *pair.readers)):
            found.append(pair)
    return found


@torch.no_grad()
def move_scale(module: fx.GraphModule, pair: ScalePair, scale: torch.Tensor) -> None:
    """Divide the source's channels by ``scale``, shape ``(channels,)``, positive; in place."""
    source = module.get_submodule(pair.source)
    for name in ("weight", "bias"):
        values = getattr(source, name, None)
        if isinstance(values, torch.Tensor):
            values.div_(scale.reshape(-1, *([1] * (values.dim() - 1))))
    for columns in read_columns(module, pair):
        columns.mul_(scale.reshape(1, -1, *([1] * (columns.dim() - 2))))


def read_columns(module: fx.GraphModule, pair: ScalePair) -> list[torch.Tensor]:
    """Views of the readers' weights, channels second: ``(out, channels, ...)`` each.

    A depthwise reader's has ``out`` of 1.
    """
    found = []
    for name in pair.readers:
        reader = module.get_submodule(name)
        weight = cast(torch.Tensor, reader.weight).detach()
        if isinstance(reader, nn.Linear):
            found.append(weight.view(len(weight), -1, pair.area))
        else:
            found.append(weight.transpose(0, 1) if cast(int, reader.groups) > 1 else weight)
    return found


def _follow(
    op: Op, target: str, readers: dict[str, list[Op]], nodes: dict[str, fx.Node]
) -> ScalePair | None:
    """The pair that starts at a layer; None where its channels go elsewhere, too."""
    channels = op.shape[-1] if op.kind != "conv" else op.shape[1]
    name, area, last = op.name, 1, op
    while True:
        following = readers[name]
        if following and all(_reads(r, channels, area) for r in following):
            found = tuple(str(nodes[r.name].target) for r in following)
            return ScalePair(target, found, name, area) if len(set(found)) == len(found) else None
        if len(following) != 1 or op.kind == "layer_norm":
            return None
        (step,) = following
        if step.kind == "flatten" and len(last.shape) == 4 and len(step.shape) == 2:
            area *= last.shape[2] * last.shape[3]
        elif step.kind not in _HOMOGENEOUS:
            return None
        name, last = step.name, step


def _reads(op: Op, channels: int, area: int) -> bool:
    """Whether it is a layer whose weights have a column, or a row of their own, a channel."""
    if op.kind == "linear":
        return op.weight_shape[1] == channels * area
    if op.kind != "conv" or area != 1:
        return False
    groups = int(str(op.attribute("groups", 1)))
    if groups > 1 and op.weight_shape[0] != channels:
        return False  # several outputs a channel
    return groups in (1, channels) and op.weight_shape[1] * groups == channels
