"""Runtimes execute an exported artifact; one file per runtime, looked up by name."""

from autocompress.runtimes.base import KernelNode, Runtime, Session, TensorSpec
from autocompress.runtimes.registry import list_runtimes, load_runtime

__all__ = ["KernelNode", "Runtime", "Session", "TensorSpec", "list_runtimes", "load_runtime"]
