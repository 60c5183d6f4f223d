"""Archives that mean harm, each with a word of the message that refuses it."""

from __future__ import annotations

import io
import stat
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from autocompress.hardware.archive import MAX_ARCHIVE_BYTES, archive_bytes
from autocompress.hardware.profile import PROFILE_FILE, TABLE_FILE
from autocompress.hardware.table import MAX_TABLE_BYTES
from tests.unit.hardware.profile_files import full_profile

Entry = tuple[str, bytes]


#: Names that lead elsewhere, or only look right.
NAMES = (
    "../latency.csv",
    "/latency.csv",
    "x/latency.csv",
    "..\\latency.csv",
    "C:latency.csv",
    "latency.csv/",
    "./latency.csv",
    "LATENCY.CSV",
    "",
)


def packed(*entries: Entry, change: Callable[[zipfile.ZipInfo], None] | None = None) -> bytes:
    """A zip of these entries; ``change`` alters the header of each."""
    buffer = io.BytesIO()
    with (
        warnings.catch_warnings(action="ignore"),  # that a name is there twice is meant
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name, content in entries:
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            if change is not None:
                change(info)
            archive.writestr(info, content)
    return buffer.getvalue()


def entries() -> tuple[Entry, Entry]:
    """The members of a good archive."""
    with zipfile.ZipFile(io.BytesIO(archive_bytes(full_profile()))) as archive:
        return (PROFILE_FILE, archive.read(PROFILE_FILE)), (TABLE_FILE, archive.read(TABLE_FILE))


def _link(info: zipfile.ZipInfo) -> None:
    info.external_attr = (stat.S_IFLNK | 0o777) << 16


def _device(info: zipfile.ZipInfo) -> None:
    info.external_attr = (stat.S_IFCHR | 0o666) << 16


def _bzip2(info: zipfile.ZipInfo) -> None:
    info.compress_type = zipfile.ZIP_BZIP2


def _with_flag(raw: bytes, flag: int) -> bytes:
    """The archive with a flag set in every header of the central directory."""
    changed = bytearray(raw)
    at = changed.find(b"PK\x01\x02")
    while at >= 0:
        (old,) = struct.unpack_from("<H", changed, at + 8)
        struct.pack_into("<H", changed, at + 8, old | flag)
        at = changed.find(b"PK\x01\x02", at + 4)
    return bytes(changed)


def _with_size(raw: bytes, size: int) -> bytes:
    """The archive with another uncompressed size claimed for its last member."""
    changed = bytearray(raw)
    at = changed.rfind(b"PK\x01\x02")
    struct.pack_into("<L", changed, at + 24, size)
    return bytes(changed)


def hostile_zips() -> Iterator[tuple[str, bytes, str]]:
    """Name, bytes, and a part of the message."""
    profile, table = entries()
    good = packed(profile, table)
    bomb = b"\0" * (MAX_TABLE_BYTES + 1)
    for name in NAMES:
        yield f"name {name!r}", packed(profile, (name, table[1])), ""
    longer = packed(profile, ("latency.csv_txt", table[1]))
    yield "a name cut by a zero", longer.replace(b".csv_txt", b".csv\0txt"), "must hold"
    yield "a name twice", packed(profile, profile), "must hold"
    yield "a third file twice", packed(profile, table, table), "lists 3 files"
    yield "another file", packed(profile, table, ("setup.py", b"import os")), "lists 3 files"
    yield "one file", packed(profile), "lists 1 files"
    yield "no file", packed(), "lists 0 files"
    yield "many files", packed(*((f"f{i}", b"") for i in range(3000))), "lists 3000 files"
    yield "links", packed(profile, table, change=_link), "link"
    yield "devices", packed(profile, table, change=_device), "no regular file"
    yield "bzip2", packed(profile, table, change=_bzip2), "method 12"
    yield "encrypted", _with_flag(good, 0x1), "encrypted"
    yield "strongly encrypted", _with_flag(good, 0x41), "encrypted"
    yield "patched data", _with_flag(good, 0x20), ""
    yield "a bomb", packed(profile, (TABLE_FILE, bomb)), "more than"
    yield "a bomb of toml", packed((PROFILE_FILE, bomb), table), "more than"
    yield "a bomb that claims less", _with_size(packed(profile, (TABLE_FILE, bomb)), 100), ""
    yield "a size that is not there", _with_size(good, len(table[1]) + 1), ""
    yield "a huge file", good + b"\0" * MAX_ARCHIVE_BYTES, "no profile's archive"
    yield "something behind the end", good + b"more", "does not end as an archive"
    yield "a comment", good[:-2] + b"\x04\x00more", "does not end as an archive"
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, 0, 1)
    yield "zip64", good[:-22] + locator + good[-22:], "zip64"
    yield "nothing", b"", "does not end as an archive"
    yield "text", b"schema_version = 1\n" * 9, "does not end as an archive"
    yield "an end alone", good[-22:], ""
    yield "swapped contents", packed((TABLE_FILE, profile[1]), (PROFILE_FILE, table[1])), ""
    yield "no seal", packed((PROFILE_FILE, profile[1].partition(b"[seal]")[0]), table), "no [seal]"
    other = table[1].replace(b",table", b",tabel", 1)
    yield "another table", packed(profile, (TABLE_FILE, other)), "SHA-256"
    edited = profile[1].replace(b"a board", b"a bored")
    yield "edited", packed((PROFILE_FILE, edited), table), "seal does not hold"


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, to see that nothing was written."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
