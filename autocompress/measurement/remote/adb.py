"""An Android device behind the system's ``adb``."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autocompress.core.files import replacing
from autocompress.errors import DeviceError, RequestError
from autocompress.measurement.remote.programs import Done, LinkLost, OnLine, run_program

_SERIAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*")
#: Older devices do not hand the exit code over, so the shell prints it.
_CODE = "autocompress-exit-code="
ANY = "any"
#: What adb says, by the state that it means.
_STATES = {
    "unauthorized": ("device unauthorized", "still authorizing"),
    "no permissions": ("no permissions", "insufficient permissions"),
    "offline": ("device offline", "error: closed", "protocol fault"),
    "gone": ("not found", "no devices"),
}
_COPY_SECONDS = 900.0
_SHORT_SECONDS = 60.0


@dataclass(frozen=True)
class AdbTransport:
    """A device by its serial number.

    Attributes:
        serial: as ``adb devices`` lists it.
    """

    serial: str

    @classmethod
    def parse(cls, text: str) -> AdbTransport:
        """From a serial number, or ``any`` for the only device that is attached.

        Raises:
            RequestError: it is no serial number.
            DeviceError: "any", and no device or several are attached.
        """
        if not _SERIAL.fullmatch(text):
            raise RequestError(f"--adb is {text!r}; write a serial number of: adb devices")
        if text != ANY:
            return cls(text)
        attached = _attached()
        if not attached:
            raise DeviceError(
                "adb sees no device; connect one, switch USB debugging on, and look at: adb devices"
            )
        if len(attached) > 1:
            raise DeviceError(
                f"adb sees several devices ({', '.join(sorted(attached))}); name one with --adb"
            )
        return cls(next(iter(attached)))

    @property
    def name(self) -> str:
        """``adb SERIAL``."""
        return f"adb {self.serial}"

    def check(self) -> None:
        """Whether it is attached and has authorised this machine."""
        attached = _attached()
        state = attached.get(self.serial)
        if state is None:
            others = f"; there are: {', '.join(sorted(attached))}" if attached else ""
            raise DeviceError(f"adb sees no device {self.serial!r}{others}; look at: adb devices")
        if state != "device":
            raise self._in_state(state)

    def run(
        self, arguments: Sequence[str], *, seconds: float, on_line: OnLine | None = None
    ) -> Done:
        """Run a program there; see :class:`~.transport.Transport`."""
        return self._shell(shlex.join(arguments), seconds=seconds, on_line=on_line)

    def push(self, local: Path, remote: str) -> None:
        """Copy a file there, whole or not at all."""
        part = f"{remote}.part"
        done = self._adb("push", str(local), part, seconds=_COPY_SECONDS)
        if done.code == 0:
            command = (
                f'test "$(wc -c < {shlex.quote(part)})" -eq {local.stat().st_size} '
                f"&& mv {shlex.quote(part)} {shlex.quote(remote)}"
            )
            done = self._shell(command, seconds=_SHORT_SECONDS)
        if done.code != 0:
            if "no space left" in (done.err + done.out).lower():
                raise DeviceError(
                    f"{self.name}: its storage is full; make room, or choose another place with "
                    "--remote-dir"
                )
            if done.err.strip():
                raise DeviceError(f"{self.name}: cannot write {remote}: {done.last_words}")
            raise LinkLost(f"{self.name}: copying {local.name} was cut off")

    def pull(self, remote: str, local: Path) -> None:
        """Copy a file from there, whole or not at all."""
        with replacing(local) as temporary:
            done = self._adb("pull", remote, str(temporary), seconds=_COPY_SECONDS)
            if done.code != 0:
                raise DeviceError(f"{self.name}: cannot read {remote}: {done.last_words}")

    def _shell(self, command: str, *, seconds: float, on_line: OnLine | None = None) -> Done:
        codes: list[str] = []

        def heard(line: str) -> None:
            _, mark, code = line.rpartition(_CODE)
            if mark:
                codes.append(code)
            elif on_line is not None:
                on_line(line)

        script = f"{command}; echo {_CODE}$?"
        done = self._adb("shell", script, seconds=seconds, on_line=heard)
        if not codes or not codes[-1].strip().isdecimal():
            raise LinkLost(f"{self.name}: the connection ended: {done.last_words}")
        said, _, _ = done.out.rpartition(_CODE)
        return Done(int(codes[-1]), said, done.err)

    def _adb(self, *arguments: str, seconds: float, on_line: OnLine | None = None) -> Done:
        done = run_program(["adb", "-s", self.serial, *arguments], seconds=seconds, on_line=on_line)
        words = done.err.strip().lower()
        if done.code != 0 and words.startswith(("error: ", "adb: ")):  # adb's own, not the device's
            for state, signs in _STATES.items():
                if any(sign in words for sign in signs):
                    raise self._in_state(state)
        return done

    def _in_state(self, state: str) -> DeviceError:
        if state == "unauthorized":
            return DeviceError(
                f"{self.name}: the device has not authorised this machine; unlock it and accept "
                "the question about USB debugging"
            )
        if state.startswith("no permissions"):
            return DeviceError(
                f"{self.name}: no right to use the USB device; see adb's udev rules, then: "
                "adb kill-server"
            )
        return LinkLost(f"{self.name}: the device is {state}")


def _attached() -> dict[str, str]:
    """State by serial number, as ``adb devices`` lists them."""
    done = run_program(["adb", "devices"], seconds=_SHORT_SECONDS)
    if done.code != 0:
        raise DeviceError(f"adb devices failed: {done.last_words}")
    listed = done.out.partition("List of devices attached")[2]
    pairs = (line.split(None, 1) for line in listed.splitlines() if line.strip())
    return {pair[0]: pair[1].strip() for pair in pairs if len(pair) == 2}
