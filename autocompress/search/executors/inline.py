"""Trials in the driver's own process, one after the other."""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from autocompress.core.budget import Fidelity
from autocompress.core.candidate import Candidate
from autocompress.core.trial import Evaluation, Evaluator
from autocompress.errors import RequestError
from autocompress.search.executors.base import Executor
from autocompress.search.executors.guarded import evaluate


class InlineExecutor(Executor):
    """Runs each trial in :meth:`wait`, in the order of submission.

    A deadline is kept with an alarm signal, which needs the main thread and interrupts between
    two Python instructions: a single call into native code is not cut short. A trial that takes
    the process down takes the driver down; the store counts such attempts.
    """

    def __init__(self, evaluator: Evaluator, *, deadline_seconds: float | None = None) -> None:
        """Use ``evaluator`` in this process.

        Args:
            evaluator: evaluates candidates.
            deadline_seconds: limit of one trial.

        Raises:
            RequestError: a deadline cannot be kept outside the main thread.
        """
        if deadline_seconds is not None and not can_alarm():
            raise RequestError(
                "a deadline for trials in this process needs the main thread; "
                "use a worker process (isolate=True)"
            )
        self._evaluator = evaluator
        self._deadline = deadline_seconds
        self._queue: deque[tuple[int, Candidate, Fidelity, int]] = deque()

    @property
    def slots(self) -> int:
        """One."""
        return 1

    @property
    def pending(self) -> int:
        """Trials not yet run."""
        return len(self._queue)

    def submit(self, number: int, candidate: Candidate, fidelity: Fidelity, seed: int) -> None:
        """Queue a trial."""
        self._queue.append((number, candidate, fidelity, seed))

    def wait(self, timeout: float | None = None) -> list[tuple[int, Evaluation]]:
        """Run the next trial; ``timeout`` does not cut it short."""
        if not self._queue:
            return []
        number, candidate, fidelity, seed = self._queue[0]
        begin = time.perf_counter()
        try:
            with _alarm(self._deadline):
                result = evaluate(self._evaluator, candidate, fidelity=fidelity, seed=seed)
        except _DeadlineError:
            result = Evaluation(
                seconds=time.perf_counter() - begin, error=deadline_reason(self._deadline)
            )
        self._queue.popleft()
        return [(number, result)]

    def cancel(self) -> None:
        """Empty the queue."""
        self._queue.clear()

    def close(self) -> None:
        """Empty the queue."""
        self._queue.clear()


class _DeadlineError(BaseException):
    """Not an Exception, so that an evaluator's own handlers let it pass."""


def deadline_reason(seconds: float | None) -> str:
    """The reason of a trial that took too long."""
    return f"deadline of {seconds or 0:g} s passed"


def can_alarm() -> bool:
    """Whether alarm signals can be used here."""
    on_main = threading.current_thread() is threading.main_thread()
    return on_main and hasattr(signal, "setitimer")


@contextmanager
def _alarm(seconds: float | None) -> Iterator[None]:
    """Raise :class:`_DeadlineError` after ``seconds``; an alarm already set goes on afterwards."""
    if seconds is None:
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise _DeadlineError

    begin = time.monotonic()
    handler = signal.signal(signal.SIGALRM, ring)
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if left:
            rest = max(left - (time.monotonic() - begin), 1e-3)
            signal.setitimer(signal.ITIMER_REAL, rest, interval)
