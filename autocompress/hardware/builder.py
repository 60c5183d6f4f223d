"""Builds a device's latency table out of a search space: what is reached is what is measured.

The kernels of sampled candidates are counted. Those that occur most often are measured first, so
that whenever time runs out the rest are rare ones, which are predicted from measured rows of their
kind. Rows are kept as they come: a build that is cut off goes on where it stopped.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from autocompress.graph.ops import Op
from autocompress.hardware.local import ROW_SECONDS
from autocompress.hardware.predictor import LatencyPredictor
from autocompress.measurement.kernels import KernelSignature

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class BuildPlan:
    """What building a table will take.

    Attributes:
        candidates: candidates whose kernels were counted.
        reached: different kernels that they have.
        known: of these, how many the table holds.
        missing: how many it lacks.
        seconds: expected time to measure what is missing.
        coverage: estimated share of what candidates that were never looked at execute that is
            among the kernels reached, from how many were met once and twice (Chao and Jost 2012,
            doi:10.1890/11-1952.1, for incidence data).
    """

    candidates: int
    reached: int
    known: int
    missing: int
    seconds: float
    coverage: float

    def sentence(self) -> str:
        """The plan in words."""
        return (
            f"{self.reached} kernels are within reach of {self.candidates} candidates; they cover "
            f"an estimated {self.coverage:.1%} of what others of the space execute. {self.known} "
            f"are in the table, {self.missing} are missing: about {self.seconds / 60:.1f} minutes."
        )


@dataclass(frozen=True, slots=True)
class Built:
    """What came of a build.

    Attributes:
        reached: different kernels of the candidates looked at.
        measured: rows that this build measured.
        missing: kernels that the table still lacks; they are predicted from their kind.
        seconds: what it took.
        covered: share of all kernel occurrences, in the candidates looked at, with a row.
    """

    reached: int
    measured: int
    missing: int
    seconds: float
    covered: float


class TableBuilder:
    """Enumerates what a space reaches and measures it, the most useful first.

    Args:
        predictor: the device; with a local table where it is at hand.
    """

    def __init__(self, predictor: LatencyPredictor) -> None:
        self.predictor = predictor
        self.candidates = 0
        self._counts: Counter[KernelSignature] = Counter()
        self._first: dict[KernelSignature, None] = {}

    def add(self, candidates: Iterable[Sequence[Op]], *, first: bool = False) -> None:
        """Count the kernels of further candidates.

        Args:
            candidates: the operations of each.
            first: whether their kernels come before all others, such as those of a baseline.
        """
        for ops in candidates:
            found = {k for k in self.predictor.kernels(ops) if not k.is_view}
            self._counts.update(found)
            if first:
                self._first |= dict.fromkeys(sorted(found, key=lambda k: k.key))
            self.candidates += 1

    def kernels(self) -> list[KernelSignature]:
        """All that were reached: those that come first, then by how often they occur."""
        rest = sorted(self._counts, key=lambda k: (-self._counts[k], k.key))
        return list(dict.fromkeys([*self._first, *rest]))

    def missing(self) -> list[KernelSignature]:
        """Those that the table lacks, in the order in which they should be measured."""
        table = self.predictor.profile.table
        return [kernel for kernel in self.kernels() if kernel not in table]

    def plan(self) -> BuildPlan:
        """How many rows, and how long: before anything is measured."""
        missing = len(self.missing())
        local = self.predictor.local
        return BuildPlan(
            candidates=self.candidates,
            reached=len(self._counts),
            known=len(self._counts) - missing,
            missing=missing,
            seconds=missing * (ROW_SECONDS if local is None else local.row_seconds),
            coverage=self._coverage(),
        )

    def _coverage(self) -> float:
        """Coverage of the space by a sample of candidates, each of which has a kernel or not."""
        total, n = sum(self._counts.values()), self.candidates
        once = sum(count == 1 for count in self._counts.values())
        twice = sum(count == 2 for count in self._counts.values())
        if not total:
            return 0.0
        if not once:
            return 1.0
        return 1.0 - once / total * ((n - 1) * once) / ((n - 1) * once + 2 * twice)

    def build(self, *, deadline: float | None = None, progress: Progress | None = None) -> Built:
        """Measure what is missing, where the device is at hand; elsewhere nothing.

        Args:
            deadline: ``time.monotonic()`` after which nothing new is started.
            progress: told how many of how many are done.
        """
        began = time.monotonic()
        done = self.predictor.measure(self.missing(), deadline=deadline, progress=progress)
        table = self.predictor.profile.table
        total = sum(self._counts.values())
        covered = sum(n for kernel, n in self._counts.items() if kernel in table)
        return Built(
            reached=len(self._counts),
            measured=done,
            missing=len(self.missing()),
            seconds=time.monotonic() - began,
            covered=covered / total if total else 1.0,
        )
