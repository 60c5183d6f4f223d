"""ONNX Runtime on the CPU: the first runtime. Telemetry is off before the library is imported."""

from __future__ import annotations

import functools
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

import numpy as np

from autocompress.core.capabilities import Capabilities
from autocompress.errors import DeviceError, RequestError
from autocompress.runtimes.base import Arithmetic, Array, KernelNode, TensorSpec
from autocompress.runtimes.common import example_shape, feeds, fingerprint_of
from autocompress.runtimes.external_data import check_external_data

_PROVIDERS = ["CPUExecutionProvider"]
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(uint16)": "uint16",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}
_PROFILE_DTYPES = {"float": "float32", "double": "float64"}
_VIEW_LIMIT = 16
_INTEGER_KERNELS = frozenset(
    {"QLinearConv", "QGemm", "QLinearMatMul", "MatMulIntegerToFloat", "ConvInteger",
     "MatMulInteger", "DynamicQuantizeMatMul"}
)  # fmt: skip
_FLOAT_KERNELS = frozenset(
    {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul", "NhwcFusedConv"}
)


def import_onnxruntime() -> ModuleType:
    """The ``onnxruntime`` module, with its telemetry switched off first."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    return onnxruntime  # type: ignore[no-any-return]


class OnnxSession:
    """A loaded ONNX model."""

    def __init__(self, session: Any, ort: ModuleType) -> None:
        self._session = session
        self._ort = ort
        self._inputs = _inputs(session)
        self._outputs = tuple(_spec(value) for value in session.get_outputs())

    @property
    def inputs(self) -> Sequence[TensorSpec]:
        """The model's inputs, in order."""
        return self._inputs

    @property
    def outputs(self) -> Sequence[TensorSpec]:
        """The model's outputs, in order."""
        return self._outputs

    def run(self, inputs: Mapping[str, Array] | Sequence[Array]) -> list[Array]:
        """Outputs for one batch, in order of :attr:`outputs`."""
        given = feeds(self._inputs, inputs)
        try:
            results: list[Array] = self._session.run(None, given)
        except Exception as error:
            raise DeviceError(f"ONNX Runtime cannot run the model: {error}") from error
        return results

    def bound(self, inputs: Mapping[str, Array]) -> Callable[[], None]:
        """A call without arguments that runs on inputs and outputs bound once."""
        binding = self._session.io_binding()
        values = [
            self._ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), "cpu")
            for array in inputs.values()
        ]
        for name, value in zip(inputs, values, strict=True):
            binding.bind_ortvalue_input(name, value)
        held = []
        outputs = self._session.run(None, dict(inputs))
        for spec, array in zip(self._outputs, outputs, strict=True):
            value = self._ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), "cpu")
            binding.bind_ortvalue_output(spec.name, value)
            held.append(value)
        # the C++ call itself: the Python wrapper only forwards to it
        call = functools.partial(self._session._sess.run_with_iobinding, binding._iobinding, None)
        call.held = (self, binding, values, held)  # type: ignore[attr-defined]
        return call


class OnnxRuntime:
    """ONNX Runtime's CPU execution provider.

    Args:
        spinning: whether idle worker threads spin; has no effect with one thread.
    """

    def __init__(self, *, spinning: bool = False) -> None:
        self._spinning = spinning

    @property
    def name(self) -> str:
        """``"onnxruntime"``."""
        return "onnxruntime"

    @cached_property
    def version(self) -> str:
        """Version of the installed package."""
        return str(import_onnxruntime().__version__)

    @property
    def options(self) -> Mapping[str, str]:
        """Execution provider, optimisation level, inter-op threads and spinning."""
        return MappingProxyType(
            {
                "execution_provider": "cpu",
                "optimization": "all",
                "inter_op_threads": "1",
                "spinning": "on" if self._spinning else "off",
            }
        )

    @property
    def fingerprint(self) -> str:
        """Name, version and options in one line."""
        return fingerprint_of(self.name, self.version, self.options)

    @property
    def lowering(self) -> str:
        """``"onnxruntime-cpu"``."""
        return "onnxruntime-cpu"

    @property
    def capabilities(self) -> Capabilities:
        """Every form that the exporter writes."""
        return Capabilities()

    def _session_options(self, threads: int, optimize: bool) -> Any:
        if threads < 1:
            raise RequestError(f"threads is {threads!r}; it must be at least 1")
        ort = import_onnxruntime()
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 4
        level = ort.GraphOptimizationLevel
        options.graph_optimization_level = (
            level.ORT_ENABLE_ALL if optimize else level.ORT_DISABLE_ALL
        )
        flag = "1" if self._spinning else "0"
        options.add_session_config_entry("session.intra_op.allow_spinning", flag)
        return options

    def load(
        self, path: str | Path | bytes, *, threads: int = 1, optimize: bool = True
    ) -> OnnxSession:
        """Open a model; see :meth:`autocompress.runtimes.base.Runtime.load`."""
        session = self._open(path, self._session_options(threads, optimize))
        return OnnxSession(session, import_onnxruntime())

    def _open(self, path: str | Path | bytes, options: Any) -> Any:
        source: str | bytes
        if isinstance(path, bytes):
            source, shown = path, f"a model of {len(path)} bytes"
        else:
            check_external_data(Path(path))
            source, shown = str(path), str(path)
        try:
            return import_onnxruntime().InferenceSession(source, options, providers=_PROVIDERS)
        except Exception as error:
            raise DeviceError(
                f"ONNX Runtime {self.version} cannot load {shown}: {error}"
            ) from error

    def kernels(self, path: str | Path | bytes, *, threads: int = 1) -> tuple[KernelNode, ...]:
        """Nodes of the optimised graph, from a dump of it and one profiled run for the shapes."""
        import onnx

        with tempfile.TemporaryDirectory(prefix="autocompress-") as folder:
            dump = Path(folder) / "optimized.onnx"
            options = self._session_options(threads, optimize=True)
            options.optimized_model_filepath = str(dump)
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "profile")
            session = self._open(path, options)
            zeros = {spec.name: spec.zeros() for spec in _inputs(session)}
            try:
                session.run(None, zeros)
            except Exception as error:
                raise DeviceError(f"ONNX Runtime cannot run the model: {error}") from error
            events = json.loads(Path(session.end_profiling()).read_text())
            graph = onnx.load(str(dump)).graph
            sources = _inputs(session)
        return _nodes(graph, _executed(events), sources)

    def layers(self, kernel: KernelNode) -> Sequence[Arithmetic]:
        """At most one, by the operator: each precision has its own."""
        if not any(s is not None and s.constant and len(s.shape) >= 2 for s in kernel.inputs):
            return ()
        if kernel.op_type in _INTEGER_KERNELS:
            return ("integer",)
        return ("float",) if kernel.op_type in _FLOAT_KERNELS else ()


def _spec(value: Any) -> TensorSpec:
    shape = tuple(d if isinstance(d, int) else None for d in value.shape)
    return TensorSpec(value.name, _DTYPES.get(value.type, value.type), shape)


def _inputs(session: Any) -> tuple[TensorSpec, ...]:
    metadata = session.get_modelmeta().custom_metadata_map
    specs = (_spec(value) for value in session.get_inputs())
    return tuple(replace(spec, example=example_shape(metadata, spec)) for spec in specs)


def _executed(events: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Arguments of each node's run in a profile, by node name, in execution order."""
    ending = "_kernel_time"
    return {
        event["name"][: -len(ending)]: event["args"]
        for event in events
        if event.get("cat") == "Node" and event["name"].endswith(ending)
    }


def _shapes(listed: Sequence[Mapping[str, list[int]]]) -> list[tuple[str, tuple[int, ...]]]:
    pairs = []
    for entry in listed:
        ((dtype, shape),) = entry.items()
        pairs.append((_PROFILE_DTYPES.get(dtype, dtype), tuple(shape)))
    return pairs


def _nodes(
    graph: Any, executed: Mapping[str, Mapping[str, Any]], sources: Sequence[TensorSpec]
) -> tuple[KernelNode, ...]:
    import onnx
    from onnx import numpy_helper

    constants = {tensor.name: tensor for tensor in graph.initializer}

    def constant(name: str) -> TensorSpec:
        tensor = constants[name]
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)).name
        values: tuple[int, ...] = ()
        if dtype == "int64" and np.prod(tensor.dims) <= _VIEW_LIMIT:
            values = tuple(int(v) for v in numpy_helper.to_array(tensor).ravel())
        return TensorSpec(name, dtype, tuple(tensor.dims), constant=True, values=values)

    by_name = {node.name: node for node in graph.node if node.name}
    unnamed: dict[str, list[Any]] = {}
    for node in graph.node:  # inlined functions: the profile names them by operator and index
        if not node.name:
            unnamed.setdefault(node.op_type, []).append(node)
    known = {spec.name: TensorSpec(spec.name, spec.dtype, spec.zeros().shape) for spec in sources}
    nodes = []
    for name, arguments in executed.items():
        node = by_name.get(name)
        if node is None and unnamed.get(arguments["op_name"]):
            node = unnamed[arguments["op_name"]].pop(0)
        if node is None:
            raise DeviceError(f"ONNX Runtime executed node {name!r}, which its graph lacks")
        made = _shapes(arguments["output_type_shape"])
        for value, (dtype, shape) in zip(node.output, made, strict=False):
            known[value] = TensorSpec(value, dtype, shape)
        inputs = tuple(
            constant(value) if value in constants else known.get(value) if value else None
            for value in node.input
        )
        outputs = tuple(known[value] for value in node.output if value in known)
        attributes = sorted((a.name, _attribute(a)) for a in node.attribute)
        domain = "" if node.domain == "ai.onnx" else node.domain
        nodes.append(KernelNode(domain, node.op_type, inputs, outputs, tuple(attributes), name))
    return tuple(nodes)


def _attribute(attribute: Any) -> int | float | str | tuple[int, ...] | tuple[float, ...]:
    import onnx

    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, int | float):
        return value
    if isinstance(value, Sequence):
        return tuple(value)
    return type(value).__name__
