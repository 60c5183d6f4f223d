"""OpenVINO on the CPU: the second runtime, an extra. Its telemetry is off before it is imported."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

import numpy as np

from autocompress.core.capabilities import CPU_PRECISIONS, Capabilities
from autocompress.errors import DeviceError, MissingExtraError, RequestError
from autocompress.runtimes.base import (
    Arithmetic,
    Array,
    AttributeValue,
    KernelNode,
    TensorSpec,
)
from autocompress.runtimes.common import example_shape, feeds, fingerprint_of
from autocompress.runtimes.external_data import check_external_data

_DEVICE = "CPU"
#: Compiled forms of a model that are kept, one for each shape of its inputs.
_FORMS = 4
#: Several operations compiled together.
_SUBGRAPH = "Subgraph"
#: Nodes that may multiply by weights.
_LAYERS = frozenset({"Convolution", "FullyConnected", "MatMul", _SUBGRAPH})
#: What is behind the name of a layer whose bias is added on its own.
_WITHOUT_BIAS = "/WithoutBiases"
#: Layers of an executed graph that do no work.
_NO_WORK = frozenset({"Const", "Input", "Output"})
#: Element types as the executed graph writes them.
_DTYPES = {
    "f32": "float32",
    "f64": "float64",
    "f16": "float16",
    "u8": "uint8",
    "i8": "int8",
    "u16": "uint16",
    "i16": "int16",
    "i32": "int32",
    "i64": "int64",
    "boolean": "bool",
}


def import_openvino() -> ModuleType:
    """The ``openvino`` module; its tools never find the package that would send telemetry.

    Raises:
        MissingExtraError: it is not installed.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError("openvino", "openvino") from error
    return openvino  # type: ignore[no-any-return]


class OpenVinoSession:
    """A loaded model, compiled anew for each shape of its inputs.

    Compiled for fixed shapes a model runs as fast as it can; that is what is timed, and what a
    deployed file should be reshaped to as well.
    """

    def __init__(self, model: Any, core: Any, config: Mapping[str, Any]) -> None:
        self._openvino = import_openvino()
        self._model = model
        self._core = core
        self._config = dict(config)
        specs, metadata = (_spec(port) for port in model.inputs), _metadata(model)
        self._inputs = tuple(replace(s, example=example_shape(metadata, s)) for s in specs)
        self._outputs = tuple(_spec(port) for port in model.outputs)
        self._compiled: dict[tuple[tuple[int, ...], ...], Any] = {}

    @property
    def inputs(self) -> Sequence[TensorSpec]:
        """The model's inputs, in order."""
        return self._inputs

    @property
    def outputs(self) -> Sequence[TensorSpec]:
        """The model's outputs, in order."""
        return self._outputs

    def compiled(self, shapes: tuple[tuple[int, ...], ...]) -> Any:
        """The model compiled for inputs of these shapes.

        Raises:
            DeviceError: it does not take them.
        """
        if shapes not in self._compiled:
            while len(self._compiled) >= _FORMS:
                del self._compiled[next(iter(self._compiled))]
            try:
                model = self._model
                if any(
                    spec.shape != shape for spec, shape in zip(self._inputs, shapes, strict=True)
                ):
                    model = model.clone()
                    model.reshape(dict(enumerate(map(list, shapes))))
                self._compiled[shapes] = self._core.compile_model(model, _DEVICE, self._config)
            except Exception as error:
                raise DeviceError(
                    f"OpenVINO cannot compile the model for inputs of shape {list(shapes)}: {error}"
                ) from error
        return self._compiled[shapes]

    def run(self, inputs: Mapping[str, Array] | Sequence[Array]) -> list[Array]:
        """Outputs for one batch, in order of :attr:`outputs`."""
        arrays = self._arrays(inputs)
        compiled = self.compiled(tuple(array.shape for array in arrays))
        try:
            results = compiled.create_infer_request().infer(dict(enumerate(arrays)))
        except Exception as error:
            raise DeviceError(f"OpenVINO cannot run the model: {error}") from error
        return [np.array(results[port]) for port in compiled.outputs]

    def bound(self, inputs: Mapping[str, Array]) -> Callable[[], None]:
        """A call without arguments: one synchronous request with its tensors set once."""
        tensor = self._openvino.Tensor
        arrays = self._arrays(inputs)
        compiled = self.compiled(tuple(array.shape for array in arrays))
        request = compiled.create_infer_request()
        held = [tensor(array) for array in arrays]
        for index, value in enumerate(held):
            request.set_input_tensor(index, value)
        for index, array in enumerate(self.run(inputs)):
            held.append(tensor(array))
            request.set_output_tensor(index, held[-1])
        # the C++ call itself, in this thread: the Python wrapper only looks for inputs to copy
        binding: Any = super(type(request), request)
        call = functools.partial(binding.infer, {}, True, False)
        call.held = (self, compiled, request, held)  # type: ignore[attr-defined]
        return call

    def _arrays(self, inputs: Mapping[str, Array] | Sequence[Array]) -> list[Array]:
        return [np.ascontiguousarray(array) for array in feeds(self._inputs, inputs).values()]


class OpenVinoRuntime:
    """OpenVINO's CPU plug-in, one request at a time for the shortest latency."""

    @property
    def name(self) -> str:
        """``"openvino"``."""
        return "openvino"

    @cached_property
    def version(self) -> str:
        """Version of the installed package."""
        return str(import_openvino().__version__).partition("-")[0]

    @property
    def options(self) -> Mapping[str, str]:
        """Device, hint, streams, pinning and the precision of float layers."""
        return MappingProxyType(
            {
                "execution_provider": "cpu",
                "performance_hint": "latency",
                "streams": "1",
                "pinning": "off",
                "inference_precision": "f32",
            }
        )

    @property
    def fingerprint(self) -> str:
        """Name, version and options in one line."""
        return fingerprint_of(self.name, self.version, self.options)

    @property
    def lowering(self) -> str:
        """``"openvino-cpu"``."""
        return "openvino-cpu"

    @property
    def capabilities(self) -> Capabilities:
        """Every form that the exporter writes but 2-bit weights, which it cannot load (2026.4)."""
        return Capabilities(precisions=tuple(p for p in CPU_PRECISIONS if p.weight_bits != 2))

    @cached_property
    def _core(self) -> Any:
        return import_openvino().Core()

    def load(
        self, path: str | Path | bytes, *, threads: int = 1, optimize: bool = True
    ) -> OpenVinoSession:
        """Open a model; see :meth:`autocompress.runtimes.base.Runtime.load`.

        OpenVINO always optimises: ``optimize`` has no effect.
        """
        if threads < 1:
            raise RequestError(f"threads is {threads!r}; it must be at least 1")
        core = self._core
        if isinstance(path, bytes):
            source: dict[str, Any] = {"model": path}
            shown = f"a model of {len(path)} bytes"
        else:
            check_external_data(Path(path))
            source, shown = {"model": str(path)}, str(path)
        try:
            model = core.read_model(**source)
        except Exception as error:
            raise DeviceError(f"OpenVINO {self.version} cannot load {shown}: {error}") from error
        session = OpenVinoSession(model, core, _config(threads))
        if all(d is not None for spec in session.inputs for d in spec.shape):
            session.compiled(tuple(spec.zeros().shape for spec in session.inputs))
        return session

    def kernels(self, path: str | Path | bytes, *, threads: int = 1) -> tuple[KernelNode, ...]:
        """Layers of the executed graph at batch 1, with what was fused into each."""
        session = self.load(path, threads=threads)
        compiled = session.compiled(tuple(spec.zeros().shape for spec in session.inputs))
        return _nodes(compiled.get_runtime_model())

    def layers(self, kernel: KernelNode) -> Sequence[Arithmetic]:
        """By the type of the activations; a compiled subgraph may hold several layers."""
        if kernel.op_type not in _LAYERS:
            return ()
        constants = [s for s in kernel.inputs if s is not None and s.constant and len(s.shape) > 1]
        if kernel.op_type == _SUBGRAPH:
            fused = str(dict(kernel.attributes)["fused"]).split(",")
            biased = sum(name.endswith(_WITHOUT_BIAS) for name in fused)
            # what is no weight has a single row there, or more than two dimensions
            held = max(biased, sum(len(s.shape) == 2 and s.shape[0] != 1 for s in constants))
        else:
            held = min(1, len(constants))
        first = kernel.inputs[0]
        integer = first is not None and first.dtype in ("uint8", "int8")
        return ("integer" if integer else "float",) * held


def _config(threads: int) -> dict[str, Any]:
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_PRECISION_HINT": "f32",
    }


def _metadata(model: Any) -> dict[str, str]:
    """The metadata of the file that a model was read from."""
    if "framework" not in model.rt_info:
        return {}
    return {str(key): str(value.value) for key, value in model.rt_info["framework"].items()}


def _spec(port: Any) -> TensorSpec:
    shape = tuple(d.get_length() if d.is_static else None for d in port.get_partial_shape())
    return TensorSpec(port.get_any_name(), port.get_element_type().to_dtype().name, shape)


def _nodes(graph: Any) -> tuple[KernelNode, ...]:
    """Layers in execution order; those made of constants run when the model is compiled."""
    made: dict[tuple[str, int], TensorSpec] = {}
    nodes: list[tuple[int, KernelNode]] = []
    for layer in graph.get_ordered_ops():
        about = {key: value.astype(str) for key, value in layer.get_rt_info().items()}
        kind = about["layerType"]
        name = layer.get_friendly_name()
        inputs = [
            made[source.get_node().get_friendly_name(), source.get_index()]
            for source in layer.input_values()
        ]
        constant = kind == "Const" or (bool(inputs) and all(s.constant for s in inputs))
        dtypes = about.get("outputPrecisions", "").split(",")
        outputs = []
        for index, port in enumerate(layer.outputs()):
            dtype = dtypes[min(index, len(dtypes) - 1)]
            shape = tuple(d.get_length() if d.is_static else None for d in port.get_partial_shape())
            spec = TensorSpec(f"{name}:{index}", _DTYPES.get(dtype, dtype), shape, constant)
            made[name, index] = spec
            outputs.append(spec)
        if constant or kind in _NO_WORK:
            continue
        attributes: tuple[tuple[str, AttributeValue], ...] = (
            ("fused", about.get("originalLayersNames", "")),
            ("layouts", about.get("outputLayouts", "")),
            ("precision", _DTYPES.get(about["runtimePrecision"], about["runtimePrecision"])),
            ("primitive", about.get("primitiveType", "")),
        )
        node = KernelNode("openvino", kind, tuple(inputs), tuple(outputs), attributes, name)
        nodes.append((int(about["execOrder"]), node))
    return tuple(node for _, node in sorted(nodes, key=lambda entry: entry[0]))
