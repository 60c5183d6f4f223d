"""How many processors this process may use, which is not how many the machine has."""

from __future__ import annotations

import math
import os
from pathlib import Path

#: Control group version 2: "<quota> <period>" in microseconds, or "max <period>".
_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_NO_LIMIT = 1 << 16


def usable_cores(quota: Path = _QUOTA) -> int:
    """Processors within this process's affinity and its control group's quota, at least 1.

    More threads than these take turns, and those of numeric libraries wait for each other
    spinning: a step can take a hundred times as long.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return max(1, min(cores, _granted(quota)))


def _granted(quota: Path) -> int:
    try:
        granted, period = quota.read_text(encoding="ascii").split()
        return _NO_LIMIT if granted == "max" else math.ceil(int(granted) / int(period))
    except (OSError, ValueError, ZeroDivisionError):  # no such group, or none that sets a quota
        return _NO_LIMIT
