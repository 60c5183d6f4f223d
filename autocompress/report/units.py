"""Figures as people read them: one place for every unit and rounding."""

from __future__ import annotations

import math

MISSING = "–"
_BYTES = ("B", "kB", "MB", "GB", "TB")
_COUNTS = ("", "k", "M", "G", "T")


def known(value: float | None) -> bool:
    """Whether there is a finite figure."""
    return value is not None and math.isfinite(value)


def significant(value: float, digits: int = 3) -> str:
    """``value`` with so many significant digits, never in exponent notation."""
    if value == 0:
        return "0"
    exponent = int(f"{value:e}".partition("e")[2])
    if float(f"{abs(value):.{digits - 1}e}") >= 10.0 ** (exponent + 1):  # 0.9997 becomes 1.00
        exponent += 1
    return f"{value:,.{min(max(0, digits - 1 - exponent), 9)}f}"


def number(value: float | None, digits: int = 3) -> str:
    """A plain figure, or a dash when there is none."""
    return MISSING if value is None or not math.isfinite(value) else significant(value, digits)


def milliseconds(value: float | None) -> str:
    """``0.443`` for 0.4431 ms; the unit belongs in the heading."""
    return number(value)


def percent(value: float | None) -> str:
    """``84.2 %`` for the share 0.842."""
    return MISSING if value is None or not math.isfinite(value) else f"{100 * value:.1f} %"


def points(drop: float | None) -> str:
    """A change in percentage points from a drop (a share): a drop of 0.003 is ``-0.3``."""
    if drop is None or not math.isfinite(drop):
        return MISSING
    text = f"{-100 * drop:+.1f}"
    return "0.0" if text in {"+0.0", "-0.0"} else text.replace("-", "−")


def _scaled(value: float, units: tuple[str, ...], gap: str) -> str:
    size, unit = float(value), units[0]
    for unit in units:
        if abs(size) < 999.5 or unit == units[-1]:
            break
        size /= 1000
    whole = unit == units[0]
    return f"{size:,.0f}{gap}{unit}".rstrip() if whole else f"{significant(size)}{gap}{unit}"


def size(value: float | None) -> str:
    """Bytes in decimal units: ``1.10 MB``."""
    return MISSING if value is None or not math.isfinite(value) else _scaled(value, _BYTES, " ")


def count(value: float | None) -> str:
    """A count: ``41.2 M``."""
    return MISSING if value is None or not math.isfinite(value) else _scaled(value, _COUNTS, " ")


def ratio(value: float | None) -> str:
    """``3.4x``."""
    if value is None or not math.isfinite(value):
        return MISSING
    digits = 0 if value >= 100 else 1 if value >= 1.05 else 2
    return f"{value:.{digits}f}x"


def seconds(value: float | None) -> str:
    """A duration: ``4.2 s``, ``3 min 05 s``, ``1 h 12 min``."""
    if value is None or not math.isfinite(value):
        return MISSING
    if value < 59.95:
        return f"{value:.1f} s" if value < 9.95 else f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def interval(low: float | None, high: float | None) -> str:
    """``[0.431, 0.460]``, or nothing when an end is missing."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"[{number(low)}, {number(high)}]"


def printable(text: object) -> str:
    """``text`` without control characters, which could steer a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "�" for c in str(text))
