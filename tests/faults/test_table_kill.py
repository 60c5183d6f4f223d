"""A table that is being measured is killed at random moments: no row is lost, none is torn."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from autocompress.hardware import load_profile
from autocompress.hardware.local import is_tentative
from autocompress.hardware.table import LatencyTable

KILLS = 10
ROWS = 64
MEASURE = """
import sys
from autocompress.hardware.local import LocalTable
from autocompress.measurement.kernels import KernelSignature
from autocompress.runtimes.registry import load_runtime
table = LocalTable(load_runtime())
print("ready", flush=True)
table.measure([KernelSignature.parse(line) for line in sys.stdin.read().splitlines()])
"""


def _start(keys: list[str], cache: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", MEASURE],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "AUTOCOMPRESS_CACHE": str(cache)},
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write("\n".join(keys))
    process.stdin.close()
    return process


def _rows(cache: Path) -> dict[str, float | None]:
    """What is known of each kernel; None where it is still to be confirmed."""
    found = list(cache.rglob("latency.csv"))
    if not found:
        return {}
    rows = LatencyTable.load(found[0])
    return {row.kernel.key: None if is_tentative(row) else row.hot_us for row in rows}


def _check(before: dict[str, float | None], after: dict[str, float | None]) -> None:
    assert before.keys() <= after.keys(), "a row was lost"
    for key, us in before.items():
        assert us is None or after[key] == us, "a row was measured again, although confirmed"


def test_kill_and_go_on(tmp_path: Path) -> None:
    table = load_profile("amd_epyc_zen5_avx512").table
    keys = sorted(row.kernel.key for row in table if row.hot_us < 20)[:ROWS]
    chance = random.Random(7)
    before: dict[str, float | None] = {}
    for _ in range(KILLS):
        process = _start(keys, tmp_path)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0.0, 0.6))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        after = _rows(tmp_path)  # readable, whatever it was doing
        _check(before, after)
        before = after
    last = _start(keys, tmp_path)
    assert last.wait() == 0
    assert last.stdout is not None
    last.stdout.close()
    after = _rows(tmp_path)
    _check(before, after)
    assert set(after) == set(keys)
    assert None not in after.values()
    assert not list(tmp_path.rglob(".latency.csv.*")) or len(after) == len(keys)
