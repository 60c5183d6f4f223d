"""A profile from what a bench pack's runner measured: table, calibration, validation, status."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np

from autocompress.errors import DeviceError, RequestError
from autocompress.hardware.calibration import Calibration, NetworkSums, as_row, fit
from autocompress.hardware.local import combined, row_of
from autocompress.hardware.predictor import LatencyPredictor, validation_of
from autocompress.hardware.profile import (
    PROFILE_FILE,
    HardwareProfile,
    Provenance,
    RuntimeSpec,
    Validation,
    is_free_id,
)
from autocompress.hardware.table import LatencyRow, LatencyTable
from autocompress.measurement.kernel_models import kernel_time
from autocompress.measurement.pack import BenchPack
from autocompress.measurement.remote.results import BenchResults, JobResult

#: Fewer measured networks fit no coefficients.
FEWEST_NETWORKS = 4


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of a pack a profile rests on.

    Attributes:
        threads: the runtime's threads.
        kernels: kernels with a figure, of ``kernels_asked``.
        kernels_asked: kernels of the pack.
        networks: whole networks with a figure, of ``networks_asked``.
        networks_asked: networks of the pack.
        figures: finished jobs over all rounds, of ``figures_asked``.
        figures_asked: jobs over all rounds.
        throttled: kernels and networks known only from a core that was slower than its best.
        as_lowered: networks whose executed operators are those that the profile's rules give.
        inspected: networks whose executed operators are known.
        failed: job's kernel or network, and the device's reason.
    """

    threads: int
    kernels: int
    kernels_asked: int
    networks: int
    networks_asked: int
    figures: int
    figures_asked: int
    throttled: int
    as_lowered: int
    inspected: int
    failed: tuple[tuple[str, str], ...]

    @property
    def status(self) -> str:
        """Whether every job was tried in every round ("complete") or not ("partial")."""
        return "complete" if self.figures >= self.figures_asked else "partial"

    @property
    def text(self) -> str:
        """One line for a person."""
        parts = [
            f"{self.status}: {self.kernels} of {self.kernels_asked} kernels",
            f"{self.networks} of {self.networks_asked} networks",
            f"{self.figures} of {self.figures_asked} figures",
        ]
        if self.failed:
            parts.append(f"{len(self.failed)} jobs failed on the device")
        if self.throttled:
            parts.append(f"{self.throttled} measured only while the core was throttled or busy")
        if self.inspected > self.as_lowered:
            parts.append(
                f"{self.inspected - self.as_lowered} of {self.inspected} networks ran as other "
                "kernels than the rules for this runtime expect"
            )
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Imported:
    """A profile, and what it rests on."""

    profile: HardwareProfile
    coverage: Coverage


def import_results(
    pack: BenchPack,
    results: BenchResults,
    *,
    identifier: str,
    threads: int,
    description: str | None = None,
) -> Imported:
    """The profile of one number of threads.

    The formula is fitted to all measured networks; the validation is the error of each network
    by a fit to the others, so that no network vouches for itself.

    Raises:
        RequestError: the identifier is none, or nothing was measured at that number of threads.
        DeviceError: no kernel could be measured.
    """
    if not is_free_id(identifier):
        raise RequestError(
            f"the profile's name is {identifier!r}; use lower-case letters, digits and underscores"
        )
    found = [result for result in results.jobs.values() if result.threads == threads]
    if not found:
        raise RequestError(
            f"nothing was measured with {threads} thread(s) yet; run the pack's runner.py with "
            f"--threads {threads}"
        )
    rows = _rows(pack, found)
    if not rows:
        reasons = Counter(result.error for result in found if result.error).most_common(1)
        reason = f": {reasons[0][0]}" if reasons else ""
        raise DeviceError(f"the device brought no kernel's time{reason}; run runner.py again")
    coverage = _coverage(pack, found, rows, threads)
    protocol = pack.protocols["kernel"]
    clocks = {result.clock for result in found if result.timings}
    board = f"{results.board}, " if results.board else ""
    features = f" ({', '.join(results.machine.isa)})" if results.machine.isa else ""
    run_us = min(r.timings["empty"].value_us for r in found if r.timings)
    profile = HardwareProfile(
        id=identifier,
        description=description or f"{board}{results.machine.cpu}{features}, {threads} thread(s)",
        kind="measured",
        machine=results.machine,
        runtime=RuntimeSpec(
            name=str(pack.runtime["name"]),
            version=results.runtime_version,
            threads=threads,
            options={str(k): str(v) for k, v in pack.runtime["options"].items()},
            lowering=str(pack.runtime["lowering"]),
            run_us=run_us,
        ),
        provenance=Provenance(
            date=max(result.date for result in found),
            source=f"bench pack {pack.id[:12]}; {coverage.text}",
            protocol={
                "kernels": protocol.with_clock(
                    "thread_cpu" if clocks == {"thread_cpu"} else "wall"
                ).to_json(),
                "networks": pack.protocols["network"].to_json(),
                "rounds": pack.rounds,
                "system": results.system,
                "notes": list(results.notes),
            },
        ),
        table=LatencyTable(rows.values()),
    )
    calibration, validation = _checked(profile, pack, found)
    return Imported(replace(profile, calibration=calibration, validation=validation), coverage)


def measured_threads(results: BenchResults) -> list[int]:
    """The numbers of threads that there are figures for."""
    return sorted({result.threads for result in results.jobs.values()})


def is_of_pack(folder: Path, pack: BenchPack) -> bool:
    """Whether a profile's folder was written from this pack, so that it may be written anew."""
    try:
        text = (folder / PROFILE_FILE).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    return re.search(rf"^source = .*bench pack {pack.id[:12]};", text, re.MULTILINE) is not None


def _rows(pack: BenchPack, found: Sequence[JobResult]) -> dict[str, LatencyRow]:
    """The median over rounds of each kernel."""
    rows: dict[str, list[LatencyRow]] = {}
    protocol = pack.protocols["kernel"].name
    # figures of a throttled core count only where there are no others
    calm = {r.job for r in found if r.timings and not r.throttled}
    for result in found:
        if result.job not in pack.kernels or not result.timings:
            continue
        if result.throttled and result.job in calm:
            continue
        kernel, timings = pack.kernels[result.job], result.timings
        time = kernel_time(timings["empty"], timings["hot"], timings.get("copies"))
        rows.setdefault(kernel.key, []).append(row_of(kernel, time, result.date, protocol))
    return {key: combined(measured) for key, measured in rows.items()}


def _network_us(pack: BenchPack, found: Sequence[JobResult]) -> dict[str, float]:
    """The median over rounds, as whole models are measured elsewhere."""
    calm = {r.job for r in found if r.timings and not r.throttled}
    times: dict[str, list[float]] = {}
    for result in found:
        if result.job in pack.networks and result.timings:
            if result.throttled and result.job in calm:
                continue
            times.setdefault(result.job, []).append(result.timings["model"].value_us)
    return {job: median(values) for job, values in times.items() if median(values) > 0}


def _checked(
    profile: HardwareProfile, pack: BenchPack, found: Sequence[JobResult]
) -> tuple[Calibration, Validation]:
    """The fit to all networks, and the errors of fits that left each one out in turn."""
    predictor = LatencyPredictor(profile)
    measured = _network_us(pack, found)
    if len(measured) < FEWEST_NETWORKS:
        return profile.calibration, Validation()
    run_us = profile.runtime.run_us
    sums = [predictor.sums(pack.networks[job].kernels) for job in measured]
    truth = list(measured.values())
    errors = []
    for left_out in range(len(truth)):
        rest = [i for i in range(len(truth)) if i != left_out]
        part = fit([sums[i] for i in rest], [truth[i] for i in rest], run_us)
        errors.append(_total_us(part, sums[left_out], run_us) / truth[left_out] - 1.0)
    return fit(sums, truth, run_us), validation_of(errors)


def _total_us(calibration: Calibration, sums: NetworkSums, run_us: float) -> float:
    return float(calibration.total_us(np.array([as_row(sums)]), run_us)[0])


def _coverage(
    pack: BenchPack, found: Sequence[JobResult], rows: dict[str, LatencyRow], threads: int
) -> Coverage:
    good = {result.job for result in found if result.timings}
    calm = {result.job for result in found if result.timings and not result.throttled}
    reasons = {result.job: result.error for result in found if result.error}
    names = {job: kernel.key for job, kernel in pack.kernels.items()}
    names |= {job: network.name for job, network in pack.networks.items()}
    executed = {result.job: result.executed for result in found if result.executed is not None}
    as_lowered = sum(
        Counter(kernel.op_type for kernel in pack.networks[job].kernels) == Counter(seen)
        for job, seen in executed.items()
    )
    asked = {(job, turn) for job in names for turn in range(pack.rounds)}
    return Coverage(
        threads=threads,
        kernels=len(rows),
        kernels_asked=len(pack.kernels),
        networks=sum(job in good for job in pack.networks),
        networks_asked=len(pack.networks),
        figures=len(asked & {(result.job, result.round) for result in found}),
        figures_asked=len(asked),
        throttled=len(good - calm),
        as_lowered=as_lowered,
        inspected=len(executed),
        failed=tuple((names[job], reason) for job, reason in reasons.items() if job not in good),
    )
