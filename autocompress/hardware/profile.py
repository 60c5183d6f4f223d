"""A device on disk: ``profile.toml`` says what it is, ``latency.csv`` what its kernels take."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from autocompress.core.capabilities import CPU_PRECISIONS, Capabilities, Precision
from autocompress.core.files import write_atomically
from autocompress.errors import ProfileError
from autocompress.hardware.calibration import Calibration
from autocompress.hardware.energy import EnergyModel
from autocompress.hardware.limits import Limits
from autocompress.hardware.machine import Machine
from autocompress.hardware.memory_model import MemoryModel
from autocompress.hardware.roofline import Roofline
from autocompress.hardware.table import LatencyTable

ID_PATTERN = re.compile(r"[a-z0-9][a-z0-9_]*")
PROFILE_FILE = "profile.toml"
TABLE_FILE = "latency.csv"
FORMAT = 1
#: Optional sections, each with what reads and writes it.
_MODELS: dict[str, Any] = {
    "roofline": Roofline,
    "memory": MemoryModel,
    "energy": EnergyModel,
    "limits": Limits,
}
#: Later names of two keys.
_RENAMED = {"schema_version": "format", "device": "machine"}
_T = TypeVar("_T")
_PLAIN: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "bool": (bool,),
}

Kind = Literal["measured", "analytic", "transferred", "simulated"]
#: Kinds whose figures no clock on such a device has ever seen.
_UNSEEN = frozenset({"analytic", "simulated"})


@dataclass(frozen=True, slots=True)
class RuntimeSpec:
    """What executes the models.

    Attributes:
        name: the runtime's lookup name.
        version: its version.
        threads: intra-op threads.
        options: everything else that changes the speed.
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
        protocol: the timing protocol as plain values.
        sources: publications and data sheets that figures were taken from.
    """

    date: str = ""
    source: str = ""
    protocol: Mapping[str, Any] = field(default_factory=dict)
    sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class HardwareProfile:
    """A device: what it is, what it runs well, its measured kernels and their provenance.

    Attributes:
        id: lower-case identifier; the folder's name.
        description: one line for a person.
        kind: "measured"; "transferred" from measured ones; "analytic" (from data sheets) or
            "simulated" when no figure was measured on it.
        machine: processor, instruction sets, cores, memory.
        runtime: what executes the models.
        capabilities: what a search can exploit on it.
        calibration: from kernel times to network times.
        validation: how wrong the estimates were.
        provenance: where the figures come from.
        table: the kernels' times.
        roofline: prices kernels that the table lacks; None leaves them to those alike.
        memory: how activations are laid out; None for what most runtimes do.
        energy: what an inference costs; None where nobody knows.
        limits: what the device has room for.
    """

    id: str
    description: str
    kind: Kind
    machine: Machine
    runtime: RuntimeSpec = field(default_factory=RuntimeSpec)
    capabilities: Capabilities = field(default_factory=Capabilities)
    calibration: Calibration = field(default_factory=Calibration)
    validation: Validation = field(default_factory=Validation)
    provenance: Provenance = field(default_factory=Provenance)
    table: LatencyTable = field(default_factory=LatencyTable, compare=False)
    roofline: Roofline | None = None
    memory: MemoryModel | None = None
    energy: EnergyModel | None = None
    limits: Limits | None = None

    def __post_init__(self) -> None:
        if not ID_PATTERN.fullmatch(self.id):
            raise ProfileError(
                f"profile id is {self.id!r}; use lower-case letters, digits and underscores, "
                "starting with a letter or digit"
            )
        if self.kind not in get_args(Kind):
            raise ProfileError(
                f"profile kind is {self.kind!r}; use one of {', '.join(get_args(Kind))}"
            )

    @property
    def is_local(self) -> bool:
        """Whether it stands for this machine, where what is missing can be measured."""
        return self.id == "local"

    @property
    def proves_constraints(self) -> bool:
        """Whether its latencies can show that a bound is met, rather than lead one to expect it."""
        return self.kind not in _UNSEEN

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
            StorageError: the folder cannot be written.
        """
        import tomli_w

        sha256 = self.table.save(folder / TABLE_FILE)
        value = self._to_toml() | {"table": {"sha256": sha256, "rows": len(self.table)}}
        write_atomically(folder / PROFILE_FILE, tomli_w.dumps(value))

    def _to_toml(self) -> dict[str, Any]:
        supports = asdict(self.capabilities)
        supports["precisions"] = [asdict(p) for p in self.capabilities.precisions]
        machine = asdict(self.machine)
        machine["isa"] = list(self.machine.isa)
        provenance = asdict(replace(self.provenance, protocol=dict(self.provenance.protocol)))
        provenance["sources"] = list(self.provenance.sources)
        parts = {name: getattr(self, name) for name in _MODELS}
        return {
            "format": FORMAT,
            "id": self.id,
            "description": self.description,
            "kind": self.kind,
            "machine": machine,
            "runtime": asdict(replace(self.runtime, options=dict(self.runtime.options))),
            "supports": supports,
            "calibration": self.calibration.to_json(),
            "validation": asdict(self.validation),
            "provenance": provenance,
            **{name: part.to_toml() for name, part in parts.items() if part is not None},
        }

    @classmethod
    def load(cls, folder: Path) -> HardwareProfile:
        """Read a profile's folder.

        Raises:
            ProfileError: a file is missing, truncated, altered, or says what is not understood.
        """
        path = folder / PROFILE_FILE
        try:
            value = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ProfileError(
                f"{folder} holds no {PROFILE_FILE}; give the folder of a profile"
            ) from None
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ProfileError(
                f"cannot read {path}: {error}; restore it, or measure the device again"
            ) from error
        try:
            return cls._from_toml(value, folder)
        except (KeyError, TypeError, ValueError) as error:
            raise ProfileError(
                f"{path} is truncated or not understood: {type(error).__name__}: {error}"
            ) from error

    @classmethod
    def _from_toml(cls, value: dict[str, Any], folder: Path) -> HardwareProfile:
        value = {_RENAMED.get(name, name): item for name, item in value.items()}
        if value["format"] != FORMAT:
            raise ProfileError(
                f"{folder / PROFILE_FILE} has format {value['format']!r}; this version reads "
                f"{FORMAT}: update autocompress, or measure the device again"
            )
        supports = dict(value["supports"])
        supports["precisions"] = (
            tuple(
                _build(Precision, p, "supports.precisions") for p in supports.get("precisions", [])
            )
            or CPU_PRECISIONS
        )
        machine = dict(value["machine"])
        machine["isa"] = tuple(machine.get("isa", ()))
        provenance = dict(value["provenance"])
        provenance["sources"] = tuple(provenance.get("sources", ()))
        listed = value["table"]
        table = LatencyTable.load(folder / TABLE_FILE, sha256=str(listed["sha256"]))
        if len(table) != listed["rows"]:
            raise ProfileError(f"{folder / TABLE_FILE} has {len(table)} rows, not {listed['rows']}")
        return cls(
            id=str(value["id"]),
            description=str(value["description"]),
            kind=value["kind"],
            machine=_build(Machine, machine, "machine"),
            runtime=_build(RuntimeSpec, value["runtime"], "runtime"),
            capabilities=_build(Capabilities, supports, "supports"),
            calibration=Calibration.from_json(value["calibration"]),
            validation=_build(Validation, value["validation"], "validation"),
            provenance=_build(Provenance, provenance, "provenance"),
            table=table,
            **{key: part.from_toml(value[key]) for key, part in _MODELS.items() if key in value},
        )


def _build(kind: type[_T], value: Mapping[str, Any], where: str) -> _T:
    """An instance of a dataclass; unknown keys are ignored, wrong types are not."""
    if not isinstance(value, Mapping):
        raise ProfileError(f"[{where}] is {value!r}; it must be a table")
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    given = {name: item for name, item in value.items() if name in known}
    for name, item in given.items():
        expected = str(known[name].type)
        plain = _PLAIN.get(expected)
        wrong = plain is not None and not isinstance(item, plain)
        if wrong or (isinstance(item, bool) and expected in {"int", "float"}):
            raise ProfileError(f"[{where}] {name} is {item!r}; it must be of type {expected}")
    return kind(**given)
