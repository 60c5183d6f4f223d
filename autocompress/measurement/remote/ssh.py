"""A device behind the system's ``ssh``: never a password, never an unknown host key.

Files travel through ``cat`` on the same command, so that a board needs no sftp server.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autocompress.core.files import replacing
from autocompress.errors import DeviceError, RequestError
from autocompress.measurement.remote.programs import Done, LinkLost, OnLine, run_program

_TARGET = re.compile(
    r"(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9_.-]*)@)?"
    r"(?P<host>[A-Za-z0-9_][A-Za-z0-9_.-]*|\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9]+)?\])"
    r"(?::(?P<port>[0-9]{1,5}))?"
)
_OPTION = re.compile(r"[A-Za-z]+=[^\x00-\x1f]+")
#: Ours, and not to be had otherwise; ssh takes the first value that it is given.
_FIXED = ("BatchMode=yes", "StrictHostKeyChecking=yes")
_DEFAULTS = ("ConnectTimeout=10", "ServerAliveInterval=5", "ServerAliveCountMax=3")
#: ssh's own exit code when the connection, not the command, failed.
_SSH_FAILED = 255
_COPY_SECONDS = 900.0
_SHORT_SECONDS = 60.0


@dataclass(frozen=True)
class SshTransport:
    """A device by ``user@host``.

    Attributes:
        target: ``user@host``, without the port.
        port: 0 for ssh's own choice.
        options: more of ssh's options, as ``Key=Value``.
    """

    target: str
    port: int = 0
    options: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str, options: Sequence[str] = ()) -> SshTransport:
        """From ``user@host[:port]``; an IPv6 address stands in brackets.

        Raises:
            RequestError: it has another form, or an option would weaken the connection.
        """
        match = _TARGET.fullmatch(text)
        if match is None or int(match["port"] or 0) > 65535:
            raise RequestError(f"--ssh is {text!r}; write user@host or user@host:port")
        for option in options:
            if not _OPTION.fullmatch(option):
                raise RequestError(
                    f"--ssh-option is {option!r}; write Key=Value, such as IdentityFile=key"
                )
            key = option.partition("=")[0].lower()
            if key in {"batchmode", "stricthostkeychecking"}:
                raise RequestError(
                    f"--ssh-option {option} is not taken: a host must be known before anything is "
                    "run on it; add its key to known_hosts (connect once by hand)"
                )
        host = match["host"].strip("[]")
        target = f"{match['user']}@{host}" if match["user"] else host
        return cls(target, int(match["port"] or 0), tuple(options))

    @property
    def name(self) -> str:
        """``ssh user@host[:port]``."""
        return f"ssh {self.target}" + (f":{self.port}" if self.port else "")

    def check(self) -> None:
        """Connect once."""
        self._ssh("true", seconds=_SHORT_SECONDS)

    def run(
        self, arguments: Sequence[str], *, seconds: float, on_line: OnLine | None = None
    ) -> Done:
        """Run a program there; see :class:`~.transport.Transport`."""
        return self._ssh(shlex.join(arguments), seconds=seconds, on_line=on_line)

    def push(self, local: Path, remote: str) -> None:
        """Copy a file there, whole or not at all."""
        size = local.stat().st_size
        name, part = shlex.quote(remote), shlex.quote(f"{remote}.part")
        # a cut connection ends `cat` like the end of the file does: hence the count
        command = f'cat > {part} && test "$(wc -c < {part})" -eq {size} && mv {part} {name}'
        done = self._ssh(command, seconds=_COPY_SECONDS, stdin=local)
        if done.code != 0:
            if "no space left" in done.err.lower():
                raise DeviceError(
                    f"{self.name}: its disk is full; make room, or choose another place with "
                    "--remote-dir"
                )
            if done.err.strip():
                raise DeviceError(
                    f"{self.name}: cannot write {remote}: {done.last_words}; choose another place "
                    "with --remote-dir"
                )
            raise LinkLost(f"{self.name}: copying {local.name} was cut off")

    def pull(self, remote: str, local: Path) -> None:
        """Copy a file from there, whole or not at all."""
        with replacing(local) as temporary:
            command = f"cat {shlex.quote(remote)}"
            done = self._ssh(command, seconds=_COPY_SECONDS, stdout=temporary)
            if done.code != 0:
                raise DeviceError(f"{self.name}: cannot read {remote}: {done.last_words}")

    def _ssh(
        self,
        command: str,
        *,
        seconds: float,
        stdin: Path | None = None,
        stdout: Path | None = None,
        on_line: OnLine | None = None,
    ) -> Done:
        arguments = ["ssh", "-T", "-x", "-a"]
        for option in (*_FIXED, *self.options, *_DEFAULTS):
            arguments += ["-o", option]
        if self.port:
            arguments += ["-p", str(self.port)]
        arguments += ["--", self.target, command]
        done = run_program(arguments, seconds=seconds, stdin=stdin, stdout=stdout, on_line=on_line)
        if done.code == _SSH_FAILED or done.code < 0:
            self._explain(done)
        return done

    def _explain(self, done: Done) -> None:
        words = done.err.lower()
        host = self.target.rpartition("@")[2]
        at = f"-p {self.port} {self.target}" if self.port else self.target
        if "identification has changed" in words:
            raise DeviceError(
                f"{self.name}: the host's key is not the one in known_hosts; if the board was set "
                f"up anew, remove the old key with: ssh-keygen -R {host}"
            )
        if "host key verification failed" in words or "no matching host key" in words:
            raise DeviceError(
                f"{self.name}: its host key is not known here; connect once by hand, compare the "
                f"fingerprint and accept it: ssh {at}"
            )
        if "permission denied" in words or "too many authentication failures" in words:
            raise DeviceError(
                f"{self.name}: it refuses our key (no password is ever asked for); put a public "
                f"key there with: ssh-copy-id {at}"
            )
        if "could not resolve hostname" in words:
            raise LinkLost(
                f"{self.name}: no such host is known here; check the name, or give its address"
            )
        if "bad configuration option" in words or "unsupported option" in words:
            raise RequestError(f"--ssh-option: {done.last_words}")
        raise LinkLost(f"{self.name}: {done.last_words}")
