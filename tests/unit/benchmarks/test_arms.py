from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from autocompress.evaluation.data import Data
from autocompress.export.verification import verify_artifact
from autocompress.hardware.profiles import load_profile
from benchmarks import _arms
from benchmarks._arms import Arm, Model
from benchmarks._volumes import Reference


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10),
    ).eval()  # fmt: skip


def arm(folder: Path, seconds: float) -> Arm:
    digits = Data.load("digits")
    few = [split.subset(96) for split in (digits.train, digits.val, digits.test)]
    ground: Any = SimpleNamespace(
        folder=folder, seed=0, start="tiny", protocol=SimpleNamespace(seconds=seconds),
        data=Data(*few), profile=load_profile("amd_epyc_zen5_avx512"),
        reference=Reference(accuracy=0.5, latency_ms=8.0, size_bytes=4000.0),
    )  # fmt: skip
    return Arm(ground, folder / "uniform")


def row(i: int) -> dict[str, Any]:
    """Each is better than those before in accuracy, and worse in costs."""
    return {
        "stage": "architecture", "id": f"m{i}", "val_accuracy": 0.6 + 0.02 * i,
        "latency_estimate_ms": 1.0 + 0.2 * i, "size_bytes": 1000 + 50 * i,
    }  # fmt: skip


def test_getting_ready_is_not_counted(tmp_path: Path) -> None:
    running = arm(tmp_path, 100.0)
    before = running.left
    with running.getting_ready():
        time.sleep(0.05)
    assert running.credit >= 0.05
    assert running.left == pytest.approx(before, abs=0.04)


@pytest.mark.parametrize(
    ("closing", "networks"), [(3.0, 8), (20.0, 2), (1000.0, 1)], ids=["cheap", "dear", "too dear"]
)
def test_uniform_has_as_many_networks_as_it_has_time_to_train(
    closing: float, networks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = arm(tmp_path, 480.0)
    wanted: dict[str, Any] = {}
    given: list[float] = []

    def search(name: str, _: object, seconds: float, **more: Any) -> None:
        wanted.update(more, seconds=seconds)
        running.rows = [row(i) for i in range(more["models"])]
        running.searches = [{"closing": closing}]
        running.began = time.monotonic() - seconds

    def quantise(_: Arm, __: Model, name: str, seconds: float) -> None:
        given.append(seconds)
        running.began -= seconds

    monkeypatch.setattr(running, "search", search)
    monkeypatch.setattr(
        running, "modules", lambda *_: [Model(nn.Identity(), r) for r in running.rows]
    )
    monkeypatch.setattr(_arms, "_quantise", quantise)
    _arms.uniform_int8(running)
    # floats and int8 together are as many as other arms end with
    assert wanted["models"] == _arms.ENDING // 2
    assert wanted["seconds"] == pytest.approx(0.8 * 480.0)
    assert given == pytest.approx([96.0 / networks] * networks, abs=0.1)


def test_int8_is_trained_verified_and_its_capture_credited(tmp_path: Path) -> None:
    running = arm(tmp_path, 60.0)
    running.searches = [{"closing": 0.5}]
    _arms._quantise(running, Model(network(), row(0)), "int8-0", 2.0)
    done = running.searches[-1]
    assert done["models"] == 1
    assert done["steps"] > 0
    assert running.credit == done["credited"] > 0
    assert 0 < done["closing"] < done["seconds"]
    assert running.closing == done["closing"]
    [found] = running.rows
    assert found["path"] == "uniform/int8-0/model.onnx"
    path = tmp_path / found["path"]
    assert found["size_bytes"] == path.stat().st_size
    assert verify_artifact(path).ok


def test_no_time_is_left_to_train(tmp_path: Path) -> None:
    running = arm(tmp_path, 60.0)
    running.searches = [{"closing": 5.0}]
    _arms._quantise(running, Model(network(), row(0)), "int8-0", 1.0)
    assert running.searches[-1]["steps"] == 0
    assert running.searches[-1]["models"] == 1
