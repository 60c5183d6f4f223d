"""Whole models are timed in child processes; what goes wrong there is data."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from autocompress.measurement.models import measure_interleaved, measure_model
from autocompress.measurement.networks import reference_networks
from autocompress.measurement.protocol import TimingProtocol

QUICK = TimingProtocol(
    "quick", warmup=1, batch_us=5, min_runs=4, min_seconds=0, passes=2, processes=2
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "m.onnx"
    path.write_bytes(reference_networks(1, seed=9)[0].onnx())
    return path


def test_a_figure_with_its_interval(model: Path) -> None:
    found = measure_model(model, protocol=QUICK)
    assert found.ok
    assert found.unit == "ms"
    assert 0 < found.low <= found.value <= found.high
    assert found.protocol["name"] == "quick"
    assert found.environment["processes"] == 2
    assert "onnxruntime" in found.environment["runtime"]


def test_a_model_that_cannot_be_loaded_is_data(model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"nothing")
    found = measure_interleaved([broken, model], protocol=QUICK)
    assert not found[0].ok
    assert "broken.onnx" in str(found[0].error)
    assert found[1].ok


def test_a_crash_is_data(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    found = measure_model(model, protocol=QUICK)
    assert not found.ok
    assert "code 1" in str(found.error)
