"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Several test processes share the cores; one thread each is faster and repeatable.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data: ``$AUTOCOMPRESS_DATA``, or ``../shared/data`` beside the project.

    It holds ``cifar10/{train,test}.parquet`` and ``mnist/MNIST/raw/*-ubyte.gz``.
    """
    chosen = os.environ.get("AUTOCOMPRESS_DATA")
    folder = Path(chosen) if chosen else ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        if chosen:
            pytest.fail(f"AUTOCOMPRESS_DATA is {chosen!r}, which is no folder")
        pytest.skip(
            f"no real data: {folder} is missing and AUTOCOMPRESS_DATA is not set; "
            "it needs cifar10/ and mnist/"
        )
    return folder


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests keep their caches in their own session's folder, unless one is named."""
    if "AUTOCOMPRESS_CACHE" not in os.environ:
        cache = tmp_path_factory.getbasetemp() / "cache"
        monkeypatch.setenv("AUTOCOMPRESS_CACHE", str(cache))


@pytest.fixture(autouse=True)
def _own_profiles(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tests neither see nor touch the user's own device profiles."""
    folder = tmp_path_factory.getbasetemp() / "profiles"
    monkeypatch.setenv("AUTOCOMPRESS_PROFILES", str(folder))
