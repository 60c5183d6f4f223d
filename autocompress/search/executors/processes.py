"""Trials in worker processes on this machine."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from typing import IO

from autocompress.core.budget import Fidelity
from autocompress.core.candidate import Candidate
from autocompress.core.trial import Evaluation, Evaluator
from autocompress.errors import AutocompressError, RequestError, StorageError
from autocompress.search.executors.base import ATTEMPTS, MAX_ATTEMPTS, Executor
from autocompress.search.executors.inline import deadline_reason
from autocompress.search.executors.worker import decode_evaluation, encode_task

#: Seconds a new worker may take until it has loaded the evaluator.
START_SECONDS = 300.0

#: How often dead workers are looked for: children of theirs may hold the connection open.
_POLL_SECONDS = 0.5

#: How long a worker whose connection has closed may take to end before it is killed.
_DEATH_SECONDS = 5.0

_THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from autocompress.search.executors.worker import main; "
    "main(int(sys.argv[2]), int(sys.argv[3]))"
)


@dataclass(slots=True)
class _Task:
    number: int
    candidate: Candidate
    message: bytes
    attempts: int = 0


@dataclass(slots=True)
class _Worker:
    process: subprocess.Popen[bytes]
    connection: Connection
    since: float  # when it was started, or was given its task
    ready: bool = False
    task: _Task | None = None


class ProcessExecutor(Executor):
    """Runs trials in fresh worker processes, one torch thread each.

    Workers are new interpreters, not forks (forking a process that has used torch or CUDA breaks
    it), and do not import the caller's main module, so scripts need no ``if __name__ ==
    "__main__"``. Each leads a process group that is killed as a whole. A worker ends as soon as
    its connection to the driver closes, whatever it is doing.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        *,
        workers: int,
        deadline_seconds: float | None = None,
        start_seconds: float = START_SECONDS,
        threads: int = 1,
    ) -> None:
        """Write the evaluator down; workers start with the first trials.

        Args:
            evaluator: evaluates candidates; shipped with cloudpickle.
            workers: processes, at least 1.
            deadline_seconds: limit of one trial, None for none.
            start_seconds: limit for a worker to load the evaluator.
            threads: threads of numeric libraries in each worker.

        Raises:
            RequestError: the evaluator cannot be pickled.
            StorageError: the folder for temporary files is full or read-only.
        """
        self._workers: list[_Worker] = []
        self._file: IO[bytes] | None = None
        self._slots = workers
        self._deadline = deadline_seconds
        self._start_seconds = start_seconds
        self._queue: deque[_Task] = deque()
        self._failed_starts = 0
        self._environment = os.environ | dict.fromkeys(_THREADS, str(threads))
        self._file = _written(evaluator)

    @property
    def slots(self) -> int:
        """Number of workers."""
        return self._slots

    @property
    def pending(self) -> int:
        """Trials queued or running."""
        return len(self._queue) + sum(w.task is not None for w in self._workers)

    def submit(self, number: int, candidate: Candidate, fidelity: Fidelity, seed: int) -> None:
        """Give the trial to an idle worker, or queue it."""
        self._queue.append(_Task(number, candidate, encode_task(candidate, fidelity, seed)))
        self._dispatch()

    def wait(self, timeout: float | None = None) -> list[tuple[int, Evaluation]]:
        """What has come back.

        Raises:
            AutocompressError: no worker can be started, so no trial can ever run.
        """
        end = None if timeout is None else time.monotonic() + timeout
        results: list[tuple[int, Evaluation]] = []
        while self.pending and not results:
            self._dispatch()
            now = time.monotonic()
            limits = [limit for w in self._workers if (limit := self._limit(w)) is not None]
            limits += [] if end is None else [end]
            nearest = max(0.0, min([*limits, now + _POLL_SECONDS]) - now)
            heard = wait_for([w.connection for w in self._workers], nearest)
            for worker in list(self._workers):
                if worker.connection in heard:
                    results += self._hear(worker)
                elif worker.process.poll() is not None and not worker.connection.poll():
                    results += self._died(worker)
                elif (limit := self._limit(worker)) is not None and time.monotonic() >= limit:
                    results += self._late(worker)
            if end is not None and time.monotonic() >= end:
                break
        self._dispatch()
        return results

    def cancel(self) -> None:
        """Empty the queue and kill the workers that are busy."""
        self._queue.clear()
        for worker in [w for w in self._workers if w.task is not None]:
            self._end(worker)

    def close(self) -> None:
        """Kill the workers, drop the evaluator's file."""
        self._queue.clear()
        for worker in list(self._workers):
            self._end(worker)
        if self._file is not None:
            self._file.close()
            self._file = None

    def __del__(self) -> None:
        self.close()

    def _limit(self, worker: _Worker) -> float | None:
        """When the worker is late, on the monotonic clock; None when it may take forever."""
        if not worker.ready:
            return worker.since + self._start_seconds
        if worker.task is not None and self._deadline is not None:
            return worker.since + self._deadline
        return None

    def _dispatch(self) -> None:
        """Start workers for what is queued, and give tasks to those that are ready."""
        starting = sum(not w.ready for w in self._workers)
        idle = [w for w in self._workers if w.ready and w.task is None]
        for _ in range(len(self._queue) - len(idle) - starting):
            if len(self._workers) < self._slots:
                self._workers.append(self._started())
        for worker in idle:
            if not self._queue:
                return
            worker.task = self._queue.popleft()
            worker.task.attempts += 1
            worker.since = time.monotonic()
            with suppress(OSError):  # a dead worker is noticed when it is listened to
                worker.connection.send_bytes(worker.task.message)

    def _started(self) -> _Worker:
        if self._file is None:
            raise RequestError("this executor is closed; make a new one")
        ours, theirs = socket.socketpair()
        files = [theirs.fileno(), self._file.fileno()]
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-c", _BOOT, json.dumps(sys.path), *map(str, files)],
                env=self._environment,
                pass_fds=files,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        return _Worker(process, Connection(ours.detach()), time.monotonic())

    def _hear(self, worker: _Worker) -> list[tuple[int, Evaluation]]:
        try:
            answer = json.loads(worker.connection.recv_bytes())
        except (EOFError, OSError):
            return self._died(worker)
        if "fatal" in answer:
            self._end(worker)
            raise AutocompressError(
                f"workers cannot load the evaluator: {answer['fatal']}; "
                "make it importable or picklable, or use workers=1"
            )
        if "ready" in answer:
            worker.ready = True
            self._failed_starts = 0
            self._dispatch()
            return []
        task, worker.task = worker.task, None
        return [] if task is None else [_result(task, decode_evaluation(answer))]

    def _late(self, worker: _Worker) -> list[tuple[int, Evaluation]]:
        if not worker.ready:
            return self._lost(worker, "it did not get ready in time")
        self._end(worker)
        if worker.task is None or self._deadline is None:
            return []
        late = Evaluation(seconds=self._deadline, error=deadline_reason(self._deadline))
        return [_result(worker.task, late)]

    def _died(self, worker: _Worker) -> list[tuple[int, Evaluation]]:
        try:  # its connection closes a moment before it has ended
            reason = _how(worker.process.wait(_DEATH_SECONDS))
        except subprocess.TimeoutExpired:
            reason = "it closed its connection"
        return self._lost(worker, reason)

    def _lost(self, worker: _Worker, reason: str) -> list[tuple[int, Evaluation]]:
        """Start its task again, or give up on it."""
        self._end(worker)
        task = worker.task
        if task is None:
            self._failed_starts += not worker.ready
            if self._failed_starts >= MAX_ATTEMPTS:
                raise AutocompressError(
                    f"{self._failed_starts} worker processes in a row ended while they started "
                    f"({reason}, the last one); see what they wrote above, or use workers=1"
                )
            return []
        if task.attempts < MAX_ATTEMPTS:
            self._queue.appendleft(task)
            return []
        error = f"the worker process died at each of {task.attempts} attempts ({reason})"
        seconds = time.monotonic() - worker.since
        return [_result(task, Evaluation(seconds=seconds, error=error))]

    def _end(self, worker: _Worker) -> None:
        """Kill the worker with all it has started."""
        self._workers.remove(worker)
        worker.connection.close()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(worker.process.pid, signal.SIGKILL)
        worker.process.wait()


def _written(evaluator: Evaluator) -> IO[bytes]:
    """The pickled evaluator in a file without a name, which no crash leaves behind."""
    import cloudpickle

    try:
        content = cloudpickle.dumps(evaluator)
    except Exception as error:
        raise RequestError(
            f"the evaluator cannot be sent to worker processes: {error}; "
            "keep open files, locks and generators out of model, data and task, or use workers=1"
        ) from error
    try:
        file = tempfile.TemporaryFile()  # noqa: SIM115 - the executor closes it
        file.write(content)
        file.flush()
    except OSError as error:
        raise StorageError(
            f"the evaluator cannot be written for the worker processes: {error}; "
            "make room, or set TMPDIR to another folder"
        ) from error
    return file


def _result(task: _Task, evaluation: Evaluation) -> tuple[int, Evaluation]:
    if task.attempts > 1:
        details = {**evaluation.details, ATTEMPTS: task.attempts}
        evaluation = replace(evaluation, details=details)
    return task.number, evaluation


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"{name}, perhaps out of memory" if name == "SIGKILL" else name
