"""The trials of ``study.db`` as a table."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd

from autocompress.core.candidate import Candidate
from autocompress.errors import RequestError, StorageError

#: Columns that every trial table has; metrics follow, in order of first appearance.
COLUMNS = (
    "number",
    "id",
    "fidelity",
    "state",
    "origin",
    "seconds",
    "train_steps",
    "attempts",
    "error",
)


def read_trials(path: Path) -> pd.DataFrame:
    """A row per finished trial, in order of their numbers; metrics as columns, NaN where none.

    The store may be in use: it is opened for reading only. Without a store there are no rows.

    Raises:
        StorageError: the file is no store of trials, or a row in it is corrupt.
    """
    rows = _rows(path) if path.is_file() else []
    metrics = list(dict.fromkeys(name for row in rows for name in row if name not in COLUMNS))
    return pd.DataFrame(rows, columns=[*COLUMNS, *metrics])


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            db.execute("PRAGMA busy_timeout = 10000")
            db.row_factory = sqlite3.Row
            tables = db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            if not tables:  # made, but killed before anything was written
                return []
            return [_row(row) for row in db.execute("SELECT * FROM trials ORDER BY number")]
    except (sqlite3.Error, RequestError, ValueError, TypeError, IndexError) as error:
        raise StorageError(
            f"{path} is corrupt ({error}); restore it from a copy, or delete it to go on without it"
        ) from error


def _row(row: sqlite3.Row) -> dict[str, Any]:
    fixed: dict[str, Any] = {
        "number": int(row["number"]),
        "id": Candidate.from_json(json.loads(row["candidate"])).id,
        "fidelity": str(row["fidelity"]),
        "state": str(row["state"]),
        "origin": str(row["origin"]),
        "seconds": float(row["seconds"]),
        "train_steps": int(row["train_steps"]),
        "attempts": int(row["attempts"]),
        "error": row["error"] or "",
    }
    metrics = {str(name): float(value) for name, value in json.loads(row["metrics"]).items()}
    return fixed | {name: value for name, value in metrics.items() if name not in fixed}
