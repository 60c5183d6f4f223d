"""What networks really take on this machine, and how estimates compare with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

from autocompress.measurement.models import measure_interleaved
from autocompress.measurement.protocol import TimingProtocol

TRUTH = TimingProtocol("truth", warmup=10, min_runs=60, min_seconds=0.15, passes=9, processes=3)
_GROUP = 8
Floats = npt.NDArray[np.float64]


def measure_all(files: Mapping[str, Path], runtime: str, threads: int) -> dict[str, float]:
    """Milliseconds by name; what cannot be run is left out."""
    found: dict[str, float] = {}
    # in no order, so that a slow minute does not fall on one kind alone
    names = [list(files)[i] for i in np.random.default_rng(len(files)).permutation(len(files))]
    for start in range(0, len(names), _GROUP):
        group = names[start : start + _GROUP]
        measured = measure_interleaved(
            [files[n] for n in group], protocol=TRUTH, runtime=runtime, threads=threads
        )
        found |= {name: m.value for name, m in zip(group, measured, strict=True) if m.ok}
    return found


def summary(prefix: str, estimates: Floats, truth: Floats) -> dict[str, float]:
    """Shares within 5 and 10 %, mean and largest error, rank correlation; names with a prefix."""
    errors = estimates / truth - 1.0
    return {
        f"{prefix}n": len(truth),
        f"{prefix}within5": float((abs(errors) <= 0.05).mean()),
        f"{prefix}within10": float((abs(errors) <= 0.10).mean()),
        f"{prefix}mape": float(abs(errors).mean()),
        f"{prefix}bias": float(errors.mean()),
        f"{prefix}worst": float(abs(errors).max()),
        f"{prefix}spearman": float(spearmanr(estimates, truth)[0]),
    }
