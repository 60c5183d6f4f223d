"""One writer a run folder: an exclusive lock that dies with its process."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from types import TracebackType
from typing import Any

from autocompress.errors import RunInUseError, StorageError

LOCK_NAME = ".lock"


class RunLock:
    """Exclusive lock on a run folder, held from construction to :meth:`release`.

    The lock is ``flock`` on a file that names the holder's process and host. The kernel drops it
    when the process ends, however it ends, so a lock is never stale; the file itself stays.
    """

    def __init__(self, folder: Path | str) -> None:
        """Take the lock.

        Args:
            folder: an existing run folder.

        Raises:
            RunInUseError: another live process holds it; the message names it.
            StorageError: the folder cannot be written.
        """
        self._path = Path(folder) / LOCK_NAME
        self._fd: int | None = _locked(self._path)
        holder = json.dumps({"pid": os.getpid(), "host": socket.gethostname()})
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, holder.encode(), 0)

    def release(self) -> None:
        """Give the lock back; calling it again does nothing."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> RunLock:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def _locked(path: Path) -> int:
    try:
        import fcntl
    except ImportError:
        raise StorageError("run folders need flock, which this system does not have") from None
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StorageError(
            f"the run folder {path.parent} cannot be locked ({error.strerror}); "
            "choose a folder that can be written"
        ) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = _holder(fd)
        os.close(fd)
        if not isinstance(error, BlockingIOError):
            raise StorageError(
                f"the run folder {path.parent} cannot be locked ({error.strerror}); "
                "its file system does not support flock, choose another one"
            ) from error
        raise RunInUseError(
            f"the run folder {path.parent} is in use by {holder}; "
            "wait until it ends, stop it, or choose another folder"
        ) from None
    return fd


def _holder(fd: int) -> str:
    try:
        value: dict[str, Any] = json.loads(os.pread(fd, 4096, 0))
        return f"process {value['pid']} on {value['host']}"
    except (ValueError, KeyError, TypeError):
        return "another process"  # it has taken the lock and not yet written its name
