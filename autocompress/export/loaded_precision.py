"""Whether each layer runs in the arithmetic that the file asks for, once it is loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autocompress.runtimes.base import KernelNode, Runtime

_LAYERS = frozenset({"Conv", "Gemm", "MatMul"})


@dataclass(frozen=True, slots=True)
class LayerCount:
    """How many layers with constant weights compute in integers and in floats."""

    integer: int
    floating: int

    def __str__(self) -> str:
        return f"{self.integer} integer and {self.floating} float layers"


def asked(path: str | Path) -> LayerCount:
    """What the file asks for: integer layers read their weight through DequantizeLinear."""
    import onnx

    graph = onnx.load(str(path)).graph
    constants = {tensor.name for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    integer = floating = 0
    for node in graph.node:
        if node.op_type not in _LAYERS or not _is_constant(node.input[1], makers, constants):
            continue
        maker = makers.get(node.input[1])
        if maker is not None and maker.op_type == "DequantizeLinear":
            integer += 1
        else:
            floating += 1
    return LayerCount(integer, floating)


def _is_constant(name: str, makers: dict[str, Any], constants: set[str]) -> bool:
    while name not in constants:
        maker = makers.get(name)
        if maker is None or not maker.input:
            return False
        name = maker.input[0]
    return True


def loaded(kernels: Sequence[KernelNode], runtime: Runtime) -> tuple[LayerCount, str]:
    """What runs, from a runtime's own optimised graph, and by which kernels."""
    found = [(kind, k.op_type) for k in kernels for kind in runtime.layers(k)]
    kinds = Counter(kind for kind, _ in found)
    names = Counter(name for _, name in found)
    listed = ", ".join(f"{count} {name}" for name, count in sorted(names.items()))
    return LayerCount(kinds["integer"], kinds["float"]), listed


def compare(path: str | Path, runtime: Runtime) -> tuple[bool, str, str]:
    """Whether they agree; what was asked; what runs."""
    wanted = asked(path)
    found, names = loaded(runtime.kernels(path), runtime)
    return found == wanted, str(wanted), f"{found} ({names})" if names else str(found)
