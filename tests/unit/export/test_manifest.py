from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

import autocompress
from autocompress.errors import (
    MissingExtraError,
    RequestError,
    StorageError,
    VerificationError,
)
from autocompress.export.manifest import (
    manifest_path,
    read_manifest,
    verify,
    write_manifest,
)
from autocompress.export.verification import verify_artifact
from tests.unit.export.nets import digit_graph, digits, export, policies


@pytest.fixture
def model(tmp_path: Path) -> Path:
    graph = digit_graph()
    made = export(graph, policies(graph, 8, 8), tmp_path / "model.onnx")
    x, y = digits()[2:]
    accuracy = float((made.simulated(x).argmax(1) == y).float().mean())
    write_manifest(
        tmp_path,
        {
            "id": "a1",
            "sha256": made.file.sha256,
            "size_bytes": made.file.size_bytes,
            "metrics": {"accuracy": accuracy, "latency_ms": float("nan")},
        },
    )
    return made.file.path


def test_a_model_is_what_its_manifest_says(model: Path) -> None:
    result = verify(model)
    assert result.ok
    assert {"sha256", "bytes", "onnx", "loads", "precision"} == {c.name for c in result.checks}
    assert autocompress.verify(model).ok


def test_its_accuracy_is_computed_again_when_data_is_given(model: Path) -> None:
    x, y = digits()[2:]
    result = verify(model, batches=[(x, y)])
    assert "accuracy" in {check.name for check in result.checks}
    with pytest.raises(VerificationError, match="claimed"):
        verify(model, batches=[(x, (y + 1) % 10)])


def test_a_flipped_bit_is_caught(model: Path) -> None:
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(bytes(data))
    with pytest.raises(VerificationError, match="SHA-256"):
        verify(model)
    assert not verify(model, strict=False).ok


def test_a_model_saved_elsewhere_finds_its_own_manifest(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    shutil.copy(model, folder / "mine.onnx")
    shutil.copy(manifest_path(model), folder / "mine.manifest.json")
    assert manifest_path(folder / "mine.onnx").name == "mine.manifest.json"
    assert verify(folder / "mine.onnx").ok


def test_manifests_come_back_and_hold_no_nan(model: Path) -> None:
    path = manifest_path(model)
    assert "NaN" not in path.read_text()
    manifest = read_manifest(path)
    assert manifest["metrics"]["latency_ms"] is None
    write_manifest(path, manifest)
    assert read_manifest(path) == manifest


BROKEN = {
    "missing": (None, "no manifest"),
    "no JSON": ("{", "cannot be read"),
    "a list": ("[]", "lacks one of"),
    "incomplete": (json.dumps({"id": "a"}), "lacks one of"),
}


@pytest.mark.parametrize(("text", "message"), BROKEN.values(), ids=BROKEN)
def test_a_damaged_manifest_is_said(model: Path, text: str | None, message: str) -> None:
    path = manifest_path(model)
    path.unlink()
    if text is not None:
        path.write_text(text)
    with pytest.raises(StorageError, match=message):
        verify(model)


def test_an_incomplete_manifest_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="sha256, size_bytes"):
        write_manifest(tmp_path, {"id": "a"})
    with pytest.raises(StorageError, match="no JSON"):
        write_manifest(tmp_path, {"id": object(), "sha256": "", "size_bytes": 1})
    assert list(tmp_path.iterdir()) == []


def test_verification_without_a_manifest_needs_no_claims(model: Path) -> None:
    assert verify_artifact(model).ok


def test_a_runtime_that_is_not_there_is_no_fault_of_the_model(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = read_manifest(manifest_path(model))
    write_manifest(manifest_path(model), {**manifest, "runtime": "openvino"})
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match="pip install"):
        verify(model, strict=False)
    write_manifest(manifest_path(model), {**manifest, "runtime": "nobody's"})
    with pytest.raises(RequestError, match='unknown runtime "nobody\'s"'):
        verify(model)
