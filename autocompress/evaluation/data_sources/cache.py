"""Decoded images kept in the user's cache folder, keyed by the content they came from."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from autocompress.core.files import replacing
from autocompress.core.places import cache_folder as cache_folder
from autocompress.errors import DataError, StorageError

#: Raise when what is stored changes, so that old files are not read.
_VERSION = 1

Arrays = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]


def file_hash(path: Path) -> str:
    """SHA-256 of the file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def decoded(path: Path, decode: Callable[[], Arrays]) -> tuple[Arrays, str | None]:
    """The images and labels of ``path``, decoded once.

    Args:
        path: the file they come from; its content is the key.
        decode: reads it when nothing is cached.

    Returns:
        The arrays, and a note when they could not be cached.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        key = file_hash(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    cached = cache_folder() / "data" / f"v{_VERSION}-{key[:32]}.npz"
    found = _read(cached)
    if found is not None:
        return found, None
    arrays = decode()
    try:
        with replacing(cached) as temporary, temporary.open("wb") as file:
            np.savez(file, x=arrays[0], y=arrays[1])
    except StorageError as error:
        return arrays, f"decoded images were not cached: {error}"
    return arrays, None


def _read(path: Path) -> Arrays | None:
    """What is cached, or None when it is absent or unusable: then it is decoded anew."""
    try:
        with np.load(path, allow_pickle=False) as file:
            x, y = file["x"], file["y"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    if x.dtype != np.uint8 or x.ndim != 4 or y.shape != (len(x),):
        return None
    return x, y
