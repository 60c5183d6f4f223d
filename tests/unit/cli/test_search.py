from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from autocompress.core.budget import Budget
from tests.unit.cli.conftest import FakeApi, Outcome
from tests.unit.report.run_folders import write_run

Run = Callable[..., Outcome]
BASE = ("search", "--space", "tiny_cnn", "--data", "digits")


def test_options_reach_the_api(run: Run, api: FakeApi, tmp_path: Path) -> None:
    outcome = run(
        *BASE,
        *("--device", "pi", "--budget", "1h30m", "--trials", 50),
        *("--objectives", "accuracy, size_bytes", "--techniques", "bits,width"),
        *("--hold", "architecture", "--hold", "width:*", "--models", 6),
        *("--constraint", "latency_ms=2.0", "--constraint", "accuracy_drop=0.01"),
        *("--strategy", "tpe", "--executor", "local", "--workers", 2, "--seed", 7),
        *("--run-dir", tmp_path / "x", "--resume", "must", "--quiet"),
    )
    assert outcome.code == 0, outcome.err
    assert api.calls == [
        (
            "search",
            ("tiny_cnn", "digits"),
            {
                "device": "pi",
                "budget": Budget(seconds=5400.0, trials=50, models=6),
                "objectives": ("accuracy", "size_bytes"),
                "constraints": {"latency_ms": 2.0, "accuracy_drop": 0.01},
                "techniques": ("bits", "width"),
                "held": ("architecture", "width:*"),
                "strategy": "tpe",
                "executor": "local",
                "workers": 2,
                "seed": 7,
                "run_dir": tmp_path / "x",
                "resume": "must",
                "progress": "none",
            },
        )
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(["search", "--data", "digits"], "either --space NAME", id="neither"),
        pytest.param([*BASE, "--model", "a.py:f"], "either --space NAME", id="both"),
        pytest.param([*BASE, "--weights", "a.pt"], "--weights belongs to --model", id="weights"),
        pytest.param(
            [*BASE, "--objectives", "accuracy,speed"], "objective 'speed'", id="objective"
        ),
        pytest.param([*BASE, "--objectives", "accuracy"], "use two to four", id="one-objective"),
        pytest.param([*BASE, "--constraint", "latency=2"], "constraint 'latency'", id="constraint"),
        pytest.param([*BASE, "--constraint", "latency_ms"], "METRIC=BOUND", id="no-bound"),
        pytest.param([*BASE, "--constraint", "latency_ms=fast"], "METRIC=BOUND", id="no-number"),
        pytest.param([*BASE, "--constraint", "latency_ms=nan"], "finite number", id="nan"),
        pytest.param([*BASE, "--budget", "soon"], "budget is 'soon'", id="budget"),
        pytest.param([*BASE, "--resume", "maybe"], "maybe", id="resume"),
    ],
)
def test_a_wrong_request_is_refused_before_the_search(
    run: Run, api: FakeApi, arguments: list[str], words: str
) -> None:
    outcome = run(*arguments)
    assert outcome.code == 2
    assert words in outcome.err
    assert api.calls == []


def test_constraint_given_twice(run: Run, api: FakeApi) -> None:
    outcome = run(*BASE, "--constraint", "latency_ms=1", "--constraint", "latency_ms=2")
    assert (outcome.code, api.calls) == (2, [])
    assert "given twice" in outcome.err


def test_the_end_shows_front_checks_files_and_what_next(
    run: Run, api: FakeApi, run_folder: Path
) -> None:
    (run_folder / "models" / "3c4d5e6f7a8b" / "model.onnx").touch()
    outcome = run(*BASE)
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert lines[1].startswith("3.4x faster and 9.1x smaller than fp32")
    assert lines[4].startswith("fp32")
    assert lines[5].startswith("int8")
    assert "0.125 → 0.131 [0.128, 0.135]" in outcome.out
    assert (
        "5 models re-opened and checked on the runtime: agreement, bytes, accuracy" in outcome.out
    )
    assert "left out  9f8e7d6c: agreement 0.931 (limit 0.99)" in outcome.out
    assert str(run_folder / "models" / "3c4d5e6f7a8b" / "model.onnx") in outcome.out
    assert "autocompress verify" in lines[-1]
    assert api.calls[0][2]["progress"] == "auto"


def test_quiet_shows_the_front_only(run: Run, api: FakeApi) -> None:
    outcome = run(*BASE, "--quiet")
    assert "int8 throughout" in outcome.out
    assert "verified" not in outcome.out


def test_json_ends_with_the_result(run: Run, api: FakeApi) -> None:
    outcome = run(*BASE, "--json")
    rows = [json.loads(line) for line in outcome.out.splitlines()]
    assert rows[-1]["kind"] == "result"
    assert rows[-1]["status"] == "complete"
    assert [row["id"] for row in rows[-1]["baseline"]] == ["baseline-fp32", "baseline-int8"]
    assert len(rows[-1]["pareto"]) == 5
    assert rows[-1]["baseline"][0]["latency_estimate_ms"] is None
    assert api.calls[0][2]["progress"] == "json"


def test_an_interrupted_run_shows_what_it_has_and_ends_with_130(
    run: Run, api: FakeApi, tmp_path: Path
) -> None:
    api.run_dir = write_run(tmp_path / "cut", status="interrupted")
    outcome = run(*BASE)
    assert outcome.code == 130
    assert "int8 throughout" in outcome.out
    assert f"autocompress resume {api.run_dir}" in outcome.out
