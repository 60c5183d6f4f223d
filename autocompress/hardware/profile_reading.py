"""Reads a profile's files strictly: what is not understood is refused, with file, line, remedy."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autocompress.errors import ProfileError
from autocompress.hardware.profile import (
    ID_PATTERN,
    KINDS,
    PROFILE_FILE,
    TABLE_FILE,
    HardwareProfile,
)
from autocompress.hardware.profile_rules import BOUNDS
from autocompress.hardware.profile_seal import SEAL, seal_of
from autocompress.hardware.profile_sections import SECTIONS
from autocompress.hardware.remedies import remedy
from autocompress.hardware.schema import build, short
from autocompress.hardware.table import MAX_TABLE_BYTES, LatencyTable
from autocompress.hardware.toml_document import Place, TomlDocument

SCHEMA_VERSION = 1
#: A larger ``profile.toml`` is refused unread.
MAX_PROFILE_BYTES = 256 * 1024
_HEAD = ("schema_version", "id", "description", "kind")
_KEYS = (*_HEAD, *(section.name for section in SECTIONS), "table", SEAL)
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class TableRecord:
    """What ``[table]`` says of the latency table.

    Attributes:
        sha256: of the file's bytes, lower-case hexadecimal.
        rows: kernels in it.
    """

    sha256: str
    rows: int


@dataclass(frozen=True, slots=True)
class Seal:
    """What ``[seal]`` says.

    Attributes:
        sha256: of everything else in the file; see :mod:`autocompress.hardware.profile_seal`.
    """

    sha256: str


@dataclass(frozen=True, slots=True)
class ParsedProfile:
    """What a ``profile.toml`` came to.

    Attributes:
        profile: the profile, around the table that was given.
        record: what it says of its table.
        sealed: whether it has a seal; one that does not hold is an error.
    """

    profile: HardwareProfile
    record: TableRecord
    sealed: bool


def read_folder(folder: Path) -> HardwareProfile:
    """The profile of a folder.

    Raises:
        ProfileError: a file is missing, truncated, altered, or says what is not understood.
    """
    return check_folder(folder).profile


def check_folder(folder: Path) -> ParsedProfile:
    """The same, with what a person may want to know about the files.

    Raises:
        ProfileError: as for :func:`read_folder`.
    """
    path = folder / PROFILE_FILE
    if not path.is_file():
        raise ProfileError(f"{folder} holds no {PROFILE_FILE}; give the folder of a profile")
    return check_bytes(
        _bytes(path, MAX_PROFILE_BYTES),
        lambda: _bytes(folder / TABLE_FILE, MAX_TABLE_BYTES, "the latency table "),
        where=str(path),
        table_where=str(folder / TABLE_FILE),
    )


def check_bytes(
    profile: bytes, table: bytes | Callable[[], bytes], *, where: str, table_where: str
) -> ParsedProfile:
    """A profile from the bytes of its two files.

    Args:
        profile: ``profile.toml``.
        table: ``latency.csv``, or a function that reads it.
        where: names the first file in messages.
        table_where: names the second.

    Raises:
        ProfileError: as for :func:`read_folder`.
    """
    rows = LatencyTable()
    parsed = parse_profile(profile, where=where, table=rows)
    raw = table if isinstance(table, bytes) else table()
    found = LatencyTable.from_bytes(raw, where=table_where, sha256=parsed.record.sha256)
    if len(found) != parsed.record.rows:
        raise ProfileError(
            f"{table_where} has {len(found)} rows, not {parsed.record.rows} as {where} says; "
            "restore both files"
        )
    rows.add(found)
    return parsed


def parse_profile(raw: bytes, *, where: str, table: LatencyTable) -> ParsedProfile:
    """A profile from the bytes of ``profile.toml``, around a table that is not looked at.

    Raises:
        ProfileError: the text is truncated, altered, or says what is not understood; the message
            names file, line and remedy.
    """
    document = TomlDocument.parse(raw, where)
    value, at = document.value, Place(document)
    _check_version(value, at)
    for key in value:
        if key not in _KEYS:
            raise (at / key).error(f"is not a known key; {remedy(key, _KEYS)}")
    head: dict[str, Any] = {key: _text(value, key, at) for key in _HEAD[1:]}
    _check_head(head, at)
    measured = head["kind"] == "measured"
    found: dict[str, Any] = {}
    for section in SECTIONS:
        if section.name in value:
            found[section.attribute] = section.read(
                value[section.name], at / section.name, complete=measured
            )
        elif section.required or (section.measured and measured):
            raise at.error(
                f"the section [{section.name}] is missing: the file is truncated or incomplete; "
                "restore it, or add the section"
            )
    record = _record(value, at)
    sealed = _check_seal(value, at)
    return ParsedProfile(HardwareProfile(**head, **found, table=table), record, sealed)


def _check_version(value: Any, at: Place) -> None:
    if "schema_version" not in value:
        if "format" in value:
            raise (at / "format").error(
                "is the key of a version before 0.2; measure the device again, or rename format to "
                "schema_version and [machine] to [device]"
            )
        raise at.error(
            f"schema_version is missing: the file is truncated or no profile; begin it with "
            f"schema_version = {SCHEMA_VERSION}"
        )
    version = value["schema_version"]
    if version != SCHEMA_VERSION or not isinstance(version, int) or isinstance(version, bool):
        raise (at / "schema_version").error(
            f"is {short(version)}; this version reads {SCHEMA_VERSION}: update autocompress, or "
            "measure the device again"
        )


def _text(value: Any, key: str, at: Place) -> str:
    if key not in value:
        raise at.error(f"{key} is missing: the file is truncated or incomplete; add it")
    if not isinstance(value[key], str):
        raise (at / key).error(f"is {short(value[key])}; it must be a text")
    return str(value[key])


def _check_head(head: dict[str, str], at: Place) -> None:
    if not ID_PATTERN.fullmatch(head["id"]):
        raise (at / "id").error(
            f"is {short(head['id'])}; use lower-case letters, digits and underscores, starting "
            "with a letter or digit"
        )
    if head["kind"] not in KINDS:
        raise (at / "kind").error(f"is {short(head['kind'])}; use {' or '.join(map(repr, KINDS))}")


def _record(value: Any, at: Place) -> TableRecord:
    if "table" not in value:
        raise at.error(
            "the section [table] is missing: the file is truncated; restore it, or add the SHA-256 "
            f"and the number of rows of {TABLE_FILE}"
        )
    record = build(TableRecord, value["table"], at / "table", BOUNDS)
    _check_sha256(record.sha256, at / "table" / "sha256")
    return record


def _check_sha256(text: str, at: Place) -> None:
    if not _SHA256.fullmatch(text):
        raise at.error(f"is {short(text)}; write 64 lower-case hexadecimal digits")


def _check_seal(value: Any, at: Place) -> bool:
    """Whether there is a seal, after it was seen to hold."""
    if SEAL not in value:
        return False
    seal = build(Seal, value[SEAL], at / SEAL, {})
    _check_sha256(seal.sha256, at / SEAL / "sha256")
    try:
        found = seal_of(value)
    except (TypeError, RecursionError) as error:
        raise at.error(f"holds what no profile does: {error}; remove it") from error
    if found != seal.sha256:
        raise (at / SEAL).error(
            "does not hold: a key or a value was changed after the file was written; restore it, "
            f"or, when you changed it on purpose, remove the section [{SEAL}]"
        )
    return True


def _bytes(path: Path, limit: int, what: str = "") -> bytes:
    try:
        size = path.stat().st_size
        if size > limit:
            raise ProfileError(
                f"{path} has {size} bytes, more than {limit}; this is no profile's file"
            )
        return path.read_bytes()
    except OSError as error:
        raise ProfileError(
            f"cannot read {what}{path}: {error.strerror or error}; restore it, or measure the "
            "device again"
        ) from error
