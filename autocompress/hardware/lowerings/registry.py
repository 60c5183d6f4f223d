"""Looks up the rules by which a runtime turns operations into kernels."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TypeAlias

from autocompress.errors import ProfileError
from autocompress.graph.ops import Op
from autocompress.measurement.kernels import KernelSignature

#: Kernels in execution order, each with the name of the operation that it belongs to, given a
#: candidate's operations and the names of those whose output tensor is stored as uint8.
Lowering: TypeAlias = Callable[
    [Sequence[Op], Collection[str]], tuple[tuple[str, KernelSignature], ...]
]


def _onnxruntime_cpu() -> Lowering:
    from autocompress.hardware.lowerings.onnxruntime_cpu.lower import lower_by_op

    return lower_by_op


def _plain() -> Lowering:
    from autocompress.hardware.lowerings.plain import PLAIN, lowering

    return lowering(PLAIN)


def _openvino_cpu() -> Lowering:
    from autocompress.hardware.lowerings.openvino_cpu import OPENVINO_CPU
    from autocompress.hardware.lowerings.plain import lowering

    return lowering(OPENVINO_CPU)


_BUILT_IN: dict[str, Callable[[], Lowering]] = {
    "onnxruntime-cpu": _onnxruntime_cpu,
    "openvino-cpu": _openvino_cpu,
    "plain": _plain,
}


def list_lowerings() -> list[str]:
    """Names that :func:`load_lowering` knows."""
    return sorted(_BUILT_IN)


def load_lowering(name: str) -> Lowering:
    """The rules of that name, as a profile's ``runtime.lowering`` gives it.

    Raises:
        ProfileError: this version has no such rules.
    """
    if name not in _BUILT_IN:
        raise ProfileError(
            f"the profile's kernels follow the rules {name!r}; this version knows "
            f"{', '.join(list_lowerings())}: update autocompress"
        )
    return _BUILT_IN[name]()
