"""Ctrl-C: the first ends in order and reports, the second leaves at once; both can be resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

import autocompress as ac
from tests.integration.runs import ROOT, Setup, content, events_until, front, status

BASELINES = ("baseline-fp32", "baseline-int8")


def ctrl_c(driver: subprocess.Popen[str]) -> None:
    """What a terminal does: the whole process group gets the signal."""
    os.killpg(driver.pid, signal.SIGINT)


def children(driver: subprocess.Popen[str]) -> list[psutil.Process]:
    return list(psutil.Process(driver.pid).children(recursive=True))


def ended(processes: Sequence[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=5)
    return not alive


def resume(
    folder: Path, setup: Setup, kept: list[tuple[object, ...]], caplog: pytest.LogCaptureFixture
) -> None:
    """Go on until the end, with every trial that was kept."""
    setup.search(folder)
    assert "differs from what this run proposes" not in caplog.text
    assert status(folder) == "complete"
    assert content(folder)[: len(kept)] == kept
    assert front(folder)


def test_in_the_search(cnn: Setup, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "run"
    setup = replace(cnn, workers=2, trials=12)
    with setup.start(folder, slow=0.2) as driver:
        events_until(driver, "search", "trial")
        helpers = children(driver)
        ctrl_c(driver)
        rest, errors = driver.communicate(timeout=60)
    assert driver.returncode == 130, errors
    assert ended(helpers)
    assert status(folder) == "interrupted"
    assert '"finalise"' not in rest
    kept = content(folder)
    assert 1 <= len(kept) < 12
    assert (folder / "report.html").is_file()
    assert len(ac.SearchResult(folder).baseline) == 2
    resume(folder, setup, kept, caplog)


def test_in_the_finale(cnn: Setup, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Models that are finished by then are verified and reported."""
    folder = tmp_path / "run"
    with cnn.start(folder, slow=0.05) as driver:
        events_until(driver, "finalise", "progress")
        ctrl_c(driver)
        rest, errors = driver.communicate(timeout=60)
    assert driver.returncode == 130, errors
    assert status(folder) == "interrupted"
    assert '"verify", "kind": "stage_finished"' in rest
    finished = [t for t in content(folder) if t[2] == "final"]
    assert 1 <= len(finished) < 6
    early = front(folder)
    assert 1 <= len(early) <= len(finished)
    assert {s.id for s in ac.SearchResult(folder).solutions} == set(early)
    assert "interrupted" in (folder / "report.html").read_text()

    resume(folder, cnn, content(folder), caplog)
    late = front(folder)
    assert len([t for t in content(folder) if t[2] == "final"]) == 6
    assert all(late[name] == early[name] for name in set(early) & set(late))
    held = {path.parent.name for path in folder.glob("[mr]*/*/model.onnx")}
    assert held == {*late, *(p.name for p in folder.glob("rejected/*")), *BASELINES}


@pytest.mark.parametrize("workers", [1, 2])
def test_twice(workers: int, cnn: Setup, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The trials that are under way are given up, and nothing is left running."""
    folder = tmp_path / "run"
    setup = replace(cnn, workers=workers)
    with setup.start(folder, slow=1.5) as driver:
        before = events_until(driver, "search", "trial")
        helpers = children(driver)
        time.sleep(0.7)
        ctrl_c(driver)
        time.sleep(0.5)
        ctrl_c(driver)
        rest, errors = driver.communicate(timeout=60)
    assert driver.returncode == 130, errors
    assert ended(helpers)
    assert status(folder) == "interrupted"
    told = [*before, *map(json.loads, rest.splitlines())]
    kept = content(folder)
    assert len(kept) == sum(event["kind"] == "trial" for event in told)
    assert not any(event["stage"] == "verify" for event in told)
    if workers == 1:  # with two, see above
        resume(folder, setup, kept, caplog)


def autocompress(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "autocompress.cli", *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_on_the_command_line(fixed_profile: Path, weights: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    model = ("--model", ROOT / "tests/integration/runs.py:SmallCNN", "--weights", weights)
    options = ("--device", fixed_profile, "--budget", "25s", "--run-dir", folder, "--json")
    with autocompress("search", *model, "--data", "digits", *options) as process:
        told = events_until(process, "search", "trial")
        ctrl_c(process)
        out, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    told += map(json.loads, out.splitlines())
    assert told[-1]["kind"] == "result"
    assert told[-1]["status"] == "interrupted"
    assert len(told[-1]["baseline"]) == 2
    kept = content(folder)
    assert kept

    with autocompress("resume", folder, *model) as process:
        out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert status(folder) == "complete"
    assert content(folder)[: len(kept)] == kept
    assert "baseline-int8" not in front(folder)
    assert all(name in out for name in front(folder))
