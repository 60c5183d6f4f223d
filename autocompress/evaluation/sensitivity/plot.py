"""The heat maps of a sensitivity analysis."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from autocompress.errors import RequestError

#: Share of the values inside the colour scale.
_INSIDE = 0.95


def heat_map(table: pd.DataFrame, column: str) -> Any:
    """Layers by settings; see :meth:`.result.Sensitivity.plot`."""
    import plotly.graph_objects as go

    _check_column(table, column)
    layers = list(dict.fromkeys(table["layer"]))
    settings = list(dict.fromkeys(table["setting"]))
    values = np.full((len(layers), len(settings)), np.nan)
    texts = np.full(values.shape, "", dtype=object)
    for row in table.to_dict("records"):
        place = layers.index(row["layer"]), settings.index(row["setting"])
        values[place] = row[column]
        mark = "" if row["measured"] else "~"
        texts[place] = f"{mark}{row[column]:.3g}" if np.isfinite(row[column]) else ""
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(np.quantile(known, _INSIDE))) if len(known) else (0, 1)
    trace = go.Heatmap(
        z=values, x=settings, y=layers, text=texts, texttemplate="%{text}", zmin=low,
        zmax=max(high, low + 1e-12), colorscale="Blues", colorbar={"title": column},
        hovertemplate="%{y}, %{x}: %{text}<extra></extra>",
    )  # fmt: skip
    return _figure(trace, 160 + 22 * len(layers))


def interaction_map(table: pd.DataFrame, column: str) -> Any:
    """Settings by settings; see :meth:`.result.Sensitivity.plot_interactions`."""
    import plotly.graph_objects as go

    known = table[table["measured"].astype(bool)]
    if known.empty:
        raise RequestError(
            "no pairs were measured, so there is nothing to plot; call sensitivity with pairs=20, "
            "or give it more time"
        )
    _check_column(known, column)
    first, second = (
        [f"{r[f'{which}_layer']} {r[f'{which}_setting']}" for r in known.to_dict("records")]
        for which in ("first", "second")
    )
    names = list(dict.fromkeys([*first, *second]))
    values = np.full((len(names), len(names)), np.nan)
    for one, other, value in zip(first, second, known[column].to_numpy(float), strict=True):
        values[names.index(one), names.index(other)] = value
        values[names.index(other), names.index(one)] = value
    finite = np.abs(values[np.isfinite(values)])
    limit = float(np.quantile(finite, _INSIDE)) if len(finite) else 0.0
    texts = np.array([[f"{v:+.3g}" if np.isfinite(v) else "" for v in row] for row in values])
    trace = go.Heatmap(
        z=values, x=names, y=names, text=texts, texttemplate="%{text}", colorscale="RdBu_r",
        zmin=-max(limit, 1e-12), zmax=max(limit, 1e-12), colorbar={"title": column},
        hovertemplate="%{y} with %{x}: %{text}<extra></extra>",
    )  # fmt: skip
    return _figure(trace, 200 + 22 * len(names))


def _figure(trace: Any, height: int) -> Any:
    """One heat map, its first row on top."""
    import plotly.graph_objects as go

    figure = go.Figure(trace)
    figure.update_layout(template="plotly_white", height=height, yaxis={"autorange": "reversed"})
    return figure


def _check_column(table: pd.DataFrame, column: str) -> None:
    figures = [
        c for c in table.columns if is_numeric_dtype(table[c]) and not is_bool_dtype(table[c])
    ]
    if column not in figures:
        raise RequestError(f"there is no column {column!r} to plot; use one of {figures}")
