"""A one-kernel ONNX model of a signature, as the runtime would execute it, and its time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from autocompress.errors import DeviceError, RequestError
from autocompress.measurement.kernels import (
    MICROSOFT,
    NCHWC,
    PLAIN,
    KernelSignature,
    TensorType,
    domain_of,
)
from autocompress.measurement.plain_models import carriers, plain_model
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


def empty_model(inputs: int = 1, outputs: int = 1) -> bytes:
    """A model without a node: what a run costs before any kernel starts.

    Args:
        inputs: how many it has.
        outputs: how many of them it returns.
    """
    from onnx import TensorProto, helper

    values = [
        helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, (1, 16)) for i in range(inputs)
    ]
    return _serialise(helper.make_graph([], "empty", values, values[:outputs]))


def is_plain(signature: KernelSignature) -> bool:
    """Whether it is an operation of the model, for the runtime to load as any other model."""
    return domain_of(signature.op)[0] == PLAIN


def kernel_model(signature: KernelSignature, *, copies: int = 1, seed: int = 0) -> bytes:
    """A serialised model of ``copies`` independent nodes with random constants.

    Raises:
        RequestError: the operator's type is not known to ONNX.
        DeviceError: there is no way to write such a plain kernel.
    """
    from onnx import helper

    if is_plain(signature):
        return plain_model(signature, copies=copies, seed=seed)
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
            elif op_type == "Expand" and position == 1:  # a shape, not any integers
                constants.append(_initializer(name, np.array(signature.outputs[0].shape)))
            else:
                inputs.append(_info(name, tensor))
        results = [f"o{copy}_{i}" for i in range(len(signature.outputs))]
        outputs += [_info(n, t) for n, t in zip(results, signature.outputs, strict=True)]
        nodes.append(helper.make_node(op_type, names, results, domain=domain, **attributes))
    return _serialise(helper.make_graph(nodes, "kernel", inputs, outputs, constants))


def needs_copies(signature: KernelSignature) -> bool:
    """Whether it moves so much that its copies may be slower than itself, run after run."""
    return signature.weight_bytes + signature.activation_bytes >= _CONTEXT_BYTES


class _Calls:
    """Calls to time together; what several kernels need is there once."""

    def __init__(self, runtime: Runtime, threads: int) -> None:
        self._runtime = runtime
        self._threads = threads
        self._places: dict[object, int] = {}
        self.calls: list[Call] = []

    def _add(self, key: object, model: Callable[[], bytes], *, optimize: bool) -> int:
        if key not in self._places:
            self.calls.append(_call(model(), self._runtime, self._threads, optimize=optimize))
            self._places[key] = len(self.calls) - 1
        return self._places[key]

    def kernel(self, signature: KernelSignature, copies: int) -> tuple[int, list[tuple[int, int]]]:
        """Place of a kernel's call, and places of what is taken off or given back, with the sign.

        Raises:
            DeviceError: the runtime has no such kernel.
        """
        plain = is_plain(signature)
        place = self._add(
            (signature.key, copies),
            lambda: kernel_model(signature, copies=copies),
            optimize=plain,
        )
        ends = _ends(signature, copies)
        terms = [(self._add(ends, lambda: empty_model(*ends), optimize=plain), -1)]
        for carrier in carriers(signature) if plain else ():
            at, others = self.kernel(carrier, copies)
            terms += [(at, -1), *((other, -sign) for other, sign in others)]
        return place, terms


def time_kernels(
    wanted: Sequence[KernelSignature],
    runtime: Runtime,
    protocol: TimingProtocol,
    *,
    threads: int = 1,
) -> list[KernelTime | DeviceError]:
    """Times of several kernels, taken in turns with what is subtracted (the empty run first).

    A kernel that the runtime cannot load gives the error in its place.
    """
    made = _Calls(runtime, threads)
    entries: list[DeviceError | list[tuple[int, list[tuple[int, int]]]]] = []
    for signature in wanted:
        try:
            counts = (1, COPIES) if needs_copies(signature) else (1,)
            entries.append([made.kernel(signature, copies) for copies in counts])
        except DeviceError as error:
            entries.append(error)
    timings = time_interleaved(made.calls, protocol)
    found: list[KernelTime | DeviceError] = []
    for entry in entries:
        if isinstance(entry, DeviceError):
            found.append(entry)
            continue
        hot, *context = [
            (timings[place], -sum(sign * timings[at].value_us for at, sign in terms))
            for place, terms in entry
        ]
        found.append(_kernel_time(hot, context[0] if context else None))
    return found


def _ends(signature: KernelSignature, copies: int) -> tuple[int, int]:
    """Inputs and outputs of the empty model whose time is taken off.

    A plain kernel's model goes through everything that the runtime does with inputs and outputs.
    """
    if not is_plain(signature):
        return 1, 1
    read = sum(t is not None and not t.constant for t in signature.inputs)
    return read * copies, len(signature.outputs) * copies


def time_empty(runtime: Runtime, protocol: TimingProtocol, *, threads: int = 1) -> Timing:
    """The time of a run without kernels."""
    return time_interleaved([_call(empty_model(), runtime, threads)], protocol)[0]


def kernel_time(empty: Timing, hot: Timing, copies: Timing | None) -> KernelTime:
    """From the timings of the empty run, of a kernel, and of its copies where they were timed."""
    among = None if copies is None else (copies, empty.value_us)
    return _kernel_time((hot, empty.value_us), among)


def _kernel_time(hot: tuple[Timing, float], copies: tuple[Timing, float] | None) -> KernelTime:
    """From the timings of a kernel and of its copies, each with what is taken off."""
    alone, base = hot
    hot_us = max(0.0, alone.value_us - base)
    high = max(0.0, alone.high_us - base)
    ctx_us, runs = hot_us, alone.runs
    if copies is not None:
        among, base_among = copies
        ctx_us = max(0.0, (among.value_us - base_among) / COPIES)
        high = max(high, (among.high_us - base_among) / COPIES)
        runs += among.runs
    return KernelTime(hot_us, ctx_us, max(0.0, alone.low_us - base), high, runs)


def _call(model: bytes, runtime: Runtime, threads: int, *, optimize: bool = False) -> Call:
    session = runtime.load(model, threads=threads, optimize=optimize)
    # copies get equal values: a kernel that branches on them, such as an integer max pool, is as
    # predictable in a network that is timed on one input
    return session.bound(
        {
            s.name: _activation(s.dtype, s.zeros().shape, np.random.default_rng(0))
            for s in session.inputs
        }
    )


def _activation(dtype: str, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    if dtype.startswith("float"):
        return np.asarray(rng.standard_normal(shape), dtype=dtype)
    if dtype == "bool":
        return np.asarray(rng.integers(0, 2, shape), dtype=bool)
    if dtype in ("int64", "int32"):  # numbers of rows, which even a small table has
        return np.asarray(rng.integers(0, 2, shape), dtype=dtype)
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
            # scales differ, as in a network: codes of equal scales would only be copied
            return np.full(tensor.shape, 0.02 + 0.001 * position, dtype=tensor.dtype)
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
