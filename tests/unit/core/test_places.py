from __future__ import annotations

from pathlib import Path

import pytest

from autocompress.core.places import cache_folder


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
