"""Files are whole or absent, whatever happens while they are written."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path

import pytest

from autocompress.core.files import replacing, sha256_of, write_atomically
from autocompress.errors import StorageError


def test_text_and_bytes(tmp_path: Path) -> None:
    path = tmp_path / "below" / "file"
    write_atomically(path, "é")
    assert path.read_bytes() == "é".encode()
    write_atomically(path, b"two")
    assert path.read_text() == "two"
    assert [p.name for p in path.parent.iterdir()] == ["file"]
    assert stat.S_IMODE(path.stat().st_mode) & stat.S_IRUSR
    assert not stat.S_IMODE(path.stat().st_mode) & stat.S_IXUSR


def test_what_fails_midway_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")

    def write_half() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half of the n")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_refused_by_the_system(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StorageError, match=r"cannot write .*below.*make room"):
        write_atomically(tmp_path / "file" / "below", "three")
    with pytest.raises(StorageError, match="cannot read"):
        sha256_of(tmp_path / "none")


def test_hash(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc" * 1000)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(b"abc" * 1000).hexdigest()
