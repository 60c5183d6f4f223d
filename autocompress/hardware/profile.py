"""A device as values: what it is, what it runs well, what its kernels take, and who says so."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from autocompress.core.capabilities import Capabilities
from autocompress.core.local_device import LOCAL
from autocompress.errors import ProfileError
from autocompress.hardware.calibration import Calibration
from autocompress.hardware.energy import EnergyModel
from autocompress.hardware.limits import Limits
from autocompress.hardware.machine import Machine
from autocompress.hardware.memory_model import MemoryModel
from autocompress.hardware.roofline import Roofline
from autocompress.hardware.table import LatencyTable
from autocompress.hardware.work_scale import WorkScale

ID_PATTERN = re.compile(r"[a-z0-9][a-z0-9_]{0,99}")
PROFILE_FILE = "profile.toml"
TABLE_FILE = "latency.csv"

Kind = Literal["measured", "analytic", "transferred", "simulated"]
KINDS: tuple[str, ...] = get_args(Kind)


def is_free_id(name: str) -> bool:
    """Whether a profile that is written may be called so; ``"local"`` is this machine's own."""
    return ID_PATTERN.fullmatch(name) is not None and name != LOCAL


@dataclass(frozen=True, slots=True)
class RuntimeSpec:
    """What executes the models.

    Attributes:
        name: the runtime's lookup name.
        version: its version.
        threads: intra-op threads.
        options: everything else that changes the speed, the execution provider included.
        lowering: rules by which operations become its kernels.
        run_us: microseconds of a run without kernels.
        view_us: microseconds of a kernel that only renames memory.
    """

    name: str = "onnxruntime"
    version: str = ""
    threads: int = 1
    options: Mapping[str, str] = field(default_factory=dict)
    lowering: str = "onnxruntime-cpu"
    run_us: float = 1.5
    view_us: float = 0.25


@dataclass(frozen=True, slots=True)
class Validation:
    """How wrong the estimates of networks were that took no part in the calibration.

    Attributes:
        networks: how many there were; 0 when nothing was validated.
        p50: median of the absolute relative errors.
        p90: nine in ten are below.
        worst: the largest.
        within5: share of networks within 5 %.
        within10: share within 10 %.
    """

    networks: int = 0
    p50: float = 0.06
    p90: float = 0.15
    worst: float = 0.3
    within5: float = 0.0
    within10: float = 0.0


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a profile's figures come from.

    Attributes:
        date: ISO date.
        source: one line: measured by what, or from which data sheet.
        protocol: the timing protocols as plain values; rows of the table name theirs.
        sources: citations and URLs of figures that were not measured.
        base: ids of the profiles it was transferred from.
    """

    date: str = ""
    source: str = ""
    protocol: Mapping[str, Any] = field(default_factory=dict)
    sources: tuple[str, ...] = ()
    base: tuple[str, ...] = ()


@dataclass(frozen=True)
class HardwareProfile:
    """A device: what it is, what it runs well, its kernels' times and their provenance.

    Attributes:
        id: lower-case identifier; the folder's name.
        description: one line for a person.
        kind: "measured" on the device, "analytic" from data sheets, "transferred" from other
            profiles and a few measurements, or "simulated". Only "measured" proves a constraint.
        machine: processor, instruction sets, cores, memory.
        runtime: what executes the models.
        capabilities: what a search can exploit on it.
        limits: what a model must stay below.
        calibration: from kernel times to network times.
        validation: how wrong the estimates were.
        provenance: where the figures come from.
        table: the kernels' times.
        roofline: prices kernels that the table lacks; None leaves them to those alike.
        scale: factors on prices by kind of work; None where the table is the device's own.
        memory: how activations are laid out; None for what most runtimes do.
        energy: what an inference costs; None where nobody knows.
    """

    id: str
    description: str
    kind: Kind
    machine: Machine
    runtime: RuntimeSpec = field(default_factory=RuntimeSpec)
    capabilities: Capabilities = field(default_factory=Capabilities)
    limits: Limits = field(default_factory=Limits)
    calibration: Calibration = field(default_factory=Calibration)
    validation: Validation = field(default_factory=Validation)
    provenance: Provenance = field(default_factory=Provenance)
    table: LatencyTable = field(default_factory=LatencyTable, compare=False)
    roofline: Roofline | None = None
    scale: WorkScale | None = None
    memory: MemoryModel | None = None
    energy: EnergyModel | None = None

    def __post_init__(self) -> None:
        if not ID_PATTERN.fullmatch(self.id):
            raise ProfileError(
                f"profile id is {self.id!r}; use lower-case letters, digits and underscores, "
                "starting with a letter or digit"
            )
        if self.kind not in KINDS:
            raise ProfileError(
                f"profile kind is {self.kind!r}; use {' or '.join(map(repr, KINDS))}"
            )

    @property
    def is_local(self) -> bool:
        """Whether it stands for this machine, where what is missing can be measured."""
        return self.id == LOCAL

    @property
    def proves_constraints(self) -> bool:
        """Whether its latencies can show that a bound is met, rather than lead one to expect it."""
        return self.kind == "measured"

    @property
    def summary(self) -> str:
        """One line: runtime, threads, kernels and the error of its estimates."""
        checked = self.validation
        error = (
            f"median error {checked.p50:.1%}, 90 % within {checked.p90:.1%} "
            f"({checked.networks} networks)"
            if checked.networks
            else "estimates not validated"
        )
        runtime = f"{self.runtime.name} {self.runtime.version}".strip()
        if self.kind == "analytic":
            return (
                f"{runtime}, {self.runtime.threads} thread(s), analytic: worked out from data "
                "sheets, never measured; no bound is proven"
            )
        return (
            f"{runtime}, {self.runtime.threads} thread(s), "
            f"{len(self.table)} kernels {self.kind}, {error}"
        )

    def save(self, folder: Path) -> None:
        """Write ``profile.toml`` and ``latency.csv`` into ``folder``.

        Raises:
            ProfileError: it holds what no reader would accept, such as a negative time.
            StorageError: the folder cannot be written.
        """
        from autocompress.hardware.profile_writing import write_profile

        write_profile(self, folder)

    @classmethod
    def load(cls, folder: Path) -> HardwareProfile:
        """Read a profile's folder.

        Raises:
            ProfileError: a file is missing, truncated, altered, or says what is not understood;
                the message names file, line and remedy.
        """
        from autocompress.hardware.profile_reading import read_folder

        return read_folder(folder)
