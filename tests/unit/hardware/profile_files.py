"""A profile with something in every section, and what tests do to its files."""

from __future__ import annotations

from pathlib import Path

from autocompress.core.capabilities import Capabilities, Precision
from autocompress.hardware.calibration import Calibration
from autocompress.hardware.latency_row import LatencyRow
from autocompress.hardware.limits import Limits
from autocompress.hardware.machine import Cluster, Machine
from autocompress.hardware.profile import (
    PROFILE_FILE,
    HardwareProfile,
    Provenance,
    RuntimeSpec,
    Validation,
)
from autocompress.hardware.profiles import load_profile
from autocompress.hardware.table import LatencyTable
from autocompress.measurement.kernels import KernelSignature
from autocompress.measurement.protocol import TABLE


def rows(count: int = 12) -> list[LatencyRow]:
    """Rows of made-up kernels."""
    return [
        LatencyRow(
            KernelSignature.parse(f"Conv|f32[1,{i},8,8];c:f32[4,{i},3,3]|f32[1,4,6,6]|group=1"),
            1.5 + i,
            1.75 + i,
            1.25 + i,
            2.0 + i,
            100,
            "2026-01-31",
            "table",
        )
        for i in range(1, count + 1)
    ]


def full_profile() -> HardwareProfile:
    """Every section, every optional key."""
    known = load_profile("raspberry_pi_5")
    machine = Machine(
        "Cortex-A76",
        "aarch64",
        ("dotprod", "neon"),
        4,
        8 << 30,
        soc="BCM2712",
        clusters=(Cluster("Cortex-A76", 4, 2400.0),),
        flash_bytes=32 << 30,
        cooling="fan",
    )
    return HardwareProfile(
        "board",
        "a board",
        "measured",
        machine,
        runtime=RuntimeSpec(version="1.0", threads=2, options={"execution_provider": "cpu"}),
        capabilities=Capabilities(
            precisions=(Precision(32, 32), Precision(8, 8)),
            channel_step=8,
            sparsity_patterns=("2:4", "block:1x4"),
            sparsity_speedup={"2:4": 1.6, "block:1x4@0.7": 2.5},
        ),
        limits=Limits(ram_bytes=1 << 30, max_latency_ms=50.0),
        calibration=Calibration(a=1.1, networks=7),
        validation=Validation(30, 0.01, 0.02, 0.03, 0.9, 1.0),
        provenance=Provenance(
            "2026-01-31", "by hand", {"kernels": TABLE.to_json()}, ("https://x.example",), ("pi",)
        ),
        table=LatencyTable(rows()),
        roofline=known.roofline,
        memory=known.memory,
        energy=known.energy,
    )


def write_unsealed(folder: Path) -> HardwareProfile:
    """Write the profile without its seal, as by hand: what it says must stand for itself."""
    profile = full_profile()
    profile.save(folder)
    path = folder / PROFILE_FILE
    path.write_text(path.read_text().partition("[seal]")[0])
    return profile


def same(one: HardwareProfile, two: HardwareProfile) -> bool:
    """Equal in everything, the tables' rows included."""
    kernels = [sorted(p.table, key=lambda row: row.kernel.key) for p in (one, two)]
    return one == two and kernels[0] == kernels[1]
