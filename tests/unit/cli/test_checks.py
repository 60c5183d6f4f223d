from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from autocompress.cli import checks
from autocompress.cli.checks import Finding, run_checks
from tests.unit.cli.conftest import Outcome

Run = Callable[..., Outcome]


def test_this_installation_works() -> None:
    findings = {finding.name: finding for finding in run_checks()}
    assert not [f for f in findings.values() if f.status == "fail"]
    assert "torchvision::nms works" in findings["torch + torchvision"].detail
    assert "runs a model" in findings["onnxruntime"].detail
    assert "tiny_cnn" in findings["search spaces"].detail


def test_a_check_that_raises_is_a_failure_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> Finding:
        raise RuntimeError("operator torchvision::nms does not exist\nmore")

    last = ("last", lambda name: Finding(name, "ok", "fine"), "")
    monkeypatch.setattr(checks, "_CHECKS", (("first", broken, "reinstall"), last))
    assert list(run_checks()) == [
        Finding(
            "first", "fail", "RuntimeError: operator torchvision::nms does not exist", "reinstall"
        ),
        Finding("last", "ok", "fine"),
    ]


@pytest.mark.parametrize(
    ("status", "code"), [("ok", 0), ("warn", 0), ("fail", 1)], ids=["ok", "warn", "fail"]
)
def test_doctor_fails_only_for_failures(
    run: Run, monkeypatch: pytest.MonkeyPatch, status: checks.Status, code: int
) -> None:
    check = ("thing", lambda name: Finding(name, status, "detail", "do this"), "")
    monkeypatch.setattr(checks, "_CHECKS", (check,))
    outcome = run("doctor")
    assert outcome.code == code
    assert "do this" in outcome.out
    rows = [json.loads(line) for line in run("doctor", "--json").out.splitlines()]
    assert rows == [{"name": "thing", "status": status, "detail": "detail", "advice": "do this"}]


def test_a_cache_that_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    blocked = tmp_path_factory.mktemp("x") / "file"
    blocked.touch()
    monkeypatch.setenv("AUTOCOMPRESS_CACHE", str(blocked / "cache"))
    found = {finding.name: finding for finding in run_checks()}["cache folder"]
    assert found.status == "fail"
    assert "AUTOCOMPRESS_CACHE" in found.advice
