"""Rows in, rows out; and what is not a store is refused."""

from __future__ import annotations

import math
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocompress.core.budget import Fidelity
from autocompress.core.candidate import Candidate, LayerPolicy
from autocompress.core.trial import TrialRecord
from autocompress.errors import StorageError
from autocompress.search.store import SCHEMA_VERSION, TrialStore, plain, read_trials

RECORD = TrialRecord(
    number=0,
    genome=(1, 0, 2),
    candidate=Candidate({"depth:net": 2}, {"conv1": LayerPolicy(weight_bits=4, width=16)}),
    fidelity=Fidelity.INHERITED,
    state="complete",
    metrics={"accuracy": 0.1 + 0.2, "latency_ms": 1e-300},
    seconds=1.25,
    train_steps=7,
    seed=2**31 - 1,
    attempts=2,
    origin="seed:uniform",
    details={"note": "ü", "list": [1, 2.5, None, True]},
)
FAILED = replace(RECORD, number=1, state="failed", metrics={}, error="ValueError: no", details={})


def test_round_trip(tmp_path: Path) -> None:
    with TrialStore(tmp_path / "study.db") as store:
        store.append(RECORD)
        store.append(FAILED)
        assert len(store) == 2
        assert store.records() == [RECORD, FAILED]
    with TrialStore(tmp_path / "study.db") as store:
        assert store.records() == [RECORD, FAILED]
        assert len(store) == 2


def test_read_while_written(tmp_path: Path) -> None:
    with TrialStore(tmp_path / "study.db") as store:
        assert read_trials(tmp_path / "study.db") == []
        store.append(RECORD)
        assert read_trials(tmp_path / "study.db") == [RECORD]


def test_settings_on_disk(tmp_path: Path) -> None:
    with TrialStore(tmp_path / "study.db") as store:
        db = store._db
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
        assert db.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)


@pytest.mark.parametrize("number", [0, 2, -1])
def test_numbers_have_no_gaps(tmp_path: Path, number: int) -> None:
    with TrialStore(tmp_path / "study.db") as store:
        store.append(RECORD)
        with pytest.raises(StorageError, match="the next one is 1"):
            store.append(replace(RECORD, number=number))
        assert store.records() == [RECORD]


def test_attempts_are_counted_over_openings(tmp_path: Path) -> None:
    for attempt in (1, 2, 3):
        with TrialStore(tmp_path / "study.db") as store:
            assert store.start(0, RECORD.genome) == attempt
    with TrialStore(tmp_path / "study.db") as store:
        store.abandon(0)
        assert store.started() == {0: 2}
        assert store.start(0, (9, 9, 9)) == 1  # another genome: another trial
        store.append(RECORD)
        assert store.started() == {}


def test_foreign_schema(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    TrialStore(path).close()
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    db.close()
    for opener in (TrialStore, read_trials):
        with pytest.raises(StorageError, match=f"schema {SCHEMA_VERSION + 1}.*reads"):
            opener(path)


def test_somebody_elses_database(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE invoices (id)")
    db.close()
    with pytest.raises(StorageError, match="schema 0"):
        TrialStore(path)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        pytest.param("candidate", "not json", id="no-json"),
        pytest.param("metrics", '{"accuracy": 0.9}', id="changed"),
        pytest.param("state", "done", id="unknown-state"),
        pytest.param("checksum", "", id="no-checksum"),
    ],
)
def test_changed_row(tmp_path: Path, column: str, value: str) -> None:
    path = tmp_path / "study.db"
    with TrialStore(path) as store:
        store.append(RECORD)
        store._db.execute(f"UPDATE trials SET {column} = ?", (value,))  # noqa: S608
        with pytest.raises(StorageError, match="does not match its checksum"):
            store.records()


def test_folder_is_missing(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="is no folder"):
        TrialStore(tmp_path / "nowhere" / "study.db")
    with pytest.raises(StorageError, match="there is no study"):
        read_trials(tmp_path / "study.db")


def test_reading_does_not_write(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    with TrialStore(path) as store:
        store.append(RECORD)
    before = path.read_bytes()
    read_trials(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(math.nan, None, id="nan"),
        pytest.param((1, {2}), [1, [2]], id="tuple-and-set"),
        pytest.param({1: np.float64(0.5)}, {"1": 0.5}, id="numpy-float"),
        pytest.param(np.int64(3), 3, id="numpy-int"),
        pytest.param(np.bool_(True), True, id="numpy-bool"),
        pytest.param(Fidelity.TABLE, "table", id="enum"),
        pytest.param(Path("a"), "a", id="path"),
        pytest.param(np.arange(3), "[0 1 2]", id="array"),
    ],
)
def test_plain(value: Any, expected: Any) -> None:
    assert plain(value) == expected


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
def test_plain_leaves_json_alone(value: Any) -> None:
    assert plain(value) == value


def test_importing_the_store_is_cheap() -> None:
    code = (
        "import sys; from autocompress.search import lock, store; "
        "print([m for m in ('optuna', 'ray', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
