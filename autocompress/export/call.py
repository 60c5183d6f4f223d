"""A call of an operator, as emitters see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from autocompress.export.writer import OnnxWriter
from autocompress.graph.extents import Extent


@dataclass(frozen=True)
class Call:
    """One call of an operator.

    Attributes:
        name: the node's name.
        arguments: by the schema's names; tensors are value names.
        inputs: extents of the tensor arguments, in order.
        output: extent of the result.
    """

    name: str
    arguments: Mapping[str, Any]
    inputs: tuple[Extent, ...]
    output: Extent

    @property
    def value(self) -> str:
        """The value name of the first argument."""
        return str(self.arguments["self"])


#: Writes a call and returns the name of its output value; None leaves this particular call to the
#: general exporter.
Emitter: TypeAlias = Callable[[OnnxWriter, Call], str | None]
