"""From a results file to a profile: what is believed, what is refused, what is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autocompress.errors import AutocompressError, DeviceError, ProfileError, RequestError
from autocompress.hardware.profile import HardwareProfile
from autocompress.measurement.pack import BenchPack
from autocompress.measurement.remote.importing import Imported, import_results, is_of_pack
from autocompress.measurement.remote.results import finished_keys, read_results
from tests.unit.measurement.remote.packs import quick_pack, relu

NETWORKS = 6
Row = dict[str, Any]


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> BenchPack:
    path = tmp_path_factory.mktemp("pack") / "bench.zip"
    return quick_pack(path, kernels=[relu(4)], networks=NETWORKS, rounds=2)


def timing(value_us: float) -> Row:
    return {
        "value_us": value_us,
        "low_us": value_us * 0.9,
        "high_us": value_us * 1.2,
        "runs": 50,
        "batches": 9,
        "dropped": 1,
        "passes_us": [value_us, value_us * 1.1],
    }


def session_row(pack: BenchPack) -> Row:
    return {
        "kind": "session",
        "schema_version": 1,
        "pack": pack.id,
        "machine": {
            "board": "Test Board 4",
            "cpu": "Cortex-A72",
            "architecture": "aarch64",
            "isa": ["neon"],
            "cores": 4,
            "mhz": [1500.0],
            "memory_bytes": 4_000_000_000,
            "detail": "",
            "system": "Linux 6.6",
        },
        "runtime": {"name": "onnxruntime", "version": "1.24.0"},
        "python": "3.11.2",
        "numpy": "2.0",
        "notes": [],
    }


def job_row(pack: BenchPack, key: str, **changes: Any) -> Row:
    """A row as the runner writes it: 10 us a kernel and 2 us for the run without kernels."""
    job, threads, turn = key.split("/")
    row: Row = {
        "kind": "job",
        "pack": pack.id,
        "key": key,
        "job": job,
        "threads": int(threads[1:]),
        "round": int(turn[1:]),
        "chunk": 1,
        "clock": "thread_cpu",
        "slowdown": 1.0,
        "throttled": False,
        "at": "2026-11-22T10:00:00Z",
    }
    if job in pack.networks:
        kernels = pack.networks[job].kernels
        total = 2.0 + sum(0.3 if k.is_view else 10.0 for k in kernels)
        row["timings"] = {"empty": timing(2.0), "model": timing(total)}
        executed: dict[str, int] = {}
        for kernel in kernels:
            executed[kernel.op_type] = executed.get(kernel.op_type, 0) + 1
        row["executed"] = executed
    else:
        row["timings"] = {"empty": timing(2.0), "hot": timing(12.0), "copies": timing(42.0)}
    return row | changes


def rows_for(pack: BenchPack) -> list[Row]:
    return [session_row(pack), *(job_row(pack, key) for key in pack.keys)]


def written(folder: Path, rows: list[Row]) -> Path:
    path = folder / "results.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def imported(pack: BenchPack, path: Path) -> Imported:
    return import_results(pack, read_results(path, pack), identifier="my_board", threads=1)


def test_a_complete_profile(pack: BenchPack, tmp_path: Path) -> None:
    found = imported(pack, written(tmp_path, rows_for(pack)))
    profile, coverage = found.profile, found.coverage
    assert coverage.status == "complete"
    assert (coverage.kernels, coverage.networks) == (len(pack.kernels), NETWORKS)
    assert coverage.as_lowered == coverage.inspected == NETWORKS
    assert profile.machine.cpu == "Cortex-A72"
    assert profile.description == "Test Board 4, Cortex-A72 (neon), 1 thread(s)"
    assert (profile.runtime.version, profile.runtime.run_us) == ("1.24.0", 2.0)
    row = profile.table.get(relu(4))
    assert row is not None
    assert (row.hot_us, row.ctx_us) == (10.0, 10.0)  # (12 - 2) and (42 - 2) / 4
    assert row.runs == 2 * (50 + 50)
    # the truth is a sum of kernels here, so that the formula finds it
    assert profile.calibration.networks == profile.validation.networks == NETWORKS
    assert profile.validation.worst < 0.1
    profile.save(tmp_path / "my_board")
    assert HardwareProfile.load(tmp_path / "my_board").table.to_csv() == profile.table.to_csv()
    assert is_of_pack(tmp_path / "my_board", pack)
    assert not is_of_pack(tmp_path, pack)


def test_a_partial_profile_says_so(pack: BenchPack, tmp_path: Path) -> None:
    path = written(tmp_path, rows_for(pack)[: 1 + NETWORKS + 3])
    found = imported(pack, path)
    assert found.coverage.status == "partial"
    assert found.coverage.kernels == len(found.profile.table) == 3
    total = len(pack.kernels)
    assert f"partial: 3 of {total} kernels, {NETWORKS} of" in found.profile.provenance.source


def test_too_few_networks_fit_nothing(pack: BenchPack, tmp_path: Path) -> None:
    rows = [r for r in rows_for(pack) if r.get("job") not in list(pack.networks)[2:]]
    profile = imported(pack, written(tmp_path, rows)).profile
    assert profile.calibration.networks == 0
    assert profile.validation.networks == 0
    assert "not validated" in profile.summary


def test_throttled_figures_count_only_alone(pack: BenchPack, tmp_path: Path) -> None:
    first, second = list(pack.kernels)[:2]
    slow = {"empty": timing(2.0), "hot": timing(3.0)}  # faster, so that it would win
    rows = rows_for(pack)
    for one in rows:
        if one.get("key") == f"{first}/t1/r1":
            one |= {"throttled": True, "timings": slow}
        if one.get("job") == second:
            one |= {"throttled": True}
    found = imported(pack, written(tmp_path, rows))
    row = found.profile.table.get(pack.kernels[first])
    assert row is not None
    assert row.hot_us == 10.0
    assert pack.kernels[second] in found.profile.table
    assert found.coverage.throttled == 1
    assert "1 measured only while the core was throttled" in found.coverage.text


def test_what_failed_is_listed(pack: BenchPack, tmp_path: Path) -> None:
    job, kernel = next(iter(pack.kernels.items()))
    rows = rows_for(pack)
    for row in rows:
        if row.get("job") == job:
            del row["timings"]
            row |= {"error": "not implemented\x1b[31m"}
    found = imported(pack, written(tmp_path, rows))
    assert found.coverage.failed == ((kernel.key, "not implemented [31m"),)
    assert found.coverage.status == "complete"
    assert kernel not in found.profile.table


def test_other_kernels_than_expected_are_told(pack: BenchPack, tmp_path: Path) -> None:
    rows = rows_for(pack)
    for row in rows:
        if "executed" in row:
            row["executed"] = {"FusedConv": 3}
    text = imported(pack, written(tmp_path, rows)).coverage.text
    assert f"{NETWORKS} of {NETWORKS} networks ran as other kernels" in text


def test_the_wall_clock_is_told(pack: BenchPack, tmp_path: Path) -> None:
    rows = [row | {"clock": "wall"} if row["kind"] == "job" else row for row in rows_for(pack)]
    profile = imported(pack, written(tmp_path, rows)).profile
    assert profile.provenance.protocol["kernels"]["clock"] == "wall"


def test_a_torn_last_line_is_dropped(pack: BenchPack, tmp_path: Path) -> None:
    path = written(tmp_path, rows_for(pack))
    path.write_bytes(path.read_bytes()[:-5])
    assert len(read_results(path, pack).jobs) == len(pack.keys) - 1
    assert len(finished_keys(path)) == len(pack.keys) - 1
    assert finished_keys(tmp_path / "none") == set()


def test_nothing_to_import(pack: BenchPack, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="cannot read"):
        read_results(tmp_path / "none", pack)
    with pytest.raises(ProfileError, match="holds no session"):
        read_results(written(tmp_path, []), pack)
    with pytest.raises(RequestError, match="nothing was measured with 1 thread"):
        imported(pack, written(tmp_path, [session_row(pack)]))
    rows = [session_row(pack), job_row(pack, pack.keys[0])]
    with pytest.raises(DeviceError, match="brought no kernel's time"):
        imported(pack, written(tmp_path, rows))


def change(row: Row, path: str, value: Any) -> Row:
    """A copy of a row with another value at ``a/b/c``."""
    copy: Row = json.loads(json.dumps(row))
    *parents, last = path.split("|")
    place = copy
    for name in parents:
        place = place[name]
    place[last] = value
    return copy


@pytest.mark.parametrize(
    ("where", "value", "error", "words"),
    [
        pytest.param("pack", "0" * 64, RequestError, "another bench pack", id="pack"),
        pytest.param("kind", "joke", ProfileError, "kind is 'joke'", id="kind"),
        pytest.param("job", "k9999", ProfileError, "key is", id="job"),
        pytest.param("threads", 0, ProfileError, "at least 1", id="threads"),
        pytest.param("threads", True, ProfileError, "whole number", id="bool"),
        pytest.param("clock", "sundial", ProfileError, "clock is 'sundial'", id="clock"),
        pytest.param("timings", {}, ProfileError, "either timings or an error", id="nothing"),
        pytest.param("timings", {"hot": timing(1.0)}, ProfileError, "timings are", id="no-empty"),
        pytest.param("timings|hot|value_us", -1.0, ProfileError, "not negative", id="negative"),
        pytest.param("timings|hot|value_us", float("nan"), ProfileError, "finite", id="nan"),
        pytest.param("timings|hot|value_us", 10**400, ProfileError, "OverflowError", id="huge"),
        pytest.param("timings|hot|value_us", "1", ProfileError, "no number", id="text"),
        pytest.param("timings|hot|runs", 0, ProfileError, "at least 1", id="runs"),
        pytest.param("executed", {"Conv": -1}, ProfileError, "at least 0", id="executed"),
    ],
)
def test_a_damaged_line_is_named(
    pack: BenchPack,
    tmp_path: Path,
    where: str,
    value: Any,
    error: type[AutocompressError],
    words: str,
) -> None:
    rows = rows_for(pack)
    number = next(i for i, row in enumerate(rows) if row.get("job") in pack.kernels)
    rows[number] = change(rows[number], where, value)
    with pytest.raises(error, match=words) as raised:
        read_results(written(tmp_path, rows), pack)
    assert f"line {number + 1}" in str(raised.value)


def test_two_devices_in_one_file(pack: BenchPack, tmp_path: Path) -> None:
    other = change(session_row(pack), "machine|cpu", "Cortex-A76")
    with pytest.raises(ProfileError, match="mixes two devices"):
        read_results(written(tmp_path, [*rows_for(pack), other]), pack)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damage_is_refused_or_harmless(pack: BenchPack, tmp_path: Path, data: Any) -> None:
    """Any bytes changed: a clear error, or a profile whose figures are finite."""
    path = written(tmp_path, rows_for(pack)[:12])
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw[: data.draw(st.integers(len(raw) // 2, len(raw)))])
    try:
        found = imported(pack, path)
    except AutocompressError:
        return
    assert all(0 <= row.hot_us < float("inf") for row in found.profile.table)
