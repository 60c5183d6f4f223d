"""Files that are complete under their final name, or not there at all."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from autocompress.errors import StorageError


def write_atomically(path: str | Path, data: bytes) -> None:
    """Write, flush to disk, then rename into place.

    Raises:
        StorageError: the folder is missing, full or not writable.
    """
    target = Path(path)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o666 & ~_umask())
            os.replace(name, target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise StorageError(f"cannot write {target}: {error}") from error


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal.

    Raises:
        StorageError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error}") from error
    return digest.hexdigest()
