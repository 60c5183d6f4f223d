from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import plotly.graph_objects as go
import pytest

from autocompress.core.json_values import finite
from autocompress.report.figures import Figure, course_figure, estimate_figure, front_figure
from autocompress.report.heatmap import heatmap_figure
from autocompress.report.run_folder import RunView, read_run

MakeRun = Callable[..., Path]
MAKERS = [front_figure, heatmap_figure, estimate_figure, course_figure]


def _themed(value: object) -> object:
    """The specification as the page's script paints it: roles turned into colours."""
    text = json.dumps(finite(value))
    for role in ("ink", "accent-soft", "accent", "muted", "page", "line", "cell", "band", "raised"):
        text = text.replace(f'"@{role}"', '"#123456"')
    return json.loads(text)


@pytest.mark.parametrize("maker", MAKERS, ids=lambda f: f.__name__)
def test_specifications_are_valid_plotly(
    make_run: MakeRun, maker: Callable[[RunView], Figure | None]
) -> None:
    figure = maker(read_run(make_run()))
    assert figure is not None
    assert figure.alt
    for _, spec in figure.views:
        go.Figure(_themed(spec))  # raises for an unknown property or value


@pytest.mark.parametrize("maker", MAKERS, ids=lambda f: f.__name__)
def test_without_results_there_is_no_chart(
    make_run: MakeRun, maker: Callable[[RunView], Figure | None]
) -> None:
    view = read_run(make_run())
    empty = replace(
        view,
        pareto=view.pareto[:0],
        baselines=view.baselines[:0],
        trials=view.trials[:0],
        manifests={},
    )
    assert maker(empty) is None


def test_the_front_holds_the_rows_own_figures(make_run: MakeRun) -> None:
    view = read_run(make_run())
    figure = front_figure(view)
    assert figure is not None
    assert [name for name, _ in figure.views][:2] == ["Latency", "File size"]
    traces = {t["name"]: t for t in figure.views[0][1]["data"] if "name" in t}
    assert traces["verified models"]["x"] == view.pareto["latency_ms"].tolist()
    assert traces["their estimates"]["x"] == view.pareto["latency_estimate_ms"].tolist()
    assert traces["baselines"]["marker"]["symbol"] == "diamond"
    assert traces["verified models"]["error_x"]["array"][0] == pytest.approx(0.221 * 0.03, abs=1e-4)
    assert len(traces["trials"]["x"]) == 37


def test_a_regression_is_no_share(make_run: MakeRun) -> None:
    view = read_run(make_run())
    request = {"metric": "mean_absolute_error", "higher_is_better": False}
    figure = front_figure(replace(view, run={**view.run, "request": request}))
    assert figure is not None
    assert figure.caption.startswith("Down and to the left is better.")
    layout = figure.views[0][1]["layout"]
    assert layout["yaxis"]["title"]["text"] == "Mean absolute error"
    assert max(figure.views[0][1]["data"][-1]["y"]) < 1.0


def test_an_outlier_does_not_flatten_the_front(make_run: MakeRun) -> None:
    view = read_run(make_run())
    front = view.pareto.copy()
    front.loc[4, ["accuracy", "accuracy_low", "accuracy_high", "accuracy_drop"]] = [
        0.1,
        0.09,
        0.11,
        0.754,
    ]
    figure = front_figure(replace(view, pareto=front))
    assert figure is not None
    layout = figure.views[0][1]["layout"]
    assert layout["yaxis"]["range"][0] > 80
    assert "1 of the models are outside this view" in figure.caption
    assert 10.0 in figure.views[0][1]["data"][-1]["y"]  # still drawn


def test_estimates_within_the_band_are_counted(make_run: MakeRun) -> None:
    figure = estimate_figure(read_run(make_run()))
    assert figure is not None
    assert figure.caption.startswith("4 of 5 estimates are within ±10 %")


def test_a_dropped_layer_is_an_empty_cell(make_run: MakeRun) -> None:
    figure = heatmap_figure(read_run(make_run()))
    assert figure is not None
    names = [name for name, _ in figure.views]
    assert names == ["Weight bits", "Activation bits", "Kept width, %", "Rank"]
    bits = figure.views[0][1]["data"][0]
    assert bits["text"][4][6] == "–"
    assert bits["z"][4][6] is None
    assert bits["text"][2][8] == "4"
    assert bits["z"][2][8] > bits["z"][0][8]  # fewer bits, stronger colour


def test_labels_are_escaped(make_run: MakeRun) -> None:
    view = read_run(make_run(hostile=True))
    for maker in MAKERS:
        figure = maker(view)
        assert figure is not None
        assert "<script" not in json.dumps(finite([spec for _, spec in figure.views]))
        assert "<img" not in json.dumps(finite([spec for _, spec in figure.views]))
