"""Models of one plain kernel have its types and shapes, and run on any runtime."""

from __future__ import annotations

from importlib.util import find_spec

import onnx
import pytest

from autocompress.errors import DeviceError
from autocompress.graph.precision import quantized_tensors
from autocompress.hardware.lowerings.registry import load_lowering
from autocompress.measurement.kernel_models import COPIES, KernelTime, kernel_model, time_kernels
from autocompress.measurement.kernels import KernelSignature, TensorType
from autocompress.measurement.networks import reference_networks
from autocompress.measurement.plain_models import carriers, plain_model
from autocompress.measurement.protocol import TimingProtocol
from autocompress.runtimes.registry import load_runtime

QUICK = TimingProtocol("quick", warmup=1, batch_us=5, min_runs=3, min_seconds=0, passes=1)


def alike(kernel: KernelSignature) -> object:
    """What decides how a kernel's model is written; one of each is enough."""
    dtypes = tuple(t.dtype for t in kernel.inputs if t is not None)
    names = tuple(name for name, _ in kernel.attributes)
    return kernel.op, dtypes, kernel.outputs[0].dtype, len(kernel.outputs[0].shape), names


def kernels(lowering: str) -> list[KernelSignature]:
    lower = load_lowering(lowering)
    found: dict[object, KernelSignature] = {}
    for network in reference_networks(36, seed=31):
        for _, kernel in lower(network.ops, quantized_tensors(network.ops)):
            if not kernel.is_view:
                found.setdefault(alike(kernel), kernel)
    return list(found.values())


PLAIN, OPENVINO = kernels("plain"), kernels("openvino-cpu")
MORE = [
    "plain:Concat|f32[1,8,8,16];f32[1,8,8,32]|f32[1,8,8,48]|axis=3;channels_last=1",
    "plain:Concat|u8[1,16,8,8];u8[1,32,8,8]|u8[1,48,8,8]|axis=1",
    "plain:HardSwish|u8[1,8,8,32]|u8[1,8,8,32]|channels_last=1",
    "plain:Silu|f32[1,64]|f32[1,64]|",
    "plain:AveragePool|u8[1,8,8,16]|u8[1,4,4,16]|channels_last=1;kernel_shape=[2,2];strides=[2,2]",
    'plain:Gemm|f32[1,4,64];c:f32[32,64];c:f32[32]|f32[1,4,32]|activation="gelu"',
    "plain:MatMul|f32[1,2,4,8];f32[1,2,8,4]|f32[1,2,4,4]|",
    "plain:Softmax|f32[1,10]|f32[1,10]|axis=-1",
    "plain:Mul|f32[1,8,8,16];f32[1,1,1,16]|f32[1,8,8,16]|channels_last=1",
    "plain:Add|f32[1,16,8,8];c:f32[]|f32[1,16,8,8]|",
    "plain:Transpose|f32[1,4,2,8]|f32[1,2,4,8]|perm=[0,2,1,3]",
]
ALL = [*PLAIN, *OPENVINO, *(KernelSignature.parse(key) for key in MORE)]


def types(values: object) -> list[TensorType]:
    found = []
    for value in values:  # type: ignore[attr-defined]
        tensor = value.type.tensor_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
        found.append(TensorType(dtype, tuple(d.dim_value for d in tensor.shape.dim)))
    return found


def test_there_is_one_of_every_kind() -> None:
    operators = {kernel.op for kernel in (*PLAIN, *OPENVINO)}
    assert operators >= {
        "plain:Conv", "plain:Gemm", "plain:Add", "plain:MaxPool", "plain:GlobalAveragePool",
        "plain:Quantize", "plain:Dequantize", "plain:Transpose",
    }  # fmt: skip


@pytest.mark.parametrize("kernel", ALL, ids=lambda kernel: kernel.key[:60])
def test_inputs_and_outputs_are_the_kernels(kernel: KernelSignature) -> None:
    model = onnx.load_from_string(plain_model(kernel, copies=2))
    onnx.checker.check_model(model, full_check=True)
    read = [t for t in kernel.inputs if t is not None and not t.constant]
    assert types(model.graph.input) == read * 2
    assert types(model.graph.output) == [*kernel.outputs] * 2
    session = load_runtime().load(model.SerializeToString())
    made = session.run([spec.zeros() for spec in session.inputs])
    assert [array.shape for array in made] == [kernel.outputs[0].shape] * 2


def test_every_constant_is_in_the_model() -> None:
    kernel = KernelSignature.parse(
        'plain:Conv|u8[1,8,8,16];c:i8[32,16,3,3];c:i32[32]|u8[1,8,8,32]|activation="relu";'
        "channels_last=1;pads=[1,1,1,1]"
    )
    model = onnx.load_from_string(kernel_model(kernel, copies=COPIES))
    stored = [t for t in model.graph.initializer if t.dims == [32, 16, 3, 3]]
    assert len(stored) == COPIES
    assert {t.data_type for t in stored} == {onnx.TensorProto.INT8}
    assert len({t.raw_data for t in stored}) == COPIES


@pytest.mark.parametrize(
    ("key", "count"),
    [
        ("plain:Conv|f32[1,8,8,16];c:f32[32,16,1,1]|f32[1,8,8,32]|channels_last=1", 0),
        ("plain:Conv|f32[1,8,8,16];c:f32[32,16,1,1]|u8[1,8,8,32]|channels_last=1", 1),
        (
            "plain:Conv|f32[1,8,8,16];c:f32[32,16,1,1];f32[1,8,8,32]|f32[1,8,8,32]|channels_last=1",
            2,
        ),
        ("plain:Conv|f32[1,16,8,8];c:f32[32,16,1,1]|u8[1,32,8,8]|", 0),
        ("plain:GlobalAveragePool|u8[1,8,8,16]|u8[1,16]|channels_last=1", 1),
        ("plain:Transpose|f32[1,3,8,8]|f32[1,8,8,3]|perm=[0,2,3,1]", 1),
        ("plain:Transpose|f32[1,4,2,8]|f32[1,2,4,8]|perm=[0,2,1,3]", 0),
        ("plain:Gemm|f32[1,16];c:f32[10,16]|u8[1,10]|", 0),
    ],
)
def test_carriers(key: str, count: int) -> None:
    found = carriers(KernelSignature.parse(key))
    assert len(found) == count
    for carrier in found:
        assert carriers(carrier) == ()
        assert KernelSignature.parse(carrier.key) == carrier


def test_plain_kernels_are_timed_on_any_runtime() -> None:
    wanted = [*OPENVINO[:6], KernelSignature.parse("plain:Nope|f32[1,4]|f32[1,4]|")]
    *times, missing = time_kernels(wanted, load_runtime(), QUICK)
    assert all(isinstance(found, KernelTime) for found in times)
    assert isinstance(missing, DeviceError)
    assert "plain:Nope" in str(missing)


@pytest.mark.skipif(
    find_spec("openvino") is None, reason='needs pip install "autocompress[openvino]"'
)
def test_openvino_executes_nothing_else() -> None:
    runtime = load_runtime("openvino")
    layers = {"plain:Conv": "Convolution", "plain:Gemm": "FullyConnected"}
    for kernel in OPENVINO:
        if kernel.op not in layers:
            continue
        executed = [k for k in runtime.kernels(plain_model(kernel)) if k.op_type != "Reshape"]
        assert [k.op_type for k in executed].count(layers[kernel.op]) == 1 + len(carriers(kernel))
        (weight,) = (t for t in kernel.inputs if t is not None and t.constant and len(t.shape) > 1)
        dtypes = {s.dtype for k in executed for s in k.inputs if s is not None and s.constant}
        assert weight.dtype in dtypes, kernel.key
        names = {k.op_type for k in executed} - {layers[kernel.op]}
        assert names <= {"Reorder", "Transpose"}, kernel.key
