"""``results.jsonl`` of a bench pack's runner, read back: strictly, and forgiving one torn line."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autocompress.errors import ProfileError, RequestError
from autocompress.hardware.machine import Machine
from autocompress.measurement.pack import BenchPack
from autocompress.measurement.timer import Timing

SCHEMA = 1
_TEXT_LIMIT = 200
#: What reading a line that no runner wrote may end in.
_DAMAGE = (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, RecursionError)


@dataclass(frozen=True, slots=True)
class JobResult:
    """One job at a number of threads, in one round.

    Attributes:
        job: the job's id in the pack.
        threads: the runtime's threads.
        round: which turn, from 0.
        clock: "thread_cpu" or "wall"; empty where nothing could be timed.
        throttled: whether the core was slower than its best beyond the pack's tolerance.
        date: ISO date.
        timings: by model ("empty", "hot", "copies" or "model"); empty where it failed.
        executed: kernels by operator as the runtime executed them, where it was asked.
        error: why it failed, or empty.
    """

    job: str
    threads: int
    round: int
    clock: str
    throttled: bool
    date: str
    timings: Mapping[str, Timing]
    executed: Mapping[str, int] | None
    error: str

    @property
    def key(self) -> str:
        """What tells it from all others of its pack."""
        return f"{self.job}/t{self.threads}/r{self.round}"


@dataclass(frozen=True, slots=True)
class BenchResults:
    """All that came back.

    Attributes:
        machine: the device as it describes itself.
        board: the board's name; empty where it has none.
        mhz: highest clock rate of each core, where it can be read.
        runtime_version: of ONNX Runtime.
        system: kernel and Python, for the record.
        sessions: how often the runner was started with something to do.
        notes: what the runner had to say about its measuring.
        jobs: finished jobs by key; of a job that is there twice, the first.
    """

    machine: Machine
    board: str
    mhz: tuple[float, ...]
    runtime_version: str
    system: str
    sessions: int
    notes: tuple[str, ...]
    jobs: Mapping[str, JobResult]


def finished_keys(path: Path) -> set[str]:
    """Keys of the jobs that a results file holds; empty when there is none."""
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except OSError:
        return set()
    found = set()
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue  # read_results says what is wrong with it
        if isinstance(row, dict) and row.get("kind") == "job":
            found.add(str(row.get("key")))
    return found


def read_results(path: Path, pack: BenchPack) -> BenchResults:
    """Read a results file; a last line without its end is dropped.

    Raises:
        RequestError: there is no such file, or it is of another pack.
        ProfileError: a line is damaged or says what no runner writes; the message names it.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error}; give the runner's results") from error
    sessions: list[dict[str, Any]] = []
    jobs: dict[str, JobResult] = {}
    known = {*pack.kernels, *pack.networks}
    for number, line in enumerate(raw.split(b"\n")[:-1], start=1):
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
            if row["pack"] != pack.id:
                raise RequestError(
                    f"{where} is of another bench pack ({str(row['pack'])[:12]} instead of "
                    f"{pack.id[:12]}); give the pack that was measured"
                )
            if row["kind"] == "session":
                sessions.append(_session(row))
            elif row["kind"] == "job":
                result = _job(row)
                if result.job not in known:
                    raise ValueError(f"the pack has no job {result.job!r}")
                needed = {"empty", "hot" if result.job in pack.kernels else "model"}
                if result.timings and not needed <= set(result.timings):
                    raise ValueError(f"timings are {sorted(result.timings)}")
                jobs.setdefault(result.key, result)
            elif row["kind"] != "chunk":
                raise ValueError(f"kind is {row['kind']!r}")
        except _DAMAGE as error:
            if isinstance(error, RequestError):
                raise
            raise ProfileError(
                f"{where} is damaged ({type(error).__name__}: {error}); take the line out, or "
                "measure again"
            ) from error
    if not sessions:
        raise ProfileError(f"{path} holds no session; run the pack's runner.py on the device")
    first = sessions[0]
    for other in sessions[1:]:
        for what in ("machine", "runtime_version"):
            if other[what] != first[what]:
                raise ProfileError(
                    f"{path} mixes two devices or runtimes ({first[what]} and {other[what]}); "
                    "measure each into a file of its own"
                )
    notes = dict.fromkeys(note for session in sessions for note in session["notes"])
    return BenchResults(
        machine=first["machine"],
        board=first["board"],
        mhz=first["mhz"],
        runtime_version=first["runtime_version"],
        system=first["system"],
        sessions=len(sessions),
        notes=tuple(notes),
        jobs=jobs,
    )


def _session(row: Mapping[str, Any]) -> dict[str, Any]:
    if row["schema_version"] != SCHEMA:
        raise ValueError(f"schema_version is {row['schema_version']!r}, not {SCHEMA}")
    machine = row["machine"]
    return {
        "machine": Machine(
            cpu=_text(machine["cpu"]),
            architecture=_text(machine["architecture"]),
            isa=tuple(sorted(_text(name) for name in machine["isa"])),
            cores=_count(machine["cores"], least=1),
            memory_bytes=_count(machine["memory_bytes"]),
            detail=_text(machine["detail"]),
        ),
        "board": _text(machine["board"]),
        "mhz": tuple(_number(value) for value in machine["mhz"]),
        "runtime_version": _text(row["runtime"]["version"]),
        "system": f"{_text(machine['system'])}, Python {_text(row['python'])}",
        "notes": [_text(note) for note in row["notes"]],
    }


def _job(row: Mapping[str, Any]) -> JobResult:
    timings = {str(name): _timing(value) for name, value in row.get("timings", {}).items()}
    error = _text(row.get("error", ""))
    if bool(timings) == bool(error):
        raise ValueError("a job has either timings or an error")
    clock = row["clock"]
    if timings and clock not in ("thread_cpu", "wall"):
        raise ValueError(f"clock is {clock!r}")
    executed = row.get("executed")
    result = JobResult(
        job=str(row["job"]),
        threads=_count(row["threads"], least=1),
        round=_count(row["round"]),
        clock=str(clock),
        throttled=row["throttled"] is True,
        date=_text(row["at"])[:10],
        timings=timings,
        executed=None
        if executed is None
        else {str(name): _count(number) for name, number in executed.items()},
        error=error,
    )
    if result.key != row["key"]:
        raise ValueError(f"key is {row['key']!r}, not {result.key!r}")
    return result


def _timing(value: Mapping[str, Any]) -> Timing:
    return Timing(
        value_us=_number(value["value_us"]),
        low_us=_number(value["low_us"]),
        high_us=_number(value["high_us"]),
        runs=_count(value["runs"], least=1),
        batches=_count(value["batches"], least=1),
        dropped=_count(value["dropped"]),
        passes_us=tuple(_number(one) for one in value["passes_us"]),
    )


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{value!r} is no number")
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{value!r} must be finite and not negative")
    return float(value)


def _count(value: Any, *, least: int = 0) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{value!r} must be a whole number of at least {least}")
    return value


def _text(value: Any) -> str:
    """A short text without control characters: it comes from a device."""
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return "".join(c if c.isprintable() else " " for c in value)[:_TEXT_LIMIT]
