"""What is handed to ssh: read as a target or refused, and never weakened."""

from __future__ import annotations

from pathlib import Path

import pytest

from autocompress.errors import RequestError
from autocompress.measurement.remote import ssh
from autocompress.measurement.remote.programs import Done, OnLine
from autocompress.measurement.remote.ssh import SshTransport
from autocompress.measurement.remote.transport import Transport


@pytest.mark.parametrize(
    ("text", "target", "port"),
    [
        pytest.param("pi@board", "pi@board", 0, id="user"),
        pytest.param("board.local", "board.local", 0, id="host"),
        pytest.param("pi@10.0.0.7:2222", "pi@10.0.0.7", 2222, id="port"),
        pytest.param("pi@[fe80::1%eth0]:22", "pi@fe80::1%eth0", 22, id="ipv6"),
    ],
)
def test_targets(text: str, target: str, port: int) -> None:
    transport = SshTransport.parse(text)
    assert (transport.target, transport.port) == (target, port)
    assert isinstance(transport, Transport)


@pytest.mark.parametrize(
    "text",
    ["", "-oProxyCommand=id", "pi@-oProxyCommand=id", "pi@a b", "a;b", "pi@host:99999", "a@b@c"],
)
def test_what_is_no_target(text: str) -> None:
    with pytest.raises(RequestError, match="write user@host"):
        SshTransport.parse(text)


@pytest.mark.parametrize(
    "option",
    ["StrictHostKeyChecking=no", "stricthostkeychecking=accept-new", "BatchMode=no", "Port 22", ""],
)
def test_options_that_are_not_taken(option: str) -> None:
    with pytest.raises(RequestError, match="--ssh-option"):
        SshTransport.parse("pi@board", [option])


def test_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    def record(
        arguments: list[str],
        *,
        seconds: float,
        stdin: Path | None,
        stdout: Path | None,
        on_line: OnLine | None,
    ) -> Done:
        seen.append(arguments)
        return Done(0, "", "")

    monkeypatch.setattr(ssh, "run_program", record)
    transport = SshTransport.parse("pi@board:2222", ["IdentityFile=my key"])
    transport.run(["echo", "a b", "$(id)"], seconds=1)
    (arguments,) = seen
    assert arguments[0] == "ssh"
    assert arguments[-3:] == ["--", "pi@board", "echo 'a b' '$(id)'"]
    options = [arguments[i + 1] for i, word in enumerate(arguments) if word == "-o"]
    assert options[:2] == ["BatchMode=yes", "StrictHostKeyChecking=yes"]
    assert "IdentityFile=my key" in options
    assert {option.partition("=")[0] for option in options} >= {
        "ConnectTimeout",
        "ServerAliveInterval",
    }
    assert arguments[arguments.index("-p") + 1] == "2222"
