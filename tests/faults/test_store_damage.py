"""Damaged databases end in a clear error, never in wrong trials."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from autocompress.core.budget import Fidelity
from autocompress.core.candidate import Candidate
from autocompress.core.trial import TrialRecord
from autocompress.errors import StorageError
from autocompress.search.store import TrialStore, read_trials

RECORD = TrialRecord(0, (1, 2), Candidate({"a": 1}), Fidelity.TABLE, "complete", {"accuracy": 0.5})


def filled(path: Path, rows: int = 50) -> list[TrialRecord]:
    with TrialStore(path) as store:
        for number in range(rows):
            store.append(replace(RECORD, number=number))
        return store.records()


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"this is no database, it is a text of some length" * 20, id="text"),
        pytest.param(b"SQLite format 3\0" + bytes(84), id="header-only"),
        pytest.param(b"SQLite format 3\0" + b"\xff" * 8000, id="noise-after-the-magic"),
    ],
)
def test_not_a_database(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "study.db"
    path.write_bytes(content)
    for opener in (TrialStore, read_trials):
        with pytest.raises(StorageError, match=r"study\.db .*(restore the file|another|version)"):
            opener(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated(tmp_path: Path, share: float) -> None:
    path = tmp_path / "study.db"
    filled(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(StorageError, match="restore the file from a copy"):
        TrialStore(path)


def test_overwritten_pages(tmp_path: Path) -> None:
    """Whatever is hit: the same trials, or an error."""
    path = tmp_path / "study.db"
    records = filled(path)
    content = path.read_bytes()
    noise = random.Random(0)
    refused = 0
    for _ in range(30):
        damaged = bytearray(content)
        start = noise.randrange(100, len(content) - 64)
        damaged[start : start + 64] = noise.randbytes(64)
        path.write_bytes(damaged)
        try:
            with TrialStore(path) as store:
                found = store.records()
        except StorageError:
            refused += 1
        else:
            assert found == records
    assert refused > 10


def test_torn_write_ahead_log(tmp_path: Path) -> None:
    """A torn log loses the row that was being written, and nothing before it."""
    path = tmp_path / "study.db"
    with TrialStore(path) as store:
        for number in range(10):
            store.append(replace(RECORD, number=number))
        records = store.records()
        database, log = path.read_bytes(), path.with_name("study.db-wal").read_bytes()
    copy = tmp_path / "copy.db"
    for cut in (1, 100, 5000):
        copy.write_bytes(database)
        copy.with_name("copy.db-wal").write_bytes(log[:-cut])
        with TrialStore(copy) as torn:
            found = torn.records()
            assert found == records[: len(found)]
            assert len(found) >= 8
            torn.append(replace(RECORD, number=len(found)))
        for leftover in tmp_path.glob("copy.db*"):
            leftover.unlink()
