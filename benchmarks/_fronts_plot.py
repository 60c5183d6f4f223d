"""The fronts of arms as one drawing: every model, and the median over seeds of what is attained."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np

from benchmarks._volumes import Reference, Row, attained

#: Colours that are told apart without red and green: Okabe & Ito 2008, jfly.uni-koeln.de/color.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#999999", "#cc79a7", "#e69f00")
_PANELS = (
    ("latency_estimate_ms", "estimated latency, ms"),
    ("size_bytes", "bytes of the file"),
)
_WIDTH, _HEIGHT, _MARGIN, _LEVELS = 420, 320, 56, 200
Fronts = Mapping[str, Sequence[Sequence[Row]]]


def draw(path: Path, fronts: Fronts, reference: Reference) -> None:
    """Write an SVG file: test accuracy over latency, and over bytes, both costs logarithmic.

    Args:
        path: of the file.
        fronts: arm to one front a seed.
        reference: models no more accurate than it are left out.
    """
    shown = {
        arm: [[r for r in rows if r["accuracy"] > reference.accuracy] for rows in seeds]
        for arm, seeds in fronts.items()
    }
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{2 * _WIDTH + 110}" height="{_HEIGHT}" '
        'font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for place, (cost, title) in enumerate(_PANELS):
        parts += _panel(shown, cost, title, place * _WIDTH)
    for i, arm in enumerate(fronts):
        y = _MARGIN + 18 * i
        parts.append(f'<circle cx="{2 * _WIDTH + 8}" cy="{y - 4}" r="4" fill="{_colour(i)}"/>')
        parts.append(f'<text x="{2 * _WIDTH + 18}" y="{y}">{escape(arm)}</text>')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*parts, "</svg>\n"]))


def _panel(fronts: Fronts, cost: str, title: str, left: float) -> list[str]:
    rows = [r for seeds in fronts.values() for front in seeds for r in front]
    if not rows:
        return [f'<text x="{left + _MARGIN}" y="{_HEIGHT / 2}">no model counts</text>']
    costs = [math.log10(r[cost]) for r in rows]
    accuracies = [float(r["accuracy"]) for r in rows]
    low, high = min(costs), max(costs)
    worst, best = min(accuracies), max(accuracies)
    across, up = max(1e-3, high - low), max(1e-3, best - worst)

    def x(value: float) -> float:
        return left + _MARGIN + (math.log10(value) - low) / across * (_WIDTH - 2 * _MARGIN)

    def y(value: float) -> float:
        return _HEIGHT - _MARGIN - (value - worst) / up * (_HEIGHT - 2 * _MARGIN)

    right, bottom = left + _WIDTH - _MARGIN, _HEIGHT - _MARGIN
    parts = [
        f'<path d="M{left + _MARGIN},{_MARGIN} V{bottom} H{right}" fill="none" stroke="#444"/>',
        f'<text x="{(left + _MARGIN + right) / 2}" y="{_HEIGHT - 14}" text-anchor="middle">'
        f"{escape(title)}</text>",
    ]
    for value in np.linspace(worst, best, 5):
        parts.append(f'<text x="{left + _MARGIN - 6}" y="{y(value) + 4:.1f}" text-anchor="end">'
                     f"{value:.1%}</text>")  # fmt: skip
    for value in np.logspace(low, high, 4):
        parts.append(f'<text x="{x(value):.1f}" y="{bottom + 15}" text-anchor="middle">'
                     f"{value:,.3g}</text>")  # fmt: skip
    levels = np.logspace(low, high, _LEVELS).tolist()
    for i, seeds in enumerate(fronts.values()):
        dots = [(x(r[cost]), y(r["accuracy"])) for front in seeds for r in front]
        parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2.5" fill="{_colour(i)}" '
                  'fill-opacity="0.45"/>' for a, b in dots]  # fmt: skip
        steps = [(x(level), y(value)) for level, value in attained(seeds, cost, levels)]
        if steps:
            line = " L".join(f"{a:.1f},{b:.1f}" for a, b in steps)
            parts.append(f'<path d="M{line}" fill="none" stroke="{_colour(i)}" stroke-width="2"/>')
    return parts


def _colour(i: int) -> str:
    return _COLOURS[i % len(_COLOURS)]
