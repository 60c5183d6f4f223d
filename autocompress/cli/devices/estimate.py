"""``autocompress devices estimate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autocompress.cli import options

if TYPE_CHECKING:
    from autocompress.hardware.file_estimate import FileEstimate
    from autocompress.hardware.profile import HardwareProfile


def estimate(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="An ONNX file.")],
    device: options.Device = "local",
    per_second: Annotated[
        float | None,
        typer.Option("--per-second", min=0.0, help="Average power at so many inferences a second."),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Estimate what an ONNX file takes of a device: time, memory, energy, and whether it fits."""
    import json

    from autocompress.core.json_values import finite
    from autocompress.hardware import load_profile
    from autocompress.hardware.file_estimate import estimate_file
    from autocompress.report.tables import aligned
    from autocompress.report.units import printable

    profile = load_profile(device)
    found = estimate_file(model, profile)
    power = None
    if per_second is not None and profile.energy is not None and found.energy_mj is not None:
        power = profile.energy.average_mw(found.energy_mj, found.latency_ms.value, per_second)
    if as_json:
        print(json.dumps(finite(_values(profile, found, power)), allow_nan=False))
        return
    print(printable(aligned(_lines(profile, found, power))))


def _values(
    profile: HardwareProfile, found: FileEstimate, power: float | None
) -> dict[str, object]:
    from dataclasses import asdict

    return {
        "device": profile.id,
        "kind": profile.kind,
        "proves_constraints": profile.proves_constraints,
        **asdict(found),
        "fits": not found.misfits,
        "average_mw": power,
    }


def _lines(
    profile: HardwareProfile, found: FileEstimate, power: float | None
) -> list[tuple[str, str]]:
    from autocompress.report.units import milliseconds, size

    latency = found.latency_ms
    low, high = milliseconds(latency.low), milliseconds(latency.high)
    energy = "not known: the profile has no energy model"
    if found.energy_mj is not None and found.energy_error is not None:
        spread = 1 + found.energy_error
        energy = (
            f"{found.energy_mj:.3g} mJ ({found.energy_mj / spread:.3g} to "
            f"{found.energy_mj * spread:.3g}), an estimate"
        )
    rows = [
        ("device", f"{profile.id}: {profile.description}"),
        ("estimates", profile.summary),
        (
            "kernels",
            f"{found.kernels}, {found.source}; {latency.coverage:.0%} of the time measured",
        ),
        ("latency", f"{milliseconds(latency.value)} ms ({low} to {high})"),
        ("energy", energy),
        ("memory", f"{size(found.ram_bytes)}, activations {size(found.peak_memory_bytes)}"),
        ("file", size(found.size_bytes)),
        ("fits", "no: " + "; ".join(found.misfits) if found.misfits else _room(profile)),
    ]
    if power is not None:
        rows.insert(5, ("power", f"{power:.4g} mW on average, idle in between"))
    if not profile.proves_constraints:
        rows.append(("note", f"{profile.kind} profile: expect this, it proves no bound"))
    return rows


def _room(profile: HardwareProfile) -> str:
    return "yes" if profile.limits.bounds else "the profile states no limit"
