"""The report's charts as plain plotly specifications.

Colours are roles (``"@accent"``, ``"@muted"`` …): the page's script turns them into the colours of
the light or dark theme. All names that reach a label go through :func:`.safe.label`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from autocompress.report import units
from autocompress.report.course import course_of
from autocompress.report.headline import is_share, metric_name
from autocompress.report.run_folder import RunView
from autocompress.report.safe import label

Spec: TypeAlias = dict[str, Any]

#: The first view leaves outliers outside when they would stretch the accuracy axis so much.
_FLATTENED = 4.0

#: How far an estimate may be from the measurement to count as true.
BAND = 0.10


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart with one or more views to switch between.

    Attributes:
        key: id of its element.
        alt: what it shows, in words with figures, for those who cannot see it.
        caption: how to read it.
        views: (name, plotly specification) pairs; the first is shown first.
        columns: how many columns need room beside each other, 0 when it does not matter.
    """

    key: str
    alt: str
    caption: str
    views: tuple[tuple[str, Spec], ...]
    columns: int = 0


@dataclass(frozen=True, slots=True)
class Axis:
    """A cost that the front can be drawn over: its columns in models and trials, and its name."""

    column: str
    name: str
    estimate: str = ""
    low: str = ""
    high: str = ""
    unit: str = ""
    scale: float = 1.0
    trials: str = ""

    @property
    def of_trials(self) -> str:
        """Its column in the table of trials."""
        return self.trials or self.column

    @property
    def title(self) -> str:
        """Axis title with the unit."""
        return f"{self.name}, {self.unit}" if self.unit else self.name


_AXES = (
    Axis(
        "latency_ms",
        "Latency",
        "latency_estimate_ms",
        "latency_low_ms",
        "latency_high_ms",
        unit="ms",
    ),
    Axis("size_bytes", "File size", "size_estimate_bytes"),
    Axis("packed_bytes", "Packed size"),
    Axis("peak_memory_bytes", "Peak memory"),
    Axis("macs", "MACs"),
)
#: Stands for the measured latency where the device was not at hand.
_ESTIMATED = Axis(
    "latency_estimate_ms",
    "Estimated latency",
    low="latency_estimate_low_ms",
    high="latency_estimate_high_ms",
    unit="ms",
    trials="latency_ms",
)


def front_figure(view: RunView) -> Figure | None:
    """Accuracy over cost: verified models, their estimates, the baselines and all trials."""
    models = view.models
    if not models["accuracy"].notna().any():
        return None
    timed = bool(models["latency_ms"].notna().any())
    known = _AXES if timed else (_ESTIMATED, *_AXES)
    axes = [_with_unit(axis, models) for axis in known if models[axis.column].notna().any()]
    views = tuple((axis.name, _front_view(view, axis)) for axis in axes)
    if not views:
        return None
    n, b = len(view.pareto), len(view.baselines)
    better = f"{'Up' if _upwards(view) else 'Down'} and to the left is better. "
    alt = f"Scatter of accuracy over cost: {n} verified models and {b} baselines. "
    hidden = int(models["accuracy"].notna().sum()) - len(_in_view(models))
    bars = "the measured latency's range" if timed else "the latency estimate's band"
    outside = f"{hidden} of the models are outside this view. " if hidden else ""
    return Figure(
        "front",
        alt + "The table of models holds the same figures.",
        f"{better}Filled: measured on the runtime{'' if timed else ', but for the latency'}; "
        f"bars are {bars} and the 95 % interval of the accuracy. "
        "Hollow: what the search estimated for the same model. Faint: every trial, at its "
        f"validation accuracy and estimated cost. {outside}Double-click shows what lies outside.",
        views,
    )


def _upwards(view: RunView) -> bool:
    """Whether the task's metric is better when larger; trials hold it turned that way."""
    return view.section("request").get("higher_is_better") is not False


_COUNTS = {"G": "billions", "M": "millions", "k": "thousands"}


def _with_unit(axis: Axis, models: pd.DataFrame) -> Axis:
    if axis.unit:
        return axis
    middle = float(models[axis.column].median())
    is_bytes = axis.column.endswith("bytes")
    for power, prefix in ((9, "G"), (6, "M"), (3, "k")):
        if middle >= 10**power:
            unit = f"{prefix}B" if is_bytes else _COUNTS[prefix]
            return Axis(axis.column, axis.name, axis.estimate, unit=unit, scale=10.0**-power)
    return Axis(axis.column, axis.name, axis.estimate, unit="bytes" if is_bytes else "")


def _front_view(view: RunView, axis: Axis) -> Spec:
    share = is_share(view)
    factor = 100.0 if share else 1.0
    name = "Accuracy, %" if share else label(metric_name(view))
    data = [
        *_trial_trace(view.trials, axis, factor if _upwards(view) else -factor),
        *_estimate_traces(view.pareto, axis, factor),
        _measured_trace(view.baselines, axis, factor, "baselines") | {"legendrank": 3},
        _measured_trace(view.pareto, axis, factor, "verified models") | {"legendrank": 1},
    ]
    x, _ = _spread(view.models, axis, factor)
    _, y = _spread(_in_view(view.models), axis, factor)
    log = min(x) > 0 and max(x) / min(x) > 8
    layout = {
        "xaxis": {"title": {"text": axis.title}}
        | ({"type": "log", "dtick": "D2"} if log else {"type": "linear"})
        | ({"range": _padded([math.log10(v) for v in x], 0.08)} if log else _from_zero(x)),
        "yaxis": {"title": {"text": name}, "range": _padded(y, 0.12)},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "hovermode": "closest",
    }
    return {"data": data, "layout": layout}


def _in_view(models: pd.DataFrame) -> pd.DataFrame:
    """The models that the first view shows: all, unless a few outliers would flatten the rest."""
    ranked = models.dropna(subset=["accuracy"]).sort_values("accuracy_drop", kind="stable")
    best = ranked[: max(2, math.ceil(0.75 * len(ranked)))]
    heights = ["accuracy", "accuracy_low", "accuracy_high"]

    def extent(rows: pd.DataFrame) -> float:
        values = rows[heights].to_numpy(dtype=float)
        return float(np.nanmax(values) - np.nanmin(values))

    return best if extent(ranked) > _FLATTENED * extent(best) else ranked


def _spread(models: pd.DataFrame, axis: Axis, factor: float) -> tuple[list[float], list[float]]:
    columns = [c for c in (axis.column, axis.estimate, axis.high) if c]
    x = [v * axis.scale for c in columns for v in models[c].dropna()]
    heights = ("accuracy", "accuracy_low", "accuracy_high")
    y = [v * factor for c in heights for v in models[c].dropna()]
    return x, y


def _padded(values: Sequence[float], share: float) -> list[float]:
    low, high = min(values), max(values)
    pad = (high - low or abs(high) or 1.0) * share
    return [low - pad, high + pad]


def _from_zero(values: Sequence[float]) -> Spec:
    return {"range": [0.0, 1.08 * max(values)]} if max(values) > 0 else {}


def _errors(rows: pd.DataFrame, middle: str, low: str, high: str, scale: float) -> Spec:
    below = ((rows[middle] - rows[low]) * scale).clip(lower=0.0)
    above = ((rows[high] - rows[middle]) * scale).clip(lower=0.0)
    return {
        "type": "data",
        "symmetric": False,
        "array": above.tolist(),
        "arrayminus": below.tolist(),
        "thickness": 1,
        "width": 0,
    }


def _measured_trace(rows: pd.DataFrame, axis: Axis, factor: float, name: str) -> Spec:
    is_baseline = name == "baselines"
    colour = "@ink" if is_baseline else "@accent"
    rows = rows[rows[axis.column].notna() & rows["accuracy"].notna()]
    trace = {
        "type": "scatter",
        "mode": "markers+text" if is_baseline else "markers",
        "name": name,
        "x": (rows[axis.column] * axis.scale).tolist(),
        "y": (rows["accuracy"] * factor).tolist(),
        "marker": {"size": 10, "color": colour, "symbol": "diamond" if is_baseline else "circle"},
        "error_y": _errors(rows, "accuracy", "accuracy_low", "accuracy_high", factor)
        | {"color": colour},
        "hovertext": [_hover(row) for _, row in rows.iterrows()],
        "hoverinfo": "text",
    }
    if is_baseline:
        short = [str(v).removeprefix("baseline-") for v in rows["id"]]
        trace |= {"text": [label(v, 16) for v in short], "textposition": "bottom left"}
    if axis.low:
        trace["error_x"] = _errors(rows, axis.column, axis.low, axis.high, axis.scale) | {
            "color": colour
        }
    return trace


def _hover(row: pd.Series[Any]) -> str:
    kind = "latency" if units.known(row["latency_ms"]) else "latency_estimate"
    latency = units.milliseconds(row[f"{kind}_ms"])
    spread = units.interval(row[f"{kind}_low_ms"], row[f"{kind}_high_ms"])
    lines = [
        f"<b>{label(row['name'] or row['id'])}</b>",
        f"accuracy {units.number(row['accuracy'])}",
        f"{'latency' if kind == 'latency' else 'estimated latency'} {latency} ms {spread}",
        f"file {units.size(row['size_bytes'])}",
    ]
    if row["kind"] != "baseline":
        faster, smaller = units.ratio(row["speedup"]), units.ratio(row["size_ratio"])
        lines.append(f"{faster} faster, {smaller} smaller than fp32")
    if row["changes"]:
        lines.append(label(row["changes"], 72))
    return "<br>".join(lines)


def _estimate_traces(rows: pd.DataFrame, axis: Axis, factor: float) -> list[Spec]:
    if not axis.estimate:
        return []
    rows = rows[rows[axis.estimate].notna() & rows["val_accuracy"].notna()]
    if rows.empty:
        return []
    x: list[float | None] = []
    y: list[float | None] = []
    for _, row in rows[rows[axis.column].notna() & rows["accuracy"].notna()].iterrows():
        x += [row[axis.estimate] * axis.scale, row[axis.column] * axis.scale, None]
        y += [row["val_accuracy"] * factor, row["accuracy"] * factor, None]
    link = {
        "type": "scatter",
        "mode": "lines",
        "x": x,
        "y": y,
        "line": {"color": "@accent-soft", "width": 1},
        "hoverinfo": "skip",
        "showlegend": False,
    }
    names = [label(row["name"] or row["id"]) for _, row in rows.iterrows()]
    points = {
        "type": "scatter",
        "mode": "markers",
        "name": "their estimates",
        "legendrank": 2,
        "x": (rows[axis.estimate] * axis.scale).tolist(),
        "y": (rows["val_accuracy"] * factor).tolist(),
        "marker": {
            "size": 9,
            "color": "@page",
            "symbol": "circle",
            "line": {"color": "@accent", "width": 1.4},
        },
        "hovertext": [f"<b>{n}</b><br>estimate and validation accuracy" for n in names],
        "hoverinfo": "text",
    }
    return [link, points]


def _trial_trace(trials: pd.DataFrame, axis: Axis, factor: float) -> list[Spec]:
    column = axis.of_trials
    if column not in trials or "accuracy" not in trials:
        return []
    rows = trials[trials[column].notna() & trials["accuracy"].notna()]
    return [
        {
            "type": "scattergl" if len(rows) > 5000 else "scatter",
            "mode": "markers",
            "name": "trials",
            "legendrank": 4,
            "x": (rows[column] * axis.scale).tolist(),
            "y": (rows["accuracy"] * factor).tolist(),
            "marker": {"size": 5, "color": "@muted", "opacity": 0.3},
            "hovertext": [
                f"trial {row['number']} ({label(row['fidelity'])})" for _, row in rows.iterrows()
            ],
            "hoverinfo": "text",
        }
    ]


def estimate_figure(view: RunView) -> Figure | None:
    """Estimated against measured latency, with the line of equality and a +-10 % band."""
    rows = view.models
    rows = rows[rows["latency_ms"].notna() & rows["latency_estimate_ms"].notna()]
    if rows.empty:
        return None
    error = (rows["latency_estimate_ms"] / rows["latency_ms"] - 1).abs()
    within = int((error <= BAND).sum())
    top = 1.08 * float(max(rows["latency_ms"].max(), rows["latency_estimate_ms"].max()))
    data: list[Spec] = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": "±10 %",
            "x": [0, top, top, 0],
            "y": [0, (1 + BAND) * top, (1 - BAND) * top, 0],
            "fill": "toself",
            "fillcolor": "@band",
            "line": {"width": 0},
            "hoverinfo": "skip",
        },
        {
            "type": "scatter",
            "mode": "lines",
            "name": "equal",
            "x": [0, top],
            "y": [0, top],
            "line": {"color": "@muted", "width": 1, "dash": "dot"},
            "hoverinfo": "skip",
        },
    ]
    for kind, symbol, colour in (
        ("solution", "circle", "@accent"),
        ("baseline", "diamond", "@ink"),
    ):
        part = rows[(rows["kind"] == "baseline") == (kind == "baseline")]
        if part.empty:
            continue
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": "baselines" if kind == "baseline" else "verified models",
                "x": part["latency_ms"].tolist(),
                "y": part["latency_estimate_ms"].tolist(),
                "error_x": _errors(part, "latency_ms", "latency_low_ms", "latency_high_ms", 1.0)
                | {"color": colour},
                "error_y": _errors(
                    part,
                    "latency_estimate_ms",
                    "latency_estimate_low_ms",
                    "latency_estimate_high_ms",
                    1.0,
                )
                | {"color": colour},
                "marker": {"size": 9, "color": colour, "symbol": symbol},
                "hovertext": [
                    f"<b>{label(row['name'] or row['id'])}</b><br>"
                    f"measured {units.milliseconds(row['latency_ms'])} ms<br>"
                    f"estimated {units.milliseconds(row['latency_estimate_ms'])} ms"
                    for _, row in part.iterrows()
                ],
                "hoverinfo": "text",
            }
        )
    layout = {
        "xaxis": {"title": {"text": "Measured, ms"}, "range": [0, top]},
        "yaxis": {"title": {"text": "Estimated, ms"}, "range": [0, top]},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "hovermode": "closest",
    }
    words = (
        f"{within} of {len(rows)} estimates are within ±10 % of the measured latency; "
        f"the mean error is {units.percent(float(error.mean()))}."
    )
    views = (("", {"data": data, "layout": layout}),)
    return Figure("estimates", f"Scatter. {words}", words, views)


def course_figure(view: RunView) -> Figure | None:
    """How the search went: the front's hypervolume over the trials."""
    course = course_of(view)
    if course is None:
        return None
    trace = {
        "type": "scatter",
        "mode": "lines",
        "name": "hypervolume",
        "x": list(course.trials),
        "y": [100 * share for share in course.shares],
        "line": {"color": "@accent", "width": 2, "shape": "hv"},
        "hovertemplate": "trial %{x}: %{y:.1f} %<extra></extra>",
    }
    layout = {
        "xaxis": {"title": {"text": "Trial"}},
        "yaxis": {"title": {"text": "Share of the final hypervolume, %"}, "range": [0, 105]},
        "showlegend": False,
    }
    caption = (
        f"Hypervolume of the trials' front over {', '.join(course.objectives)} "
        f"({course.fidelity} fidelity), as a share of where it ended. "
        "Still rising at the right end means that a larger budget would pay."
    )
    alt = f"Line: half of the final hypervolume was reached at trial {course.half}."
    return Figure("course", alt, caption, (("", {"data": [trace], "layout": layout}),))
