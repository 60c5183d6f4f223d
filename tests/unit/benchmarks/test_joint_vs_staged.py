from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from autocompress.evaluation.data import Data
from benchmarks import joint_vs_staged
from benchmarks._kept import keep_json, kept_json
from benchmarks._protocol import FILE, Ground, Protocol
from benchmarks._volumes import Reference

RULES = Protocol(
    data="d", space="resnet", start="trained", seconds=9.0, threads=1, train=8, val=8, checked=4,
    test=8, epochs=1, table_seconds=1.0, floor=0.5,
)  # fmt: skip
REFERENCE = Reference(accuracy=0.5, latency_ms=8.0, size_bytes=4000.0)


def test_runs_by_other_rules_do_not_mix(tmp_path: Path) -> None:
    RULES.keep(tmp_path)
    RULES.keep(tmp_path)
    assert Protocol.read(tmp_path) == RULES
    with pytest.raises(SystemExit, match=r"seconds 10\.0, there 9\.0"):
        replace(RULES, seconds=10.0).keep(tmp_path)


def test_runs_by_rules_that_were_fewer_do_not_mix(tmp_path: Path) -> None:
    earlier = {k: v for k, v in asdict(RULES).items() if k != "checked"}
    keep_json(tmp_path / FILE, earlier)
    with pytest.raises(SystemExit, match="checked 4, there None"):
        RULES.keep(tmp_path)


def test_searches_see_no_test_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def part(first: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.arange(count) % 2
        images = torch.arange(first, first + count, dtype=torch.float32)
        return images.view(-1, 1, 1, 1).expand(-1, 1, 2, 2).clone(), labels

    whole = Data(part(0, 40), part(100, 30), part(200, 20))
    monkeypatch.setattr(Data, "load", lambda _: whole)
    RULES.keep(tmp_path)
    given = Ground(tmp_path, 0).data
    seen = {n: set(s.arrays()[0][:, 0, 0, 0].astype(int).tolist()) for n, s in given.splits.items()}
    assert len(seen["val"]) == 8
    assert len(seen["test"]) == 4
    assert not seen["val"] & seen["test"]
    assert seen["val"] | seen["test"] <= set(range(100, 130))
    assert seen["train"] | seen["calibration"] <= set(range(40))


def _outcome(arm: str, seed: int, accuracy: float) -> dict[str, Any]:
    row = {
        "id": f"{arm}{seed}", "stage": arm, "path": f"seed{seed}/{arm}/model.onnx",
        "accuracy": accuracy, "val_accuracy": accuracy, "latency_estimate_ms": 4.0,
        "size_bytes": 2000, "sha256": f"{arm}{seed}",
    }  # fmt: skip
    return {
        "arm": arm, "seed": seed, "budget": 9.0, "seconds": 9.5, "credit": 0.0,
        "cpu_seconds": 9.0, "threads": 1, "failure": None, "searches": [], "models": [row],
    }  # fmt: skip


def _report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outcomes: Any) -> dict[str, Any]:
    class Fixed:
        reference = REFERENCE

    monkeypatch.setattr(joint_vs_staged, "Ground", lambda *_: Fixed)
    monkeypatch.setattr(joint_vs_staged, "measure_all", lambda files, *_: dict.fromkeys(files, 4.0))
    arms = list(joint_vs_staged.ARMS)
    return joint_vs_staged._report(tmp_path / "runs", outcomes, arms, quick=True)


def test_the_contracts_keys_with_their_spread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs").mkdir()
    outcomes = [
        _outcome(arm, seed, accuracy + 0.1 * seed)
        for seed in (0, 1)
        for arm, accuracy in (("joint", 0.7), ("staged", 0.6), ("uniform", 0.6), ("random", 0.5))
    ]
    result = _report(tmp_path, monkeypatch, outcomes)
    # one doubling in each cost: the volume is the points above a half
    assert result["joint_hv"] == pytest.approx(25.0)
    assert result["spread"]["joint_hv"] == pytest.approx({"min": 20.0, "max": 30.0, "std": 50**0.5})
    assert result["joint_most_spent"] == pytest.approx(9.5 / 9.0)
    assert result["staged_hv"] == pytest.approx(15.0)
    assert result["uniform_hv"] == pytest.approx(15.0)
    assert result["random_hv"] == pytest.approx(5.0)
    assert result["joint_over_staged"] == pytest.approx(25 / 15)
    assert result["joint_over_staged_by_seed"]["hv"] == pytest.approx({"0": 20 / 10, "1": 30 / 20})
    assert result["seeds"] == 2
    assert result["doubts"] == []
    assert len(result["rows"]) == 8
    json.dumps(result, allow_nan=False)
    said = capsys.readouterr().out
    assert "joint, seed 1: 10 s of 9 s and 0 s to get ready again" in said
    assert "25.000 (20.000 .. 30.000)" in said
    assert "1.667 (by seed 2.000, 1.500)" in said


def test_an_arm_that_took_too_long_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs").mkdir()
    late, credited = _outcome("joint", 0, 0.7), _outcome("staged", 0, 0.7)
    late["seconds"] = credited["seconds"] = 18.0
    credited["credit"] = 9.0
    result = _report(tmp_path, monkeypatch, [late, credited])
    assert (result["joint_most_spent"], result["staged_most_spent"]) == (2.0, 1.0)
    said = capsys.readouterr().out
    assert "WARNING: joint, seed 0, took 2.00 times its budget" in said
    assert said.count("WARNING") == len(result["doubts"]) == 1


def test_an_arm_that_did_not_run_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs").mkdir()
    result = _report(tmp_path, monkeypatch, [_outcome("joint", 0, 0.7)])
    assert result["joint_hv"] == pytest.approx(20.0)
    assert result["staged_hv"] is None
    assert result["joint_over_staged"] is None
    assert result["seeds"] == 1


def test_an_arm_that_failed_is_in_no_mean_and_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs").mkdir()
    failed = _outcome("joint", 0, 0.6) | {"failure": "ExportError: no", "models": []}
    others = [_outcome("joint", 1, 0.7), _outcome("staged", 0, 0.9), _outcome("staged", 1, 0.6)]
    result = _report(tmp_path, monkeypatch, [failed, *others])
    assert result["joint_hv"] == pytest.approx(20.0)
    assert result["staged_hv"] == pytest.approx(25.0)
    # of the seed that both have
    assert result["joint_over_staged"] == pytest.approx(2.0)
    assert len(result["rows"]) == 4
    assert "joint, seed 0, failed (ExportError: no)" in capsys.readouterr().out


def test_no_arm_found_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs").mkdir()
    failed = _outcome("joint", 0, 0.6) | {"failure": "ExportError: no", "models": []}
    with pytest.raises(SystemExit, match=r"no arm found a model \(joint, seed 0: ExportError: no"):
        _report(tmp_path, monkeypatch, [failed])


def test_an_arm_that_failed_is_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for arm, failure in (("joint", None), ("staged", "ExportError: no")):
        kept = _outcome(arm, 0, 0.7) | {"failure": failure}
        keep_json(tmp_path / "seed0" / f"{arm}.json", kept)
    ran: list[tuple[int, str]] = []

    def child(place: Path, seed: int, arm: str, cores: Sequence[int]) -> None:
        ran.append((seed, arm))

    monkeypatch.setattr(joint_vs_staged, "_child", child)
    joint_vs_staged._run_missing(tmp_path, [0], ["joint", "staged", "random"], [0], 1, 1)
    assert ran == [(0, "staged"), (0, "random")]


def test_latencies_belong_to_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs").mkdir()
    outcome = _outcome("joint", 0, 0.7)
    _report(tmp_path, monkeypatch, [outcome])
    again = _outcome("joint", 0, 0.7)
    again["models"][0]["sha256"] = "of another file by the same name"
    _report(tmp_path, monkeypatch, [again])
    assert set(kept_json(tmp_path / "runs" / "measured.json")) == {
        "joint0",
        "of another file by the same name",
    }


@pytest.mark.parametrize(
    ("given", "chosen"),
    [("joint, staged", ["joint", "staged"]), (None, list(joint_vs_staged.ARMS))],
    ids=["named", "all"],
)
def test_arms(given: str | None, chosen: list[str]) -> None:
    assert joint_vs_staged._arms(given, quick=False) == chosen


def test_an_unknown_arm() -> None:
    with pytest.raises(SystemExit, match="there is no arm 'magic'"):
        joint_vs_staged._arms("joint,magic", quick=False)
