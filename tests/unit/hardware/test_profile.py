"""Profiles on disk: what is written is read, and nothing else is accepted."""

from __future__ import annotations

from pathlib import Path

import pytest

from autocompress.core.capabilities import Capabilities, Precision
from autocompress.errors import ProfileError
from autocompress.hardware.calibration import Calibration
from autocompress.hardware.profile import (
    PROFILE_FILE,
    TABLE_FILE,
    HardwareProfile,
    Provenance,
    RuntimeSpec,
    Validation,
)
from tests.unit.hardware.helpers import MACHINE, profile, row, table_kernels


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = profile(
        [row(k) for k in table_kernels(2)],
        runtime=RuntimeSpec(version="1.0", threads=2, options={"spinning": "off"}),
        capabilities=Capabilities(precisions=(Precision(32, 32), Precision(8, 8)), channel_step=8),
        calibration=Calibration(a=1.1, networks=7),
        validation=Validation(3, 0.01, 0.02, 0.03, 1.0, 1.0),
        provenance=Provenance("2026-01-01", "by hand", {"name": "test"}),
    )
    made.save(tmp_path / "board")
    return tmp_path / "board"


def test_round_trip(folder: Path) -> None:
    found = HardwareProfile.load(folder)
    found.save(folder.parent / "copy")
    assert HardwareProfile.load(folder.parent / "copy") == found
    assert found.runtime.options == {"spinning": "off"}
    assert found.capabilities.channel_step == 8
    assert found.calibration.a == 1.1
    assert "2 thread(s)" in found.summary
    assert "90 % within 2.0%" in found.summary
    assert not found.is_local


@pytest.mark.parametrize("identifier", ["", "Upper", "../x", "_x", "a-b"])
def test_identifiers(identifier: str) -> None:
    with pytest.raises(ProfileError, match="profile id"):
        HardwareProfile(identifier, "", "measured", MACHINE)


@pytest.mark.parametrize("keep", [0.0, 0.2, 0.5, 0.8, 0.97])
def test_truncated_profiles(folder: Path, keep: float) -> None:
    path = folder / PROFILE_FILE
    text = path.read_text()
    path.write_text(text[: int(len(text) * keep)])
    with pytest.raises(ProfileError, match=PROFILE_FILE):
        HardwareProfile.load(folder)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("schema_version = 1", "schema_version = 2", "schema_version is 2"),
        ('kind = "measured"', 'kind = "guessed"', "kind is 'guessed'"),
        ("threads = 2", 'threads = "two"', "threads is 'two'"),
        ("a = 1.1", 'a = "one"', "calibration.a is 'one'; it must be a number"),
        ("a = 1.1", "unknown = 1.1", "calibration.unknown is not a known key"),
        ("cores = 2", "cores = true", "cores is True"),
        ("rows = ", "rows = 1", "seal does not hold"),
        ("[device]", "[machine]", "line 6: machine is not a known key"),
    ],
    ids=lambda text: text,
)
def test_altered_profiles(folder: Path, old: str, new: str, message: str) -> None:
    path = folder / PROFILE_FILE
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ProfileError, match=message):
        HardwareProfile.load(folder)


def test_an_altered_table(folder: Path) -> None:
    path = folder / TABLE_FILE
    path.write_text(path.read_text().replace(",test", ",tost", 1))
    with pytest.raises(ProfileError, match="SHA-256"):
        HardwareProfile.load(folder)


def test_no_profile_there(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="no profile"):
        HardwareProfile.load(tmp_path)
