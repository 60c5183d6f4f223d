"""Times calls by a protocol, on a machine that may be busy with other things."""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import repeat

import numpy as np

from autocompress.measurement.protocol import TimingProtocol

Call = Callable[[], object]
_SENTINEL_STEPS = 1200
_SENTINEL_READINGS = 50
_MOST_ATTEMPTS = 3
_HAS_THREAD_USAGE = hasattr(resource, "RUSAGE_THREAD")


@dataclass(frozen=True, slots=True)
class Timing:
    """What timing one call gave, in microseconds.

    Attributes:
        value_us: the figure: the smallest over the passes of the protocol's quantile.
        low_us: lower end of the interval over the passes.
        high_us: upper end of it.
        runs: runs in batches that count.
        batches: batches that count.
        dropped: batches that did not count.
        passes_us: the quantile of each pass.
        batches_us: the mean times of each pass's batches that count; empty where not known.
    """

    value_us: float
    low_us: float
    high_us: float
    runs: int
    batches: int
    dropped: int
    passes_us: tuple[float, ...]
    batches_us: tuple[tuple[float, ...], ...] = ()


@dataclass(slots=True)
class _Series:
    call: Call
    runs_per_batch: int = 1
    passes: list[list[float]] = field(default_factory=list)
    runs: int = 0
    dropped: int = 0


class Sentinel:
    """A short computation in registers; slow means that the core is not wholly ours.

    Its best is a low quantile of all readings, not the smallest: a single reading may be off.
    """

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._readings: list[float] = []
        self.best = math.inf

    def read(self) -> float:
        """Its time now, in nanoseconds."""
        start = self._clock()
        sum(range(_SENTINEL_STEPS))
        taken = float(self._clock() - start)
        self._readings.append(taken)
        if len(self._readings) >= _SENTINEL_READINGS:
            self.best = min(self.best, float(np.quantile(self._readings, 0.1)))
            self._readings.clear()
        return taken


def switches() -> int:
    """How often the kernel has taken the core from this thread; 0 where it does not say."""
    if not _HAS_THREAD_USAGE:
        return 0
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw


def time_call(call: Call, protocol: TimingProtocol) -> Timing:
    """Time one call."""
    return time_interleaved([call], protocol)[0]


def time_interleaved(calls: Sequence[Call], protocol: TimingProtocol) -> list[Timing]:
    """Time several calls in turns, so that slow moments of the machine hit all of them.

    Call it from one thread; the calls must do all their work in it when the clock is
    "thread_cpu".
    """
    clock = time.thread_time_ns if protocol.clock == "thread_cpu" else time.perf_counter_ns
    sentinel = Sentinel(clock)
    for _ in range(_SENTINEL_READINGS):
        sentinel.read()
    series = [_Series(call) for call in calls]
    for one in series:
        _warm_up(one, protocol, clock)
    for number in range(protocol.passes):
        if number and protocol.cooldown_seconds:
            time.sleep(protocol.cooldown_seconds)
        for one in series:
            _one_pass(one, protocol, clock, sentinel)
    return [_timing(one, protocol) for one in series]


def _warm_up(one: _Series, protocol: TimingProtocol, clock: Callable[[], int]) -> None:
    for _ in repeat(None, protocol.warmup):
        one.call()
    taken = []
    for _ in range(3):
        start = clock()
        one.call()
        taken.append(clock() - start)
    one.runs_per_batch = max(1, math.ceil(protocol.batch_us * 1e3 / max(1, min(taken))))


def _one_pass(
    one: _Series, protocol: TimingProtocol, clock: Callable[[], int], sentinel: Sentinel
) -> None:
    """Batches until the pass has its share of runs and seconds; bad ones are tried again."""
    runs = math.ceil(protocol.min_runs / protocol.passes)
    nanoseconds = protocol.min_seconds / protocol.passes * 1e9
    limit = 1.0 + protocol.sentinel_tolerance if protocol.sentinel_tolerance else math.inf
    good: list[float] = []
    bad: list[float] = []
    spent, call, count = 0.0, one.call, one.runs_per_batch
    for _ in repeat(None, max(1, math.ceil(runs / count))):
        call()
    while True:
        before = sentinel.read()
        seen = switches()
        start = clock()
        for _ in repeat(None, count):
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


def _timing(one: _Series, protocol: TimingProtocol) -> Timing:
    figures = [float(np.quantile(batch, protocol.quantile)) for batch in one.passes]
    lows = [float(np.quantile(batch, 0.05)) for batch in one.passes]
    highs = [float(np.quantile(batch, 0.5)) for batch in one.passes]
    value = min(figures)
    return Timing(
        value_us=value,
        low_us=min(value, *lows),
        high_us=max(value, float(np.median(highs))),
        runs=one.runs,
        batches=sum(len(batch) for batch in one.passes),
        dropped=one.dropped,
        passes_us=tuple(figures),
        batches_us=tuple(map(tuple, one.passes)),
    )
