"""What a candidate keeps of a captured model: nodes, channels, kernels, pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import fx

from autocompress.core.candidate import Candidate, Scalar
from autocompress.errors import RequestError
from autocompress.graph.model_graph import ModelGraph

Indices = npt.NDArray[np.int64]

DEPTH = "depth:"
BRANCH = "branch:"
KERNEL = "kernel:"
RESOLUTION = "resolution:"
_PREFIXES = (DEPTH, BRANCH, KERNEL, RESOLUTION)


@dataclass(frozen=True)
class Selection:
    """What is kept.

    Attributes:
        nodes: names of the nodes that run, in execution order.
        alias: node name -> name of the node whose value takes its place.
        out_indices: module -> kept output indices (absent: all of them).
        in_indices: module -> kept input indices (absent: all of them).
        kernels: layer -> kernel size (absent: the full kernel).
        sizes: node that resizes -> height and width of what leaves it.
    """

    nodes: tuple[str, ...]
    alias: Mapping[str, str]
    out_indices: Mapping[str, Indices]
    in_indices: Mapping[str, Indices]
    kernels: Mapping[str, int]
    sizes: Mapping[str, tuple[int, int]]

    def resolve(self, name: str) -> str:
        """The node that really provides the value of node ``name``."""
        while name in self.alias:
            name = self.alias[name]
        return name

    def arguments(self, node: fx.Node) -> tuple[Any, ...]:
        """The positional arguments of a node that calls a function."""
        size = self.sizes.get(node.name)
        return node.args if size is None else (node.args[0], list(size), *node.args[2:])


def select(graph: ModelGraph, candidate: Candidate) -> Selection:
    """What ``candidate`` keeps of ``graph``.

    The kept channels of a group are its first ones: whoever holds the weights sorts them by
    importance beforehand.

    Raises:
        RequestError: the candidate names a stage, branch or layer that the model does not have,
            or asks for a width that a group cannot have.
    """
    _check_names(graph, candidate)
    alias = _aliases(graph, candidate)
    nodes = _needed(graph, alias)
    out_indices, in_indices = _channels(graph, candidate)
    kernels = {
        name.removeprefix(KERNEL): _kernel(graph, name, value)
        for name, value in candidate.architecture.items()
        if name.startswith(KERNEL)
    }
    return Selection(nodes, alias, out_indices, in_indices, kernels, _resized(graph, candidate))


def _check_names(graph: ModelGraph, candidate: Candidate) -> None:
    for name in candidate.architecture:
        kind = next((k for k in _PREFIXES if name.startswith(k)), None)
        if kind is None:
            raise RequestError(
                f"unknown architecture choice {name!r}; names start with one of "
                f"{', '.join(_PREFIXES)}"
            )
        if kind == RESOLUTION and name.removeprefix(RESOLUTION) not in graph.resizings:
            raise RequestError(f"{name!r}: the model resizes nothing there")
        if kind == BRANCH and name.removeprefix(BRANCH) not in graph.alternatives:
            raise RequestError(f"{name!r}: the model has no branches {name.removeprefix(BRANCH)!r}")
    for name in candidate.layers:
        if name not in graph.layers:
            raise RequestError(
                f"the candidate has a policy for {name!r}; the model has no such layer"
            )


def _kernel(graph: ModelGraph, name: str, value: Scalar) -> int:
    layer = name.removeprefix(KERNEL)
    if layer not in graph.layers or not graph.layers[layer].kernel:
        raise RequestError(f"{name!r}: the model has no convolution {layer!r}")
    full = graph.layers[layer].kernel
    fits = isinstance(value, int) and 1 <= value <= min(full)
    if not fits or any((size - int(value)) % 2 for size in full):
        raise RequestError(
            f"{name!r} is {value!r}; a kernel of {full} can be cropped to "
            f"{', '.join(str(k) for k in range(2 - min(full) % 2, min(full) + 1, 2))}"
        )
    conv = graph.submodule(layer)
    borders = [d * (k - int(value)) // 2 for d, k in zip(conv.dilation, full, strict=True)]  # type: ignore[arg-type]
    padding = (0, 0) if conv.padding == "valid" else conv.padding
    if padding != "same" and any(p < b for p, b in zip(padding, borders, strict=True)):  # type: ignore[arg-type]
        raise RequestError(
            f"{name!r} is {value!r}; padding {padding} is too small to crop a kernel of {full}"
        )
    return int(value)


def _resized(graph: ModelGraph, candidate: Candidate) -> dict[str, tuple[int, int]]:
    """The nodes that resize to anything but the full size, with what they resize to."""
    found: dict[str, tuple[int, int]] = {}
    for name, resizing in graph.resizings.items():
        full = next(iter(resizing.sizes))
        height = candidate.architecture.get(RESOLUTION + name, full)
        if isinstance(height, bool) or height not in resizing.sizes:
            offered = ", ".join(map(str, resizing.sizes))
            raise RequestError(f"{RESOLUTION + name!r} is {height!r}; use one of {offered}")
        if height != full:
            found[resizing.output] = resizing.sizes[int(height)]
    return found


def skipped_blocks(graph: ModelGraph, candidate: Candidate) -> tuple[str, ...]:
    """Names of the residual blocks that the candidate leaves out."""
    names: list[str] = []
    for name, value in candidate.architecture.items():
        if not name.startswith(DEPTH):
            continue
        stage = name.removeprefix(DEPTH)
        if stage not in graph.stages:
            raise RequestError(f"{name!r}: the model has no stage {stage!r} of skippable blocks")
        blocks = graph.stages[stage]
        if not isinstance(value, int) or not 0 <= value <= len(blocks):
            raise RequestError(f"{name!r} is {value!r}; it must be in 0..{len(blocks)}")
        names.extend(block.name for block in blocks[value:])
    return tuple(names)


def _aliases(graph: ModelGraph, candidate: Candidate) -> dict[str, str]:
    skipped = set(skipped_blocks(graph, candidate))
    alias = {b.output: b.input for b in graph.blocks if b.name in skipped}
    resized = _resized(graph, candidate)
    alias |= {r.output: r.input for r in graph.resizings.values() if r.output not in resized}
    for name, alternatives in graph.alternatives.items():
        option = candidate.architecture.get(BRANCH + name)
        if option is None:
            continue
        if option not in alternatives.branches:
            raise RequestError(
                f"{BRANCH + name!r} is {option!r}; use one of {', '.join(alternatives.branches)}"
            )
        alias.setdefault(alternatives.output, alternatives.branches[str(option)])
    return alias


def _needed(graph: ModelGraph, alias: Mapping[str, str]) -> tuple[str, ...]:
    def real(node: fx.Node) -> fx.Node:
        name = node.name
        while name in alias:
            name = alias[name]
        return graph.nodes[name]

    output = next(n for n in reversed(graph.module.graph.nodes) if n.op == "output")
    seen: set[str] = set()
    stack = [output]
    while stack:
        node = stack.pop()
        if node.name in seen:
            continue
        seen.add(node.name)
        stack.extend(real(argument) for argument in node.all_input_nodes)
    return tuple(n for n, node in graph.nodes.items() if n in seen or node.op == "placeholder")


def _channels(
    graph: ModelGraph, candidate: Candidate
) -> tuple[dict[str, Indices], dict[str, Indices]]:
    dropped_out: dict[str, list[Indices]] = {}
    dropped_in: dict[str, list[Indices]] = {}
    _check_widths(graph, candidate)
    for group in graph.groups.values():
        width = candidate.policy(group.name).width
        if width is None or width == group.channels:
            continue
        if group.rigid:
            raise RequestError(f"layer {group.name!r} cannot be narrowed: {group.rigid}")
        if width > group.channels:
            raise RequestError(
                f"width of {group.name!r} is {width}; the layer has {group.channels} channels"
            )
        if width % group.unit:
            raise RequestError(
                f"width of {group.name!r} is {width}; its channels go in whole heads, so give a "
                f"multiple of {group.unit}"
            )
        for member in group.members:
            target = dropped_in if member.role == "in" else dropped_out
            target.setdefault(member.module, []).append(member.indices[width:].ravel())
    sizes_out, sizes_in = _sizes(graph)
    return (
        {name: _kept(sizes_out[name], dropped) for name, dropped in dropped_out.items()},
        {name: _kept(sizes_in[name], dropped) for name, dropped in dropped_in.items()},
    )


def _check_widths(graph: ModelGraph, candidate: Candidate) -> None:
    for name, policy in candidate.layers.items():
        if policy.width is None or policy.width == graph.layers[name].out_channels:
            continue
        group = graph.group_of.get(name)
        if group is None:
            raise RequestError(f"layer {name!r} cannot be narrowed: its channels are not known")
        if candidate.policy(group.name).width != policy.width:
            raise RequestError(
                f"width of {name!r} is {policy.width}, that of {group.name!r} is "
                f"{candidate.policy(group.name).width}; they can only be narrowed together"
            )


def _kept(size: int, dropped: list[Indices]) -> Indices:
    keep = np.ones(size, dtype=bool)
    for indices in dropped:
        keep[indices] = False
    return np.flatnonzero(keep)


def _sizes(graph: ModelGraph) -> tuple[dict[str, int], dict[str, int]]:
    """Full output and input extents of every module in a group."""
    cached = graph.__dict__.get("_extents")
    if cached is None:
        outs: dict[str, int] = {}
        ins: dict[str, int] = {}
        for name in graph.members_of:
            module = graph.submodule(name)
            for attribute, extents in (
                (("out_channels", "out_features", "num_features", "normalized_shape"), outs),
                (("in_channels", "in_features"), ins),
            ):
                for key in attribute:
                    value = getattr(module, key, None)
                    if value is not None:
                        extents[name] = int(value[-1] if isinstance(value, tuple) else value)
        cached = (outs, ins)
        graph.__dict__["_extents"] = cached
    return cached
