"""How far accuracies agree, in lines, as a table and as a chart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import autocompress as ac
from autocompress.cli.outcome import closing_lines
from autocompress.report.run_folder import RunView, read_run
from autocompress.report.trust import trust_figure, trust_lines, trust_table
from tests.unit.report.run_folders import HOSTILE

MakeRun = Callable[..., Path]


@pytest.fixture
def view(make_run: MakeRun) -> RunView:
    return read_run(make_run())


def test_lines(view: RunView) -> None:
    first, second = trust_lines(view)
    assert first == "inherited against short accuracy: Spearman 0.83 [0.41, 1.00] over 6"
    assert second.startswith("inherited against final accuracy: all have the same score")
    lines = closing_lines(view)
    assert f"trust     {first}" in lines
    assert f"{'':<9} {second}" in lines


def test_table_is_in_points(view: RunView) -> None:
    found = trust_table(view)
    assert "0.83 [0.41, 1.00]" in found
    assert "0.73 [0.33, 1.00]" in found
    assert "differences in points" in found
    assert "4.1" in found
    assert "7.13" in found
    assert "6 candidates were compared." in found


def test_figure_has_a_view_for_each_comparison(view: RunView) -> None:
    figure = trust_figure(view)
    assert figure is not None
    assert [name for name, _ in figure.views] == ["inherited → short", "inherited → final"]
    for (_, spec), count in zip(figure.views, (6, 4), strict=True):
        line, points = spec["data"]
        assert line["x"] == line["y"] == spec["layout"]["xaxis"]["range"]
        assert points["x"] == pytest.approx([61 + 3 * i for i in range(count)])
        assert points["y"] == pytest.approx([68 + 2 * i for i in range(count)])


def test_names_are_escaped(make_run: MakeRun) -> None:
    view = read_run(make_run(hostile=True))
    figure = trust_figure(view)
    assert figure is not None
    assert HOSTILE not in str(figure.views)
    assert HOSTILE not in trust_table(view)


def test_a_run_without_a_comparison(view: RunView) -> None:
    bare = replace(view, trust={})
    assert trust_lines(bare) == []
    assert trust_table(bare) == ""
    assert trust_figure(bare) is None
    assert not any(line.startswith("trust") for line in closing_lines(bare))


def test_result_has_a_row_for_each(make_run: MakeRun) -> None:
    folder = make_run()
    found = ac.SearchResult(folder).trust
    assert list(found["before"]) == ["inherited", "inherited"]
    assert list(found["after"]) == ["short", "final"]
    assert list(found["pairs"]) == [6, 4]
    assert found["spearman"].iloc[0] == pytest.approx(0.829)
    assert found["spearman"].isna().iloc[1]
    assert found["unknown"].iloc[1].startswith("all have the same score")
    (folder / "trust.json").unlink()
    empty = ac.SearchResult(folder).trust
    assert empty.empty
    assert list(empty.columns) == list(found.columns)
