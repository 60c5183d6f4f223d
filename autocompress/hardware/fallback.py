"""What a kernel that was never measured probably costs, from those of its kind that were.

A regression over its kind where there are enough rows, over its operator where there are some, and
a cautious guess where nothing alike was measured, at half the rate that other operators reach:
always a figure, with a band that says how little is known.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from autocompress.hardware.regression import KernelRegression, kind_of
from autocompress.hardware.roofline import family_of, work_of
from autocompress.hardware.table import LatencyRow
from autocompress.measurement.kernels import KernelSignature

_FEWEST = 6
#: Smallest relative error to expect of an estimate from the same kind, and from the operator.
KIND_ERROR, OPERATOR_ERROR, BLIND_ERROR = 0.05, 0.5, 1.0
#: Standard deviations that hold nine in ten errors.
_NINE_IN_TEN = 1.645
#: A cautious guess where nothing alike was measured: 5 GMAC/s, 2 GB/s, 1 us a kernel.
_BLIND_US, _BLIND_MACS, _BLIND_BYTES = 1.0, 5e3, 2e3
#: What a row must do for its rate to count, in multiply-accumulates or bytes.
_COUNTS = 1e5
#: Share of the usual rate of other operators that an unknown one is trusted to reach.
_TRUST = 0.5


@dataclass(frozen=True, slots=True)
class Guess:
    """An unmeasured kernel's estimated time.

    Attributes:
        hot_us: microseconds, hot.
        ctx_us: microseconds among copies with data of their own.
        error: how far it may be off in nine cases of ten, as a share.
    """

    hot_us: float
    ctx_us: float
    error: float


class Fallback:
    """Estimates from the rows of a table; build it anew when the table grows."""

    def __init__(self, rows: Iterable[LatencyRow]) -> None:
        self._kinds: dict[str, list[LatencyRow]] = {}
        self._operators: dict[str, list[LatencyRow]] = {}
        for row in rows:
            self._kinds.setdefault(kind_of(row.kernel), []).append(row)
            self._operators.setdefault(row.kernel.op, []).append(row)
        self._fitted: dict[str, KernelRegression] = {}
        found: dict[tuple[str, str], list[float]] = {}
        for kernel_row in (one for some in self._operators.values() for one in some):
            unit, work = _work(kernel_row.kernel)
            if work >= _COUNTS and kernel_row.hot_us > 0:
                rate = work / kernel_row.hot_us
                found.setdefault((unit, _dtype(kernel_row.kernel)), []).append(rate)
        self._rates = {key: median(rates) for key, rates in found.items() if len(rates) >= _FEWEST}

    def guess(self, kernel: KernelSignature) -> Guess:
        """The estimate for ``kernel``; never fails."""
        kind = kind_of(kernel)
        for name, rows, least, error in (
            (f"kind {kind}", self._kinds.get(kind, []), _FEWEST, KIND_ERROR),
            (f"operator {kernel.op}", self._operators.get(kernel.op, []), 2, OPERATOR_ERROR),
        ):
            if len(rows) >= least:
                return self._from(name, rows, kernel, error)
        unit, work = _work(kernel)
        macs = work if unit == "macs" else 0
        moved = kernel.weight_bytes + kernel.activation_bytes
        time = _BLIND_US + macs / self._rate("macs", kernel) + moved / self._rate("bytes", kernel)
        return Guess(time, time, BLIND_ERROR)

    def _rate(self, unit: str, kernel: KernelSignature) -> float:
        """Multiply-accumulates or bytes a microsecond that an unknown operator may reach."""
        known = self._rates.get((unit, _dtype(kernel)), 0.0)
        return max(_TRUST * known, _BLIND_MACS if unit == "macs" else _BLIND_BYTES)

    def _from(
        self, name: str, rows: list[LatencyRow], kernel: KernelSignature, least: float
    ) -> Guess:
        if name not in self._fitted:
            self._fitted[name] = KernelRegression(rows)
        fitted = self._fitted[name]
        hot, deviation = fitted.predict(kernel)
        error = min(BLIND_ERROR, max(least, math.expm1(_NINE_IN_TEN * deviation)))
        return Guess(hot, hot * fitted.ctx_ratio, error)


def _work(kernel: KernelSignature) -> tuple[str, float]:
    """What a kernel mostly does: multiply-accumulates ("macs") or moving "bytes", and how many."""
    if family_of(kernel) != "elementwise":
        return "macs", float(work_of(kernel))
    return "bytes", float(kernel.weight_bytes + kernel.activation_bytes)


def _dtype(kernel: KernelSignature) -> str:
    return next((t.dtype for t in kernel.inputs if t is not None), "")
