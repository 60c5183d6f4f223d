"""A one-kernel ONNX model of a signature, as the runtime would execute it, and its time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from autocompress.errors import DeviceError, RequestError
from autocompress.measurement.kernels import (
    MICROSOFT,
    NCHWC,
    KernelSignature,
    TensorType,
    domain_of,
)
from autocompress.measurement.protocol import TimingProtocol
from autocompress.measurement.synthesis import OPSET
from autocompress.measurement.timer import Call, Timing, time_interleaved
from autocompress.runtimes.base import Array, Runtime

_IR_VERSION = 10
#: Copies with weights and activations of their own, so that a kernel finds none of them hot.
COPIES = 4
#: Kernels below this many bytes stay in the nearest caches either way.
_CONTEXT_BYTES = 32 * 1024


@dataclass(frozen=True, slots=True)
class KernelTime:
    """A kernel's time in microseconds, the run's own overhead taken off.

    Attributes:
        hot_us: run after run on the same weights and activations.
        ctx_us: among copies with weights and activations of their own.
        low_us: lower end of the interval of ``hot_us``.
        high_us: upper end of the interval of ``ctx_us``.
        runs: runs that count.
    """

    hot_us: float
    ctx_us: float
    low_us: float
    high_us: float
    runs: int


def empty_model() -> bytes:
    """A model without a node: what a run costs before any kernel starts."""
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 16))
    graph = helper.make_graph([], "empty", [value], [value])
    return _serialise(graph)


def kernel_model(signature: KernelSignature, *, copies: int = 1, seed: int = 0) -> bytes:
    """A serialised model of ``copies`` independent nodes with random constants.

    Raises:
        RequestError: the operator's type is not known to ONNX.
    """
    from onnx import helper

    rng = np.random.default_rng(seed)
    domain, op_type = domain_of(signature.op)
    attributes = {name: _plain(value) for name, value in signature.attributes}
    weight = signature.weight
    if op_type in {"Conv", "FusedConv", "QLinearConv"} and weight is not None:
        attributes["kernel_shape"] = list(weight.shape[2:])
    if attributes.get("activation") == "Clip":
        attributes["activation_params"] = [0.0, 6.0]
    if attributes.get("activation") == "LeakyRelu":
        attributes["activation_params" if "Conv" in op_type else "activation_alpha"] = (
            [0.01] if "Conv" in op_type else 0.01
        )
    if attributes.get("activation") in {"HardSigmoid", "HardSwish"} and "Conv" in op_type:
        attributes["activation_params"] = [1 / 6, 0.5]
    nodes, inputs, outputs, constants = [], [], [], []
    for copy in range(copies):
        names = []
        for position, tensor in enumerate(signature.inputs):
            if tensor is None:
                names.append("")
                continue
            name = f"i{copy}_{position}"
            names.append(name)
            if tensor.constant:
                constants.append(_initializer(name, _constant(signature, position, tensor, rng)))
            else:
                inputs.append(_info(name, tensor))
        results = [f"o{copy}_{i}" for i in range(len(signature.outputs))]
        outputs += [_info(n, t) for n, t in zip(results, signature.outputs, strict=True)]
        nodes.append(helper.make_node(op_type, names, results, domain=domain, **attributes))
    return _serialise(helper.make_graph(nodes, "kernel", inputs, outputs, constants))


def needs_copies(signature: KernelSignature) -> bool:
    """Whether it moves so much that its copies may be slower than itself, run after run."""
    return signature.weight_bytes + signature.activation_bytes >= _CONTEXT_BYTES


def kernel_calls(
    signature: KernelSignature, runtime: Runtime, *, threads: int
) -> tuple[Call, Call | None]:
    """Calls to time: the kernel alone, and its copies where those differ.

    Raises:
        DeviceError: the runtime has no such kernel.
    """
    hot = _call(kernel_model(signature), runtime, threads)
    if not needs_copies(signature):
        return hot, None
    return hot, _call(kernel_model(signature, copies=COPIES), runtime, threads)


def time_kernels(
    wanted: Sequence[KernelSignature],
    runtime: Runtime,
    protocol: TimingProtocol,
    *,
    threads: int = 1,
) -> list[KernelTime | DeviceError]:
    """Times of several kernels, taken in turns with the empty run that is subtracted.

    A kernel that the runtime cannot load gives the error in its place.
    """
    found: list[KernelTime | DeviceError | None] = [None] * len(wanted)
    calls: list[Call] = [_call(empty_model(), runtime, threads)]
    places: list[tuple[int, int, int | None]] = []
    for number, signature in enumerate(wanted):
        try:
            hot, copies = kernel_calls(signature, runtime, threads=threads)
        except DeviceError as error:
            found[number] = error
            continue
        calls.append(hot)
        at = len(calls) - 1
        if copies is not None:
            calls.append(copies)
        places.append((number, at, None if copies is None else at + 1))
    timings = time_interleaved(calls, protocol)
    for number, hot_at, copies_at in places:
        copied = None if copies_at is None else timings[copies_at]
        found[number] = kernel_time(timings[0], timings[hot_at], copied)
    return [entry for entry in found if entry is not None]


def time_empty(runtime: Runtime, protocol: TimingProtocol, *, threads: int = 1) -> Timing:
    """The time of a run without kernels."""
    return time_interleaved([_call(empty_model(), runtime, threads)], protocol)[0]


def kernel_time(empty: Timing, hot: Timing, copies: Timing | None) -> KernelTime:
    """A kernel's time from three timings: the empty run, the kernel, and its copies if any."""
    base = empty.value_us
    hot_us = max(0.0, hot.value_us - base)
    high = max(0.0, hot.high_us - base)
    ctx_us, runs = hot_us, hot.runs
    if copies is not None:
        ctx_us = max(0.0, (copies.value_us - base) / COPIES)
        high = max(high, (copies.high_us - base) / COPIES)
        runs += copies.runs
    return KernelTime(hot_us, ctx_us, max(0.0, hot.low_us - base), high, runs)


def _call(model: bytes, runtime: Runtime, threads: int) -> Call:
    session = runtime.load(model, threads=threads, optimize=False)
    rng = np.random.default_rng(0)
    return session.bound(
        {s.name: _activation(s.dtype, s.zeros().shape, rng) for s in session.inputs}
    )


def _activation(dtype: str, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    if dtype.startswith("float"):
        return np.asarray(rng.standard_normal(shape), dtype=dtype)
    if dtype == "bool":
        return np.asarray(rng.integers(0, 2, shape), dtype=bool)
    return np.asarray(rng.integers(0, 100, shape), dtype=dtype)


def _constant(
    signature: KernelSignature, position: int, tensor: TensorType, rng: np.random.Generator
) -> npt.NDArray[Any]:
    if tensor.values:
        return np.array(tensor.values, dtype=tensor.dtype).reshape(tensor.shape)
    if tensor.dtype.startswith("float"):
        if tensor.shape == () and signature.op_type == "Clip":
            return np.asarray(0.0 if position == 1 else 6.0, dtype=tensor.dtype)
        if len(tensor.shape) < 2 and signature.op_type not in {"Conv", "FusedConv", "Gemm"}:
            return np.full(tensor.shape, 0.02, dtype=tensor.dtype)
        fan_in = max(1, int(np.prod(tensor.shape[1:])))
        return np.asarray(rng.standard_normal(tensor.shape) * fan_in**-0.5, dtype=tensor.dtype)
    if len(tensor.shape) >= 2:
        return np.asarray(rng.integers(-127, 128, tensor.shape), dtype=tensor.dtype)
    if tensor.dtype == "int32":
        return np.asarray(rng.integers(-1000, 1000, tensor.shape), dtype=tensor.dtype)
    return np.zeros(tensor.shape, dtype=tensor.dtype)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _initializer(name: str, array: npt.NDArray[Any]) -> Any:
    from onnx import numpy_helper

    return numpy_helper.from_array(array, name)


def _info(name: str, tensor: TensorType) -> Any:
    from onnx import helper

    try:
        dtype = helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype))
    except (KeyError, ValueError, TypeError) as error:
        raise RequestError(f"element type {tensor.dtype!r} has no ONNX form") from error
    return helper.make_tensor_value_info(name, dtype, tensor.shape)


def _serialise(graph: Any) -> bytes:
    from onnx import helper

    opsets = [
        helper.make_opsetid("", OPSET),
        helper.make_opsetid(MICROSOFT, 1),
        helper.make_opsetid(NCHWC, 1),
    ]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)
    return bytes(model.SerializeToString())
