from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from tests.unit.cli.conftest import Outcome

Run = Callable[..., Outcome]

NET = """
from torch import nn

def build():
    return nn.Sequential(
        nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 36, 10)
    )
"""


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "sensed_net.py"
    path.write_text(NET)
    return f"{path}:build"


def test_table_reasons_and_file(run: Run, model: str, tmp_path: Path) -> None:
    out = tmp_path / "rows.csv"
    outcome = run(
        "sensitivity", model, "--data", "digits", "--settings", 5, "--examples", 20, "--quiet",
        "--csv", out,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert "5 measured on 20 examples" in outcome.out
    assert "the 20 most harmful settings" in outcome.out
    assert "it is the model's output" in outcome.out
    assert "~" in outcome.out
    table = pd.read_csv(out)
    assert int(table["measured"].sum()) == 5
    assert {"loss_change", "metric_drop", "size_bytes_saved"} <= set(table.columns)


def test_json(run: Run, model: str) -> None:
    outcome = run(
        "sensitivity", model, "--data", "digits", "--settings", 2, "--examples", 20, "--json",
        "--device", "raspberry_pi_4", "--techniques", "quantization",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    values = json.loads(outcome.out)
    assert {row["technique"] for row in values["table"]} == {"quantization"}
    assert all("latency_ms_saved" in row for row in values["table"])
    assert values["examples"] == 20


def test_what_is_wrong_is_said(run: Run, model: str) -> None:
    assert run("sensitivity", "nowhere.py:build", "--data", "digits").code == 2
    outcome = run("sensitivity", model, "--data", "digits", "--techniques", "magic")
    assert (outcome.code, "unknown technique 'magic'" in outcome.err) == (2, True)


def test_pairs(run: Run, model: str, tmp_path: Path) -> None:
    out = tmp_path / "pairs.csv"
    outcome = run(
        "sensitivity", model, "--data", "digits", "--settings", 12, "--examples", 20, "--quiet",
        "--pairs", 4, "--pairs-csv", out,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert "4 of 4 pairs measured" in outcome.out
    assert "pairs, the strongest interactions first:" in outcome.out
    assert len(pd.read_csv(out)) == 4
    wrong = run("sensitivity", model, "--data", "digits", "--pairs", "nowhere")
    assert (wrong.code, "pairs names 'nowhere'" in wrong.err) == (2, True)
