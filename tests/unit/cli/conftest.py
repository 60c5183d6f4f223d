"""Runs command lines, and stands in for the API where a command's own behaviour is tested."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from autocompress.cli import main
from tests.unit.report.run_folders import write_run


@dataclass(frozen=True)
class Outcome:
    """What a command line left behind."""

    code: int
    out: str
    err: str


@pytest.fixture
def run(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Outcome]:
    """Runs ``autocompress ARGUMENTS``."""
    monkeypatch.setenv("AUTOCOMPRESS_DEBUG", "")
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: object) -> Outcome:
        with pytest.raises(SystemExit) as ended:
            main([str(a) for a in arguments])
        out, err = capfd.readouterr()
        return Outcome(int(ended.value.code or 0), out, err)

    return call


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A finished run."""
    return write_run(tmp_path / "run")


class FakeApi(ModuleType):
    """Stands in for ``autocompress.api``: remembers its calls and does what it is told."""

    def __init__(self, folder: Path) -> None:
        super().__init__("autocompress.api")
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.action: Callable[[], None] = lambda: None
        self.run_dir = folder

    def _called(self, name: str, *arguments: Any, **options: Any) -> FakeApi:
        self.calls.append((name, arguments, options))
        self.action()
        return self

    def search(self, *arguments: Any, **options: Any) -> FakeApi:
        """Pretend to search."""
        return self._called("search", *arguments, **options)

    def plan(self, *arguments: Any, **options: Any) -> FakeApi:
        """Pretend to plan."""
        return self._called("plan", *arguments, **options)

    def resume(self, *arguments: Any, **options: Any) -> FakeApi:
        """Pretend to resume."""
        return self._called("resume", *arguments, **options)

    def to_json(self) -> dict[str, Any]:
        """A plan."""
        stage = {"name": "search", "seconds": 380.0, "note": "about 120 trials"}
        return {"stages": [stage], "trials": 120, "sentences": ["120 trials look reachable."]}


@pytest.fixture
def api(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> FakeApi:
    """The stand-in, in place of the API."""
    fake = FakeApi(run_folder)
    monkeypatch.setitem(sys.modules, "autocompress.api", fake)
    return fake
