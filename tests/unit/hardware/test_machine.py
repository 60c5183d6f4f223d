"""What this machine is, and where its tables are kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from autocompress.hardware.machine import cache_folder, describe_machine, slug


def test_this_machine() -> None:
    machine = describe_machine()
    assert machine.cpu
    assert machine.cores >= 1
    assert list(machine.isa) == sorted(machine.isa)
    assert machine == describe_machine()


@pytest.mark.parametrize(
    ("own", "xdg", "expected"),
    [
        ("/a/b", "/c", "/a/b"),
        (None, "/c", "/c/autocompress"),
        (None, None, str(Path.home() / ".cache" / "autocompress")),
    ],
)
def test_cache_folder(
    own: str | None, xdg: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("AUTOCOMPRESS_CACHE", own), ("XDG_CACHE_HOME", xdg)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert cache_folder() == Path(expected)


@pytest.mark.parametrize(("text", "expected"), [("AMD EPYC 9", "amd_epyc_9"), ("---", "unknown")])
def test_slug(text: str, expected: str) -> None:
    assert slug(text) == expected
