"""Reads one table of a profile strictly: every key is known, every figure has its type and sign."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from autocompress.errors import ProfileError
from autocompress.hardware.remedies import remedy


class Section:
    """A table of ``profile.toml``, read key by key.

    Ask for every key that the table may have, then call :meth:`done`.

    Args:
        value: the table.
        where: its name, such as "roofline", for messages.

    Raises:
        ProfileError: it is no table.
    """

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, Mapping):
            raise ProfileError(f"[{where}] is {value!r}; it must be a table")
        self._value = value
        self._where = where
        self._asked: set[str] = set()

    def number(self, key: str, default: float | None = None, *, above: float = -1.0) -> float:
        """A finite number that is not negative.

        Args:
            key: its key.
            default: what stands for a missing one; None where it must be there.
            above: it must be larger than this.
        """
        return self._figure(key, self._get(key, default), above)

    def whole(self, key: str, default: int | None = None, *, above: int = -1) -> int:
        """A whole number that is not negative."""
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value <= above:
            raise self._wrong(key, value, f"a whole number above {above}")
        return value

    def text(self, key: str, default: str | None = None, *, one_of: Sequence[str] = ()) -> str:
        """A text, one of a few where they are given."""
        value = self._get(key, default)
        if not isinstance(value, str) or (one_of and value not in one_of):
            raise self._wrong(key, value, f"one of {', '.join(one_of)}" if one_of else "a text")
        return value

    def texts(self, key: str, default: Sequence[str], *, among: Sequence[str]) -> tuple[str, ...]:
        """Texts, all of them among a few."""
        value = self._get(key, list(default))
        if not isinstance(value, list) or not all(item in among for item in value):
            raise self._wrong(key, value, f"a list out of {', '.join(among)}")
        return tuple(value)

    def numbers(self, key: str, *, known: Sequence[str], needed: Sequence[str]) -> dict[str, float]:
        """A table of positive numbers.

        Args:
            key: its key.
            known: keys that it may have.
            needed: keys that it must have.
        """
        inner = Section(self._get(key, None), f"{self._where}.{key}")
        names = [n for n in known if n in inner._value or n in needed]
        found = {name: inner.number(name, above=0.0) for name in names}
        inner.done()
        return found

    def tables(self, key: str) -> list[Section]:
        """A list of tables; empty where it is missing."""
        value = self._get(key, [])
        if not isinstance(value, list):
            raise self._wrong(key, value, "a list of tables")
        return [Section(item, f"{self._where}.{key}[{i}]") for i, item in enumerate(value)]

    def done(self) -> None:
        """Make sure that nothing else is there.

        Raises:
            ProfileError: a key was never asked for.
        """
        unknown = sorted(set(self._value) - self._asked)
        if unknown:
            raise ProfileError(
                f"[{self._where}] has {', '.join(map(repr, unknown))}, which is not understood: "
                f"{remedy(unknown[0], sorted(self._asked))}; "
                f"it may have {', '.join(sorted(self._asked))}"
            )

    def _get(self, key: str, default: Any) -> Any:
        self._asked.add(key)
        value = self._value.get(key, default)
        if value is None:
            raise ProfileError(f"[{self._where}] lacks {key!r}; add it")
        return value

    def _figure(self, key: str, value: Any, above: float) -> float:
        fits = isinstance(value, int | float) and not isinstance(value, bool)
        if not fits or not math.isfinite(value) or value < 0 or value <= above:
            raise self._wrong(key, value, "a finite number " + ("above 0" if above >= 0 else "≥ 0"))
        return float(value)

    def _wrong(self, key: str, value: object, wanted: str) -> ProfileError:
        return ProfileError(f"[{self._where}] {key} is {value!r}; it must be {wanted}")
