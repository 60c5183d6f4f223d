"""Operators that the writer does not know: ``torch.onnx`` translates them.

Everything that the writer does know becomes a placeholder operator that carries only the node's
name, so that ``torch.onnx`` sees no weights of ours; afterwards the placeholders are written in
their deployed form.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import fx

from autocompress.errors import RequestError
from autocompress.export.lowering import Lowering, read_by
from autocompress.export.writer import OPSET
from autocompress.graph.capture import free_axes

_DOMAIN = "autocompress"
_OP = "Known"


def _known(
    tensors: list[torch.Tensor],
    batch: torch.Tensor,
    row: torch.Tensor,
    name: str,
    slopes: list[int],
    rates: list[int],
    constants: list[int],
) -> torch.Tensor:
    """Stands for node ``name``: an operator of our own domain with the node's output shape.

    The batch size is that of ``batch``, the free length that of ``row``.
    """
    shape: list[Any] = []
    for slope, rate, constant in zip(slopes, rates, constants, strict=True):
        size: Any = constant
        if slope:
            size = batch.shape[0] * slope + size
        if rate:
            size = row.shape[1] * rate + size
        shape.append(size)
    return torch.onnx.ops.symbolic(
        f"{_DOMAIN}::{_OP}", tensors, {"node": name}, dtype=torch.float32, shape=shape, version=1
    )


def lower_through_torch(lowering: Lowering, example_inputs: Sequence[torch.Tensor]) -> str:
    """Write the whole graph, translating unknown operators with ``torch.onnx``.

    Raises:
        RequestError: ``torch.onnx`` cannot translate an operator either.
    """
    proto = _translated(_stand_ins(lowering), example_inputs)
    return _write(lowering, proto)


def _stand_ins(lowering: Lowering) -> fx.GraphModule:
    """The graph with every known node replaced by a stand-in."""
    graph = fx.Graph()
    made: dict[fx.Node, fx.Node] = {}
    batch: fx.Node | None = None
    row: fx.Node | None = None
    for node in lowering.module.graph.nodes:
        if lowering.stands_alone(node):
            if batch is None:
                raise RequestError("the model has no input")
            extent = lowering.extents[node.name]
            read = [made[n] for n in _tensors(lowering, node)]
            sizes = (list(extent.slopes), list(extent.rates), list(extent.constants))
            arguments = (read, batch, row or batch, node.name, *sizes)
            made[node] = graph.call_function(_known, arguments)
        else:
            made[node] = graph.node_copy(node, lambda n: made[n])
            if node.op == "placeholder":
                batch = batch or made[node]
                row = made[node] if row is None and 1 in free_axes(node) else row
    stand_in = fx.GraphModule(lowering.module, graph)
    stand_in.graph.eliminate_dead_code()
    stand_in.recompile()
    return stand_in.eval()


def _tensors(lowering: Lowering, node: fx.Node) -> list[fx.Node]:
    return [n for n in read_by(node) if n.op != "get_attr" and n.name in lowering.extents]


def _translated(module: fx.GraphModule, example_inputs: Sequence[torch.Tensor]) -> Any:
    inputs = tuple(x[:1].expand(2, *x.shape[1:]).contiguous() for x in example_inputs)
    places = [node for node in module.graph.nodes if node.op == "placeholder"]
    dynamic = tuple(dict.fromkeys((0, *free_axes(node)), torch.export.Dim.AUTO) for node in places)
    with _quiet():
        try:
            program = torch.onnx.export(
                module,
                inputs,
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=dynamic,
                verbose=False,
            )
        except Exception as error:
            first = str(error).strip().splitlines()[0] if str(error).strip() else ""
            raise RequestError(
                f"the model uses an operator without an ONNX form: {first}"
            ) from error
    if program is None:
        raise RequestError("torch.onnx gave no model")
    return program.model_proto


@contextlib.contextmanager
def _quiet() -> Any:
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def _write(lowering: Lowering, proto: Any) -> str:
    """Copy the translated nodes and write what the stand-ins stand for."""
    from onnx import numpy_helper

    if proto.functions:
        raise RequestError(f"torch.onnx left functions in the model: {proto.functions[0].name}")
    writer = lowering.writer
    nodes = {node.name: node for node in lowering.module.graph.nodes}
    placeholders = [n.name for n in lowering.module.graph.nodes if n.op == "placeholder"]
    names = {"": ""}
    names.update(zip((value.name for value in proto.graph.input), placeholders, strict=True))
    for tensor in proto.graph.initializer:
        names[tensor.name] = writer.constant(numpy_helper.to_array(tensor))
    for node in proto.graph.node:
        if node.domain == _DOMAIN:
            known = nodes[node.attribute[0].s.decode()]
            read = _tensors(lowering, known)
            values = {n.name: names[v] for n, v in zip(read, node.input, strict=True)}
            names[node.output[0]] = lowering.write(known, values)
            continue
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            array = np.asarray(numpy_helper.to_array(node.attribute[0].t))
            names[node.output[0]] = writer.constant(array)
            continue
        _copy(lowering, node, names)
    return names[proto.graph.output[0].name]


def _copy(lowering: Lowering, node: Any, names: dict[str, str]) -> None:
    from onnx import NodeProto

    copied = NodeProto()
    copied.CopyFrom(node)
    del copied.metadata_props[:]
    copied.doc_string = ""
    del copied.input[:], copied.output[:]
    copied.input.extend(names[name] for name in node.input)
    for name in node.output:
        names[name] = lowering.writer.fresh("v") if name else ""
        copied.output.append(names[name])
    copied.name = copied.output[0]
    lowering.writer.nodes.append(copied)
