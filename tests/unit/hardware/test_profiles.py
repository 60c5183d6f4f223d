"""Finding profiles."""

from __future__ import annotations

from pathlib import Path

import pytest

from autocompress.errors import ProfileError, RequestError
from autocompress.hardware import list_profiles, load_profile
from autocompress.hardware import profiles as module
from tests.unit.hardware.helpers import profile


def test_built_in_profiles_load_and_say_where_they_come_from() -> None:
    names = list_profiles()
    assert names[-1] == "local"
    assert len(names) > 1
    measured = 0
    for name in names[:-1]:
        found = load_profile(name)
        assert found.id == name
        assert found.provenance.date
        if found.kind == "analytic":  # tests/contract/test_analytic_profiles.py
            continue
        measured += 1
        assert found.kind == "measured"
        assert found.validation.networks >= 20
        assert found.validation.within10 >= 0.95
        assert len(found.table) > 100
    assert measured > 0


def test_by_path_and_by_value(tmp_path: Path) -> None:
    profile().save(tmp_path / "board")
    found = load_profile(tmp_path / "board")
    assert load_profile(str(tmp_path / "board" / "profile.toml")) == found
    assert load_profile(found) is found


@pytest.mark.parametrize("name", ["no_such_board", "../etc", "", "/nowhere/at/all"])
def test_unknown_names_list_the_known_ones(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    expected = ProfileError if name in {"", "../etc"} and Path(name).is_dir() else RequestError
    with pytest.raises(expected, match=r"local|no profile"):
        load_profile(name)


def test_a_folder_and_its_profile_have_one_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile().save(tmp_path / "other")
    monkeypatch.setattr(module, "built_in_folder", lambda: tmp_path)
    with pytest.raises(ProfileError, match="'board'"):
        load_profile("other")
