"""Times the models of a bench pack: ``python3 runner.py`` in the unpacked folder.

Needs Python 3.8 or newer, numpy and onnxruntime; nothing of autocompress. Every finished job is a
line of ``results.jsonl``; run it again and it goes on where it stopped. It may be killed at any
moment. Bring ``results.jsonl`` back and run: autocompress devices import-results

The timing is that of ``autocompress/measurement/timer.py``; a test holds the two together.
"""

# Python 3.8 has neither dict[...] outside annotations nor zip(strict=).
# ruff: noqa: B905, UP006, UP017, UP035
from __future__ import annotations

import argparse
import contextlib
import datetime
import errno
import functools
import hashlib
import itertools
import json
import math
import os
import platform
import subprocess
import sys
import threading
import time
from typing import Any, Callable, Dict, Iterator, NamedTuple, NoReturn

SCHEMA = 1
RESULTS, JOBS, LOCK = "results.jsonl", "jobs.json", "runner.lock"
#: How the runner ends; whoever calls it over a wire tells by these what to do next.
DONE, USAGE, NEEDS, MISMATCH, MORE, BUSY, STORAGE, INTERRUPTED = 0, 2, 3, 4, 10, 11, 12, 130

# The same figures as in timer.py.
_SENTINEL_STEPS = 1200
_SENTINEL_READINGS = 50
_MOST_ATTEMPTS = 3
_PULSE_STEPS, _PULSE_READINGS = 20000, 9
#: After so many slow chunks in a row the core is taken as it is.
_MOST_WAITS = 3
_ISA = {
    "avx2": "avx2", "avx512f": "avx512f", "avx512_vnni": "avx512_vnni", "avx_vnni": "avx_vnni",
    "avx512_bf16": "avx512_bf16", "amx_int8": "amx_int8", "asimd": "neon", "asimddp": "dotprod",
    "i8mm": "i8mm", "sve": "sve",
}  # fmt: skip

Call = Callable[[], object]
Clock = Callable[[], int]
Row = Dict[str, Any]


class Stop(Exception):  # noqa: N818 - an event: the program ends with this code and message
    """Ends the program with a code and a message."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


# -- timing ---------------------------------------------------------------------------------------


class Sentinel:
    """A short computation in registers; slow means that the core is not wholly ours."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._readings: list[float] = []
        self.best = math.inf

    def read(self) -> float:
        """Its time now, in nanoseconds."""
        import numpy as np

        start = self._clock()
        sum(range(_SENTINEL_STEPS))
        taken = float(self._clock() - start)
        self._readings.append(taken)
        if len(self._readings) >= _SENTINEL_READINGS:
            self.best = min(self.best, float(np.quantile(self._readings, 0.1)))
            self._readings.clear()
        return taken


class Series:
    """What is known of one call that is being timed."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.runs_per_batch = 1
        self.passes: list[list[float]] = []
        self.runs = 0
        self.dropped = 0


def thread_usage() -> Any | None:
    """The ``resource`` module where it counts by thread, else None."""
    try:
        import resource
    except ImportError:
        return None
    return resource if hasattr(resource, "RUSAGE_THREAD") else None


_RESOURCE = thread_usage()


def switches() -> int:
    """How often the kernel has taken the core from this thread; 0 where it does not say."""
    if _RESOURCE is None:
        return 0
    return int(_RESOURCE.getrusage(_RESOURCE.RUSAGE_THREAD).ru_nivcsw)


def clock_of(wanted: str, threads: int) -> tuple[str, Clock]:
    """The clock that can be used: thread CPU time for one thread where it exists, else wall."""
    own = wanted == "thread_cpu" and threads == 1
    if own and _RESOURCE is not None and hasattr(time, "thread_time_ns"):
        return "thread_cpu", time.thread_time_ns
    return "wall", time.perf_counter_ns


def time_interleaved(calls: list[Call], protocol: Row, clock: Clock) -> list[Row]:
    """Time several calls in turns; one dictionary each, times in microseconds."""
    sentinel = Sentinel(clock)
    for _ in range(_SENTINEL_READINGS):
        sentinel.read()
    series = [Series(call) for call in calls]
    for one in series:
        _warm_up(one, protocol, clock)
    for number in range(protocol["passes"]):
        if number and protocol["cooldown_seconds"]:
            time.sleep(protocol["cooldown_seconds"])
        for one in series:
            _one_pass(one, protocol, clock, sentinel)
    return [_timing(one, protocol) for one in series]


def _warm_up(one: Series, protocol: Row, clock: Clock) -> None:
    for _ in itertools.repeat(None, protocol["warmup"]):
        one.call()
    taken = []
    for _ in range(3):
        start = clock()
        one.call()
        taken.append(clock() - start)
    one.runs_per_batch = max(1, math.ceil(protocol["batch_us"] * 1e3 / max(1, min(taken))))


def _one_pass(one: Series, protocol: Row, clock: Clock, sentinel: Sentinel) -> None:
    runs = math.ceil(protocol["min_runs"] / protocol["passes"])
    nanoseconds = protocol["min_seconds"] / protocol["passes"] * 1e9
    tolerance = protocol["sentinel_tolerance"]
    limit = 1.0 + tolerance if tolerance else math.inf
    good: list[float] = []
    bad: list[float] = []
    spent, call, count = 0.0, one.call, one.runs_per_batch
    for _ in itertools.repeat(None, max(1, math.ceil(runs / count))):
        call()
    while True:
        before = sentinel.read()
        seen = switches()
        start = clock()
        for _ in itertools.repeat(None, count):
            call()
        taken = clock() - start
        calm = switches() == seen
        worst = max(before, sentinel.read())
        spent += taken
        (good if calm and worst <= limit * sentinel.best else bad).append(taken / count / 1e3)
        enough = len(good) * count >= runs and len(good) >= 3 and spent >= nanoseconds
        tired = spent >= _MOST_ATTEMPTS * nanoseconds and (len(good) + len(bad)) * count >= runs
        if enough or (tired and len(good) + len(bad) >= 3 * _MOST_ATTEMPTS):
            break
    one.dropped += len(bad) if good else 0
    one.passes.append(good or bad)
    one.runs += len(one.passes[-1]) * count


def _timing(one: Series, protocol: Row) -> Row:
    import numpy as np

    figures = [float(np.quantile(batch, protocol["quantile"])) for batch in one.passes]
    lows = [float(np.quantile(batch, 0.05)) for batch in one.passes]
    highs = [float(np.quantile(batch, 0.5)) for batch in one.passes]
    value = min(figures)
    return {
        "value_us": value,
        "low_us": min([value, *lows]),
        "high_us": max(value, float(np.median(highs))),
        "runs": one.runs,
        "batches": sum(len(batch) for batch in one.passes),
        "dropped": one.dropped,
        "passes_us": figures,
    }


def pulse(clock: Clock) -> float:
    """Nanoseconds of a fixed computation at its best just now: tells how fast the core runs."""
    best = math.inf
    for _ in range(_PULSE_READINGS):
        start = clock()
        sum(range(_PULSE_STEPS))
        best = min(best, float(clock() - start))
    return best


# -- models ---------------------------------------------------------------------------------------


def import_onnxruntime() -> Any:
    """The ``onnxruntime`` module, with its telemetry switched off first."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    return onnxruntime


def _open(model: bytes, threads: int, optimize: bool, profile: str = "") -> Any:
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimize else level.ORT_DISABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if profile:
        options.enable_profiling = True
        options.profile_file_prefix = profile
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


_DTYPES = {
    "tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16",
    "tensor(uint8)": "uint8", "tensor(int8)": "int8", "tensor(uint16)": "uint16",
    "tensor(int16)": "int16", "tensor(int32)": "int32", "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}  # fmt: skip


def _shape(value: Any, metadata: dict[str, str]) -> tuple[int, ...]:
    """An input's shape; what is free has the size that the file's example has, or 1."""
    example = metadata.get(f"example_shape:{value.name}", "").split(",")
    known = len(example) == len(value.shape) and all(part.isdecimal() for part in example)
    free = [int(part) for part in example] if known else [1] * len(value.shape)
    return tuple(d if isinstance(d, int) else n for d, n in zip(value.shape, free))


def _feeds(session: Any) -> dict[str, Any]:
    import numpy as np

    feeds = {}
    for value in session.get_inputs():
        rng = np.random.default_rng(0)  # equal values for copies of a kernel
        shape = _shape(value, session.get_modelmeta().custom_metadata_map)
        dtype = _DTYPES[value.type]
        if dtype.startswith("float"):
            feeds[value.name] = np.asarray(rng.standard_normal(shape), dtype=dtype)
        elif dtype == "bool":
            feeds[value.name] = np.asarray(rng.integers(0, 2, shape), dtype=bool)
        elif dtype in ("int64", "int32"):  # numbers of rows, which even a small table has
            feeds[value.name] = np.asarray(rng.integers(0, 2, shape), dtype=dtype)
        else:
            feeds[value.name] = np.asarray(rng.integers(0, 100, shape), dtype=dtype)
    return feeds


def bound(session: Any) -> Call:
    """A call that runs a session on inputs and outputs bound once."""
    import numpy as np

    ort = import_onnxruntime()
    feeds = _feeds(session)
    binding = session.io_binding()
    held = []
    for name, array in feeds.items():
        held.append(ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), "cpu"))
        binding.bind_ortvalue_input(name, held[-1])
    for value, array in zip(session.get_outputs(), session.run(None, feeds)):
        held.append(ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), "cpu"))
        binding.bind_ortvalue_output(value.name, held[-1])
    inner, raw = getattr(session, "_sess", None), getattr(binding, "_iobinding", None)
    if inner is not None and raw is not None:  # what the Python wrapper only forwards to
        call = functools.partial(inner.run_with_iobinding, raw, None)
    else:
        call = functools.partial(session.run_with_iobinding, binding)
    call.held = (session, binding, held)  # type: ignore[attr-defined]
    return call


def executed_operators(model: bytes, threads: int, folder: str) -> dict[str, int]:
    """How many kernels of each operator the runtime executes, from one profiled run."""
    session = _open(model, threads, True, os.path.join(folder, "ort-profile"))
    session.run(None, _feeds(session))
    path = session.end_profiling()
    try:
        with open(path, encoding="utf-8") as file:
            events = json.load(file)
    finally:
        os.unlink(path)
    counts: dict[str, int] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            operator = event["args"]["op_name"]
            counts[operator] = counts.get(operator, 0) + 1
    return counts


def _content(folder: str, listed: Row) -> bytes:
    with open(os.path.join(folder, *listed["path"].split("/")), "rb") as file:
        content = file.read()
    if hashlib.sha256(content).hexdigest() != listed["sha256"]:
        raise ValueError(listed["path"] + " is not the file that was packed (SHA-256 differs)")
    return content


# -- a chunk: timed in a process of its own, so that a crash costs one job ------------------------


def time_chunk(request: Row) -> Row:
    """Time the jobs of one chunk in turns with the empty model."""
    folder, threads, optimize = request["folder"], request["threads"], request["optimize"]
    clock_name, clock = clock_of(request["protocol"]["clock"], threads)
    calls = [bound(_open(_content(folder, request["empty"]), threads, False))]
    rows: list[Row] = []
    places: list[tuple[int, str, int]] = []
    for number, job in enumerate(request["jobs"]):
        row: Row = {}
        rows.append(row)
        try:
            loaded = {}
            for name, listed in sorted(job["models"].items()):
                model = _content(folder, listed)
                loaded[name] = bound(_open(model, threads, optimize))
                if optimize and request["inspect"]:
                    row["executed"] = executed_operators(model, threads, folder)
        except Exception as error:  # the runtime's refusal of one model is a result
            row.clear()
            row["error"] = " ".join(str(error).split())[:300] or type(error).__name__
            continue
        for name, call in loaded.items():
            places.append((number, name, len(calls)))
            calls.append(call)
    before = pulse(clock)
    timings = time_interleaved(calls, request["protocol"], clock)
    after = pulse(clock)
    for number, name, at in places:
        rows[number].setdefault("timings", {"empty": timings[0]})[name] = timings[at]
    return {"clock": clock_name, "pulse_ns": [before, after], "rows": rows}


def _end_with_parent() -> None:
    """End when the parent has: it holds the other end of our standard input."""
    with contextlib.suppress(OSError):
        while os.read(0, 1024):
            pass
    os._exit(1)


def child() -> int:
    """What ``--child`` does: a request on standard input, one line of JSON on standard output."""
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = os.read(0, 65536)
        if not byte:
            return 1
        line += byte
    threading.Thread(target=_end_with_parent, daemon=True).start()
    print(json.dumps(time_chunk(json.loads(line.decode("utf-8")))), flush=True)
    return 0


def run_chunk(request: Row, seconds: float) -> Row:
    """Time a chunk in a fresh process; what takes that process down becomes an error row."""
    answer = _ask_child(request, seconds)
    if "reason" not in answer:
        return answer
    jobs = request["jobs"]
    if len(jobs) == 1:
        return {"clock": "", "pulse_ns": [], "rows": [{"error": answer["reason"]}]}
    parts = [run_chunk(dict(request, jobs=[job]), seconds) for job in jobs]  # which one was it?
    good = [part for part in parts if part["pulse_ns"]] or parts
    return {
        "clock": good[0]["clock"],
        "pulse_ns": [p for part in parts for p in part["pulse_ns"]],
        "rows": [part["rows"][0] for part in parts],
    }


def _ask_child(request: Row, seconds: float) -> Row:
    threads = str(request["threads"])
    process = subprocess.Popen(
        [sys.executable, os.path.abspath(__file__), "--child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(os.environ, OMP_NUM_THREADS=threads, ORT_DISABLE_TELEMETRY="1"),
    )
    limit = threading.Timer(seconds, process.kill)
    limit.start()
    noise: list[bytes] = []
    assert process.stdin is not None  # noqa: S101 - for the type checker: PIPE was asked for
    assert process.stdout is not None  # noqa: S101
    assert process.stderr is not None  # noqa: S101
    errors = functools.partial(process.stderr.read)
    reader = threading.Thread(target=lambda: noise.append(errors()), daemon=True)
    reader.start()
    try:
        with contextlib.suppress(OSError):  # it has ended already; its code says why
            process.stdin.write(json.dumps(request).encode("utf-8") + b"\n")
            process.stdin.flush()
        out = process.stdout.read()  # its standard input stays open: it is how it knows of us
        code = process.wait()
        late = not limit.is_alive()
    finally:
        limit.cancel()
        if process.poll() is None:
            process.kill()
        process.wait()
        reader.join(5)
        for stream in (process.stdin, process.stdout, process.stderr):
            with contextlib.suppress(OSError):
                stream.close()
    if code == 0:
        with contextlib.suppress(ValueError):
            answer = json.loads(out.decode("utf-8"))
            if isinstance(answer, dict):
                return answer
    if late:
        return {"reason": f"no answer within {seconds:.0f} s"}
    tail = b"".join(noise).decode("utf-8", "replace").strip().splitlines()[-1:]
    cause = f"signal {-code}" if code < 0 else f"code {code}"
    return {"reason": f"the runtime ended with {cause}: {''.join(tail)}"[:300]}


# -- the machine ----------------------------------------------------------------------------------


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip().strip("\0")
    except OSError:
        return ""


def describe_machine() -> Row:
    """What this machine is, as far as it says."""
    fields: dict[str, str] = {}
    for line in _read("/proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        memory = 0
    cpu = fields.get("model name") or fields.get("CPU part") or platform.processor()
    detail = [fields[key] for key in ("cpu family", "model", "stepping") if key in fields]
    return {
        "board": _read("/proc/device-tree/model") or _read("/sys/class/dmi/id/product_name"),
        "cpu": cpu or platform.machine() or "unknown",
        "architecture": platform.machine(),
        "isa": sorted(short for flag, short in _ISA.items() if flag in flags),
        "cores": os.cpu_count() or 1,
        "mhz": _mhz("cpuinfo_max_freq"),
        "memory_bytes": memory,
        "detail": "-".join(detail),
        "system": platform.system() + " " + platform.release(),
    }


def _mhz(name: str) -> list[float]:
    found = []
    for core in range(os.cpu_count() or 1):
        text = _read(f"/sys/devices/system/cpu/cpu{core}/cpufreq/{name}")
        if text.isdigit():
            found.append(int(text) / 1e3)
    return found


def temperature_c() -> float | None:
    """The hottest thermal zone in degrees Celsius; None where none can be read."""
    found = []
    for zone in range(32):
        text = _read(f"/sys/class/thermal/thermal_zone{zone}/temp")
        if text.lstrip("-").isdigit():
            found.append(int(text) / (1e3 if abs(int(text)) > 1000 else 1.0))
    return max(found) if found else None


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


# -- one at a time --------------------------------------------------------------------------------


def _identity(pid: int) -> Row:
    """What tells a process from a later one with its number."""
    stat = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return {
        "pid": pid,
        "boot": _read("/proc/sys/kernel/random/boot_id"),
        "start": stat[19] if len(stat) > 19 else "",
    }


def _alive(holder: Row) -> bool:
    pid = holder.get("pid")
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        pass
    except OSError:
        return False
    return _identity(pid) == holder


def _take(path: str) -> int | None:
    """The locked file's descriptor, or None where another live runner holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    locked = False
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        locked = True
    except BlockingIOError:
        os.close(descriptor)
        return None
    except (ImportError, OSError):
        pass  # no such locks here: go by the process in the file
    try:
        holder = json.loads(os.read(descriptor, 4096).decode("utf-8", "replace") or "{}")
    except ValueError:
        holder = {}
    if not locked and isinstance(holder, dict) and _alive(holder):
        os.close(descriptor)
        return None
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, json.dumps(_identity(os.getpid())).encode("utf-8"))
    return descriptor


@contextlib.contextmanager
def only_one(folder: str, wait_seconds: float) -> Iterator[None]:
    """Hold the folder's lock; a lock whose process has gone is taken over."""
    path = os.path.join(folder, LOCK)
    until = time.monotonic() + wait_seconds
    while True:
        descriptor = _take(path)
        if descriptor is not None:
            break
        if time.monotonic() >= until:
            holder = _read(path)
            raise Stop(BUSY, f"another runner works in {folder}: {holder}; wait for it")
        time.sleep(0.2)
    try:
        yield
    finally:
        os.ftruncate(descriptor, 0)
        os.close(descriptor)


# -- results --------------------------------------------------------------------------------------


class Results:
    """``results.jsonl``: read on start, then only appended to, on the disk before it counts."""

    def __init__(self, path: str, pack: str) -> None:
        self.path = path
        self.rows = self._read(pack)
        self.finished = {row["key"] for row in self.rows if row.get("kind") == "job"}

    def _read(self, pack: str) -> list[Row]:
        try:
            with open(self.path, "r+b") as file:
                raw = file.read()
                whole = raw.rfind(b"\n") + 1
                if whole < len(raw):  # the last line was being written when the power went
                    file.truncate(whole)
        except FileNotFoundError:
            return []
        rows = []
        for number, line in enumerate(raw[:whole].splitlines(), start=1):
            try:
                row = json.loads(line.decode("utf-8"))
                if row["pack"] != pack:
                    raise Stop(MISMATCH, f"{self.path} is of another pack; move it away")
            except (ValueError, KeyError, TypeError) as error:
                where = f"{self.path}, line {number}"
                message = f"{where} is damaged ({error}); take it out, to measure it again"
                raise Stop(MISMATCH, message) from error
            rows.append(row)
        return rows

    def best_pulse(self, clock: str) -> float:
        """The shortest pulse of all chunks so far that were timed with this clock."""
        pulses = [
            value
            for row in self.rows
            if row.get("kind") == "chunk" and row.get("clock") == clock
            for value in row["pulse_ns"]
        ]
        return min(pulses, default=math.inf)

    def append(self, rows: list[Row]) -> None:
        """Add rows; they are on the disk when this returns."""
        text = "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows)
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                left = text.encode("utf-8")
                while left:
                    left = left[os.write(descriptor, left) :]
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            why = "No space left on device" if full else str(error)
            raise Stop(STORAGE, f"cannot write {self.path}: {why}") from error
        self.rows += rows
        self.finished |= {row["key"] for row in rows if row.get("kind") == "job"}


# -- the work -------------------------------------------------------------------------------------


class Task(NamedTuple):
    """A job at a number of threads in one of the rounds."""

    key: str
    job: Row
    threads: int
    round: int


def tasks_of(pack: Row, threads: list[int]) -> list[Task]:
    """Everything there is to do, in order: all jobs once, then all of them again."""
    return [
        Task(f"{job['id']}/t{count}/r{turn}", job, count, turn)
        for turn in range(pack["rounds"])
        for count in threads
        for job in pack["jobs"]
    ]


def chunks_of(tasks: list[Task], size: int) -> Iterator[list[Task]]:
    """Neighbours of one kind, timed in turns."""
    alike = itertools.groupby(tasks, key=lambda t: (t.round, t.threads, t.job["kind"]))
    for _, group in alike:
        rest = list(group)
        for start in range(0, len(rest), size):
            yield rest[start : start + size]


class Bench:
    """One session of a pack's runner."""

    def __init__(self, folder: str, pack: Row, results: Results, say: Callable[[str], bool]):
        self.folder, self.pack, self.results, self.say = folder, pack, results, say
        self.waits = 0
        self.chunk = max((row.get("chunk", 0) for row in results.rows), default=0)

    def begin(self) -> None:
        """Note who measures; refuse to mix two machines or runtimes in one file."""
        import numpy as np

        ort = import_onnxruntime()
        machine = describe_machine()
        runtime = {"name": "onnxruntime", "version": str(ort.__version__)}
        for row in self.results.rows:
            if row.get("kind") != "session":
                continue
            for what, before, now in (
                ("onnxruntime", row["runtime"]["version"], runtime["version"]),
                ("the processor", row["machine"]["cpu"], machine["cpu"]),
            ):
                if before != now:
                    held = f"{self.results.path} holds figures of {what} {before}"
                    raise Stop(MISMATCH, f"{held}, and now it is {now}; move the file away")
        notes = []
        if _RESOURCE is None:
            notes.append(
                "no RUSAGE_THREAD here: wall clock instead of thread CPU time, and batches that "
                "were interrupted cannot be told from others"
            )
        session = {
            "kind": "session",
            "schema_version": SCHEMA,
            "pack": self.pack["id"],
            "machine": machine,
            "runtime": runtime,
            "python": platform.python_version(),
            "numpy": str(np.__version__),
            "notes": notes,
            "pid": os.getpid(),
            "at": _now(),
        }
        self.results.append([session])
        for note in notes:
            self.say("note: " + note)

    def _request(self, tasks: list[Task]) -> Row:
        kind = tasks[0].job["kind"]
        return {
            "folder": self.folder,
            "threads": tasks[0].threads,
            "optimize": kind == "network",
            "inspect": tasks[0].round == 0,
            "protocol": self.pack["protocols"][kind],
            "empty": self.pack["empty"],
            "jobs": [{"models": task.job["models"]} for task in tasks],
        }

    def measure(self, tasks: list[Task]) -> list[Row]:
        """Time one chunk; once more after a pause when the core was slow."""
        request = self._request(tasks)
        models = 1 + sum(len(task.job["models"]) for task in tasks)
        seconds = 60.0 + models * (5.0 + 40.0 * request["protocol"]["min_seconds"])
        limit = 1.0 + self.pack["throttling"]["tolerance"]
        pause = self.pack["throttling"]["wait_seconds"]
        began = time.monotonic()
        answer = run_chunk(request, seconds)
        slowdown = self._slowdown(answer)
        if slowdown > limit and pause > 0 and self.waits < _MOST_WAITS:
            self.say(f"the core runs {slowdown - 1:.0%} slower than its best: waiting")
            self.waits += 1
            time.sleep(pause)
            answer = run_chunk(request, seconds)
            slowdown = self._slowdown(answer)
        if slowdown <= limit:
            self.waits = 0
        self.chunk += 1
        common = {"pack": self.pack["id"], "chunk": self.chunk, "clock": answer["clock"]}
        rows: list[Row] = [
            dict(
                common,
                kind="job",
                key=task.key,
                job=task.job["id"],
                threads=task.threads,
                round=task.round,
                slowdown=slowdown,
                throttled=slowdown > limit,
                at=_now(),
                **found,
            )
            for task, found in zip(tasks, answer["rows"])
        ]
        chunk = dict(
            common,
            kind="chunk",
            pulse_ns=answer["pulse_ns"],
            slowdown=slowdown,
            throttled=slowdown > limit,
            temperature_c=temperature_c(),
            mhz=_mhz("scaling_cur_freq"),
            seconds=time.monotonic() - began,
        )
        return [*rows, chunk]

    def _slowdown(self, answer: Row) -> float:
        """How much slower than ever the core was around a chunk, as a factor of at least 1."""
        pulses = answer["pulse_ns"]
        if not pulses:
            return 1.0
        best = min(self.results.best_pulse(answer["clock"]), min(pulses))
        return float(max(pulses) / best)

    def run(self, threads: list[int], limit_seconds: float) -> int:
        """Do what is missing until everything is done or the time is over."""
        wanted = tasks_of(self.pack, threads)
        left = [task for task in wanted if task.key not in self.results.finished]
        if not left:
            self.say(f"{len(wanted)}/{len(wanted)} jobs done; nothing is left")
            return DONE
        self.begin()
        began, done = time.monotonic(), 0
        for tasks in chunks_of(left, self.pack["group"]):
            rows = self.measure(tasks)
            self.results.append(rows)
            done += len(tasks)
            spent = time.monotonic() - began
            rest = spent / done * (len(left) - done)
            wrong = sum("error" in row for row in rows)
            slow = ", THROTTLED: slower than its best" if rows[-1]["throttled"] else ""
            refused = f", {wrong} could not be run" if wrong else ""
            so_far = f"{len(wanted) - len(left) + done}/{len(wanted)} jobs done"
            heard = self.say(f"{so_far}, about {rest:.0f} s left{slow}{refused}")
            if done < len(left) and (not heard or spent >= limit_seconds):
                return MORE
        return DONE


def speaker(quiet: bool) -> Callable[[str], bool]:
    """Prints progress; False once nobody listens, so that a cut connection ends the session."""

    def say(text: str) -> bool:
        if quiet:
            return True
        try:
            print(text, flush=True)
        except OSError:
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            return False
        return True

    return say


def load_pack(folder: str) -> Row:
    """What ``jobs.json`` asks for."""
    path = os.path.join(folder, JOBS)
    try:
        with open(path, encoding="utf-8") as file:
            pack = json.load(file)
        if pack["schema_version"] != SCHEMA:
            raise Stop(
                USAGE,
                f"{path} has schema_version {pack['schema_version']}, and this runner reads "
                f"{SCHEMA}; use the runner.py of that pack",
            )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Stop(
            USAGE,
            f"{path} cannot be read ({error}); unpack the whole bench pack and run runner.py there",
        ) from error
    return dict(pack)


def check_needs() -> None:
    """Refuse early, and say what to install."""
    if sys.version_info < (3, 8):  # noqa: UP036 - it runs on whatever the board has
        raise Stop(NEEDS, f"Python {platform.python_version()} is too old; 3.8 is needed")
    for name in ("numpy", "onnxruntime"):
        try:
            __import__(name)
        except ImportError as error:
            install = f"{sys.executable} -m pip install numpy onnxruntime"
            raise Stop(NEEDS, f"the package {name} is missing ({error}); run: {install}") from error


def _threads(text: str | None, pack: Row) -> list[int]:
    if text is None:
        return list(pack["threads"])
    parts = text.split(",")
    if not all(part.isdecimal() and 0 < int(part) <= 1024 for part in parts):
        raise Stop(USAGE, f"--threads is {text!r}; write numbers by commas, such as 1,2")
    return [int(part) for part in parts]


def main(arguments: list[str] | None = None) -> int:
    """Measure what is missing; the exit code says whether anything is left."""
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(description="Time the models of a bench pack.")
    parser.add_argument("--folder", default=here, help="the unpacked pack")
    parser.add_argument("--results", help=f"default: {RESULTS} in the folder")
    parser.add_argument("--threads", help="such as 1,2; default: what the pack says")
    limit = f"begin nothing after so long; exit code {MORE}: more is left"
    parser.add_argument("--limit-seconds", type=float, default=math.inf, help=limit)
    wait = "seconds to wait for another runner in the same folder"
    parser.add_argument("--wait-lock", type=float, default=0.0, help=wait)
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.child:
        return child()
    try:
        check_needs()
        folder = os.path.abspath(given.folder)
        pack = load_pack(folder)
        threads = _threads(given.threads, pack)
        with only_one(folder, given.wait_lock):
            results = Results(given.results or os.path.join(folder, RESULTS), pack["id"])
            bench = Bench(folder, pack, results, speaker(given.quiet))
            return bench.run(threads, given.limit_seconds)
    except Stop as stop:
        print(f"error: {stop}", file=sys.stderr)
        return stop.code
    except KeyboardInterrupt:
        print("interrupted; what is finished is kept. Run it again to go on.", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return STORAGE


def _end() -> NoReturn:
    code = main()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    sys.exit(code)


if __name__ == "__main__":
    _end()
