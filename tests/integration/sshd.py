"""A real sshd on loopback, with keys of its own, as a process of the test's own."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import psutil

_CONFIG = """\
ListenAddress 127.0.0.1:{port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
MaxStartups 100
"""


def find_sshd() -> str | None:
    """``$AUTOCOMPRESS_SSHD``, or the installed one."""
    chosen = os.environ.get("AUTOCOMPRESS_SSHD")
    if chosen:
        return chosen
    return shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")


def make_key(path: Path) -> None:
    """A fresh key pair without a passphrase."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)


class LoopbackSshd:
    """Listens on 127.0.0.1 for the user who runs the tests.

    Args:
        program: the sshd.
        folder: for its keys, its configuration and its log.
    """

    def __init__(self, program: str, folder: Path) -> None:
        self.program, self.folder = program, folder
        make_key(folder / "host_key")
        make_key(folder / "user_key")
        shutil.copy(folder / "user_key.pub", folder / "authorized_keys")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        (folder / "sshd_config").write_text(_CONFIG.format(port=self.port, folder=folder))
        kind, key = (folder / "host_key.pub").read_text().split()[:2]
        (folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {kind} {key}\n")
        self.target = f"{pwd.getpwuid(os.getuid()).pw_name}@127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def options(self) -> list[str]:
        """What ssh needs to know of the keys."""
        return [
            f"IdentityFile={self.folder / 'user_key'}",
            f"UserKnownHostsFile={self.folder / 'known_hosts'}",
            "GlobalKnownHostsFile=/dev/null",
            "IdentitiesOnly=yes",
        ]

    def start(self) -> None:
        """Listen; returns when it does."""
        if os.getuid() == 0:  # where sshd, run by root, wants to lock itself in
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self.program, "-D", "-e", "-f", str(self.folder / "sshd_config")],
                stdin=subprocess.DEVNULL,
                stderr=log,
                stdout=log,
            )
        until = time.monotonic() + 30
        while time.monotonic() < until:
            if self._process.poll() is not None:
                break
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        self.stop()
        raise RuntimeError(f"sshd does not listen: {(self.folder / 'log').read_text()[-500:]}")

    def cut(self) -> int:
        """Kill the processes that serve a connection, not what they have started; their number."""
        assert self._process is not None
        sessions = [
            child
            for child in psutil.Process(self._process.pid).children(recursive=True)
            if child.name().startswith("sshd")
        ]
        for session in sessions:
            session.send_signal(signal.SIGKILL)
        return len(sessions)

    def stop(self) -> None:
        """Listen no more, and cut what is connected."""
        if self._process is not None:
            if self._process.poll() is None:
                self.cut()
                self._process.kill()
            self._process.wait()
            self._process = None
