"""A known device's table taken over to another from a few measured networks.

The devices are what one machine can be: a runtime with a number of threads. Each has a table of the
same kernels and the measured latencies of the same networks. Each in turn is the new one, of which
only 5, 10 or 20 whole networks are known; the others are the known devices. Errors and rank
correlation are those on all networks that were not used, the median over several random draws of
the few. ``zero_*`` is the best of the known devices as it is, times one factor.

``AUTOCOMPRESS_BENCH_DEVICES`` names others, such as "onnxruntime:1,openvino:2".
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autocompress.hardware.local import local_profile
from autocompress.hardware.predictor import LatencyPredictor
from autocompress.hardware.profile import HardwareProfile
from autocompress.hardware.transfer import MeasuredNetwork, adapt
from autocompress.measurement.networks import Network, reference_networks
from autocompress.runtimes.registry import load_runtime
from benchmarks._networks import space_networks
from benchmarks._truth import Floats, measure_all, summary

DEVICES = "onnxruntime:1,onnxruntime:2,openvino:1,openvino:2"
FEW = (5, 10, 20)
_FITTED = 14


def main(*, quick: bool, data: Path | None, seed: int) -> dict[str, Any]:
    """Run it; needs no data."""
    torch.set_num_threads(1)
    names = os.environ.get("AUTOCOMPRESS_BENCH_DEVICES", DEVICES).split(",")
    before = os.environ.get("AUTOCOMPRESS_CACHE")
    with tempfile.TemporaryDirectory(prefix="autocompress-bench-") as scratch:
        os.environ["AUTOCOMPRESS_CACHE"] = scratch
        try:
            networks, files = _networks(Path(scratch), names, quick=quick, seed=seed)
            devices = {name: _Device(name, networks, files) for name in names}
        finally:
            if before is None:
                del os.environ["AUTOCOMPRESS_CACHE"]
            else:
                os.environ["AUTOCOMPRESS_CACHE"] = before
    return _transfers(devices, draws=3 if quick else 9, seed=seed)


def _networks(
    folder: Path, devices: list[str], *, quick: bool, seed: int
) -> tuple[list[Network], dict[str, Path]]:
    offered = [load_runtime(d.partition(":")[0]).capabilities.precisions for d in devices]
    shared = tuple(p for p in offered[0] if all(p in others for others in offered))
    networks = reference_networks(_FITTED + (20 if quick else 40), seed=2 * seed + 103)
    files = {n.name: folder / f"{n.name}.onnx" for n in networks}
    for network in networks:
        files[network.name].write_bytes(network.onnx())
    for network in space_networks(folder, 4 if quick else 15, seed, precisions=shared):
        networks.append(network)
        files[network.name] = folder / f"{network.name}.onnx"
    return networks, files


class _Device:
    """A profile with a table of all the kernels, and what the networks take."""

    def __init__(self, name: str, networks: list[Network], files: dict[str, Path]) -> None:
        runtime, _, threads = name.partition(":")
        local = local_profile(threads=int(threads), runtime=load_runtime(runtime))
        predictor = LatencyPredictor.for_device(local)
        predictor.measure([k for n in networks for k in predictor.kernels(n.ops)])
        self.truth = measure_all(files, runtime, int(threads))
        known = [n for n in networks if n.name in self.truth]
        predictor.calibrate([(n.ops, self.truth[n.name]) for n in known[:_FITTED]])
        self.held_out = known[_FITTED:]
        # a name of its own, and not taken for this machine
        self.profile: HardwareProfile = replace(
            predictor.calibrated_profile, id=name.replace(":", "_"), kind="measured"
        )
        print(f"{name}: {len(self.profile.table)} kernels, {len(known)} networks", flush=True)

    def errors_of(self, profile: HardwareProfile, used: set[str]) -> tuple[Floats, Floats]:
        """Estimates of the networks that were not used, and the truth."""
        rest = [n for n in self.held_out if n.name not in used]
        predictor = LatencyPredictor(profile)
        estimates = np.array([predictor.estimate(n.ops).value for n in rest])
        return estimates, np.array([self.truth[n.name] for n in rest])


def _transfers(devices: dict[str, _Device], *, draws: int, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    result: dict[str, Any] = {"devices": len(devices)}
    print(f"\n{'new device':18} {'known':>10} {'MAPE':>8} {'within 10':>10} {'Spearman':>9}")
    for name, device in devices.items():
        key = name.replace(":", "_")
        bases = [other.profile for other in devices.values() if other is not device]
        rows = {"own": [summary("", *device.errors_of(device.profile, set()))], "zero": []}
        rows["zero"].append(min((_one_factor(device, b) for b in bases), key=lambda r: r["mape"]))
        for few in FEW:
            rows[str(few)] = []
            for _ in range(draws):
                chosen = rng.permutation(len(device.held_out))[:few]
                used = [device.held_out[i] for i in chosen]
                found = adapt(
                    key,
                    [MeasuredNetwork(n.name, n.ops, device.truth[n.name]) for n in used],
                    bases,
                )
                names = {n.name for n in used}
                rows[str(few)].append(summary("", *device.errors_of(found.profile, names)))
        for known, found_rows in rows.items():
            median = {k: float(np.median([r[k] for r in found_rows])) for k in found_rows[0]}
            print(
                f"{name:18} {known:>10} {median['mape']:8.1%} {median['within10']:10.1%} "
                f"{median['spearman']:9.3f}"
            )
            for figure in ("mape", "within10", "spearman"):
                result[f"{key}_{known}_{figure}"] = median[figure]
    return result


def _one_factor(device: _Device, base: HardwareProfile) -> dict[str, float]:
    estimates, truth = device.errors_of(base, set())
    return summary("", estimates * float(np.median(truth / estimates)), truth)
