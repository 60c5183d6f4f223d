"""Bench packs that take next to no time, unpacked, and their runner as a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autocompress.hardware import LatencyPredictor
from autocompress.hardware.machine import describe_machine
from autocompress.hardware.profile import HardwareProfile
from autocompress.measurement.kernels import KernelSignature, TensorType
from autocompress.measurement.networks import reference_networks
from autocompress.measurement.pack import BenchPack, write_pack
from autocompress.measurement.protocol import TimingProtocol

QUICK = TimingProtocol(
    "quick", warmup=1, batch_us=5, min_runs=3, min_seconds=0, passes=2, sentinel_tolerance=0
)
RUNTIME = {
    "name": "onnxruntime",
    "options": {"execution_provider": "cpu"},
    "lowering": "onnxruntime-cpu",
}


def relu(channels: int) -> KernelSignature:
    """A kernel without weights."""
    tensor = TensorType("float32", (1, channels, 4, 4))
    return KernelSignature("Relu", (tensor,), (tensor,))


def gemm(features: int) -> KernelSignature:
    """A kernel with weights, large enough to be timed among copies from 96 features on."""
    return KernelSignature(
        "Gemm",
        (
            TensorType("float32", (1, features)),
            TensorType("float32", (features, features), constant=True),
        ),
        (TensorType("float32", (1, features)),),
    )


def broken() -> KernelSignature:
    """A kernel that no runtime has."""
    tensor = TensorType("float32", (1, 4))
    return KernelSignature("NoSuchOperator", (tensor,), (tensor,))


def quick_pack(
    path: Path,
    *,
    kernels: Sequence[KernelSignature] = (relu(4), gemm(128), relu(8)),
    networks: int = 0,
    rounds: int = 1,
    threads: Sequence[int] = (1,),
) -> BenchPack:
    """A pack with a protocol that hardly times anything."""
    rules = LatencyPredictor(HardwareProfile("any", "any", "measured", describe_machine()))
    sampled = reference_networks(networks, seed=3) if networks else []
    return write_pack(
        path,
        kernels=kernels,
        networks=[(network, rules.kernels(network.ops)) for network in sampled],
        runtime=RUNTIME,
        source={"space": "none"},
        threads=threads,
        rounds=rounds,
        kernel_protocol=QUICK,
        network_protocol=QUICK,
        throttling_wait_seconds=0.0,
    )


def unpacked(archive: Path, folder: Path) -> Path:
    """The pack's folder, as a user has it after unzip."""
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(folder)
    return folder


def start_runner(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """``python3 runner.py`` in an unpacked pack; autocompress is not on its path."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    return subprocess.Popen(
        [sys.executable, "-u", str(folder / "runner.py"), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        cwd=folder,
        text=True,
    )


def run_runner(folder: Path, *arguments: str) -> tuple[int, str, str]:
    """The same to its end: code, output, errors."""
    with start_runner(folder, *arguments) as process:
        out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def rows_of(results: Path, kind: str) -> list[dict[str, Any]]:
    """A results file's rows of one kind."""
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    return [row for row in rows if row["kind"] == kind]


def edit_jobs(folder: Path, **changes: Any) -> None:
    """Change values of an unpacked pack's ``jobs.json``."""
    path = folder / "jobs.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
