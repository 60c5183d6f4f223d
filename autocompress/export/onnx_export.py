"""A graph as an ONNX file in its deployed form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import fx

from autocompress.core.files import sha256_of, write_atomically
from autocompress.errors import RequestError, VerificationError
from autocompress.export.general import lower_through_torch
from autocompress.export.layers import ExportedLayer
from autocompress.export.lowering import Lowering
from autocompress.export.value_info import value_info
from autocompress.graph.extents import Extent, extents
from autocompress.graph.ops import Op
from autocompress.runtimes.common import example_key

OUTPUT = "output"
#: A protobuf message cannot be longer.
LARGEST_BYTES = 1 << 31


@dataclass(frozen=True, slots=True)
class ExportedModel:
    """An ONNX file that was written.

    Attributes:
        path: where it is.
        size_bytes: its length.
        sha256: its hash, in hexadecimal.
        opset: its operator set.
        layers: its layers, in execution order.
        integers: pairs of a quantised tensor's node in the graph and its uint8 value in the file.
    """

    path: Path
    size_bytes: int
    sha256: str
    opset: int
    layers: tuple[ExportedLayer, ...]
    integers: tuple[tuple[str, str], ...] = ()


def export_onnx(
    module: fx.GraphModule,
    ops: Sequence[Op],
    example_inputs: Sequence[torch.Tensor],
    path: str | Path,
) -> ExportedModel:
    """Write ``module`` to ``path``; the file appears complete or not at all.

    Integer tensors are stored as QuantizeLinear and DequantizeLinear pairs, weights in the form
    that :data:`autocompress.compression.forms.FORMS` names, constants once each, without metadata.
    The batch dimension stays free, as does the length of rows where the graph was captured so; the
    example's shape is then kept as the file's metadata, for whoever times or prices it.

    Args:
        module: a float graph, or one that ``simulate_quantization`` made.
        ops: the candidate's operations, with the graph's node names.
        example_inputs: one tensor per input, batch first.
        path: of the file; its folder exists.

    Raises:
        RequestError: an operator has no ONNX form, ``ops`` do not fit the graph, or the weights are
            more than a file can hold.
        VerificationError: ONNX's own checker refuses the result.
        StorageError: the file cannot be written.
    """
    import onnx

    was_training = module.training
    module.eval()
    try:
        shapes = extents(module, example_inputs)
        lowering = Lowering(module, ops, shapes)
        result = _lower(lowering, example_inputs)
    finally:
        module.train(was_training)
    model = _model(lowering, result, shapes, example_inputs)
    stored = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    if stored >= LARGEST_BYTES:
        raise RequestError(
            f"the file would hold {stored / 1e9:.1f} GB of weights, and an ONNX file at most "
            f"{LARGEST_BYTES / 1e9:.1f} GB; use fewer bits or channels"
        )
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:
        raise VerificationError(f"the exported graph is no valid ONNX model: {error}") from error
    data = model.SerializeToString()
    write_atomically(path, data)
    return ExportedModel(
        Path(path),
        len(data),
        sha256_of(path),
        lowering.writer.opset,
        tuple(lowering.layers.written),
        tuple(lowering.integers.items()),
    )


def _lower(lowering: Lowering, example_inputs: Sequence[torch.Tensor]) -> str:
    """Write every node; the name of the result's value."""
    graph = lowering.module.graph
    output = next(node for node in graph.nodes if node.op == "output")
    result: str = output.all_input_nodes[0].name
    tensors = [n for n in graph.nodes if n.op in ("call_module", "call_function")]
    if not all(lowering.writes(n) or n.name not in lowering.extents for n in tensors):
        return lower_through_torch(lowering, example_inputs)
    values: dict[str, str] = {n.name: n.name for n in graph.nodes if n.op == "placeholder"}
    for node in tensors:
        if node.name in lowering.extents:
            values[node.name] = lowering.write(node, values)
    return values[result]


def _model(
    lowering: Lowering,
    result: str,
    shapes: dict[str, Extent],
    example_inputs: Sequence[torch.Tensor],
) -> Any:

    writer, graph = lowering.writer, lowering.module.graph
    placeholders = [node.name for node in graph.nodes if node.op == "placeholder"]
    output = next(node for node in graph.nodes if node.op == "output").all_input_nodes[0].name
    if any(result in node.output for node in writer.nodes):
        writer.rename(result, OUTPUT)
    else:  # an input or a constant is returned as it is
        writer.node("Identity", [result], output=OUTPUT)
    inputs = [
        value_info(name, shapes[name], x.dtype)
        for name, x in zip(placeholders, example_inputs, strict=True)
    ]
    metadata = {
        example_key(name): ",".join(str(n) for n in (1, *x.shape[1:]))
        for name, x in zip(placeholders, example_inputs, strict=True)
        if any(shapes[name].is_length(axis) for axis in range(shapes[name].rank))
    }
    return writer.model(inputs, [value_info(OUTPUT, shapes[output])], metadata)
