"""Looks a runtime up by its name; packages add their own by entry point."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points

from autocompress.core.local_device import DEFAULT_RUNTIME
from autocompress.errors import RequestError
from autocompress.runtimes.base import Runtime

ENTRY_POINT_GROUP = "autocompress.runtimes"


def _onnxruntime() -> Runtime:
    from autocompress.runtimes.onnxruntime import OnnxRuntime

    return OnnxRuntime()


def _openvino() -> Runtime:
    from autocompress.runtimes.openvino import OpenVinoRuntime

    return OpenVinoRuntime()


_BUILT_IN: dict[str, Callable[[], Runtime]] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
}


def list_runtimes() -> list[str]:
    """Names of all runtimes that :func:`load_runtime` knows."""
    plugins = {point.name for point in entry_points(group=ENTRY_POINT_GROUP)}
    return sorted(plugins | set(_BUILT_IN))


def load_runtime(name: str = DEFAULT_RUNTIME) -> Runtime:
    """The runtime of that name; built-in names win over plug-ins.

    Raises:
        RequestError: there is no such runtime, or the plug-in gives something else.
    """
    if name in _BUILT_IN:
        return _BUILT_IN[name]()
    for point in entry_points(group=ENTRY_POINT_GROUP):
        if point.name == name:
            runtime = point.load()()
            if not isinstance(runtime, Runtime):
                raise RequestError(
                    f"the plug-in {point.value!r} for runtime {name!r} is no Runtime; "
                    "see autocompress.runtimes.base.Runtime for what it must provide"
                )
            return runtime
    raise RequestError(f"unknown runtime {name!r}; use one of {', '.join(list_runtimes())}")
