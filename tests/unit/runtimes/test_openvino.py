"""OpenVINO as a runtime: the contract, its absence, and the executed graph."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from autocompress.errors import DeviceError, MissingExtraError, RequestError, VerificationError
from autocompress.measurement.models import measure_interleaved
from autocompress.measurement.networks import reference_networks
from autocompress.measurement.protocol import TimingProtocol
from autocompress.runtimes.base import Runtime
from autocompress.runtimes.openvino import OpenVinoRuntime
from autocompress.runtimes.registry import list_runtimes, load_runtime
from autocompress.testing.runtimes import RuntimeContract
from tests.unit.runtimes.test_onnxruntime import linear

QUICK = TimingProtocol(
    "quick", warmup=1, batch_us=5, min_runs=4, min_seconds=0, passes=2, processes=2
)


#: Not an import: that is for the runtime, which switches telemetry off first.
needs_openvino = pytest.mark.skipif(
    find_spec("openvino") is None, reason='needs pip install "autocompress[openvino]"'
)


def test_it_is_listed_without_being_imported() -> None:
    assert "openvino" in list_runtimes()
    assert load_runtime("openvino").name == "openvino"
    assert load_runtime("openvino").lowering == "openvino-cpu"


def test_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r'pip install "autocompress\[openvino\]"'):
        OpenVinoRuntime().load(b"")


@needs_openvino
class TestOpenVino(RuntimeContract):
    def make(self) -> Runtime:
        return OpenVinoRuntime()

    def artifact(self, folder: Path) -> Path:
        return linear(folder / "model.onnx")


@needs_openvino
def test_nothing_phones_home() -> None:
    """In a process of its own: here, another test's library may have loaded it first."""
    script = (
        "import sys; from autocompress.runtimes.openvino import OpenVinoRuntime; "
        "assert OpenVinoRuntime().version; assert sys.modules['openvino_telemetry'] is None"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@needs_openvino
def test_it_agrees_with_onnxruntime_at_any_batch(tmp_path: Path) -> None:
    for network in reference_networks(3, seed=6):
        path = tmp_path / "m.onnx"
        path.write_bytes(network.onnx())
        sessions = [load_runtime(name).load(path) for name in ("onnxruntime", "openvino")]
        assert sessions[1].inputs[0].shape[0] is None
        for batch in (1, 3):
            shape = (batch, *network.ops[0].shape[1:])
            x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
            first, second = (session.run([x])[0] for session in sessions)
            assert second.shape == first.shape
            np.testing.assert_allclose(first, second, atol=0.1 * np.abs(first).max() + 0.05)


@needs_openvino
def test_a_bound_call_writes_what_run_returns(tmp_path: Path) -> None:
    session = OpenVinoRuntime().load(linear(tmp_path / "m.onnx"))
    x = np.array([[1, -1, 2, -2]], dtype=np.float32)
    session.bound({"x": x})()
    np.testing.assert_array_equal(session.run({"x": x})[0], [[1, 0, 2, 0]])


def stored(dtype: int, opset: int) -> bytes:
    """A matrix product with weights of so few bits, as the exporter stores them."""
    weight = helper.make_tensor("w", dtype, (4, 4), [1, 0, -1, 0] * 4)
    nodes = [
        helper.make_node("Cast", ["w"], ["i"], to=TensorProto.INT8),
        helper.make_node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "f"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, (1, 4)) for n in ("x", "y"))
    graph = helper.make_graph(nodes, "g", [x], [y], [weight])
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=13)
    return bytes(model.SerializeToString())


@needs_openvino
def test_the_forms_that_it_says_it_loads() -> None:
    runtime = OpenVinoRuntime()
    runtime.load(stored(TensorProto.INT4, 21))
    assert {p.weight_bits for p in runtime.capabilities.precisions} == {32, 8, 4}
    with pytest.raises(DeviceError, match="cannot load"):
        runtime.load(stored(TensorProto.INT2, 25))


@needs_openvino
def test_wrong_inputs(tmp_path: Path) -> None:
    session = OpenVinoRuntime().load(linear(tmp_path / "m.onnx"))
    with pytest.raises(RequestError, match=r"no input 'z'.*x"):
        session.run({"z": np.zeros((1, 4), np.float32)})
    with pytest.raises(DeviceError, match=r"\(1, 5\)"):
        session.run([np.zeros((1, 5), np.float32)])


@needs_openvino
def test_external_data_elsewhere_is_refused(tmp_path: Path) -> None:
    path = linear(tmp_path / "m.onnx", external=True)
    (tmp_path / "w.bin").rename(tmp_path / "real.bin")
    (tmp_path / "w.bin").symlink_to(tmp_path / "real.bin")
    with pytest.raises(VerificationError, match=r"w\.bin"):
        OpenVinoRuntime().load(path)


@needs_openvino
def test_kernels_are_those_of_the_executed_graph() -> None:
    network = next(n for n in reference_networks(6, seed=3) if "int8" in n.name)
    kernels = OpenVinoRuntime().kernels(network.onnx())
    layers = [k for k in kernels if k.op_type in {"Convolution", "FullyConnected", "Subgraph"}]
    weights = [s for k in layers for s in k.inputs if s is not None and s.constant]
    assert any(spec.dtype == "int8" and len(spec.shape) >= 2 for spec in weights)
    names = {op.name for op in network.ops if op.weight_shape}
    fused = " ".join(str(dict(k.attributes)["fused"]) for k in kernels)
    assert all(f"{name}." in fused for name in names)


@needs_openvino
def test_models_are_timed_in_processes_of_their_own(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"nothing")
    good = linear(tmp_path / "m.onnx")
    found = measure_interleaved([broken, good], protocol=QUICK, runtime="openvino")
    assert not found[0].ok
    assert found[1].ok
    assert found[1].environment["runtime"].startswith("openvino/")
