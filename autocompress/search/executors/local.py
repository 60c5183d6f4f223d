"""Trials on this machine: in this process, or in worker processes."""

from __future__ import annotations

from autocompress.core.trial import Evaluator
from autocompress.errors import RequestError
from autocompress.search.executors.base import Executor
from autocompress.search.executors.inline import InlineExecutor, can_alarm
from autocompress.search.executors.processes import ProcessExecutor


def local_executor(
    evaluator: Evaluator,
    *,
    workers: int = 1,
    deadline_seconds: float | None = None,
    isolate: bool | None = None,
) -> Executor:
    """An executor on this machine.

    Args:
        evaluator: evaluates candidates.
        workers: trials at the same time.
        deadline_seconds: limit of one trial, None for none.
        isolate: whether trials run in processes of their own. None: only when there are several
            workers, or when a deadline could not be kept here (outside the main thread).

    Raises:
        RequestError: a number is not positive, or the evaluator cannot be sent to workers.
    """
    if workers < 1:
        raise RequestError(f"workers is {workers!r}; use at least 1")
    if deadline_seconds is not None and deadline_seconds <= 0:
        raise RequestError(
            f"the deadline of a trial is {deadline_seconds!r} s; it must be positive"
        )
    if isolate is None:
        isolate = workers > 1 or (deadline_seconds is not None and not can_alarm())
    if not isolate and workers > 1:
        raise RequestError(f"{workers} workers need processes of their own; leave isolate unset")
    if isolate:
        return ProcessExecutor(evaluator, workers=workers, deadline_seconds=deadline_seconds)
    return InlineExecutor(evaluator, deadline_seconds=deadline_seconds)
