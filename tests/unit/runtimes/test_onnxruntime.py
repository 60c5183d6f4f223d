"""ONNX Runtime as a runtime: the contract, external data, and the executed graph."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from autocompress.errors import DeviceError, VerificationError
from autocompress.measurement.networks import reference_networks
from autocompress.runtimes.base import Runtime
from autocompress.runtimes.external_data import check_external_data
from autocompress.runtimes.onnxruntime import OnnxRuntime
from autocompress.testing.runtimes import RuntimeContract


def linear(path: Path, *, external: bool = False) -> Path:
    weight = numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Relu", ["m"], ["y"])]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, (1, 4)) for n in ("x", "y"))
    graph = helper.make_graph(nodes, "g", [x], [y], [weight])
    opsets = [helper.make_opsetid("", 21)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    onnx.save(model, str(path), save_as_external_data=external, location="w.bin", size_threshold=0)
    return path


class TestOnnxRuntime(RuntimeContract):
    def make(self) -> Runtime:
        return OnnxRuntime()

    def artifact(self, folder: Path) -> Path:
        return linear(folder / "model.onnx")


def test_telemetry_is_off() -> None:
    assert OnnxRuntime().version
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"


def test_spinning_is_part_of_the_fingerprint() -> None:
    assert OnnxRuntime(spinning=True).fingerprint != OnnxRuntime().fingerprint


def test_external_data_beside_the_model_is_read(tmp_path: Path) -> None:
    session = OnnxRuntime().load(linear(tmp_path / "m.onnx", external=True))
    x = np.array([[1, -1, 2, -2]], dtype=np.float32)
    np.testing.assert_array_equal(session.run([x])[0], [[1, 0, 2, 0]])


@pytest.mark.parametrize("how", ["outside", "symbolic link", "hard link", "missing"])
def test_external_data_elsewhere_is_refused(tmp_path: Path, how: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    path = linear(folder / "m.onnx", external=True)
    data, elsewhere = folder / "w.bin", tmp_path / "w.bin"
    if how == "outside":
        model = onnx.load(str(path), load_external_data=False)
        data.rename(elsewhere)
        for entry in model.graph.initializer[0].external_data:
            if entry.key == "location":
                entry.value = "../w.bin"
        path.write_bytes(model.SerializeToString())
    elif how == "symbolic link":
        data.rename(elsewhere)
        data.symlink_to(elsewhere)
    elif how == "hard link":
        os.link(data, elsewhere)
    else:
        data.unlink()
    with pytest.raises(VerificationError, match=r"w\.bin"):
        check_external_data(path)


def test_kernels_are_those_of_the_optimised_graph(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    network = next(n for n in reference_networks(6, seed=3) if "int8" in n.name)
    path.write_bytes(network.onnx())
    kernels = OnnxRuntime().kernels(path)
    operators = {kernel.op_type for kernel in kernels}
    assert operators & {"QLinearConv", "QGemm"}
    assert "Conv" not in operators
    weights = [s for k in kernels for s in k.inputs if s is not None and s.constant]
    assert any(spec.dtype == "int8" and len(spec.shape) >= 2 for spec in weights)


def test_a_model_that_cannot_run_is_a_device_error() -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, (2, 3))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    shape = numpy_helper.from_array(np.array([5, 5], np.int64), "s")
    node = helper.make_node("Reshape", ["x", "s"], ["y"])
    graph = helper.make_graph([node], "g", [x], [y], [shape])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    runtime = OnnxRuntime()
    with pytest.raises(DeviceError):
        runtime.load(model.SerializeToString()).run([np.zeros((2, 3), np.float32)])
