"""The file that runs on devices: its timing is the timer's, and nothing finished is done twice."""

from __future__ import annotations

import ast
import errno
import functools
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from autocompress.measurement import timer
from autocompress.measurement.pack import runner_source
from autocompress.measurement.protocol import TimingProtocol
from autocompress.measurement.remote import runner
from tests.unit.measurement.remote.packs import (
    QUICK,
    broken,
    edit_jobs,
    gemm,
    quick_pack,
    relu,
    rows_of,
    run_runner,
    start_runner,
    unpacked,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    quick_pack(tmp_path / "bench.zip", rounds=2)
    return unpacked(tmp_path / "bench.zip", tmp_path / "unpacked")


# -- the file itself ------------------------------------------------------------------------------


def test_python_3_8_can_read_it() -> None:
    ast.parse(runner_source(), feature_version=(3, 8))


def test_it_needs_numpy_and_onnxruntime_only() -> None:
    tree = ast.parse(runner_source())
    names = {
        alias.name if isinstance(node, ast.Import) else str(node.module)
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    others = {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names)
    assert others == {"numpy", "onnxruntime"}


# -- timing: held to timer.py ---------------------------------------------------------------------


def fake_clock() -> Callable[[], int]:
    """A clock that advances by itself, unevenly but always alike."""
    steps = itertools.cycle([700, 1100, 900, 5000, 800, 1300, 950])
    now = itertools.accumulate(steps)
    return lambda: next(now)


def fake_switches() -> Callable[[], int]:
    """Every fifth reading differs from the one before."""
    readings = (number // 5 for number in itertools.count())
    return lambda: next(readings)


@pytest.mark.parametrize(
    "protocol",
    [
        pytest.param(QUICK, id="quick"),
        pytest.param(
            TimingProtocol("sentinel", min_runs=40, min_seconds=1e-4, passes=3), id="sentinel"
        ),
        pytest.param(
            TimingProtocol("long", batch_us=20, min_runs=300, min_seconds=1e-3, passes=4), id="long"
        ),
    ],
)
def test_the_same_readings_give_the_timers_figures(
    protocol: TimingProtocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: dict[str, list[str]] = {"timer": [], "runner": []}

    def calls(whose: str) -> list[Callable[[], object]]:
        return [functools.partial(order[whose].append, name) for name in "abc"]

    monkeypatch.setattr(timer, "switches", fake_switches())
    monkeypatch.setattr(time, "thread_time_ns", fake_clock())
    expected = timer.time_interleaved(calls("timer"), protocol)
    monkeypatch.undo()
    monkeypatch.setattr(runner, "switches", fake_switches())
    found = runner.time_interleaved(calls("runner"), protocol.to_json(), fake_clock())
    assert order["runner"] == order["timer"]
    for one, other in zip(found, expected, strict=True):
        assert one | {"passes_us": tuple(one["passes_us"])} == {
            name: getattr(other, name) for name in timer.Timing.__slots__ if name != "batches_us"
        }


def test_the_figures_of_the_sentinel_are_the_timers() -> None:
    for name in ("_SENTINEL_STEPS", "_SENTINEL_READINGS", "_MOST_ATTEMPTS"):
        assert getattr(runner, name) == getattr(timer, name)


def test_wall_clock_where_the_kernel_does_not_count_by_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert runner.clock_of("thread_cpu", 1)[0] == "thread_cpu"
    assert runner.clock_of("thread_cpu", 2)[0] == "wall"
    assert runner.clock_of("wall", 1)[0] == "wall"
    monkeypatch.setattr(runner, "_RESOURCE", None)
    assert runner.clock_of("thread_cpu", 1)[0] == "wall"
    assert runner.switches() == 0


def test_it_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_RESOURCE", None)
    pack = runner.load_pack(str(folder))
    results = runner.Results(str(folder / "results.jsonl"), pack["id"])
    said: list[str] = []

    def say(text: str) -> bool:
        said.append(text)
        return True

    runner.Bench(str(folder), pack, results, say).begin()
    assert "wall clock" in said[0]
    assert "wall clock" in rows_of(folder / "results.jsonl", "session")[0]["notes"][0]


# -- a run ----------------------------------------------------------------------------------------


def test_by_hand(folder: Path) -> None:
    code, out, err = run_runner(folder)
    assert (code, err) == (0, "")
    assert "6/6 jobs done" in out
    results = folder / "results.jsonl"
    (session,) = rows_of(results, "session")
    assert session["machine"]["cores"] == os.cpu_count()
    jobs = rows_of(results, "job")
    assert [row["key"] for row in jobs] == [
        f"k000{job}/t1/r{turn}" for turn in range(2) for job in range(3)
    ]
    assert [set(row["timings"]) for row in jobs[:3]] == [
        {"empty", "hot"},
        {"empty", "hot", "copies"},
        {"empty", "hot"},
    ]
    for row in jobs:
        assert row["timings"]["hot"]["runs"] >= QUICK.min_runs
        assert len(row["timings"]["hot"]["passes_us"]) == QUICK.passes
    chunks = rows_of(results, "chunk")
    assert [len(chunk["pulse_ns"]) for chunk in chunks] == [2, 2]
    again = run_runner(folder)
    assert again == (0, "6/6 jobs done; nothing is left\n", "")
    assert rows_of(results, "job") == jobs


def test_limited_then_resumed(folder: Path) -> None:
    code, out, _ = run_runner(folder, "--limit-seconds", "0")
    assert code == runner.MORE
    assert "3/6 jobs done" in out
    first = rows_of(folder / "results.jsonl", "job")
    assert run_runner(folder)[0] == 0
    jobs = rows_of(folder / "results.jsonl", "job")
    assert jobs[:3] == first
    assert len({row["key"] for row in jobs}) == len(jobs) == 6


def test_other_threads(folder: Path) -> None:
    assert run_runner(folder, "--threads", "2")[0] == 0
    rows = rows_of(folder / "results.jsonl", "job")
    assert {(row["threads"], row["clock"]) for row in rows} == {(2, "wall")}
    code, _, err = run_runner(folder, "--threads", "two")
    assert code == runner.USAGE
    assert "'two'" in err


def test_a_torn_last_line_is_dropped(folder: Path) -> None:
    run_runner(folder, "--limit-seconds", "0")
    results = folder / "results.jsonl"
    whole = results.read_bytes()
    cut = whole[: whole[:-1].rfind(b"\n") - 20]  # within the row of the last job
    results.write_bytes(cut)
    assert run_runner(folder)[0] == 0
    jobs = rows_of(results, "job")
    assert len({row["key"] for row in jobs}) == len(jobs) == 6


def test_what_the_runtime_refuses_is_a_result(tmp_path: Path) -> None:
    quick_pack(tmp_path / "bench.zip", kernels=[relu(4), broken(), gemm(8)])
    folder = unpacked(tmp_path / "bench.zip", tmp_path / "unpacked")
    code, out, _ = run_runner(folder)
    assert code == 0
    assert "1 could not be run" in out
    rows = rows_of(folder / "results.jsonl", "job")
    assert ["error" in row for row in rows] == [False, True, False]
    assert "NoSuchOperator" in rows[1]["error"]


def test_an_altered_model_is_not_run(folder: Path) -> None:
    model = folder / "models" / "k0001-hot.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"\0")
    assert run_runner(folder)[0] == 0
    rows = rows_of(folder / "results.jsonl", "job")
    assert {row["job"] for row in rows if "error" in row} == {"k0001"}
    assert "SHA-256" in rows[1]["error"]


def test_networks_tell_what_was_executed(tmp_path: Path) -> None:
    pack = quick_pack(tmp_path / "bench.zip", kernels=[], networks=2)
    folder = unpacked(tmp_path / "bench.zip", tmp_path / "unpacked")
    assert run_runner(folder)[0] == 0
    rows = {row["job"]: row for row in rows_of(folder / "results.jsonl", "job")}
    for job, network in pack.networks.items():
        executed = rows[job]["executed"]
        assert sum(executed.values()) == len(network.kernels)
    assert not list(folder.glob("ort-profile*"))


# -- crashes of a model ---------------------------------------------------------------------------


def test_a_crash_costs_one_job(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def ask(request: dict[str, Any], seconds: float) -> dict[str, Any]:
        jobs = request["jobs"]
        asked.append(jobs)
        if "bad" in jobs:
            return {"reason": "the runtime ended with signal 11"}
        return {"clock": "wall", "pulse_ns": [1.0, 1.0], "rows": [{"timings": {}} for _ in jobs]}

    monkeypatch.setattr(runner, "_ask_child", ask)
    answer = runner.run_chunk({"jobs": ["a", "bad", "c"]}, 1.0)
    assert asked == [["a", "bad", "c"], ["a"], ["bad"], ["c"]]
    assert answer["rows"] == [
        {"timings": {}},
        {"error": "the runtime ended with signal 11"},
        {"timings": {}},
    ]


def test_a_child_that_ends_or_hangs_gives_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "child.py"
    monkeypatch.setattr(runner, "__file__", str(script))
    script.write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert "signal 11" in runner._ask_child({"threads": 1}, 60.0)["reason"]
    script.write_text("import sys; sys.exit('no memory')")
    assert runner._ask_child({"threads": 1}, 60.0)["reason"].endswith("code 1: no memory")
    script.write_text("import time; time.sleep(60)")
    assert runner._ask_child({"threads": 1}, 0.2)["reason"] == "no answer within 0 s"


# -- throttling -----------------------------------------------------------------------------------


def answers(*pulses: float) -> Iterator[dict[str, Any]]:
    for pulse in pulses:
        yield {"clock": "thread_cpu", "pulse_ns": [100.0, pulse], "rows": [{"error": "none"}]}


@pytest.mark.parametrize(
    ("pulses", "flags", "pauses"),
    [
        pytest.param([100, 110, 114], [False, False, False], 0, id="steady"),
        pytest.param([100, 150, 101], [False, False], 1, id="calm-after-a-pause"),
        pytest.param([100, 150, 140], [False, True], 1, id="still-slow"),
        pytest.param([100] + [150] * 8, [False, True, True, True, True, True], 3, id="stays-slow"),
    ],
)
def test_a_slow_core_is_waited_for_then_told(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    pulses: list[float],
    flags: list[bool],
    pauses: int,
) -> None:
    given = answers(*pulses)
    slept: list[float] = []
    monkeypatch.setattr(runner, "run_chunk", lambda request, seconds: next(given))
    monkeypatch.setattr(time, "sleep", slept.append)
    edit_jobs(folder, throttling={"tolerance": 0.15, "wait_seconds": 3.0})
    pack = runner.load_pack(str(folder))
    results = runner.Results(str(folder / "results.jsonl"), pack["id"])
    bench = runner.Bench(str(folder), pack, results, lambda text: True)
    task = runner.tasks_of(pack, [1])[0]
    found = []
    for _ in flags:
        rows = bench.measure([task])
        results.append(rows)
        found.append([row["throttled"] for row in rows])
    assert found == [[flag, flag] for flag in flags]
    assert slept == [3.0] * pauses


# -- one at a time --------------------------------------------------------------------------------


def test_a_second_runner_is_refused(folder: Path) -> None:
    with runner.only_one(str(folder), 0.0):
        code, _, err = run_runner(folder)
        assert code == runner.BUSY
        assert "another runner works" in err
        assert f'"pid": {os.getpid()}' in err
    assert run_runner(folder)[0] == 0


def test_it_waits_for_the_lock_if_asked(folder: Path) -> None:
    with runner.only_one(str(folder), 0.0):
        process = start_runner(folder, "--wait-lock", "60")
        with pytest.raises(Exception, match="timed out"):
            process.wait(0.7)
    with process:
        assert process.wait(60) == 0


def no_flock(*_: Any) -> None:
    raise OSError(errno.ENOLCK, "no locks on this file system")


@pytest.mark.parametrize(
    ("holder", "held"),
    [
        pytest.param("self", True, id="alive"),
        pytest.param({"pid": 2**22 + 1, "boot": "", "start": ""}, False, id="gone"),
        pytest.param({"pid": os.getppid(), "boot": "x", "start": "1"}, False, id="reused-pid"),
        pytest.param("nonsense", False, id="damaged"),
        pytest.param({}, False, id="empty"),
    ],
)
def test_without_file_locks_the_process_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, holder: Any, held: bool
) -> None:
    import fcntl

    monkeypatch.setattr(fcntl, "flock", no_flock)
    content = runner._identity(os.getpid()) if holder == "self" else holder
    text = content if isinstance(content, str) else json.dumps(content)
    (tmp_path / runner.LOCK).write_text(text)
    if held:
        with pytest.raises(runner.Stop, match="another runner"), runner.only_one(str(tmp_path), 0):
            pass
    else:
        with runner.only_one(str(tmp_path), 0):
            assert f'"pid": {os.getpid()}' in (tmp_path / runner.LOCK).read_text()


# -- what it refuses ------------------------------------------------------------------------------


def test_results_of_another_pack_or_device(folder: Path) -> None:
    run_runner(folder, "--limit-seconds", "0")
    results = folder / "results.jsonl"
    good = results.read_text()
    for old, new, words in (
        (runner.load_pack(str(folder))["id"], "0" * 64, "of another pack"),
        ('"version": "', '"version": "0.', "holds figures of onnxruntime 0."),
        ('"cpu": "', '"cpu": "Other ', "holds figures of the processor Other "),
    ):
        results.write_text(good.replace(old, new))
        code, _, err = run_runner(folder)
        assert code == runner.MISMATCH
        assert words in err
    results.write_text(good.replace("{", "", 1))
    assert "line 1 is damaged" in run_runner(folder)[2]


def test_a_folder_that_is_no_pack(tmp_path: Path) -> None:
    (tmp_path / "runner.py").write_bytes(runner_source())
    code, _, err = run_runner(tmp_path)
    assert code == runner.USAGE
    assert "unpack the whole bench pack" in err


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    results = runner.Results(str(tmp_path / "results.jsonl"), "pack")
    results.path = "/dev/full"
    with pytest.raises(runner.Stop, match="No space left on device") as stop:
        results.append([{"kind": "session"}])
    assert stop.value.code == runner.STORAGE


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(runner.Stop, match="-m pip install numpy onnxruntime") as stop:
        runner.check_needs()
    assert stop.value.code == runner.NEEDS


def test_when_nobody_listens_it_keeps_the_chunk_and_ends(folder: Path) -> None:
    process = start_runner(folder)
    assert process.stdout is not None
    process.stdout.close()  # as a cut connection leaves it
    with process:
        assert process.wait(60) == runner.MORE
    assert len(rows_of(folder / "results.jsonl", "job")) == 3
