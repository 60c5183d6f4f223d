"""Measures this machine and writes its profile.

As a command, from a checkout: ``python -m autocompress.measurement.device NAME --out hw_profiles``.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from autocompress.core.measurement import Measurement
from autocompress.errors import DeviceError, RequestError
from autocompress.hardware.local import GROUP, combined, row_of
from autocompress.hardware.machine import describe_machine
from autocompress.hardware.predictor import LatencyPredictor
from autocompress.hardware.profile import (
    HardwareProfile,
    Provenance,
    RuntimeSpec,
    Validation,
    is_free_id,
)
from autocompress.hardware.table import LatencyRow, LatencyTable
from autocompress.measurement.kernel_models import time_empty, time_kernels
from autocompress.measurement.kernels import KernelSignature
from autocompress.measurement.models import measure_interleaved
from autocompress.measurement.networks import Network, reference_networks
from autocompress.measurement.protocol import TABLE, TimingProtocol
from autocompress.runtimes.base import Runtime
from autocompress.runtimes.registry import load_runtime

#: Times that the whole list of kernels is gone through, so that one slow minute does not decide.
ROUNDS = 3
#: How whole networks are timed: fresh processes, short passes.
NETWORKS = TimingProtocol(
    "networks", warmup=20, min_runs=150, min_seconds=0.15, passes=9, processes=3
)
Progress = Callable[[str, int, int], None]


def measure_device(
    name: str,
    *,
    folder: str | Path | None = None,
    description: str | None = None,
    kernels: Sequence[KernelSignature] = (),
    calibration: Sequence[Network] | None = None,
    validation: Sequence[Network] | None = None,
    threads: int = 1,
    runtime: str = "onnxruntime",
    protocol: TimingProtocol = TABLE,
    rounds: int = ROUNDS,
    progress: Progress | None = None,
) -> HardwareProfile:
    """Measure kernels and whole networks on this machine and put a profile together.

    Args:
        name: the profile's id; also the name of its folder.
        folder: where the profile's folder is written; None writes nothing.
        description: one line for a person.
        kernels: kernels to measure besides those of the networks.
        calibration: networks that the formula is fitted to; by default 24 reference networks.
        validation: networks it is checked on, none of them fitted to; by default 24 others.
        threads: intra-op threads.
        runtime: the runtime's name.
        protocol: how kernels are timed.
        rounds: times that all kernels are gone through; the median counts.
        progress: told what is done, and how many of how many.

    Raises:
        RequestError: the name is no identifier.
        DeviceError: nothing could be measured.
    """
    if not is_free_id(name):
        raise RequestError(
            f"the profile's name is {name!r}; use lower-case letters, digits and underscores"
        )
    engine = load_runtime(runtime)
    if threads > 1:
        protocol = protocol.with_clock("wall")
    fitted = reference_networks(24, seed=1) if calibration is None else list(calibration)
    held_out = reference_networks(24, seed=2) if validation is None else list(validation)
    profile = _empty_profile(name, description, engine, threads, protocol)
    predictor = LatencyPredictor(profile)
    wanted = _wanted(predictor, [*fitted, *held_out], kernels)
    profile.table.add(_rows(wanted, engine, protocol, threads, rounds, progress))
    if not len(profile.table):
        raise DeviceError(f"{engine.name} could not run any of {len(wanted)} kernels")
    found = measure_networks(
        [*fitted, *held_out], threads=threads, runtime=runtime, progress=progress
    )
    profile = _checked(profile, fitted, held_out, found)
    if folder is not None:
        profile.save(Path(folder) / name)
    return profile


def _empty_profile(
    name: str, description: str | None, engine: Runtime, threads: int, protocol: TimingProtocol
) -> HardwareProfile:
    machine = describe_machine()
    run_us = min(time_empty(engine, protocol, threads=threads).value_us for _ in range(ROUNDS))
    features = ", ".join(machine.isa)
    return HardwareProfile(
        id=name,
        description=description or f"{machine.cpu} ({features}), {threads} thread(s)",
        kind="measured",
        machine=machine,
        runtime=RuntimeSpec(
            name=engine.name,
            version=engine.version,
            threads=threads,
            options=dict(engine.options),
            lowering=engine.lowering,
            run_us=run_us,
        ),
        capabilities=engine.capabilities,
        provenance=Provenance(
            date=_today(),
            source="kernels and whole networks measured by autocompress.measurement.device",
            protocol={"kernels": protocol.to_json(), "networks": NETWORKS.to_json()},
        ),
        table=LatencyTable(),
    )


def _today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def _wanted(
    predictor: LatencyPredictor, networks: Sequence[Network], more: Sequence[KernelSignature]
) -> list[KernelSignature]:
    found = {k.key: k for network in networks for k in predictor.kernels(network.ops)}
    found |= {k.key: k for k in more}
    return [kernel for kernel in found.values() if not kernel.is_view]


def _rows(
    wanted: Sequence[KernelSignature],
    engine: Runtime,
    protocol: TimingProtocol,
    threads: int,
    rounds: int,
    progress: Progress | None,
) -> list[LatencyRow]:
    series: dict[str, list[LatencyRow]] = {}
    for number in range(rounds):
        for start in range(0, len(wanted), GROUP):
            group = wanted[start : start + GROUP]
            times = time_kernels(group, engine, protocol, threads=threads)
            for kernel, found in zip(group, times, strict=True):
                if isinstance(found, DeviceError):
                    continue
                row = row_of(kernel, found, _today(), protocol.name)
                series.setdefault(kernel.key, []).append(row)
            if progress is not None:
                done = number * len(wanted) + start + len(group)
                progress("kernels", done, rounds * len(wanted))
    return [combined(rows) for rows in series.values()]


def measure_networks(
    networks: Sequence[Network],
    *,
    threads: int = 1,
    runtime: str = "onnxruntime",
    protocol: TimingProtocol = NETWORKS,
    progress: Progress | None = None,
) -> dict[str, Measurement]:
    """Latencies of networks with random weights, by name, a few at a time in turns."""
    found: dict[str, Measurement] = {}
    with tempfile.TemporaryDirectory(prefix="autocompress-") as scratch:
        for start in range(0, len(networks), GROUP):
            group = networks[start : start + GROUP]
            paths = []
            for network in group:
                path = Path(scratch) / f"{network.name}.onnx"
                path.write_bytes(network.onnx())
                paths.append(path)
            measured = measure_interleaved(
                paths, protocol=protocol, runtime=runtime, threads=threads
            )
            found |= {n.name: m for n, m in zip(group, measured, strict=True)}
            if progress is not None:
                progress("networks", start + len(group), len(networks))
    return found


def _checked(
    profile: HardwareProfile,
    fitted: Sequence[Network],
    held_out: Sequence[Network],
    found: dict[str, Measurement],
) -> HardwareProfile:
    """The profile with its calibration, and its validation on the other networks."""
    predictor = LatencyPredictor(profile)
    pairs = [(n.ops, found[n.name].value) for n in fitted if found[n.name].ok]
    calibration = predictor.calibrate(pairs) if len(pairs) > 1 else profile.calibration
    checked = LatencyPredictor(replace(profile, calibration=calibration))
    others = [(n.ops, found[n.name].value) for n in held_out if found[n.name].ok]
    validation = checked.validate(others) if others else Validation()
    return replace(profile, calibration=calibration, validation=validation)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure this machine; prints one line of what came out."""
    parser = argparse.ArgumentParser(
        prog="python -m autocompress.measurement.device", description=main.__doc__
    )
    parser.add_argument("name", help="the profile's id")
    parser.add_argument("--out", type=Path, default=Path("hw_profiles"), help="folder for it")
    parser.add_argument("--description", default=None)
    parser.add_argument("--runtime", default="onnxruntime", help="what executes the models")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args(argv)

    def tell(what: str, done: int, total: int) -> None:
        print(f"{what} {done}/{total}", file=sys.stderr, flush=True)

    profile = measure_device(
        arguments.name,
        folder=arguments.out,
        description=arguments.description,
        threads=arguments.threads,
        runtime=arguments.runtime,
        rounds=arguments.rounds,
        progress=tell,
    )
    print(f"{arguments.out / arguments.name}: {profile.summary}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
