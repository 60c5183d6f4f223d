from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import pytest

from autocompress import __version__, errors
from tests.unit.cli.conftest import FakeApi, Outcome

Run = Callable[..., Outcome]
COMMANDS = [
    "search",
    "plan",
    "resume",
    "retarget",
    "report",
    "spaces",
    "devices",
    "verify",
    "doctor",
]


def test_help_names_every_command(run: Run) -> None:
    outcome = run("--help")
    assert outcome.code == 0
    assert all(command in outcome.out for command in COMMANDS)


DEVICES = ["list", "show", "measure", "validate", "import", "export"]


@pytest.mark.parametrize("command", [*COMMANDS, *(f"devices {name}" for name in DEVICES)])
def test_every_command_has_help(run: Run, command: str) -> None:
    outcome = run(*command.split(), "--help")
    assert outcome.code == 0
    assert "Usage: autocompress" in outcome.out


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom autocompress.cli import main\n"
        "try:\n    main(['search', '--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'numpy', 'pandas', 'plotly', 'onnxruntime', 'optuna', 'ray'}\n"
        "sys.exit(','.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr


def test_version(run: Run) -> None:
    assert run("--version").out.strip() == __version__


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(["serch"], "Did you mean 'search'?", id="command"),
        pytest.param(["search", "--data", "digits", "--budgt", "1m"], "--budgt", id="option"),
        pytest.param(["search", "--space", "tiny_cnn"], "--data", id="missing-option"),
        pytest.param(["resume"], "RUN", id="missing-argument"),
    ],
)
def test_a_command_line_that_cannot_be_read(run: Run, arguments: list[str], words: str) -> None:
    outcome = run(*arguments)
    assert outcome.code == 2
    assert words in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        pytest.param(
            errors.RequestError("unknown space 'x'; use one of tiny_cnn"), 2, id="request"
        ),
        pytest.param(errors.DataError("the train loader is empty"), 2, id="data"),
        pytest.param(errors.InfeasibleError("nearest: 2.3 ms; relax latency_ms"), 3, id="none"),
        pytest.param(errors.ProfileError("latency.csv is truncated at line 7"), 4, id="profile"),
        pytest.param(errors.RunInUseError("runs/x is in use by process 12"), 5, id="in-use"),
        pytest.param(errors.VerificationError("the outputs disagree"), 1, id="verification"),
        pytest.param(errors.InterruptedRun("saved; resume with …"), 130, id="interrupted"),
    ],
)
def test_our_errors_are_one_message_and_a_code(
    run: Run, api: FakeApi, error: errors.AutocompressError, code: int
) -> None:
    def fail() -> None:
        raise error

    api.action = fail
    outcome = run("search", "--space", "tiny_cnn", "--data", "digits")
    assert outcome.code == code
    assert outcome.err.strip().removeprefix("error: ") == str(error)
    assert outcome.out == ""


@pytest.mark.parametrize(
    "command", [("search", "--space", "tiny_cnn"), ("plan", "--model", "x.py:f")]
)
def test_programs_read_errors_as_json(run: Run, command: tuple[str, ...], api: FakeApi) -> None:
    def fail() -> None:
        raise errors.DataError("the train loader is empty")

    api.action = fail
    outcome = run(*command, "--data", "digits", "--json")
    *_, last = outcome.out.splitlines()
    said = json.loads(last)
    assert said["kind"] == "error"
    assert said["exit_code"] == outcome.code == 2
    assert f"error: {said['message']}" == outcome.err.strip()


def test_an_unexpected_error_is_our_bug(run: Run, api: FakeApi) -> None:
    def fail() -> None:
        raise KeyError("weights")

    api.action = fail
    outcome = run("search", "--space", "tiny_cnn", "--data", "digits")
    assert outcome.code == 1
    assert "KeyError: 'weights'" in outcome.err
    assert "bug of ours" in outcome.err
    assert "--debug" in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize("error", [KeyError("x"), errors.RequestError("x")], ids=["bug", "request"])
@pytest.mark.parametrize("how", ["before", "after", "variable"])
def test_tracebacks_on_request(
    run: Run, api: FakeApi, monkeypatch: pytest.MonkeyPatch, error: Exception, how: str
) -> None:
    def fail() -> None:
        raise error

    api.action = fail
    command = ["search", "--space", "tiny_cnn", "--data", "digits"]
    if how == "variable":
        monkeypatch.setenv("AUTOCOMPRESS_DEBUG", "1")
    else:
        command.insert(0 if how == "before" else len(command), "--debug")
    outcome = run(*command)
    assert "Traceback" in outcome.err
    assert "in fail" in outcome.err


def test_ctrl_c_ends_with_130(run: Run, api: FakeApi) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    api.action = interrupt
    outcome = run("search", "--space", "tiny_cnn", "--data", "digits")
    assert outcome.code == 130
    assert "Traceback" not in outcome.err
