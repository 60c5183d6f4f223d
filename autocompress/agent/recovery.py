"""How much of what a short training left open full training is expected to close."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Recovery:
    """Accuracy after full training as a straight line of that after a short one.

    A flat line says that all end alike, the diagonal that nothing is won back. A fitted line also
    draws scores that chance has raised back to the level that such models really reach.

    Attributes:
        slope: between 0 and 1.
        level: where the line meets an accuracy of zero.
    """

    slope: float
    level: float

    @classmethod
    def fitted(
        cls, before: Sequence[float], after: Sequence[float], anchor: float | None
    ) -> Recovery:
        """The least-squares line through what was trained in full, and the original.

        Args:
            before: accuracies after short training.
            after: the same candidates' after full training.
            anchor: accuracy of the original, which stays what it is; None if it is not known.
        """
        extra = [] if anchor is None else [anchor]
        x, y = np.array([*before, *extra]), np.array([*after, *extra])
        if len(x) == 0:
            return cls(1.0, 0.0)
        centred = x - x.mean()
        spread = float(centred @ centred)
        slope = float(centred @ y) / spread if spread > 0 else 1.0
        slope = min(1.0, max(0.0, slope))
        return cls(slope, float(y.mean() - slope * x.mean()))

    def __call__(self, now: float) -> float:
        """What ``now``, an accuracy after short training, is expected to become."""
        return self.level + self.slope * now
