"""The timer's bookkeeping; never its speed."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from autocompress.measurement import timer
from autocompress.measurement.protocol import TimingProtocol
from autocompress.measurement.timer import Sentinel, time_call, time_interleaved

QUICK = TimingProtocol("quick", warmup=1, batch_us=5, min_runs=12, min_seconds=0, passes=3)


def test_every_call_runs_often_enough() -> None:
    counts: Counter[str] = Counter()
    calls = [lambda: counts.update("a"), lambda: counts.update("b")]
    timings = time_interleaved(calls, QUICK)
    assert len(timings) == 2
    for timing, name in zip(timings, "ab", strict=True):
        assert QUICK.min_runs <= timing.runs <= counts[name]
        assert len(timing.passes_us) == QUICK.passes
        assert timing.value_us == min(timing.passes_us)
        assert 0 <= timing.low_us <= timing.value_us <= timing.high_us


def test_passes_take_turns() -> None:
    order: list[str] = []
    calls = [lambda n=name: order.append(n) for name in "ab"]
    time_interleaved(calls, QUICK)
    turns = [name for name, before in zip(order, ["", *order], strict=False) if name != before]
    assert turns == list("ab" * (QUICK.passes + 1))  # warming up is a turn of its own


def test_preempted_batches_are_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter(range(1, 10_000))
    calm = {"left": 6}

    def switches() -> int:
        calm["left"] -= 1
        return 0 if calm["left"] > 0 else next(readings)

    monkeypatch.setattr(timer, "switches", switches)
    # no sentinel: on a busy machine it would drop the calm batches too
    timing = time_call(lambda: None, replace(QUICK, sentinel_tolerance=0.0))
    assert timing.dropped > 0
    assert timing.batches > 0


def test_a_single_odd_reading_is_not_the_sentinels_best() -> None:
    ticks = iter([0, 1, *(n for i in range(200) for n in (100 * i, 100 * i + 50))])
    sentinel = Sentinel(lambda: next(ticks))
    for _ in range(100):
        sentinel.read()
    assert sentinel.best == 50


def test_wall_clock() -> None:
    assert time_call(lambda: None, QUICK.with_clock("wall")).runs >= QUICK.min_runs
