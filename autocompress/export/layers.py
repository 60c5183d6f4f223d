"""Convolutions and linear layers in their deployed forms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from autocompress.compression.stored.base import StoredWeight
from autocompress.compression.stored_layers import StoredLayer
from autocompress.export.writer import OnnxWriter
from autocompress.graph.extents import Extent
from autocompress.graph.layers import conv_pads

Array = npt.NDArray[Any]
_KINDS = {"conv": nn.Conv2d, "linear": nn.Linear, "embedding": nn.Embedding}


@dataclass(frozen=True, slots=True)
class ExportedLayer:
    """A layer as it is in the file.

    Attributes:
        name: the layer's name ("<layer>.0", "<layer>.1" … for a low-rank layer's parts).
        kind: "conv", "linear" or "embedding".
        weight_bits: bits of a weight in the file.
        activation_bits: 8 when it computes in integers, else 32.
        tensors: names under which a runtime may see its weight.
        bytes: stored bytes of weight, scales and bias.
    """

    name: str
    kind: str
    weight_bits: int
    activation_bits: int
    tensors: tuple[str, ...]
    bytes: int


@dataclass(frozen=True, slots=True)
class LayerCall:
    """One call of a layer.

    Attributes:
        name: the layer's name.
        module: the layer.
        value: its input's value name.
        index: number of the call in the graph.
        inputs: extent of the input.
        output: extent of the output.
        input_scale: value name of the input's scale, when the layer computes in integers.
        step: that scale.
    """

    name: str
    module: nn.Conv2d | nn.Linear | nn.Embedding
    value: str
    index: int
    inputs: Extent
    output: Extent
    input_scale: str | None = None
    step: torch.Tensor | None = None


class LayerWriter:
    """Writes layers and keeps a record of them."""

    def __init__(self, writer: OnnxWriter) -> None:
        self.writer = writer
        self.written: list[ExportedLayer] = []

    def write(self, call: LayerCall) -> str:
        """The layer's output value; of rank 2 for an integer linear layer of any rank."""
        before = sum(len(t.raw_data) for t in self.writer.constants)
        if isinstance(call.module, nn.Conv2d):
            result, names = self._conv(call, call.module)
        elif isinstance(call.module, nn.Embedding):
            result, names = self._rows(call, call.module)
        elif call.input_scale is not None or call.inputs.rank == 2:
            result, names = self._gemm(call)
        else:
            result, names = self._matmul(call)
        after = sum(len(t.raw_data) for t in self.writer.constants)
        self.written.append(
            ExportedLayer(
                call.name,
                next(kind for kind, module in _KINDS.items() if isinstance(call.module, module)),
                call.module.form.file_bits if isinstance(call.module, StoredLayer) else 32,
                32 if call.input_scale is None else 8,
                names,
                after - before,
            )
        )
        return result

    def _rows(self, call: LayerCall, module: nn.Embedding) -> tuple[str, tuple[str, ...]]:
        """Rows of a table, which become floats only after they have been looked up.

        Made floats before that, the table would be unfolded when the file is loaded, and take
        four times its memory and more.
        """
        writer, name = self.writer, f"w{call.index}"
        node = writer.take(call.name)
        if not isinstance(module, StoredLayer):
            table = writer.constant(_array(module.weight), name=name)
            return writer.node("Gather", [table, call.value], name=node, axis=0), (table,)
        held = module.stored(None)
        codes = _array(held.codes)
        if held.bits == 16:
            stored = writer.constant(codes, name=name)
        else:
            stored = writer.codes(codes, held.bits, name=name)
        names: tuple[str, ...] = (stored,)
        if held.bits < 8:  # no runtime looks up parts of bytes
            stored = writer.cast(stored, np.uint8 if held.table is not None else np.int8)
            names = (*names, stored)
        rows = writer.node("Gather", [stored, call.value], name=node, axis=0)
        if held.table is not None:
            values = writer.constant(_array(held.table), name=f"t{call.index}")
            rows = writer.node("Gather", [values, writer.cast(rows, np.int32)], axis=0)
        else:
            rows = writer.cast(rows, np.float32)
        if held.scale is not None:
            steps = writer.constant(_array(held.scale).reshape(-1, 1), name=f"s{call.index}")
            rows = writer.node("Mul", [rows, writer.node("Gather", [steps, call.value], axis=0)])
        return rows, names

    def _conv(self, call: LayerCall, module: nn.Conv2d) -> tuple[str, tuple[str, ...]]:
        attributes: dict[str, Any] = {"kernel_shape": list(module.kernel_size)}
        pads = conv_pads(module)
        if any(pads):
            attributes["pads"] = pads
        if any(s != 1 for s in module.stride):
            attributes["strides"] = list(module.stride)
        if any(d != 1 for d in module.dilation):
            attributes["dilations"] = list(module.dilation)
        if module.groups != 1:
            attributes["group"] = module.groups
        operands, names = self._operands(call)
        result = self.writer.node("Conv", operands, name=self.writer.take(call.name), **attributes)
        return result, names

    def _gemm(self, call: LayerCall) -> tuple[str, tuple[str, ...]]:
        operands, names = self._operands(call)
        result = self.writer.node("Gemm", operands, name=self.writer.take(call.name), transB=1)
        return result, names

    def _matmul(self, call: LayerCall) -> tuple[str, tuple[str, ...]]:
        (value, weight, *bias), names = self._operands(call, transposed=True)
        result = self.writer.node("MatMul", [value, weight], name=self.writer.take(call.name))
        if bias:
            result = self.writer.node("Add", [result, bias[0]])
        return result, names

    def _operands(
        self, call: LayerCall, *, transposed: bool = False
    ) -> tuple[list[str], tuple[str, ...]]:
        """Input, weight and bias of a layer, and the names of its weight."""
        module, writer = call.module, self.writer
        weight_name = f"w{call.index}"
        if not isinstance(module, StoredLayer):
            weight = _array(module.weight)
            stored = writer.constant(weight.T if transposed else weight, name=weight_name)
            return [call.value, stored, *self._float_bias(module)], (stored,)
        held = module.stored(call.step)
        weight_value, names = self._stored(call, held, transposed=transposed)
        if call.input_scale is None or call.step is None or held.scale is None:
            return [call.value, weight_value, *self._float_bias(module)], names
        bias_codes = module.bias_codes(call.step)
        return self._integer_operands(
            call, (weight_value, names), _array(held.scale), call.input_scale, bias_codes
        )

    def _stored(
        self, call: LayerCall, held: StoredWeight, *, transposed: bool
    ) -> tuple[str, tuple[str, ...]]:
        """A weight's integers in an integer layer, else its floats; all names that it goes by."""
        writer, name = self.writer, f"w{call.index}"
        codes = _array(held.codes)
        codes = np.ascontiguousarray(codes.T) if transposed else codes
        integer = call.input_scale is not None
        if held.bits == 16:
            stored = writer.constant(codes, name=name)
        else:
            stored = writer.codes(codes, held.bits, name=name)
        if integer and held.bits == 8 and held.table is None:
            return stored, (stored,)
        result = writer.take(f"{name}{'i' if integer else 'f'}")
        scaled = held.scale is not None and not integer
        value = "" if scaled else result
        if held.table is not None:
            table = writer.constant(_array(held.table), name=f"t{call.index}")
            indices = writer.cast(stored, np.int32)
            value = writer.node("Gather", [table, indices], output=value)
        else:
            value = writer.cast(stored, np.int8 if integer else np.float32, output=value)
        if held.scale is not None and scaled:
            shape = (1, -1) if transposed else (-1, *([1] * (codes.ndim - 1)))
            factor = writer.constant(_array(held.scale).reshape(shape), name=f"s{call.index}")
            writer.node("Mul", [value, factor], output=result)
        return result, (stored, result)

    def _integer_operands(
        self,
        call: LayerCall,
        stored: tuple[str, tuple[str, ...]],
        scale: Array,
        input_scale: str,
        bias_codes: torch.Tensor | None,
    ) -> tuple[list[str], tuple[str, ...]]:
        writer, (value, names) = self.writer, stored
        factor = writer.constant(scale, name=f"s{call.index}")
        operands = [value, factor]
        if isinstance(call.module, nn.Linear):
            # without an explicit zero point Gemm stays float in ONNX Runtime
            operands.append(writer.constant(np.zeros(scale.shape, np.int8)))
        weight = writer.node("DequantizeLinear", operands, axis=0)
        if bias_codes is None:
            return [call.value, weight], names
        # the bias's scale is the product of two scales that are in the file already
        step = writer.node("Mul", [input_scale, factor])
        codes = writer.constant(_array(bias_codes), name=f"b{call.index}")
        bias = writer.node("DequantizeLinear", [codes, step], axis=0)
        return [call.value, weight, bias], names

    def _float_bias(self, module: nn.Module) -> list[str]:
        bias = getattr(module, "bias", None)
        return [] if bias is None else [self.writer.constant(_array(bias))]


def _array(tensor: torch.Tensor) -> Array:
    array: Array = tensor.detach().cpu().contiguous().numpy()
    return array
