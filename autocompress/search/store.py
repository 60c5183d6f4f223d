"""Finished trials on disk: SQLite, one row a trial, the driver its only writer."""

from __future__ import annotations

import hashlib
import json
import math
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, get_args

from autocompress.core.budget import Fidelity
from autocompress.core.candidate import Candidate
from autocompress.core.trial import TrialRecord, TrialState
from autocompress.errors import RequestError, StorageError

#: Version of the tables, in ``PRAGMA user_version``.
SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE trials (
    number INTEGER PRIMARY KEY,
    genome TEXT NOT NULL,
    candidate TEXT NOT NULL,
    fidelity TEXT NOT NULL,
    state TEXT NOT NULL,
    metrics TEXT NOT NULL,
    error TEXT,
    seconds REAL NOT NULL,
    train_steps INTEGER NOT NULL,
    seed INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    origin TEXT NOT NULL,
    details TEXT NOT NULL,
    finished TEXT NOT NULL,
    checksum TEXT NOT NULL
) STRICT;
CREATE TABLE started (
    number INTEGER PRIMARY KEY,
    genome TEXT NOT NULL,
    attempts INTEGER NOT NULL
) STRICT;
"""
_COLUMNS = (
    "number, genome, candidate, fidelity, state, metrics, error, seconds, train_steps, seed, "
    "attempts, origin, details"
)
_FIELDS = 13  # of _COLUMNS; they are what the checksum is made of


def plain(value: Any) -> Any:
    """``value`` as plain JSON: what JSON cannot hold becomes text, NaN and infinities None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, bool | str) or value is None:
        return value
    if isinstance(value, int):
        return int(value)
    return plain(value.item()) if _is_scalar_array(value) else str(value)


def _is_scalar_array(value: Any) -> bool:
    return callable(getattr(value, "item", None)) and getattr(value, "size", 0) == 1


class TrialStore:
    """The source of truth about finished trials, and about those that were started.

    One process writes (hold a :class:`~autocompress.search.lock.RunLock`), any number may read;
    an instance belongs to the thread that made it.

    The database is in WAL mode with ``synchronous=FULL``: when :meth:`append` returns, its row
    has been flushed to the disk. With ``NORMAL`` a row would survive ``kill -9`` (it is in the
    system's page cache) but not a power cut; a trial takes seconds, the flush milliseconds.
    """

    def __init__(self, path: Path | str) -> None:
        """Open a store, or make a new one.

        Args:
            path: the database file; its folder must exist.

        Raises:
            StorageError: it cannot be opened, is damaged, or has another schema.
        """
        self._path = Path(path)
        if not self._path.parent.is_dir():
            raise StorageError(f"{self._path.parent} is no folder; make it before the store in it")
        self._db = self._guard(lambda: sqlite3.connect(self._path, isolation_level=None))
        try:
            self._guard(self._prepare)
        except StorageError:
            self._db.close()
            raise

    def _prepare(self) -> None:
        self._db.execute("PRAGMA busy_timeout = 10000")
        self._db.execute("PRAGMA trusted_schema = OFF")
        _check(self._db, self._path)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        if self._db.execute("PRAGMA user_version").fetchone()[0] == 0:
            self._db.executescript(
                f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
            )
        self._next = int(self._db.execute("SELECT count(*) FROM trials").fetchone()[0])

    def _guard(self, action: Any, *arguments: Any) -> Any:
        try:
            return action(*arguments)
        except sqlite3.Error as error:
            raise StorageError(_complaint(self._path, error)) from error

    @property
    def path(self) -> Path:
        """The database file."""
        return self._path

    def __len__(self) -> int:
        return self._next

    def start(self, number: int, genome: Sequence[int]) -> int:
        """Note that a trial is about to be evaluated; which attempt at it this is, from 1.

        Attempts are counted per trial number and genome over all runs of the driver, so that a
        candidate which takes the driver down with it can be given up.
        """
        text = json.dumps([int(g) for g in genome])
        row = self._guard(
            self._db.execute,
            "INSERT INTO started VALUES (?, ?, 1) ON CONFLICT (number) DO UPDATE SET "
            "attempts = CASE WHEN genome = excluded.genome THEN attempts + 1 ELSE 1 END, "
            "genome = excluded.genome RETURNING attempts",
            (number, text),
        )
        return int(self._guard(row.fetchall)[0][0])

    def abandon(self, number: int) -> None:
        """Take back one :meth:`start`: the driver gave the attempt up, the trial did not fail."""
        self._guard(
            self._db.execute,
            "UPDATE started SET attempts = max(0, attempts - 1) WHERE number = ?",
            (number,),
        )

    def append(self, record: TrialRecord) -> None:
        """Add a finished trial; when this returns, the trial is never lost.

        Raises:
            StorageError: its number is not the next one, or it cannot be written.
        """
        if record.number != self._next:
            raise StorageError(
                f"trial {record.number} cannot be stored in {self._path}: the next one is "
                f"{self._next}; another writer, or a bug"
            )
        self._guard(self._append, _row(record))
        self._next += 1

    def _append(self, row: tuple[Any, ...]) -> None:
        marks = ", ".join("?" * len(row))
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.execute(f"INSERT INTO trials VALUES ({marks})", row)  # noqa: S608
            self._db.execute("DELETE FROM started WHERE number = ?", (row[0],))
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def records(self) -> list[TrialRecord]:
        """All finished trials, by number.

        Raises:
            StorageError: a row cannot be read.
        """
        return _records(self._db, self._path)

    def started(self) -> dict[int, int]:
        """Attempts at trials that were started and not finished, by number."""
        rows = self._guard(lambda: self._db.execute("SELECT number, attempts FROM started"))
        return {int(number): int(attempts) for number, attempts in self._guard(rows.fetchall)}

    def close(self) -> None:
        """Close the file; calling it again does nothing."""
        self._db.close()

    def __enter__(self) -> TrialStore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def read_trials(path: Path | str) -> list[TrialRecord]:
    """The finished trials of a store that another process may be writing, by number.

    Raises:
        StorageError: there is none, it is damaged, or has another schema.
    """
    file = Path(path)
    if not file.is_file():
        raise StorageError(f"there is no study at {file}; give the folder of a run")
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as db:
            db.execute("PRAGMA busy_timeout = 10000")
            _check(db, file)
            if db.execute("PRAGMA user_version").fetchone()[0] == 0:
                return []
            return _records(db, file)
    except sqlite3.Error as error:
        raise StorageError(_complaint(file, error)) from error


def _complaint(path: Path, error: Exception) -> str:
    return (
        f"the study {path} cannot be used: {error}; "
        "restore the file from a copy, or start a new run in another folder"
    )


def _check(db: sqlite3.Connection, path: Path) -> None:
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    tables = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if version == 0 and not tables:
        return
    if version != SCHEMA_VERSION or not {"trials", "started"} <= tables:
        raise StorageError(
            f"the study {path} has schema {version}, this version of autocompress reads "
            f"{SCHEMA_VERSION}; open it with the version that wrote it, or start a new run"
        )
    found = [row[0] for row in db.execute("PRAGMA quick_check(1)")]
    if found != ["ok"]:
        raise StorageError(_complaint(path, sqlite3.DatabaseError(f"damaged: {found[0]}")))


def _records(db: sqlite3.Connection, path: Path) -> list[TrialRecord]:
    try:
        rows = db.execute(f"SELECT {_COLUMNS}, checksum FROM trials ORDER BY number")  # noqa: S608
        return [_record(row) for row in rows]
    except (sqlite3.Error, RequestError, ValueError, KeyError, TypeError) as error:
        raise StorageError(_complaint(path, error)) from error


def _checksum(fields: Sequence[Any]) -> str:
    """SQLite finds damage in a table's structure, not in its text."""
    return hashlib.sha256(json.dumps(fields).encode()).hexdigest()[:16]


def _row(record: TrialRecord) -> tuple[Any, ...]:
    fields = (
        record.number,
        json.dumps([int(g) for g in record.genome]),
        json.dumps(record.candidate.to_json(), allow_nan=False),
        str(record.fidelity),
        record.state,
        json.dumps({str(k): float(v) for k, v in record.metrics.items()}, allow_nan=False),
        record.error,
        float(record.seconds),
        int(record.train_steps),
        int(record.seed),
        int(record.attempts),
        record.origin,
        json.dumps(plain(record.details), allow_nan=False),
    )
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return (*fields, now, _checksum(fields))


def _record(row: tuple[Any, ...]) -> TrialRecord:
    if row[_FIELDS] != _checksum(row[:_FIELDS]):
        raise ValueError(f"trial {row[0]} does not match its checksum")
    if row[4] not in get_args(TrialState):
        raise ValueError(f"trial {row[0]} has the unknown state {row[4]!r}")
    return TrialRecord(
        number=row[0],
        genome=tuple(int(g) for g in json.loads(row[1])),
        candidate=Candidate.from_json(json.loads(row[2])),
        fidelity=Fidelity(row[3]),
        state=row[4],
        metrics={k: float(v) for k, v in json.loads(row[5]).items()},
        error=row[6],
        seconds=row[7],
        train_steps=row[8],
        seed=row[9],
        attempts=row[10],
        origin=row[11],
        details=json.loads(row[12]),
    )
