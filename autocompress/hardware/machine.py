"""What this machine is, and where it keeps what was measured on it."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

#: Instruction sets that change which kernels a runtime picks.
_FLAGS = {
    "avx2": "avx2",
    "avx512f": "avx512f",
    "avx512_vnni": "avx512_vnni",
    "avx_vnni": "avx_vnni",
    "avx512_bf16": "avx512_bf16",
    "amx_int8": "amx_int8",
    "asimd": "neon",
    "asimddp": "dotprod",
    "i8mm": "i8mm",
    "sve": "sve",
}


@dataclass(frozen=True, slots=True)
class Cluster:
    """Cores of one kind.

    Attributes:
        name: such as "Cortex-A76".
        cores: how many.
        mhz: highest clock in MHz.
    """

    name: str
    cores: int
    mhz: float


@dataclass(frozen=True, slots=True)
class Machine:
    """A computer as far as latency is concerned; ``[device]`` of a profile.

    Attributes:
        cpu: the processor's name.
        architecture: such as "x86_64".
        isa: instruction sets, sorted.
        cores: logical processors.
        memory_bytes: main memory; 0 where it cannot be told.
        detail: family, model and stepping, where the name alone does not tell processors apart.
        soc: the system on a chip, where it has a name of its own.
        clusters: its cores by kind, the fastest first.
        flash_bytes: memory that models are stored in, where it bounds them.
        cooling: such as "passive" or "fan, 60 C".
    """

    cpu: str
    architecture: str
    isa: tuple[str, ...]
    cores: int
    memory_bytes: int
    detail: str = ""
    soc: str | None = None
    clusters: tuple[Cluster, ...] = ()
    flash_bytes: int | None = None
    cooling: str | None = None


def describe_machine() -> Machine:
    """This machine."""
    fields: dict[str, str] = {}
    path = Path("/proc/cpuinfo")
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            fields.setdefault(name.strip(), value.strip())
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    name = fields.get("model name") or fields.get("CPU part") or platform.processor()
    detail = "-".join(fields[key] for key in ("cpu family", "model", "stepping") if key in fields)
    return Machine(
        cpu=name or platform.machine() or "unknown",
        architecture=platform.machine(),
        isa=tuple(sorted(short for flag, short in _FLAGS.items() if flag in flags)),
        cores=os.cpu_count() or 1,
        memory_bytes=_memory_bytes(),
        detail=detail,
    )


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 0


def cache_folder() -> Path:
    """Where measured tables are kept: ``AUTOCOMPRESS_CACHE``, else the user's cache folder."""
    own = os.environ.get("AUTOCOMPRESS_CACHE")
    if own:
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    root = Path(base).expanduser() if base else Path.home() / ".cache"
    return root / "autocompress"


def slug(text: str) -> str:
    """``text`` as a lower-case identifier for folders."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_") or "unknown"
