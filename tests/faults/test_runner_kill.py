"""kill -9 of a bench pack's runner at random moments: no finished job is lost or done twice."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path
from typing import Any

from tests.unit.measurement.remote.packs import (
    edit_jobs,
    gemm,
    quick_pack,
    relu,
    rows_of,
    run_runner,
    start_runner,
    unpacked,
)

KILLS = 10


def whole_rows(results: Path) -> list[dict[str, Any]]:
    """The rows that were whole on the disk when the runner was killed."""
    if not results.exists():
        return []
    text = results.read_text()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def test_killed_again_and_again(tmp_path: Path) -> None:
    kernels = [relu(4 * n) for n in range(1, 11)] + [gemm(128)]
    pack = quick_pack(tmp_path / "bench.zip", kernels=kernels, rounds=2)
    folder = unpacked(tmp_path / "bench.zip", tmp_path / "unpacked")
    edit_jobs(folder, group=2)  # twelve chunks: more moments to be killed at
    results = folder / "results.jsonl"
    moments = random.Random(4)
    kills = 0
    before: list[dict[str, Any]] = []
    while kills < KILLS:
        process = start_runner(folder, "--wait-lock", "60")
        assert process.stdout is not None
        with process:
            if kills % 2:  # after a chunk, or anywhere from the start on
                process.stdout.readline()
            time.sleep(moments.uniform(0, 0.9))
            ended = process.poll() is not None
            process.send_signal(signal.SIGKILL)
        kills += 1
        rows = whole_rows(results)
        assert rows[: len(before)] == before
        before = rows
        if ended:  # all was done before the moment came; begin anew
            assert process.returncode == 0
            assert sorted(r["key"] for r in rows_of(results, "job")) == sorted(pack.keys)
            results.unlink()
            before = []
    assert run_runner(folder)[0] == 0
    keys = [row["key"] for row in rows_of(results, "job")]
    assert sorted(keys) == sorted(pack.keys)  # each one, and none twice
