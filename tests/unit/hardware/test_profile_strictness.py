"""What a profile may not say: each is refused with the file, the line and what to do."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import tomli_w

from autocompress.errors import ProfileError
from autocompress.hardware.profile import PROFILE_FILE, TABLE_FILE, HardwareProfile
from autocompress.hardware.profile_reading import SCHEMA_VERSION
from autocompress.hardware.profile_rules import BOUNDS, REQUIRED_KEYS
from autocompress.hardware.profile_sections import SECTIONS
from tests.unit.hardware.profile_files import full_profile, rows, same, write_unsealed


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_unsealed(tmp_path / "board")
    return tmp_path / "board"


def _line_of(text: str, part: str) -> int:
    return text[: text.index(part)].count("\n") + 1


def test_every_optional_key_is_written_and_read(tmp_path: Path) -> None:
    made = full_profile()
    made.save(tmp_path)
    assert same(HardwareProfile.load(tmp_path), made)
    text = (tmp_path / PROFILE_FILE).read_text()
    assert text.startswith(f"schema_version = {SCHEMA_VERSION}\n")
    for key in ("soc", "clusters", "flash_bytes", "cooling", "ram_bytes", "sources", "base"):
        assert f"\n{key} = " in text


def test_a_profile_written_by_hand_needs_no_seal(folder: Path) -> None:
    assert same(HardwareProfile.load(folder), full_profile())


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("run_us =", "run_ms =", "unit is wrong: write 'run_us' and multiply the figure by 1000"),
        ("memory_bytes =", "memory_mib =", "multiply the figure by 1.04858e+06"),
        ("weight_us_per_mb =", "weight_us_mb =", "did you mean 'weight_us_per_mb'"),
        ("threads =", "thread =", "did you mean 'threads'"),
        ("cores = 4\nmem", "zzz = 4\nmem", "remove it, or use one of"),
        ("[limits]", "[limit]", "did you mean 'limits'"),
        ("[runtime.options]", "[runtime.option]", "did you mean 'options'"),
        ("mhz = 2400.0", "mhz = 2400000000.0", "must be from 1 to 20000"),
        ("mhz = 2400.0", "ghz = 2.4", "multiply the figure by 1000"),
        ("threads = 2", "threads = 0", "threads is 0; it must be from 1 to 4096"),
        ("threads = 2", 'threads = "two"', "threads is 'two'; it must be a whole number"),
        ("threads = 2", "threads = 2.0", "threads is 2.0; it must be a whole number"),
        ("run_us = 1.5", "run_us = -1.5", "run_us is -1.5; it must be at least 0"),
        ("run_us = 1.5", "run_us = nan", "run_us is nan; it must be a finite number"),
        ("run_us = 1.5", "run_us = true", "run_us is True; it must be a number"),
        ("a = 1.1", "a = 0.0", "a is 0.0; it must be more than 0"),
        ("p50 = 0.01", "p50 = 0.5", "p50 is 0.5, above p90, 0.02"),
        ("p90 = 0.02", "p90 = 0.5", "p90 is 0.5, above worst, 0.03"),
        ("within5 = 0.9", "within5 = 90.0", "within5 is 90.0; it must be from 0 to 1"),
        ("within10 = 1.0", "within10 = 0.5", "within5 is 0.9, above within10, 0.5"),
        ("channel_step = 8", "channel_step = 0", "it must be at least 1"),
        ("memory_bytes = 8589934592", "memory_bytes = 8", "write bytes, or 0"),
        ("cores = 4, ", "cores = 3, ", "have 3 cores together, but cores is 4"),
        ('"2026-01-31"', '"31.1.2026"', "write it as 2026-01-31"),
        ('kind = "measured"', 'kind = "guessed"', "use 'measured' or 'analytic'"),
        ('id = "board"', 'id = "../board"', "lower-case letters, digits and underscores"),
        ('"dotprod",', '"neon",', "names an instruction set twice"),
        ("passes = 5", "passes = 2026-01-31", "write numbers, texts"),
        ("min_seconds =", "min_ms =", "write 'min_seconds' and multiply the figure by 0.001"),
        ("weight_bits = 8", "weight_bits = 800", "must be from 1 to 64"),
        ("    { weight_bits = 8", "    8, { weight_bits = 8", "it must be a table"),
        ('"2:4" = 1.6', '"2:4" = 2.5', "2:4 is 2.5; it must be from 1 to 2: 0.5 of the multi"),
        ('"2:4" = 1.6', '"2:4" = 0.9', "2:4 is 0.9; it must be from 1 to 2"),
        ('"2:4" = 1.6', '"2:4" = "much"', "2:4 is 'much'; it must be a number"),
        ('"2:4" = 1.6', '"4:4" = 1.6', "4:4 is no pattern of zeros with its share"),
        ('"2:4" = 1.6', '"1:4" = 1.6', "no search is offered; add it to sparsity_patterns"),
        ('"2:4" = 1.6', '"unstructured@0.9" = 2.0', "set sparsity_pays, or remove it"),
        ("1x4@0.7", "1x4", "needs the share of zeros that the factor is for"),
        ('sha256 = "', 'sha256 = "x', "write 64 lower-case hexadecimal digits"),
        ("schema_version = 1", "schema_version = 7", "schema_version is 7; this version reads 1"),
        ("schema_version = 1", "format = 1", "format is the key of a version before"),
    ],
    ids=lambda text: text[:30],
)
def test_wrong_keys_and_values(folder: Path, old: str, new: str, words: str) -> None:
    path = folder / PROFILE_FILE
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ProfileError) as refused:
        HardwareProfile.load(folder)
    assert words in str(refused.value)
    assert str(refused.value).startswith(f"{path}, line ")


def test_the_line_is_that_of_the_value(folder: Path) -> None:
    path = folder / PROFILE_FILE
    text = path.read_text().replace("view_us = 0.25", 'view_us = "?"')
    path.write_text(text)
    with pytest.raises(ProfileError, match=rf"line {_line_of(text, 'view_us')}: runtime.view_us"):
        HardwareProfile.load(folder)


@pytest.mark.parametrize(
    ("section", "key"), [(section, key) for section, keys in REQUIRED_KEYS.items() for key in keys]
)
def test_a_measured_profile_states_every_figure(folder: Path, section: str, key: str) -> None:
    path = folder / PROFILE_FILE
    value = tomllib.loads(path.read_text())
    del value[section][key]
    path.write_text(tomli_w.dumps(value))
    with pytest.raises(ProfileError, match=rf"{section} lacks the key '{key}'"):
        HardwareProfile.load(folder)
    if section == "validation":  # its defaults contradict the figures beside them
        return
    path.write_text(tomli_w.dumps(value | {"kind": "analytic"}))
    assert HardwareProfile.load(folder).kind == "analytic"


@pytest.mark.parametrize("name", [s.name for s in SECTIONS if s.required or s.measured] + ["table"])
def test_missing_sections(folder: Path, name: str) -> None:
    path = folder / PROFILE_FILE
    value = tomllib.loads(path.read_text())
    del value[name]
    path.write_text(tomli_w.dumps(value))
    with pytest.raises(ProfileError, match=rf"\[{name}\] is missing"):
        HardwareProfile.load(folder)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("hot_us", "hot_ms", "the unit is wrong: write 'hot_us' and multiply the figure by 1000"),
        ("runs", "run", "did you mean 'runs'"),
        ("hot_us,ctx_us", "ctx_us,hot_us", "in this order"),
        (",2.5000,", ",-2.5000,", "hot_us is '-2.5000'"),
        (",2.5000,", ",nan,", "hot_us is 'nan'"),
        (",2.5000,", ",0.0000,", "hot_us is 0.0"),
        (",2.5000,", ",9.0000,", "low_us <= hot_us <= high_us"),
        (",2.5000,", ",1.0000,", "low_us <= hot_us <= high_us"),
        (",2.7500,", ",9.7500,", "ctx_us 9.75 is above high_us"),
        (",100,", ",0,", "runs is 0; it must be at least 1"),
        (",100,", ",1e2,", "runs is '1e2'; write a whole number"),
        (",2026-01-31,", ",2026-02-31,", "date is '2026-02-31'"),
        (",table", ",a table", "protocol is 'a table'"),
        ("Conv|", "|", "is no kernel signature"),
        ("f32[1,1,8,8]", "f32[1,-1,8,8]", "negative size"),
    ],
    ids=lambda text: text[:30],
)
def test_wrong_rows(folder: Path, old: str, new: str, words: str) -> None:
    path = folder / TABLE_FILE
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ProfileError) as refused:
        HardwareProfile.load(folder)
    assert words in str(refused.value)
    assert f"{path}, line {_line_of(text, old)}: " in str(refused.value)


def test_rows_twice_out_of_order_and_behind_the_end(folder: Path) -> None:
    path = folder / TABLE_FILE
    lines = path.read_text().splitlines(keepends=True)
    for changed, words in (
        ([*lines[:3], lines[2], *lines[3:]], "line 4: .*has a row already"),
        ([*lines[:2], lines[3], lines[2], *lines[4:]], "line 4: .*sort the rows"),
        ([*lines, lines[-2]], "line 15: something follows the last line"),
        (lines[:-1], "truncated"),
        ([*lines[:-2], lines[-1]], "11 rows, but the last line says '12'"),
    ):
        path.write_text("".join(changed))
        with pytest.raises(ProfileError, match=words):
            HardwareProfile.load(folder)


def test_what_cannot_be_read_is_not_written(tmp_path: Path) -> None:
    from dataclasses import replace

    made = full_profile()
    wrong = replace(made, runtime=replace(made.runtime, threads=0))
    with pytest.raises(ProfileError, match="threads is 0"):
        wrong.save(tmp_path / "board")
    made.table.add([replace(rows(1)[0], low_us=9.0)])
    with pytest.raises(ProfileError, match="cannot be written: times must be low_us"):
        made.save(tmp_path / "board")
    assert not (tmp_path / "board").exists()


def test_a_time_below_the_resolution_is_rounded_up(tmp_path: Path) -> None:
    from dataclasses import replace

    made = full_profile()
    row = replace(rows(1)[0], hot_us=0.0, ctx_us=0.0, low_us=0.0, high_us=0.0)
    made.table.add([row])
    made.save(tmp_path)
    found = HardwareProfile.load(tmp_path).table.get(row.kernel)
    assert found is not None
    assert (found.hot_us, found.high_us, found.ctx_us) == (0.0001, 0.0001, 0.0)


def test_every_bound_is_that_of_a_key() -> None:
    made = full_profile()
    known = {"schema_version", "table.rows"}
    for section in SECTIONS:
        for name, value in (section.write(getattr(made, section.attribute)) or {}).items():
            known.add(f"{section.name}.{name}")
            if isinstance(value, list) and value and isinstance(value[0], dict):
                known |= {f"{section.name}.{name}.{key}" for key in value[0]}
    unset = {"limits.flash_bytes", "limits.max_energy_mj"}
    unset |= {"calibration.near_mb", "calibration.near_power"}
    assert set(BOUNDS) <= known | unset
