"""Profiles in one file: what is shared arrives, and nothing else does."""

from __future__ import annotations

import os
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from autocompress.errors import ProfileError, RequestError, StorageError
from autocompress.hardware import archive as module
from autocompress.hardware import load_profile
from autocompress.hardware.archive import (
    archive_bytes,
    check_archive,
    export_profile,
    import_profile,
    read_archive,
)
from autocompress.hardware.profile import HardwareProfile
from tests.unit.hardware.hostile_zips import contents, entries, hostile_zips, packed
from tests.unit.hardware.profile_files import full_profile, same

HOSTILE = list(hostile_zips())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return export_profile(full_profile(), tmp_path / "board.acprofile")


def test_export_and_import(path: Path, tmp_path: Path) -> None:
    folder = import_profile(path, tmp_path / "mine")
    assert folder == tmp_path / "mine" / "board"
    assert sorted(p.name for p in folder.iterdir()) == ["latency.csv", "profile.toml"]
    assert [p.name for p in folder.parent.iterdir()] == ["board"]
    for found in (HardwareProfile.load(folder), read_archive(path), load_profile(path)):
        assert same(found, full_profile())
    assert check_archive(path).sealed


def test_the_bytes_are_always_the_same() -> None:
    assert archive_bytes(full_profile()) == archive_bytes(full_profile())


def test_a_zip_made_by_hand_will_do(tmp_path: Path) -> None:
    (tmp_path / "x.acprofile").write_bytes(packed(*reversed(entries())))
    assert same(read_archive(tmp_path / "x.acprofile"), full_profile())


@pytest.mark.parametrize(
    ("raw", "words"),
    [pytest.param(raw, words, id=name) for name, raw, words in HOSTILE],
)
def test_hostile_archives(raw: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "in" / "x.acprofile"
    path.parent.mkdir()
    path.write_bytes(raw)
    before = set(contents(tmp_path))
    with pytest.raises(ProfileError) as refused:
        import_profile(path, tmp_path / "out")
    assert words in str(refused.value)
    assert str(path) in str(refused.value)
    assert set(contents(tmp_path)) == before
    assert not (tmp_path / "out").exists()


def test_what_is_there_stays(path: Path, tmp_path: Path) -> None:
    (tmp_path / "mine" / "board").mkdir(parents=True)
    with pytest.raises(RequestError, match="is there already"):
        import_profile(path, tmp_path / "mine")
    assert list((tmp_path / "mine" / "board").iterdir()) == []
    (tmp_path / "links").mkdir()
    os.symlink(tmp_path / "nowhere", tmp_path / "links" / "board")
    with pytest.raises(RequestError, match="is there already"):
        import_profile(path, tmp_path / "links")
    assert not (tmp_path / "nowhere").exists()


def test_a_folder_that_fails_half_way_does_not_appear(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []

    def fail(file: Path, content: bytes) -> None:
        written.append(file.name)
        if len(written) == 2:
            raise StorageError("no room")
        file.write_bytes(content)

    monkeypatch.setattr(module, "write_atomically", fail)
    with pytest.raises(StorageError, match="no room"):
        import_profile(path, tmp_path / "mine")
    assert len(written) == 2
    assert list((tmp_path / "mine").iterdir()) == []


def test_wrong_requests(path: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="must end in"):
        export_profile(full_profile(), tmp_path / "board.zip")
    with pytest.raises(RequestError, match="a name of its own"):
        export_profile(replace(full_profile(), id="local"), tmp_path / "x.acprofile")
    with pytest.raises(RequestError, match="there is no file"):
        import_profile(tmp_path / "none.acprofile", tmp_path)
    with pytest.raises(RequestError, match="there is no file"):
        read_archive(tmp_path)


def test_nobody_else_is_this_machine(tmp_path: Path) -> None:
    path = tmp_path / "x.acprofile"
    path.write_bytes(archive_bytes(replace(full_profile(), id="local")))
    with pytest.raises(ProfileError, match="this machine's own name"):
        import_profile(path, tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


def test_the_members_are_plain_files_of_a_fixed_time(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        assert [info.filename for info in archive.infolist()] == ["profile.toml", "latency.csv"]
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
