"""Where the benchmarks find real data."""

from __future__ import annotations

import os
from pathlib import Path


def folder(given: Path | None, name: str) -> Path:
    """The folder of a data set: ``--data``'s, ``AUTOCOMPRESS_DATA``'s or ``../shared/data``'s.

    Raises:
        SystemExit: it is in none of them.
    """
    variable = os.environ.get("AUTOCOMPRESS_DATA")
    places = [given, Path(variable) if variable else None, Path("../shared/data")]
    for place in places:
        if place is not None and (place / name).is_dir():
            return place / name
    raise SystemExit(f"there is no {name} in --data, AUTOCOMPRESS_DATA or ../shared/data")
