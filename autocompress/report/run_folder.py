"""A typed reader of run folders; it never writes and tolerates what an interrupted run lacks."""

from __future__ import annotations

import json
import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd

from autocompress.core.local_device import LocalDevice
from autocompress.errors import StorageError
from autocompress.report.trials import read_trials

Row: TypeAlias = dict[str, Any]

TEXT_COLUMNS = ("id", "kind", "name", "changes", "not_proven")
NUMBER_COLUMNS = (
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "val_accuracy",
    "accuracy_drop",
    "latency_ms",
    "latency_low_ms",
    "latency_high_ms",
    "latency_estimate_ms",
    "latency_estimate_low_ms",
    "latency_estimate_high_ms",
    "size_bytes",
    "size_estimate_bytes",
    "packed_bytes",
    "macs",
    "parameters",
    "peak_memory_bytes",
    "energy_mj",
    "speedup",
    "size_ratio",
    "agreement",
)


_MODEL_AGAIN = " --model FILE.py:FUNCTION"


@dataclass(frozen=True)
class RunView:
    """Everything a run folder says.

    Attributes:
        directory: the folder.
        run: ``run.toml``.
        plan: ``plan.json``.
        graph: ``graph.json``.
        decisions: ``decisions.jsonl``, in order.
        trials: a row per finished trial, metrics as columns (see :mod:`.trials`).
        pareto: a row per verified model; the columns of :data:`TEXT_COLUMNS` and
            :data:`NUMBER_COLUMNS` are always there, NaN where the file has nothing.
        baselines: the same columns, fp32 first.
        manifests: ``models/<id>/manifest.json`` by id.
        rejected: ``rejected/<id>/manifest.json`` by id.
        profile: ``device/profile.toml``.
        trust: ``trust.json``; empty where accuracies were not compared.
        missing: names of the files that are not there.
    """

    directory: Path
    run: Mapping[str, Any]
    plan: Mapping[str, Any]
    graph: Mapping[str, Any]
    decisions: tuple[Row, ...]
    trials: pd.DataFrame
    pareto: pd.DataFrame
    baselines: pd.DataFrame
    manifests: Mapping[str, Row]
    rejected: Mapping[str, Row]
    profile: Mapping[str, Any]
    trust: Mapping[str, Any] = field(default_factory=dict)
    missing: tuple[str, ...] = ()

    def section(self, name: str) -> Mapping[str, Any]:
        """A table of ``run.toml``, empty when it is not there."""
        value = self.run.get(name)
        return value if isinstance(value, Mapping) else {}

    @property
    def status(self) -> str:
        """``running``, ``complete``, ``interrupted``, ``failed`` or ``unknown``."""
        return str(self.section("run").get("status", "unknown"))

    @property
    def device(self) -> str:
        """The device's name as the request gave it."""
        return str(self.section("request").get("device") or "the device")

    @property
    def place(self) -> str:
        """The device in words: a local one by its CPU's name."""
        local = LocalDevice.parse(self.device)
        if local is None:
            return self.device
        cpu = str(self.section("machine").get("cpu") or "this machine")
        return f"{cpu} ({local.words})" if local.words else cpu

    @property
    def model(self) -> str:
        """The model's or space's name as the request gave it."""
        return str(self.section("request").get("model") or "model")

    @property
    def resume_command(self) -> str:
        """The command that goes on with the run; a run of one's own model needs it again."""
        again = "" if self.section("request").get("kind", "space") == "space" else _MODEL_AGAIN
        return f"autocompress resume {shlex.quote(str(self.directory))}{again}"

    @property
    def models(self) -> pd.DataFrame:
        """Baselines first, then the verified models, the smallest loss of accuracy first."""
        return pd.concat([self.baselines, self.pareto], ignore_index=True)


def read_run(directory: str | Path) -> RunView:
    """Read a run folder.

    Raises:
        StorageError: the folder does not exist, is no run folder, or holds a corrupt file.
    """
    folder = Path(directory)
    if not folder.is_dir():
        raise StorageError(f"{folder} is not a folder; give the run folder that search printed")
    if not (folder / "run.toml").is_file():
        raise StorageError(
            f"{folder} is not a run folder: it has no run.toml; give the folder that search printed"
        )
    rows = _table(folder / "pareto.csv")
    is_baseline = rows["kind"] == "baseline"
    parts = ("plan.json", "graph.json", "decisions.jsonl", "study.db", "baseline.json")
    names = (*parts, "pareto.csv", "device/profile.toml")
    return RunView(
        directory=folder,
        run=_toml(folder / "run.toml"),
        plan=_object(folder / "plan.json"),
        graph=_object(folder / "graph.json"),
        decisions=_lines(folder / "decisions.jsonl"),
        trials=read_trials(folder / "study.db"),
        pareto=rows[~is_baseline]
        .sort_values("accuracy_drop", kind="stable")
        .reset_index(drop=True),
        baselines=_baselines(folder / "baseline.json", rows[is_baseline]),
        manifests=_manifests(folder / "models"),
        rejected=_manifests(folder / "rejected"),
        profile=_toml(folder / "device" / "profile.toml"),
        trust=_object(folder / "trust.json"),
        missing=tuple(name for name in names if not (folder / name).is_file()),
    )


def rows_of(value: Mapping[str, Any], key: str) -> list[Row]:
    """The objects listed under ``key``; whatever else is there is left out."""
    listed = value.get(key)
    return [row for row in listed if isinstance(row, dict)] if isinstance(listed, list) else []


def _corrupt(path: Path, why: object) -> StorageError:
    return StorageError(
        f"{path} is corrupt ({why}); restore it from a copy, or delete it to go on without it"
    )


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise _corrupt(path, error) from error
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror or error}") from error


def _toml(path: Path) -> dict[str, Any]:
    text = _text(path)
    try:
        return tomllib.loads(text) if text is not None else {}
    except tomllib.TOMLDecodeError as error:
        raise _corrupt(path, error) from error


def _json(path: Path, kind: type) -> Any:
    text = _text(path)
    if text is None:
        return kind()
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise _corrupt(path, error) from error
    if not isinstance(value, kind):
        raise _corrupt(path, f"it holds a {type(value).__name__}, not a {kind.__name__}")
    return value


def _object(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = _json(path, dict)
    return value


def _lines(path: Path) -> tuple[Row, ...]:
    """JSON lines; a torn last line (the run was killed while writing it) is left out."""
    text = _text(path) or ""
    rows: list[Row] = []
    lines = text.split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise _corrupt(path, f"line {number}: {error}") from error
        if isinstance(row, dict):
            rows.append(row)
    return tuple(rows)


def _table(path: Path) -> pd.DataFrame:
    if not path.is_file():
        return _typed(pd.DataFrame(), path)
    try:  # everything as text first: an id such as "123456789012" is no number
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
    except pd.errors.EmptyDataError as error:
        raise _corrupt(path, error) from error
    except (pd.errors.ParserError, UnicodeDecodeError) as error:
        raise _corrupt(path, error) from error
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror or error}") from error
    if "id" not in frame.columns:
        raise _corrupt(path, "it has no column 'id'")
    return _typed(frame, path)


def _typed(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    columns: dict[str, Any] = {}
    for name in TEXT_COLUMNS:
        values = frame[name].tolist() if name in frame.columns else [""] * len(frame)
        columns[name] = pd.Series(["" if v is None else str(v) for v in values], dtype=object)
    for name in NUMBER_COLUMNS:
        values = frame[name].tolist() if name in frame.columns else [None] * len(frame)
        columns[name] = pd.Series([_number(v, name, path) for v in values], dtype=float)
    return pd.DataFrame(columns)


def _number(value: Any, column: str, path: Path) -> float:
    if value is None or value == "":
        return float("nan")
    try:
        return float(value)
    except (TypeError, ValueError):
        raise _corrupt(path, f"column {column!r} holds {value!r}, not a number") from None


def _baselines(path: Path, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of baseline.json, overruled by the later figures of pareto.csv, fp32 first."""
    listed = [row for row in _json(path, list) if isinstance(row, dict)]
    early = _typed(pd.DataFrame(listed), path)
    early["kind"] = "baseline"
    early = early[~early["id"].isin(rows["id"])]
    both = pd.concat([rows, early], ignore_index=True)
    order = both["id"].map(lambda name: (name != "baseline-fp32", name))
    return both.iloc[order.argsort().to_list()].reset_index(drop=True)


def _manifests(folder: Path) -> dict[str, Row]:
    if not folder.is_dir():
        return {}
    found: dict[str, Row] = {}
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and not entry.is_symlink() and (entry / "manifest.json").is_file():
            found[entry.name] = _object(entry / "manifest.json")
    return found
