"""What a run on a device from a data sheet says of its bounds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from autocompress.cli.outcome import closing_lines
from autocompress.report.html import render
from autocompress.report.proof import proof_note
from autocompress.report.run_folder import RunView, read_run
from tests.unit.report.run_folders import write_run


@pytest.fixture
def view(tmp_path: Path) -> RunView:
    return read_run(write_run(tmp_path / "run"))


def on(view: RunView, kind: str, marked: str = "") -> RunView:
    pareto = view.pareto.assign(not_proven=marked)
    return replace(view, profile={"kind": kind}, pareto=pareto)


def test_a_measured_device_needs_no_note(view: RunView) -> None:
    assert proof_note(on(view, "measured")) == ""
    assert proof_note(replace(view, profile={})) == ""


@pytest.mark.parametrize("kind", ["analytic", "simulated"])
def test_bounds_are_expected_not_proven(view: RunView, kind: str) -> None:
    note = proof_note(on(view, kind, "latency_ms, energy_mj"))
    assert f"is {kind}" in note
    assert "the bounds on energy_mj, latency_ms is expected, not proven" in note
    assert "any bound on them" in proof_note(on(view, kind))


def test_terminal_and_report_say_so(view: RunView) -> None:
    marked = on(view, "analytic", "latency_ms")
    assert f"expected  {proof_note(marked)}" in closing_lines(marked)
    assert not any(line.startswith("expected") for line in closing_lines(view))
    assert proof_note(marked) in render(marked)
