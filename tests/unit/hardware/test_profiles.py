"""Finding profiles."""

from __future__ import annotations

from importlib.util import find_spec
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


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AUTOCOMPRESS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_this_machine_with_threads(cache: Path) -> None:
    found = load_profile("local:1")
    assert found.is_local
    assert (found.runtime.name, found.runtime.threads) == ("onnxruntime", 1)


@pytest.mark.skipif(find_spec("openvino") is None, reason="needs the extra openvino")
def test_this_machine_with_another_runtime(cache: Path) -> None:
    found = load_profile("local:openvino")
    assert found.is_local
    assert (found.runtime.name, found.runtime.lowering) == ("openvino", "openvino-cpu")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("local:nope", "unknown runtime 'nope'; use one of onnxruntime, openvino"),
        ("local:0", "local:RUNTIME:THREADS"),
        ("local:100000", r"\d+ processors of this machine are for this process"),
    ],
)
def test_this_machine_in_a_way_it_has_not(name: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        load_profile(name)
