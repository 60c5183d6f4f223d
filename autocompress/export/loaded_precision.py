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
    constants = _constants(graph)
    makers = {name: node for node in graph.node for name in node.output}
    integer = floating = 0
    for node in graph.node:
        if node.op_type not in _LAYERS or node.input[1] not in constants:
            continue
        maker = makers.get(node.input[1])
        if maker is not None and maker.op_type == "DequantizeLinear":
            integer += 1
        else:
            floating += 1
    return LayerCount(integer, floating)


def _constants(graph: Any) -> set[str]:
    """Values that no input decides: what is stored, and what is computed of it alone."""
    found = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if node.input and all(name in found for name in node.input if name):
            found.update(node.output)
    return found


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
