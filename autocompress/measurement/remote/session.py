"""Measures a bench pack on a device behind a wire: copy, run in chunks, fetch, and go on.

Boards drop off, throttle and reboot. Whatever is finished is fetched after every chunk; a lost
device is called again after a pause; when it stays away the session ends as "partial", and the
same call later goes on where this one stopped.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from autocompress.core.files import sha256_of
from autocompress.errors import DeviceError
from autocompress.measurement.pack import JOBS_FILE, RUNNER_FILE, BenchPack
from autocompress.measurement.remote import runner
from autocompress.measurement.remote.programs import Done, LinkLost
from autocompress.measurement.remote.results import finished_keys
from autocompress.measurement.remote.transport import Transport

#: Pauses in seconds before a lost device is called again; starts over after every success.
DELAYS = (2.0, 8.0, 30.0)
#: The runner is asked to hand back control after so many seconds.
CHUNK_SECONDS = 60.0
REMOTE_FOLDER = "autocompress-bench"
PACK_FILE = "bench.zip"
_SHORT_SECONDS = 120.0
_UNPACK_SECONDS = 600.0
#: Beyond its limit, the runner may need so long for the chunk that it has begun.
_GRACE_SECONDS = 1200.0
#: How long the runner of a cut connection may need to notice.
_WAIT_LOCK_SECONDS = 300.0
_PROBE = (
    "import sys; assert sys.version_info >= (3, 8), 'python is %d.%d' % sys.version_info[:2]; "
    "import numpy, onnxruntime; print('numpy', numpy.__version__, 'onnxruntime', "
    "onnxruntime.__version__)"
)
_PROGRESS = re.compile(r"(\d+)/(\d+) jobs done")

#: Told what is going on: a line, figures done, figures asked.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class RemoteOptions:
    """How a session behaves.

    Attributes:
        python: the device's Python.
        folder: where on the device; a folder of the pack's own is made in it.
        limit_seconds: no chunk is begun after so long.
        chunk_seconds: results are fetched about so often.
        delays: pauses before a lost device is called again.
    """

    python: str = "python3"
    folder: str = REMOTE_FOLDER
    limit_seconds: float = math.inf
    chunk_seconds: float = CHUNK_SECONDS
    delays: Sequence[float] = DELAYS


@dataclass(frozen=True, slots=True)
class SessionEnd:
    """How a session ended.

    Attributes:
        status: "complete", "partial" (the device stayed away) or "stopped" (the time was over).
        reason: why it is not complete, or empty.
        done: figures that are here.
        asked: figures of the pack.
        lost: how often the device was lost and called again.
    """

    status: Literal["complete", "partial", "stopped"]
    reason: str
    done: int
    asked: int
    lost: int


class RemoteSession:
    """Measuring one pack on one device; what is fetched lies in ``results``.

    Args:
        transport: the way to the device.
        pack: what is measured.
        archive: the pack's file.
        results: where results are kept here; results of an earlier session are gone on with.
        options: how to behave.
        progress: told what is going on.
        sleep: waits; tests give another.
    """

    def __init__(
        self,
        transport: Transport,
        pack: BenchPack,
        *,
        archive: Path,
        results: Path,
        options: RemoteOptions | None = None,
        progress: Progress | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.transport = transport
        self.pack = pack
        self.archive = archive
        self.results = results
        self.options = options or RemoteOptions()
        self._progress = progress
        self._sleep = sleep
        base = self.options.folder.removeprefix("~/").rstrip("/") or "/"
        self.folder = f"{base}/{pack.id[:12]}"

    def run(self) -> SessionEnd:
        """Measure what is missing.

        Raises:
            DeviceError: the device cannot be reached at all, or cannot be used; the message says
                what to do.
        """
        self.transport.check()  # a wrong name or key is told at once
        began, failures, lost, ready = time.monotonic(), 0, 0, False
        while True:
            before = self._done()
            try:
                if not ready:
                    self._prepare()
                    ready = True
                left = self.options.limit_seconds - (time.monotonic() - began)
                if left <= 0:
                    return self._end("stopped", "the time was over", lost)
                code = self._chunk(min(left, self.options.chunk_seconds))
                if code == runner.DONE:
                    return self._end("complete", "", lost)
                failures = 0
            except LinkLost as error:
                if self._done() > before:
                    failures = 0
                if failures >= len(self.options.delays):
                    return self._end("partial", str(error), lost)
                pause = self.options.delays[failures]
                self._tell(f"{error}; trying again in {pause:g} s")
                self._sleep(pause)
                failures, lost, ready = failures + 1, lost + 1, False

    # -- steps ------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        """See that the device has what it takes: Python, the pack, and the results so far."""
        self._check_python()
        self._remote("mkdir", "-p", self.folder)
        if self._remote("test", "-f", self._at(".unpacked"), ok=(0, 1)).code != 0:
            megabytes = self.archive.stat().st_size / 1e6
            self._tell(f"copying the pack, {megabytes:.1f} MB")
            self.transport.push(self.archive, self._at(PACK_FILE))
            self._check_hash()
            self._unpack()
        self._exchange_results()

    def _check_python(self) -> None:
        done = self.transport.run([self.options.python, "-c", _PROBE], seconds=_SHORT_SECONDS)
        if done.code == 0:
            return
        name, python = self.transport.name, self.options.python
        words = done.err.strip().lower() or done.out.strip().lower()
        if done.code in (126, 127):
            raise DeviceError(
                f"{name}: there is no {python!r}; install Python 3.8 or newer with numpy and "
                "onnxruntime, or name the right one with --remote-python"
            )
        missing = re.search(r"no module named '?([a-z0-9_]+)", words)
        if missing:
            raise DeviceError(
                f"{name}: its Python lacks {missing[1]}; run there: {python} -m pip install numpy "
                "onnxruntime"
            )
        raise DeviceError(
            f"{name}: its Python cannot be used: {done.last_words}; name another with "
            "--remote-python"
        )

    def _check_hash(self) -> None:
        """Whether the copy is what was sent."""
        code = "import hashlib,sys;print(hashlib.sha256(open(sys.argv[1],'rb').read()).hexdigest())"
        done = self._remote(self.options.python, "-c", code, self._at(PACK_FILE))
        if done.out.strip().splitlines()[-1:] != [sha256_of(self.archive)]:
            raise LinkLost(f"{self.transport.name}: the pack was damaged on its way")

    def _unpack(self) -> None:
        zipped = self._at(PACK_FILE)
        python = self.options.python
        self._remote(python, "-m", "zipfile", "-e", zipped, self.folder, seconds=_UNPACK_SECONDS)
        for needed in (RUNNER_FILE, JOBS_FILE):
            self._remote("test", "-f", self._at(needed))
        self._remote("touch", self._at(".unpacked"))
        self._remote("rm", "-f", zipped)

    def _exchange_results(self) -> None:
        """Fetch what an earlier session left there, or give back what the device has lost."""
        if self._remote("test", "-s", self._at(runner.RESULTS), ok=(0, 1)).code == 0:
            self._fetch()
        elif finished_keys(self.results):
            self._tell("handing the results so far back to the device")
            self.transport.push(self.results, self._at(runner.RESULTS))

    def _chunk(self, seconds: float) -> int:
        """Let the runner work for a while, and fetch what it has done."""
        threads = ",".join(str(count) for count in self.pack.threads)
        done = self.transport.run(
            [
                *(self.options.python, "-u", self._at(RUNNER_FILE), "--threads", threads),
                *("--limit-seconds", f"{seconds:g}", "--wait-lock", f"{_WAIT_LOCK_SECONDS:g}"),
            ],
            seconds=seconds + _GRACE_SECONDS + _WAIT_LOCK_SECONDS,
            on_line=self._heard,
        )
        if done.code in (runner.DONE, runner.MORE):
            self._fetch()
            return done.code
        if done.code in (runner.USAGE, runner.NEEDS, runner.MISMATCH, runner.BUSY, runner.STORAGE):
            full = "no space left" in done.err.lower()
            remedy = "; make room there and run this again" if full else ""
            raise DeviceError(f"{self.transport.name}: {done.last_words}{remedy}")
        # killed from outside, such as for its memory: what is finished is on its disk
        raise LinkLost(f"{self.transport.name}: the runner ended with code {done.code}")

    def _fetch(self) -> None:
        """Bring the results here; never fewer than are here already."""
        fetched = self.results.with_name(f"{self.results.name}.fetched")
        self.transport.pull(self._at(runner.RESULTS), fetched)
        if len(finished_keys(fetched)) < len(finished_keys(self.results)):
            fetched.unlink()
            self.transport.push(self.results, self._at(runner.RESULTS))
            return
        fetched.replace(self.results)

    # -- helpers ----------------------------------------------------------------------------------

    def _at(self, name: str) -> str:
        return f"{self.folder}/{name}"

    def _remote(
        self, *arguments: str, ok: Sequence[int] = (0,), seconds: float = _SHORT_SECONDS
    ) -> Done:
        done = self.transport.run(arguments, seconds=seconds)
        if done.code not in ok:
            words = (done.err + done.out).lower()
            if "no space left" in words:
                raise DeviceError(
                    f"{self.transport.name}: its disk is full; make room, or choose another place "
                    "with --remote-dir"
                )
            raise DeviceError(
                f"{self.transport.name}: {arguments[0]} failed there: {done.last_words}"
            )
        return done

    def _done(self) -> int:
        return len(finished_keys(self.results) & set(self.pack.keys))

    def _heard(self, line: str) -> None:
        match = _PROGRESS.search(line)
        if match is None:
            self._tell(line)
        elif self._progress is not None:
            self._progress(line, int(match[1]), int(match[2]))

    def _tell(self, text: str) -> None:
        if self._progress is not None:
            self._progress(text, self._done(), len(self.pack.keys))

    def _end(
        self, status: Literal["complete", "partial", "stopped"], reason: str, lost: int
    ) -> SessionEnd:
        return SessionEnd(status, reason, self._done(), len(self.pack.keys), lost)
