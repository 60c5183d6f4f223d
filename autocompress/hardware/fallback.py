"""What a kernel that was never measured probably costs, from those of its kind that were.

A regression on multiply-accumulates and bytes within the kernel's family, corrected by its nearest
measured neighbours. Such regressions are off by an eighth or so on shapes they never saw; hence
the wide band.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from autocompress.hardware.table import LatencyRow
from autocompress.measurement.kernels import KernelSignature

_NEIGHBOURS = 3
_FEWEST = 4
#: Relative error to expect of an estimate from the same family, the same operator, or nothing.
FAMILY_ERROR, OPERATOR_ERROR, BLIND_ERROR = 0.25, 0.5, 1.0
#: A cautious guess where nothing alike was measured: 5 GMAC/s, 2 GB/s, 1 us a kernel.
_BLIND = np.array([1.0, 1.0 / 5e3, 1.0 / 2e3])


@dataclass(frozen=True, slots=True)
class Guess:
    """An unmeasured kernel's estimated time and how far it may be off, as a share."""

    hot_us: float
    ctx_us: float
    error: float


@dataclass(frozen=True, slots=True)
class _Family:
    coefficients: npt.NDArray[np.float64]
    logs: npt.NDArray[np.float64]
    ratios: npt.NDArray[np.float64]
    ctx_ratio: float


def _features(kernel: KernelSignature) -> npt.NDArray[np.float64]:
    moved = kernel.weight_bytes + kernel.activation_bytes
    return np.array([1.0, float(kernel.macs), float(moved)])


def _position(kernel: KernelSignature) -> npt.NDArray[np.float64]:
    sizes = (kernel.macs, kernel.weight_bytes, kernel.activation_bytes)
    return np.log2(1.0 + np.array(sizes, dtype=np.float64))


class Fallback:
    """Estimates from the rows of a table; build it anew when the table grows."""

    def __init__(self, rows: Iterable[LatencyRow]) -> None:
        families: dict[str, list[LatencyRow]] = {}
        operators: dict[str, list[LatencyRow]] = {}
        for row in rows:
            families.setdefault(row.kernel.family, []).append(row)
            operators.setdefault(row.kernel.op, []).append(row)
        self._families = families
        self._operators = operators
        self._fitted: dict[str, _Family] = {}

    def guess(self, kernel: KernelSignature) -> Guess:
        """The estimate for ``kernel``; never fails."""
        for level, key, groups, error in (
            ("family", kernel.family, self._families, FAMILY_ERROR),
            ("operator", kernel.op, self._operators, OPERATOR_ERROR),
        ):
            rows = groups.get(key, [])
            if len(rows) >= (_FEWEST if level == "family" else 1):
                return self._from(f"{level}:{key}", rows, kernel, error)
        time = float(_features(kernel) @ _BLIND)
        return Guess(time, time, BLIND_ERROR)

    def _from(
        self, key: str, rows: list[LatencyRow], kernel: KernelSignature, error: float
    ) -> Guess:
        if key not in self._fitted:
            self._fitted[key] = _fit(rows)
        family = self._fitted[key]
        distance = np.abs(family.logs - _position(kernel)).sum(axis=1)
        nearest = np.argsort(distance, kind="stable")[:_NEIGHBOURS]
        weights = 1.0 / (0.25 + distance[nearest])
        correction = float(np.exp(np.average(np.log(family.ratios[nearest]), weights=weights)))
        hot = max(0.05, float(_features(kernel) @ family.coefficients) * correction)
        spread = error * (1.0 + min(1.0, float(distance[nearest].min()) / 4.0))
        return Guess(hot, hot * family.ctx_ratio, min(BLIND_ERROR, spread))


def _fit(rows: list[LatencyRow]) -> _Family:
    """Non-negative coefficients of (1, MACs, bytes) for the smallest relative error."""
    features = np.array([_features(row.kernel) for row in rows])
    times = np.maximum(0.05, np.array([row.hot_us for row in rows]))
    scale = np.maximum(features.max(axis=0), 1.0)
    design = features / scale / times[:, None]
    active = [i for i in range(3) if features[:, i].any()]
    coefficients = np.zeros(3)
    while active:
        part = design[:, active]
        ridge = 1e-4 * np.eye(len(active))
        solved = np.linalg.solve(part.T @ part + ridge, part.T @ np.ones(len(rows)))
        if (solved >= 0).all():
            coefficients[active] = solved
            break
        active = [i for i, value in zip(active, solved, strict=True) if value > 0]
    coefficients /= scale
    if not coefficients.any():
        coefficients[0] = float(np.median(times))
    predicted = np.maximum(0.05, features @ coefficients)
    ctx = np.array([max(row.ctx_us, row.hot_us) for row in rows])
    return _Family(
        coefficients,
        np.array([_position(row.kernel) for row in rows]),
        times / predicted,
        float(np.median(ctx / times)),
    )
