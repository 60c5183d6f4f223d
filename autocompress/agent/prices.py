"""Prices for the study: one by one while few are asked for, vectorised for many; never changing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autocompress.core.space import Genome
from autocompress.hardware.pricing import CandidatePricer

#: Below this many genomes in all, learning the vectorised form costs more than it saves.
_FEW = 4096


class Prices:
    """Remembers every price it gave, so that equal genomes have equal prices.

    Args:
        pricer: knows both ways.
    """

    def __init__(self, pricer: CandidatePricer) -> None:
        self.pricer = pricer
        self._known: dict[bytes, dict[str, float]] = {}

    def __call__(self, genomes: Sequence[Genome]) -> list[dict[str, float]]:
        """Priced metrics of each genome, in order."""
        keys = [np.ascontiguousarray(g, dtype=np.int64).tobytes() for g in genomes]
        new = {k: g for k, g in zip(keys, genomes, strict=True) if k not in self._known}
        if len(self._known) + len(new) <= _FEW:
            found = [self.pricer.exact(genome) for genome in new.values()]
        else:
            found = self.pricer(list(new.values())) if new else []
        self._known.update(zip(new, found, strict=True))
        return [self._known[key] for key in keys]
