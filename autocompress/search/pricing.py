"""What is known about a genome before it is evaluated, and whether that is within bounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from autocompress.core.objective import Constraint
from autocompress.core.space import Genome
from autocompress.errors import RequestError

#: Priced metrics (latency_ms, size_bytes …) of many genomes at once, in their order.
Price: TypeAlias = Callable[[Sequence[Genome]], Sequence[Mapping[str, float]]]


class Pricer:
    """Prices genomes and holds them against the constraints that need no evaluation."""

    def __init__(self, price: Price, constraints: Sequence[Constraint]) -> None:
        """Use ``price`` for the priced ones of ``constraints``; the others are ignored."""
        self._price = price
        self.constraints = tuple(c for c in constraints if c.priced)

    def metrics(self, genomes: Sequence[Genome]) -> list[dict[str, float]]:
        """Finite metrics of each genome; what is not known is left out.

        Raises:
            RequestError: ``price`` did not answer for every genome.
        """
        rows = self._price(list(genomes)) if len(genomes) else []
        if len(rows) != len(genomes):
            raise RequestError(f"price gave {len(rows)} answers for {len(genomes)} genomes")
        return [
            {str(k): float(v) for k, v in row.items() if v is not None and math.isfinite(v)}
            for row in rows
        ]

    def violations(self, genomes: Sequence[Genome]) -> npt.NDArray[np.float64]:
        """How far each genome is beyond each bound, shape ``(genomes, constraints)``.

        Relative to the bound, 0 where it is met; infinite where the metric is not known.
        """
        shape = (len(genomes), len(self.constraints))
        if not self.constraints or not len(genomes):
            return np.zeros(shape)
        rows = self.metrics(genomes)
        self._check_known(rows)
        return np.array(
            [[c.violation(row.get(c.metric, math.nan)) for c in self.constraints] for row in rows]
        ).reshape(shape)

    def _check_known(self, rows: Sequence[Mapping[str, float]]) -> None:
        for constraint in self.constraints:
            if not any(constraint.metric in row for row in rows):
                known = ", ".join(sorted({name for row in rows for name in row})) or "nothing"
                raise RequestError(
                    f"{constraint.metric} is constrained, but the device profile cannot price it "
                    f"(it prices {known}); drop the constraint or use another profile"
                )

    def reason(self, violations: npt.NDArray[np.float64]) -> str:
        """The constraint that one row of :meth:`violations` breaks most, in words."""
        return describe(self.constraints[int(np.argmax(violations))]) + " not met"


def describe(constraint: Constraint) -> str:
    """``"latency_ms <= 2"``."""
    return f"{constraint.metric} {'<=' if is_upper(constraint) else '>='} {constraint.bound:g}"


def is_upper(constraint: Constraint) -> bool:
    """Whether larger values break it."""
    return constraint.violation(constraint.bound + 1) > 0
