"""Energy instruments, on made-up counters."""

from __future__ import annotations

import sys
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from autocompress.errors import DeviceError
from autocompress.measurement.energy import (
    NvmlMeter,
    RaplMeter,
    find_meters,
    measure_energy,
)


def package(root: Path, name: str, energy_uj: int, range_uj: int = 1_000_000) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "name").write_text(name.replace("intel-rapl:", "package-") + "\n")
    (folder / "energy_uj").write_text(f"{energy_uj}\n")
    (folder / "max_energy_range_uj").write_text(f"{range_uj}\n")
    return folder


def fake_nvml(readings: list[float], *, broken: bool = False) -> Any:
    module: Any = ModuleType("fake_nvml")

    class NVMLError(Exception):
        pass

    def energy(_: object) -> float:
        if not readings:
            raise NVMLError("GPU is lost")
        return readings.pop(0)

    def init() -> None:
        if broken:
            raise NVMLError("driver not loaded")

    module.NVMLError = NVMLError
    module.nvmlInit = init
    module.nvmlDeviceGetHandleByIndex = lambda index: index
    module.nvmlDeviceGetName = lambda _: b"NVIDIA A10"
    module.nvmlDeviceGetTotalEnergyConsumption = energy
    return module


def test_rapl_adds_the_packages_and_mends_wrapped_counters(tmp_path: Path) -> None:
    first = package(tmp_path, "intel-rapl:0", 999_000)
    second = package(tmp_path, "intel-rapl:1", 100)
    package(tmp_path, "intel-rapl:0:0", 5)  # a part of the first package
    meter = RaplMeter([first, second])
    assert meter.name == "RAPL package-0, package-1"
    assert meter.read_mj() == 0.0
    (first / "energy_uj").write_text("999500")
    (second / "energy_uj").write_text("2100")
    assert meter.read_mj() == pytest.approx(2.5)
    (first / "energy_uj").write_text("499")  # 501 to the end of its range, then 499
    assert meter.read_mj() == pytest.approx(3.5)


def test_only_packages_count(tmp_path: Path) -> None:
    package(tmp_path, "intel-rapl:0", 10)
    package(tmp_path, "intel-rapl:0:0", 5)
    found = find_meters(tmp_path, "no_such_module")
    assert [meter.name for meter in found.meters] == ["RAPL package-0"]
    assert len(found.absent) == 1
    assert "no NVML: No module named 'no_such_module'" in found.absent[0]
    assert "pip install nvidia-ml-py" in found.absent[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(None, "energy_uj cannot be read", id="missing"),
        pytest.param("lots", "holds 'lots', not a number", id="no-number"),
    ],
)
def test_a_counter_that_cannot_be_read_is_absent(
    tmp_path: Path, text: str | None, message: str
) -> None:
    path = package(tmp_path, "intel-rapl:0", 10) / "energy_uj"
    path.unlink()
    if text is not None:
        path.write_text(text)
    found = find_meters(tmp_path, "no_such_module")
    assert found.meters == ()
    assert message in found.absent[0]


def test_a_machine_without_instruments_says_so(tmp_path: Path) -> None:
    found = find_meters(tmp_path / "nowhere", "no_such_module")
    assert found.meters == ()
    assert "no RAPL" in found.absent[0]
    assert "virtual machines rarely do" in found.absent[0]


def test_nvml(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "fake_nvml", fake_nvml([5_000.0, 5_250.0]))
    meter = find_meters(tmp_path, "fake_nvml").meters[0]
    assert meter.name == "NVML NVIDIA A10"
    assert meter.read_mj() == pytest.approx(250.0)
    with pytest.raises(DeviceError, match="can no longer be read: GPU is lost"):
        meter.read_mj()


def test_nvml_without_a_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "fake_nvml", fake_nvml([], broken=True))
    assert "no NVML: driver not loaded" in find_meters(tmp_path, "fake_nvml").absent[1]
    with pytest.raises(DeviceError, match="cannot count the energy of GPU 0"):
        NvmlMeter(fake_nvml([]))


class Meter:
    """Counts a fixed energy a call."""

    name = "a fake"

    def __init__(self, mj_per_call: float) -> None:
        self.per_call = mj_per_call
        self.total = 0.0

    def call(self) -> None:
        self.total += self.per_call

    def read_mj(self) -> float:
        return self.total


def test_energy_of_a_call() -> None:
    meter, ticks = Meter(1.5), count(step=0.25)
    found = measure_energy(
        meter.call, meter, min_calls=4, min_seconds=2.0, clock=lambda: next(ticks)
    )
    assert found.energy_mj == pytest.approx(1.5)
    assert found.calls >= 4
    assert found.seconds >= 2.0
    assert found.meter == "a fake"


def test_a_meter_that_counts_nothing() -> None:
    meter, ticks = Meter(0.0), count(step=0.25)
    with pytest.raises(DeviceError, match="a fake counted nothing"):
        measure_energy(meter.call, meter, clock=lambda: next(ticks))
