from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from autocompress.report.run_folder import read_run
from autocompress.report.tables import aligned, front_table, front_text
from tests.unit.report.run_folders import MODELS

MakeRun = Callable[..., Path]


def _render(folder: Path, width: int) -> list[str]:
    stream = StringIO()
    console = Console(file=stream, width=width, force_terminal=False)
    console.print(front_table(read_run(folder), width))
    return [line for line in stream.getvalue().splitlines() if line.strip()]


@pytest.mark.parametrize("width", [80, 140])
def test_terminal_table(make_run: MakeRun, width: int) -> None:
    lines = _render(make_run(), width)
    assert all(len(line) <= width for line in lines)
    rows = lines[2:]
    assert rows[0].startswith(" fp32") or rows[0].startswith("fp32")
    assert "0.125 → 0.131" in "\n".join(rows)
    if width == 80:
        assert len(rows) == 2 + len(MODELS)  # nothing wraps
        assert "±3 %" in rows[-1]
    else:
        assert "[0.128, 0.135]" in "\n".join(rows)
        assert "int8 throughout" in "\n".join(rows)


def test_plain_text_holds_a_row_a_line(make_run: MakeRun) -> None:
    lines = front_text(read_run(make_run())).splitlines()
    assert len(lines) == 1 + 2 + len(MODELS)
    assert lines[1].split()[:3] == ["fp32", "85.4", "%"]
    assert lines[2].startswith("int8")


def test_control_characters_do_not_reach_the_terminal(make_run: MakeRun) -> None:
    folder = make_run()
    path = folder / "pareto.csv"
    path.write_text(path.read_text().replace("int8 throughout", "int8\x1b[2J"))
    assert "\x1b" not in front_text(read_run(folder))
    assert "\x1b" not in "\n".join(_render(folder, 140))


def test_aligned() -> None:
    rows = [("a", "n"), ("long", "1"), ("b", "22")]
    assert aligned(rows, frozenset({"n"})) == "a      n\nlong   1\nb     22"
