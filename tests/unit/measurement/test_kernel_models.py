"""One-kernel models load and run in the form the runtime executes."""

from __future__ import annotations

import pytest

from autocompress.errors import DeviceError
from autocompress.measurement.kernel_models import (
    COPIES,
    KernelTime,
    empty_model,
    kernel_model,
    time_kernels,
)
from autocompress.measurement.kernels import KernelSignature
from autocompress.measurement.protocol import TimingProtocol
from autocompress.runtimes.registry import load_runtime

QUICK = TimingProtocol("quick", warmup=1, batch_us=5, min_runs=3, min_seconds=0, passes=1)
Q = "c:f32[];c:u8[]"
KEYS = [
    "nchwc:Conv|f32[1,16,8,8];c:f32[16,16,3,3];c:f32[16];f32[1,16,8,8]|f32[1,16,8,8]|"
    'activation="Relu";pads=[1,1,1,1]',
    "nchwc:Conv|f32[1,16,8,8];c:f32[16,1,3,3];c:f32[16]|f32[1,16,8,8]|"
    'activation="Clip";group=16;pads=[1,1,1,1]',
    "nchwc:ReorderInput|f32[1,16,8,8]|f32[1,16,8,8]|",
    "nchwc:ReorderOutput|f32[1,16,8,8]|f32[1,10,8,8]|channels=10",
    "nchwc:GlobalAveragePool|f32[1,16,8,8]|f32[1,16,1,1]|",
    f"ms:QLinearConv|u8[1,8,8,16];{Q};c:i8[32,16,3,3];c:f32[32];c:i8[];{Q};c:i32[32]"
    "|u8[1,8,8,32]|channels_last=1;pads=[1,1,1,1]",
    f"ms:QGemm|u8[1,64];{Q};c:i8[10,64];c:f32[10];c:i8[10];c:i32[10]|f32[1,10]|transB=1",
    f"ms:QLinearAdd|u8[1,8,8,16];{Q};u8[1,8,8,16];{Q};{Q}|u8[1,8,8,16]|",
    f"QuantizeLinear|f32[1,16,8,8];{Q}|u8[1,16,8,8]|",
    f"DequantizeLinear|u8[1,16,8,8];{Q}|f32[1,16,8,8]|",
    "Transpose|u8[1,16,8,8]|u8[1,8,8,16]|perm=[0,2,3,1]",
    "ms:NhwcMaxPool|u8[1,8,8,16]|u8[1,4,4,16]|kernel_shape=[2,2];strides=[2,2]",
    'ms:FusedGemm|f32[1,64];c:f32[32,64];c:f32[32]|f32[1,32]|activation="Relu";transB=1',
    "Add|f32[1,16,8,8];f32[1,16,8,8]|f32[1,16,8,8]|",
]


def test_every_deployed_form_runs() -> None:
    kernels = [KernelSignature.parse(key) for key in KEYS]
    times = time_kernels(kernels, load_runtime(), QUICK)
    for kernel, found in zip(kernels, times, strict=True):
        assert isinstance(found, KernelTime), kernel.key
        assert found.runs >= 1


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.split("|")[0])
def test_nothing_is_optimised_away(key: str) -> None:
    import onnx

    model = onnx.load_from_string(kernel_model(KernelSignature.parse(key), copies=COPIES))
    assert len(model.graph.node) == COPIES
    assert len({i.name for i in model.graph.input}) == len(model.graph.input)


def test_a_kernel_that_does_not_exist_is_data() -> None:
    real, missing = KernelSignature.parse(KEYS[-1]), KernelSignature.parse("Nope|f32[1]|f32[1]|")
    times = time_kernels([missing, real], load_runtime(), QUICK)
    assert isinstance(times[0], DeviceError)
    assert isinstance(times[1], KernelTime)


def test_the_empty_model_runs() -> None:
    session = load_runtime().load(empty_model(), optimize=False)
    session.bound({spec.name: spec.zeros() for spec in session.inputs})()
