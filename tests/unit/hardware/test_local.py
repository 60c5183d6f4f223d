"""The cached table of this machine."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

from autocompress.errors import DeviceError, ProfileError
from autocompress.hardware import load_profile
from autocompress.hardware import local as module
from autocompress.hardware.local import LocalTable, local_profile
from autocompress.hardware.machine import cache_folder
from autocompress.hardware.predictor import LatencyPredictor
from autocompress.measurement.kernel_models import KernelTime
from autocompress.measurement.kernels import KernelSignature
from autocompress.runtimes.registry import load_runtime
from tests.unit.hardware.helpers import TinySpace, table_kernels

KERNELS = table_kernels(4)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AUTOCOMPRESS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keys of the kernels that were timed; the times are made up."""
    keys: list[str] = []

    def time_kernels(wanted, *_args, **_options):  # type: ignore[no-untyped-def]
        keys.extend(k.key for k in wanted)
        return [
            DeviceError("no such kernel") if k.op == "Nope" else KernelTime(1, 1, 1, 1, 5)
            for k in wanted
        ]

    monkeypatch.setattr(module, "time_kernels", time_kernels)
    return keys


def test_only_what_is_missing_is_measured_and_kept(timed: list[str]) -> None:
    first = LocalTable(load_runtime())
    assert first.measure([*KERNELS[:3], KERNELS[0]]) == 3
    again = LocalTable(load_runtime())
    assert len(again.table) == 3
    assert again.measure(KERNELS[:5]) == 2
    assert sorted(timed) == sorted(2 * [k.key for k in KERNELS[:5]])


def test_views_and_failures_are_not_tried_again(timed: list[str]) -> None:
    view = KernelSignature.parse("Flatten|u8[1,4,1,1]|u8[1,4]|")
    nope = KernelSignature.parse("Nope|f32[1]|f32[1]|")
    table = LocalTable(load_runtime())
    assert table.measure([view, nope]) == 0
    assert table.measure([view, nope]) == 0
    assert timed == [nope.key]
    assert "no such kernel" in table.failed[nope.key]


def test_the_deadline_and_the_progress(timed: list[str]) -> None:
    table, told = LocalTable(load_runtime()), []
    assert table.measure(KERNELS, deadline=time.monotonic() - 1) == 0
    table.measure(KERNELS[:9], progress=lambda *state: told.append(state))
    assert told == [(4, 9), (4, 9), (8, 9), (9, 9)]


def test_two_writers_lose_nothing(timed: list[str]) -> None:
    tables = [LocalTable(load_runtime()) for _ in range(4)]
    parts = [KERNELS[i::4] for i in range(4)]
    threads = [
        threading.Thread(target=t.measure, args=(p,)) for t, p in zip(tables, parts, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(LocalTable(load_runtime()).table) == len(KERNELS)


def test_a_corrupt_cache_is_put_aside(timed: list[str]) -> None:
    table = LocalTable(load_runtime())
    table.measure(KERNELS[:2])
    path = table.folder / "latency.csv"
    path.write_text(path.read_text()[:-20])
    assert len(LocalTable(load_runtime()).table) == 0
    assert list(table.folder.glob("*.corrupt"))


def test_tables_are_kept_apart_by_threads() -> None:
    one, two = (LocalTable(load_runtime(), threads=n) for n in (1, 2))
    assert one.folder != two.folder
    assert one.protocol.clock == "thread_cpu"
    assert two.protocol.clock == "wall"


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AUTOCOMPRESS_CACHE", str(tmp_path / "file"))
    with pytest.raises(ProfileError, match="AUTOCOMPRESS_CACHE"):
        LocalTable(load_runtime()).remember(x=1)


def test_the_local_profile_really_measures() -> None:
    space = TinySpace()
    ops = space.operations(space.original)
    predictor = LatencyPredictor.for_device(load_profile("local"))
    missing = predictor.missing(ops)
    assert missing
    before = predictor.estimate(ops)
    assert predictor.measure(missing[:4]) == 4
    assert len(predictor.missing(ops)) == len(missing) - 4
    assert predictor.estimate(ops).coverage > before.coverage
    predictor.calibrate([(ops, 0.05), (ops, 0.06)])
    again = local_profile()
    assert again.calibration.networks == 2
    assert again.validation.networks == 2
    state = next(cache_folder().rglob("state.json"))
    assert json.loads(state.read_text())["run_us"] > 0


def test_a_kernel_is_measured_twice_and_thrice_where_that_differs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steady, once, twice = KERNELS[:3]
    told = {steady.key: [10.0, 10.2], once.key: [10.0, 5.0, 9.9], twice.key: [7.0, 9.0, 9.2]}
    told = {key: list(reversed(times)) for key, times in told.items()}

    def time_kernels(group, *_args, **_options):  # type: ignore[no-untyped-def]
        times = [told[kernel.key].pop() for kernel in group]
        return [KernelTime(us, 1.1 * us, 0.9 * us, 1.2 * us, 20) for us in times]

    monkeypatch.setattr(module, "time_kernels", time_kernels)
    table = LocalTable(load_runtime())
    assert table.measure([steady, once, twice]) == 3
    assert not any(told.values())
    found = LocalTable(load_runtime()).table
    rows = [found.get(kernel) for kernel in (steady, once, twice)]
    assert [row.hot_us for row in rows if row] == [10.1, 9.9, 9.0]
    assert [row.runs for row in rows if row] == [40, 60, 60]
    assert all(row.fault is None for row in rows if row)


def test_what_was_measured_once_is_confirmed_later(timed: list[str]) -> None:
    cut, full = LocalTable(load_runtime()), KERNELS[:4]
    cut._round(full, None, module.tentative, lambda done: None)
    rows = [LocalTable(load_runtime()).table.get(k) for k in full]
    assert all(row is not None and module.is_tentative(row) for row in rows)
    again = LocalTable(load_runtime())
    assert again.measure(full) == 4
    assert sorted(timed) == sorted(2 * [k.key for k in full])
    confirmed = [LocalTable(load_runtime()).table.get(k) for k in full]
    assert not any(row is None or module.is_tentative(row) for row in confirmed)
    cut._round(full, None, module.tentative, lambda done: None)
    kept = [LocalTable(load_runtime()).table.get(k) for k in full]
    assert kept == confirmed  # one measurement does not replace two
