from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from autocompress.hardware import load_profile, profiles
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


def test_measure_this_machine_and_keep_the_profile(run: Run, tmp_path: Path) -> None:
    command = ("devices", "measure", "--input", "1x8x8", "--budget", "0.5s")
    outcome = run(*command, "--id", "my_box", "--out", tmp_path)
    assert outcome.code == 0, outcome.err
    assert "kernels are within reach of tiny_cnn" in outcome.out
    profile = load_profile(tmp_path / "my_box")
    assert profile.id == "my_box"
    assert profile.kind == "measured"
    assert len(profile.table) > 0
    again = run(*command, "--id", "my_box", "--out", tmp_path)
    assert again.code == 2
    assert "is there already" in again.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(["--input", "3x32xwide"], "--input is '3x32xwide'", id="shape"),
        pytest.param(["--space", "nope"], "unknown search space 'nope'", id="space"),
        pytest.param(["--id", "My Box"], "--id is 'My Box'", id="name"),
        pytest.param(["--runtime", "nope"], "unknown runtime 'nope'", id="runtime"),
        pytest.param(["--budget", "0s"], "budget is '0s'", id="budget"),
    ],
)
def test_measure_refuses_a_wrong_request(run: Run, arguments: list[str], words: str) -> None:
    outcome = run("devices", "measure", *arguments)
    assert outcome.code == 2
    assert words in outcome.err
