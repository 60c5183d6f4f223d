"""This machine as a device: kernels are measured when they are first asked for, and kept.

The table is a CSV file in the user's cache folder, one for each processor, runtime version and
number of threads; several processes may add to it at the same time.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from autocompress.core.files import write_atomically
from autocompress.core.local_device import LOCAL
from autocompress.errors import DeviceError, ProfileError
from autocompress.hardware.calibration import PRIOR, Calibration
from autocompress.hardware.latency_row import RESOLUTION_US
from autocompress.hardware.machine import cache_folder, describe_machine, slug
from autocompress.hardware.profile import (
    HardwareProfile,
    Provenance,
    RuntimeSpec,
    Validation,
)
from autocompress.hardware.table import LatencyRow, LatencyTable
from autocompress.measurement.kernel_models import KernelTime, time_empty, time_kernels
from autocompress.measurement.kernels import KernelSignature
from autocompress.measurement.protocol import SEARCH, TimingProtocol
from autocompress.runtimes.base import Runtime
from autocompress.runtimes.registry import load_runtime

#: Between two writes of the table lies so many times what a write takes.
_KEEPING = 20.0
#: How rows come about; part of the folder's name, so that no table mixes two ways.
_METHOD = "confirmed"
#: Behind the protocol's name in rows that come from one measurement.
_ONCE = ".once"
#: What its profiles say they rest on.
SOURCE = "measured on demand on this machine"
_TABLE = "latency.csv"
_STATE = "state.json"
#: Kernels timed in turns; more would let the machine drift between the turns of one kernel.
GROUP = 8
#: Seconds that a row is expected to take before any was measured.
ROW_SECONDS = 0.18
#: Two measurements of a kernel agree when they are no further apart than this share.
AGREEMENT = 0.04
#: Times that the empty run is measured; it is part of every estimate.
_EMPTY_ROUNDS = 3


def table_folder(runtime: Runtime, threads: int) -> Path:
    """The cache folder of this machine's table."""
    machine = describe_machine()
    options = "-".join(f"{k}-{v}" for k, v in sorted(runtime.options.items()))
    parts = (machine.cpu, machine.detail, *machine.isa, runtime.name, runtime.version, options)
    name = slug(" ".join((*parts, f"t{threads}", _METHOD)))
    return cache_folder() / "tables" / name


class LocalTable:
    """The cached table of this machine.

    Args:
        runtime: what executes the kernels.
        threads: intra-op threads.
        protocol: how kernels are timed.
    """

    def __init__(
        self, runtime: Runtime, *, threads: int = 1, protocol: TimingProtocol = SEARCH
    ) -> None:
        self.runtime = runtime
        self.threads = threads
        self.protocol = protocol if threads == 1 else protocol.with_clock("wall")
        self.folder = table_folder(runtime, threads)
        self.table = self._read()
        self.failed: dict[str, str] = {}

    def _read(self) -> LatencyTable:
        path = self.folder / _TABLE
        if not path.exists():
            return LatencyTable()
        try:
            return LatencyTable.load(path)
        except ProfileError:
            # a cache, not a profile: what cannot be read is put aside and measured again
            with contextlib.suppress(OSError):
                path.replace(path.with_suffix(".corrupt"))
            return LatencyTable()

    def measure(
        self,
        kernels: Sequence[KernelSignature],
        *,
        deadline: float | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> int:
        """Measure those of ``kernels`` that the table lacks, keep them, and confirm them.

        A kernel's time differs more between minutes than within one: when all have been measured,
        each is measured again, in another order and company. Where the two disagree there is a
        third, and the median holds; where they agree, the mean.

        Args:
            kernels: the first ones are measured first.
            deadline: ``time.monotonic()`` after which nothing new is started.
            progress: told how many of how many are done.

        Returns:
            How many were measured.
        """
        wanted = list({k.key: k for k in kernels if self._wants(k)}.values())
        began, tell, count = time.monotonic(), progress or _silent, len(wanted)
        series: dict[str, list[LatencyRow]] = {}
        for kernel in wanted:
            row = self.table.get(kernel)
            if row is not None:  # measured once, before something cut it off
                series[kernel.key] = [row]
        new = [kernel for kernel in wanted if kernel.key not in series]
        measured: set[str] = set()

        def note(row: LatencyRow) -> LatencyRow:
            rows = series.setdefault(row.kernel.key, [])
            rows.append(row)
            measured.add(row.kernel.key)
            return combined(rows) if len(rows) > 1 else tentative(row)

        self._round(new, deadline, note, lambda done: tell(done // 2, count))
        order = np.random.default_rng(count).permutation(len(series))
        known = [rows[0].kernel for rows in series.values()]
        self._round(
            [known[i] for i in order], deadline, note, lambda done: tell((count + done) // 2, count)
        )
        doubtful = [rows[0].kernel for rows in series.values() if _disagree(rows)]
        self._round(doubtful, deadline, note, lambda done: None)
        if len(measured) >= GROUP:
            self.remember(row_seconds=(time.monotonic() - began) / len(measured))
        return len(measured)

    def _round(
        self,
        kernels: Sequence[KernelSignature],
        deadline: float | None,
        note: Callable[[LatencyRow], LatencyRow],
        progress: Callable[[int], None],
    ) -> None:
        """Measure the kernels group by group until the deadline; rows are kept as they come.

        A large table takes a while to write: rows wait until that is a small part of the time.
        """
        pending: list[LatencyRow] = []
        kept, cost = time.monotonic(), 0.0
        try:
            for start in range(0, len(kernels), GROUP):
                if deadline is not None and time.monotonic() >= deadline:
                    break
                group = kernels[start : start + GROUP]
                pending += [note(row) for row in self._time(group)]
                if time.monotonic() - kept >= _KEEPING * cost:
                    began = time.monotonic()
                    self._keep(pending)
                    pending, kept = [], time.monotonic()
                    cost = kept - began
                progress(start + len(group))
        finally:
            self._keep(pending)

    @property
    def row_seconds(self) -> float:
        """Seconds that a row took when rows were last measured here."""
        found = self.state().get("row_seconds")
        return found if isinstance(found, float) else ROW_SECONDS

    def _wants(self, kernel: KernelSignature) -> bool:
        if kernel.is_view or kernel.key in self.failed:
            return False
        row = self.table.get(kernel)
        return row is None or is_tentative(row)

    def _time(self, group: Sequence[KernelSignature]) -> list[LatencyRow]:
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        rows = []
        times = time_kernels(group, self.runtime, self.protocol, threads=self.threads)
        for kernel, found in zip(group, times, strict=True):
            if not isinstance(found, DeviceError):
                rows.append(row_of(kernel, found, today, self.protocol.name))
            elif kernel not in self.table:
                self.failed[kernel.key] = str(found)
        return rows

    def _keep(self, rows: Sequence[LatencyRow]) -> None:
        """Add rows to what other processes have written meanwhile."""
        if not rows:
            return
        with _locked(self.folder):
            merged = self._read()
            merged.add(row for row in rows if not _is_worse(row, merged.get(row.kernel)))
            self.table.add(merged)
            merged.save(self.folder / _TABLE)

    def state(self) -> dict[str, object]:
        """Run overhead, calibration and validation as last stored; empty if never."""
        try:
            value = json.loads((self.folder / _STATE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}

    def remember(self, **values: object) -> None:
        """Store values for :meth:`state`."""
        with _locked(self.folder):
            state = self.state() | values
            write_atomically(self.folder / _STATE, json.dumps(state, indent=1, sort_keys=True))


def _silent(done: int, of: int) -> None:
    pass


def tentative(row: LatencyRow) -> LatencyRow:
    """A row that comes from a single measurement, marked as such."""
    return replace(row, protocol=row.protocol + _ONCE)


def is_tentative(row: LatencyRow) -> bool:
    """Whether it comes from a single measurement that is still to be confirmed."""
    return row.protocol.endswith(_ONCE)


def _is_worse(row: LatencyRow, known: LatencyRow | None) -> bool:
    return known is not None and is_tentative(row) and not is_tentative(known)


def _disagree(rows: Sequence[LatencyRow]) -> bool:
    times = [row.hot_us for row in rows]
    return max(times) > (1.0 + AGREEMENT) * min(times) + RESOLUTION_US


def combined(rows: Sequence[LatencyRow]) -> LatencyRow:
    """One row from the measurements of a kernel: their median, and the interval around all."""
    hot, ctx = (float(np.median([getattr(r, n) for r in rows])) for n in ("hot_us", "ctx_us"))
    return replace(
        rows[-1],
        hot_us=hot,
        ctx_us=ctx,
        low_us=min(row.low_us for row in rows),
        high_us=max(row.high_us for row in rows),
        runs=sum(row.runs for row in rows),
    )


def row_of(kernel: KernelSignature, found: KernelTime, date: str, protocol: str) -> LatencyRow:
    """A measured kernel as a row."""
    return LatencyRow(
        kernel, found.hot_us, found.ctx_us, found.low_us, found.high_us, found.runs, date, protocol
    )


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock file; without file locks the writes are atomic at least."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ProfileError(
            f"cannot write the cache folder {folder}: {error}; set AUTOCOMPRESS_CACHE to a folder "
            "you can write"
        ) from error
    try:
        import fcntl
    except ImportError:  # not on this system
        yield
        return
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)


def local_profile(
    *, threads: int = 1, runtime: Runtime | None = None, protocol: TimingProtocol = SEARCH
) -> HardwareProfile:
    """The profile of this machine, with whatever its cached table holds so far.

    The returned profile's ``table`` is the cached one: :class:`LocalTable` adds to it.
    """
    engine = runtime or load_runtime()
    return profile_of(LocalTable(engine, threads=threads, protocol=protocol))


def profile_of(local: LocalTable) -> HardwareProfile:
    """The profile around a cached table."""
    machine = describe_machine()
    state = local.state()
    run_us = state.get("run_us")
    if not isinstance(run_us, float):
        run_us = min(
            time_empty(local.runtime, local.protocol, threads=local.threads).value_us
            for _ in range(_EMPTY_ROUNDS)
        )
        local.remember(run_us=run_us)
    calibration = state.get("calibration")
    validation = state.get("validation")
    spec = RuntimeSpec(
        name=local.runtime.name,
        version=local.runtime.version,
        threads=local.threads,
        options=dict(local.runtime.options),
        lowering=local.runtime.lowering,
        run_us=run_us,
    )
    profile = HardwareProfile(
        id=LOCAL,
        description=f"this machine ({machine.cpu})",
        kind="measured",
        machine=machine,
        runtime=spec,
        capabilities=local.runtime.capabilities,
        calibration=(
            Calibration.from_json(calibration) if isinstance(calibration, dict) else PRIOR
        ),
        provenance=Provenance(
            date=datetime.datetime.now(datetime.UTC).date().isoformat(),
            source=SOURCE,
            protocol=local.protocol.to_json(),
        ),
        table=local.table,
    )
    if isinstance(validation, dict):
        return replace(profile, validation=Validation(**validation))
    return profile
