"""Executors by name."""

from __future__ import annotations

from autocompress.core.trial import Evaluator
from autocompress.errors import RequestError
from autocompress.search.executors.base import Executor
from autocompress.search.executors.local import local_executor


def executor_names() -> list[str]:
    """All names :func:`make_executor` can make."""
    return ["local"]


def make_executor(
    name: str,
    evaluator: Evaluator,
    *,
    workers: int = 1,
    deadline_seconds: float | None = 3600.0,
) -> Executor:
    """An executor by name.

    Args:
        name: "local"; the seam for "ray" is here.
        evaluator: evaluates candidates in the workers.
        workers: trials at the same time.
        deadline_seconds: limit of one trial; nothing waits without one unless it is None.

    Raises:
        RequestError: no such executor, or one that this version does not have.
    """
    if name == "local":
        return local_executor(evaluator, workers=workers, deadline_seconds=deadline_seconds)
    if name == "ray":
        raise RequestError(
            "executor 'ray' is not available in this version of autocompress; use 'local'"
        )
    raise RequestError(f"unknown executor {name!r}; use one of {', '.join(executor_names())}")
