"""Latency tables on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocompress.errors import ProfileError
from autocompress.hardware.latency_row import RESOLUTION_US
from autocompress.hardware.table import COLUMNS, LatencyRow, LatencyTable
from tests.unit.hardware.helpers import row, table_kernels

ROWS = [row(kernel) for kernel in table_kernels(3)]
TEXT = LatencyTable(ROWS).to_csv()


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "latency.csv"
    sha256 = LatencyTable(ROWS).save(path)
    again = LatencyTable.load(path, sha256=sha256)
    assert sorted(again, key=lambda r: r.kernel.key) == sorted(ROWS, key=lambda r: r.kernel.key)
    assert [p.name for p in tmp_path.iterdir()] == ["latency.csv"]


@given(st.lists(st.floats(0, 1e6), min_size=4, max_size=4))
def test_times_survive_to_a_tenth_of_a_nanosecond(times: list[float]) -> None:
    low, ctx, hot, high = (max(RESOLUTION_US, value) for value in sorted(times))
    made = LatencyRow(ROWS[0].kernel, hot, ctx, low, high, 1, "2026-01-01", "test")
    (again,) = LatencyTable.parse(LatencyTable([made]).to_csv())
    assert again.hot_us == pytest.approx(made.hot_us, abs=1e-4)


def test_later_rows_replace_earlier_ones() -> None:
    table = LatencyTable(ROWS)
    table.add(ROWS[:1])
    assert len(table) == len(ROWS)
    assert ROWS[0].kernel in table
    assert table.get(ROWS[0].kernel) == ROWS[0]


@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_truncated_files(keep: float) -> None:
    with pytest.raises(ProfileError, match="line"):
        LatencyTable.parse(TEXT[: int(len(TEXT) * keep)])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("kernel,", "colonel,", "line 1"),
        (f",{ROWS[0].runs},", ",0,", "line 2: runs"),
        (",test\n", ",test,more\n", "9 fields"),
        ("#rows", "#lines", "truncated"),
        (f"#rows,{len(ROWS)}", "#rows,1", "the last line says '1'"),
    ],
    ids=lambda text: repr(text)[:20],
)
def test_altered_files(old: str, new: str, message: str) -> None:
    with pytest.raises(ProfileError, match=message):
        LatencyTable.parse(TEXT.replace(old, new, 1))


@pytest.mark.parametrize("value", ["nan", "inf", "-1.0", "fast"])
def test_nonsense_times(value: str) -> None:
    text = ",".join(COLUMNS) + f"\nRelu|f32[1]|f32[1]|,{value},1,1,1,3,2026-01-01,x\n#rows,1\n"
    with pytest.raises(ProfileError, match="line 2"):
        LatencyTable.parse(text)


def test_another_file_than_the_profile_was_written_with(tmp_path: Path) -> None:
    path = tmp_path / "latency.csv"
    LatencyTable(ROWS).save(path)
    with pytest.raises(ProfileError, match="SHA-256"):
        LatencyTable.load(path, sha256="0" * 64)


def test_missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="cannot read"):
        LatencyTable.load(tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ProfileError, match="cannot read"):
        LatencyTable.load(tmp_path / "binary.csv")
