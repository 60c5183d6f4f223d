"""What a kernel that was never measured probably costs, from those of its kind that were.

A regression over its kind where there are enough rows, over its operator where there are some, and
a cautious guess where nothing alike was measured: always a figure, with a band that says how
little is known.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from autocompress.hardware.regression import KernelRegression, kind_of
from autocompress.hardware.table import LatencyRow
from autocompress.measurement.kernels import KernelSignature

_FEWEST = 6
#: Smallest relative error to expect of an estimate from the same kind, and from the operator.
KIND_ERROR, OPERATOR_ERROR, BLIND_ERROR = 0.05, 0.5, 1.0
#: Standard deviations that hold nine in ten errors.
_NINE_IN_TEN = 1.645
#: A cautious guess where nothing alike was measured: 5 GMAC/s, 2 GB/s, 1 us a kernel.
_BLIND_US, _BLIND_MACS, _BLIND_BYTES = 1.0, 5e3, 2e3


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

    def guess(self, kernel: KernelSignature) -> Guess:
        """The estimate for ``kernel``; never fails."""
        kind = kind_of(kernel)
        for name, rows, least, error in (
            (f"kind {kind}", self._kinds.get(kind, []), _FEWEST, KIND_ERROR),
            (f"operator {kernel.op}", self._operators.get(kernel.op, []), 2, OPERATOR_ERROR),
        ):
            if len(rows) >= least:
                return self._from(name, rows, kernel, error)
        moved = kernel.weight_bytes + kernel.activation_bytes
        time = _BLIND_US + kernel.macs / _BLIND_MACS + moved / _BLIND_BYTES
        return Guess(time, time, BLIND_ERROR)

    def _from(
        self, name: str, rows: list[LatencyRow], kernel: KernelSignature, least: float
    ) -> Guess:
        if name not in self._fitted:
            self._fitted[name] = KernelRegression(rows)
        fitted = self._fitted[name]
        hot, deviation = fitted.predict(kernel)
        error = min(BLIND_ERROR, max(least, math.expm1(_NINE_IN_TEN * deviation)))
        return Guess(hot, hot * fitted.ctx_ratio, error)
