from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.unit.cli.conftest import FakeApi, Outcome

Run = Callable[..., Outcome]


def test_plan_prints_and_spends_nothing(run: Run, api: FakeApi) -> None:
    outcome = run("plan", "--space", "tiny_cnn", "--data", "digits", "--budget", "5m")
    assert outcome.code == 0
    assert outcome.out.splitlines() == [
        "120 trials look reachable.",
        "  search      6 min 20 s  about 120 trials",
    ]
    assert [name for name, _, _ in api.calls] == ["plan"]


def test_plan_as_json(run: Run, api: FakeApi) -> None:
    outcome = run("plan", "--space", "tiny_cnn", "--data", "digits", "--json")
    assert json.loads(outcome.out) == api.to_json()


def test_resume(run: Run, api: FakeApi, run_folder: Path) -> None:
    outcome = run("resume", run_folder)
    assert outcome.code == 0
    assert api.calls == [("resume", (run_folder, None), {"progress": "auto"})]
    assert "3.4x faster" in outcome.out


def test_resume_of_your_own_model_needs_it_again(
    run: Run, api: FakeApi, run_folder: Path, tmp_path: Path
) -> None:
    path = run_folder / "run.toml"
    path.write_text(path.read_text().replace("[request]", '[request]\nkind = "Net"'))
    outcome = run("resume", run_folder)
    assert (outcome.code, api.calls) == (2, [])
    assert "--model FILE.py:FUNCTION" in outcome.err
    assert "--model net.py:build" in outcome.err  # from the command that began it
    net = tmp_path / "resumed_net.py"
    net.write_text("from torch import nn\n\ndef build():\n    return nn.Linear(2, 2)\n")
    assert run("resume", run_folder, "--model", f"{net}:build").code == 0
    assert type(api.calls[0][1][1]).__name__ == "Linear"


def test_resume_of_a_space_takes_no_model(run: Run, api: FakeApi, run_folder: Path) -> None:
    outcome = run("resume", run_folder, "--model", "net.py:build")
    assert (outcome.code, api.calls) == (2, [])
    assert "leave --model and --weights out" in outcome.err


def test_retarget(run: Run, run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from autocompress.agent.result import SearchResult

    calls: list[dict[str, Any]] = []

    def retarget(self: SearchResult, device: str, **options: Any) -> SearchResult:
        calls.append({"run": self.run_dir, "device": device, **options})
        return self

    monkeypatch.setattr(SearchResult, "retarget", retarget)
    outcome = run(
        "retarget", run_folder, "--device", "raspberry_pi_4", "--constraint", "latency_ms=2",
        "--models", "3",
    )  # fmt: skip
    assert outcome.code == 0
    (call,) = calls
    assert (call["run"], call["device"], call["models"]) == (run_folder, "raspberry_pi_4", 3)
    assert (call["constraints"], call["budget"]) == ({"latency_ms": 2.0}, None)
    assert run("retarget", run_folder).code == 0
    assert calls[-1]["device"] is None  # the run's own


@pytest.mark.parametrize("command", ["resume", "report"])
def test_a_folder_that_is_no_run(run: Run, api: FakeApi, tmp_path: Path, command: str) -> None:
    outcome = run(command, tmp_path)
    assert outcome.code == 5
    assert "is not a run folder" in outcome.err
    assert api.calls == []


def test_report_writes_the_page(run: Run, run_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "page.html"
    outcome = run("report", run_folder, "--out", out)
    assert outcome.code == 0
    assert out.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert str(out) in outcome.out


def test_report_of_a_corrupt_run(run: Run, run_folder: Path) -> None:
    (run_folder / "pareto.csv").write_text("id,latency_ms\nx,fast\n")
    outcome = run("report", run_folder)
    assert outcome.code == 5
    assert "pareto.csv is corrupt" in outcome.err


def test_spaces(run: Run) -> None:
    outcome = run("spaces")
    assert outcome.code == 0
    assert "tiny_cnn" in outcome.out
    assert "tiny_cnn" in json.loads(run("spaces", "--json").out)


def test_pack_and_unpack(run: Run, tmp_path: Path) -> None:
    source = tmp_path / "model.onnx"
    proto = helper.make_model(
        helper.make_graph(
            [], "g", [], [], [numpy_helper.from_array(np.zeros((64, 64), np.float32), "w")]
        )
    )
    onnx.save(proto, source)
    original = source.read_bytes()
    outcome = run("pack", source)
    assert outcome.code == 0, outcome.err
    assert f"({source} has {len(original):,})" in outcome.out
    source.unlink()
    found = json.loads(run("unpack", tmp_path / "model.acz", "--json").out)
    assert found["path"] == str(source)
    assert source.read_bytes() == original
    assert run("pack", tmp_path / "none.onnx").code == 2
    (tmp_path / "cut.acz").write_bytes((tmp_path / "model.acz").read_bytes()[:-3])
    assert run("unpack", tmp_path / "cut.acz").code == 5
    assert not (tmp_path / "cut.onnx").exists()
