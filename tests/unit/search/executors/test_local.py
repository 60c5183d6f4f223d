"""Executors: results, failures as data, deadlines, death of workers and of the driver."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from autocompress.core.budget import Fidelity
from autocompress.core.candidate import Candidate
from autocompress.core.trial import Evaluation, Evaluator
from autocompress.errors import AutocompressError, RequestError
from autocompress.search.executors import Executor, executor_names, make_executor
from autocompress.search.executors.inline import InlineExecutor
from autocompress.search.executors.local import local_executor
from autocompress.search.executors.processes import ProcessExecutor
from autocompress.testing.problems import AdditiveProblem, FaultyEvaluator, ProblemEvaluator

PROBLEM = AdditiveProblem(5, 3)
CANDIDATES = [PROBLEM.decode(genome) for genome in PROBLEM.enumerate()[:12]]
Make = Callable[..., Executor]


def in_process(evaluator: Evaluator, *, deadline_seconds: float | None = None) -> Executor:
    return local_executor(evaluator, deadline_seconds=deadline_seconds)


def two_workers(evaluator: Evaluator, *, deadline_seconds: float | None = None) -> Executor:
    return local_executor(evaluator, workers=2, deadline_seconds=deadline_seconds)


def isolated(evaluator: Evaluator, *, deadline_seconds: float | None = None) -> Executor:
    return local_executor(evaluator, isolate=True, deadline_seconds=deadline_seconds)


@pytest.fixture(params=[in_process, isolated, two_workers])
def make(request: pytest.FixtureRequest) -> Make:
    function: Make = request.param
    return function


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    yield
    left = [p for p in psutil.Process().children() if p.status() != psutil.STATUS_ZOMBIE]
    assert not left


def results(executor: Executor, candidates: list[Candidate]) -> dict[int, Evaluation]:
    for number, candidate in enumerate(candidates):
        executor.submit(number, candidate, Fidelity.SHORT, 100 + number)
    assert executor.pending == len(candidates)
    found: dict[int, Evaluation] = {}
    while executor.pending:
        for number, evaluation in executor.wait(60):
            assert number not in found
            found[number] = evaluation
    assert executor.wait(0) == []
    return found


def test_every_trial_comes_back(make: Make) -> None:
    with make(PROBLEM.evaluator()) as executor:
        found = results(executor, CANDIDATES)
    assert sorted(found) == list(range(len(CANDIDATES)))
    for number, evaluation in found.items():
        genome = PROBLEM.encode(CANDIDATES[number])
        assert evaluation.metrics == {"accuracy": PROBLEM.metrics([genome])[0]["accuracy"]}
        assert evaluation.details == {"seed": 100 + number, "fidelity": "short"}
        assert evaluation.seconds > 0
        assert evaluation.train_steps == 1


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        pytest.param("raise", "ValueError: no good", id="exception"),
        pytest.param("exit", "SystemExit: 3", id="exit"),
        pytest.param("wrong", "the evaluator returned a float", id="no-evaluation"),
    ],
)
def test_failure_is_data(make: Make, fault: str, reason: str) -> None:
    evaluator = FaultyEvaluator(PROBLEM.evaluator(), {CANDIDATES[1].id: fault})
    with make(evaluator) as executor:
        found = results(executor, CANDIDATES[:3])
    assert [evaluation.ok for _, evaluation in sorted(found.items())] == [True, False, True]
    assert str(found[1].error).startswith(reason)
    if fault == "raise":
        assert "problems.py" in found[1].details["traceback"]


def test_deadline(make: Make) -> None:
    evaluator = FaultyEvaluator(PROBLEM.evaluator(), {CANDIDATES[0].id: "hang"})
    with make(evaluator, deadline_seconds=0.5) as executor:
        found = results(executor, CANDIDATES[:3])
    assert found[0].error == "deadline of 0.5 s passed"
    assert found[1].ok
    assert found[2].ok


def test_killed_worker_is_replaced_and_the_trial_run_again(tmp_path: Path) -> None:
    faults = {CANDIDATES[0].id: "kill-once"}
    evaluator = FaultyEvaluator(PROBLEM.evaluator(), faults, marks=tmp_path)
    with two_workers(evaluator) as executor:
        found = results(executor, CANDIDATES[:4])
    assert all(evaluation.ok for evaluation in found.values())
    assert found[0].details["attempts"] == 2


def test_poison_candidate_is_given_up(tmp_path: Path) -> None:
    log = tmp_path / "log"
    evaluator = FaultyEvaluator(ProblemEvaluator(PROBLEM, log=log), {CANDIDATES[1].id: "kill"})
    with two_workers(evaluator) as executor:
        found = results(executor, CANDIDATES[:4])
    assert "died at each of 3 attempts (SIGKILL" in str(found[1].error)
    assert found[1].details["attempts"] == 3
    assert [found[n].ok for n in (0, 2, 3)] == [True] * 3


def test_worker_killed_from_outside() -> None:
    with two_workers(ProblemEvaluator(PROBLEM, seconds=0.3)) as executor:
        for number in range(3):
            executor.submit(number, CANDIDATES[number], Fidelity.TABLE, 0)
        first = executor.wait(60)
        for child in psutil.Process().children():
            os.kill(child.pid, signal.SIGKILL)
        found = dict(first)
        while executor.pending:
            found |= dict(executor.wait(60))
    assert sorted(found) == [0, 1, 2]
    assert all(evaluation.ok for evaluation in found.values())


def test_cancel_and_go_on(make: Make) -> None:
    evaluator = FaultyEvaluator(PROBLEM.evaluator(), {CANDIDATES[0].id: "hang"})
    with make(evaluator) as executor:
        for number in range(3):
            executor.submit(number, CANDIDATES[number], Fidelity.TABLE, 0)
        executor.cancel()
        assert executor.pending == 0
        assert len(results(executor, CANDIDATES[1:4])) == 3


def test_wait_returns_after_its_timeout() -> None:
    evaluator = FaultyEvaluator(PROBLEM.evaluator(), {}, default="hang")
    with isolated(evaluator) as executor:
        executor.submit(0, CANDIDATES[0], Fidelity.TABLE, 0)
        assert executor.wait(0.05) == []
        assert executor.pending == 1


class _Unloadable:
    def __reduce__(self) -> tuple[object, ...]:
        return (_fail_to_load, ())

    def evaluate(self, candidate: Candidate, *, fidelity: Fidelity, seed: int) -> Evaluation:
        raise NotImplementedError


def _fail_to_load() -> None:
    raise ImportError("no module named weights")


def test_evaluator_that_cannot_be_loaded() -> None:
    with isolated(_Unloadable()) as executor:
        executor.submit(0, CANDIDATES[0], Fidelity.TABLE, 0)
        with pytest.raises(AutocompressError, match="ImportError: no module named weights"):
            executor.wait(60)


class _DiesWhenLoaded(_Unloadable):
    def __reduce__(self) -> tuple[object, ...]:
        return (os._exit, (7,))


class _NeverLoaded(_Unloadable):
    def __reduce__(self) -> tuple[object, ...]:
        return (time.sleep, (3600,))


@pytest.mark.parametrize(
    ("evaluator", "seconds", "words"),
    [
        pytest.param(_DiesWhenLoaded(), 60.0, "exit code 7", id="dies"),
        pytest.param(_NeverLoaded(), 1.0, "did not get ready in time", id="hangs"),
    ],
)
def test_workers_that_never_get_ready(evaluator: Evaluator, seconds: float, words: str) -> None:
    """Nothing waits for ever, and nothing is tried for ever."""
    with ProcessExecutor(evaluator, workers=1, start_seconds=seconds) as executor:
        executor.submit(0, CANDIDATES[0], Fidelity.TABLE, 0)
        with pytest.raises(AutocompressError, match=f"3 worker processes in a row.*{words}"):
            executor.wait(60)


def test_evaluator_that_cannot_be_sent() -> None:
    evaluator = PROBLEM.evaluator()
    evaluator.lock = threading.Lock()  # type: ignore[attr-defined]
    with pytest.raises(RequestError, match="cannot be sent to worker processes"):
        isolated(evaluator)


def test_workers_get_one_thread_and_their_prints_stay_out_of_stdout(
    capfd: pytest.CaptureFixture[str],
) -> None:
    class Printing:
        def evaluate(self, candidate: Candidate, *, fidelity: Fidelity, seed: int) -> Evaluation:
            print("hello from a worker")
            return Evaluation(details={"threads": os.environ["OMP_NUM_THREADS"]})

    with isolated(Printing()) as executor:
        assert results(executor, CANDIDATES[:1])[0].details == {"threads": "1"}
    out, err = capfd.readouterr()
    assert out == ""
    assert "hello from a worker" in err


DRIVER = """
import sys, time
from autocompress.core.budget import Fidelity
from autocompress.search.executors.local import local_executor
from autocompress.testing.problems import AdditiveProblem, FaultyEvaluator
problem = AdditiveProblem(5, 3)
executor = local_executor(FaultyEvaluator(problem.evaluator(), {}, default="hang"), workers=2)
for number in range(2):
    executor.submit(number, problem.decode(problem.original), Fidelity.TABLE, 0)
while not executor.wait(0.2):
    print(*[w.process.pid for w in executor._workers if w.task], flush=True)
"""


def test_workers_end_with_their_driver() -> None:
    """No guard around the main module is needed either: this is a script given by -c."""
    driver = subprocess.Popen([sys.executable, "-c", DRIVER], stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    with driver.stdout:
        pids: list[int] = []
        while len(pids) < 2:
            pids = [int(word) for word in driver.stdout.readline().split()]
        driver.kill()
        driver.wait()
    end = time.monotonic() + 30
    while any(psutil.pid_exists(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.05)
    assert not [pid for pid in pids if psutil.pid_exists(pid)]


def test_alarm_of_others_goes_on() -> None:
    rung: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: rung.append(number))
    timer = signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        with in_process(PROBLEM.evaluator(), deadline_seconds=60) as executor:
            results(executor, CANDIDATES[:2])
        end = time.monotonic() + 30
        while not rung and time.monotonic() < end:
            time.sleep(0.01)
        assert rung == [signal.SIGALRM]
    finally:
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *timer)


def test_outside_the_main_thread_a_deadline_needs_a_process() -> None:
    kinds: list[str] = []

    def look() -> None:
        for deadline in (None, 5.0):
            with in_process(PROBLEM.evaluator(), deadline_seconds=deadline) as executor:
                kinds.append(type(executor).__name__)
        with pytest.raises(RequestError, match="main thread"):
            InlineExecutor(PROBLEM.evaluator(), deadline_seconds=1)

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert kinds == ["InlineExecutor", "ProcessExecutor"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param({"name": "ray"}, "not available in this version", id="ray"),
        pytest.param({"name": "slurm"}, "unknown executor 'slurm'; use one of local", id="name"),
        pytest.param({"name": "local", "workers": 0}, "workers is 0", id="workers"),
        pytest.param({"name": "local", "deadline_seconds": -1.0}, "-1.0 s", id="deadline"),
    ],
)
def test_refused(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        make_executor(evaluator=PROBLEM.evaluator(), **arguments)  # type: ignore[arg-type]


def test_registry() -> None:
    assert executor_names() == ["local"]
    with make_executor("local", PROBLEM.evaluator(), workers=3) as executor:
        assert isinstance(executor, ProcessExecutor)
        assert executor.slots == 3
