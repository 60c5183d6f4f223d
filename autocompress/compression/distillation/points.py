"""Where two networks of one captured graph are compared: ends of stages, and the embedding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import torch
from torch import fx, nn

from autocompress.core.candidate import Candidate
from autocompress.graph.model_graph import ModelGraph
from autocompress.graph.selection import Selection, select
from autocompress.graph.watching import Watcher

#: Points taken where a network keeps one resolution throughout, as transformers do.
_EVENLY = 3


@dataclass(frozen=True, slots=True)
class Point:
    """One tensor to compare.

    Attributes:
        teacher: name of the node that gives it in the teacher's graph.
        student: name of the node that gives it in the student's graph.
        channels_last: whether channels are the tensor's last dimension instead of the second.
        positions: places that each channel has: height times width, tokens, or 1.
    """

    teacher: str
    student: str
    channels_last: bool = False
    positions: int = 1


@dataclass(frozen=True, slots=True)
class FeaturePoints:
    """Where features are read.

    Attributes:
        stages: ends of the network's stages, in execution order.
        embedding: what the last layer reads, or None where nothing is learnt before it.
        output_rank: dimensions of the network's output, the batch's included.
        aligned: whether channel i means the same in both networks as long as they have equally
            many; not when the teacher's channels were never sorted as the student's were.
    """

    stages: tuple[Point, ...] = ()
    embedding: Point | None = None
    output_rank: int = 2
    aligned: bool = True


def find_points(graph: ModelGraph) -> FeaturePoints:
    """The points of a captured model, with both sides' names those of its nodes.

    Points carry the whole signal: no path leads around them. A stage is a run of the network in one
    resolution; its end is its last residual block's output, or its last tensor where it has none.
    A network of one resolution, or with all its blocks in one (a perceptron, a transformer), is
    divided evenly instead.
    """
    shapes = _shapes(graph)
    order = list(graph.module.graph.nodes)
    last = _last_layer(graph, order)
    output = next(node for node in reversed(order) if node.op == "output")
    rank = len(shapes.get(output.all_input_nodes[0].name, (0, 0)))
    if last is None:
        return FeaturePoints(output_rank=rank)
    before = order[: order.index(last)]
    whole = [n for n in _cuts(before, last, shapes) if _learnt(n, graph)]
    points = {node.name: _point(node, graph, shapes[node.name]) for node in whole}
    source = _before_dropout(last, graph)
    embedding = None
    if source.name in shapes and _learnt(source, graph):
        embedding = _point(source, graph, shapes[source.name])
    names = _stage_ends(whole, graph, {n.name: _resolution(points[n.name], shapes) for n in whole})
    return FeaturePoints(tuple(points[name] for name in names), embedding, rank)


def match_points(
    points: FeaturePoints, graph: ModelGraph, candidate: Candidate, student: fx.GraphModule
) -> FeaturePoints:
    """The same points with the nodes of a realised, perhaps folded and quantised, candidate.

    In place of a skipped block's output stands what takes its place. Where two points become one
    tensor, the later one counts; a point that the candidate has no tensor for is left out.

    Args:
        points: from :func:`find_points`.
        graph: the captured model.
        candidate: what ``student`` was made from.
        student: its graph; nodes keep the names of the captured ones.
    """
    names = {node.name for node in student.graph.nodes}
    selection = select(graph, candidate)
    matched: dict[str, Point] = {}
    for point in points.stages:
        name = _counterpart(point.teacher, graph, selection, names)
        if name is not None:
            matched.pop(name, None)
            matched[name] = replace(point, student=name)
    embedding = None
    if points.embedding is not None:
        name = _counterpart(points.embedding.teacher, graph, selection, names)
        embedding = None if name is None else replace(points.embedding, student=name)
    return replace(points, stages=tuple(matched.values()), embedding=embedding)


def _counterpart(name: str, graph: ModelGraph, selection: Selection, names: set[str]) -> str | None:
    """The student's node for a captured one: a folded norm's value is its layer's."""
    name = selection.resolve(name)
    while name not in names:
        node = graph.nodes[name]
        if node.op != "call_module" or str(node.target) in graph.layers:
            return None
        name = selection.resolve(node.all_input_nodes[0].name)
    quantized = f"{name}_quantized"  # what the next operation reads
    return quantized if quantized in names else name


def _shapes(graph: ModelGraph) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors that are computed, in floats."""
    shapes: dict[str, tuple[int, ...]] = {}

    def see(node: fx.Node, inputs: list[Any], value: Any) -> None:
        if isinstance(value, torch.Tensor) and value.is_floating_point() and node.op != "get_attr":
            shapes[node.name] = tuple(value.shape)

    with torch.no_grad():
        Watcher(graph.module, see).run(*graph.example_inputs)
    return shapes


def _last_layer(graph: ModelGraph, order: Sequence[fx.Node]) -> fx.Node | None:
    calls = [n for n in order if n.op == "call_module" and str(n.target) in graph.layers]
    return calls[-1] if calls else None


def _cuts(
    before: Sequence[fx.Node], last: fx.Node, shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[fx.Node]:
    """Nodes after which nothing else that was computed from the inputs is still to be read."""
    place = {node: i for i, node in enumerate([*before, last])}
    derived: set[fx.Node] = set()
    for node in before:
        if node.op == "placeholder" or any(a in derived for a in node.all_input_nodes):
            derived.add(node)
    end = len(before) + 1
    live: dict[fx.Node, int] = {}
    for i, node in enumerate(before):
        live = {n: until for n, until in live.items() if until > i}
        if node in derived and (node.name in shapes or _is_several(node)):
            live[node] = max((place.get(user, end) for user in node.users), default=i)
        if set(live) == {node} and len(shapes.get(node.name, ())) >= 2:
            yield node


def _is_several(node: fx.Node) -> bool:
    """Whether it gives a tuple of tensors, each taken by a node of its own."""
    return any("getitem" in str(user.target) for user in node.users)


def _learnt(node: fx.Node, graph: ModelGraph) -> bool:
    """Whether any layer comes before the node's value."""
    seen, stack = {node}, [node]
    while stack:
        current = stack.pop()
        if current.op == "call_module" and str(current.target) in graph.layers:
            return True
        new = [a for a in current.all_input_nodes if a not in seen]
        seen.update(new)
        stack.extend(new)
    return False


def _before_dropout(last: fx.Node, graph: ModelGraph) -> fx.Node:
    source = last.all_input_nodes[0]
    while source.op == "call_module" and isinstance(
        graph.submodule(str(source.target)), nn.Dropout
    ):
        source = source.all_input_nodes[0]
    return source


def _point(node: fx.Node, graph: ModelGraph, shape: tuple[int, ...]) -> Point:
    last = _channels_last(node, graph, shape)
    places = shape[1:-1] if last else shape[2:]
    return Point(node.name, node.name, last, int(torch.Size(places).numel()))


def _channels_last(node: fx.Node, graph: ModelGraph, shape: tuple[int, ...]) -> bool:
    """The layer that made them tells; in doubt channels come last of tokens, second of images."""
    if len(shape) < 3:
        return False
    current: fx.Node | None = node
    while current is not None:
        layer = graph.layers.get(str(current.target)) if current.op == "call_module" else None
        if layer is not None:
            first, last = (extent == layer.out_channels for extent in (shape[1], shape[-1]))
            return last if first != last else len(shape) == 3
        current = current.all_input_nodes[0] if current.all_input_nodes else None
    return len(shape) == 3


def _resolution(point: Point, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    shape = shapes[point.teacher]
    return shape[1:-1] if point.channels_last else shape[2:]


def _stage_ends(
    whole: Sequence[fx.Node], graph: ModelGraph, resolutions: Mapping[str, tuple[int, ...]]
) -> list[str]:
    blocks = {block.output for block in graph.blocks}
    runs = [list(run) for _, run in groupby(whole, key=lambda node: resolutions[node.name])]
    maps = [run for run in runs if torch.Size(resolutions[run[0].name]).numel() > 1]
    deep = [run for run in maps if any(node.name in blocks for node in run)]
    if len(deep) == 1 and sum(node.name in blocks for node in deep[0]) >= _EVENLY:
        maps = deep
    if len(maps) > 1:
        return [_end(run, blocks) for run in maps]
    nodes = maps[0] if maps else whole
    ends = [n.name for n in nodes if n.name in blocks] or [
        n.name
        for n in nodes
        if n is nodes[-1]
        or any(u.op == "call_module" and str(u.target) in graph.layers for u in n.users)
    ]
    if not ends:
        return []
    count = min(_EVENLY, len(ends))
    return [ends[round((i + 1) * len(ends) / count) - 1] for i in range(count)]


def _end(run: Sequence[fx.Node], blocks: set[str]) -> str:
    inside = [node.name for node in run if node.name in blocks]
    return inside[-1] if inside else run[-1].name
