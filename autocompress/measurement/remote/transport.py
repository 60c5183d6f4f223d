"""What a way to a device must do: run a command there, and copy files to and from it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from autocompress.measurement.remote.programs import Done, OnLine


@runtime_checkable
class Transport(Protocol):
    """A device behind a wire. Use it from one thread at a time.

    Every method raises :class:`~autocompress.measurement.remote.programs.LinkLost` when the
    device does not answer (it may come back), and ``DeviceError`` when asking again is no use: it
    is unknown, it refuses us, its disk is full. A command that ran and failed is no error of the
    transport: its code is in :class:`Done`.
    """

    @property
    def name(self) -> str:
        """For messages and for the folder of its results, such as ``ssh user@board``."""
        ...

    def check(self) -> None:
        """Whether the device answers and lets us in, before anything is copied."""
        ...

    def run(
        self, arguments: Sequence[str], *, seconds: float, on_line: OnLine | None = None
    ) -> Done:
        """Run a program on the device.

        Args:
            arguments: the program and what it is given, quoted for the device's shell by us.
            seconds: deadline.
            on_line: told its standard output line by line.
        """
        ...

    def push(self, local: Path, remote: str) -> None:
        """Copy a file to the device; it has its name there when it is whole, not before."""
        ...

    def pull(self, remote: str, local: Path) -> None:
        """Copy a file from the device; it has its name here when it is whole, not before."""
        ...
