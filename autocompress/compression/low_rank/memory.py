"""Answers that are kept while their question can come again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

T = TypeVar("T")
#: Answers kept; the one that was not asked for the longest goes first.
_MOST = 128


class Memory(Generic[T]):
    """The latest answers by key. Copies, also those sent to other processes, start empty."""

    def __init__(self) -> None:
        self._known: OrderedDict[Hashable, T] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: Hashable | None, make: Callable[[], T]) -> T:
        """The answer known for ``key``, or a new one; None as a key is never remembered."""
        if key is None:
            return make()
        if key in self._known:
            self._known.move_to_end(key)
            return self._known[key]
        found = self._known[key] = make()
        if len(self._known) > _MOST:
            self._known.popitem(last=False)
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), ())
