"""How far cheap accuracies agree with dearer ones: in lines, as a table, as a chart."""

from __future__ import annotations

from typing import Any

from autocompress.report import units
from autocompress.report.figures import Figure, Spec
from autocompress.report.headline import is_share, metric_name
from autocompress.report.run_folder import Row, RunView, rows_of
from autocompress.report.safe import Html, element, joined, label
from autocompress.report.sections import NUMBER, table

_WORDS = {
    "inherited": "inherited weights, untrained",
    "short": "a short training",
    "final": "full training",
}


def _comparisons(view: RunView) -> list[Row]:
    return rows_of(view.trust, "comparisons")


def _words(fidelity: object) -> str:
    return _WORDS.get(str(fidelity), str(fidelity))


def _agreement(row: Row) -> Row:
    found = row.get("agreement")
    return found if isinstance(found, dict) else {}


def _value(row: Row, name: str) -> float | None:
    found = row.get(name)
    return float(found) if isinstance(found, int | float) else None


def _correlation(row: Row, name: str) -> str:
    """Such as ``"0.83 [0.52, 0.97]"``."""
    value = _value(row, name)
    if value is None:
        return units.MISSING
    low, high = _value(row, f"{name}_low"), _value(row, f"{name}_high")
    spread = "" if low is None or high is None else f" [{low:.2f}, {high:.2f}]"
    return f"{value:.2f}{spread}"


def trust_lines(view: RunView) -> list[str]:
    """A line per comparison, such as ``"inherited against short: Spearman 0.83 …"``."""
    lines = []
    for row in _comparisons(view):
        agreement = _agreement(row)
        found = (
            f"Spearman {_correlation(agreement, 'spearman')} over {agreement.get('pairs', 0)}"
            if _value(agreement, "spearman") is not None
            else str(agreement.get("unknown") or "not known")
        )
        lines.append(f"{row.get('before')} against {row.get('after')} accuracy: {found}")
    return lines


def trust_table(view: RunView) -> Html:
    """A row per comparison, and what followed from it."""
    listed = _comparisons(view)
    if not listed:
        return Html("")
    share = is_share(view)
    scale = 100.0 if share else 1.0

    def gap(agreement: Row, name: str) -> str:
        value = _value(agreement, name)
        return units.MISSING if value is None else units.number(scale * value)

    rows = [
        [
            f"{_words(row.get('before'))} against {_words(row.get('after'))}",
            agreement.get("pairs", 0),
            _correlation(agreement, "spearman"),
            _correlation(agreement, "kendall"),
            gap(agreement, "mean_gap"),
            gap(agreement, "largest_gap"),
        ]
        for row in listed
        for agreement in (_agreement(row),)
    ]
    unit = "points" if share else "the metric's unit"
    headings = ["Accuracies", "Candidates", "Spearman", "Kendall", "Mean gap", "Largest gap"]
    caption = (
        "Rank correlation of two accuracies of the same candidates, with 95 % bootstrap intervals, "
        f"and their differences in {unit}."
    )
    sentences = [element("p", str(row.get("sentence") or "")) for row in listed]
    return joined([table(caption, headings, rows, ["", *[NUMBER] * 5]), *sentences])


def trust_figure(view: RunView) -> Figure | None:
    """Scatter of the dearer over the cheaper accuracy, with the line of equality."""
    views: list[tuple[str, Spec]] = []
    for row in _comparisons(view):
        spec = _view(view, row)
        if spec is not None:
            views.append((f"{row.get('before')} → {row.get('after')}", spec))
    if not views:
        return None
    return Figure(
        "trust",
        f"Scatter of two accuracies of the same candidates. {'; '.join(trust_lines(view))}.",
        "On the dotted line both accuracies are equal. The order matters: where points rise from "
        "left to right, the cheaper accuracy tells which candidate is better.",
        tuple(views),
    )


def _view(view: RunView, row: Row) -> Spec | None:
    share = is_share(view)
    factor = 100.0 if share else 1.0
    points: list[tuple[float, float, str]] = []
    for candidate in rows_of(row, "candidates"):
        before, after = _value(candidate, "before"), _value(candidate, "after")
        if before is not None and after is not None:
            points.append((before * factor, after * factor, _hover(candidate, share)))
    if len(points) < 2:
        return None
    every = [value for before, after, _ in points for value in (before, after)]
    low, high = min(every), max(every)
    pad = 0.06 * (high - low or abs(high) or 1.0)
    ends = [low - pad, high + pad]
    name = "Accuracy, %" if share else label(metric_name(view))
    data: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": "equal",
            "x": ends,
            "y": ends,
            "line": {"color": "@muted", "width": 1, "dash": "dot"},
            "hoverinfo": "skip",
        },
        {
            "type": "scatter",
            "mode": "markers",
            "name": "candidates",
            "x": [before for before, _, _ in points],
            "y": [after for _, after, _ in points],
            "marker": {"size": 9, "color": "@accent"},
            "hovertext": [hover for _, _, hover in points],
            "hoverinfo": "text",
        },
    ]
    layout = {
        "xaxis": {"title": {"text": f"{name}: {_words(row.get('before'))}"}, "range": ends},
        "yaxis": {"title": {"text": f"{name}: {_words(row.get('after'))}"}, "range": ends},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "hovermode": "closest",
    }
    return {"data": data, "layout": layout}


def _hover(candidate: Row, share: bool) -> str:
    shown = units.percent if share else units.number
    lines = [
        f"<b>{label(candidate.get('id', ''))}</b>",
        f"{shown(_value(candidate, 'before'))} → {shown(_value(candidate, 'after'))}",
    ]
    latency = _value(candidate, "latency_ms")
    if latency is not None:
        lines.append(f"estimated latency {units.milliseconds(latency)} ms")
    return "<br>".join(lines)
