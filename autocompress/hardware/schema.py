"""Dataclasses from TOML tables and back: their annotations are the schema, and it is strict.

Understood: ``bool``, ``int``, ``float``, ``str``, ``Literal``, ``X | None``, ``tuple[X, ...]``,
``Mapping[str, X]``, other dataclasses, and ``Any`` for plain values.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from autocompress.errors import AutocompressError
from autocompress.hardware.remedies import remedy
from autocompress.hardware.toml_document import Place

_T = TypeVar("_T")
_DEEPEST = 8
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxlong, _SHORT.maxother = 2, 80, 40, 80
_WORDS: dict[object, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
}


@dataclass(frozen=True, slots=True)
class Bound:
    """What a figure may be.

    Attributes:
        low: the smallest value.
        high: the largest.
        open_low: whether ``low`` itself is excluded.
    """

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False

    def holds(self, value: float) -> bool:
        """Whether ``value`` is inside."""
        return (self.low < value if self.open_low else self.low <= value) and value <= self.high

    @property
    def words(self) -> str:
        """Such as "at least 1"."""
        if math.isfinite(self.low) and math.isfinite(self.high):
            return f"from {self.low:g} to {self.high:g}"
        if math.isfinite(self.low):
            return f"more than {self.low:g}" if self.open_low else f"at least {self.low:g}"
        return f"at most {self.high:g}"


def build(kind: type[_T], value: object, at: Place, bounds: Mapping[str, Bound]) -> _T:
    """A dataclass from a table.

    Args:
        kind: the dataclass.
        value: the table as parsed.
        at: its place in the file.
        bounds: what figures may be, by their dotted names.

    Raises:
        ProfileError: a key is unknown or missing, or a value has the wrong type or is out of
            bounds; the message names file, line and remedy.
    """
    if not isinstance(value, Mapping):
        raise at.error(f"is {short(value)}; it must be a table")
    known, hints = _fields(cast(Any, kind)), _hints(cast(Any, kind))
    given = {}
    for key, item in value.items():
        if key not in known:
            raise (at / key).error(f"is not a known key; {remedy(key, list(known))}")
        given[key] = _convert(hints[key], item, at / key, bounds)
    for name, field in known.items():
        if name not in given and field.default is MISSING and field.default_factory is MISSING:
            raise at.error(f"lacks the key {name!r}; add it")
    try:
        return kind(**given)
    except (AutocompressError, ValueError) as error:
        raise at.error(f"is not understood: {error}") from error


def plain(value: object) -> dict[str, Any]:
    """A dataclass as a table; None and empty lists and tables of a default are left out.

    Raises:
        TypeError: ``value`` is no dataclass.
    """
    if not is_dataclass(value):
        raise TypeError(f"{value!r} is no dataclass")
    found = {field.name: getattr(value, field.name) for field in fields(value)}
    return {
        field.name: _plain(found[field.name])
        for field in fields(value)
        if found[field.name] is not None and not _is_empty_default(field, found[field.name])
    }


def short(value: object) -> str:
    """A value for a message, cut where it is long."""
    return _SHORT.repr(value)


def check_number(value: float, at: Place, bounds: Mapping[str, Bound]) -> None:
    """Hold a figure against its bound.

    Raises:
        ProfileError: it is not finite, or out of bounds.
    """
    if not math.isfinite(value):
        raise at.error(f"is {value}; it must be a finite number")
    bound = bounds.get(at.name)
    if bound is not None and not bound.holds(value):
        raise at.error(f"is {value!r}; it must be {bound.words}")


def _is_empty_default(field: Field[Any], value: object) -> bool:
    default = field.default_factory() if field.default_factory is not MISSING else field.default
    return isinstance(value, tuple | Mapping) and not value and value == default


def _plain(value: object) -> Any:
    if is_dataclass(value):
        return plain(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


@cache
def _fields(kind: type) -> dict[str, Field[Any]]:
    return {field.name: field for field in fields(kind) if field.init}


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _convert(hint: Any, item: object, at: Place, bounds: Mapping[str, Bound]) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        (hint,) = (argument for argument in arguments if argument is not NoneType)
        return _convert(hint, item, at, bounds)
    if origin is Literal:
        if item not in arguments or isinstance(item, bool):
            raise at.error(f"is {short(item)}; use {' or '.join(map(repr, arguments))}")
        return item
    if origin is tuple:
        if not isinstance(item, list):
            raise at.error(f"is {short(item)}; it must be a list")
        return tuple(_convert(arguments[0], part, at / i, bounds) for i, part in enumerate(item))
    if hint is Any:
        return _any(item, at, _DEEPEST)
    if origin is not None:
        if not isinstance(item, Mapping):
            raise at.error(f"is {short(item)}; it must be a table")
        return {key: _convert(arguments[1], part, at / key, bounds) for key, part in item.items()}
    if is_dataclass(hint):
        return build(hint, item, at, bounds)  # type: ignore[arg-type]
    return _scalar(hint, item, at, bounds)


def _scalar(hint: Any, item: object, at: Place, bounds: Mapping[str, Bound]) -> Any:
    if hint is float and isinstance(item, int) and not isinstance(item, bool):
        try:
            item = float(item)
        except OverflowError:
            raise at.error(f"is {short(item)}; that is too large") from None
    if not isinstance(item, hint) or (isinstance(item, bool) and hint is not bool):
        raise at.error(f"is {short(item)}; it must be {_WORDS.get(hint, hint)}")
    if isinstance(item, int | float) and not isinstance(item, bool):
        check_number(item, at, bounds)
    return item


def _any(item: object, at: Place, depth: int) -> Any:
    """A plain value, whatever its type: finite, not nested without end."""
    if depth == 0:
        raise at.error(f"is nested deeper than {_DEEPEST} levels; make it flat")
    if isinstance(item, Mapping):
        return {key: _any(part, at / key, depth - 1) for key, part in item.items()}
    if isinstance(item, list):
        return [_any(part, at / i, depth - 1) for i, part in enumerate(item)]
    if isinstance(item, float) and not math.isfinite(item):
        raise at.error(f"is {item}; it must be a finite number")
    if not isinstance(item, bool | int | float | str):
        raise at.error(f"is {short(item)}; write numbers, texts, true or false, lists or tables")
    return item
