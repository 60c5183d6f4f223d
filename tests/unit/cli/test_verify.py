from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from tests.unit.cli.conftest import Outcome

Run = Callable[..., Outcome]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A one-node model with a true manifest."""
    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 3]) for n in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", info[:1], info[1:])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    path = tmp_path / "model.onnx"
    onnx.save(proto, path)
    raw = path.read_bytes()
    manifest = {"id": "x", "sha256": hashlib.sha256(raw).hexdigest(), "size_bytes": len(raw)}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    return path


def test_a_true_model(run: Run, model: Path) -> None:
    outcome = run("verify", model)
    assert outcome.code == 0, outcome.err
    assert outcome.out.rstrip().endswith("is what its manifest says")
    assert json.loads(run("verify", model, "--json").out)["ok"] is True


def test_an_altered_model(run: Run, model: Path) -> None:
    model.write_bytes(model.read_bytes() + b"\0")
    outcome = run("verify", model)
    assert outcome.code == 1
    assert "FAILED" in outcome.out
    assert "is not what it claims to be" in outcome.err
    assert "bug of ours" not in outcome.err


@pytest.mark.parametrize(
    ("broken", "code", "words"),
    [
        pytest.param("model.onnx", 2, "there is no file", id="no-model"),
        pytest.param("manifest.json", 5, "there is no manifest", id="no-manifest"),
    ],
)
def test_what_is_missing_is_named(
    run: Run, model: Path, broken: str, code: int, words: str
) -> None:
    (model.parent / broken).unlink()
    outcome = run("verify", model)
    assert outcome.code == code
    assert words in outcome.err
