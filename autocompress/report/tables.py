"""The front as a table for terminals and for plain text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from autocompress.report import units
from autocompress.report.headline import is_share
from autocompress.report.run_folder import RunView

if TYPE_CHECKING:
    from rich.table import Table

_RIGHT = frozenset({"accuracy", "metric", "points", "change", "faster", "file", "smaller"})
#: Below this many columns the table leaves out what changed and shortens the intervals.
WIDE = 108


def headings(view: RunView) -> tuple[str, ...]:
    """The columns' names."""
    share = is_share(view)
    return (
        "model",
        "accuracy" if share else "metric",
        "points" if share else "change",
        "latency, ms",
        "faster",
        "file",
        "smaller",
        "what changed",
    )


def cells(view: RunView, *, wide: bool = True) -> list[tuple[str, ...]]:
    """A row per baseline and verified model, in the order of :func:`headings`."""
    share = is_share(view)
    return [_cells(row, share, wide) for _, row in view.models.iterrows()]


def _cells(row: pd.Series[Any], share: bool, wide: bool) -> tuple[str, ...]:
    drop = row["accuracy_drop"]
    points = units.points(drop) if share else units.number(-drop)
    shown = (
        row["name"] or row["id"],
        units.percent(row["accuracy"]) if share else units.number(row["accuracy"]),
        units.MISSING if row["id"] == "baseline-fp32" else points,
        _latency(row, wide),
        units.ratio(row["speedup"]),
        units.size(row["size_bytes"]),
        units.ratio(row["size_ratio"]),
        row["changes"],
    )
    return tuple(" ".join(units.printable(cell).split()) for cell in shown)


def _latency(row: pd.Series[Any], wide: bool) -> str:
    """Estimate → measured, with the interval in full or as its larger half in per cent."""
    latency, estimate = row["latency_ms"], row["latency_estimate_ms"]
    low, high = row["latency_low_ms"], row["latency_high_ms"]
    text = units.milliseconds(latency)
    if units.known(estimate):
        text = f"{units.milliseconds(estimate)} → {text}"
    if wide:
        return f"{text} {units.interval(low, high)}".rstrip()
    if not (units.known(low) and units.known(high) and latency > 0):
        return text
    return f"{text} ±{100 * max(high - latency, latency - low) / latency:.0f} %"


def front_table(view: RunView, width: int = WIDE) -> Table:
    """The front for a terminal of ``width`` columns: baselines first, estimate → measured."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    wide = width >= WIDE
    names = headings(view) if wide else headings(view)[:-1]
    table = Table(box=box.SIMPLE_HEAD, header_style="dim", pad_edge=False, padding=(0, 1, 0, 0))
    for name in names:
        kept = name not in {"what changed", "model"}
        justify: Literal["left", "right"] = "right" if name in _RIGHT else "left"
        table.add_column(name, justify=justify, no_wrap=kept, overflow="fold")
    n = len(view.baselines)
    for i, row in enumerate(cells(view, wide=wide)):
        style = "dim" if i < n else ""
        shown = [Text(cell, style=style) for cell in row[: len(names)]]
        table.add_row(*shown, end_section=i == n - 1)
    return table


def front_text(view: RunView) -> str:
    """The same table as aligned plain text, for files and pipes; never wraps a row."""
    return aligned([headings(view), *cells(view)], right=_RIGHT)


def aligned(rows: Sequence[Sequence[str]], right: frozenset[str] = frozenset()) -> str:
    """Rows of text in columns; the first row names them, those in ``right`` align right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        parts = [
            cell.rjust(width) if rows[0][i] in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(parts).rstrip())
    return "\n".join(lines)
