from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from autocompress.hardware import profiles
from autocompress.hardware.machine import describe_machine
from autocompress.hardware.profile import HardwareProfile
from tests.unit.cli.conftest import Outcome

Run = Callable[..., Outcome]


@pytest.fixture
def board(tmp_path: Path) -> Path:
    """A profile without any kernel."""
    folder = tmp_path / "board"
    folder.mkdir()
    HardwareProfile("board", "a test board", "measured", describe_machine()).save(folder)
    return folder


def test_show_a_profile_by_its_path(run: Run, board: Path) -> None:
    outcome = run("devices", "show", board)
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith("device        board\ndescription   a test board\n")
    assert "w4a32 (smaller, not faster)" in outcome.out
    assert "error band is assumed" in outcome.out
    assert json.loads(run("devices", "show", board, "--json").out)["device"] == "board"


def test_an_unknown_device(run: Run) -> None:
    outcome = run("devices", "show", "pi9")
    assert outcome.code == 2
    assert "unknown device 'pi9'; use one of" in outcome.err


@pytest.mark.parametrize("name", ["profile.toml", "latency.csv"])
def test_a_corrupt_profile(run: Run, board: Path, name: str) -> None:
    path = board / name
    path.write_bytes(path.read_bytes()[:-9])
    outcome = run("devices", "show", board)
    assert outcome.code == 4
    assert str(path) in outcome.err
    assert "Traceback" not in outcome.err


def test_list_goes_on_after_a_corrupt_profile(
    run: Run, board: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profiles, "built_in_folder", lambda: board.parent)
    (board / "latency.csv").unlink()
    outcome = run("devices", "list")
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert lines[1].startswith("board   unusable")
    assert lines[2].startswith("local   this machine")
    assert [row["device"] for row in json.loads(run("devices", "list", "--json").out)] == [
        "board",
        "local",
    ]
