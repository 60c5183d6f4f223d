"""kill -9 of a real driver: no finished trial is lost, and resuming equals not being killed."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autocompress.core.trial import TrialRecord
from autocompress.search.store import TrialStore, read_trials

TRIALS = 40

DRIVER = """
import sys
from pathlib import Path
from autocompress.core.budget import Fidelity
from autocompress.core.objective import parse_constraints, parse_objectives
from autocompress.search.executors.local import local_executor
from autocompress.search.lock import RunLock
from autocompress.search.store import TrialStore
from autocompress.search.study import Study
from autocompress.testing.problems import AdditiveProblem, ProblemEvaluator

folder, strategy, workers, trials = sys.argv[1:]
problem = AdditiveProblem(10, 4, seed=3)
evaluator = ProblemEvaluator(problem, seconds=0.01)
with (
    RunLock(folder),
    TrialStore(Path(folder) / "study.db") as store,
    local_executor(evaluator, workers=int(workers)) as executor,
):
    study = Study(
        problem,
        objectives=parse_objectives(["accuracy", "latency_ms"]),
        constraints=parse_constraints({"latency_ms": 1.2, "accuracy_drop": 0.2}),
        price=problem.price,
        executor=executor,
        store=store,
        strategy=strategy,
        seed=7,
        reference={"accuracy": 0.95},
    )
    study.run(
        Fidelity.INHERITED,
        max_trials=int(trials),
        seeds=[problem.original],
        on_trial=lambda record: print(record.number, flush=True),
    )
"""


def drive(folder: Path, strategy: str, workers: int) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    arguments = [str(folder), strategy, str(workers), str(TRIALS)]
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, *arguments],
        stdout=subprocess.PIPE,
        text=True,
    )


def finish(folder: Path, strategy: str, workers: int) -> list[TrialRecord]:
    with drive(folder, strategy, workers) as driver:
        driver.communicate(timeout=120)
    assert driver.returncode == 0
    return read_trials(folder / "study.db")


def kill_after(folder: Path, strategy: str, workers: int, lines: int, seconds: float) -> list[int]:
    """Start a driver and kill it a moment after its n-th trial; the trials it acknowledged."""
    with drive(folder, strategy, workers) as driver:
        assert driver.stdout is not None
        heard = [driver.stdout.readline() for _ in range(lines)]
        time.sleep(seconds)
        driver.send_signal(signal.SIGKILL)
        heard += driver.stdout.read().splitlines(keepends=True)
    return [int(line) for line in heard if line.endswith("\n")]


def content(trials: list[TrialRecord]) -> list[tuple[object, ...]]:
    return [(t.number, t.genome, t.metrics, t.state, t.seed, t.origin) for t in trials]


@pytest.mark.parametrize(
    ("strategy", "workers", "kills"),
    [
        pytest.param("nsga2", 1, 10, id="nsga2-1"),
        pytest.param("tpe", 1, 4, id="tpe-1"),
        pytest.param("nsga2", 2, 6, id="nsga2-2"),
    ],
)
def test_killed_drivers(tmp_path: Path, strategy: str, workers: int, kills: int) -> None:
    undisturbed = finish(tmp_path / "undisturbed", strategy, workers)
    assert len(undisturbed) == TRIALS
    moments = random.Random(workers)
    for kill in range(kills):
        folder = tmp_path / f"killed-{kill}"
        lines, seconds = moments.randrange(TRIALS - 2), moments.uniform(0, 0.015)
        acknowledged = kill_after(folder, strategy, workers, lines, seconds)
        assert len(acknowledged) >= lines
        if (folder / "study.db").exists():
            with TrialStore(folder / "study.db") as store:
                stored = store.records()
            assert [t.number for t in stored[: len(acknowledged)]] == acknowledged
            assert content(stored) == content(undisturbed[: len(stored)])
        resumed = finish(folder, strategy, workers)
        assert content(resumed) == content(undisturbed)


def test_killed_again_and_again(tmp_path: Path) -> None:
    """One run folder, many kills: the search still gets to the same end."""
    undisturbed = finish(tmp_path / "undisturbed", "nsga2", 1)
    folder = tmp_path / "killed"
    moments = random.Random(0)
    for _ in range(6):
        acknowledged = kill_after(folder, "nsga2", 1, 5, moments.uniform(0, 0.015))
        assert {t.number for t in read_trials(folder / "study.db")} >= set(acknowledged)
    assert content(finish(folder, "nsga2", 1)) == content(undisturbed)
