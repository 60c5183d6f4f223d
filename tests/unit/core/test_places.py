from __future__ import annotations

from pathlib import Path

import pytest

from autocompress.core.places import cache_folder, profiles_folder


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"AUTOCOMPRESS_CACHE": "/a"}, "/a"),
        ({"XDG_CACHE_HOME": "/b"}, "/b/autocompress"),
        ({"HOME": "/c"}, "/c/.cache/autocompress"),
    ],
    ids=["own variable", "xdg", "home"],
)
def test_cache_folder(
    variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AUTOCOMPRESS_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(expected)


@pytest.mark.parametrize(
    ("own", "data", "expected"),
    [
        ("/own", "/data", "/own"),
        ("", "/data", "/data/autocompress/profiles"),
        ("", "", "/home/me/.local/share/autocompress/profiles"),
    ],
)
def test_where_profiles_go(
    own: str, data: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("AUTOCOMPRESS_PROFILES", own)
    monkeypatch.setenv("XDG_DATA_HOME", data)
    assert profiles_folder() == Path(expected)
