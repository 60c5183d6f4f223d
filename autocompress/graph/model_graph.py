"""What is known of a model after capture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import fx, nn

from autocompress.core.candidate import Candidate
from autocompress.graph.ops import Op
from autocompress.graph.pickling import from_plain, to_plain
from autocompress.graph.shapes import ShapeMemory

Role = Literal["out", "in", "norm"]


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer with weights that can be compressed.

    Attributes:
        name: the user's qualified name.
        kind: "conv", "linear" or "embedding".
        in_channels: input channels or features; rows of an embedding's table.
        out_channels: output channels or features.
        kernel: spatial kernel, empty without one.
        stride: spatial stride, empty without one.
        groups: convolution groups.
        macs: multiply-accumulates for one sample.
        parameters: weights and biases.
        output_shape: with batch 1.
        calls: how often the layer is called in one forward pass.
        normed: whether the model has batch norms, one of which may be folded into it.
        input_shape: with batch 1; of the first call.
    """

    name: str
    kind: str
    in_channels: int
    out_channels: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    groups: int
    macs: int
    parameters: int
    output_shape: tuple[int, ...]
    calls: int = 1
    normed: bool = False
    input_shape: tuple[int, ...] = ()

    @property
    def is_depthwise(self) -> bool:
        """Whether each input channel is convolved on its own."""
        return self.groups > 1 and self.groups == self.in_channels == self.out_channels

    @property
    def is_grouped(self) -> bool:
        """Whether it has groups without being depthwise."""
        return self.groups > 1 and not self.is_depthwise


@dataclass(frozen=True, slots=True)
class GroupMember:
    """How a module takes part in a channel group.

    Attributes:
        module: the module's qualified name.
        role: "out" (it produces the channels), "in" (it reads them) or "norm" (per channel).
        indices: for each channel of the group, the module's own indices; shape
            ``(channels, multiplicity)``.
    """

    module: str
    role: Role
    indices: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ChannelGroup:
    """Channels that can only be removed together.

    Attributes:
        name: the qualified name of the first producing layer.
        channels: how many there are.
        members: every module that has to follow.
        rigid: why it cannot be narrowed, or None.
        unit: how many neighbouring channels can only go together, such as those of an attention
            head; its width is a multiple of it.
    """

    name: str
    channels: int
    members: tuple[GroupMember, ...]
    rigid: str | None = None
    unit: int = 1

    @property
    def units(self) -> int:
        """How many pieces there are that can go one by one: channels, or heads."""
        return self.channels // self.unit

    def width_near(self, channels: float) -> int:
        """The width that it can have and that is nearest, of at least one unit."""
        return min(self.units, max(1, round(channels / self.unit))) * self.unit

    def is_order(self, order: Sequence[int]) -> bool:
        """Whether ``order`` has every channel once, and units whole."""
        whole = sorted(order) == list(range(self.channels))
        return whole and tuple(order) == self.expanded(
            [c // self.unit for c in order[:: self.unit]]
        )

    def expanded(self, order: Sequence[int]) -> tuple[int, ...]:
        """Channels in the order of their units."""
        return tuple(int(u) * self.unit + i for u in order for i in range(self.unit))

    @property
    def producers(self) -> tuple[str, ...]:
        """Names of the modules that produce these channels."""
        return tuple(m.module for m in self.members if m.role == "out")


@dataclass(frozen=True, slots=True)
class Block:
    """A residual block that can be skipped: its output is replaced by its input.

    Attributes:
        name: the block's qualified module name.
        stage: the run of blocks it belongs to; a stage loses its last blocks first.
        input: name of the node that enters it.
        output: name of the node that leaves it.
        layers: the layers inside.
    """

    name: str
    stage: str
    input: str
    output: str
    layers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Alternatives:
    """Branches of which one runs (see :class:`autocompress.graph.alternatives.OneOf`).

    Attributes:
        name: the module's qualified name.
        output: name of the node that joins the branches.
        branches: option name to the name of the node that ends the branch.
        layers: option name to the layers inside the branch.
    """

    name: str
    output: str
    branches: Mapping[str, str]
    layers: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Resizing:
    """Images that a candidate may resize (see :class:`autocompress.graph.resizing.Resize`).

    Attributes:
        name: the module's qualified name.
        input: name of the node that enters it.
        output: name of the node that resizes.
        sizes: height offered to (height, width), the full size first.
    """

    name: str
    input: str
    output: str
    sizes: Mapping[int, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something left alone, and why."""

    name: str
    reason: str


@dataclass(eq=False)
class ModelGraph:
    """A captured model: a normalised graph and what can be changed in it.

    Attributes:
        module: ``fx.GraphModule``; convolutions, linear layers, norms, dropouts and embeddings are
            ``call_module`` nodes under the user's names, everything else calls aten operators.
        example_inputs: tensors with batch 1.
        layers: the compressible layers, in execution order.
        groups: the channel groups, by name.
        blocks: the skippable residual blocks, in execution order.
        alternatives: the choices between branches, by name.
        resizings: the choices of a resolution, by name.
        skipped: what is left alone and why.
    """

    module: fx.GraphModule
    example_inputs: tuple[torch.Tensor, ...]
    layers: Mapping[str, Layer]
    groups: Mapping[str, ChannelGroup]
    blocks: Sequence[Block] = ()
    alternatives: Mapping[str, Alternatives] = field(default_factory=dict)
    skipped: Sequence[Skipped] = ()
    resizings: Mapping[str, Resizing] = field(default_factory=dict)

    @cached_property
    def nodes(self) -> dict[str, fx.Node]:
        """The graph's nodes by name, in execution order."""
        return {node.name: node for node in self.module.graph.nodes}

    @cached_property
    def stages(self) -> dict[str, tuple[Block, ...]]:
        """The skippable blocks by stage."""
        stages: dict[str, list[Block]] = {}
        for block in self.blocks:
            stages.setdefault(block.stage, []).append(block)
        return {name: tuple(blocks) for name, blocks in stages.items()}

    @cached_property
    def members_of(self) -> dict[str, tuple[tuple[ChannelGroup, GroupMember], ...]]:
        """For each module, the groups it takes part in."""
        found: dict[str, list[tuple[ChannelGroup, GroupMember]]] = {}
        for group in self.groups.values():
            for member in group.members:
                found.setdefault(member.module, []).append((group, member))
        return {name: tuple(pairs) for name, pairs in found.items()}

    @cached_property
    def group_of(self) -> dict[str, ChannelGroup]:
        """For each producing layer, its channel group."""
        return {name: group for group in self.groups.values() for name in group.producers}

    @cached_property
    def shapes(self) -> ShapeMemory:
        """Shapes of results, for whoever walks the graph."""
        return ShapeMemory()

    def operations(self, candidate: Candidate) -> tuple[Op, ...]:
        """The candidate's operations (see :func:`autocompress.graph.operations.operations`)."""
        from autocompress.graph.operations import operations

        return operations(self, candidate)

    def __getstate__(self) -> dict[str, Any]:
        state = {f.name: getattr(self, f.name) for f in fields(self)}
        return {**state, "module": to_plain(self.module)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({**state, "module": from_plain(state["module"])})

    def submodule(self, name: str) -> nn.Module:
        """The module of a ``call_module`` node's target."""
        return self.module.get_submodule(name)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values for the run folder's ``graph.json``."""
        return {
            "layers": [
                {
                    "name": layer.name,
                    "kind": "depthwise conv" if layer.is_depthwise else layer.kind,
                    "in_channels": layer.in_channels,
                    "out_channels": layer.out_channels,
                    "kernel": list(layer.kernel),
                    "macs": layer.macs,
                    "parameters": layer.parameters,
                    "output_shape": list(layer.output_shape),
                    "group": self.group_of[layer.name].name
                    if layer.name in self.group_of
                    else None,
                }
                for layer in self.layers.values()
            ],
            "groups": [
                {
                    "name": group.name,
                    "channels": group.channels,
                    "unit": group.unit,
                    "layers": list(group.producers),
                    "rigid": group.rigid,
                }
                for group in self.groups.values()
            ],
            "blocks": [{"name": b.name, "layers": list(b.layers)} for b in self.blocks],
            "skipped": [{"name": s.name, "reason": s.reason} for s in self.skipped],
        }
