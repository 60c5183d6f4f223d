"""Executors: where trials run. One file each; :func:`make_executor` looks them up by name."""

from autocompress.search.executors.base import Executor
from autocompress.search.executors.registry import executor_names, make_executor

__all__ = ["Executor", "executor_names", "make_executor"]
