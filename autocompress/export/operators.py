"""The ONNX form of each aten operator and norm that the writer knows by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from autocompress.export.call import Call, Emitter
from autocompress.export.shape_operators import SHAPE_OPERATORS
from autocompress.export.value_info import value_info
from autocompress.export.writer import OnnxWriter
from autocompress.graph.extents import Extent
from autocompress.graph.layers import pair


def _unary(op_type: str, **attributes: Any) -> Emitter:
    def emit(writer: OnnxWriter, call: Call) -> str:
        return writer.node(op_type, [call.value], name=call.name, **attributes)

    return emit


def _operand(writer: OnnxWriter, value: Any) -> str:
    return value if isinstance(value, str) else writer.scalar(float(value))


def _binary(op_type: str) -> Emitter:
    def emit(writer: OnnxWriter, call: Call) -> str | None:
        if call.arguments.get("alpha", 1) != 1 or call.arguments.get("rounding_mode") is not None:
            return None
        operands = [_operand(writer, call.arguments[name]) for name in ("self", "other")]
        return writer.node(op_type, operands, name=call.name)

    return emit


def _pow(writer: OnnxWriter, call: Call) -> str | None:
    exponent = call.arguments["exponent"]
    return writer.node("Pow", [call.value, _operand(writer, exponent)], name=call.name)


def clip(writer: OnnxWriter, call: Call, low: float | None, high: float | None) -> str:
    """Clip to bounds; None leaves a side open."""
    bounds = ["" if low is None else writer.scalar(low)]
    if high is not None:
        bounds.append(writer.scalar(high))
    return writer.node("Clip", [call.value, *bounds], name=call.name)


def _hardtanh(writer: OnnxWriter, call: Call) -> str:
    return clip(writer, call, call.arguments["min_val"], call.arguments["max_val"])


def _clamp(writer: OnnxWriter, call: Call) -> str:
    return clip(writer, call, call.arguments["min"], call.arguments["max"])


def _clamp_min(writer: OnnxWriter, call: Call) -> str:
    return clip(writer, call, call.arguments["min"], None)


def _relu6(writer: OnnxWriter, call: Call) -> str:
    return clip(writer, call, 0.0, 6.0)


def _silu(writer: OnnxWriter, call: Call) -> str:
    gate = writer.node("Sigmoid", [call.value])
    return writer.node("Mul", [call.value, gate], name=call.name)


def _gelu(writer: OnnxWriter, call: Call) -> str:
    return writer.node(
        "Gelu", [call.value], name=call.name, approximate=call.arguments["approximate"]
    )


def _leaky_relu(writer: OnnxWriter, call: Call) -> str:
    slope = float(call.arguments["negative_slope"])
    return writer.node("LeakyRelu", [call.value], name=call.name, alpha=slope)


def _elu(writer: OnnxWriter, call: Call) -> str | None:
    if call.arguments["scale"] != 1 or call.arguments["input_scale"] != 1:
        return None
    return writer.node("Elu", [call.value], name=call.name, alpha=float(call.arguments["alpha"]))


def _softmax(op_type: str) -> Emitter:
    def emit(writer: OnnxWriter, call: Call) -> str:
        axis = int(call.arguments["dim"]) % max(1, call.output.rank)
        return writer.node(op_type, [call.value], name=call.name, axis=axis)

    return emit


def _pool_settings(call: Call) -> dict[str, Any]:
    kernel = pair(call.arguments["kernel_size"])
    strides = pair(call.arguments["stride"] or kernel)
    pads = pair(call.arguments["padding"])
    settings: dict[str, Any] = {"kernel_shape": kernel, "strides": strides}
    if any(pads):
        settings["pads"] = [*pads, *pads]
    if call.arguments["ceil_mode"]:
        settings["ceil_mode"] = 1
    return settings


def _max_pool(writer: OnnxWriter, call: Call) -> str:
    settings = _pool_settings(call)
    dilation = pair(call.arguments["dilation"])
    if dilation != (1, 1):
        settings["dilations"] = dilation
    return writer.node("MaxPool", [call.value], name=call.name, **settings)


def _avg_pool(writer: OnnxWriter, call: Call) -> str | None:
    if call.arguments["divisor_override"] is not None or call.arguments["ceil_mode"]:
        return None
    settings = _pool_settings(call)
    if call.arguments["count_include_pad"] and "pads" in settings:
        settings["count_include_pad"] = 1
    return writer.node("AveragePool", [call.value], name=call.name, **settings)


def _adaptive_avg_pool(writer: OnnxWriter, call: Call) -> str | None:
    if call.output.rank != 4:
        return None
    source, target = call.inputs[0].constants[2:], call.output.constants[2:]
    if target == (1, 1):
        return writer.node("GlobalAveragePool", [call.value], name=call.name)
    if any(call.inputs[0].is_free(axis) for axis in (2, 3)) or any(
        s % t for s, t in zip(source, target, strict=True)
    ):
        return None
    kernel = [s // t for s, t in zip(source, target, strict=True)]
    return writer.node(
        "AveragePool", [call.value], name=call.name, kernel_shape=kernel, strides=kernel
    )


def is_global_mean(call: Call) -> bool:
    """Whether a mean runs over height and width of an image."""
    axes = call.arguments.get("dim")
    return (
        call.inputs[0].rank == 4 and axes is not None and {int(axis) % 4 for axis in axes} == {2, 3}
    )


def _mean(writer: OnnxWriter, call: Call) -> str | None:
    axes = call.arguments.get("dim")
    if not axes or call.arguments.get("dtype") is not None:
        return None
    if is_global_mean(call):
        pooled = writer.node("GlobalAveragePool", [call.value], name=call.name)
        return pooled if call.arguments["keepdim"] else flatten(writer, pooled)
    constant = writer.constant(np.array([int(a) for a in axes], np.int64))
    return writer.node(
        "ReduceMean",
        [call.value, constant],
        name=call.name,
        keepdims=int(call.arguments["keepdim"]),
    )


def flatten(writer: OnnxWriter, value: str) -> str:
    """Everything but the batch in one dimension."""
    return writer.node("Flatten", [value])


def _reshape(writer: OnnxWriter, call: Call) -> str | None:
    source, output = call.inputs[0], call.output
    pattern = output.pattern or _kept_sizes(source, output)
    batched = source.rank > 0 and source.is_batch(0) and output.rank == 2 and output.is_batch(0)
    if batched and pattern is not None and pattern[0] == -1:
        return writer.node("Flatten", [call.value], name=call.name)
    shape = writer.shape(output) if pattern is None else None
    if pattern is not None:
        shape = writer.constant(np.array(pattern, np.int64))
    return None if shape is None else writer.node("Reshape", [call.value, shape], name=call.name)


def _kept_sizes(source: Extent, output: Extent) -> tuple[int, ...] | None:
    """A reshape's sizes: 0 keeps that of the input at the same place, -1 is what is left.

    None where two free sizes are neither.
    """
    sizes: list[int] = []
    for axis in range(output.rank):
        if not output.is_free(axis):
            sizes.append(output.constants[axis])
        elif output.same(axis, source):
            sizes.append(0)
        elif -1 not in sizes:
            sizes.append(-1)
        else:
            return None
    return tuple(sizes)


def _unsqueeze(writer: OnnxWriter, call: Call) -> str:
    axis = writer.constant(np.array([int(call.arguments["dim"]) % call.output.rank], np.int64))
    return writer.node("Unsqueeze", [call.value, axis], name=call.name)


def _permute(writer: OnnxWriter, call: Call) -> str:
    rank = call.output.rank
    order = [int(d) % rank for d in call.arguments["dims"]]
    return writer.node("Transpose", [call.value], name=call.name, perm=order)


def _transpose(writer: OnnxWriter, call: Call) -> str:
    order = list(range(call.output.rank))
    first = int(call.arguments["dim0"]) % len(order)
    second = int(call.arguments["dim1"]) % len(order)
    order[first], order[second] = order[second], order[first]
    return writer.node("Transpose", [call.value], name=call.name, perm=order)


def _reversed(emit: Emitter) -> Emitter:
    """The same with the operands the other way round, as ``rsub`` is to ``sub``."""

    def turned(writer: OnnxWriter, call: Call) -> str | None:
        arguments = {**call.arguments, "self": call.arguments["other"], "other": call.value}
        return emit(writer, replace(call, arguments=arguments))

    return turned


def _compare(op_type: str, *, negated: bool = False) -> Emitter:
    """A comparison of a tensor with a number."""

    def emit(writer: OnnxWriter, call: Call) -> str | None:
        source = call.inputs[0].dtype
        if source not in (torch.int64, torch.int32, torch.float32):
            return None
        kind = np.dtype(str(source).removeprefix("torch."))
        number = np.asarray(call.arguments["other"], kind)
        if number != call.arguments["other"]:
            return None  # such as an integer that is compared with a half
        operands = [call.value, writer.constant(number)]
        if not negated:
            return writer.node(op_type, operands, name=call.name)
        return writer.node("Not", [writer.node(op_type, operands)], name=call.name)

    return emit


def _logical_not(writer: OnnxWriter, call: Call) -> str | None:
    if call.inputs[0].dtype != torch.bool:
        return None
    return writer.node("Not", [call.value], name=call.name)


def _masked_fill(writer: OnnxWriter, call: Call) -> str | None:
    if call.inputs[0].dtype != torch.float32 or call.inputs[1].dtype != torch.bool:
        return None
    filler = writer.scalar(float(call.arguments["value"]))
    operands = [str(call.arguments["mask"]), filler, call.value]
    return writer.node("Where", operands, name=call.name)


def _convert(writer: OnnxWriter, call: Call) -> str:
    if call.inputs[0].dtype == call.output.dtype:
        return call.value
    return writer.cast(call.value, str(call.output.dtype).removeprefix("torch."))


def _sum(writer: OnnxWriter, call: Call) -> str | None:
    axes = call.arguments.get("dim")
    if not axes or call.inputs[0].dtype != call.output.dtype:
        return None
    constant = writer.constant(np.array([int(a) for a in axes], np.int64))
    return writer.node(
        "ReduceSum", [call.value, constant], name=call.name,
        keepdims=int(call.arguments["keepdim"]),
    )  # fmt: skip


def _vector_norm(writer: OnnxWriter, call: Call) -> str | None:
    axes = call.arguments.get("dim")
    if not axes or call.arguments["ord"] != 2 or call.arguments.get("dtype") is not None:
        return None
    constant = writer.constant(np.array([int(a) for a in axes], np.int64))
    return writer.node(
        "ReduceL2", [call.value, constant], name=call.name,
        keepdims=int(call.arguments["keepdim"]),
    )  # fmt: skip


def _linear(writer: OnnxWriter, call: Call) -> str:
    """One that is no layer: its weight is computed, or it reads constants alone."""
    weight = writer.node("Transpose", [str(call.arguments["weight"])], perm=[1, 0])
    operands, bias = [str(call.arguments["input"]), weight], call.arguments["bias"]
    if bias is None:
        return writer.node("MatMul", operands, name=call.name)
    return writer.node("Add", [writer.node("MatMul", operands), str(bias)], name=call.name)


def _floats_only(emit: Emitter) -> Emitter:
    """For operators whose constants are written as floats."""

    def guarded(writer: OnnxWriter, call: Call) -> str | None:
        floats = call.output.is_float and all(extent.is_float for extent in call.inputs)
        return emit(writer, call) if floats else None

    return guarded


def _cat(writer: OnnxWriter, call: Call) -> str:
    axis = int(call.arguments["dim"]) % call.output.rank
    return writer.node("Concat", call.arguments["tensors"], name=call.name, axis=axis)


def _bilinear(writer: OnnxWriter, call: Call) -> str | None:
    if call.arguments["align_corners"] or call.output.is_free(2) or call.output.is_free(3):
        return None
    height, width = call.output.constants[2:]
    size = writer.constant(np.array([height, width], np.int64))
    resized = writer.node(
        "Resize", [str(call.arguments["input"]), "", "", size], name=call.name,
        axes=[2, 3], mode="linear", coordinate_transformation_mode="half_pixel",
    )  # fmt: skip
    # shape inference loses the batch here: runtimes would then fuse no residual addition after it
    writer.declared.append(value_info(resized, call.output))
    return resized


def _identity(writer: OnnxWriter, call: Call) -> str:
    return call.value


#: aten overload, without "aten." and without the overload's name where all of them are alike.
OPERATORS: Mapping[str, Emitter] = {
    "relu": _unary("Relu"),
    "sigmoid": _unary("Sigmoid"),
    "tanh": _unary("Tanh"),
    "hardswish": _unary("HardSwish"),
    "hardsigmoid": _unary("HardSigmoid", alpha=1.0 / 6.0, beta=0.5),
    "exp": _unary("Exp"),
    "sqrt": _unary("Sqrt"),
    "abs": _unary("Abs"),
    "neg": _unary("Neg"),
    "erf": _unary("Erf"),
    "softplus": lambda writer, call: (
        writer.node("Softplus", [call.value], name=call.name)
        if call.arguments["beta"] == 1
        else None
    ),
    "mish": _unary("Mish"),
    "hardtanh": _hardtanh,
    "relu6": _relu6,
    "clamp.default": _clamp,
    "clamp_min.default": _clamp_min,
    "silu": _silu,
    "gelu": _gelu,
    "leaky_relu": _leaky_relu,
    "elu": _elu,
    "add.Tensor": _binary("Add"),
    "sub.Tensor": _binary("Sub"),
    "rsub.Scalar": _reversed(_binary("Sub")),
    "mul.Tensor": _binary("Mul"),
    "div.Tensor": _binary("Div"),
    "matmul": _binary("MatMul"),
    "linear.default": _linear,
    "linalg_vector_norm.default": _vector_norm,
    "pow.Tensor_Scalar": _pow,
    "softmax.int": _softmax("Softmax"),
    "log_softmax.int": _softmax("LogSoftmax"),
    "max_pool2d": _max_pool,
    "avg_pool2d": _avg_pool,
    "adaptive_avg_pool2d": _adaptive_avg_pool,
    "mean.dim": _mean,
    "cat": _cat,
    "upsample_bilinear2d.vec": _bilinear,
    "permute": _permute,
    "transpose.int": _transpose,
    "flatten": _reshape,
    "view.default": _reshape,
    "reshape": _reshape,
    "unflatten.int": _reshape,
    "squeeze": _reshape,
    "unsqueeze": _unsqueeze,
    "eq.Scalar": _compare("Equal"),
    "ne.Scalar": _compare("Equal", negated=True),
    "gt.Scalar": _compare("Greater"),
    "lt.Scalar": _compare("Less"),
    "masked_fill.Scalar": _masked_fill,
    "logical_not": _logical_not,
    "bitwise_not": _logical_not,
    "to.dtype": _convert,
    "_to_copy": _convert,
    "sum.dim_IntList": _sum,
    "dropout": _identity,
    "contiguous": _identity,
    "clone": _identity,
    "detach": _identity,
    "alias": _identity,
    **SHAPE_OPERATORS,
}


#: Operators that are written alike for tensors of any type.
_ANY_TYPE = frozenset(
    {
        "eq.Scalar", "ne.Scalar", "gt.Scalar", "lt.Scalar", "logical_not", "bitwise_not",
        "masked_fill.Scalar", "to.dtype", "_to_copy", "sum.dim_IntList", "cat", "permute",
        "transpose.int", "flatten", "view.default", "reshape", "unflatten.int", "squeeze",
        "unsqueeze", "dropout", "contiguous", "clone", "detach", "alias", "select.int",
        "slice.Tensor", "expand", "index.Tensor",
    }
)  # fmt: skip


def emitter(target: Any) -> Emitter | None:
    """The emitter of an aten overload, or None."""
    name = str(target).removeprefix("aten.")
    base = name.rpartition(".")[0]
    found = OPERATORS.get(name) or OPERATORS.get(base)
    if found is None or name in _ANY_TYPE or base in _ANY_TYPE:
        return found
    return _floats_only(found)


def emit_norm(writer: OnnxWriter, module: nn.Module, value: str, name: str) -> str | None:
    """A norm (or a module that leaves nothing behind), or None when it is another module."""
    if isinstance(module, nn.Dropout | nn.Identity):
        return value
    if isinstance(module, nn.LayerNorm):
        shape = tuple(module.normalized_shape)
        operands = [value, _weights(writer, module.weight, shape, 1.0)]
        if module.bias is not None:
            operands.append(_weights(writer, module.bias, shape, 0.0))
        return writer.node(
            "LayerNormalization", operands, name=name, axis=-len(shape), epsilon=module.eps
        )
    if isinstance(module, nn.GroupNorm):
        shape = (module.num_channels,)
        operands = [
            value,
            _weights(writer, module.weight, shape, 1.0),
            _weights(writer, module.bias, shape, 0.0),
        ]
        return writer.node(
            "GroupNormalization", operands, name=name,
            num_groups=module.num_groups, epsilon=module.eps,
        )  # fmt: skip
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        shape = (module.num_features,)
        operands = [
            value,
            _weights(writer, module.weight, shape, 1.0),
            _weights(writer, module.bias, shape, 0.0),
            _weights(writer, module.running_mean, shape, 0.0),
            _weights(writer, module.running_var, shape, 1.0),
        ]
        return writer.node("BatchNormalization", operands, name=name, epsilon=module.eps)
    return None


def _weights(
    writer: OnnxWriter, tensor: torch.Tensor | None, shape: tuple[int, ...], default: float
) -> str:
    if tensor is None:
        return writer.constant(np.full(shape, default, np.float32))
    return writer.constant(tensor.detach().cpu().numpy().astype(np.float32))
