"""What a kernel should take on a device of which only the data sheet is known.

``time = max(work / (peak * efficiency), bytes / bandwidth) + overhead``: the roofline model
(Williams, Waterman, Patterson 2009, doi:10.1145/1498765.1498785), with the share of the peak that
kernels of a family reach in practice, and the bandwidth of the smallest memory that holds what the
kernel touches. Nothing of it is measured on the device, so each price carries a wide error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

from autocompress.errors import ProfileError
from autocompress.hardware.toml_section import Section
from autocompress.measurement.kernels import KernelSignature

#: Families of kernels; ``conv3x3`` stands for every dense convolution larger than 1x1.
FAMILIES = ("conv3x3", "conv1x1", "depthwise", "linear", "elementwise")
#: Forms in which kernels compute. What a device has no peak for is computed as float32.
FORMS = ("f32", "f16", "i8")
_FORM_OF = {"float16": "f16", "int8": "i8", "uint8": "i8"}


@dataclass(frozen=True, slots=True)
class MemoryLevel:
    """A memory that data are read from.

    Attributes:
        name: such as "L2".
        size_bytes: what it holds.
        bytes_per_s: what one core reads from it in a second.
    """

    name: str
    size_bytes: int
    bytes_per_s: float


@dataclass(frozen=True, slots=True)
class Roofline:
    """Peaks of a device and how much of them kernels reach.

    The overhead of a whole run is not here: it is ``run_us`` of the profile's runtime.

    Attributes:
        macs_per_s: by form, multiply-accumulates a second of one core at its peak.
        efficiency: by family, the share of the peak that kernels reach.
        error: by family, how far a price may be off as a share; 1.0 is half to double.
        dram_bytes_per_s: what comes from main memory in a second.
        caches: smaller and faster memories, the smallest first.
        weight_bytes_per_s: what of weights comes in a second where they stay in a flash memory;
            0 where they are read like everything else.
        kernel_us: microseconds a kernel on top.
        thread_share: share of a core that each thread beyond the first adds.
    """

    macs_per_s: Mapping[str, float]
    efficiency: Mapping[str, float]
    error: Mapping[str, float]
    dram_bytes_per_s: float
    caches: tuple[MemoryLevel, ...] = ()
    weight_bytes_per_s: float = 0.0
    kernel_us: float = 0.0
    thread_share: float = field(default=0.8)

    def __post_init__(self) -> None:
        for name, share in self.efficiency.items():
            if share > 1:
                raise ProfileError(
                    f"[roofline.efficiency] {name} is {share}; nothing exceeds its peak: at most 1"
                )
        sizes = [level.size_bytes for level in self.caches]
        speeds = [*(level.bytes_per_s for level in self.caches), self.dram_bytes_per_s]
        if sizes != sorted(set(sizes)) or speeds != sorted(speeds, reverse=True):
            raise ProfileError(
                "[roofline] caches must grow in size and must not grow in speed, main memory last; "
                f"they have {sizes} bytes and {speeds} bytes a second"
            )

    def price(self, kernel: KernelSignature, *, threads: int = 1) -> tuple[float, float]:
        """Microseconds that a kernel should take, and how far that may be off, as a share.

        Args:
            kernel: what runs.
            threads: cores that share its work.
        """
        family = family_of(kernel)
        peak = self.macs_per_s.get(form_of(kernel), self.macs_per_s["f32"])
        cores = 1.0 + (threads - 1) * self.thread_share
        compute = work_of(kernel) / (peak * self.efficiency[family] * cores * kernel.speedup)
        moved = kernel.activation_bytes + kernel.weight_bytes
        speed = next((c.bytes_per_s for c in self.caches if c.size_bytes >= moved), None)
        speed = self.dram_bytes_per_s if speed is None else speed
        memory = kernel.activation_bytes / speed
        memory += kernel.weight_bytes / (self.weight_bytes_per_s or speed)
        return 1e6 * max(compute, memory) + self.kernel_us, self.error[family]

    def to_toml(self) -> dict[str, Any]:
        """The ``[roofline]`` table."""
        return {
            "dram_bytes_per_s": self.dram_bytes_per_s,
            "weight_bytes_per_s": self.weight_bytes_per_s,
            "kernel_us": self.kernel_us,
            "thread_share": self.thread_share,
            "macs_per_s": dict(self.macs_per_s),
            "efficiency": dict(self.efficiency),
            "error": dict(self.error),
            "caches": [
                {"name": c.name, "size_bytes": c.size_bytes, "bytes_per_s": c.bytes_per_s}
                for c in self.caches
            ],
        }

    @classmethod
    def from_toml(cls, value: object) -> Roofline:
        """The roofline of a ``[roofline]`` table.

        Raises:
            ProfileError: a key is unknown or missing, or a figure cannot be.
        """
        section = Section(value, "roofline")
        caches = []
        for level in section.tables("caches"):
            found = MemoryLevel(
                level.text("name"),
                level.whole("size_bytes", above=0),
                level.number("bytes_per_s", above=0.0),
            )
            level.done()
            caches.append(found)
        made = cls(
            macs_per_s=section.numbers("macs_per_s", known=FORMS, needed=("f32",)),
            efficiency=section.numbers("efficiency", known=FAMILIES, needed=FAMILIES),
            error=section.numbers("error", known=FAMILIES, needed=FAMILIES),
            dram_bytes_per_s=section.number("dram_bytes_per_s", above=0.0),
            caches=tuple(caches),
            weight_bytes_per_s=section.number("weight_bytes_per_s", 0.0),
            kernel_us=section.number("kernel_us", 0.0),
            thread_share=section.number("thread_share", 0.8),
        )
        section.done()
        return made


def family_of(kernel: KernelSignature) -> str:
    """One of :data:`FAMILIES`."""
    weight = kernel.weight
    if "Conv" in kernel.op_type and weight is not None:
        group = dict(kernel.attributes).get("group", 1)
        if isinstance(group, int) and group > 1 and weight.shape[1] == 1:
            return "depthwise"
        return "conv1x1" if prod(weight.shape[2:]) == 1 else "conv3x3"
    if any(name in kernel.op_type for name in ("Gemm", "MatMul")):
        return "linear"
    return "elementwise"


def form_of(kernel: KernelSignature) -> str:
    """The form in which it computes: that of its weights, else of what it reads."""
    first = next((t for t in kernel.inputs if t is not None), None)
    tensor = kernel.weight or first
    return _FORM_OF.get(tensor.dtype, "f32") if tensor is not None else "f32"


def work_of(kernel: KernelSignature) -> int:
    """Multiply-accumulates; of kernels without weights, the values that they look at."""
    family = family_of(kernel)
    if family != "elementwise":
        if kernel.weight is not None:
            return kernel.macs
        inner = kernel.inputs[0].shape[-1] if kernel.inputs and kernel.inputs[0] else 1
        return prod(kernel.outputs[0].shape) * inner
    window = dict(kernel.attributes).get("kernel_shape", ())
    area = prod(int(n) for n in window) if isinstance(window, tuple) else 1
    made = sum(prod(t.shape) for t in kernel.outputs)
    read = sum(prod(t.shape) for t in kernel.inputs if t is not None and not t.constant)
    return max(made * area, read)
