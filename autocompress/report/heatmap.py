"""What each model does to each layer: rows are models, columns are layers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from autocompress.report.figures import Figure, Spec
from autocompress.report.run_folder import Row, RunView, rows_of
from autocompress.report.safe import label
from autocompress.report.units import percent

#: (shade in 0..1 where 1 is the most compressed, or None to leave the cell empty; text in the cell)
Cell = tuple[float | None, str]

_MAX_TEXT_CELLS = 600


def heatmap_figure(view: RunView) -> Figure | None:
    """Weight bits, activation bits, kept width, rank and sparsity per model and layer."""
    known = [str(i) for i in view.pareto["id"] if str(i) in view.manifests]
    models = known or sorted(view.manifests)
    layers = _layers(view, models)
    if not models or not layers:
        return None
    table = {
        m: {str(row.get("name")): row for row in rows_of(view.manifests[m], "layers")}
        for m in models
    }
    names = {str(row["id"]): str(row["name"] or row["id"]) for _, row in view.pareto.iterrows()}
    views = []
    for title, cell in _CELLS:
        grid = [[_cell(cell, table[m].get(layer)) for layer in layers] for m in models]
        if any(shade for row in grid for shade, _ in row):
            labels = [names.get(m, m) for m in models]
            views.append((title, _spec(title, grid, labels, layers)))
    if not views:
        return None
    shown = ", ".join(title for title, _ in views)
    alt = f"Heat map of {len(models)} models by {len(layers)} layers: {shown}."
    return Figure(
        "layers",
        alt,
        "Stronger colour is more compressed. An empty cell with a dash is a layer that the model "
        "does without. The models' fold-outs above hold the same figures.",
        tuple(views),
        columns=len(layers),
    )


def _layers(view: RunView, models: list[str]) -> list[str]:
    used: dict[str, None] = {}
    for model in models:
        for row in rows_of(view.manifests[model], "layers"):
            used.setdefault(str(row.get("name")), None)
    order = [str(row.get("name")) for row in rows_of(view.graph, "layers")]
    return [n for n in order if n in used] + [n for n in used if n not in set(order)]


def _number(row: Row, key: str) -> float | None:
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _bits(key: str) -> Callable[[Row], Cell]:
    def cell(row: Row) -> Cell:
        bits = _number(row, key)
        if bits is None or bits < 1:
            return None, ""
        return max(0.0, 1 - math.log2(bits) / 5), f"{bits:g}"

    return cell


def _width(row: Row) -> Cell:
    width, original = _number(row, "width"), _number(row, "original_width")
    if width is None or not original:
        return None, ""
    share = width / original
    return max(0.0, 1 - share), f"{100 * share:.0f}"


def _rank(row: Row) -> Cell:
    rank, width = _number(row, "rank"), _number(row, "original_width")
    if rank is None:
        return 0.0, "full"
    return (max(0.15, 1 - rank / width) if width else 0.6), f"{rank:g}"


def _sparsity(row: Row) -> Cell:
    share = _number(row, "sparsity")
    return (None, "") if share is None else (share, f"{100 * share:.0f}")


def _codebook(row: Row) -> Cell:
    count = _number(row, "codebook")
    return (None, "") if count is None else (max(0.15, 1 - count / 256), f"{count:g}")


_CELLS: tuple[tuple[str, Callable[[Row], Cell]], ...] = (
    ("Weight bits", _bits("weight_bits")),
    ("Activation bits", _bits("activation_bits")),
    ("Kept width, %", _width),
    ("Rank", _rank),
    ("Zero weights, %", _sparsity),
    ("Shared values", _codebook),
)


def _cell(make: Callable[[Row], Cell], row: Row | None) -> Cell:
    return (None, "–") if row is None else make(row)


def _spec(title: str, grid: list[list[Cell]], models: list[str], layers: list[str]) -> Spec:
    few = len(models) * len(layers) <= _MAX_TEXT_CELLS
    trace: dict[str, Any] = {
        "type": "heatmap",
        "z": [[shade for shade, _ in row] for row in grid],
        "x": list(range(len(layers))),
        "y": list(range(len(models))),
        "hovertext": [
            [
                f"<b>{label(model)}</b><br>{label(layer)}<br>{title}: {_spoken(cell)}"
                for layer, cell in zip(layers, row, strict=True)
            ]
            for model, row in zip(models, grid, strict=True)
        ],
        "hoverinfo": "text",
        "zmin": 0,
        "zmax": 1,
        "colorscale": [[0, "@cell"], [1, "@accent"]],
        "showscale": False,
        "xgap": 1,
        "ygap": 1,
    }
    if few:
        trace |= {"text": [[text for _, text in row] for row in grid], "texttemplate": "%{text}"}
    layout = {
        "xaxis": _ticks([label(_tail(name, 28)) for name in layers], -60),
        "yaxis": _ticks([label(name, 18) for name in models], 0) | {"autorange": "reversed"},
        "height": 190 + 24 * len(models),
    }
    return {"data": [trace], "layout": layout}


def _tail(name: str, limit: int) -> str:
    """The end of a long name, which is what tells layers apart."""
    return name if len(name) <= limit else f"…{name[1 - limit :]}"


def _ticks(names: list[str], angle: int) -> Spec:
    return {
        "tickmode": "array",
        "tickvals": list(range(len(names))),
        "ticktext": names,
        "tickangle": angle,
        "showgrid": False,
        "zeroline": False,
        "automargin": True,
    }


def _spoken(cell: Cell) -> str:
    return "left out" if cell[1] == "–" else cell[1] or percent(cell[0])
