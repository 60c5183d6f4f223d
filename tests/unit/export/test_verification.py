from __future__ import annotations

import copy
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import fx, nn

from autocompress.core.candidate import Candidate, LayerPolicy
from autocompress.core.measurement import Measurement
from autocompress.elastic.model import ElasticModel
from autocompress.elastic.realise import realise
from autocompress.errors import DataError, VerificationError
from autocompress.export.manifest import top1
from autocompress.export.onnx_export import export_onnx
from autocompress.export.verification import (
    Check,
    Expectations,
    Verification,
    verify_artifact,
)
from autocompress.graph.inspect import inspect_model
from autocompress.runtimes.registry import load_runtime
from tests.unit.export.nets import Exported, digit_graph, digits, export, export_captured, policies


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    path = tmp_path_factory.mktemp("verification") / "m.onnx"
    graph = digit_graph()
    return export(graph, policies(graph, 4, 8, depthwise=LayerPolicy()), path)


def _batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    _, _, x, y = digits()
    return [(x[:300], y[:300]), (x[300:], y[300:])]


def _claims(made: Exported) -> Expectations:
    return Expectations(sha256=made.file.sha256, size_bytes=made.file.size_bytes)


def _names(result: Verification) -> list[str]:
    return [check.name for check in result.checks]


def test_a_good_file_passes_every_check(made: Exported) -> None:
    result = verify_artifact(
        made.file.path,
        reference=made.simulated,
        batches=_batches(),
        metric=top1,
        expectations=Expectations(
            sha256=made.file.sha256,
            size_bytes=made.file.size_bytes,
            max_size_bytes=made.file.size_bytes,
            max_latency_ms=5.0,
        ),
        measure=lambda path: Measurement(value=0.5, low=0.4, high=0.6, runs=10),
    )
    assert result.ok, result.failures
    assert _names(result) == [
        "bytes", "size", "sha256", "onnx", "loads", "precision", "finite", "agreement", "sizes",
        "latency",
    ]  # fmt: skip
    assert result.examples == 500
    assert result.metrics["agreement"] >= 0.99
    assert result.metrics["accuracy"] > 0.8
    assert result.metrics["size_bytes"] == made.file.path.stat().st_size
    assert result.metrics["latency_ms"] == 0.5
    assert result.raise_if_failed() is result
    assert result.to_json()["ok"] is True


def test_every_flipped_bit_fails_the_hash(made: Exported, tmp_path: Path) -> None:
    data = made.file.path.read_bytes()
    path = tmp_path / "m.onnx"
    for at in range(7, len(data), len(data) // 40):
        damaged = bytearray(data)
        damaged[at] ^= 16
        path.write_bytes(bytes(damaged))
        result = verify_artifact(path, expectations=_claims(made))
        assert "sha256" in {check.name for check in result.failures}
        assert "loads" not in _names(result)  # a changed file is not run


def test_a_truncated_or_missing_file_fails(made: Exported, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(made.file.path.read_bytes()[:-100])
    result = verify_artifact(path, expectations=_claims(made))
    assert {"bytes", "sha256"} <= {check.name for check in result.failures}
    assert not verify_artifact(path).ok
    assert _names(verify_artifact(tmp_path / "none.onnx")) == ["file"]


def test_other_weights_disagree(made: Exported) -> None:
    other = copy.deepcopy(made.simulated)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.copy_(torch.randn_like(parameter))
    result = verify_artifact(made.file.path, reference=other, batches=_batches())
    assert [check.name for check in result.failures] == ["agreement"]
    with pytest.raises(VerificationError, match="torch and the runtime agree"):
        result.raise_if_failed()


BROKEN_PROMISES = {
    "size": Expectations(max_size_bytes=100),
    "accuracy": Expectations(metric=0.1),
    "latency": Expectations(max_latency_ms=0.1),
}


@pytest.mark.parametrize(("name", "wanted"), BROKEN_PROMISES.items(), ids=BROKEN_PROMISES)
def test_a_broken_promise_fails(made: Exported, name: str, wanted: Expectations) -> None:
    result = verify_artifact(
        made.file.path, batches=_batches(), metric=top1, expectations=wanted,
        measure=lambda path: Measurement(value=0.5),
    )  # fmt: skip
    assert [check.name for check in result.failures] == [name]


def test_a_failed_measurement_is_a_failed_check(made: Exported) -> None:
    result = verify_artifact(made.file.path, measure=lambda path: Measurement(error="no clock"))
    assert [check.detail for check in result.failures] == ["it could not be timed: no clock"]


def test_a_float_layer_that_would_run_in_integers_is_found(made: Exported, tmp_path: Path) -> None:
    """Without the exporter's guard ONNX Runtime quantises a float layer between integer ones."""
    import onnx

    model = onnx.load(str(made.file.path))
    guard = next(node for node in model.graph.node if node.op_type == "LeakyRelu")
    readers = [node for node in model.graph.node if guard.output[0] in node.input]
    for reader in readers:
        reader.input[list(reader.input).index(guard.output[0])] = guard.input[0]
    model.graph.node.remove(guard)
    path = tmp_path / "m.onnx"
    onnx.save(model, str(path))
    assert [check.name for check in verify_artifact(path).failures] == ["precision"]
    assert verify_artifact(made.file.path).ok


class _Regressor(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 32)
        self.second = nn.Linear(32, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.second(torch.relu(self.first(x)))
        return out


@pytest.mark.parametrize("bits", [(32, 32), (8, 8)], ids=str)
def test_regression_compares_values(bits: tuple[int, int], tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 6)
    made = export_captured(_Regressor(), bits, x, tmp_path / "m.onnx")
    wanted = Expectations(classification=False)
    batches = [(x, torch.zeros(64, 1))]
    good = verify_artifact(
        made.file.path, reference=made.simulated, batches=batches, expectations=wanted
    )
    assert good.ok, good.failures
    assert "difference" in _names(good)
    other = fx.symbolic_trace(nn.Sequential(nn.Linear(6, 1)))
    bad = verify_artifact(made.file.path, reference=other, batches=batches, expectations=wanted)
    assert [check.name for check in bad.failures] == ["difference"]


class _Tokens(nn.Module):
    """Reads all of each row, at any length."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(9, 6), nn.Linear(6, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.table(ids).mean(1))
        return out


def _of_one_length(path: Path) -> None:
    """Let a file work for rows of eight alone, whatever it says of its inputs."""
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(str(path))
    shape = numpy_helper.from_array(np.array([-1, 8], np.int64), "eights")
    model.graph.initializer.append(shape)
    reader = next(node for node in model.graph.node if "ids" in node.input)
    reader.input[list(reader.input).index("ids")] = "rows"
    model.graph.node.insert(0, helper.make_node("Reshape", ["ids", "eights"], ["rows"]))
    onnx.save(model, str(path))


def test_sizes_that_a_file_leaves_free_are_tried(tmp_path: Path) -> None:
    torch.manual_seed(0)
    graph, path = inspect_model(_Tokens(), (torch.arange(8)[None],)), tmp_path / "m.onnx"
    reference = realise(ElasticModel(graph), Candidate())
    export_onnx(reference, graph.operations(Candidate()), graph.example_inputs, path)
    batches = [(torch.randint(0, 9, (20, 8)), torch.zeros(20, dtype=torch.int64))]
    good = verify_artifact(path, reference=reference, batches=batches)
    assert good.ok, good.failures
    (sizes,) = (check for check in good.checks if check.name == "sizes")
    assert "(1, 8); (3, 4)" in sizes.detail
    _of_one_length(path)
    bad = verify_artifact(path, reference=reference, batches=batches)
    assert [check.name for check in bad.failures] == ["sizes"]


def test_bad_data_is_said(made: Exported) -> None:
    with pytest.raises(DataError, match="no examples"):
        verify_artifact(made.file.path, batches=[])
    with pytest.raises(DataError, match="targets come after"):
        verify_artifact(made.file.path, batches=[(digits()[2],)])


def test_a_check_is_plain_json() -> None:
    check = Check("size", True, 1, 2, "fits")
    assert check.to_json() == {
        "name": "size", "ok": True, "value": 1, "limit": 2, "detail": "fits"
    }  # fmt: skip


@pytest.mark.skipif(find_spec("openvino") is None, reason="needs the extra openvino")
@pytest.mark.parametrize(("weight_bits", "activation_bits"), [(32, 32), (8, 8), (4, 8)])
def test_it_is_checked_in_the_runtime_that_it_is_for(
    weight_bits: int, activation_bits: int, tmp_path: Path
) -> None:
    graph = digit_graph()
    made = export(graph, policies(graph, weight_bits, activation_bits), tmp_path / "m.onnx")
    result = verify_artifact(
        made.file.path,
        reference=made.simulated,
        batches=_batches(),
        metric=top1,
        runtime=load_runtime("openvino"),
    )
    assert result.ok, result.failures
    loads = next(check for check in result.checks if check.name == "loads")
    assert "openvino" in loads.detail
