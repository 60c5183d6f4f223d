"""One writer a folder; the lock dies with its process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from autocompress.errors import RunInUseError, StorageError
from autocompress.search.lock import LOCK_NAME, RunLock

HOLD = (
    "import sys, time; from autocompress.search.lock import RunLock; "
    "lock = RunLock(sys.argv[1]); print('held', flush=True); time.sleep(60)"
)


def test_excludes_and_names_the_holder(tmp_path: Path) -> None:
    with RunLock(tmp_path):
        words = f"in use by process {os.getpid()} on {socket.gethostname()}"
        with pytest.raises(RunInUseError, match=words):
            RunLock(tmp_path)
    RunLock(tmp_path).release()


def test_release_twice(tmp_path: Path) -> None:
    lock = RunLock(tmp_path)
    lock.release()
    lock.release()


def test_killed_holder_leaves_no_stale_lock(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    with holder.stdout:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RunInUseError, match=f"process {holder.pid}"):
            RunLock(tmp_path)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    RunLock(tmp_path).release()


def test_unreadable_holder(tmp_path: Path) -> None:
    with RunLock(tmp_path):
        (tmp_path / LOCK_NAME).write_text("")
        with pytest.raises(RunInUseError, match="another process"):
            RunLock(tmp_path)


def test_folder_is_missing(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be locked"):
        RunLock(tmp_path / "nowhere")
