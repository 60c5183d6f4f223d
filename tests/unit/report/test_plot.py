from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest

from autocompress.errors import RequestError
from autocompress.report.plot import _COLOURS, plot_front
from autocompress.report.run_folder import read_run

MakeRun = Callable[..., Path]


def test_plot_is_painted(make_run: MakeRun) -> None:
    figure = plot_front(read_run(make_run()), "File size")
    assert '"@' not in figure.to_json()
    assert figure.layout.xaxis.title.text == "File size, kB"


def test_colours_are_the_page_s() -> None:
    css = files("autocompress.report").joinpath("assets", "report.css").read_text()
    light = css[: css.index("@media")]
    found = dict(re.findall(r"--([\w-]+): ([^;]+);", light))
    assert {k[1:]: v for k, v in _COLOURS.items()}.items() <= found.items()


def test_what_cannot_be_plotted(make_run: MakeRun) -> None:
    view = read_run(make_run())
    with pytest.raises(RequestError, match="no front over 'Price'; use one of Latency"):
        plot_front(view, "Price")
    empty = replace(view, pareto=view.pareto[:0], baselines=view.baselines[:0])
    with pytest.raises(RequestError, match="no measured model"):
        plot_front(empty)
