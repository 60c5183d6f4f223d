"""Shapes of results, found by running operators on torch's meta device, once for equal operands."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import torch
from torch import fx, nn

#: Results kept; when there are more, all are forgotten.
_MOST = 1 << 18


class ShapeMemory:
    """Results of a graph's nodes as tensors without data.

    A search asks for the shapes of thousands of candidates of one graph, in which few operands
    occur; a dispatch to the meta device costs a hundred times a look-up.
    """

    def __init__(self) -> None:
        self._known: dict[Hashable, Any] = {}

    def __len__(self) -> int:
        return len(self._known)

    def call(self, node: fx.Node, arguments: Any, keywords: Mapping[str, Any]) -> Any:
        """What the function that ``node`` calls gives for these operands."""

        def compute() -> Any:
            return node.target(*arguments, **keywords)  # type: ignore[operator]

        return self._find((node.name, _signature(arguments), _signature(keywords)), compute)

    def layer(
        self, value: torch.Tensor, weight: tuple[int, ...], attributes: Mapping[str, Any]
    ) -> torch.Tensor:
        """What a convolution (four dimensions) or linear layer with such a weight gives."""

        def compute() -> Any:
            tensor = torch.empty(weight, device="meta", dtype=value.dtype)
            if len(weight) != 4:
                return nn.functional.linear(value, tensor)
            return nn.functional.conv2d(
                value, tensor, None, attributes["stride"], attributes["padding"],
                attributes["dilation"], int(attributes["groups"]),
            )  # fmt: skip

        names = ("stride", "padding", "dilation", "groups") if len(weight) == 4 else ()
        key = (_signature(value), weight, tuple(attributes[name] for name in names))
        return self._find(key, compute)  # type: ignore[no-any-return]

    def rows(self, ids: torch.Tensor, table: tuple[int, ...]) -> torch.Tensor:
        """What looking up ids in a table of such a shape, ``(rows, width)``, gives."""
        return torch.empty((*ids.shape, table[1]), device="meta")

    def _find(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        try:
            return self._known[key]
        except KeyError:
            pass
        except TypeError:  # an operand that cannot be hashed
            return compute()
        if len(self._known) >= _MOST:
            self._known.clear()
        found = self._known[key] = compute()
        return found


def _signature(value: Any) -> Any:
    """What decides the shape of a result: tensors by shape and type, everything else as it is."""
    if isinstance(value, torch.Tensor):
        return ("tensor", *value.shape, value.dtype)
    if isinstance(value, list | tuple):
        return ("sequence", *(_signature(item) for item in value))
    if isinstance(value, Mapping):
        return tuple((name, _signature(item)) for name, item in value.items())
    return (type(value).__name__, value)  # 1, 1.0 and True are equal, but not alike
