"""kill -9 of the driver of a whole search: nothing finished is lost, and resuming ends the same."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import autocompress as ac
from autocompress.cli import main
from autocompress.core.events import Event
from autocompress.core.files import sha256_of
from autocompress.errors import RequestError, RunInUseError, StorageError
from tests.integration.runs import (
    ROOT,
    Setup,
    SmallCNN,
    content,
    events_until,
    front,
    status,
)

#: Stages that the driver is killed in, one after the other; a third of all in the search.
MOMENTS = (
    ("cnn", "search"), ("cnn", "finalise"), ("cnn", "baseline"), ("cnn", "verify"),
    ("cnn", "sensitise"), ("space", "elasticise"), ("cnn", "search"), ("cnn", "price"),
    ("cnn", "verify"), ("space", "baseline"), ("cnn", "search"), ("cnn", "finalise"),
    ("space", "search"), ("cnn", "inspect"), ("cnn", "verify"), ("space", "elasticise"),
    ("cnn", "search"), ("cnn", "baseline"), ("space", "finalise"), ("cnn", "finalise"),
)  # fmt: skip
KILLS = int(os.environ.get("AUTOCOMPRESS_KILLS", "3"))


@dataclass(frozen=True)
class Undisturbed:
    """A run that nothing happened to.

    Attributes:
        setup: what was searched.
        folder: the run's folder.
        seconds: what each stage took.
    """

    setup: Setup
    folder: Path
    seconds: dict[str, float]


def undisturbed(folder: Path, setup: Setup) -> Undisturbed:
    events: list[Event] = []
    setup.search(folder, events.append)
    seconds = {e.stage: e.data["seconds"] for e in events if e.kind == "stage_finished"}
    return Undisturbed(setup, folder, seconds)


@pytest.fixture(scope="module")
def calm_cnn(cnn: Setup, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    return undisturbed(tmp_path_factory.mktemp("cnn") / "run", cnn)


@pytest.fixture(scope="module")
def calm_space(fixed_profile: Path, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    setup = Setup(fixed_profile, space="tiny_cnn", trials=4, steps=30)
    return undisturbed(tmp_path_factory.mktemp("space") / "run", setup)


def rows(folder: Path) -> list[tuple[object, ...]]:
    """The rows of study.db as they are, time of storing included."""
    path = folder / "study.db"
    if not path.is_file():
        return []
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'trials'").fetchall():
            return []
        return list(db.execute("SELECT * FROM trials ORDER BY number"))


def whole(folder: Path) -> bool:
    """Whether every model under its final name is complete, and every decision readable."""
    for model in folder.glob("models/*"):
        manifest = json.loads((model / "manifest.json").read_text())
        if sha256_of(model / "model.onnx") != manifest["sha256"]:
            return False
    log = folder / "decisions.jsonl"
    lines = log.read_text().splitlines() if log.is_file() else []
    return all(json.loads(line)["sentence"] for line in lines)


def kill_in(
    folder: Path, setup: Setup, stage: str, delay: float, events: list[dict[str, Any]]
) -> bool:
    """Start a driver and kill it a moment after a stage began; whether it was still at work.

    Args:
        folder: the run's folder.
        setup: what is searched.
        stage: the stage.
        delay: the moment, in seconds.
        events: becomes what the driver told.
    """
    with setup.start(folder) as driver:
        events[:] = events_until(driver, stage, "stage_started")
        time.sleep(delay)
        driver.send_signal(signal.SIGKILL)
        left, errors = driver.communicate(timeout=60)
    events += [json.loads(line) for line in left.splitlines(keepends=True) if line.endswith("\n")]
    assert driver.returncode in (0, -signal.SIGKILL), errors
    return driver.returncode != 0


@pytest.mark.parametrize(
    "kill",
    [pytest.param(n, id=f"{n}-{'-'.join(MOMENTS[n % len(MOMENTS)])}") for n in range(KILLS)],
)
def test_killed_driver(
    kill: int,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    subject, stage = MOMENTS[kill % len(MOMENTS)]
    calm: Undisturbed = request.getfixturevalue(f"calm_{subject}")
    delay = random.Random(kill).uniform(0, 0.9 * calm.seconds[stage])
    folder, events = tmp_path / "run", list[dict[str, Any]]()
    while not kill_in(folder, calm.setup, stage, delay, events):
        shutil.rmtree(folder)  # it was faster than the undisturbed run, and ended before
        delay /= 2
    acknowledged = sum(e["kind"] == "trial" for e in events)
    acknowledged += sum((e["stage"], e["kind"]) == ("finalise", "progress") for e in events)

    stored, known = rows(folder), content(folder)
    assert len(stored) >= acknowledged
    assert known == content(calm.folder)[: len(known)]
    assert whole(folder)

    calm.setup.search(folder)
    assert "differs from what this run proposes" not in caplog.text
    assert status(folder) == "complete"
    assert (folder / "report.html").is_file()
    assert rows(folder)[: len(stored)] == stored, "a finished trial was lost or changed"
    assert content(folder) == content(calm.folder)
    assert front(folder) == front(calm.folder)
    assert whole(folder)
    print(f"killed in {events[-1]['stage']}: {len(stored)} trials kept")


def torn_decision(run: Path) -> None:
    with (run / "decisions.jsonl").open("a") as log:
        log.write('{"time": "2026-01-01T00:00:00+00:00", "stage": "sea')


def half_written_files(run: Path) -> None:
    (run / "models" / ".model.onnx.k3j2h1").write_bytes(b"half")
    (run / "models" / "0123456789ab").mkdir()
    (run / "models" / "0123456789ab" / "model.onnx").write_bytes(b"half")
    (run / "staging" / "ba9876543210").mkdir(parents=True)
    (run / "checkpoints" / ".original.safetensors.77").write_bytes(b"half")
    (run / ".run.toml.77").write_text("[run]")


def half_written_device(run: Path) -> None:
    (run / "device" / "profile.toml").unlink()


def finalists(run: Path) -> list[Path]:
    return sorted(p for p in run.glob("checkpoints/*.safetensors") if len(p.stem) == 12)


def lost_checkpoint(run: Path) -> None:
    finalists(run)[0].unlink()


def cut_checkpoint(run: Path) -> None:
    path = finalists(run)[-1]
    path.write_bytes(path.read_bytes()[:100])


def lost_original(run: Path) -> None:
    (run / "checkpoints" / "original.safetensors").unlink()


def lost_table(run: Path) -> None:
    (run / "pareto.csv").unlink()


def altered_model(run: Path) -> None:
    path = next(p for p in sorted(run.glob("models/*/model.onnx")) if len(p.parent.name) == 12)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_table(run: Path) -> None:
    path = run / "pareto.csv"
    path.write_bytes(path.read_bytes()[:-7])


def cut_baseline(run: Path) -> None:
    path = run / "models" / "baseline-int8" / "model.onnx"
    path.write_bytes(path.read_bytes()[:100])


def lost_model(run: Path) -> None:
    shutil.rmtree(next(p for p in sorted(run.glob("models/*")) if len(p.name) == 12))


@pytest.mark.parametrize("status_before", ["running", "complete"])
@pytest.mark.parametrize("damage", [lost_table, cut_table, cut_baseline, lost_model, altered_model])
def test_damaged_results_are_made_again(
    damage: Callable[[Path], None], status_before: str, calm_cnn: Undisturbed, tmp_path: Path
) -> None:
    """Also in a run that was complete."""
    folder = tmp_path / "run"
    shutil.copytree(calm_cnn.folder, folder)
    settings = (folder / "run.toml").read_text()
    (folder / "run.toml").write_text(settings.replace('"complete"', f'"{status_before}"'))
    damage(folder)
    calm_cnn.setup.search(folder)
    assert status(folder) == "complete"
    assert front(folder) == front(calm_cnn.folder)
    assert whole(folder)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("plan.json", "{}"), ("plan.json", "[3]"), ("baseline.json", "[]"),
        ("baseline.json", '[{"id": "baseline-fp32"}]'), ("sensitivity.json", "[1]"),
        ("sensitivity.json", '{"width:a": {"x": 1}}'), ("pricing.json", "3"), ("plan.json", "{"),
    ],
)  # fmt: skip
def test_files_that_hold_something_else_are_named(
    name: str, text: str, calm_cnn: Undisturbed, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(calm_cnn.folder, folder)
    settings = (folder / "run.toml").read_text()
    (folder / "run.toml").write_text(settings.replace('"complete"', '"running"'))
    (folder / name).write_text(text)
    with pytest.raises(StorageError, match=rf"{name} is damaged .*; delete it and resume"):
        calm_cnn.setup.search(folder)


@pytest.mark.parametrize(
    "damage",
    [
        torn_decision, half_written_files, half_written_device, lost_checkpoint, cut_checkpoint,
        lost_original,
    ],
)  # fmt: skip
def test_resuming_a_damaged_folder(
    damage: Callable[[Path], None], calm_cnn: Undisturbed, tmp_path: Path
) -> None:
    """What a crash leaves half-written, or what somebody deleted, is made again."""
    folder = tmp_path / "run"
    shutil.copytree(calm_cnn.folder, folder)
    settings = (folder / "run.toml").read_text()
    (folder / "run.toml").write_text(settings.replace('"complete"', '"running"'))
    stored = rows(folder)
    damage(folder)
    result = calm_cnn.setup.search(folder)
    assert status(folder) == "complete"
    assert rows(folder) == stored
    assert front(folder) == front(calm_cnn.folder)
    assert whole(folder)
    assert not (folder / "staging").exists()
    again = [d for d in result.view.decisions if d["decision"] == "lost checkpoint"]
    assert len(again) == (damage in (lost_checkpoint, cut_checkpoint))


def test_another_model_is_refused(calm_cnn: Undisturbed, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(calm_cnn.folder, folder)
    settings = (folder / "run.toml").read_text()
    (folder / "run.toml").write_text(settings.replace('"complete"', '"running"'))
    other = SmallCNN()
    other.body = nn.Sequential(*list(other.body)[:2], nn.Conv2d(32, 16, 3, padding=1))
    with pytest.raises(RequestError, match="a run of other weights or other data; use another"):
        ac.resume(folder, other.eval(), progress="none")
    assert status(folder) == "running"


def test_run_in_use(cnn: Setup, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A second process is told who is at work, and the first one does not notice."""
    folder = tmp_path / "run"
    with cnn.start(folder, slow=0.05) as driver:
        events_until(driver, "inspect", "stage_started")
        message = rf"{folder} is in use by process {driver.pid} on .*choose another folder"
        with pytest.raises(RunInUseError, match=message):
            ac.resume(folder, SmallCNN(), progress="none")
        capfd.readouterr()
        code = f"{ROOT}/tests/integration/runs.py:SmallCNN"
        words = ["--model", code, "--data", "digits", "--run-dir", str(folder), "--quiet"]
        with pytest.raises(SystemExit) as ended:
            main(["search", *words])
        assert ended.value.code == 5
        out, err = capfd.readouterr()
        assert out == ""
        assert len(err.strip().splitlines()) == 1
        assert f"in use by process {driver.pid}" in err
        driver.communicate(timeout=200)
    assert driver.returncode == 0
    assert status(folder) == "complete"
