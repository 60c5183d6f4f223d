"""The front as a plotly figure, for notebooks."""

from __future__ import annotations

from typing import Any

from autocompress.core.json_values import finite
from autocompress.errors import RequestError
from autocompress.report.figures import front_figure
from autocompress.report.run_folder import RunView

#: The report's light theme; ``assets/report.css`` holds the same colours.
_COLOURS = {
    "@page": "#ffffff",
    "@raised": "#f6f7f8",
    "@ink": "#16191d",
    "@muted": "#646c76",
    "@line": "#e2e5e9",
    "@accent": "#1f5fd0",
    "@accent-soft": "#a9c1ee",
    "@cell": "#eef1f5",
    "@band": "rgba(31, 95, 208, .09)",
}


def plot_front(view: RunView, over: str | None = None) -> Any:
    """The report's front as a ``plotly.graph_objects.Figure``.

    Args:
        view: a run.
        over: the cost on the horizontal axis, as the report's switch names it; None takes its
            first, the latency.

    Raises:
        RequestError: the run has no measured model yet, or no such cost.
    """
    import plotly.graph_objects as go

    figure = front_figure(view)
    if figure is None:
        raise RequestError(f"{view.directory} holds no measured model yet; resume the run first")
    views = dict(figure.views)
    over = figure.views[0][0] if over is None else over
    if over not in views:
        raise RequestError(f"there is no front over {over!r}; use one of {', '.join(views)}")
    return go.Figure(_painted(finite(views[over]))).update_layout(template="plotly_white")


def _painted(value: Any) -> Any:
    if isinstance(value, str):
        return _COLOURS.get(value, value)
    if isinstance(value, list):
        return [_painted(item) for item in value]
    if isinstance(value, dict):
        return {key: _painted(item) for key, item in value.items()}
    return value
