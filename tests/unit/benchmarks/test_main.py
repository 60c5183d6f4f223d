from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from autocompress.errors import DataError
from benchmarks import __main__ as benchmarks


def install(monkeypatch: pytest.MonkeyPatch, main: Any) -> None:
    module = ModuleType("benchmarks.example")
    module.main = main  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "benchmarks.example", module)
    monkeypatch.setattr(benchmarks, "names", lambda: ["example"])


def test_the_last_line_is_the_result(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def main(*, quick: bool, data: Path | None, seed: int) -> dict[str, Any]:
        print("a table")
        return {"quick": quick, "data": str(data), "seed": seed}

    install(monkeypatch, main)
    assert benchmarks.main(["example", "--quick", "--data", str(tmp_path), "--seed", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "a table"
    assert lines[-1].startswith("RESULT ")
    assert json.loads(lines[-1].removeprefix("RESULT ")) == {
        "quick": True,
        "data": str(tmp_path),
        "seed": 3,
    }


def test_an_error_is_one_line_and_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(**_: Any) -> dict[str, Any]:
        raise DataError("no cifar10 there")

    install(monkeypatch, main)
    assert benchmarks.main(["example"]) == 2
    assert capsys.readouterr().err == "error: no cifar10 there\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "no benchmark is called 'nothing'; there are:"),
        (["example", "--data", "/does/not/exist"], "is no folder"),
    ],
    ids=["unknown name", "no data folder"],
)
def test_wrong_options(
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    install(monkeypatch, lambda **_: {})
    with pytest.raises(SystemExit, match="2"):
        benchmarks.main(arguments)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("variable", "expected"), [(True, True), (False, None)], ids=["named", "absent"]
)
def test_default_data(
    variable: bool, expected: bool | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AUTOCOMPRESS_DATA", raising=False)
    monkeypatch.setattr(benchmarks, "ROOT", tmp_path / "project" / "benchmarks")
    if variable:
        monkeypatch.setenv("AUTOCOMPRESS_DATA", str(tmp_path))
    assert benchmarks.default_data() == (tmp_path if expected else None)


def test_options_of_its_own_reach_a_benchmark(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def options(parser: argparse._ArgumentGroup) -> None:
        parser.add_argument("--arms", default="all")

    def main(*, quick: bool, data: Path | None, seed: int, arms: str) -> dict[str, Any]:
        return {"arms": arms, "seed": seed}

    install(monkeypatch, main)
    sys.modules["benchmarks.example"].options = options  # type: ignore[attr-defined]
    assert benchmarks.main(["example", "--arms", "joint", "--seed", "2"]) == 0
    assert capsys.readouterr().out == 'RESULT {"arms": "joint", "seed": 2}\n'
