"""ONNX files read back as the operations that they were exported from."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from autocompress.errors import RequestError
from autocompress.graph.precision import quantized_tensors
from autocompress.hardware import LatencyPredictor, load_profile
from autocompress.hardware.file_estimate import estimate_file
from autocompress.hardware.memory_model import USUAL
from autocompress.hardware.onnx_operations import read_operations
from autocompress.measurement.kernels import KernelSignature
from tests.unit.export import nets
from tests.unit.hardware.helpers import profile


@cache
def exported(folder: Path, bits: tuple[int, int]) -> nets.Exported:
    graph = nets.digit_graph()
    return nets.export(graph, nets.policies(graph, *bits), folder / f"{bits[0]}.onnx")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


def work(kernels: tuple[KernelSignature, ...]) -> list[str]:
    """Kernels that do something, whatever the rank of a pooled tensor."""
    return [k.op for k in kernels if not k.is_view]


@pytest.mark.parametrize("bits", [(32, 32), (8, 8), (4, 8)], ids=str)
def test_a_file_is_what_it_was_exported_from(folder: Path, bits: tuple[int, int]) -> None:
    model = exported(folder, bits)
    ops = read_operations(folder / f"{bits[0]}.onnx")
    assert sum(op.macs for op in ops) == sum(op.macs for op in model.ops)
    layers = [op for op in ops if op.weight_shape]
    expected = [op for op in model.ops if op.weight_shape]
    for field in ("kind", "weight_shape", "weight_bits", "activation_bits"):
        assert [getattr(op, field) for op in layers] == [getattr(op, field) for op in expected]
    predictor = LatencyPredictor(load_profile("raspberry_pi_4"))
    assert work(predictor.kernels(ops)) == work(predictor.kernels(model.ops))
    estimate, wanted = predictor.estimate(ops), predictor.estimate(model.ops)
    assert estimate.value == pytest.approx(wanted.value)
    assert USUAL.peak_bytes(ops, quantized_tensors(ops)) == USUAL.peak_bytes(
        model.ops, quantized_tensors(model.ops)
    )


def test_an_estimate_of_a_file(folder: Path) -> None:
    exported(folder, (8, 8))
    path = folder / "8.onnx"
    device = load_profile("stm32h7_cortex_m7")
    found = estimate_file(path, device)
    assert found.size_bytes == path.stat().st_size
    assert found.misfits == ()
    assert found.ram_bytes == found.peak_memory_bytes  # weights stay in flash
    assert found.energy_mj is not None
    assert found.energy_mj > 0
    assert "read from the file's operations" in found.source
    on_a_computer = estimate_file(path, load_profile("raspberry_pi_5"))
    assert on_a_computer.ram_bytes > on_a_computer.peak_memory_bytes
    assert on_a_computer.latency_ms.value < found.latency_ms.value


def test_the_profiles_own_runtime_says_what_it_executes(folder: Path) -> None:
    from dataclasses import replace

    from autocompress.runtimes.registry import load_runtime

    exported(folder, (8, 8))
    here = replace(profile().runtime, version=load_runtime().version)
    found = estimate_file(folder / "8.onnx", replace(profile(), runtime=here))
    assert "as onnxruntime executes them here" in found.source
    other = replace(here, version="0.1")
    found = estimate_file(folder / "8.onnx", replace(profile(), runtime=other))
    assert "read from the file's operations" in found.source


def single(
    node: onnx.NodeProto, shape: list[int | str], *stored: onnx.TensorProto
) -> onnx.ModelProto:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    return helper.make_model(helper.make_graph([node], "g", [value], [result], list(stored)))


def floats(name: str, *dims: int) -> onnx.TensorProto:
    count = 1
    for n in dims:
        count *= n
    return helper.make_tensor(name, TensorProto.FLOAT, dims, [0.5] * count)


def test_layers_of_others(tmp_path: Path) -> None:
    path = tmp_path / "gemm.onnx"
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"])
    onnx.save(single(node, ["batch", 6], floats("w", 6, 4), floats("b", 4)), path)
    _, linear, output = read_operations(path)
    assert (linear.kind, linear.weight_shape, linear.shape) == ("linear", (4, 6), (1, 4))
    assert linear.attribute("bias") == 1
    assert output.inputs == ("y",)
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    onnx.save(single(node, [1, 6], floats("w", 6, 4)), path)
    assert read_operations(path)[1].weight_shape == (4, 6)
    node = helper.make_node("Erf", ["x"], ["y"])
    onnx.save(single(node, [1, 6]), path)
    assert read_operations(path)[1].kind == "onnx.Erf"


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        pytest.param([1, "width"], "dimensions that are not fixed", id="open-width"),
        pytest.param(None, "cannot read", id="no-onnx"),
    ],
)
def test_refused(tmp_path: Path, shape: list[int | str] | None, message: str) -> None:
    path = tmp_path / "model.onnx"
    if shape is None:
        path.write_bytes(b"no protobuf at all")
    else:
        onnx.save(single(helper.make_node("Relu", ["x"], ["y"]), shape), path)
    with pytest.raises(RequestError, match=message):
        read_operations(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="there is no file"):
        estimate_file(tmp_path / "missing.onnx", profile())
