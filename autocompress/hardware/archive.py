"""``.acprofile``: a profile in one file for sharing, a zip that holds its two files and no more.

An archive comes from somebody else. Nothing of it touches the disk before all of it was read in
memory, within limits, and accepted; then the folder appears whole or not at all.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import stat
import struct
import tempfile
import zipfile
import zlib
from pathlib import Path

from autocompress.core.files import write_atomically, writing
from autocompress.errors import ProfileError, RequestError
from autocompress.hardware.profile import PROFILE_FILE, TABLE_FILE, HardwareProfile
from autocompress.hardware.profile_reading import MAX_PROFILE_BYTES, ParsedProfile, check_bytes
from autocompress.hardware.profile_writing import profile_texts
from autocompress.hardware.table import MAX_TABLE_BYTES

SUFFIX = ".acprofile"
#: A larger archive is refused unread; a hundred thousand rows take about 2 MB.
MAX_ARCHIVE_BYTES = 8 * 1024 * 1024
#: What each member may hold when it is unpacked.
MEMBERS = {PROFILE_FILE: MAX_PROFILE_BYTES, TABLE_FILE: MAX_TABLE_BYTES}
_EARLIEST = (1980, 1, 1, 0, 0, 0)
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1 | 0x40
#: End of the central directory: signature, disks, entries, size and offset, comment's length.
_END = struct.Struct("<4s4H2LH")
_END_SIGNATURE = b"PK\x05\x06"
_ZIP64_LOCATOR = b"PK\x06\x07"
_ZIP64_LOCATOR_BYTES = 20
_MAX_DIRECTORY_BYTES = 4096
_AGAIN = "ask for the file again, or export it anew"


def export_profile(profile: HardwareProfile, path: str | Path) -> Path:
    """Write a profile as one file; the same profile gives the same bytes (with the same zlib).

    Args:
        profile: any but that of this machine, whose name means another one elsewhere.
        path: the file, which must end in ``.acprofile``; one that is there is replaced.

    Raises:
        RequestError: the path has another ending, or the profile has no name of its own.
        ProfileError: the profile holds what no reader would accept.
        StorageError: the file cannot be written.
    """
    target = Path(path)
    if target.suffix != SUFFIX:
        raise RequestError(f"the file is {str(path)!r}; its name must end in {SUFFIX}")
    if profile.is_local:
        raise RequestError(
            "'local' is whatever machine it is read on; give the profile a name of its own first: "
            "autocompress devices measure --id my_board"
        )
    write_atomically(target, archive_bytes(profile))
    return target


def archive_bytes(profile: HardwareProfile) -> bytes:
    """The archive of a profile.

    Raises:
        ProfileError: the profile holds what no reader would accept.
    """
    texts = profile_texts(profile)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in MEMBERS:
            info = zipfile.ZipInfo(name, date_time=_EARLIEST)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(info, texts[name], compresslevel=9)
    return buffer.getvalue()


def import_profile(path: str | Path, folder: str | Path) -> Path:
    """Unpack an archive as ``folder/<id>``, which appears whole or not at all.

    Returns:
        The profile's folder.

    Raises:
        RequestError: there is no such file, or the folder is there already.
        ProfileError: the archive is hostile, damaged, or holds no valid profile.
        StorageError: the folder cannot be written.
    """
    texts = _members(Path(path))
    profile = _parse(texts, str(path)).profile
    if profile.is_local:
        raise ProfileError(
            f"{path} holds a profile called 'local', which is this machine's own name; ask for one "
            "with a name of its own"
        )
    target = Path(folder).expanduser() / profile.id
    _refuse_existing(target)
    _place(texts, target)
    return target


def read_archive(path: str | Path) -> HardwareProfile:
    """The profile of an archive, which is not unpacked.

    Raises:
        RequestError: there is no such file.
        ProfileError: the archive is hostile, damaged, or holds no valid profile.
    """
    return check_archive(path).profile


def check_archive(path: str | Path) -> ParsedProfile:
    """The same, with what a person may want to know about the files.

    Raises:
        RequestError: there is no such file.
        ProfileError: as for :func:`read_archive`.
    """
    return _parse(_members(Path(path)), str(path))


def _parse(texts: dict[str, bytes], where: str) -> ParsedProfile:
    parsed = check_bytes(
        texts[PROFILE_FILE],
        texts[TABLE_FILE],
        where=f"{where}: {PROFILE_FILE}",
        table_where=f"{where}: {TABLE_FILE}",
    )
    if not parsed.sealed:
        raise ProfileError(
            f"{where}: {PROFILE_FILE} has no [seal]; an archive is made by: autocompress devices "
            "export"
        )
    return parsed


def _members(path: Path) -> dict[str, bytes]:
    """The contents of the two members, after every check of the container."""
    raw = _raw(path)
    _check_end(raw, path)
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            _check_names([info.orig_filename for info in archive.infolist()], path)
            return {info.filename: _content(archive, info, path) for info in archive.infolist()}
    except (
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        EOFError,
        OSError,
        NotImplementedError,
        OverflowError,
        RuntimeError,
        ValueError,
    ) as error:
        raise ProfileError(f"{path} is a damaged archive: {error}; {_AGAIN}") from error


def _raw(path: Path) -> bytes:
    if not path.is_file():
        raise RequestError(f"there is no file {path}; give the path of a {SUFFIX}")
    try:
        if path.stat().st_size > MAX_ARCHIVE_BYTES:
            raise ProfileError(
                f"{path} has {path.stat().st_size} bytes, more than {MAX_ARCHIVE_BYTES}; this is "
                "no profile's archive"
            )
        return path.read_bytes()
    except OSError as error:
        raise ProfileError(f"cannot read {path}: {error.strerror or error}; {_AGAIN}") from error


def _check_end(raw: bytes, path: Path) -> None:
    """Refuse what the small directory of two members never needs, before any library reads it."""
    end = raw[-_END.size :]
    if len(end) < _END.size or not end.startswith(_END_SIGNATURE):
        raise ProfileError(
            f"{path} does not end as an archive does: it is truncated, or no {SUFFIX}; {_AGAIN}"
        )
    _, disk, first, here, entries, size, _, comment = _END.unpack(end)
    locator = raw[-_END.size - _ZIP64_LOCATOR_BYTES :]
    if disk or first or here != entries or comment or locator.startswith(_ZIP64_LOCATOR):
        raise ProfileError(
            f"{path} is an archive of another make (parts, comment, zip64); {_AGAIN}"
        )
    if entries != len(MEMBERS) or size > _MAX_DIRECTORY_BYTES:
        raise ProfileError(
            f"{path} lists {entries} files in {size} bytes; it must hold {' and '.join(MEMBERS)} "
            f"and nothing else; {_AGAIN}"
        )


def _check_names(names: list[str], path: Path) -> None:
    if sorted(names) != sorted(MEMBERS):
        raise ProfileError(
            f"{path} holds {', '.join(repr(name[:80]) for name in names)}; it must hold "
            f"{' and '.join(MEMBERS)} and nothing else; {_AGAIN}"
        )


def _content(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> bytes:
    """A member's bytes, never more than it may have, whatever its header claims."""
    limit = MEMBERS[info.filename]
    mode = info.external_attr >> 16
    if info.flag_bits & _ENCRYPTED:
        raise ProfileError(f"{path}: {info.filename} is encrypted; {_AGAIN}")
    if info.is_dir() or (stat.S_IFMT(mode) and not stat.S_ISREG(mode)):
        raise ProfileError(f"{path}: {info.filename} is a link or no regular file; {_AGAIN}")
    if info.compress_type not in _METHODS:
        raise ProfileError(
            f"{path}: {info.filename} is compressed by method {info.compress_type}; use deflate"
        )
    if info.file_size > limit:
        raise ProfileError(
            f"{path}: {info.filename} would have {info.file_size} bytes, more than {limit}; "
            f"{_AGAIN}"
        )
    with archive.open(info) as member:
        content = member.read(limit + 1)
    if len(content) > limit or len(content) != info.file_size:
        raise ProfileError(
            f"{path}: {info.filename} has {len(content)} bytes, not {info.file_size} as its "
            f"header says; {_AGAIN}"
        )
    return content


def _refuse_existing(target: Path) -> None:
    if os.path.lexists(target):
        raise RequestError(
            f"{target} is there already; remove it first, or import into another folder"
        )


def _place(texts: dict[str, bytes], target: Path) -> None:
    """Write the files beside the target, then give their folder its name."""
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        for name, content in texts.items():
            write_atomically(scratch / name, content)
        with writing(target):
            scratch.chmod(0o755)
            _refuse_existing(target)
            scratch.rename(target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(scratch)
