"""A TOML file whose values know their lines, so that an error can say where it is."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeAlias

from autocompress.errors import ProfileError

KeyPath: TypeAlias = tuple[str | int, ...]
_BARE = r"""(?:[A-Za-z0-9_-]+|"[^"\\]*"|'[^']*')"""
_DOTTED = rf"{_BARE}(?:\s*\.\s*{_BARE})*"
_HEADER = re.compile(rf"\s*(\[\[?)\s*({_DOTTED})\s*\]\]?\s*(?:#.*)?$")
_ENTRY = re.compile(rf"\s*({_DOTTED})\s*=")
#: Python's parser takes quadratic time for long dotted keys; no profile has them.
_TOO_DEEP = re.compile(r"""(?<![\w"'-])(?:[\w"'-]+\s*\.\s*){12}""")
_CLOSING = {"[": "]", "{": "}"}


@dataclass(frozen=True)
class TomlDocument:
    """A parsed file.

    Attributes:
        where: the file, for messages.
        text: its text.
        value: what it says.
    """

    where: str
    text: str
    value: Mapping[str, Any]

    @classmethod
    def parse(cls, raw: bytes, where: str) -> TomlDocument:
        """The document of a file's bytes.

        Raises:
            ProfileError: this is no TOML; the message names the line where the parser knows it.
        """
        try:
            text = raw.decode("utf-8").replace("\r\n", "\n")
            if _TOO_DEEP.search(text):
                raise ValueError("a name of more than twelve parts joined by dots")
            return cls(where, text, tomllib.loads(text))
        except (ValueError, RecursionError) as error:
            last = len(raw.rstrip().split(b"\n"))
            reason = str(error).replace("at end of document", f"at the end, line {last}")
            raise ProfileError(
                f"cannot read {where}: {type(error).__name__}: {reason}; restore it, or "
                "measure the device again"
            ) from error

    @cached_property
    def _lines(self) -> dict[KeyPath, int]:
        return _key_lines(self.text)

    def line(self, path: KeyPath) -> int | None:
        """The line of a key, or of the table that it is in; None where neither is known."""
        for length in range(len(path), 0, -1):
            if path[:length] in self._lines:
                return self._lines[path[:length]]
        return None


@dataclass(frozen=True)
class Place:
    """A value's place in a document: what an error about it begins with.

    Attributes:
        document: the file.
        path: keys that lead to the value; empty for the whole file.
    """

    document: TomlDocument
    path: KeyPath = field(default=())

    def __truediv__(self, key: str | int) -> Place:
        return replace(self, path=(*self.path, key))

    @property
    def name(self) -> str:
        """Dotted name without positions in lists, such as ``device.clusters.mhz``."""
        return ".".join(key for key in self.path if isinstance(key, str))

    def error(self, message: str) -> ProfileError:
        """The error that something is wrong here: file, line, key, what, and what to do."""
        line = self.document.line(self.path)
        where = self.document.where if line is None else f"{self.document.where}, line {line}"
        if not self.path:
            return ProfileError(f"{where}: {message}")
        keys = [f"[{key}]" if isinstance(key, int) else f".{key[:80]}" for key in self.path[1:]]
        return ProfileError(f"{where}: {str(self.path[0])[:80]}{''.join(keys)} {message}")


def _keys(dotted: str) -> tuple[str, ...]:
    return tuple(key.strip("\"'") for key in re.findall(_BARE, dotted))


def _key_lines(text: str) -> dict[KeyPath, int]:
    """The line on which each key of a valid TOML text is, keys of inline tables excepted."""
    lines: dict[KeyPath, int] = {}
    arrays: dict[KeyPath, int] = {}
    table: KeyPath = ()
    value = _Value()
    for number, line in enumerate(text.split("\n"), start=1):
        if value.is_open:
            value.feed(line, number, lines)
        elif header := _HEADER.match(line):
            table = _keys(header[2])
            if header[1] == "[[":
                arrays[table] = arrays.get(table, -1) + 1
                lines.setdefault(table, number)
                table = (*table, arrays[table])
            lines.setdefault(table, number)
        elif entry := _ENTRY.match(line):
            path = table
            for key in _keys(entry[1]):
                path = (*path, key)
                lines.setdefault(path, number)
            value = _Value(path)
            value.feed(line[entry.end() :], number, lines)
    return lines


class _Value:
    """Follows a value over its lines: open brackets, open strings, elements of a list."""

    def __init__(self, path: KeyPath = ()) -> None:
        self.path = path
        self.brackets: list[str] = []
        self.quote = ""
        self.element = 0

    @property
    def is_open(self) -> bool:
        return bool(self.brackets) or len(self.quote) == 3

    def feed(self, line: str, number: int, lines: dict[KeyPath, int]) -> None:
        at = 0
        while at < len(line):
            at += self._step(line, at, number, lines)
        if len(self.quote) == 1:  # a plain string ends with its line
            self.quote = ""

    def _step(self, line: str, at: int, number: int, lines: dict[KeyPath, int]) -> int:
        """Read what is at ``at``; how many characters that was."""
        character = line[at]
        if self.quote:
            if character == "\\" and self.quote[0] == '"':
                return 2
            if line.startswith(self.quote, at):
                width, self.quote = len(self.quote), ""
                return width
            return 1
        if character == "#":
            return len(line) - at
        if character.isspace():
            return 1
        if self.brackets == ["]"] and character not in "],":
            lines.setdefault((*self.path, self.element), number)
        return self._structure(line, at)

    def _structure(self, line: str, at: int) -> int:
        character = line[at]
        if character in "\"'":
            self.quote = 3 * character if line.startswith(3 * character, at) else character
            return len(self.quote)
        if character in _CLOSING:
            self.brackets.append(_CLOSING[character])
        elif self.brackets and character == self.brackets[-1]:
            self.brackets.pop()
        elif character == "," and self.brackets == ["]"]:
            self.element += 1
        return 1
