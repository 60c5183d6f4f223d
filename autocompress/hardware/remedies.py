"""What to do about a key or a column that nobody knows: the closest known one, the right unit."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

#: Units that a name may end with, each as a multiple of its kind's base unit.
_UNITS: dict[str, tuple[str, float]] = {
    "ns": ("time", 1e-9),
    "us": ("time", 1e-6),
    "ms": ("time", 1e-3),
    "s": ("time", 1.0),
    "seconds": ("time", 1.0),
    "bytes": ("memory", 1.0),
    "kb": ("memory", 1e3),
    "kib": ("memory", 1024.0),
    "mb": ("memory", 1e6),
    "mib": ("memory", 1024.0**2),
    "gb": ("memory", 1e9),
    "gib": ("memory", 1024.0**3),
    "hz": ("frequency", 1.0),
    "khz": ("frequency", 1e3),
    "mhz": ("frequency", 1e6),
    "ghz": ("frequency", 1e9),
    "nj": ("energy", 1e-9),
    "uj": ("energy", 1e-6),
    "mj": ("energy", 1e-3),
    "j": ("energy", 1.0),
}


def remedy(name: str, known: Sequence[str]) -> str:
    """One clause: what to write in place of an unknown ``name``.

    Args:
        name: what was written.
        known: what may be written there.
    """
    name = name[:80]
    if unit := unit_remedy(name, known):
        return unit
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}? Otherwise remove it"
    return f"remove it, or use one of {', '.join(known)}"


def unit_remedy(name: str, known: Sequence[str]) -> str | None:
    """The same where ``name`` is a known one but for its unit, else None."""
    for other in known:
        factor = _factor(name, other)
        if factor is not None:
            return f"the unit is wrong: write {other!r} and multiply the figure by {factor:g}"
    return None


def _factor(name: str, known: str) -> float | None:
    """What a figure called ``name`` is multiplied with to be one called ``known``, or None."""
    if name == known:
        return None
    stem, unit = _split(name)
    known_stem, known_unit = _split(known)
    if stem != known_stem or known_unit not in _UNITS:
        return None
    if not unit:  # hot_us written as "hot": nobody knows which unit was meant
        return None
    kind, size = _UNITS.get(unit, ("", 1.0))
    known_kind, known_size = _UNITS[known_unit]
    if kind != known_kind:
        return None
    return known_size / size if stem.endswith("_per") else size / known_size


def _split(name: str) -> tuple[str, str]:
    """``("hot", "us")`` of ``hot_us``; the whole name is a unit where it is one, as in ``mhz``."""
    stem, _, unit = name.lower().rpartition("_")
    return stem, unit
