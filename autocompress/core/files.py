"""Files that are complete under their final name, or not there at all."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autocompress.errors import StorageError


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turn the system's refusal to write ``path`` into a :class:`StorageError`."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"cannot write {path}: {error.strerror or error}; "
            "make room there or set its permissions, then try again"
        ) from error


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A new file that takes the name ``path`` when the block ends well, and vanishes otherwise.

    Missing folders are made. The content is on the disk before it has the name.

    Raises:
        StorageError: the folder is full or not writable.
    """
    target = Path(path)
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)


def write_atomically(path: str | Path, content: bytes | str) -> None:
    """Write a file, text in UTF-8, so that it is complete or does not have its name.

    Raises:
        StorageError: the folder is full or not writable.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal.

    Raises:
        StorageError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error}") from error


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
