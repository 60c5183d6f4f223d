"""Runs the system's ``ssh`` and ``adb``: argument lists, deadlines, output line by line."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from autocompress.errors import DeviceError

#: Told every line as it comes.
OnLine = Callable[[str], None]


class LinkLost(DeviceError):  # noqa: N818 - an event: it may come back
    """The device does not answer any more; it may come back."""


@dataclass(frozen=True, slots=True)
class Done:
    """How a program ended.

    Attributes:
        code: its exit code, that of the device's program where one ran there.
        out: standard output.
        err: standard error.
    """

    code: int
    out: str
    err: str

    @property
    def last_words(self) -> str:
        """The last line of what it said, errors before output."""
        lines = [*self.out.strip().splitlines()[-1:], *self.err.strip().splitlines()[-1:]]
        return lines[-1].strip() if lines else f"exit code {self.code}"


def run_program(
    arguments: Sequence[str],
    *,
    seconds: float,
    stdin: Path | None = None,
    stdout: Path | None = None,
    on_line: OnLine | None = None,
) -> Done:
    """Run a program to its end.

    Args:
        arguments: the program and what it is given; no shell comes near them.
        seconds: it is ended after so long.
        stdin: a file that it reads; otherwise it reads nothing.
        stdout: a file that its output goes to, instead of ``Done.out``.
        on_line: told its output line by line.

    Raises:
        DeviceError: there is no such program.
        LinkLost: the time was over.
    """
    late = threading.Event()
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(stdin.open("rb")) if stdin is not None else subprocess.DEVNULL
        target = stack.enter_context(stdout.open("wb")) if stdout is not None else subprocess.PIPE
        errors = stack.enter_context(tempfile.TemporaryFile())
        try:
            process = subprocess.Popen(
                list(arguments), stdin=source, stdout=target, stderr=errors, errors="replace"
            )
        except FileNotFoundError as error:
            raise DeviceError(
                f"the program {arguments[0]!r} is not installed here; install it "
                f"({'openssh-client' if arguments[0] == 'ssh' else 'android platform tools'})"
            ) from error

        def end() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(seconds, end)
        timer.start()
        lines = []
        try:
            for line in process.stdout or ():
                lines.append(line)
                if on_line is not None:
                    on_line(line.rstrip("\r\n"))
            code = process.wait()
        finally:
            timer.cancel()
            if process.poll() is None:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()
        errors.seek(0)
        done = Done(code, "".join(lines), errors.read().decode("utf-8", "replace"))
    if late.is_set():
        raise LinkLost(f"{arguments[0]} gave no answer within {seconds:.0f} s")
    return done
