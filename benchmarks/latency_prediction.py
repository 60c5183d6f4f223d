"""Estimated against measured end-to-end latency on this machine, networks never fitted to.

Three sets, all held out of the calibration: torchvision's families at several resolutions and
widths, candidates of the product's own spaces (both written by the product's exporter), and
reference networks; in float, in integers, mixed, and with 4-bit weights. Their kernels are measured
kernel by kernel, as a search does; no figure of a held-out network enters its estimate. Everything
is done with one thread and then with two (keys that end in ``_2t``).

The formula is fitted as a search on this machine fits it: to reference networks and to a few other
candidates of the same spaces. What a network takes is the mean of two measurements, the second in a
later window; ``truth_repeat`` is how often these two are within 5 % of each other: the ceiling.

``naive_within10`` prices the same networks by what their float operations take one at a time, the
usual look-up table.

``AUTOCOMPRESS_BENCH_RUNTIME`` names another runtime, ``AUTOCOMPRESS_BENCH_THREADS`` other numbers
of threads ("1", or "1,2"), ``AUTOCOMPRESS_BENCH_SETS`` fewer sets ("space,reference"): where a
runtime takes its time to load a kernel, torchvision's thousands of them take an hour.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autocompress.graph.ops import Op
from autocompress.hardware.local import local_profile
from autocompress.hardware.predictor import LatencyPredictor
from autocompress.measurement.kernels import KernelSignature
from autocompress.measurement.networks import Network, reference_networks
from autocompress.runtimes.base import Runtime
from autocompress.runtimes.registry import load_runtime
from benchmarks._networks import FAMILIES, FITTED, FORMS, space_networks, torchvision_networks
from benchmarks._truth import Floats, measure_all, summary

SETS = ("torchvision", "space", "reference")
QUICK_FAMILIES = {"squeezenet1_1": (64,), "mnasnet0_5": (64,)}


def main(*, quick: bool, data: Path | None, seed: int) -> dict[str, Any]:
    """Run it; needs no data."""
    torch.set_num_threads(1)
    runtime = os.environ.get("AUTOCOMPRESS_BENCH_RUNTIME", "onnxruntime")
    chosen = os.environ.get("AUTOCOMPRESS_BENCH_THREADS", "1" if quick else "1,2")
    names = os.environ.get("AUTOCOMPRESS_BENCH_SETS", ",".join(SETS)).split(",")
    before = os.environ.get("AUTOCOMPRESS_CACHE")
    with tempfile.TemporaryDirectory(prefix="autocompress-bench-") as scratch:
        os.environ["AUTOCOMPRESS_CACHE"] = scratch  # a table of its own, measured now
        try:
            sets = _Sets(Path(scratch), names, load_runtime(runtime), quick=quick, seed=seed)
            result: dict[str, Any] = {}
            for threads in (int(part) for part in chosen.split(",")):
                found = _run(sets, runtime, threads)
                suffix = "" if threads == 1 else f"_{threads}t"
                result |= {f"{name}{suffix}": value for name, value in found.items()}
            return result
        finally:
            if before is None:
                del os.environ["AUTOCOMPRESS_CACHE"]
            else:
                os.environ["AUTOCOMPRESS_CACHE"] = before


class _Sets:
    """The networks as files: those that are fitted to, and those that are held out, by set."""

    def __init__(
        self, folder: Path, names: Sequence[str], runtime: Runtime, *, quick: bool, seed: int
    ) -> None:
        unknown = set(names) - set(SETS)
        if unknown:
            raise SystemExit(f"AUTOCOMPRESS_BENCH_SETS: {sorted(unknown)}; use some of {SETS}")
        self.folder = folder
        families: Mapping[str, tuple[int, ...]] = QUICK_FAMILIES if quick else FAMILIES
        larger: Mapping[str, tuple[int, ...]] = {} if quick else FITTED
        self.fitted = [self._written(n) for n in reference_networks(24, seed=2 * seed + 101)]
        self.held_out: dict[str, list[Network]] = {}
        if "torchvision" in names:
            forms = FORMS[:2] if quick else FORMS
            self.fitted += torchvision_networks(folder, larger, FORMS[:2], seed + 1)
            self.held_out["torchvision"] = list(torchvision_networks(folder, families, forms, seed))
        if "space" in names:
            count = (2, 5) if quick else (6, 30)
            offered = runtime.capabilities.precisions
            self.fitted += space_networks(
                folder, count[0], 2 * seed + 104, suffix="-fitted", precisions=offered
            )
            self.held_out["space"] = list(
                space_networks(folder, count[1], seed, precisions=offered)
            )
        if "reference" in names:
            networks = reference_networks(12 if quick else 40, seed=2 * seed + 102)
            self.held_out["reference"] = [self._written(n) for n in networks]

    def _written(self, network: Network) -> Network:
        self.path(network).write_bytes(network.onnx())
        return network

    def path(self, network: Network) -> Path:
        return self.folder / f"{network.name}.onnx"

    @property
    def all_held_out(self) -> list[Network]:
        return [network for networks in self.held_out.values() for network in networks]


def _run(sets: _Sets, runtime: str, threads: int) -> dict[str, Any]:
    profile = local_profile(threads=threads, runtime=load_runtime(runtime))
    predictor = LatencyPredictor.for_device(profile)
    held_out = sets.all_held_out
    singles = {n.name: _single_kernels(predictor, n.ops) for n in held_out}
    wanted = [k for n in (*sets.fitted, *held_out) for k in predictor.kernels(n.ops)]
    naive_kernels = [k for kernels in singles.values() for k in kernels]
    predictor.measure([*wanted, *naive_kernels])
    files = {n.name: sets.path(n) for n in (*sets.fitted, *held_out)}
    measured = measure_all(files, runtime, threads)
    again = measure_all({n.name: files[n.name] for n in held_out}, runtime, threads)
    held_out = [n for n in held_out if n.name in measured and n.name in again]
    fitted = [(n.ops, measured[n.name]) for n in sets.fitted if n.name in measured]
    predictor.calibrate(fitted)

    pairs = np.array([[measured[n.name], again[n.name]] for n in held_out])
    truth = pairs.mean(axis=1)
    estimates = np.array([predictor.estimate(n.ops).value for n in held_out])
    naive = np.array(
        [sum(predictor.price(k).hot_us for k in singles[n.name]) / 1e3 for n in held_out]
    )
    repeat = pairs[:, 1] / pairs[:, 0] - 1.0
    _print([n.name for n in held_out], estimates, truth, f"{runtime}, {threads} thread(s)")
    result: dict[str, Any] = {
        "kernels": len(predictor.profile.table),
        "failed_kernels": len(predictor.local.failed) if predictor.local is not None else 0,
        "truth_repeat": float((abs(repeat) <= 0.05).mean()),
        "truth_repeat10": float((abs(repeat) <= 0.10).mean()),
        **summary("naive_", naive, truth),
        **summary("", estimates, truth),
    }
    for name, networks in sets.held_out.items():
        names = {n.name for n in networks}
        rows = [i for i, n in enumerate(held_out) if n.name in names]
        result |= summary(f"{name}_", estimates[rows], truth[rows])
        result[f"{name}_truth_repeat"] = float((abs(repeat[rows]) <= 0.05).mean())
        result[f"{name}_truth_repeat10"] = float((abs(repeat[rows]) <= 0.10).mean())
    return result | {f"fit_{k}": v for k, v in predictor.calibration.to_json().items()}


def _single_kernels(predictor: LatencyPredictor, ops: Sequence[Op]) -> list[KernelSignature]:
    """The kernels of each operation as a float network of its own."""
    by_name = {op.name: op for op in ops}
    found: list[KernelSignature] = []
    for op in ops:
        if op.kind in {"input", "output"}:
            continue
        inputs = [Op(n, "input", (), by_name[n].shape) for n in dict.fromkeys(op.inputs)]
        alone = replace(op, weight_bits=32, activation_bits=32)
        end = Op("alone.output", "output", (op.name,), op.shape)
        found += predictor.kernels([*inputs, alone, end])
    return found


def _print(names: Sequence[str], estimates: Floats, truth: Floats, title: str) -> None:
    print(f"{title}\n{'network':36} {'measured us':>12} {'estimated us':>13} {'error':>8}")
    for name, estimate, measured in zip(names, estimates, truth, strict=True):
        error = estimate / measured - 1
        print(f"{name:36} {measured * 1e3:12.1f} {estimate * 1e3:13.1f} {error:+8.1%}")
