"""What every runtime can do, as protocols; a runtime is one file beside this one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from autocompress.core.capabilities import Capabilities

Array: TypeAlias = npt.NDArray[Any]
AttributeValue: TypeAlias = int | float | str | tuple[int, ...] | tuple[float, ...]
#: What a layer multiplies.
Arithmetic: TypeAlias = Literal["integer", "float"]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor as a runtime describes it.

    Attributes:
        name: the tensor's name, or empty where it has none.
        dtype: numpy's name of the element type, such as "float32" or "uint8".
        shape: the dimensions; None where one is symbolic.
        constant: whether the value is stored in the model.
        values: the value of a small integer constant (axes, shapes), else empty.
        example: of a model's input, the shape that it is timed and priced with; empty where
            nothing is said of it.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    constant: bool = False
    values: tuple[int, ...] = ()
    example: tuple[int, ...] = ()

    def zeros(self) -> Array:
        """An array of this type and of the example's shape; without one, symbolic sizes are 1."""
        if self.example:
            return np.zeros(self.example, dtype=self.dtype)
        return np.zeros(tuple(1 if d is None else d for d in self.shape), dtype=self.dtype)


@dataclass(frozen=True, slots=True)
class KernelNode:
    """A node of the graph that a runtime really executes, after its own optimisation.

    Attributes:
        domain: operator domain; empty for the ONNX domain.
        op_type: operator name.
        inputs: input tensors; None where an optional input is absent.
        outputs: output tensors.
        attributes: name to value, sorted by name.
        name: the node's name.
    """

    domain: str
    op_type: str
    inputs: tuple[TensorSpec | None, ...]
    outputs: tuple[TensorSpec, ...]
    attributes: tuple[tuple[str, AttributeValue], ...]
    name: str = ""


class Session(Protocol):
    """A loaded model. Use it from one thread at a time."""

    @property
    def inputs(self) -> Sequence[TensorSpec]:
        """The model's inputs, in order."""
        ...

    @property
    def outputs(self) -> Sequence[TensorSpec]:
        """The model's outputs, in order."""
        ...

    def run(self, inputs: Mapping[str, Array] | Sequence[Array]) -> list[Array]:
        """Outputs for one batch, in order of :attr:`outputs`."""
        ...

    def bound(self, inputs: Mapping[str, Array]) -> Callable[[], None]:
        """A call without arguments that runs on ``inputs`` bound once: what is timed.

        With one thread it does all its work in the thread that calls it.
        """
        ...


@runtime_checkable
class Runtime(Protocol):
    """Loads artifacts. Implementations hold no state besides their options."""

    @property
    def name(self) -> str:
        """The name it is looked up by."""
        ...

    @property
    def version(self) -> str:
        """Version of the library that executes."""
        ...

    @property
    def options(self) -> Mapping[str, str]:
        """Everything that changes the speed of a loaded model, threads excepted."""
        ...

    @property
    def fingerprint(self) -> str:
        """Name, version and options in one line: the key of measured figures."""
        ...

    @property
    def lowering(self) -> str:
        """Name of the rules by which it turns operations into kernels."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """What a search can exploit with it on an ordinary device: a new profile starts so."""
        ...

    def load(self, path: str | Path | bytes, *, threads: int = 1, optimize: bool = True) -> Session:
        """Open a model for running.

        Args:
            path: the artifact's path, or its serialised bytes.
            threads: intra-op threads.
            optimize: False runs the graph node by node as it is stored, where the runtime can.

        Raises:
            DeviceError: the runtime cannot load it.
            VerificationError: it refers to files outside its folder.
        """
        ...

    def kernels(self, path: str | Path | bytes, *, threads: int = 1) -> tuple[KernelNode, ...]:
        """The nodes of the optimised graph in execution order, with dtypes and shapes.

        Raises:
            DeviceError: the runtime cannot load or run it.
        """
        ...

    def layers(self, kernel: KernelNode) -> Sequence[Arithmetic]:
        """What is multiplied in each layer with constant weights that one of :meth:`kernels` runs.

        Empty for a node without such a layer.
        """
        ...
