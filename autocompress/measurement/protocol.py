"""How something is timed, as a value that is stored with every figure."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from autocompress.errors import RequestError

Clock = Literal["thread_cpu", "wall"]


@dataclass(frozen=True, slots=True)
class TimingProtocol:
    """What a latency figure means: how often, for how long, with which clock and statistic.

    A *batch* is as many runs in a row as take ``batch_us``; a *pass* is a group of batches, and
    passes of everything that is timed together take turns. A batch does not count when the kernel
    took the core away during it, or when a short computation before or after it (the sentinel) was
    slower than its best by more than ``sentinel_tolerance``.

    Attributes:
        name: short name, such as "search".
        warmup: runs before the first batch that counts.
        batch_us: shortest batch, microseconds.
        min_runs: fewest runs over all passes.
        min_seconds: shortest time over all passes, for one thing that is timed.
        passes: turns.
        quantile: of the batches' mean times in a pass; the smallest over the passes is the figure.
        clock: "thread_cpu" (one thread on this machine) or "wall".
        sentinel_tolerance: accepted slow-down of the sentinel, as a share; 0 switches it off.
        processes: fresh processes among which the passes are shared out.
        cooldown_seconds: pause between two passes.
    """

    name: str
    warmup: int = 5
    batch_us: float = 150.0
    min_runs: int = 20
    min_seconds: float = 0.005
    passes: int = 3
    quantile: float = 0.25
    clock: Clock = "thread_cpu"
    sentinel_tolerance: float = 0.05
    processes: int = 1
    cooldown_seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.clock not in ("thread_cpu", "wall"):
            raise RequestError(f"clock is {self.clock!r}; use 'thread_cpu' or 'wall'")
        if not 0.0 <= self.quantile <= 1.0:
            raise RequestError(f"quantile is {self.quantile!r}; it must be in [0, 1]")
        for name in ("passes", "processes", "min_runs"):
            if getattr(self, name) < 1:
                raise RequestError(f"{name} is {getattr(self, name)!r}; it must be at least 1")
        for name in ("warmup", "batch_us", "min_seconds", "sentinel_tolerance", "cooldown_seconds"):
            if getattr(self, name) < 0:
                raise RequestError(f"{name} is {getattr(self, name)!r}; it must not be negative")

    def with_clock(self, clock: Clock) -> TimingProtocol:
        """A copy that reads another clock."""
        return replace(self, clock=clock)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> TimingProtocol:
        """Rebuild a protocol from :meth:`to_json`'s value.

        Raises:
            RequestError: a key is missing or unknown, or a value is out of range.
        """
        try:
            return cls(**value)
        except TypeError as error:
            raise RequestError(f"this is not a timing protocol's JSON: {error}") from error


#: For prices during a search: a few hundredths of a second.
SEARCH = TimingProtocol("search", min_seconds=0.006, passes=3)
#: For the tables of a profile: the same, with more turns.
TABLE = TimingProtocol("table", min_seconds=0.02, min_runs=50, passes=5)
#: For figures that are reported: fresh processes and about a second, with a bootstrap interval.
PUBLISH = TimingProtocol("publish", warmup=20, min_runs=200, min_seconds=0.3, passes=6, processes=3)

PRESETS = {protocol.name: protocol for protocol in (SEARCH, TABLE, PUBLISH)}
