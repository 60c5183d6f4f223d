"""Instruments that tell how much energy was drawn: RAPL for processors, NVML for NVIDIA GPUs.

RAPL counts microjoules of a processor package (Linux's powercap, ``/sys/class/powercap``; readable
by root only on many systems). NVML counts millijoules of a board since its driver was loaded. Both
count everything on the package or board, whoever caused it: measure on an idle machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from autocompress.errors import DeviceError

POWERCAP = Path("/sys/class/powercap")
_RAPL = "intel-rapl:"  # AMD's processors use the same name


class EnergyMeter(Protocol):
    """Counts energy. Use it from one thread; read it at least once a minute, or it may wrap."""

    @property
    def name(self) -> str:
        """What it is, and of what."""
        ...

    def read_mj(self) -> float:
        """Millijoules since it was made; never falls.

        Raises:
            DeviceError: it can no longer be read.
        """
        ...


class RaplMeter:
    """The packages of a processor.

    Args:
        packages: their folders below ``/sys/class/powercap``.

    Raises:
        DeviceError: one cannot be read.
    """

    def __init__(self, packages: Sequence[Path]) -> None:
        self._last = {p: _number(p / "energy_uj") for p in packages}
        self._range = {p: _number(p / "max_energy_range_uj") for p in packages}
        self._total = 0

    @property
    def name(self) -> str:
        """Such as "RAPL package-0"."""
        return "RAPL " + ", ".join(_text(p / "name") for p in self._last)

    def read_mj(self) -> float:
        """Millijoules of all packages since the meter was made; counters that wrapped are mended.

        Raises:
            DeviceError: a counter can no longer be read.
        """
        for package, before in self._last.items():
            now = _number(package / "energy_uj")
            wrapped = self._range[package] + 1 if now < before else 0
            self._total += now - before + wrapped
            self._last[package] = now
        return self._total / 1e3


class NvmlMeter:
    """An NVIDIA board of the Volta generation or later.

    Args:
        nvml: the module ``pynvml``, initialised.
        index: which board.

    Raises:
        DeviceError: the board does not count energy.
    """

    def __init__(self, nvml: Any, index: int = 0) -> None:
        self._nvml = nvml
        try:
            self._board = nvml.nvmlDeviceGetHandleByIndex(index)
            self._start = float(nvml.nvmlDeviceGetTotalEnergyConsumption(self._board))
            found = nvml.nvmlDeviceGetName(self._board)
        except nvml.NVMLError as error:
            raise DeviceError(f"NVML cannot count the energy of GPU {index}: {error}") from error
        self._name = found.decode() if isinstance(found, bytes) else str(found)

    @property
    def name(self) -> str:
        """Such as "NVML NVIDIA A10"."""
        return f"NVML {self._name}"

    def read_mj(self) -> float:
        """Millijoules of the board since the meter was made.

        Raises:
            DeviceError: the driver no longer answers.
        """
        try:
            now = float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._board))
        except self._nvml.NVMLError as error:
            raise DeviceError(f"{self.name} can no longer be read: {error}") from error
        return now - self._start


@dataclass(frozen=True, slots=True)
class Instruments:
    """What there is to measure energy with.

    Attributes:
        meters: what can be read.
        absent: for each instrument that cannot, why.
    """

    meters: tuple[EnergyMeter, ...]
    absent: tuple[str, ...]


def find_meters(root: Path = POWERCAP, nvml: str = "pynvml") -> Instruments:
    """The instruments of this machine, and why others are missing; never fails.

    Args:
        root: where powercap's folders are.
        nvml: the module that talks to NVIDIA's driver.
    """
    meters: list[EnergyMeter] = []
    absent = []
    tries: tuple[tuple[Callable[[Any], EnergyMeter], Any], ...] = ((_rapl, root), (_nvml, nvml))
    for find, place in tries:
        try:
            meters.append(find(place))
        except DeviceError as error:
            absent.append(str(error))
    return Instruments(tuple(meters), tuple(absent))


def _rapl(root: Path) -> EnergyMeter:
    # "intel-rapl:0" is a package; "intel-rapl:0:1" a part of it, already counted
    packages = sorted(p for p in root.glob(f"{_RAPL}*") if p.name.count(":") == 1)
    if not packages:
        raise DeviceError(f"no RAPL: {root} has no {_RAPL}* (virtual machines rarely do)")
    return RaplMeter(packages)


def _nvml(module: str) -> EnergyMeter:
    try:
        nvml = import_module(module)
    except ImportError as error:
        raise DeviceError(f"no NVML: {error}; for NVIDIA GPUs: pip install nvidia-ml-py") from error
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        raise DeviceError(f"no NVML: {error}") from error
    return NvmlMeter(nvml)


@dataclass(frozen=True, slots=True)
class EnergyMeasurement:
    """Energy of a call, everything else on the package or board included.

    Attributes:
        energy_mj: millijoules a call.
        calls: how many were made.
        seconds: how long they took.
        meter: what was read.
    """

    energy_mj: float
    calls: int
    seconds: float
    meter: str


def measure_energy(
    call: Callable[[], object],
    meter: EnergyMeter,
    *,
    min_calls: int = 10,
    min_seconds: float = 2.0,
    clock: Callable[[], float] = time.monotonic,
) -> EnergyMeasurement:
    """Call again and again, and share out what the meter counted meanwhile.

    Args:
        call: what to measure; warm it up before.
        meter: counts energy.
        min_calls: at least so many calls,
        min_seconds: and at least so long: RAPL counts every millisecond, NVML less often.
        clock: seconds.

    Raises:
        DeviceError: the meter counted nothing.
    """
    before, began = meter.read_mj(), clock()
    calls = 0
    while calls < min_calls or clock() - began < min_seconds:
        call()
        calls += 1
    drawn, seconds = meter.read_mj() - before, clock() - began
    if drawn <= 0:
        raise DeviceError(
            f"{meter.name} counted nothing in {seconds:.3g} s; measure for longer, or elsewhere"
        )
    return EnergyMeasurement(drawn / calls, calls, seconds, meter.name)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DeviceError(f"no RAPL: {path} cannot be read ({error}); try as root") from error


def _number(path: Path) -> int:
    text = _text(path)
    if not text.isdecimal():
        raise DeviceError(f"no RAPL: {path} holds {text!r}, not a number")
    return int(text)
