"""What an ONNX file should take of a device: time, memory, energy, and whether it fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autocompress.core.measurement import Estimate
from autocompress.errors import AutocompressError, RequestError
from autocompress.graph.precision import quantized_tensors
from autocompress.hardware.memory_model import USUAL
from autocompress.hardware.onnx_operations import read_operations
from autocompress.hardware.predictor import LatencyPredictor
from autocompress.hardware.profile import HardwareProfile
from autocompress.hardware.size import weight_bytes
from autocompress.measurement.kernels import KernelSignature, signatures


@dataclass(frozen=True, slots=True)
class FileEstimate:
    """An ONNX file on a device.

    Attributes:
        latency_ms: batch 1, with its band.
        energy_mj: of an inference; None where the profile has no model.
        energy_error: how far that may be off, as a share; None likewise.
        peak_memory_bytes: of activations, with what the runtime adds.
        ram_bytes: the same with the weights, where they are held in the working memory.
        size_bytes: of the file.
        macs: multiply-accumulates of an inference.
        kernels: how many run.
        source: where the kernels come from, in words.
        misfits: what does not fit, in words.
    """

    latency_ms: Estimate
    energy_mj: float | None
    energy_error: float | None
    peak_memory_bytes: int
    ram_bytes: int
    size_bytes: int
    macs: int
    kernels: int
    source: str
    misfits: tuple[str, ...]


def estimate_file(path: Path, profile: HardwareProfile) -> FileEstimate:
    """Estimate an ONNX file on a device.

    The kernels are those of the profile's own runtime where just this version is installed here;
    otherwise they are derived from the file's operations by the profile's rules.

    Raises:
        RequestError: the file is not there, is no ONNX, or has open shapes.
    """
    if not path.is_file():
        raise RequestError(f"there is no file {path}; give the path of an ONNX file")
    ops = read_operations(path)
    quantized = quantized_tensors(ops)
    predictor = LatencyPredictor(profile)
    kernels, source = _executed(path, profile), f"as {profile.runtime.name} executes them here"
    if kernels is None:
        kernels, source = predictor.kernels(ops), "read from the file's operations"
    latency = predictor.estimate_kernels(kernels)
    memory = profile.memory or USUAL
    peak = memory.peak_bytes(ops, quantized)
    ram = int(memory.ram_bytes(peak, sum(weight_bytes(op) for op in ops)))
    size = path.stat().st_size
    return FileEstimate(
        latency_ms=latency,
        energy_mj=predictor.energy_mj(kernels, latency.value),
        energy_error=profile.energy.error if profile.energy is not None else None,
        peak_memory_bytes=peak,
        ram_bytes=ram,
        size_bytes=size,
        macs=sum(op.macs for op in ops),
        kernels=len(kernels),
        source=source,
        misfits=_misfits(profile, ram, size),
    )


def _executed(path: Path, profile: HardwareProfile) -> Sequence[KernelSignature] | None:
    """The kernels of the profile's runtime; None where this very version is not at hand."""
    from autocompress.runtimes.registry import list_runtimes, load_runtime

    if profile.roofline is not None or profile.runtime.name not in list_runtimes():
        return None
    try:
        runtime = load_runtime(profile.runtime.name)
        if runtime.version != profile.runtime.version:
            return None
        return signatures(runtime.kernels(path, threads=profile.runtime.threads))
    except AutocompressError:  # not installed, or it cannot run this file: rules do
        return None


def _misfits(profile: HardwareProfile, ram: int, size: int) -> tuple[str, ...]:
    limits = profile.limits
    pairs = (("working memory", ram, limits.ram_bytes), ("flash", size, limits.flash_bytes))
    return tuple(
        f"{what}: {needed:,} bytes are needed, {room:,} are there"
        for what, needed, room in pairs
        if room and needed > room
    )
