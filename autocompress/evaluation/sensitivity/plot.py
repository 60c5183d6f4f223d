"""The heat map of a sensitivity analysis."""

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

    figures = [
        c for c in table.columns if is_numeric_dtype(table[c]) and not is_bool_dtype(table[c])
    ]
    if column not in figures:
        raise RequestError(f"there is no column {column!r} to plot; use one of {figures}")
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
    figure = go.Figure(trace)
    figure.update_layout(
        template="plotly_white", height=160 + 22 * len(layers), yaxis={"autorange": "reversed"}
    )
    return figure
